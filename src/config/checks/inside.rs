//! `inside`: legs, their prefixes and their interfaces.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::problem::Location;
use crate::config::reader::cursor::Located;
use crate::config::schema::Required;
use crate::config::sections::{FileInsideLeg, FileUplink, Inside, InsideLeg, Tun};
use crate::config::types::{Items, network};
use crate::nearest;

use super::checker::Checker;

/// The inside legs of the file under check.
pub(super) struct InsideLegs<'t> {
    /// The legs that could be read.
    legs: &'t [Located<FileInsideLeg>],
    /// Every prefix; None if one could not be read.
    prefixes: Option<Vec<&'t Located<Ipv4Net>>>,
}

impl<'t> InsideLegs<'t> {
    pub(super) fn of(inside: &'t Required<Items<FileInsideLeg>>) -> Self {
        let Some(items) = inside else { return Self { legs: &[], prefixes: None } };
        let legs = items.value.readable.as_slice();
        let of_leg = |leg: &'t Located<FileInsideLeg>| leg.prefixes.as_ref()?.value.all();
        let of_legs: Option<Vec<_>> = legs.iter().map(of_leg).collect();
        let prefixes = of_legs.filter(|_| items.value.complete);
        Self { legs, prefixes: prefixes.map(|of_legs| of_legs.into_iter().flatten().collect()) }
    }

    /// Returns the first of the addresses that an inside prefix holds, with the prefix.
    pub(super) fn first_inside(&self, addresses: &[Ipv4Addr]) -> Option<(Ipv4Addr, Ipv4Net)> {
        addresses.iter().find_map(|address| Some((*address, self.prefix_of(*address)?)))
    }

    /// Returns the prefix that holds an address.
    pub(super) fn prefix_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let mut prefixes = self.prefixes.iter().flatten();
        prefixes.find(|prefix| prefix.contains(&address)).map(|prefix| prefix.value)
    }

    /// Returns whether an inside prefix holds another prefix; true if one could not be read.
    pub(super) fn may_hold(&self, part: Ipv4Net) -> bool {
        let holds = |prefixes: &Vec<&Located<Ipv4Net>>| {
            prefixes.iter().any(|prefix| prefix.contains(&part))
        };
        self.prefixes.as_ref().is_none_or(holds)
    }

    /// Returns the inside prefix that holds another prefix.
    pub(super) fn prefix_around(&self, part: Ipv4Net) -> Option<Ipv4Net> {
        let mut prefixes = self.prefixes.iter().flatten();
        prefixes.find(|prefix| prefix.contains(&part)).map(|prefix| prefix.value)
    }

    /// Returns an inside prefix that another prefix holds.
    pub(super) fn prefix_within(&self, whole: Ipv4Net) -> Option<Ipv4Net> {
        let mut prefixes = self.prefixes.iter().flatten();
        prefixes.find(|prefix| whole.contains(&prefix.value)).map(|prefix| prefix.value)
    }

    /// Returns the interface of the leg that holds two prefixes.
    pub(super) fn leg_of_both(&self, one: Ipv4Net, other: Ipv4Net) -> Option<&'t str> {
        let mut legs = self.legs.iter();
        let leg = legs.find(|leg| {
            let prefixes = leg.prefixes.as_ref().and_then(|prefixes| prefixes.value.all());
            let holds = |part: Ipv4Net| {
                prefixes.is_some_and(|all| all.iter().any(|prefix| prefix.contains(&part)))
            };
            holds(one) && holds(other)
        })?;
        leg.interface.as_ref().map(|interface| interface.value.as_str())
    }

    /// Lists the prefixes for a message.
    pub(super) fn known_prefixes(&self) -> String {
        let known = self.prefixes.iter().flatten().map(|prefix| prefix.value.to_string());
        let known: Vec<String> = known.collect();
        nearest::list(known.iter().map(String::as_str))
    }

    /// Returns the path of the key that holds the prefixes.
    pub(super) fn prefixes_key(&self) -> &'static str {
        if self.legs.len() > 1 { "inside[].prefixes" } else { "inside.prefixes" }
    }

    /// Returns the private network; None if a part could not be read.
    pub(super) fn whole(&self) -> Option<Inside> {
        self.prefixes.as_ref()?;
        let leg = |leg: &Located<FileInsideLeg>| {
            Some(InsideLeg {
                interface: leg.interface.as_ref()?.value.clone(),
                address: leg.address.given().map(|address| address.value),
                prefixes: leg.prefixes.as_ref()?.value.values()?,
            })
        };
        Some(Inside { legs: self.legs.iter().map(leg).collect::<Option<_>>()? })
    }
}

/// Reports prefixes that overlap, addresses outside the prefixes of their leg, and an interface
/// that two of the legs, the uplinks and the TUN device have in common.
pub(super) fn check(inside: &InsideLegs<'_>, tun: &Tun, checker: &Checker<'_>) {
    check_prefixes(inside, checker);
    for leg in inside.legs {
        check_address(leg, inside, checker);
    }
    check_interfaces(inside, tun, checker);
}

fn check_prefixes(inside: &InsideLegs<'_>, checker: &Checker<'_>) {
    // A leg with an unreadable prefix is left out, like the prefixes of its mapping.
    let prefixes = inside.legs.iter().filter_map(|leg| leg.prefixes.as_ref()?.value.all());
    let prefixes: Vec<&Located<Ipv4Net>> = prefixes.flatten().collect();
    for (index, prefix) in prefixes.iter().enumerate() {
        let other = prefixes[..index]
            .iter()
            .find(|other| other.contains(&prefix.value) || prefix.contains(&other.value));
        let Some(other) = other else { continue };
        let wanted = format!("a prefix apart from {} ({})", other.value, other.location.key);
        let advice = match mapping_around(&prefix.location) == mapping_around(&other.location) {
            true => "leave out the smaller of the two",
            false => "give each prefix to the one inside leg that leads there",
        };
        checker.diagnostics.report(&prefix.location, prefix.value.to_string(), wanted, advice);
    }
}

fn check_address(leg: &FileInsideLeg, inside: &InsideLegs<'_>, checker: &Checker<'_>) {
    let prefixes = leg.prefixes.as_ref().and_then(|prefixes| prefixes.value.all());
    let (Some(address), Some(prefixes)) = (leg.address.given(), prefixes) else { return };
    if let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains(&address.value)) {
        if network::is_of_no_host(prefix.value, address.value) {
            let found =
                format!("{}, the network or broadcast address of {}", address.value, prefix.value);
            let advice = "write the address that the box has on the inside interface";
            checker.diagnostics.report(&address.location, found, "a host's address", advice);
        }
        return;
    }
    let (wanted, key) = match inside.legs.len() {
        0 | 1 => ("an address in one of `inside.prefixes`", "`inside.prefixes`"),
        _ => ("an address in one of the `prefixes` of its inside leg", "the `prefixes`"),
    };
    let advice = format!("write the box's own address on the private network, or correct {key}");
    checker.diagnostics.report(&address.location, address.value.to_string(), wanted, advice);
}

/// Reports an interface with two uses, and a TUN device with the name of another interface.
fn check_interfaces(inside: &InsideLegs<'_>, tun: &Tun, checker: &Checker<'_>) {
    let legs: Vec<&Located<String>> =
        inside.legs.iter().filter_map(|leg| leg.interface.as_ref()).collect();
    for (index, leg) in legs.iter().enumerate() {
        if let Some(first) = legs[..index].iter().find(|first| first.value == leg.value) {
            let found = format!(
                "`{}`, which is the interface of {}",
                leg.value,
                mapping_around(&first.location)
            );
            let advice = "join the two, or give this one a VLAN interface of its own";
            checker.diagnostics.report(&leg.location, found, "another interface", advice);
        }
    }
    let interface = |uplink: &'_ Located<FileUplink>| uplink.value.interface.clone();
    let uplinks: Vec<Located<String>> = checker.uplinks().iter().filter_map(interface).collect();
    for outside in &uplinks {
        if legs.iter().any(|inside| inside.value == outside.value) {
            let found = format!("`{}`, which is the inside interface", outside.value);
            let advice = "give each uplink an interface of its own; a VLAN interface serves";
            checker.diagnostics.report(&outside.location, found, "another interface", advice);
        }
    }
    let mut all = legs.into_iter().chain(&uplinks);
    if let Some(taken) = all.find(|interface| interface.value == tun.name) {
        let found = format!(
            "`{}`, which is the interface of {}",
            tun.name,
            mapping_around(&taken.location)
        );
        let advice = "choose another, such as `nb1`: natbox makes this device";
        checker.diagnostics.report(
            &checker.location_of("tun.name"),
            found,
            "a name of its own",
            advice,
        );
    }
}

/// Returns `inside[0]` of `inside[0].interface` and of `inside[0].prefixes[1]`.
fn mapping_around(location: &Location) -> String {
    let (mapping, _) = location.key.rsplit_once('.').unwrap_or((&location.key, ""));
    format!("`{mapping}`")
}

//! `forwards`: the uplinks, addresses and ports that each item publishes, and that no two clash.

mod dynamic_ports;
mod overlaps;
mod published;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use crate::config::problem::Location;
use crate::config::reader::cursor::Located;
use crate::config::schema::Unresolved;
use crate::config::sections::{FileForward, FileUplink, Forward};
use crate::config::types::network::{self, ForwardTarget};
use crate::nearest;
use crate::values::nat::{ForwardProtocol, PortRange};

use super::checker::Checker;
use super::inside::InsideLegs;
use published::Published;

/// Returns the forwards of the configuration. They are incomplete if a problem was reported.
/// `dynamic`: the ports for mappings.
pub(super) fn check(
    items: &[Located<FileForward>],
    inside: &InsideLegs<'_>,
    dynamic: PortRange,
    checker: &Checker<'_>,
) -> Vec<Forward> {
    let published: Vec<Published<'_>> = items
        .iter()
        .enumerate()
        .flat_map(|(index, item)| publish(index, item, inside, checker))
        .collect();
    check_names(&published, checker);
    overlaps::check(&published, checker);
    let forwards: Vec<_> = published.into_iter().map(|published| published.forward).collect();
    dynamic_ports::check(&forwards, dynamic, checker);
    forwards
}

/// Returns the forwards that one item of the list stands for: one for each uplink that the item
/// names.
fn publish<'d>(
    index: usize,
    item: &'d Located<FileForward>,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) -> Vec<Published<'d>> {
    let endpoints = published_endpoints(item, checker);
    let ports = ports_and_target(item, checker);
    if let Some(to) = &item.to {
        check_target_inside(to, inside, checker);
    }
    let name = match &item.name {
        Unresolved::Given(name) => name.value.clone(),
        Unresolved::Absent | Unresolved::Unreadable => format!("forward-{}", index + 1),
    };
    let (Some(protocol), Some((ports, to_port)), Some(to)) = (&item.protocol, ports, &item.to)
    else {
        return Vec::new();
    };
    let publish = |(uplink, address)| Published {
        forward: Forward {
            name: name.clone(),
            uplink,
            protocol: protocol.value,
            address,
            ports,
            to_address: to.address,
            to_port,
        },
        item,
    };
    endpoints.into_iter().map(publish).collect()
}

/// Returns the uplinks and addresses that the forward publishes on.
fn published_endpoints(
    item: &Located<FileForward>,
    checker: &Checker<'_>,
) -> Vec<(usize, Ipv4Addr)> {
    let uplinks = checker.uplinks();
    let concerned: Vec<usize> = match &item.uplink {
        Unresolved::Absent => (0..uplinks.len()).collect(),
        Unresolved::Unreadable => return Vec::new(),
        Unresolved::Given(name) => match checker.uplink_index(name) {
            Some(index) => vec![index],
            None => return Vec::new(),
        },
    };
    // If some uplink could not be read, the meaning of the forward there is unknown.
    if uplinks.iter().any(|uplink| uplink.addresses().is_none()) {
        return Vec::new();
    }
    match &item.address {
        Unresolved::Unreadable => Vec::new(),
        Unresolved::Given(address) => {
            // An external address belongs to one uplink only, so it determines the uplink.
            let is_owner = |index: &usize| addresses(&uplinks[*index]).contains(&address.value);
            let owner = concerned.iter().copied().find(is_owner);
            if owner.is_none() && !uplinks.is_empty() {
                report_unknown_address(item, address, &concerned, checker);
            }
            owner.map(|index| (index, address.value)).into_iter().collect()
        }
        Unresolved::Absent => {
            let only = |index: usize| Some((index, only_address(item, &uplinks[index], checker)?));
            concerned.into_iter().filter_map(only).collect()
        }
    }
}

fn addresses(uplink: &FileUplink) -> Vec<Ipv4Addr> {
    let items = uplink.addresses().unwrap_or_default();
    items.iter().flat_map(|item| item.value.iter().copied()).collect()
}

fn report_unknown_address(
    item: &FileForward,
    address: &Located<Ipv4Addr>,
    concerned: &[usize],
    checker: &Checker<'_>,
) {
    let known: Vec<String> = concerned
        .iter()
        .flat_map(|index| addresses(&checker.uplinks()[*index]))
        .filter(|address| !address.is_unspecified())
        .map(|address| address.to_string())
        .collect();
    let wanted = match item.uplink.given() {
        Some(name) => format!("an address of uplink `{}`", name.value),
        None => "an address of an uplink".into(),
    };
    let advice = match known.as_slice() {
        [] => "leave it out: the uplink has the address of its interface".to_owned(),
        some => format!("choose one of {}", nearest::list(some.iter().map(String::as_str))),
    };
    checker.diagnostics.report(&address.location, address.value.to_string(), wanted, advice);
}

/// Returns the only address of an uplink. Reports that the forward must choose if there are
/// several.
fn only_address(
    item: &Located<FileForward>,
    uplink: &FileUplink,
    checker: &Checker<'_>,
) -> Option<Ipv4Addr> {
    let addresses = addresses(uplink);
    if let [only] = addresses.as_slice() {
        return Some(*only);
    }
    let name = uplink.name().map_or("", |name| &name.value);
    let wanted = format!("one of the {} addresses of uplink `{name}`", addresses.len());
    let known: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    let known = nearest::list(known.iter().map(String::as_str));
    let advice = format!("add `address:` with one of {known}");
    checker.diagnostics.report(&item.location.field("address"), "no such key", wanted, advice);
    None
}

/// Returns the published ports and the first port of the target.
fn ports_and_target(
    item: &Located<FileForward>,
    checker: &Checker<'_>,
) -> Option<(PortRange, u16)> {
    let protocol = item.protocol.as_ref()?.value;
    if !protocol.has_ports() {
        check_no_ports(protocol, item, checker);
        item.to.as_ref()?;
        return Some((PortRange::ALL, 0));
    }
    let ports = match &item.port {
        Unresolved::Given(ports) => ports.value,
        Unresolved::Unreadable => return None,
        Unresolved::Absent => {
            let location = item.location.field("port");
            let advice = "add `port: 80` or `port: 8000-8099` with your own";
            checker.diagnostics.report(&location, "no such key", "the port to publish", advice);
            return None;
        }
    };
    target_port(ports, item.to.as_ref()?, checker).map(|to_port| (ports, to_port))
}

/// Reports ports of a protocol that has none.
fn check_no_ports(protocol: ForwardProtocol, item: &FileForward, checker: &Checker<'_>) {
    if let Unresolved::Given(port) = &item.port {
        let wanted = format!("no `port`, because `protocol: {protocol}` publishes no single ports");
        let advice = "remove it, or choose tcp, udp or tcp+udp";
        checker.diagnostics.report(&port.location, port.value.to_string(), wanted, advice);
    }
    if let Some(to) = &item.to
        && let Some(port) = to.ports
    {
        let wanted = format!("an address without port, because of `protocol: {protocol}`");
        let advice = format!("write `to: {}`", to.address);
        checker.diagnostics.report(&to.location, format!("port {port}"), wanted, advice);
    }
}

fn target_port(
    ports: PortRange,
    to: &Located<ForwardTarget>,
    checker: &Checker<'_>,
) -> Option<u16> {
    let Some(target) = to.ports else { return Some(ports.first) };
    let length = ports.last - ports.first;
    if target.first != target.last && target.last - target.first != length {
        let found = format!("{} ports ({target})", u32::from(target.last - target.first) + 1);
        let wanted = format!("the number of published ports: {} ({ports})", u32::from(length) + 1);
        checker.diagnostics.report(
            &to.location,
            found,
            wanted,
            "write the first port only, the others keep their offset",
        );
        return None;
    }
    if target.first.checked_add(length).is_none() {
        let found = format!(
            "port {} for the first of {} published ports",
            target.first,
            u32::from(length) + 1
        );
        let advice = format!("lower it to {} at most, or publish fewer", u16::MAX - length);
        checker.diagnostics.report(
            &to.location,
            found,
            "a range that ends at 65535 or before",
            advice,
        );
        return None;
    }
    Some(target.first)
}

fn check_target_inside(
    to: &Located<ForwardTarget>,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) {
    let address = to.address;
    match inside.prefix_of(address) {
        None if inside.may_hold(address.into()) => {}
        None => {
            let wanted = format!("an address within {}", inside.known_prefixes());
            let mut external = checker.external_addresses();
            let (found, advice) = match external.find(|known| known.contains(&address)) {
                Some(known) => (
                    format!("{address}, which is an address of this box ({})", known.location.key),
                    "write the server's address, or for a service of the box itself the address \
                     that the box has on the inside interface"
                        .into(),
                ),
                None => (
                    address.to_string(),
                    format!("correct it, or add its prefix to `{}`", inside.prefixes_key()),
                ),
            };
            checker.diagnostics.report(&to.location, found, wanted, advice);
        }
        Some(prefix) if network::is_of_no_host(prefix, address) => {
            let found = format!("{address}, the network or broadcast address of {prefix}");
            checker.diagnostics.report(
                &to.location,
                found,
                "a host's address",
                "write the server's address",
            );
        }
        Some(_) => {}
    }
}

fn check_names(published: &[Published<'_>], checker: &Checker<'_>) {
    let mut known: HashMap<(&str, usize), &Published<'_>> = HashMap::new();
    let mut reported: Option<&Location> = None;
    for one in published {
        match known.entry((&one.forward.name, one.forward.uplink)) {
            Entry::Vacant(vacant) => {
                vacant.insert(one);
            }
            // An item without `uplink` meets the same other item on every uplink. One report is
            // enough.
            Entry::Occupied(_) if reported == Some(&one.item.location) => {}
            Entry::Occupied(first) => {
                let found = format!(
                    "a second forward `{}` (the first is {})",
                    one.forward.name,
                    first.get().item.location.key
                );
                let location = match &one.item.name {
                    Unresolved::Given(name) => name.location.clone(),
                    Unresolved::Absent | Unresolved::Unreadable => one.item.location.field("name"),
                };
                let wanted = "one of each name on an uplink";
                checker.diagnostics.report(
                    &location,
                    found,
                    wanted,
                    "give this one another `name`",
                );
                reported = Some(&one.item.location);
            }
        }
    }
}

//! `uplinks`: names, addresses, gateways and targets of health checks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use crate::config::problem::Location;
use crate::config::schema::Unresolved;
use crate::config::sections::{FileUplink, Uplink, UplinkNumbers};
use crate::config::uplink_numbers::number_in_order;

use super::checker::Checker;
use super::health;
use super::inside::InsideLegs;

/// Checks the uplinks; None if one is not complete.
pub(super) fn check(inside: &InsideLegs<'_>, checker: &Checker<'_>) -> Option<Vec<Uplink>> {
    check_names(checker);
    check_followed(checker);
    check_addresses(inside, checker);
    check_number_of_addresses(checker);
    check_gateways(inside, checker);
    check_targets(inside, checker);
    let uplinks: Vec<_> = checker.uplinks().iter().map(|uplink| whole(uplink, checker)).collect();
    let mut uplinks: Vec<Uplink> = uplinks.into_iter().collect::<Option<_>>()?;
    number_in_order(&mut uplinks);
    Some(uplinks)
}

fn whole(uplink: &FileUplink, checker: &Checker<'_>) -> Option<Uplink> {
    let health = match &uplink.health {
        Unresolved::Absent => Some(None),
        Unresolved::Unreadable => None,
        Unresolved::Given(file) => health::whole(file, checker).map(Some),
    };
    Some(Uplink {
        name: uplink.name()?.value.clone(),
        interface: uplink.interface.as_ref()?.value.clone(),
        addresses: uplink.addresses()?.iter().flat_map(|item| item.value.clone()).collect(),
        follows_interface: uplink.follows_interface(),
        gateway: uplink.gateway.clone().into_option()?,
        weight: uplink.weight,
        tier: uplink.tier,
        health: health?,
        on_failure: uplink.on_failure,
        failback: uplink.failback,
        numbers: UplinkNumbers::default(),
    })
}

/// Reports two uplinks that follow the same interface.
fn check_followed(checker: &Checker<'_>) {
    let mut known: HashMap<&str, &Location> = HashMap::new();
    for uplink in checker.uplinks().iter().filter(|uplink| uplink.follows_interface()) {
        let Some(interface) = &uplink.interface else { continue };
        if let Some(first) = known.insert(&interface.value, &uplink.location) {
            let found =
                format!("the address of {}, which {} has already", interface.value, first.key);
            let wanted = "an interface of its own, or fixed addresses";
            let location = uplink.location.field("addresses");
            checker.diagnostics.report(&location, found, wanted, "correct one of the two");
        }
    }
}

fn check_names(checker: &Checker<'_>) {
    let mut known: HashMap<&str, &Location> = HashMap::new();
    for name in checker.uplinks().iter().filter_map(|uplink| uplink.name()) {
        match known.entry(&name.value) {
            Entry::Vacant(vacant) => {
                vacant.insert(&name.location);
            }
            Entry::Occupied(first) => {
                let found =
                    format!("a second uplink `{}` (the first is {})", name.value, first.get().key);
                let advice = "give this one a `name` of its own";
                checker.diagnostics.report(&name.location, found, "one of each name", advice);
            }
        }
    }
}

fn check_addresses(inside: &InsideLegs<'_>, checker: &Checker<'_>) {
    let mut known: HashMap<Ipv4Addr, &Location> = HashMap::new();
    let fixed = checker.uplinks().iter().filter(|uplink| !uplink.follows_interface());
    for addresses in fixed.filter_map(|uplink| uplink.addresses()).flatten() {
        // Reports at most one problem for an item of the list, which may stand for many addresses.
        let mut twice = None;
        for &address in &addresses.value {
            match known.entry(address) {
                Entry::Vacant(vacant) => {
                    vacant.insert(&addresses.location);
                }
                Entry::Occupied(first) => {
                    twice = twice.or(Some((address, first.get().key.clone())))
                }
            }
        }
        if let Some((address, first)) = twice {
            let found = format!("{address}, which {first} holds already");
            let advice = "remove it from one of the two";
            checker.diagnostics.report(
                &addresses.location,
                found,
                "each external address once",
                advice,
            );
        }
        if let Some((address, prefix)) = inside.first_inside(&addresses.value) {
            let found = format!("{address}, which lies in the inside prefix {prefix}");
            let key = inside.prefixes_key();
            let advice = format!("write the uplink's external address, or correct `{key}`");
            checker.diagnostics.report(&addresses.location, found, "an external address", advice);
        }
    }
}

fn check_number_of_addresses(checker: &Checker<'_>) {
    for uplink in checker.uplinks() {
        let number: usize =
            uplink.addresses().iter().flat_map(|all| all.iter()).map(|some| some.value.len()).sum();
        if number > Uplink::MAX_ADDRESSES {
            let wanted = format!("at most {}", Uplink::MAX_ADDRESSES);
            let location = uplink.location.field("addresses");
            checker.diagnostics.report(
                &location,
                format!("{number} addresses"),
                wanted,
                "publish fewer",
            );
        }
    }
}

fn check_gateways(inside: &InsideLegs<'_>, checker: &Checker<'_>) {
    let number = checker.uplinks().len();
    for uplink in checker.uplinks() {
        let gateway = match &uplink.gateway {
            Unresolved::Absent if number > 1 && !uplink.follows_interface() => {
                let wanted = format!("the next hop, because there are {number} uplinks");
                let location = uplink.location.field("gateway");
                checker.diagnostics.report(
                    &location,
                    "no such key",
                    wanted,
                    "add `gateway: ADDRESS`",
                );
                continue;
            }
            Unresolved::Absent | Unresolved::Unreadable => continue,
            Unresolved::Given(gateway) => gateway,
        };
        let wanted = "the provider's router";
        let mut own = checker.external_addresses();
        if let Some(own) = own.find(|addresses| addresses.contains(&gateway.value)) {
            let found = format!(
                "{}, which is an address of this box ({})",
                gateway.value, own.location.key
            );
            checker.diagnostics.report(
                &gateway.location,
                found,
                wanted,
                "ask the provider for its address",
            );
        }
        if let Some((address, prefix)) = inside.first_inside(&[gateway.value]) {
            let found = format!("{address}, which lies in the inside prefix {prefix}");
            checker.diagnostics.report(
                &gateway.location,
                found,
                wanted,
                "write its address on the uplink",
            );
        }
    }
}

/// Reports targets on this box or its private network: their answers reveal nothing about an
/// uplink.
fn check_targets(inside: &InsideLegs<'_>, checker: &Checker<'_>) {
    let wanted = "a target beyond the uplink";
    let advice = "probe the provider's router, or a host beyond it";
    let health = checker.uplinks().iter().filter_map(|uplink| uplink.health.given());
    for target in health.flat_map(|health| health.target_addresses()) {
        if target.value.is_link_local() {
            let found = format!("{}, which no router forwards (link-local)", target.value);
            checker.diagnostics.report(&target.location, found, wanted, advice);
            continue;
        }
        let mut own = checker.external_addresses();
        if let Some(own) = own.find(|addresses| addresses.contains(&target.value)) {
            let found =
                format!("{}, which is an address of this box ({})", target.value, own.location.key);
            checker.diagnostics.report(&target.location, found, wanted, advice);
        } else if let Some((address, prefix)) = inside.first_inside(&[target.value]) {
            let found = format!("{address}, which lies in the inside prefix {prefix}");
            checker.diagnostics.report(&target.location, found, wanted, advice);
        }
    }
}

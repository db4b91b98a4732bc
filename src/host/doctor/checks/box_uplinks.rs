//! Checks the uplinks of a box: gateways answer, addresses are present and unique.

use crate::host::doctor::facts::box_facts::{BoxFacts, Gateway};
use crate::host::doctor::finding::Finding;
use crate::host::kernel::route_lookup::NeighbourState;

/// Checks that each gateway on the segment answers ARP.
pub(super) fn gateways(facts: &BoxFacts) -> Vec<Finding> {
    let uplinks = facts.config.uplinks.iter().zip(&facts.gateways).enumerate();
    let checked = uplinks.filter_map(|(place, (uplink, gateway))| {
        let Gateway { address, state } = (*gateway)?;
        let (name, interface) = (&uplink.name, &uplink.interface);
        let advice = format!(
            "check the router, its cable, and uplinks[{place}].gateway: ip neighbour show dev \
             {interface}"
        );
        Some(match state {
            Some(NeighbourState::Reachable) => {
                let found = format!("{name}: gateway {address} answers on {interface}");
                Finding::ok("gateway", found)
            }
            Some(NeighbourState::Failed) | None => {
                let found = format!("{name}: gateway {address} does not answer ARP on {interface}");
                Finding::error("gateway", found, "no packet leaves by this uplink").advice(advice)
            }
            Some(NeighbourState::Unconfirmed) => {
                let found =
                    format!("{name}: gateway {address} has not answered ARP on {interface} yet");
                let why = "if the gateway does not answer, no packet leaves by this uplink";
                Finding::warning("gateway", found, why).advice(advice)
            }
        })
    });
    checked.collect()
}

/// Checks that no other machine answers ARP for the published addresses.
pub(super) fn duplicates(facts: &BoxFacts) -> Vec<Finding> {
    let duplicates = facts.published.iter().filter(|published| published.is_duplicate);
    let findings: Vec<Finding> = duplicates
        .map(|published| {
            let (address, interface) = (published.address, &published.interface);
            let found = format!(
                "{address}: another machine on {interface} answers ARP for this published address"
            );
            let why = "the uplink's router delivers to the machine that answered last";
            Finding::error("duplicate-address", found, why).advice(format!(
                "find the machine by its hardware address: ip neighbour show {address} dev \
                 {interface}"
            ))
        })
        .collect();
    match (facts.published.len(), findings.is_empty()) {
        (0, _) | (_, false) => findings,
        (count, true) => vec![Finding::ok(
            "duplicate-address",
            format!("no other machine answers ARP for the {count} published addresses"),
        )],
    }
}

/// Reports interfaces that have lost the address of the configuration.
///
/// An uplink that follows its interface reports this in its own state.
pub(super) fn without_address(facts: &BoxFacts) -> Vec<Finding> {
    let host = &facts.host;
    let flags = host.assigned_to_host.iter().zip(&host.on_link);
    let uplinks = facts.config.uplinks.iter().zip(&host.uplinks).zip(flags);
    let mut findings = Vec::new();
    for ((uplink, found), (assigned, on_link)) in uplinks {
        let has_no_address = found.takes_routes()
            && found.arp
            && !found.assumed
            && found.address.is_none()
            && !uplink.follows_interface;
        let is_present =
            assigned.iter().zip(on_link).map(|(assigned, on_link)| *assigned || *on_link);
        let missing: Vec<String> = uplink
            .addresses
            .iter()
            .zip(is_present)
            .filter(|(_, is_present)| !is_present)
            .map(|(address, _)| address.to_string())
            .collect();
        if has_no_address && !missing.is_empty() {
            let interface = &found.interface;
            let text = format!(
                "{interface} has no address, so the host does not answer ARP there for {}",
                missing.join(", ")
            );
            let why = "the uplink's router cannot deliver packets";
            findings.push(Finding::error("address", text, why).advice(format!(
                "assign the address again, and find out what removed it (a DHCP client, networkd): \
                 ip address add {}/LENGTH dev {interface}",
                missing[0]
            )));
        }
    }
    findings
}

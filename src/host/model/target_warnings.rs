//! Messages about forwards that cannot work on this host.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::facts::HostFacts;
use super::own_traffic::OwnTraffic;
use super::presence::InterfaceState;
use super::snapshot::{FoundRoute, Snapshot};
use super::step::{RTPROT_NATBOX, RouteKind, TABLE_LOCAL, TABLE_MAIN};
use crate::config::Config;

/// Lists the forwards that cannot work, each target once.
pub(super) fn target_warnings(
    facts: &HostFacts,
    config: &Config,
    snapshot: &Snapshot,
) -> Vec<String> {
    let targets: BTreeMap<Ipv4Addr, &str> =
        config.forwards.iter().map(|forward| (forward.to_address, forward.name.as_str())).collect();
    let problem = |(address, name)| {
        let problem = problem(facts, config, snapshot, address)?;
        Some(format!("forwards: {name} leads to {address}, {problem}"))
    };
    let mut warnings: Vec<String> = targets.into_iter().filter_map(problem).collect();
    if facts.own_traffic.exceptions.len() >= OwnTraffic::MAX_EXCEPTIONS {
        warnings.push(format!(
            "routes: the main table has more than {} networks besides the uplinks; packets of the \
             host from its inside addresses to the rest of them go to natbox",
            OwnTraffic::MAX_EXCEPTIONS
        ));
    }
    warnings
}

fn problem(
    facts: &HostFacts,
    config: &Config,
    snapshot: &Snapshot,
    target: Ipv4Addr,
) -> Option<String> {
    if facts.own_traffic.addresses.contains(&target) {
        return None;
    }
    if is_of_no_host(snapshot, target) {
        return Some(
            "the network or broadcast address of a network of this host; write the server's \
             address"
                .into(),
        );
    }
    let mut legs = config.inside.legs.iter().zip(&facts.legs);
    let (leg, found) = legs.find(|(leg, _)| leg.prefix_of(target).is_some())?;
    let inside = &leg.interface;
    // The routes come with the interface.
    if matches!(found.state, InterfaceState::Missing | InterfaceState::Down) {
        return None;
    }
    let route = route_to(snapshot, target).map(|found| &found.route);
    let several_hops =
        route.is_some_and(|route| route.kind == RouteKind::Unicast && route.device.is_none());
    match route.and_then(|route| route.device.as_ref()) {
        Some(device) if device == inside => None,
        None if several_hops => None,
        Some(device) => Some(format!(
            "which this host reaches by {device} and not by {inside}, so replies do not pass \
             natbox; correct the address, or the routes: ip route get {target}"
        )),
        None => Some(format!(
            "to which this host has no route by {inside}; give {inside} an address of the server's \
             network, or add the route"
        )),
    }
}

/// Returns true for the network or broadcast address of a network that the host is connected to.
fn is_of_no_host(snapshot: &Snapshot, target: Ipv4Addr) -> bool {
    let broadcasts = snapshot
        .routes
        .iter()
        .map(|found| &found.route)
        .filter(|route| (route.table, route.kind) == (TABLE_LOCAL, RouteKind::Broadcast));
    let mut networks = snapshot.addresses.iter().map(|found| found.network);
    broadcasts.into_iter().any(|route| route.to.addr() == target)
        || networks.any(|network| network.prefix_len() < 31 && network.network() == target)
}

/// Finds the other programs' route of the main table to an address.
fn route_to(snapshot: &Snapshot, target: Ipv4Addr) -> Option<&FoundRoute> {
    let matching = snapshot.routes.iter().filter(|found| {
        found.route.table == TABLE_MAIN
            && found.protocol != RTPROT_NATBOX
            && found.route.to.prefix_len() > 0
            && found.route.to.contains(&target)
    });
    matching
        .max_by_key(|found| (found.route.to.prefix_len(), std::cmp::Reverse(found.route.metric)))
}

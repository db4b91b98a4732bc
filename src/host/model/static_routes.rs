//! The host's routes that an uplink without a configured gateway copies into its own table.
//!
//! A VPN client may add routes to the main table that precede the default route (`0.0.0.0/1` and
//! `128.0.0.0/1`). So natbox's packets do not use the main table. The table of the uplink has the
//! default route by the uplink's interface, and these routes of the main table:
//!
//! * the interface's routes to a network behind another next hop, as a DHCP server may give them;
//! * routes that drop packets, as a person may add them for private networks.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::snapshot::{FoundRoute, Link, Snapshot};
use super::step::{Route, RouteKind, TABLE_MAIN};

/// Largest number of routes that natbox copies.
pub(crate) const MAX_STATIC_ROUTES: usize = 1024;

/// Lists the routes to copy, without default routes. None: natbox cannot copy the interface's
/// routes, because they are more than [`MAX_STATIC_ROUTES`], or because the default route has
/// several next hops or one of IPv6. The packets then use the main table.
pub(super) fn static_routes(link: &Link, snapshot: &Snapshot) -> Option<Vec<Route>> {
    let is_by_interface = |route: &Route| route.device.as_deref() == Some(&link.name);
    let is_wanted = |found: &FoundRoute| {
        let route = &found.route;
        let leads = route.kind == RouteKind::Unicast && is_by_interface(route);
        let drops = matches!(route.kind, RouteKind::Blackhole | RouteKind::Unreachable);
        route.table == TABLE_MAIN
            && route.to.prefix_len() > 0
            && !found.is_natbox()
            && !found.is_opaque
            && (leads && route.via.is_some() || drops)
    };
    let default = snapshot.preferred_default();
    let is_default_opaque = default.is_some_and(|found| {
        let device = &found.route.device;
        found.is_opaque && (device.is_none() || is_by_interface(&found.route))
    });
    let routes = best_routes(snapshot, is_wanted);
    if is_default_opaque || routes.len() > MAX_STATIC_ROUTES {
        return None;
    }
    let route = |found: &FoundRoute| Route { source: None, metric: 0, ..found.route.clone() };
    Some(routes.into_values().map(route).collect())
}

/// Returns the preferred route to each network.
pub(super) fn best_routes(
    snapshot: &Snapshot,
    is_wanted: impl Fn(&FoundRoute) -> bool,
) -> BTreeMap<Ipv4Net, &FoundRoute> {
    let mut best: BTreeMap<Ipv4Net, &FoundRoute> = BTreeMap::new();
    for found in snapshot.routes.iter().filter(|found| is_wanted(found)) {
        let known = best.entry(found.route.to).or_insert(found);
        if found.route.metric < known.route.metric {
            *known = found;
        }
    }
    best
}

//! Networks of the host that are neither the inside nor an uplink's: containers behind a bridge,
//! VPN clients, routed networks. The host forwards their packets as it does without natbox.
//!
//! ```text
//!   R→O  a reply in by wan0, O as the kernel's NAT restored it ─ table outside: O ─▶ docker0
//!   S→O  in by lan0 ─ table inside: O ─▶ docker0
//!   O→R  in by docker0 ─ none of natbox's rules ─ main ─▶ wan0
//! ```
//!
//! natbox's tables get copies of the host's routes. The kernel removes a copy together with its
//! interface, so a packet never finds a larger network of the host instead, such as its default
//! route by an uplink. A network that natbox does not know yet is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::settings::interface_names;
use super::snapshot::{FoundRoute, Snapshot};
use super::step::{RTPROT_KERNEL, Route, RouteKind, TABLE_LOCAL};
use crate::config::Config;

/// Link-local addresses, which no router forwards (RFC 3927 section 2.7).
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// Number of addresses behind an interface from which on its routes count as a default route in
/// several parts (a VPN's 0.0.0.0/1 and 128.0.0.0/1).
const AS_DEFAULT_ROUTE: u64 = 1 << 31;

/// Largest number of networks.
const MAX_NETWORKS: usize = 256;

/// A network of the host, and its packets' way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherNetwork {
    /// Destinations.
    pub(crate) to: Ipv4Net,
    /// The way to the network. None: natbox and not the host decides about the packets, although
    /// the network lies within another one of the list.
    pub(crate) way: Option<Way>,
}

/// The way to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Outgoing interface.
    pub(crate) device: String,
    /// Next hop.
    pub(crate) via: Option<Ipv4Addr>,
    /// Size of the largest packet, in bytes. None: as large as the interface allows.
    pub(crate) mtu: Option<u32>,
}

impl OtherNetwork {
    /// Makes the route of a table to the network; None where natbox decides.
    pub(crate) fn route(&self, table: u32) -> Option<Route> {
        let Way { device, via, mtu } = self.way.clone()?;
        Some(Route {
            device: Some(device),
            via,
            // The table may lack the network of the next hop.
            onlink: via.is_some(),
            mtu,
            ..Route::new(table, RouteKind::Unicast, self.to)
        })
    }
}

/// Lists the networks that the host routes, larger ones first.
///
/// A network within an inside prefix stays with natbox, and so do the networks of other natbox
/// instances.
pub(super) fn other_networks(config: &Config, snapshot: &Snapshot) -> Vec<OtherNetwork> {
    let host = HostRoutes::new(config, snapshot);
    let external = config.uplinks.iter().flat_map(|uplink| &uplink.addresses);
    let of_natbox: Vec<Ipv4Net> = config
        .inside
        .prefixes()
        .chain(external.map(|address| Ipv4Net::from(*address)))
        .chain([LINK_LOCAL])
        .collect();
    let mut routes: Vec<&FoundRoute> = host.best().into_values().collect();
    routes.sort_by_key(|found| (found.route.to.prefix_len(), found.route.to));
    let mut networks: Vec<OtherNetwork> = Vec::new();
    for found in routes {
        let route = &found.route;
        // The tables have routes to these networks already.
        if of_natbox.iter().any(|network| network.contains(&route.to)) {
            continue;
        }
        let way = host.way(found);
        let is_within = || networks.iter().any(|around| around.to.contains(&route.to));
        if networks.len() < MAX_NETWORKS && (way.is_some() || is_within()) {
            networks.push(OtherNetwork { to: route.to, way });
        }
    }
    networks
}

/// The routes of other programs to networks, in the tables that the host looks up for every packet.
struct HostRoutes<'a> {
    routes: Vec<&'a FoundRoute>,
    /// Interfaces of this instance, and those that the rules of other instances name.
    closed: BTreeSet<&'a str>,
    /// Interfaces whose routes count as a default route.
    take_everything: BTreeSet<&'a str>,
}

impl<'a> HostRoutes<'a> {
    fn new(config: &'a Config, snapshot: &'a Snapshot) -> Self {
        let is_wanted = |found: &&FoundRoute| {
            found.route.to.prefix_len() > 0
                && !found.is_natbox()
                && found.route.kind != RouteKind::Broadcast
        };
        let routes: Vec<&FoundRoute> = tables_of_every_packet(snapshot)
            .into_iter()
            .flat_map(|table| {
                let of_table = move |found: &&FoundRoute| found.route.table == table;
                snapshot.routes.iter().filter(of_table).filter(is_wanted)
            })
            .collect();
        let of_rules = snapshot.natbox_rules().filter_map(|found| found.rule.iif.as_deref());
        let own = interface_names(config).into_iter().chain([config.tun.name.as_str()]);
        let mut addresses: BTreeMap<&str, u64> = BTreeMap::new();
        for Route { device, to, .. } in routes.iter().map(|found| &found.route) {
            if let Some(device) = device {
                *addresses.entry(device).or_default() += 1 << (32 - to.prefix_len());
            }
        }
        addresses.retain(|_, sum| *sum >= AS_DEFAULT_ROUTE);
        Self {
            routes,
            closed: own.chain(of_rules).collect(),
            take_everything: addresses.into_keys().collect(),
        }
    }

    /// Returns the preferred route to each network: that of the first table, with the least metric.
    fn best(&self) -> BTreeMap<Ipv4Net, &'a FoundRoute> {
        let mut best: BTreeMap<Ipv4Net, &FoundRoute> = BTreeMap::new();
        for found in self.routes.iter().copied().filter(|found| self.counts(found)) {
            let known = best.entry(found.route.to).or_insert(found);
            let (before, now) = (&known.route, &found.route);
            if before.table == now.table && now.metric < before.metric {
                *known = found;
            }
        }
        best
    }

    /// Returns false for a part of a default route.
    fn counts(&self, found: &FoundRoute) -> bool {
        let device = found.route.device.as_deref();
        found.protocol == RTPROT_KERNEL
            || device.is_none_or(|device| !self.take_everything.contains(device))
    }

    /// Returns the way of a route; None for a route by an interface of natbox, for one that drops
    /// packets, and for one that natbox cannot copy, such as one with several next hops.
    fn way(&self, found: &FoundRoute) -> Option<Way> {
        let Route { device, via, mtu, kind, .. } = &found.route;
        let device = device.as_ref().filter(|device| !self.closed.contains(device.as_str()))?;
        let is_known = *kind == RouteKind::Unicast && !found.is_opaque;
        is_known.then(|| Way { device: device.clone(), via: *via, mtu: *mtu })
    }
}

/// Lists the tables that the host looks up for every packet, in the order of their rules.
pub(super) fn tables_of_every_packet(snapshot: &Snapshot) -> Vec<u32> {
    let mut rules: Vec<_> = snapshot.rules.iter().filter(|found| !found.is_natbox()).collect();
    rules.sort_by_key(|found| found.rule.priority);
    let mut tables: Vec<u32> = Vec::new();
    for table in rules.into_iter().filter_map(|found| found.table_of_every_packet()) {
        if table != TABLE_LOCAL && !tables.contains(&table) {
            tables.push(table);
        }
    }
    tables
}

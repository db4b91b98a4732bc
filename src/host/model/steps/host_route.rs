//! The host's own default route, with `host.default_route: follow`.
//!
//! The host's own packets to the outside pass the TUN, like those of an inside host. So natbox
//! itself chooses their uplink, by tier, weight and health, and translates their source. No route
//! changes when an uplink fails, and no uplink needs an address of the host.
//!
//! ```text
//!   socket without a source ─ main table, all but its default routes
//!                           └ table follow: default → TUN, from the host address ─▶ natbox ─▶ uplink
//! ```
//!
//! The kernel asks for a route without a source only for sockets that are not bound to an address,
//! so the host's replies and sockets that are bound to an address use the other rules.

use ipnet::Ipv4Net;

use super::planner::{StepPlanner, default_prefix, host_prefix};
use super::rules::LOOPBACK;
use crate::host::model::step::{Route, RouteKind, Rule, RuleAction, Step, TABLE_MAIN};

/// Priorities of the two rules: the last ones before that of the main table. A VPN that takes all
/// traffic of the host has rules of the same or of lower priorities. Rules of one priority apply in
/// the order in which they were added.
const KNOWN_NETWORKS: u32 = 32764;
const DEFAULT_ROUTE: u32 = 32765;

/// Metric of the first route for sockets that are bound to an interface.
const BOUND_TO_INTERFACE: u32 = 1000;

/// Destinations that no uplink leads to: link-local ones (RFC 3927), and multicast, reserved and
/// broadcast ones (RFC 5771, RFC 1112 section 4).
const NOT_OUTSIDE: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 3),
];

impl StepPlanner<'_> {
    /// Lists the steps. The routes come before the rules that lead to them.
    pub(super) fn host_route(&self) -> Vec<Step> {
        let Some(source) = self.facts.host_address else { return Vec::new() };
        let table = self.ids.follow_table();
        let mut routes: Vec<Route> =
            NOT_OUTSIDE.map(|prefix| Route::new(table, RouteKind::Throw, prefix)).into();
        routes.push(Route {
            device: Some(self.tun.into()),
            source: Some(source),
            mtu: Some(self.smallest_mtu()),
            ..Route::new(table, RouteKind::Unicast, default_prefix())
        });
        routes.extend(self.bound_to_interfaces(table));
        let without_source = |priority, table| Rule {
            iif: Some(LOOPBACK.into()),
            from: Some(host_prefix(std::net::Ipv4Addr::UNSPECIFIED)),
            ..Rule::new(priority, RuleAction::Lookup(table))
        };
        let known_networks = without_source(KNOWN_NETWORKS, TABLE_MAIN);
        let rules = [
            Rule { suppress_prefix_length: Some(0), ..known_networks },
            without_source(DEFAULT_ROUTE, table),
        ];
        routes.into_iter().map(Step::Route).chain(rules.map(Step::Rule)).collect()
    }

    /// Lists the routes for sockets that are bound to the interface of an uplink, in the order of
    /// the tiers. If natbox is killed, the TUN and its route vanish, and the first of these routes
    /// is the host's default route until the next start.
    fn bound_to_interfaces(&self, table: u32) -> Vec<Route> {
        let mut places: Vec<usize> = (0..self.config.uplinks.len()).collect();
        places.sort_by_key(|place| self.config.uplinks[*place].tier);
        let mut routes: Vec<Route> = Vec::new();
        for place in places {
            let (uplink, facts) = (&self.config.uplinks[place], &self.facts.uplinks[place]);
            let next_hop = self.facts.next_hop(self.config, place);
            let has_next_hop = next_hop.is_some() || facts.is_direct();
            let is_known =
                routes.iter().any(|route| route.device.as_deref() == Some(&uplink.interface));
            // Without an address of the interface, the kernel would use one of another interface.
            if facts.address.is_none() || !facts.takes_routes() || !has_next_hop || is_known {
                continue;
            }
            routes.push(Route {
                device: Some(uplink.interface.clone()),
                via: next_hop,
                onlink: next_hop.is_some_and(|gateway| !facts.reaches(gateway)),
                source: facts.address,
                metric: BOUND_TO_INTERFACE + routes.len() as u32,
                ..Route::new(table, RouteKind::Unicast, default_prefix())
            });
        }
        routes
    }

    /// Returns the smallest MTU of the uplinks. The MTU of the TUN is larger, and programs such as
    /// wg-quick take the MTU of a tunnel from the route to its other end.
    pub(super) fn smallest_mtu(&self) -> u32 {
        self.facts.uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(1500)
    }
}

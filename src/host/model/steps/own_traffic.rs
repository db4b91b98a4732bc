//! The host's own packets from inside addresses: rules and routes that take them to natbox.
//!
//! ```text
//!   S→C  from a service S of the host ─ rule iif lo from PREFIX ─ table host: all else → TUN ─▶ natbox
//!   ?→C  from a UDP socket without an address, with a published port ─ table service: → TUN, src S ─▶ natbox
//!   ?→C  by an interface without an address ─ table unnumbered: → TUN, src an inside address ─▶ natbox
//!   S→C  from a socket bound to wan0 ─ rule oif wan0 from PREFIX ─ table bound: no such destination
//! ```
//!
//! A socket that is bound to an interface gets the interface's on-link route when the look-up fails
//! (`ip_route_output_key_hash_rcu`), so an unreachable route does not stop its packets. A broadcast
//! route does: a program may not connect to a broadcast address, nor send to one without
//! `SO_BROADCAST`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::planner::{StepPlanner, default_prefix, host_prefix};
use super::rules::position;
use super::tables::closed_without_tun;
use crate::host::model::own_traffic::{OwnTraffic, OwnWay, Unnumbered};
use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::step::{Route, RouteKind, Rule, RuleAction, SourcePorts};

/// Incoming interface of the host's own packets.
const LOOPBACK: &str = "lo";

impl StepPlanner<'_> {
    /// Lists the routes of the tables for the host's own packets.
    pub(super) fn own_tables(&self) -> Vec<Route> {
        let mut routes = self.host_table(self.ids.host_table(), None);
        for (place, address) in self.service_addresses().into_iter().enumerate() {
            routes.extend(self.host_table(self.ids.service_table(place), Some(address)));
        }
        if let Some(Unnumbered { source, networks, .. }) = &self.facts.own_traffic.unnumbered {
            let table = self.ids.unnumbered_table();
            let source = self.facts.host_address.unwrap_or(*source);
            let to_tun = |to: &Ipv4Net| self.own_to_tun(table, *to, Some(source));
            routes.extend(networks.iter().map(to_tun));
        }
        let interfaces = self.outside_interfaces();
        let up =
            interfaces.iter().zip(1..).filter(|(interface, _)| self.takes_routes(interface.name));
        routes.extend(up.map(|(interface, metric)| Route {
            device: Some(interface.name.into()),
            metric,
            ..Route::new(self.ids.bound_table(), RouteKind::Broadcast, default_prefix())
        }));
        routes
    }

    fn takes_routes(&self, interface: &str) -> bool {
        let mut uplinks = self.facts.uplinks.iter();
        uplinks.any(|facts| facts.interface == interface && facts.takes_routes())
    }

    /// Routes for the host's packets from an inside address. `source` is the address of packets
    /// that have none yet.
    fn host_table(&self, table: u32, source: Option<Ipv4Addr>) -> Vec<Route> {
        let throw = |to| Route::new(table, RouteKind::Throw, to);
        let mut routes: Vec<Route> = OwnTraffic::left_to_host(self.config).map(throw).collect();
        routes.extend(self.facts.own_traffic.exceptions.iter().map(|(to, way)| match way {
            OwnWay::Host => throw(*to),
            OwnWay::Natbox => self.own_to_tun(table, *to, source),
        }));
        routes.push(self.own_to_tun(table, default_prefix(), source));
        routes.push(closed_without_tun(table));
        routes
    }

    fn own_to_tun(&self, table: u32, to: Ipv4Net, source: Option<Ipv4Addr>) -> Route {
        Route { mtu: Some(self.smallest_mtu()), source, ..self.to_tun(table, to) }
    }

    /// Lists the rules for the host's own packets from inside addresses.
    pub(super) fn own_rules(&self) -> Vec<Rule> {
        let bound = self.ids.priority(position::OWN_BOUND);
        let own = self.ids.priority(position::OWN);
        let services = self.ids.priority(position::OWN_SERVICES);
        let without_address = self.ids.priority(position::OWN_UNNUMBERED);
        let sources = &self.facts.own_traffic.sources;
        let mut rules = Vec::new();
        for interface in self.outside_interfaces() {
            let action = RuleAction::Lookup(self.ids.bound_table());
            rules.extend(sources.iter().map(|source| Rule {
                from: Some(*source),
                oif: Some(interface.name.into()),
                ..Rule::new(bound, action)
            }));
            let unnumbered = self.facts.own_traffic.unnumbered.as_ref();
            if unnumbered
                .is_some_and(|found| found.interfaces.iter().any(|one| one == interface.name))
            {
                rules.push(Rule {
                    from: Some(host_prefix(Ipv4Addr::UNSPECIFIED)),
                    oif: Some(interface.name.into()),
                    ..Rule::new(bound, action)
                });
            }
        }
        let action = RuleAction::Lookup(self.ids.host_table());
        let iif = || Some(LOOPBACK.into());
        rules.extend(sources.iter().map(|source| Rule {
            iif: iif(),
            from: Some(*source),
            ..Rule::new(own, action)
        }));
        let addresses = self.service_addresses();
        for (address, ports) in self.udp_services() {
            let place = addresses.iter().position(|known| *known == address);
            rules.extend(place.map(|place| Rule {
                iif: iif(),
                from: Some(host_prefix(Ipv4Addr::UNSPECIFIED)),
                udp_source: Some(ports),
                ..Rule::new(services, RuleAction::Lookup(self.ids.service_table(place)))
            }));
        }
        rules.extend(self.facts.own_traffic.unnumbered.as_ref().map(|_| Rule {
            iif: iif(),
            from: Some(host_prefix(Ipv4Addr::UNSPECIFIED)),
            ..Rule::new(without_address, RuleAction::Lookup(self.ids.unnumbered_table()))
        }));
        rules
    }

    fn udp_services(&self) -> Vec<(Ipv4Addr, SourcePorts)> {
        self.facts.own_traffic.udp_services(self.config, self.facts.ephemeral_ports)
    }

    /// Lists the addresses of the host that have published UDP services, as far as there are
    /// tables.
    fn service_addresses(&self) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> = Vec::new();
        for (address, _) in self.udp_services() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(RoutingIds::MAX_SERVICE_ADDRESSES);
        addresses
    }
}

//! Derives the facts from what the kernel reports, or assumes them.

use std::net::Ipv4Addr;

use super::facts::{HostFacts, InterfaceFacts};
use super::other_interfaces::other_interfaces;
use super::other_networks::other_networks;
use super::own_traffic::OwnTraffic;
use super::precedence::preceding;
use super::presence::InterfaceState;
use super::routing_ids::RoutingIds;
use super::settings::KernelSettings;
use super::snapshot::Snapshot;
use super::stacked::interfaces_above;
use super::static_routes::static_routes;
use super::step::Rule;
use super::warnings::warnings;
use crate::config::{Config, HostDefaultRoute, Uplink};

impl HostFacts {
    /// Derives the facts from what the kernel reports.
    pub(crate) fn collect(
        config: &Config,
        snapshot: &Snapshot,
        settings: KernelSettings,
        ids: &RoutingIds,
    ) -> Self {
        let uplinks: Vec<InterfaceFacts> = config
            .uplinks
            .iter()
            .map(|uplink| InterfaceFacts::new(&uplink.interface, snapshot))
            .collect();
        let flags = |test: &dyn Fn(&InterfaceFacts, Ipv4Addr) -> bool| {
            let pairs = config.uplinks.iter().zip(&uplinks);
            let of_uplink = pairs.map(|(uplink, facts)| {
                uplink.addresses.iter().map(|address| test(facts, *address)).collect()
            });
            of_uplink.collect::<Vec<Vec<bool>>>()
        };
        let assigned_to_host = flags(&|_, address| snapshot.has_address(address));
        let on_link =
            flags(&|facts, address| !snapshot.has_address(address) && facts.reaches(address));
        let follows_interfaces = config.uplinks.iter().any(|uplink| uplink.follows_interface);
        let mut facts = Self {
            legs: config
                .inside
                .legs
                .iter()
                .map(|leg| InterfaceFacts::new(&leg.interface, snapshot))
                .collect(),
            uplinks,
            other_interfaces: other_interfaces(config, &snapshot.links),
            assigned_to_host,
            on_link,
            follows_interfaces,
            ephemeral_ports: settings.ephemeral_ports,
            tun_address: ids.tun_address,
            probe_addresses: probe_addresses(config, ids),
            own_traffic: OwnTraffic::collect(config, snapshot),
            other_networks: other_networks(config, snapshot),
            host_address: host_address(config, ids),
            has_main_rule: snapshot.has_main_rule(),
            has_first_local_rule: has_first_local_rule(snapshot),
            warnings: Vec::new(),
            preceding_rules: preceding_rules(snapshot, config, ids),
            settings,
        };
        facts.warnings = warnings(&facts, config, snapshot);
        facts
    }

    /// Returns the facts that `plan` assumes for a box on another machine.
    ///
    /// No external address is assigned to the host. External addresses are on the segment, because
    /// a surplus proxy entry does no harm there. Every interface uses ARP, and source filters are
    /// strict.
    pub(crate) fn assumed(config: &Config) -> (Self, RoutingIds) {
        let ids = RoutingIds::default_ids(config);
        let settings = KernelSettings::assumed();
        let legs = config.inside.legs.iter().map(|leg| InterfaceFacts::assumed(&leg.interface));
        let uplinks =
            config.uplinks.iter().map(|uplink| InterfaceFacts::assumed(&uplink.interface));
        let flags =
            |flag| config.uplinks.iter().map(|uplink| vec![flag; uplink.addresses.len()]).collect();
        let facts = Self {
            legs: legs.collect(),
            uplinks: uplinks.collect(),
            other_interfaces: Vec::new(),
            assigned_to_host: flags(false),
            on_link: flags(true),
            follows_interfaces: false,
            ephemeral_ports: settings.ephemeral_ports,
            tun_address: ids.tun_address,
            probe_addresses: probe_addresses(config, &ids),
            own_traffic: OwnTraffic::assumed(config),
            other_networks: Vec::new(),
            host_address: host_address(config, &ids),
            has_main_rule: true,
            has_first_local_rule: true,
            warnings: Vec::new(),
            preceding_rules: Vec::new(),
            settings,
        };
        (facts, ids)
    }
}

impl InterfaceFacts {
    fn new(name: &str, snapshot: &Snapshot) -> Self {
        let Some(link) = snapshot.link(name) else {
            return Self {
                state: InterfaceState::Missing,
                arp: false,
                static_routes: Some(Vec::new()),
                assumed: false,
                ..Self::assumed(name)
            };
        };
        Self {
            interface: name.into(),
            index: link.index,
            mtu: link.mtu,
            address: snapshot.primary(link),
            addresses: snapshot.addresses_of(link).map(|found| found.address).collect(),
            networks: snapshot.addresses_of(link).map(|found| found.network).collect(),
            private_ipv6: snapshot.private_ipv6_of(link),
            hardware: link.hardware,
            above: interfaces_above(link, snapshot),
            state: InterfaceState::of(name, &snapshot.links),
            on_link: snapshot.on_link(link),
            next_hops: snapshot.next_hops(link),
            arp: link.arp,
            default: snapshot.default_through(link),
            static_routes: static_routes(link, snapshot),
            assumed: false,
        }
    }

    fn assumed(name: &str) -> Self {
        Self {
            interface: name.into(),
            index: 0,
            mtu: 1500,
            address: None,
            addresses: Vec::new(),
            networks: Vec::new(),
            private_ipv6: Vec::new(),
            hardware: None,
            above: Vec::new(),
            state: InterfaceState::Up,
            on_link: Vec::new(),
            next_hops: Vec::new(),
            arp: true,
            default: None,
            static_routes: None,
            assumed: true,
        }
    }
}

fn host_address(config: &Config, ids: &RoutingIds) -> Option<Ipv4Addr> {
    (config.host.default_route == HostDefaultRoute::Follow).then(|| ids.host_address())
}

fn probe_addresses(config: &Config, ids: &RoutingIds) -> Vec<Option<Ipv4Addr>> {
    let has_dns = config.dns.as_ref().is_some_and(|dns| dns.listen || dns.update.is_some());
    let address = |uplink: &Uplink| {
        (has_dns || uplink.needs_probe_address()).then(|| ids.probe_address(uplink.numbers.uplink))
    };
    config.uplinks.iter().map(address).collect()
}

/// Returns false when another program has moved the local rule behind other rules.
fn has_first_local_rule(snapshot: &Snapshot) -> bool {
    let is_first = |rule: &Rule| *rule == Rule::default_local() || *rule == Rule::local_aside();
    let mut others = snapshot.rules.iter().filter(|found| found.is_local());
    snapshot.rules.iter().any(|found| is_first(&found.rule)) || others.next().is_none()
}

/// Reports rules of other programs that natbox's rules cannot precede.
fn preceding_rules(snapshot: &Snapshot, config: &Config, ids: &RoutingIds) -> Vec<String> {
    let rules = preceding(snapshot, config, ids.priority(0)).map(|found| {
        format!(
            "policy rules: `{}` of another program takes natbox's packets, and no place before that \
             rule is free; give that rule a priority above {}",
            found.words(),
            ids.priorities().end
        )
    });
    rules.collect()
}

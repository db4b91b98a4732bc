//! Fixtures for the tests of facts, routing numbers, steps and plans.

mod dependents;
mod facts;
mod host_route;
mod other_networks;
mod own_traffic;
mod plan;
mod precedence;
mod private_filter;
mod routing_ids;
mod steps;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::facts::HostFacts;
use super::model::routing_ids::{RoutingIds, RuleOwner};
use super::model::settings::KernelSettings;
use super::model::snapshot::{Address, FoundRoute, FoundRule, Link, RuleEffect, Snapshot};
use super::model::step::{
    RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, TABLE_LOCAL, TABLE_MAIN,
};
use super::model::steps::steps as list_steps;
use crate::config::*;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// Derives the facts of a host with loose source filters.
fn collect(config: &Config, host: &Snapshot) -> (HostFacts, RoutingIds) {
    let ids = RoutingIds::allocate(host, config, RuleOwner::OtherInstance).unwrap();
    let settings = KernelSettings { rp_filter_all: 0, ..KernelSettings::assumed() };
    (HostFacts::collect(config, host, settings, &ids), ids)
}

fn commands(config: &Config, host: &Snapshot) -> String {
    let (facts, ids) = collect(config, host);
    list_steps(config, &facts, &ids).iter().map(|step| step.command() + "\n").collect()
}

/// lan0 10.0.0.100/24, wan0 203.0.113.1/24, wan1 198.51.100.1/24, a default route.
fn host() -> Snapshot {
    let link = |index, name: &str| Link {
        index,
        name: name.into(),
        mtu: 1500,
        queue_length: 1000,
        group: 0,
        up: true,
        carrier: true,
        arp: index > 1,
        hardware: Some([2, 0, 0, 0, 0, index as u8]),
        controller: None,
        lower: None,
    };
    Snapshot {
        links: vec![link(1, "lo"), link(2, "lan0"), link(3, "wan0"), link(4, "wan1")],
        addresses: vec![
            address(2, "10.0.0.100", "10.0.0.0/24", true),
            address(3, "203.0.113.1", "203.0.113.0/24", true),
            address(4, "198.51.100.1", "198.51.100.0/24", true),
        ],
        private_ipv6: Vec::new(),
        routes: vec![
            route("10.0.0.0/24", TABLE_MAIN, Some("lan0")),
            route("203.0.113.0/24", TABLE_MAIN, Some("wan0")),
            route("0.0.0.0/0", TABLE_MAIN, Some("wan0")),
        ],
        rules: vec![
            rule(0, 2, RuleAction::Lookup(TABLE_LOCAL)),
            rule(32766, 2, RuleAction::Lookup(TABLE_MAIN)),
        ],
        proxies: Vec::new(),
    }
}

fn address(index: u32, address: &str, network: &str, primary: bool) -> Address {
    Address { index, address: ip(address), network: net(network), primary }
}

fn route(to: &str, table: u32, device: Option<&str>) -> FoundRoute {
    let route = Route {
        device: device.map(String::from),
        ..Route::new(table, RouteKind::Unicast, net(to))
    };
    FoundRoute { route, protocol: 2, more: false, is_opaque: false }
}

fn rule(priority: u32, protocol: u8, action: RuleAction) -> FoundRule {
    FoundRule {
        rule: Rule::new(priority, action),
        protocol,
        more: false,
        is_narrow: false,
        is_inverted: false,
        effect: RuleEffect::Lookup,
    }
}

fn leg(interface: &str, prefix: &str) -> InsideLeg {
    InsideLeg { interface: interface.into(), address: None, prefixes: vec![net(prefix)] }
}

fn uplink(name: &str, interface: &str, addresses: &[&str], gateway: &str) -> Uplink {
    Uplink {
        name: name.into(),
        interface: interface.into(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        follows_interface: false,
        gateway: Some(ip(gateway)),
        weight: 1,
        tier: 1,
        health: None,
        on_failure: OnFailure::Keep,
        failback: Failback::NewSessions,
        numbers: UplinkNumbers::default(),
    }
}

/// Gives uplinks the numbers of their places.
fn numbered(mut uplinks: Vec<Uplink>) -> Vec<Uplink> {
    number_in_order(&mut uplinks);
    uplinks
}

fn forward(name: &str, uplink: usize, address: &str, port: u16, to: &str) -> Forward {
    Forward {
        name: name.into(),
        uplink,
        protocol: ForwardProtocol::Tcp,
        address: ip(address),
        ports: PortRange { first: port, last: port },
        to_address: ip(to),
        to_port: port,
    }
}

fn natbox1() -> Config {
    Config {
        name: "natbox1".into(),
        tun: Tun { name: "nb1".into(), ..Tun::default() },
        inside: Inside { legs: vec![leg("lan0", "10.0.0.0/24")] },
        uplinks: vec![uplink("isp1", "wan0", &["203.0.113.10"], "203.0.113.254")],
        forwards: vec![forward("web", 0, "203.0.113.10", 80, "10.0.0.101")],
        outbound: Vec::new(),
        no_nat: Vec::new(),
        nat: Nat::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        host: Host::default(),
        admin: Admin { socket: "/run/natbox/natbox1.sock".into(), group: None, http: None },
        state: Persistence::default(),
        log: Log::default(),
        dns: None,
    }
}

fn natbox2(prefix: &str, server: &str) -> Config {
    Config {
        name: "natbox2".into(),
        tun: Tun { name: "nb2".into(), ..Tun::default() },
        inside: Inside { legs: vec![leg("lan0", prefix)] },
        uplinks: vec![uplink("isp2", "wan0", &["198.51.100.10"], "198.51.100.254")],
        forwards: vec![forward("web", 0, "198.51.100.10", 80, server)],
        ..natbox1()
    }
}

/// Two uplinks on wan0, one with four addresses on wan1.
fn three_legged() -> Config {
    let four = ["198.51.100.8", "198.51.100.9", "198.51.100.10", "198.51.100.11"];
    Config {
        tun: Tun { name: "nb0".into(), ..Tun::default() },
        uplinks: numbered(vec![
            uplink("isp1", "wan0", &["203.0.113.10"], "203.0.113.254"),
            uplink("isp2", "wan1", &four, "198.51.100.254"),
            uplink("isp3", "wan0", &["203.0.113.30"], "203.0.113.253"),
        ]),
        forwards: vec![
            forward("web", 0, "203.0.113.10", 80, "10.0.0.101"),
            forward("web", 1, "198.51.100.9", 80, "10.0.0.101"),
        ],
        ..natbox1()
    }
}

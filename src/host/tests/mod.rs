//! The list of steps, read as commands; the numbers in it; and the plan.

mod plan;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::*;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::{Address, FoundRoute, FoundRule, Link, Snapshot};
use crate::host::model::steps::{
    RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, TABLE_LOCAL, TABLE_MAIN, steps,
};
use crate::host::render::plan::command;

#[test]
fn one_uplink_on_the_segment_with_a_gateway() {
    assert_eq!(
        commands(&natbox1(), &host()),
        "
        ip rule add priority 991 from 169.254.71.2 iif lo protocol 110 lookup 7165
        sysctl -q -e -w net.ipv6.conf.nb1.disable_ipv6=1
        sysctl -q -w net.ipv4.conf.nb1.accept_local=1
        sysctl -q -w net.ipv4.conf.nb1.rp_filter=0
        ip link set dev nb1 mtu 65535 txqueuelen 1000 up
        ip address replace 169.254.71.2/32 dev nb1 scope link
        ip route replace default dev nb1 table 7165 proto 110
        ip route replace throw 10.0.0.0/24 table 7164 proto 110
        ip route replace default dev nb1 table 7164 proto 110
        ip route replace 203.0.113.10 dev nb1 table 7166 proto 110
        ip route replace blackhole default table 7166 proto 110
        ip route replace throw 10.0.0.0/24 table 7167 proto 110
        ip route replace 203.0.113.0/24 dev wan0 table 7167 proto 110
        ip route replace default via 203.0.113.254 dev wan0 table 7167 proto 110
        ip route replace unreachable default metric 4294967295 table 7167 proto 110
        ip route replace unreachable 10.0.0.0/24 metric 4294967295 proto 110
        ip route replace blackhole 0.0.0.0/8 metric 4294967295 proto 110
        ip route replace blackhole 240.0.0.0/4 metric 4294967295 proto 110
        ip route replace 203.0.113.10 dev nb1 src 203.0.113.1 proto 110
        sysctl -q -w net.ipv4.conf.lan0.rp_filter=2
        sysctl -q -w net.ipv4.conf.wan0.rp_filter=2
        ip rule add priority 1009 from 10.0.0.0/24 iif wan0 protocol 110 blackhole
        ip rule add priority 1011 from all iif wan0 protocol 110 lookup 7166
        ip rule add priority 1012 from all iif lan0 protocol 110 lookup 7164
        ip rule add priority 1013 from 203.0.113.10 iif nb1 protocol 110 lookup 7167
        sysctl -q -w net.ipv4.icmp_errors_use_inbound_ifaddr=1
        sysctl -q -e -w net.ipv4.icmp_msgs_per_sec=100000
        sysctl -q -e -w net.ipv4.icmp_msgs_burst=10000
        sysctl -q -w net.ipv4.ip_forward=1
        sysctl -q -w net.ipv4.neigh.wan0.proxy_delay=0
        ip neighbour replace proxy 203.0.113.10 dev wan0
        "
        .replace("        ", "")
        .trim_start()
    );
}

#[test]
fn without_a_gateway_the_main_table_leads_out() {
    let mut config = natbox1();
    config.uplinks[0].gateway = None;
    let commands = commands(&config, &host());
    assert!(!commands.contains(" iif nb1 "), "{commands}");
    assert!(!commands.contains("7167"), "{commands}");
}

#[test]
fn an_address_that_is_routed_to_the_box_needs_no_proxy_entry() {
    let mut config = natbox1();
    config.uplinks[0].addresses = vec![ip("192.0.2.7")];
    let commands = commands(&config, &host());
    assert!(commands.contains("ip route replace 192.0.2.7 dev nb1 table 7166"), "{commands}");
    assert!(!commands.contains("proxy"), "{commands}");
}

#[test]
fn where_the_address_is_the_hosts_own_natbox_comes_first_and_the_host_second() {
    let mut host = host();
    host.addresses.push(address(3, "203.0.113.10", "203.0.113.0/24", false));
    let commands = commands(&natbox1(), &host);
    let (before, after) = commands.split_once("sysctl -q -w net.ipv4.ip_early_demux=0\n").unwrap();
    assert_eq!(
        after,
        "
        ip rule add priority 999 from all protocol 110 lookup local
        ip rule add priority 992 from all to 203.0.113.10 iif wan0 ipproto udp sport 67 dport 68 protocol 110 lookup local
        ip rule add priority 993 from 10.0.0.0/24 to 203.0.113.10 iif wan0 protocol 110 blackhole
        ip rule add priority 994 from all to 203.0.113.10 iif wan0 protocol 110 lookup 7166
        ip rule add priority 994 from all to 203.0.113.10 iif lan0 protocol 110 lookup 7164
        ip rule del priority 0 from all lookup local
        "
        .replace("        ", "")
        .trim_start()
    );
    assert!(before.starts_with("ip rule add priority 991 from 169.254.71.2 iif lo "), "{before}");
    // The kernel stops answering ARP for it by itself.
    assert!(before.contains("ip neighbour replace proxy 203.0.113.10 dev wan0"), "{before}");
    // What comes back out of the TUN for the host is of any source.
    assert!(before.contains("conf.nb1.rp_filter=2"), "{before}");
    // A natbox that dies takes its TUN with it, and the host gets what is its own.
    let throw = "ip route replace throw 203.0.113.10 metric 4294967295 table 7166 proto 110";
    assert!(before.contains(throw), "{before}");
    // The local table knows it.
    assert!(!before.contains("ip route replace 203.0.113.10 dev nb1 src"), "{before}");
}

#[test]
fn several_uplinks_have_a_way_out_each_and_one_interface_one_way_in() {
    let commands = commands(&three_legged(), &host());
    for line in [
        "ip route replace default via 203.0.113.254 dev wan0 table 7103",
        "ip route replace default via 198.51.100.254 dev wan1 table 7105",
        "ip route replace default via 203.0.113.253 dev wan0 table 7107",
        "from 203.0.113.10 iif nb0 protocol 110 lookup 7103",
        // Four addresses, one rule.
        "from 198.51.100.8/30 iif nb0 protocol 110 lookup 7105",
        "from 203.0.113.30 iif nb0 protocol 110 lookup 7107",
        "ip route replace 203.0.113.30 dev nb0 table 7102",
        "ip route replace 198.51.100.9 dev nb0 table 7104",
        "from all iif wan0 protocol 110 lookup 7102",
        "from all iif wan1 protocol 110 lookup 7104",
    ] {
        assert!(commands.contains(line), "{line} in\n{commands}");
    }
    assert_eq!(commands.matches("iif wan0 protocol 110 lookup").count(), 1);
    assert_eq!(commands.matches("conf.wan0.rp_filter").count(), 1);
}

/// With a default route by the first line, the host's own answers and its kernel's errors left by that one alone.
#[test]
fn what_the_host_says_from_the_address_of_a_line_leaves_by_that_line() {
    let mut host = host();
    host.addresses.push(address(4, "198.51.100.9", "198.51.100.0/24", false));
    let of_several = commands(&three_legged(), &host);
    for line in [
        "ip rule add priority 1006 from 203.0.113.1 iif lo protocol 110 lookup 7103",
        "ip rule add priority 1006 from 198.51.100.1 iif lo protocol 110 lookup 7105",
        "ip rule add priority 1006 from 198.51.100.9 iif lo protocol 110 lookup 7105",
    ] {
        assert!(of_several.contains(line), "{line} in\n{of_several}");
    }
    // The third line shares interface and address with the first.
    assert_eq!(of_several.matches("from 203.0.113.1 iif lo").count(), 1);
    assert!(
        !commands(&natbox1(), &host).contains("from 203.0.113.1 iif lo"),
        "one line needs none"
    );
}

#[test]
fn forwarding_starts_only_when_the_outside_is_shut_off() {
    let commands = commands(&natbox1(), &host());
    let at = |text: &str| commands.find(text).unwrap();
    assert!(at("iif wan0 protocol 110 lookup") < at("ip_forward=1"));
    assert!(at("iif wan0 protocol 110 blackhole") < at("ip_forward=1"));
}

#[test]
fn a_gateway_beside_every_network_is_taken_as_on_link_with_a_warning() {
    let mut config = natbox1();
    config.uplinks[0].gateway = Some(ip("192.0.2.1"));
    let commands = commands(&config, &host());
    assert!(commands.contains("default via 192.0.2.1 dev wan0 onlink table"), "{commands}");
    let warnings = collect(&config, &host()).0.warnings;
    assert!(
        warnings[0].starts_with("uplinks[0].gateway: 192.0.2.1 is on no network of wan0"),
        "{warnings:?}"
    );
}

#[test]
fn no_way_out_at_all_is_a_warning() {
    let mut config = natbox1();
    config.uplinks[0].gateway = None;
    let mut host = host();
    host.routes.retain(|found| found.route.to.prefix_len() > 0);
    let warnings = collect(&config, &host).0.warnings;
    assert!(warnings[0].contains("set uplinks[0].gateway"), "{warnings:?}");
}

#[test]
fn a_missing_interface_is_named_with_its_key_and_with_those_that_there_are() {
    let mut config = natbox1();
    config.uplinks[0].interface = "eth7".into();
    let refused = |config: &Config| collect(config, &host()).0.check_interfaces(config, &host());
    assert_eq!(
        refused(&config).unwrap_err().to_string(),
        "uplinks[0].interface: there is no interface \"eth7\" here; there are: lo, lan0, wan0, wan1. Correct the \
         key, or create the interface first"
    );
    config.uplinks[0].follows_interface = true;
    assert!(refused(&config).is_ok(), "it may come: a modem's");

    let mut config = three_legged();
    config.uplinks[1].interface = "eth7".into();
    assert!(refused(&config).is_ok(), "there are other lines");
    let warnings = collect(&config, &host()).0.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("uplinks[1].interface: there is no interface eth7;"),
        "{warnings:?}"
    );
    let commands = commands(&config, &host());
    assert!(!commands.contains("dev eth7") && !commands.contains("conf.eth7"), "{commands}");
    assert!(commands.contains("unreachable default metric 4294967295 table 7105"), "{commands}");
    config.inside.interface = "eth8".into();
    assert!(refused(&config).is_err(), "nothing can be done without the inside");
}

#[test]
fn interfaces_with_dots_are_printed_so_that_sysctl_understands_them() {
    let mut config = natbox1();
    config.uplinks[0].interface = "wan0.100".into();
    let mut host = host();
    host.links[2].name = "wan0.100".into();
    let commands = commands(&config, &host);
    assert!(commands.contains("sysctl -q -w net/ipv4/conf/wan0.100/rp_filter=2"), "{commands}");
}

#[test]
fn numbers_follow_the_tun_and_move_on_where_somebody_is() {
    let choose = |host: &Snapshot, assigned_to_host| {
        RoutingIds::allocate(host, "nb3", assigned_to_host, RuleOwner::OtherInstance).unwrap()
    };
    assert_eq!(choose(&host(), false).inside_table(), 7100 + 3 * 64);
    assert_eq!(choose(&host(), false).tun_address, ip("169.254.71.4"));
    let mut host = host();
    host.rules.push(rule(1030, 0, RuleAction::Lookup(52)));
    let moved = choose(&host, false);
    assert_eq!((moved.inside_table(), moved.after_local(0)), (7100, 1000));
    host.routes.push(route("10.9.0.0/16", 7120, None));
    assert_eq!(choose(&host, false).inside_table(), 7164);
    host.addresses.push(address(1, "169.254.71.2", "169.254.71.2/32", true));
    assert_eq!(choose(&host, false).inside_table(), 7100 + 2 * 64);
}

#[test]
fn rules_of_others_stay_behind_the_hosts_own_addresses() {
    let mut host = host();
    host.rules.push(rule(100, 0, RuleAction::Lookup(52)));
    let ids = RoutingIds::allocate(&host, "nb1", true, RuleOwner::OtherInstance).unwrap();
    assert_eq!((ids.local_rule, ids.before_local()), (Some(99), 91));
    host.rules.push(rule(4, 0, RuleAction::Lookup(52)));
    let error =
        RoutingIds::allocate(&host, "nb1", true, RuleOwner::OtherInstance).unwrap_err().to_string();
    assert!(error.contains("the lowest rule of others has priority 4"), "{error}");
}

#[test]
fn a_second_box_shares_the_place_of_the_local_rule() {
    let mut host = host();
    host.rules[0] = rule(999, RTPROT_NATBOX, RuleAction::Lookup(TABLE_LOCAL));
    host.rules.push(rule(991, RTPROT_NATBOX, RuleAction::Blackhole));
    let ids = RoutingIds::allocate(&host, "nb1", true, RuleOwner::OtherInstance).unwrap();
    assert_eq!(ids.local_rule, Some(999));
    assert_eq!(ids.before_local(), 995);
}

#[test]
fn a_local_rule_that_somebody_moved_is_left_alone() {
    let mut host = host();
    host.rules[0] = rule(500, 0, RuleAction::Lookup(TABLE_LOCAL));
    let ids = RoutingIds::allocate(&host, "nb1", true, RuleOwner::OtherInstance).unwrap();
    assert_eq!(ids.local_rule, None);
    assert!(ids.before_local() < 500);
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn collect(config: &Config, host: &Snapshot) -> (HostFacts, RoutingIds) {
    let choose = |assigned_to_host| {
        RoutingIds::allocate(host, &config.tun.name, assigned_to_host, RuleOwner::OtherInstance)
    };
    let (mut facts, ids) = HostFacts::collect(config, host, choose).unwrap();
    // Not of the machine that runs the test.
    facts.rp_filter_all = 0;
    facts.forwarding_off_by_default = false;
    facts.inside.forwarding_off = false;
    facts.uplinks.iter_mut().for_each(|leg| leg.forwarding_off = false);
    (facts, ids)
}

fn commands(config: &Config, host: &Snapshot) -> String {
    let (facts, ids) = collect(config, host);
    steps(config, &facts, &ids).iter().map(|step| command(step) + "\n").collect()
}

/// lan0 10.0.0.100/24, wan0 203.0.113.1/24, wan1 198.51.100.1/24, a default route.
fn host() -> Snapshot {
    let link = |index, name: &str| Link {
        index,
        name: name.into(),
        mtu: 1500,
        queue_length: 1000,
        up: true,
        carrier: true,
        arp: index > 1,
    };
    Snapshot {
        links: vec![link(1, "lo"), link(2, "lan0"), link(3, "wan0"), link(4, "wan1")],
        addresses: vec![
            address(2, "10.0.0.100", "10.0.0.0/24", true),
            address(3, "203.0.113.1", "203.0.113.0/24", true),
            address(4, "198.51.100.1", "198.51.100.0/24", true),
        ],
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
        table,
        kind: RouteKind::Unicast,
        to: net(to),
        device: device.map(String::from),
        via: None,
        onlink: false,
        source: None,
        metric: 0,
    };
    FoundRoute { route, protocol: 2, more: false }
}

fn rule(priority: u32, protocol: u8, action: RuleAction) -> FoundRule {
    let rule = Rule { priority, iif: None, from: None, to: None, udp: None, action };
    FoundRule { rule, protocol, more: false }
}

/// Packets from there reach natbox, after those of spoofed inside sources were dropped and before all others are.
#[test]
fn exempt_destinations_reach_the_inside_through_the_tun() {
    let exemption =
        |to| NoNatRule { to: net(to), protocol: ForwardProtocol::Any, ports: PortRange::ALL };
    let rules = |no_nat| {
        let commands = commands(&Config { no_nat, ..natbox1() }, &host());
        commands
            .lines()
            .filter(|line| line.starts_with("ip rule add") && line.contains("iif wan0"))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let without = rules(Vec::new());
    // Two halves of one prefix are one rule.
    let with = rules(vec![
        exemption("192.0.2.0/25"),
        exemption("192.0.2.128/25"),
        exemption("198.18.0.0/15"),
    ]);
    assert_eq!(with[0], without[0]);
    assert_eq!(
        with[1..3],
        [
            "ip rule add priority 1010 from 192.0.2.0/24 to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165",
            "ip rule add priority 1010 from 198.18.0.0/15 to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165",
        ]
    );
    assert_eq!(with[3..], without[1..]);
    let everything = rules(vec![exemption("0.0.0.0/0"), exemption("192.0.2.0/24")]);
    assert_eq!(
        everything[1],
        "ip rule add priority 1010 from all to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165"
    );
}

fn uplink(name: &str, interface: &str, addresses: &[&str], gateway: &str) -> Uplink {
    Uplink {
        name: name.into(),
        interface: interface.into(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        follows_interface: false,
        gateway: Some(ip(gateway)),
        weight: 1,
        health: None,
        on_failure: OnFailure::default(),
        failback: Failback::default(),
    }
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
        inside: Inside {
            interface: "lan0".into(),
            address: None,
            prefixes: vec![net("10.0.0.0/24")],
        },
        uplinks: vec![uplink("isp1", "wan0", &["203.0.113.10"], "203.0.113.254")],
        forwards: vec![forward("web", 0, "203.0.113.10", 80, "10.0.0.101")],
        outbound: Vec::new(),
        no_nat: Vec::new(),
        nat: Nat::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        host: Host::default(),
        admin: Admin { socket: "/run/natbox/natbox1.sock".into(), http: None },
        state: State { keep: false },
        log: Log::default(),
        dns: None,
    }
}

fn natbox2(prefix: &str, server: &str) -> Config {
    Config {
        name: "natbox2".into(),
        tun: Tun { name: "nb2".into(), ..Tun::default() },
        inside: Inside { interface: "lan0".into(), address: None, prefixes: vec![net(prefix)] },
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
        uplinks: vec![
            uplink("isp1", "wan0", &["203.0.113.10"], "203.0.113.254"),
            uplink("isp2", "wan1", &four, "198.51.100.254"),
            uplink("isp3", "wan0", &["203.0.113.30"], "203.0.113.253"),
        ],
        forwards: vec![
            forward("web", 0, "203.0.113.10", 80, "10.0.0.101"),
            forward("web", 1, "198.51.100.9", 80, "10.0.0.101"),
        ],
        ..natbox1()
    }
}

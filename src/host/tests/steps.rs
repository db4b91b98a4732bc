//! The list of steps, as commands.

use super::*;

#[test]
fn one_uplink_on_the_segment_with_a_gateway() {
    assert_eq!(
        commands(&natbox1(), &host()),
        "
        ip rule add priority 1016 from 169.254.71.2 iif lo protocol 110 lookup 7165
        sysctl -q -e -w net.ipv6.conf.nb1.disable_ipv6=1
        sysctl -q -w net.ipv4.conf.nb1.accept_local=1
        sysctl -q -w net.ipv4.conf.nb1.rp_filter=0
        ip link set dev nb1 mtu 65535 txqueuelen 1000 group 7100 up
        ip address replace 169.254.71.2/32 dev nb1 scope link
        ip route replace default dev nb1 table 7165 proto 110
        ip route replace unreachable default metric 4294967295 table 7165 proto 110
        ip route replace throw 10.0.0.0/24 table 7164 proto 110
        ip route replace default dev nb1 table 7164 proto 110
        ip route replace unreachable default metric 4294967295 table 7164 proto 110
        ip route replace 203.0.113.10 dev nb1 table 7166 proto 110
        ip route replace blackhole 10.0.0.0/24 table 7166 proto 110
        ip route replace blackhole default table 7166 proto 110
        ip route replace throw 10.0.0.0/24 table 7167 proto 110
        ip route replace 203.0.113.0/24 dev wan0 table 7167 proto 110
        ip route replace default via 203.0.113.254 dev wan0 table 7167 proto 110
        ip route replace unreachable default metric 4294967295 table 7167 proto 110
        ip route replace throw 10.0.0.0/24 table 22716 proto 110
        ip route replace throw 224.0.0.0/4 table 22716 proto 110
        ip route replace default dev nb1 mtu 1500 table 22716 proto 110
        ip route replace unreachable default metric 4294967295 table 22716 proto 110
        ip route replace broadcast default dev wan0 metric 1 table 22717 proto 110
        ip route replace unreachable 10.0.0.0/24 metric 4294967295 proto 110
        ip route replace blackhole 0.0.0.0/8 metric 4294967295 proto 110
        ip route replace blackhole 240.0.0.0/4 metric 4294967295 proto 110
        ip route replace 203.0.113.10 dev nb1 src 203.0.113.1 proto 110
        sysctl -q -w net.ipv4.conf.lan0.rp_filter=2
        sysctl -q -w net.ipv4.conf.wan0.rp_filter=2
        sysctl -q -w net.ipv4.conf.wan0.arp_ignore=1
        sysctl -q -w net.ipv4.conf.wan0.arp_announce=2
        sysctl -q -w net.ipv4.conf.lan0.arp_filter=1
        sysctl -q -w net.ipv4.conf.lan0.arp_announce=2
        sysctl -q -w net.ipv4.conf.wan1.arp_ignore=1
        sysctl -q -w net.ipv4.conf.wan1.arp_announce=2
        ip rule add priority 1021 from 10.0.0.0/24 iif wan0 protocol 110 blackhole
        ip rule add priority 1023 from all iif wan0 protocol 110 lookup 7166
        ip rule add priority 1024 from all iif lan0 protocol 110 lookup 7164
        ip rule add priority 1025 from all to 10.0.0.0/24 iif nb1 protocol 110 lookup main
        ip rule add priority 1026 from 203.0.113.10 iif nb1 protocol 110 lookup 7167
        ip rule add priority 1028 from 10.0.0.0/24 oif wan0 protocol 110 lookup 22717
        ip rule add priority 1029 from 10.0.0.0/24 iif lo protocol 110 lookup 22716
        sysctl -q -w net.ipv4.icmp_errors_use_inbound_ifaddr=1
        sysctl -q -e -w net.ipv4.icmp_msgs_per_sec=100000
        sysctl -q -e -w net.ipv4.icmp_msgs_burst=10000
        sysctl -q -w net.ipv4.ip_forward=1
        sysctl -q -w net.ipv4.conf.lan0.forwarding=1
        sysctl -q -w net.ipv4.conf.wan0.forwarding=1
        sysctl -q -w net.ipv4.conf.nb1.forwarding=1
        sysctl -q -w net.ipv4.neigh.wan0.proxy_delay=0
        ip neighbour replace proxy 203.0.113.10 dev wan0
        ip rule add priority 32766 from all protocol kernel lookup main
        "
        .replace("        ", "")
        .trim_start()
    );
}

/// A host whose default route by wan0 a VPN client has preceded by the routes of OpenVPN's
/// `redirect-gateway def1`. The host has routes of its own by wan0 as well.
fn host_behind_a_vpn() -> Snapshot {
    let mut host = host();
    host.links.push(Link { index: 9, name: "tun9".into(), arp: false, ..host.links[3].clone() });
    host.routes[2].route.via = Some(ip("203.0.113.254"));
    let via = |to, via, metric| {
        let mut found = route(to, TABLE_MAIN, Some("wan0"));
        (found.route.via, found.route.metric) = (Some(ip(via)), metric);
        found
    };
    let mut dropped = route("172.16.0.0/12", TABLE_MAIN, None);
    dropped.route.kind = RouteKind::Blackhole;
    host.routes.extend([
        route("0.0.0.0/1", TABLE_MAIN, Some("tun9")),
        route("128.0.0.0/1", TABLE_MAIN, Some("tun9")),
        route("192.0.2.0/24", TABLE_MAIN, Some("tun9")),
        via("198.18.0.0/15", "203.0.113.252", 7),
        via("198.18.0.0/15", "203.0.113.253", 3),
        via("10.0.0.128/26", "203.0.113.253", 0),
        dropped,
    ]);
    host
}

#[test]
fn without_a_gateway_the_host_has_the_next_hop_and_no_vpn_precedes_it() {
    let mut config = natbox1();
    config.uplinks[0].gateway = None;
    let of_uplink = |config: &Config, host: &Snapshot| {
        let commands = commands(config, host);
        let of_uplink = commands.lines().filter(|line| line.contains(" 7167"));
        of_uplink.map(String::from).collect::<Vec<_>>()
    };
    let rule = "ip rule add priority 1026 from 203.0.113.10 iif nb1 protocol 110 lookup 7167";
    let wanted = [
        "ip route replace throw 10.0.0.0/24 table 7167 proto 110",
        "ip route replace 203.0.113.0/24 dev wan0 table 7167 proto 110",
        "ip route replace blackhole 172.16.0.0/12 table 7167 proto 110",
        "ip route replace 198.18.0.0/15 via 203.0.113.253 dev wan0 table 7167 proto 110",
        "ip route replace default via 203.0.113.254 dev wan0 table 7167 proto 110",
        "ip route replace unreachable default metric 4294967295 table 7167 proto 110",
        rule,
    ];
    let mut host = host_behind_a_vpn();
    assert_eq!(of_uplink(&config, &host), wanted);
    let (facts, _) = collect(&config, &host);
    assert!(facts.is_ready(&config, 0) && facts.warnings.is_empty(), "{:?}", facts.warnings);
    // The packets of an uplink with a gateway have no other way.
    let of_gateway = of_uplink(&natbox1(), &host);
    assert_eq!(of_gateway, [&wanted[..2], &wanted[4..]].concat());
    // A default route that natbox cannot copy.
    (host.routes[2].more, host.routes[2].is_opaque) = (true, true);
    let commands = commands(&config, &host);
    let from = "ip rule add priority 1026 from 203.0.113.10 iif nb1 protocol 110 lookup main";
    assert!(commands.contains(from) && !commands.contains("7167"), "{commands}");
    // No way out.
    host.routes.remove(2);
    assert_eq!(of_uplink(&config, &host), [&wanted[..4], &wanted[5..]].concat());
    let (facts, _) = collect(&config, &host);
    assert!(!facts.is_ready(&config, 0) && facts.warnings[0].contains("no default route"));
}

#[test]
fn several_uplinks_without_a_gateway_use_the_default_route_of_their_interface() {
    let mut config = three_legged();
    (config.uplinks[0].gateway, config.uplinks[1].gateway) = (None, None);
    let mut host = host_behind_a_vpn();
    let mut second = route("0.0.0.0/0", TABLE_MAIN, Some("wan1"));
    (second.route.via, second.route.metric) = (Some(ip("198.51.100.254")), 20);
    host.routes.push(second);
    let commands = commands(&config, &host);
    for line in [
        "ip route replace default via 203.0.113.254 dev wan0 table 7103",
        "ip route replace 198.18.0.0/15 via 203.0.113.253 dev wan0 table 7103",
        "ip route replace default via 198.51.100.254 dev wan1 table 7105",
        "ip route replace default via 203.0.113.253 dev wan0 table 7107",
    ] {
        assert!(commands.contains(line), "{line} in\n{commands}");
    }
    assert!(!commands.contains("198.18.0.0/15 via 203.0.113.253 dev wan0 table 7107"));
}

/// Regression: an interface that the configuration does not name answered ARP for a published
/// address.
#[test]
fn every_other_interface_with_arp_answers_for_its_own_addresses_alone() {
    let mut host = host();
    let ethernet = host.links[3].clone();
    host.links.extend([
        Link { index: 5, name: "mgmt0".into(), ..ethernet.clone() },
        Link { index: 6, name: "port0".into(), controller: Some(9), ..ethernet.clone() },
        Link { index: 7, name: "wg0".into(), arp: false, ..ethernet.clone() },
        Link { index: 8, name: "tunl0".into(), hardware: None, ..ethernet.clone() },
        Link { index: 9, name: "nb1".into(), ..ethernet },
    ]);
    let of_arp = |config: &Config, host: &Snapshot| {
        let commands = commands(config, host);
        let keys = commands.lines().filter_map(|line| line.split_once(".arp_")?.0.rsplit_once('.'));
        let mut names: Vec<String> = keys.map(|(_, name)| name.to_owned()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(of_arp(&natbox1(), &host), ["lan0", "mgmt0", "wan0", "wan1"]);
    // Another instance has an interface of its own.
    let (facts, ids) = collect(&natbox1(), &host);
    let facts = facts.without_interfaces(&["wan1".into()]);
    let commands: String =
        list_steps(&natbox1(), &facts, &ids).iter().map(|step| step.command() + "\n").collect();
    assert!(commands.contains("mgmt0.arp_ignore=1") && !commands.contains("wan1"), "{commands}");
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
fn natbox_precedes_the_host_for_an_address_that_is_assigned_to_the_host() {
    let mut host = host();
    host.addresses.push(address(3, "203.0.113.10", "203.0.113.0/24", false));
    let commands = commands(&natbox1(), &host);
    let (before, after) = commands.split_once("sysctl -q -w net.ipv4.ip_early_demux=0\n").unwrap();
    assert_eq!(
        after,
        "
        ip rule add priority 1017 from all to 203.0.113.10 iif wan0 ipproto udp sport 67 dport 68 protocol kernel lookup local
        ip rule add priority 1018 from 10.0.0.0/24 to 203.0.113.10 iif wan0 protocol 110 blackhole
        ip rule add priority 1019 from all to 203.0.113.10 iif wan0 protocol 110 lookup 7166
        ip rule add priority 1019 from all to 203.0.113.10 iif lan0 protocol 110 lookup 7164
        ip rule add priority 1020 from all to 203.0.113.10 protocol kernel lookup local
        ip route prepend local 203.0.113.10 dev nb1 table local proto 110
        ip rule add priority 0 from all suppress_ifgroup 7100 protocol kernel lookup local && ip rule del priority 0 from all lookup local
        ip rule add priority 32766 from all protocol kernel lookup main
        "
        .replace("        ", "")
        .trim_start()
    );
    assert!(before.starts_with("ip rule add priority 1016 from 169.254.71.2 iif lo "), "{before}");
    // The kernel itself stops answering ARP for the address.
    assert!(before.contains("ip neighbour replace proxy 203.0.113.10 dev wan0"), "{before}");
    // Packets out of the TUN for the host have any source.
    assert!(before.contains("conf.nb1.rp_filter=2"), "{before}");
    // When natbox dies, its TUN vanishes, and the host gets its packets.
    let throw = "ip route replace throw 203.0.113.10 metric 4294967295 table 7166 proto 110";
    assert!(before.contains(throw), "{before}");
    // The local table has the address.
    assert!(!before.contains("ip route replace 203.0.113.10 dev nb1 src"), "{before}");
}

#[test]
fn each_uplink_has_a_table_and_each_interface_one_rule() {
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

/// Regression: with a default route by the first uplink, the host's replies and the kernel's errors
/// left by that uplink alone.
#[test]
fn the_hosts_own_packets_leave_by_the_uplink_of_their_source() {
    let mut host = host();
    // The second one is published, the third one is not.
    for second in ["198.51.100.9", "198.51.100.77"] {
        host.addresses.push(address(4, second, "198.51.100.0/24", false));
    }
    let of_several = commands(&three_legged(), &host);
    for line in [
        "ip rule add priority 1011 from 203.0.113.1 iif lo protocol 110 lookup 7103",
        "ip rule add priority 1011 from 198.51.100.1 iif lo protocol 110 lookup 7105",
        "ip rule add priority 1011 from 198.51.100.9 iif lo protocol 110 lookup 7105",
        "ip rule add priority 1011 from 198.51.100.77 iif lo protocol 110 lookup 7105",
    ] {
        assert!(of_several.contains(line), "{line} in\n{of_several}");
    }
    // The third uplink shares interface and address with the first.
    assert_eq!(of_several.matches("from 203.0.113.1 iif lo").count(), 1);
    assert!(
        !commands(&natbox1(), &host).contains("from 203.0.113.1 iif lo"),
        "a single uplink needs no rule"
    );
}

#[test]
fn forwarding_starts_after_the_rules_that_shut_off_the_inside() {
    let commands = commands(&natbox1(), &host());
    let at = |text: &str| commands.find(text).unwrap();
    assert!(at("iif wan0 protocol 110 lookup") < at("ip_forward=1"));
    assert!(at("iif wan0 protocol 110 blackhole") < at("ip_forward=1"));
}

#[test]
fn an_interface_with_a_dot_has_a_sysctl_path_with_slashes() {
    let mut config = natbox1();
    config.uplinks[0].interface = "wan0.100".into();
    let mut host = host();
    host.links[2].name = "wan0.100".into();
    let commands = commands(&config, &host);
    assert!(commands.contains("sysctl -q -w net/ipv4/conf/wan0.100/rp_filter=2"), "{commands}");
}

/// The rules for these packets follow the drop of spoofed inside sources and precede the drop of
/// all other packets to the inside.
#[test]
fn no_nat_destinations_reach_the_inside_through_the_tun() {
    let no_nat_rule =
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
        no_nat_rule("192.0.2.0/25"),
        no_nat_rule("192.0.2.128/25"),
        no_nat_rule("198.18.0.0/15"),
    ]);
    assert_eq!(with[0], without[0]);
    assert_eq!(
        with[1..3],
        [
            "ip rule add priority 1022 from 192.0.2.0/24 to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165",
            "ip rule add priority 1022 from 198.18.0.0/15 to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165",
        ]
    );
    assert_eq!(with[3..], without[1..]);
    let everything = rules(vec![no_nat_rule("0.0.0.0/0"), no_nat_rule("192.0.2.0/24")]);
    assert_eq!(
        everything[1],
        "ip rule add priority 1022 from all to 10.0.0.0/24 iif wan0 protocol 110 lookup 7165"
    );
}

#[test]
fn each_inside_leg_has_its_rules_and_no_leg_takes_the_source_of_another() {
    let mut config = natbox1();
    config.inside.legs.push(leg("dmz0", "10.1.0.0/24"));
    config.inside.legs.push(leg("guest0", "10.2.0.0/24"));
    let to_other_leg = OutboundRule {
        from: net("10.2.0.0/24"),
        // The second one is wider than the prefix of a leg, the third one is the leg's own.
        to: vec![net("10.1.0.0/25"), net("10.0.0.0/8"), net("10.2.0.0/28")],
        uplinks: vec![0],
        hash_by: HashBy::SourcePort,
    };
    config.outbound.push(to_other_leg);
    let mut host = host();
    host.addresses.push(address(3, "203.0.113.10", "203.0.113.0/24", false));
    let commands = commands(&config, &host);
    for line in [
        "ip route replace throw 10.1.0.0/24 table 7164 proto 110",
        "ip route replace throw 10.1.0.0/24 table 7167 proto 110",
        "ip route replace unreachable 10.2.0.0/24 metric 4294967295 proto 110",
        "ip rule add priority 1021 from 10.2.0.0/24 iif wan0 protocol 110 blackhole",
        "ip rule add priority 1021 from 10.0.0.0/24 iif dmz0 protocol 110 blackhole",
        "ip rule add priority 1021 from 10.2.0.0/24 iif dmz0 protocol 110 blackhole",
        "ip rule add priority 1021 from 10.0.0.0/24 iif guest0 protocol 110 blackhole",
        "ip rule add priority 1022 from 10.2.0.0/24 to 10.1.0.0/25 iif guest0 protocol 110 lookup 7165",
        "ip rule add priority 1024 from all iif dmz0 protocol 110 lookup 7164",
        "ip rule add priority 1018 from 10.0.0.0/24 to 203.0.113.10 iif dmz0 protocol 110 blackhole",
        "ip rule add priority 1019 from all to 203.0.113.10 iif dmz0 protocol 110 lookup 7164",
    ] {
        assert!(commands.contains(&format!("{line}\n")), "{line} in\n{commands}");
    }
    assert!(!commands.contains("from 10.1.0.0/24 iif dmz0"), "{commands}");
    assert_eq!(commands.matches("priority 1022").count(), 1, "{commands}");
    assert!(!commands.contains("dmz0.rp_filter"), "the interface does not exist: {commands}");
}

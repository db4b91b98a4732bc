//! The host's own packets from inside addresses.

use super::*;
use crate::host::model::own_traffic::OwnWay;

fn exceptions(config: &Config, host: &Snapshot) -> Vec<(String, OwnWay)> {
    let (facts, _) = collect(config, host);
    let found = facts.own_traffic.exceptions.into_iter();
    found.map(|(to, way)| (to.to_string(), way)).collect()
}

fn sources(config: &Config, host: &Snapshot) -> Vec<Ipv4Net> {
    collect(config, host).0.own_traffic.sources
}

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), ..host().links[1].clone() }
}

#[test]
fn networks_besides_the_uplinks_keep_the_hosts_routes() {
    let mut host = host();
    assert_eq!(exceptions(&three_legged(), &host), []);
    host.links.push(link(5, "wg0"));
    host.routes.extend([
        // A VPN for all of the host's own packets.
        route("0.0.0.0/1", TABLE_MAIN, Some("wg0")),
        route("128.0.0.0/1", TABLE_MAIN, Some("wg0")),
        route("10.8.0.0/24", TABLE_MAIN, Some("wg0")),
        route("192.0.2.0/24", TABLE_MAIN, Some("wan0")),
        route("198.18.0.0/15", TABLE_MAIN, Some("wg0")),
        route("198.18.7.0/24", TABLE_MAIN, Some("wan1")),
        // The same way as the network around it.
        route("198.18.8.0/24", TABLE_MAIN, Some("wg0")),
        route("10.9.0.0/24", 52, Some("wg0")),
        route("10.0.0.64/26", TABLE_MAIN, Some("lan0")),
        route("10.0.0.128/30", TABLE_MAIN, Some("wan1")),
        route("224.0.0.0/4", TABLE_MAIN, Some("wan0")),
    ]);
    let wanted = [
        ("10.0.0.128/30", OwnWay::Natbox),
        ("10.8.0.0/24", OwnWay::Host),
        ("198.18.0.0/15", OwnWay::Host),
        ("198.18.7.0/24", OwnWay::Natbox),
    ];
    let wanted: Vec<_> = wanted.map(|(to, way)| (to.to_owned(), way)).into();
    assert_eq!(exceptions(&three_legged(), &host), wanted);
    let commands = commands(&three_legged(), &host);
    for line in [
        "ip route replace throw 10.8.0.0/24 table 22700",
        "ip route replace 198.18.7.0/24 dev nb0 mtu 1500 table 22700",
        "ip route replace throw 224.0.0.0/4 table 22700",
    ] {
        assert!(commands.contains(line), "{line} in\n{commands}");
    }
}

/// Tailscale has its routes in a table of its own.
#[test]
fn a_table_for_every_packet_counts() {
    let mut host = host();
    host.routes.push(route("100.64.7.0/24", 52, Some("tailscale0")));
    assert_eq!(exceptions(&natbox1(), &host), []);
    host.rules.push(rule(5270, 3, RuleAction::Lookup(52)));
    assert_eq!(exceptions(&natbox1(), &host), [("100.64.7.0/24".into(), OwnWay::Host)]);
}

#[test]
fn the_route_with_the_least_metric_decides() {
    let mut host = host();
    host.links.push(link(5, "wg0"));
    let mut by_uplink = route("192.0.2.0/24", TABLE_MAIN, Some("wan0"));
    host.routes.push(route("192.0.2.0/24", TABLE_MAIN, Some("wg0")));
    by_uplink.route.metric = 7;
    host.routes.push(by_uplink);
    assert_eq!(exceptions(&natbox1(), &host), [("192.0.2.0/24".into(), OwnWay::Host)]);
    host.routes[3].route.metric = 8;
    assert_eq!(exceptions(&natbox1(), &host), []);
}

#[test]
fn an_address_of_another_interface_in_an_inside_prefix_is_none_of_natboxs() {
    let mut host = host();
    assert_eq!(sources(&natbox1(), &host), [net("10.0.0.0/24")]);
    host.addresses.push(address(1, "10.0.0.9", "10.0.0.9/32", true));
    assert_eq!(sources(&natbox1(), &host), [net("10.0.0.0/24")], "an address of lo");
    host.links.push(link(5, "wg0"));
    host.addresses.push(address(5, "10.0.0.200", "10.0.0.200/32", true));
    assert_eq!(sources(&natbox1(), &host), [net("10.0.0.100/32"), net("10.0.0.9/32")]);
    let mut config = natbox1();
    config.forwards.push(forward("vpn", 0, "203.0.113.10", 22, "10.0.0.200"));
    let published = sources(&config, &host);
    assert!(published.contains(&net("10.0.0.200/32")), "{published:?}");
}

#[test]
fn udp_services_have_a_rule_for_sockets_without_an_address() {
    let mut config = three_legged();
    for (protocol, port, ports) in [
        (ForwardProtocol::Udp, 51820, 1),
        (ForwardProtocol::TcpUdp, 4000, 100),
        (ForwardProtocol::Tcp, 22, 1),
        (ForwardProtocol::Icmp, 0, 1),
    ] {
        let mut service = forward("own", 0, "203.0.113.10", port, "10.0.0.100");
        service.protocol = protocol;
        service.ports.last = service.ports.first + (ports - 1);
        config.forwards.push(service);
    }
    // Port 80 of an inside host has none.
    let lines = commands(&config, &host());
    let rules: Vec<&str> = lines.lines().filter(|line| line.contains("from 0.0.0.0 ")).collect();
    assert_eq!(
        rules,
        [
            "ip rule add priority 1014 from 0.0.0.0 iif lo ipproto udp sport 51820 protocol 110 lookup 22703",
            "ip rule add priority 1014 from 0.0.0.0 iif lo ipproto udp sport 4000-4099 protocol 110 lookup 22703",
        ]
    );
    let route = "ip route replace default dev nb0 src 10.0.0.100 mtu 1500 table 22703";
    assert!(lines.contains(route), "{lines}");
}

/// The host's own clients take their ports from the ephemeral range.
#[test]
fn a_whole_address_leaves_the_ephemeral_ports_to_the_hosts_clients() {
    let mut config = natbox1();
    let mut whole = forward("all", 0, "203.0.113.10", 0, "10.0.0.100");
    (whole.protocol, whole.ports) = (ForwardProtocol::Any, PortRange::ALL);
    config.forwards = vec![whole];
    let lines = commands(&config, &host());
    let ports: Vec<&str> = lines
        .lines()
        .filter_map(|line| Some(line.split_once(" sport ")?.1.split_once(' ')?.0))
        .collect();
    assert_eq!(ports, ["1-32767", "61000-65534"]);
}

#[test]
fn targets_that_the_host_does_not_reach_from_inside_are_warnings() {
    let mut host = host();
    host.links.push(link(5, "dmz0"));
    host.routes.push(route("10.3.0.0/24", TABLE_MAIN, Some("dmz0")));
    let mut config = natbox1();
    config.inside.legs[0].prefixes =
        vec![net("10.0.0.0/16"), net("10.3.0.0/16"), net("10.4.0.0/16")];
    let warnings = |config: &Config, target: &str| {
        let mut config = config.clone();
        config.forwards = vec![forward("web", 0, "203.0.113.10", 80, target)];
        let (facts, _) = collect(&config, &host);
        facts.warnings
    };
    assert_eq!(warnings(&config, "10.0.0.101"), [""; 0]);
    assert_eq!(warnings(&config, "10.0.0.100"), [""; 0], "the host itself");
    for (target, words) in [
        ("10.0.0.0", "the network or broadcast address"),
        ("10.3.0.7", "by dmz0 and not by lan0"),
        ("10.4.0.7", "no route by lan0"),
        ("10.0.7.1", "no route by lan0"),
    ] {
        let found = warnings(&config, target);
        assert!(found.len() == 1 && found[0].contains(words), "{target}: {found:?}");
    }
}

#[test]
fn packets_by_an_interface_without_an_address_get_an_inside_address_in_the_tun() {
    let mut host = host();
    host.addresses.retain(|found| found.index != 3);
    let lines = commands(&three_legged(), &host);
    for line in [
        "ip route replace default dev nb0 src 10.0.0.100 mtu 1500 table 22702",
        "ip route replace 203.0.113.0/24 dev nb0 src 10.0.0.100 mtu 1500 table 22702",
        "ip rule add priority 1015 from 0.0.0.0 iif lo protocol 110 lookup 22702",
        "ip rule add priority 1012 from 0.0.0.0 oif wan0 protocol 110 lookup 22701",
    ] {
        assert!(lines.contains(line), "{line} in\n{lines}");
    }
    assert!(!lines.contains("from 0.0.0.0 oif wan1"), "{lines}");
    // The host has an address that is none of the inside.
    host.addresses.insert(0, address(1, "192.0.2.77", "192.0.2.77/32", true));
    let lines = commands(&three_legged(), &host);
    assert!(!lines.contains("from 0.0.0.0"), "{lines}");
}

//! Networks behind interfaces that natbox does not use.

use super::*;

/// Returns the networks, each with its interface, or with `-` where natbox decides.
fn networks(config: &Config, host: &Snapshot) -> Vec<String> {
    let (facts, _) = collect(config, host);
    let found = facts.other_networks.into_iter();
    found
        .map(|one| {
            let device = one.way.map_or("-".into(), |way| {
                way.via.map_or(way.device.clone(), |via| format!("{} via {via}", way.device))
            });
            format!("{} {device}", one.to)
        })
        .collect()
}

/// A route that a person or a program set.
fn by_program(to: &str, table: u32, device: &str) -> FoundRoute {
    FoundRoute { protocol: 4, ..route(to, table, Some(device)) }
}

#[test]
fn networks_of_other_interfaces_are_reachable_from_outside_and_from_inside() {
    let mut host = host();
    assert_eq!(networks(&natbox1(), &host), [""; 0]);
    let mut behind = by_program("192.0.2.0/24", TABLE_MAIN, "dmz0");
    behind.route.via = Some(ip("172.31.0.9"));
    host.routes.extend([
        route("172.17.0.0/16", TABLE_MAIN, Some("docker0")),
        behind,
        by_program("10.9.0.0/24", TABLE_MAIN, "lan0"),
    ]);
    assert_eq!(
        networks(&natbox1(), &host),
        ["172.17.0.0/16 docker0", "192.0.2.0/24 dmz0 via 172.31.0.9"]
    );
    let commands = commands(&natbox1(), &host);
    for table in [7164, 7166] {
        for line in [
            format!("ip route replace 172.17.0.0/16 dev docker0 table {table} proto 110"),
            format!("ip route replace 192.0.2.0/24 via 172.31.0.9 dev dmz0 onlink table {table}"),
        ] {
            assert!(commands.contains(&line), "{line} in\n{commands}");
        }
    }
}

/// A network of the host may be within an inside prefix, or around it.
#[test]
fn the_inside_and_the_uplinks_stay_closed_from_outside() {
    let mut host = host();
    host.routes.extend([
        by_program("10.0.0.0/8", TABLE_MAIN, "wg0"),
        by_program("10.0.0.128/25", TABLE_MAIN, "wg0"),
        by_program("10.0.0.0/24", TABLE_MAIN, "wg0"),
        by_program("10.77.0.0/16", TABLE_MAIN, "wan0"),
        by_program("10.78.0.0/16", TABLE_MAIN, "lan0"),
        by_program("203.0.113.10/32", TABLE_MAIN, "wg0"),
        by_program("169.254.0.0/16", TABLE_MAIN, "wg0"),
    ]);
    assert_eq!(networks(&natbox1(), &host), ["10.0.0.0/8 wg0", "10.77.0.0/16 -", "10.78.0.0/16 -"]);
    let commands = commands(&natbox1(), &host);
    for line in [
        "ip route replace blackhole 10.77.0.0/16 table 7166",
        "ip route replace blackhole 10.0.0.0/24 table 7166",
        "ip route replace blackhole default table 7166",
        "ip route replace 10.77.0.0/16 dev nb1 table 7164",
        "ip route replace unreachable 10.77.0.0/16 metric 4294967295 table 7164",
    ] {
        assert!(commands.contains(line), "{line} in\n{commands}");
    }
}

/// Otherwise a full-tunnel VPN would take the packets that natbox translates.
#[test]
fn a_default_route_in_several_parts_is_no_network() {
    let mut host = host();
    host.routes.extend([
        route("10.8.0.0/24", TABLE_MAIN, Some("tun9")),
        by_program("0.0.0.0/1", TABLE_MAIN, "tun9"),
        by_program("128.0.0.0/1", TABLE_MAIN, "tun9"),
        by_program("172.30.0.0/16", TABLE_MAIN, "tun9"),
        by_program("64.0.0.0/2", TABLE_MAIN, "wg0"),
    ]);
    assert_eq!(networks(&natbox1(), &host), ["64.0.0.0/2 wg0", "10.8.0.0/24 tun9"]);
}

#[test]
fn only_tables_for_every_packet_count_and_the_first_rule_decides() {
    let mut host = host();
    host.routes.extend([
        by_program("100.64.7.0/24", 52, "tailscale0"),
        by_program("100.64.8.0/24", 52, "tailscale0"),
        by_program("100.64.8.0/24", TABLE_MAIN, "wg0"),
        by_program("192.168.9.0/24", 200, "wg0"),
    ]);
    host.rules.push(rule(5270, 3, RuleAction::Lookup(52)));
    let mut of_one_host = rule(5000, 3, RuleAction::Lookup(200));
    of_one_host.rule.from = Some(net("10.0.0.7/32"));
    host.rules.push(of_one_host);
    assert_eq!(
        networks(&natbox1(), &host),
        ["100.64.7.0/24 tailscale0", "100.64.8.0/24 tailscale0"]
    );
}

#[test]
fn the_networks_of_another_instance_stay_closed() {
    let mut host = host();
    host.routes.extend([
        route("10.2.0.0/24", TABLE_MAIN, Some("lan2")),
        route("172.17.0.0/16", TABLE_MAIN, Some("docker0")),
    ]);
    assert_eq!(networks(&natbox1(), &host), ["172.17.0.0/16 docker0", "10.2.0.0/24 lan2"]);
    let mut of_instance = rule(1040, RTPROT_NATBOX, RuleAction::Lookup(7228));
    of_instance.rule.iif = Some("lan2".into());
    host.rules.push(of_instance);
    assert_eq!(networks(&natbox1(), &host), ["172.17.0.0/16 docker0"]);
}

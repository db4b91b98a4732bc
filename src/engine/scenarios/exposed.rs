//! Exposed hosts and very wide forwards: other claims on the address come first.

use crate::nat::{AdmitNew, EndReason, Filter};

use super::*;

/// The probe address of the uplink.
const PROBE: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 1);

/// Returns a setup whose only address exposes S1.
fn exposed() -> Setup {
    settings().with(|setup| {
        setup.policy.forwards = vec![forward(ForwardProtocol::Any, 0..=65535, S1, 0)];
        setup.policy.uplinks[0].probe_address = Some(PROBE);
        setup.limits.sessions = 200_000;
    })
}

/// Returns [`exposed`] with a second uplink; the outbound rule allows both.
fn exposed_on_first_of_two() -> Setup {
    exposed().with(|setup| {
        let mut second = setup.policy.uplinks[0].clone();
        second.addresses[0].address = G2;
        second.probe_address = None;
        setup.policy.uplinks.push(second);
        setup.policy.outbound[0].uplinks = vec![0, 1];
    })
}

/// Returns [`exposed`] with an address that the host has as well; its own ports are 32768-60999.
fn exposed_on_the_hosts_address() -> Setup {
    exposed().with(|setup| {
        let address = &mut setup.policy.uplinks[0].addresses[0];
        address.assigned_to_host = true;
        address.reserved = vec![(32_768..=60_999).into()];
    })
}

fn echo(source: Ipv4Addr, destination: Ipv4Addr, kind: QueryKind, identifier: u16) -> Vec<u8> {
    builder::echo(source, destination, kind, identifier, 1, b"ping")
}

#[test]
fn a_single_forward_and_a_live_mapping_come_before_the_exposed_host() {
    let mut harness = Harness::new(exposed().with(|setup| {
        setup.policy.forwards.push(forward(ForwardProtocol::Tcp, 80..=80, S2, 8080));
        setup.policy.forwards.push(forward(ForwardProtocol::Icmp, 0..=65535, S2, 0));
    }));
    let mapped = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let back = harness.pass(&udp((E1, 53), (G, mapped.port)));
    assert_eq!(back, tuple(Protocol::UDP, (E1, 53), (S2, 5000)));
    assert_eq!(
        harness.drop_reason(&udp((E2, 53), (G, mapped.port))),
        DropReason::Filtered,
        "the port is the mapping's as long as the mapping lives"
    );
    assert_eq!(
        harness.pass(&tcp(SYN, (E1, 7), (G, 80), 1, 0)).destination,
        tuple(Protocol::TCP, (E1, 7), (S2, 8080)).destination
    );
    assert_eq!(harness.pass(&tcp(SYN, (E1, 7), (G, 81), 1, 0)).destination.address, S1);
    let request = echo(E1, G, QueryKind::EchoRequest, 7);
    assert_eq!(harness.pass(&request).destination.address, S2);
    // When the mapping has ended, the exposed host has the port again.
    harness.wait(Span::seconds(301));
    assert_eq!(
        harness.pass(&udp((E2, 53), (G, mapped.port))),
        tuple(Protocol::UDP, (E2, 53), (S1, mapped.port))
    );
}

#[test]
fn of_two_ranges_the_narrower_one_has_its_ports() {
    let mut harness = Harness::new(settings().with(|setup| {
        setup.policy.forwards = vec![
            forward(ForwardProtocol::TcpUdp, 1..=65535, S1, 1),
            forward(ForwardProtocol::Udp, 8000..=8099, S2, 8000),
            forward(ForwardProtocol::Udp, 8010..=8010, S2, 10),
        ];
    }));
    for (port, server) in [(7999, (S1, 7999)), (8000, (S2, 8000)), (8010, (S2, 10))] {
        assert_eq!(
            harness.pass(&udp((E1, 5), (G, port))),
            tuple(Protocol::UDP, (E1, 5), server),
            "port {port}"
        );
    }
    // The replies without a session leave by the same ports.
    for (server, port) in [((S1, 7998), 7998), ((S2, 8001), 8001), ((S2, 10), 8010)] {
        assert_eq!(harness.pass(&udp(server, (E2, 6))).source.port, port);
    }
    // The port of S1 that a narrower forward has is no source of S1.
    assert_ne!(harness.pass(&udp((S1, 8000), (E2, 6))).source.port, 8000);
}

#[test]
fn other_inside_hosts_and_probes_get_ports_of_an_exposed_address() {
    for wide in [
        forward(ForwardProtocol::Any, 0..=65535, S1, 0),
        forward(ForwardProtocol::TcpUdp, 1..=65535, S1, 1),
        forward(ForwardProtocol::TcpUdp, 1024..=65535, S1, 1024),
    ] {
        let setup = exposed().with(|setup| setup.policy.forwards = vec![wide]);
        let mut harness = Harness::new(setup);
        for inside in [S2, PROBE] {
            let mapped = harness.pass(&tcp(SYN, (inside, 5000), (E1, 80), 1, 0)).source;
            assert_eq!(mapped.address, G);
            assert!(mapped.port >= 49_408, "the ports kept back come first: {mapped:?}");
            let back = harness.pass(&tcp(SYN_ACK, (E1, 80), (G, mapped.port), 5, 2));
            assert_eq!(back.destination.address, inside);
            let ping = harness.pass(&echo(inside, E1, QueryKind::EchoRequest, 9)).source;
            let back = harness.pass(&echo(E1, G, QueryKind::EchoReply, ping.port));
            assert_eq!(back, tuple(Protocol::ICMP, (E1, 0), (inside, 9)));
            let gre = Protocol(47);
            let remote = if inside == S2 { E1 } else { E2 };
            harness.pass(&builder::other(gre, inside, remote, b"hello"));
            let back = harness.pass(&builder::other(gre, remote, G, b"hello"));
            assert_eq!(back.destination.address, inside);
        }
    }
}

#[test]
fn a_mapping_never_takes_a_port_on_which_the_exposed_host_has_a_session() {
    let mut harness = Harness::new(exposed().with(|setup| {
        setup.limits.ports = (40_000..=40_007).into();
        setup.policy.uplinks[0].probe_address = None;
    }));
    // Inbound on two ports, outbound on a third one.
    harness.pass(&udp((E1, 5), (G, 40_000)));
    harness.pass(&udp((E1, 5), (G, 40_001)));
    assert_eq!(harness.pass(&udp((S1, 40_002), (E1, 5))).source.port, 40_002);
    let mut ports: Vec<u16> =
        (5000..5005).map(|port| harness.pass(&udp((S2, port), (E1, 53))).source.port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [40_003, 40_004, 40_005, 40_006, 40_007]);
    assert_eq!(harness.drop_reason(&udp((S2, 5005), (E1, 53))), DropReason::PortsExhausted);
    // When the last session on a port ends, the port is free.
    harness.pass(&udp((E2, 6), (G, 40_000)));
    harness.wait(Span::seconds(200));
    for packet in [udp((E2, 6), (G, 40_000)), udp((E1, 5), (G, 40_001))] {
        harness.pass(&packet);
    }
    for port in 5000..5005 {
        harness.pass(&udp((S2, port), (E1, 53)));
    }
    harness.wait(Span::seconds(200));
    assert_eq!(harness.pass(&udp((S2, 5005), (E1, 53))).source.port, 40_002);
}

#[test]
fn an_exposed_host_keeps_its_source_ports_except_those_of_others() {
    let mut harness = Harness::new(exposed());
    for port in [500, 5000, 60_000] {
        assert_eq!(
            harness.pass(&udp((S1, port), (E1, 53))),
            tuple(Protocol::UDP, (G, port), (E1, 53))
        );
    }
    let request = echo(S1, E1, QueryKind::EchoRequest, 9);
    assert_eq!(harness.pass(&request), tuple(Protocol::ICMP, (G, 9), (E1, 0)));
    // S2 has a port; S1 gets another one for it, and keeps that for all remote hosts.
    let taken = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    let other = harness.pass(&udp((S1, taken), (E1, 53))).source;
    assert_eq!(other.address, G);
    assert_ne!(other.port, taken);
    assert_eq!(harness.pass(&udp((S1, taken), (E2, 53))).source, other);
    assert_eq!(harness.pass(&udp((E1, 53), (G, taken))).destination.address, S2);
    assert_eq!(
        harness.pass(&udp((E1, 53), (G, other.port))),
        tuple(Protocol::UDP, (E1, 53), (S1, taken))
    );
}

/// A client outside can open a session on every port. Those that are kept back stay free.
#[test]
fn a_flood_to_every_port_leaves_ports_to_other_hosts_and_probes() {
    let mut harness = Harness::new(exposed());
    for port in 1..=u16::MAX {
        assert_eq!(harness.pass(&udp((E2, 5), (G, port))).destination.address, S1);
    }
    for inside in [S2, PROBE] {
        for port in 5000..5100 {
            assert_eq!(harness.pass(&udp((inside, port), (E1, 53))).source.address, G);
        }
    }
}

#[test]
fn the_exposed_hosts_own_sessions_move_when_its_uplink_fails_and_return() {
    let mut harness = Harness::new(exposed_on_first_of_two());
    for port in 5000..5020 {
        assert_eq!(
            harness.pass(&udp((S1, port), (E1, 53))),
            tuple(Protocol::UDP, (G, port), (E1, 53)),
            "the published address while its uplink is healthy"
        );
    }
    let other = harness.pass(&builder::other(Protocol(47), S1, E1, b"gre")).source.address;
    assert_eq!(other, G);
    harness.nat.set_admission(0, AdmitNew::KnownEndpoints);
    assert_eq!(harness.pass(&udp((S1, 5000), (E2, 53))).source.address, G, "a known endpoint");
    assert_eq!(harness.pass(&udp((S1, 6000), (E2, 53))).source.address, G2);
    assert_eq!(harness.pass(&builder::other(Protocol(47), S1, E2, b"gre")).source.address, G2);
    harness.nat.set_admission(0, AdmitNew::None);
    assert_eq!(harness.pass(&udp((S1, 5001), (E2, 53))).source.address, G2);
    assert_eq!(harness.pass(&udp((S1, 5001), (E1, 53))).source.address, G, "a live session");
    let ended = harness.end_all(&Filter::movable_from(0), EndReason::UplinkFailed);
    assert_eq!(ended, 22, "20 endpoints, one of them twice, and GRE");
    assert_eq!(harness.pass(&udp((S1, 5002), (E1, 53))).source.address, G2);
    // All uplinks are down: as if all were up.
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(harness.pass(&udp((S1, 7000), (E1, 53))).source, endpoint(G, 7000));
    // Its uplink returns: new endpoints at once, the others by failback.
    harness.nat.set_admission(0, AdmitNew::All);
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(harness.pass(&udp((S1, 7001), (E1, 53))).source, endpoint(G, 7001));
    assert_eq!(harness.pass(&udp((S1, 5002), (E1, 53))).source.address, G2);
    assert!(harness.end_all(&Filter::preferring(0), EndReason::Failback) >= 3);
    assert_eq!(harness.pass(&udp((S1, 5002), (E1, 53))).source, endpoint(G, 5002));
    assert_eq!(harness.end_all(&Filter::preferring(1), EndReason::Failback), 0);
}

/// A backup uplink carries no session of the exposed host while a lower tier is healthy.
#[test]
fn a_host_exposed_on_a_backup_uplink_opens_its_sessions_on_the_lower_tier() {
    let mut harness = Harness::new(exposed_on_first_of_two().with(|setup| {
        setup.policy.uplinks[0].tier = 2;
    }));
    assert_eq!(harness.pass(&udp((E2, 5), (G, 99))).destination, endpoint(S1, 99));
    assert_eq!(harness.pass(&udp((S1, 5000), (E1, 53))).source.address, G2);
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(harness.pass(&udp((S1, 5001), (E1, 53))).source, endpoint(G, 5001));
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(harness.pass(&udp((S1, 5002), (E1, 53))).source.address, G2);
    assert_eq!(harness.end_all(&Filter::preferring(1), EndReason::Failback), 1);
}

/// The third uplink is open, and the rule does not name it.
#[test]
fn the_exposed_hosts_own_sessions_use_the_last_resort_of_its_rule() {
    let mut harness = Harness::new(exposed_on_first_of_two().with(|setup| {
        let mut third = setup.policy.uplinks[1].clone();
        third.addresses[0].address = Ipv4Addr::new(198, 51, 100, 99);
        setup.policy.uplinks.push(third);
        setup.policy.uplinks[1].tier = 2;
    }));
    let over = |harness: &mut Harness, port| harness.pass(&udp((S1, port), (E1, 53))).source;
    harness.nat.set_admission(0, AdmitNew::None);
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(over(&mut harness, 5000), endpoint(G, 5000), "no uplink is better");
    harness.nat.set_last_resort(1, true);
    assert_eq!(over(&mut harness, 5001).address, G2);
    harness.nat.set_last_resort(0, true);
    assert_eq!(over(&mut harness, 5002), endpoint(G, 5002), "the lowest tier of the last resorts");
}

/// A server that opens sessions from its published port, as SIP and WireGuard do.
#[test]
fn sessions_from_a_single_published_port_move_as_well() {
    let mut harness = Harness::new(exposed_on_first_of_two().with(|setup| {
        setup.policy.forwards = vec![forward(ForwardProtocol::Udp, 5060..=5060, S1, 5060)];
    }));
    assert_eq!(harness.pass(&udp((S1, 5060), (E1, 5060))).source, endpoint(G, 5060));
    harness.nat.set_admission(0, AdmitNew::KnownEndpoints);
    assert_eq!(harness.pass(&udp((S1, 5060), (E2, 5060))).source.address, G2);
    // Without an outbound rule there is no other uplink.
    let mut harness = Harness::new(exposed_on_first_of_two().with(|setup| {
        setup.policy.outbound.clear();
    }));
    harness.nat.set_admission(0, AdmitNew::None);
    assert_eq!(harness.pass(&udp((S1, 5060), (E1, 5060))).source, endpoint(G, 5060));
}

#[test]
fn a_host_exposed_on_two_uplinks_uses_both_and_each_reply_its_own() {
    let mut harness = Harness::new(exposed_on_first_of_two().with(|setup| {
        let whole = setup.policy.forwards[0].clone();
        setup.policy.forwards.push(Forward { uplink: 1, address: G2, ..whole });
    }));
    for (external, client_port) in [(G, 5), (G2, 5)] {
        let inbound = harness.pass(&udp((E1, client_port), (external, 7)));
        assert_eq!(inbound.destination, endpoint(S1, 7));
        let (address, port) = (inbound.source.address, inbound.source.port);
        let reply = harness.pass(&udp((S1, 7), (address, port)));
        assert_eq!(reply, tuple(Protocol::UDP, (external, 7), (E1, 5)));
    }
    let sources: std::collections::HashSet<_> = (5000..5040)
        .map(|port| harness.pass(&tcp(SYN, (S1, port), (E2, 80), 1, 0)).source.address)
        .collect();
    assert_eq!(sources.len(), 2);
    harness.nat.set_admission(1, AdmitNew::None);
    for port in 6000..6040 {
        assert_eq!(harness.pass(&tcp(SYN, (S1, port), (E2, 80), 1, 0)).source, endpoint(G, port));
    }
}

#[test]
fn on_its_own_address_the_host_keeps_its_services_and_its_replies() {
    let mut harness = Harness::new(exposed_on_the_hosts_address());
    harness.nat.exclude_ports(Protocol::TCP, &[22], &[40_001]);
    harness.nat.exclude_ports(Protocol::UDP, &[123], &[]);
    let mut is_passed = |packet: &[u8]| {
        let before = harness.counters().passed_to_host;
        let out = harness.send(packet).expect("a packet");
        let passed = harness.counters().passed_to_host > before;
        assert!(passed == (out == packet));
        passed
    };
    // The host listens, or the packet may answer the host.
    assert!(is_passed(&tcp(SYN, (E1, 5), (G, 22), 1, 0)));
    assert!(is_passed(&tcp(ACK, (E1, 5), (G, 22), 2, 2)));
    assert!(is_passed(&udp((E1, 123), (G, 123))));
    assert!(is_passed(&udp((E1, 53), (G, 40_000))));
    assert!(is_passed(&tcp(SYN_ACK, (E1, 80), (G, 40_000), 1, 2)));
    assert!(is_passed(&tcp(RST, (E1, 80), (G, 40_000), 1, 2)));
    assert!(is_passed(&echo(E1, G, QueryKind::EchoReply, 77)));
    let quoted = udp((G, 40_000), (E1, 53));
    assert!(is_passed(&builder::icmp_error(3, 3, E1, G, &quoted)));
    let quoted = echo(G, E1, QueryKind::EchoRequest, 77);
    assert!(is_passed(&builder::icmp_error(3, 1, E2, G, &quoted)));
    // From inside as well.
    assert!(is_passed(&tcp(SYN, (S2, 5), (G, 22), 1, 0)));
    // The rest is the exposed host's.
    assert!(!is_passed(&tcp(SYN, (E1, 5), (G, 23), 1, 0)));
    assert!(!is_passed(&tcp(SYN, (E1, 5), (G, 40_001), 1, 0)));
    assert!(!is_passed(&udp((E1, 5), (G, 5353))));
    assert!(!is_passed(&echo(E1, G, QueryKind::EchoRequest, 7)));
    assert!(!is_passed(&builder::other(Protocol(47), E1, G, b"gre")));
    // Its own sessions do not leave from ports of the host.
    assert_eq!(harness.pass(&udp((S1, 5000), (E1, 9))).source, endpoint(G, 5000));
    for port in [123, 40_002] {
        let source = harness.pass(&udp((S1, port), (E1, 9))).source;
        assert!(source.address == G && source.port != port, "{source:?}");
    }
}

/// The host pings from an address that also publishes ping.
#[test]
fn a_forward_of_ping_leaves_the_replies_to_the_host() {
    let mut harness = Harness::new(exposed_on_the_hosts_address().with(|setup| {
        setup.policy.forwards = vec![forward(ForwardProtocol::Icmp, 0..=65535, S1, 0)];
    }));
    let reply = echo(E1, G, QueryKind::EchoReply, 77);
    assert_eq!(harness.send(&reply).as_deref(), Some(&reply[..]));
    let request = echo(E1, G, QueryKind::EchoRequest, 77);
    assert_eq!(harness.pass(&request).destination.address, S1);
}

#[test]
fn icmp_errors_reach_the_host_whose_packet_they_quote() {
    let mut harness = Harness::new(exposed());
    let mapped = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    harness.pass(&udp((S1, 5000), (E1, 53)));
    for (port, host) in [(mapped, S2), (5000, S1)] {
        let error = builder::icmp_error(3, 3, E1, G, &udp((G, port), (E1, 53)));
        let out = harness.send(&error).expect("an error");
        assert_eq!(parsed(&out).destination(), host);
    }
    // Of an exposed host's packet without a session, but not at the port of a mapping.
    let error = builder::icmp_error(3, 3, E2, G, &udp((G, 7), (E2, 53)));
    assert_eq!(parsed(&harness.send(&error).expect("an error")).destination(), S1);
    let error = builder::icmp_error(3, 3, E2, G, &udp((G, mapped), (E2, 53)));
    assert_eq!(harness.drop_reason(&error), DropReason::IcmpErrorNoSession);
    // The errors of the exposed host itself.
    harness.pass(&udp((E2, 9), (G, 99)));
    let error = builder::icmp_error(3, 3, S1, E2, &udp((E2, 9), (S1, 99)));
    let out = harness.send(&error).expect("an error");
    assert_eq!((parsed(&out).source(), parsed(&out).destination()), (G, E2));
}

#[test]
fn hairpin_reaches_the_exposed_host_from_others_and_from_itself() {
    let mut harness = Harness::new(exposed());
    let from_other = harness.pass(&udp((S2, 5000), (G, 99)));
    assert_eq!((from_other.source.address, from_other.destination), (G, endpoint(S1, 99)));
    let back = harness.pass(&udp((S1, 99), (G, from_other.source.port)));
    assert_eq!(back, tuple(Protocol::UDP, (G, 99), (S2, 5000)));
    assert_eq!(harness.pass(&udp((S1, 5000), (G, 99))), tuple(Protocol::UDP, (G, 5000), (S1, 99)));
    // From a port to the same port: the host sees another source port.
    let own = harness.pass(&udp((S1, 77), (G, 77)));
    assert_eq!((own.source.address, own.destination), (G, endpoint(S1, 77)));
    assert_ne!(own.source.port, 77);
    let back = harness.pass(&udp((S1, 77), (G, own.source.port)));
    assert_eq!(back, tuple(Protocol::UDP, (G, 77), (S1, 77)));
    let ping = harness.pass(&echo(S2, G, QueryKind::EchoRequest, 3));
    assert_eq!((ping.source.address, ping.destination.address), (G, S1));
    harness.wait(Span::seconds(600));
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
}

/// Regression: the second session was dropped with the reason `address-conflict`.
#[test]
fn one_endpoint_reaches_one_server_through_two_published_ports() {
    let mut harness = Harness::new(settings().with(|setup| {
        setup.policy.forwards.push(forward(ForwardProtocol::TcpUdp, 8081..=8081, S1, 80));
        setup.policy.forwards.push(forward(ForwardProtocol::TcpUdp, 8082..=8082, S1, 80));
    }));
    let mut seen = Vec::new();
    for port in [8080, 8081, 8082] {
        let out = harness.pass(&tcp(SYN, (S2, 5000), (G, port), 1, 0));
        assert_eq!((out.source.address, out.destination), (G, endpoint(S1, 80)));
        assert!(!seen.contains(&out.source.port), "the server must tell the sessions apart");
        seen.push(out.source.port);
        let answer = tcp(SYN_ACK, (S1, 80), (G, out.source.port), 5, 2);
        assert_eq!(harness.pass(&answer), tuple(Protocol::TCP, (G, port), (S2, 5000)));
    }
    // The ports of the second and third session are free after their end.
    harness.wait(Span::seconds(600));
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
    let allocated = harness.pass(&tcp(SYN, (S2, 5000), (E1, 80), 1, 0)).source;
    assert_eq!(allocated.address, G);
}

#[test]
fn a_reload_that_adds_or_removes_an_exposed_host_keeps_allowed_sessions() {
    let plain = || exposed().with(|setup| setup.policy.forwards.clear());
    let mut harness = Harness::new(plain());
    let mapped = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    let own = harness.pass(&udp((S1, 6000), (E1, 53))).source.port;
    // Added: live mappings stay, those of the exposed host as well.
    assert_eq!(harness.reload(exposed()), 0);
    assert_eq!(harness.pass(&udp((E1, 53), (G, mapped))).destination.address, S2);
    assert_eq!(harness.pass(&udp((S1, 6000), (E2, 53))).source.port, own);
    assert_eq!(harness.pass(&udp((E2, 5), (G, 7000))).destination.address, S1);
    harness.pass(&udp((E2, 5), (G, 7001)));
    assert_eq!(harness.pass(&udp((S1, 6001), (E1, 53))).source.port, 6001);
    // A single forward beside it: only the exposed host's session on that port ends.
    let beside = || {
        exposed().with(|setup| {
            setup.policy.forwards.push(forward(ForwardProtocol::Udp, 7000..=7000, S2, 7000));
        })
    };
    assert_eq!(harness.reload(beside()), 1);
    assert_eq!(harness.pass(&udp((E2, 5), (G, 7000))).destination.address, S2);
    assert_eq!(harness.reload(exposed()), 1);
    // A forward of the same port to the same server changes nothing, and later leaves the port
    // free.
    let same = || {
        exposed().with(|setup| {
            setup.policy.forwards.push(forward(ForwardProtocol::Udp, 7001..=7001, S1, 7001));
        })
    };
    assert_eq!(harness.reload(same()), 0);
    assert_eq!(harness.reload(exposed()), 0);
    // Removed: its inbound session ends, its own sessions go on by the outbound rule.
    assert_eq!(harness.reload(plain()), 1);
    assert_eq!(harness.pass(&udp((S1, 6001), (E1, 53))).source.port, 6001);
    assert_eq!(harness.pass(&udp((E1, 53), (G, 6001))).destination, endpoint(S1, 6001));
    assert_eq!(harness.drop_reason(&udp((E2, 5), (G, 7001))), DropReason::NoMapping);
}

#[test]
fn sessions_that_go_on_under_a_forward_of_their_own_leave_the_port_to_it() {
    let two_ports = || {
        exposed().with(|setup| {
            setup.limits.ports = (40_000..=40_003).into();
            setup.policy.uplinks[0].probe_address = None;
        })
    };
    let single = || {
        two_ports().with(|setup| {
            setup.policy.forwards =
                vec![forward(ForwardProtocol::Udp, 40_000..=40_000, S1, 40_000)];
        })
    };
    let mut harness = Harness::new(two_ports());
    harness.pass(&udp((E1, 5), (G, 40_000)));
    assert_eq!(harness.reload(single()), 0);
    harness.wait(Span::seconds(301));
    assert_eq!(harness.sessions(), 0);
    let ports: Vec<u16> =
        (5000..5003).map(|port| harness.pass(&udp((S2, port), (E1, 53))).source.port).collect();
    assert!(!ports.contains(&40_000), "{ports:?}");
    assert_eq!(harness.drop_reason(&udp((S2, 5003), (E1, 53))), DropReason::PortsExhausted);
    assert_eq!(harness.reload(two_ports()), 0);
    assert_eq!(harness.pass(&udp((S2, 5003), (E1, 53))).source.port, 40_000);
}

/// Each datagram with another source opens a session over a mapping that admits all.
#[test]
fn a_flood_to_a_mapping_leaves_room_for_the_sessions_of_others_and_of_the_host_itself() {
    let mut harness = Harness::new(settings().with(|setup| {
        setup.limits.filtering = EndpointDependence::EndpointIndependent;
        setup.limits.sessions = 800;
        setup.limits.sessions_per_host = NonZeroU32::new(300);
    }));
    let mapped = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    let mut admitted = 0;
    while harness.send(&udp((E2, 1024 + admitted), (G, mapped))).is_some() {
        admitted += 1;
    }
    assert_eq!(admitted, 100, "an eighth of the table");
    assert_eq!(harness.drop_reason(&udp((E2, 9), (G, mapped))), DropReason::InboundLimit);
    for port in 6000..6250 {
        harness.pass(&udp((S2, port), (E1, 53)));
    }
    for port in 6000..6250 {
        harness.pass(&udp((S1, port), (E1, 53)));
    }
    // Ended sessions no longer count.
    harness.wait(Span::seconds(301));
    let mapped = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    harness.pass(&udp((E2, 9), (G, mapped)));
}

fn endpoint(address: Ipv4Addr, port: u16) -> crate::packet::Endpoint {
    crate::packet::Endpoint::new(address, port)
}

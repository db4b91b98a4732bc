//! Packets that match no session and no forward, and protocols without ports.

use super::*;

#[test]
fn martians_and_packets_without_a_matching_rule_are_dropped_each_with_its_reason() {
    let mut harness = Harness::new(settings());
    for source in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        let source: Ipv4Addr = source.parse().expect("an address");
        assert_eq!(harness.drop_reason(&udp((source, 1), (G, 8080))), DropReason::Martian);
    }
    for destination in ["224.0.0.251", "255.255.255.255", "169.254.1.1", "0.0.0.1"] {
        let destination: Ipv4Addr = destination.parse().expect("an address");
        assert_eq!(harness.drop_reason(&udp((S1, 1), (destination, 53))), DropReason::Martian);
    }
    assert_eq!(harness.drop_reason(&udp((G, 8080), (G, 8080))), DropReason::Martian);
    assert_eq!(harness.drop_reason(&udp((E1, 1), (E2, 2))), DropReason::SourceNotAllowed);
    let mut closed = Harness::new(settings().with(|setup| setup.policy.outbound = Vec::new()));
    assert_eq!(closed.drop_reason(&udp((S2, 1), (E2, 2))), DropReason::NoOutboundRule);
    assert_eq!(
        closed.pass(&udp((S1, 80), (E2, 2))).source.address,
        G,
        "a published server needs no rule"
    );
    let redirect = builder::icmp(
        tuple(Protocol::ICMP, (E1, 0), (G, 0)).source.address,
        G,
        5,
        1,
        [0; 4],
        &[0; 28],
    );
    assert_eq!(harness.drop_reason(&redirect), DropReason::UnsupportedIcmp);
}

#[test]
fn unmatched_packets_to_a_host_assigned_address_pass_to_the_host() {
    let mut settings = settings();
    settings.policy.uplinks[0].addresses[0].assigned_to_host = true;
    settings.policy.uplinks[0].addresses[0].reserved = vec![(32768..=60999).into()];
    let mut harness = Harness::new(settings);
    let ssh = tcp(SYN, (E1, 4444), (G, 22), 1, 0);
    let out = harness.send(&ssh).expect("passed to the host");
    assert_eq!(out, ssh);
    assert_eq!(harness.counters().passed_to_host, 1);
    // A connection from inside passes to the host from its first segment to its last.
    for flags in [SYN, TcpFlags::ACK, TcpFlags::RST] {
        let ssh = tcp(flags, (S1, 4444), (G, 22), 1, 0);
        assert_eq!(harness.send(&ssh).expect("passed to the host"), ssh);
    }
    assert_eq!(harness.sessions(), 0);
    assert_eq!(harness.pass(&udp((E1, 4444), (G, 8080))).destination.address, S1);
    for port in 0..200 {
        let external = harness.pass(&udp((S2, 2000 + port), (E1, 53))).source;
        assert!(
            !(32768..=60999).contains(&external.port),
            "the host's ephemeral ports are reserved"
        );
        let filtered = harness.pass(&udp((E2, 53), (G, external.port)));
        assert_eq!(filtered.destination, external, "passed to the host without translation");
    }
}

#[test]
fn a_protocol_without_ports_has_one_inside_host_for_each_remote_address() {
    let mut harness = Harness::new(settings());
    let gre = Protocol(47);
    assert_eq!(harness.pass(&builder::other(gre, S1, E1, b"x")), tuple(gre, (G, 0), (E1, 0)));
    assert_eq!(
        harness.drop_reason(&builder::other(gre, S2, E1, b"x")),
        DropReason::AddressConflict
    );
    assert_eq!(harness.pass(&builder::other(gre, S2, E2, b"x")), tuple(gre, (G, 0), (E2, 0)));
    assert_eq!(harness.pass(&builder::other(gre, E1, G, b"x")), tuple(gre, (E1, 0), (S1, 0)));
    assert_eq!(harness.pass(&builder::other(gre, E2, G, b"x")), tuple(gre, (E2, 0), (S2, 0)));
}

/// Regression: with a full table, packets of protocols without ports were sent as if a forward
/// published their host. Without a session, replies had no way back, and the conflict check for the
/// remote address did not run.
#[test]
fn protocols_without_ports_from_an_unpublished_host_need_room_in_the_session_table() {
    let mut harness = Harness::new(settings().with(|setup| setup.limits.sessions = 1));
    harness.pass(&udp((S2, 5000), (E1, 53)));
    assert_eq!(
        harness.drop_reason(&builder::other(Protocol(47), S2, E2, b"x")),
        DropReason::TableFull
    );
}

#[test]
fn fragments_and_unsupported_icmp_to_a_host_assigned_address_pass_to_the_host() {
    let mut settings = settings();
    settings.policy.uplinks[0].addresses[0].assigned_to_host = true;
    let mut assigned = Harness::new(settings.clone());
    settings.policy.uplinks[0].addresses[0].assigned_to_host = false;
    let mut unassigned = Harness::new(settings);
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 53), (G, 40000)), &[1; 3000]);
    for fragment in builder::fragments(&datagram, 1480) {
        assert_eq!(assigned.send(&fragment).as_ref(), Some(&fragment));
        unassigned.send(&fragment);
    }
    let redirect = builder::icmp(E1, G, 5, 1, [0; 4], &[0; 28]);
    assert_eq!(assigned.send(&redirect).as_ref(), Some(&redirect));
    assert_eq!(unassigned.drop_reason(&redirect), DropReason::UnsupportedIcmp);
    let host_error = builder::icmp_error(3, 3, E1, G, &udp((G, 40000), (E1, 53)));
    assert_eq!(assigned.send(&host_error).as_ref(), Some(&host_error));
}

/// Regression: a server that is published twice on one uplink sent first after a restart. Its
/// packet left with the wrong endpoint.
#[test]
fn after_a_restart_tcp_of_a_server_that_is_published_twice_passes_only_once_the_client_has_sent() {
    let mut settings = settings();
    settings.policy.forwards.push(forward(ForwardProtocol::TcpUdp, 8081..=8081, S1, 80));
    let mut harness = Harness::new(settings);
    for flags in [ACK, RST, FIN_ACK] {
        assert_eq!(
            harness.drop_reason(&tcp(flags, (S1, 80), (E1, 4444), 500, 101)),
            DropReason::UplinkUnknown
        );
    }
    harness.pass(&tcp(ACK, (E1, 4444), (G, 8081), 101, 501));
    let reply = harness.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
    assert_eq!(reply, tuple(Protocol::TCP, (G, 8081), (E1, 4444)));
}

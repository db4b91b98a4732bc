//! Packets that are not translated, and protocols without ports.

use super::*;

#[test]
fn martians_and_strangers_are_dropped_by_name() {
    let mut stage = Stage::new(settings());
    for source in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        let source: Ipv4Addr = source.parse().expect("an address");
        assert_eq!(stage.refuse(&udp((source, 1), (G, 8080))), DropReason::Martian);
    }
    for destination in ["224.0.0.251", "255.255.255.255", "169.254.1.1", "0.0.0.1"] {
        let destination: Ipv4Addr = destination.parse().expect("an address");
        assert_eq!(stage.refuse(&udp((S1, 1), (destination, 53))), DropReason::Martian);
    }
    assert_eq!(stage.refuse(&udp((G, 8080), (G, 8080))), DropReason::Martian);
    assert_eq!(stage.refuse(&udp((E1, 1), (E2, 2))), DropReason::SourceNotAllowed);
    let mut closed = Stage::new(settings().with(|setup| setup.policy.outbound = Vec::new()));
    assert_eq!(closed.refuse(&udp((S2, 1), (E2, 2))), DropReason::NoOutboundRule);
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
    assert_eq!(stage.refuse(&redirect), DropReason::UnsupportedIcmp);
}

#[test]
fn what_matches_nothing_on_the_hosts_own_address_goes_back_to_the_host() {
    let mut settings = settings();
    settings.policy.uplinks[0].addresses[0].assigned_to_host = true;
    settings.policy.uplinks[0].addresses[0].reserved = vec![(32768..=60999).into()];
    let mut stage = Stage::new(settings);
    let ssh = tcp(SYN, (E1, 4444), (G, 22), 1, 0);
    let out = stage.send(&ssh).expect("handed back");
    assert_eq!(out, ssh);
    assert_eq!(stage.counters().passed_to_host, 1);
    // From inside, too, from the first segment to the last.
    for flags in [SYN, TcpFlags::ACK, TcpFlags::RST] {
        let ssh = tcp(flags, (S1, 4444), (G, 22), 1, 0);
        assert_eq!(stage.send(&ssh).expect("handed back"), ssh);
    }
    assert_eq!(stage.sessions(), 0);
    assert_eq!(stage.pass(&udp((E1, 4444), (G, 8080))).destination.address, S1);
    for port in 0..200 {
        let external = stage.pass(&udp((S2, 2000 + port), (E1, 53))).source;
        assert!(
            !(32768..=60999).contains(&external.port),
            "the host's own ephemeral ports stay the host's"
        );
        let filtered = stage.pass(&udp((E2, 53), (G, external.port)));
        assert_eq!(filtered.destination, external, "handed back, not translated");
    }
}

#[test]
fn other_protocols_go_out_by_address_while_it_is_free() {
    let mut stage = Stage::new(settings());
    let gre = Protocol(47);
    assert_eq!(stage.pass(&builder::other(gre, S1, E1, b"x")), tuple(gre, (G, 0), (E1, 0)));
    assert_eq!(stage.refuse(&builder::other(gre, S2, E1, b"x")), DropReason::AddressConflict);
    assert_eq!(stage.pass(&builder::other(gre, S2, E2, b"x")), tuple(gre, (G, 0), (E2, 0)));
    assert_eq!(stage.pass(&builder::other(gre, E1, G, b"x")), tuple(gre, (E1, 0), (S1, 0)));
    assert_eq!(stage.pass(&builder::other(gre, E2, G, b"x")), tuple(gre, (E2, 0), (S2, 0)));
}

/// Protocols without ports went out in a full table as if the box published their host: without a session, and so without
/// a way back or an eye on who else talks to that remote address.
#[test]
fn other_protocols_of_an_unpublished_host_do_not_pass_a_full_table() {
    let mut stage = Stage::new(settings().with(|setup| setup.limits.sessions = 1));
    stage.pass(&udp((S2, 5000), (E1, 53)));
    assert_eq!(stage.refuse(&builder::other(Protocol(47), S2, E2, b"x")), DropReason::TableFull);
}

#[test]
fn fragments_and_odd_icmp_to_the_hosts_own_address_go_back_to_the_host() {
    let mut settings = settings();
    settings.policy.uplinks[0].addresses[0].assigned_to_host = true;
    let mut owned = Stage::new(settings.clone());
    settings.policy.uplinks[0].addresses[0].assigned_to_host = false;
    let mut foreign = Stage::new(settings);
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 53), (G, 40000)), &[1; 3000]);
    for fragment in builder::fragments(&datagram, 1480) {
        assert_eq!(owned.send(&fragment).as_ref(), Some(&fragment));
        foreign.send(&fragment);
    }
    let redirect = builder::icmp(E1, G, 5, 1, [0; 4], &[0; 28]);
    assert_eq!(owned.send(&redirect).as_ref(), Some(&redirect));
    assert_eq!(foreign.refuse(&redirect), DropReason::UnsupportedIcmp);
    let about_its_own = builder::icmp_error(3, 3, E1, G, &udp((G, 40000), (E1, 53)));
    assert_eq!(owned.send(&about_its_own).as_ref(), Some(&about_its_own));
}

/// A server that was published twice on one line spoke first after a restart, and its packet left by the wrong address.
#[test]
fn a_server_that_is_published_twice_waits_for_the_client_to_tell_where() {
    let mut settings = settings();
    settings.policy.forwards.push(forward(ForwardProtocol::TcpUdp, 8081..=8081, S1, 80));
    let mut stage = Stage::new(settings);
    for flags in [ACK, RST, FIN_ACK] {
        assert_eq!(
            stage.refuse(&tcp(flags, (S1, 80), (E1, 4444), 500, 101)),
            DropReason::UplinkUnknown
        );
    }
    stage.pass(&tcp(ACK, (E1, 4444), (G, 8081), 101, 501));
    let answer = stage.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
    assert_eq!(answer, tuple(Protocol::TCP, (G, 8081), (E1, 4444)));
}

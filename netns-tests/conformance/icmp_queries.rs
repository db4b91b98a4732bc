//! Echo and other ICMP queries.

use natbox::packet::{Endpoint, QueryKind, builder};

use super::proves;
use crate::probe::{E1, E2, G, Probe, S1, S2, Setup, at};

#[test]
fn echo_works_and_replies_need_a_query() {
    let _proof = proves(&["ICMP-1"]);
    let probe = Probe::plain();
    let mut externals = std::collections::HashSet::new();
    for identifier in 0..500 {
        let external = probe.open_ping(at(S1, identifier), E1);
        assert!(externals.insert(external), "{external} twice");
        probe.pong_in(E1, external);
        let seen = probe.inside.expect("a reply");
        assert_eq!(
            (seen.destination().address, seen.identifier(), seen.payload()),
            (S1, identifier, &b"ping"[..])
        );
    }
    // A reply from another host, one with an unknown identifier, and one that no inside host
    // requested.
    let live = *externals.iter().next().unwrap();
    probe.pong_in(E2, live);
    let free = (0..=u16::MAX).find(|free| !externals.contains(&Endpoint::new(G, *free))).unwrap();
    probe.pong_in(E1, at(G, free));
    probe.inside.send(&builder::echo(S1, E1, QueryKind::EchoReply, 9, 1, b"x"));
    probe.silence();
}

#[test]
fn equal_echo_identifiers_are_distinguished() {
    let _proof = proves(&["ICMP-ID"]);
    let probe = Probe::plain();
    let (first, second) = (probe.open_ping(at(S1, 42), E1), probe.open_ping(at(S2, 42), E1));
    let third = probe.open_ping(at(S1, 42), E2);
    assert_ne!(first, second);
    for (from, external, host) in [(E1, second, S2), (E1, first, S1), (E2, third, S1)] {
        probe.pong_in(from, external);
        let seen = probe.inside.expect("a reply");
        assert_eq!(
            (seen.source().address, seen.destination().address, seen.identifier()),
            (from, host, 42)
        );
    }
}

#[test]
fn icmp_timestamps_pass_and_obsolete_messages_do_not() {
    let _proof = proves(&["ICMP-10b"]);
    let probe = Probe::plain();
    let times = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    probe.inside.send(&builder::echo(S1, E1, QueryKind::TimestampRequest, 5, 1, &times));
    let seen = probe.outside.expect("a timestamp request");
    assert_eq!((seen.icmp(), seen.payload()), (Some((13, 0)), &times[..]));
    probe.outside.send(&builder::echo(
        E1,
        G,
        QueryKind::TimestampReply,
        seen.identifier(),
        1,
        &times,
    ));
    let seen = probe.inside.expect("its reply");
    assert_eq!(
        (seen.icmp(), seen.destination().address, seen.identifier()),
        (Some((14, 0)), S1, 5)
    );
    for kind in [4, 15, 16, 17, 18] {
        let quoted =
            builder::udp(builder::tuple(natbox::packet::Protocol::UDP, (G, 8080), (E1, 7)), b"x");
        probe.inside.send(&builder::icmp(S1, E1, kind, 0, [0, 5, 0, 1], &quoted));
        probe.outside.send(&builder::icmp(E1, G, kind, 0, [0, 5, 0, 1], &quoted));
    }
    probe.silence();
}

#[test]
fn other_icmp_never_crosses() {
    let _proof = proves(&["ICMP-11"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    probe.open_ping(at(S1, 5), E1);
    let before = probe.sessions();
    for kind in 0..=255 {
        if matches!(kind, 0 | 3 | 8 | 11 | 12 | 13 | 14) {
            continue;
        }
        for code in [0, 1, 255] {
            // Each quotes a packet of a live session, as an error would.
            let sent = builder::udp(
                builder::tuple(natbox::packet::Protocol::UDP, (G, external.port), (E1, 53)),
                b"hello",
            );
            probe.outside.send(&builder::icmp(E1, G, kind, code, [10, 0, 0, 1], &sent));
            let received = builder::udp(
                builder::tuple(natbox::packet::Protocol::UDP, (E1, 53), (S1, 5000)),
                b"hello",
            );
            probe.inside.send(&builder::icmp(S1, E1, kind, code, [10, 0, 0, 1], &received));
        }
    }
    probe.silence();
    // Without a forward for echo, echo to G gets no reply.
    probe.outside.send(&builder::echo(E1, G, QueryKind::EchoRequest, 77, 1, b"x"));
    probe.silence();
    assert!(probe.sessions() <= before + 1, "{} sessions after {before}", probe.sessions());
    // With a forward for echo, the server replies.
    let probe = Probe::start(
        Setup::new().forward("name: echo, protocol: icmp, address: 192.0.2.1, to: 10.0.0.12"),
    );
    probe.outside.send(&builder::echo(E1, G, QueryKind::EchoRequest, 77, 1, b"x"));
    let seen = probe.inside.expect("an echo request");
    assert_eq!((seen.destination().address, seen.identifier()), (S2, 77));
    probe.inside.send(&builder::echo(S2, E1, QueryKind::EchoReply, 77, 1, b"x"));
    let seen = probe.outside.expect("its reply");
    assert_eq!((seen.source().address, seen.icmp(), seen.identifier()), (G, Some((0, 0)), 77));
}

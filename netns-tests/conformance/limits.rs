//! Limits: the dropped packets, the affected hosts, and the sessions that are never evicted.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::packet::{Endpoint, Protocol, QueryKind, TcpFlags, Tuple, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{BOX, Connection, E1, E2, F, G, Probe, S1, S2, S3, Setup, at, syn, udp};

#[test]
fn host_limits_bound_sessions_and_free_them_again() {
    let _proof = proves(&["RFC6888-4", "RFC6888-4B", "RFC6888-4C", "RFC6888-5"]);
    let setup =
        Setup::new().nat("reject_with: none").limits("sessions_per_host: 5").timeouts("udp: 1s");
    let probe = Probe::start(setup);
    for round in 0..4 {
        for port in 0..5 {
            probe.open_udp(at(S1, 5000 + port), at(E1, 53));
        }
        probe.inside.send(&udp(at(S1, 5005), at(E1, 53), b"hello"));
        probe.inside.send(&syn(at(S1, 5005), at(E1, 80)));
        assert_eq!(probe.outside.drain(), []);
        probe.assert_dropped("host-session-limit", 2 * (round + 1));
        probe.open_udp(at(S2, 5000), at(E1, 53));
        wait_until("all have ended", || probe.sessions() == 0);
    }
    let probe =
        Probe::start(Setup::new().nat("reject_with: none").limits("new_sessions_per_host: 20"));
    let started = Instant::now();
    for port in 0..200 {
        probe.inside.send(&udp(at(S1, 5000 + port), at(E1, 53), b"hello"));
    }
    let seconds = started.elapsed().as_secs() as usize + 1;
    let asked = Instant::now();
    probe.inside.send(&syn(at(S2, 5000), at(E2, 80)));
    let passed = probe.outside.drain();
    assert!(asked.elapsed() < Duration::from_secs(2));
    let of_flood = passed.iter().filter(|seen| seen.destination() == at(E1, 53)).count();
    assert!((20..=20 * (seconds + 1)).contains(&of_flood), "{of_flood} in {seconds} s");
    assert!(
        passed.iter().any(|seen| seen.destination() == at(E2, 80)),
        "the other host waits for nothing"
    );
    assert!(probe.dropped("host-session-rate") >= 200 - of_flood as u64);
    std::thread::sleep(Duration::from_millis(1100));
    probe.open_udp(at(S1, 6000), at(E1, 53));
}

/// Fills a table of 40 with sessions that must not be evicted.
fn fill(probe: &Probe) -> (Vec<Connection>, Vec<(Endpoint, Endpoint)>) {
    let mut connections: Vec<_> =
        (0..10).map(|port| probe.connect_out(at(S1, 5000 + port), at(E1, 80))).collect();
    connections.extend((0..10).map(|port| probe.connect_in(at(E1, 5000 + port), F)));
    let mappings = (0..20)
        .map(|port| {
            let inside = at(S2, 6000 + port);
            (inside, probe.open_udp(inside, at(E1, 53)))
        })
        .collect();
    assert_eq!(probe.sessions(), 40);
    (connections, mappings)
}

#[test]
fn full_table_rejects_new_sessions_and_evicts_none() {
    let _proof = proves(&["RFC6888-11", "ICMP-8"]);
    for (refusal, code) in
        [("admin-prohibited", Some(13)), ("host-unreachable", Some(1)), ("none", None)]
    {
        let setup = Setup::new().nat(&format!("reject_with: {refusal}")).limits("sessions: 40");
        let probe = Probe::start(setup);
        let (mut connections, mappings) = fill(&probe);
        let newcomers = [
            udp(at(S3, 1), at(E1, 53), b"hello"),
            syn(at(S3, 1), at(E1, 80)),
            builder::echo(S3, E1, QueryKind::EchoRequest, 1, 1, b"ping"),
        ];
        for packet in &newcomers {
            probe.inside.send(packet);
            match code {
                None => probe.silence(),
                Some(code) => {
                    let error = probe.inside.expect("a refusal");
                    assert_eq!(error.icmp(), Some((3, code)));
                    assert_eq!((error.source().address, error.destination().address), (BOX, S3));
                    assert_eq!(error.quote().unwrap().0[12..], packet[12..], "as it was sent");
                }
            }
        }
        // All sessions remain, and clients reach a published server without a session.
        for connection in &mut connections {
            probe.assert_open(connection);
        }
        for (inside, external) in mappings {
            probe.assert_udp_in(at(E1, 53), external, inside);
        }
        probe.connect_in(at(E2, 9), F);
        let status = probe.status();
        assert_eq!((status.sessions.now, status.sessions.evicted), (40, 0));
        assert_eq!(status.drops["table-full"], 3);
        // The log warns once.
        wait_until("a warning", || probe.log().contains("table-full"));
        for port in 2..100 {
            probe.inside.send(&udp(at(S3, port), at(E1, 53), b"hello"));
        }
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(probe.log().matches("reason=\"table-full\"").count(), 1, "{}", probe.log());
    }
}

#[test]
fn full_table_evicts_half_open_sessions_and_never_established_ones() {
    let _proof = proves(&["LIM-1"]);
    let probe = Probe::start(Setup::new().limits("sessions: 40"));
    let mut connections: Vec<_> =
        (0..20).map(|port| probe.connect_in(at(E1, 5000 + port), F)).collect();
    for number in 0..20 {
        probe.syn_in(at(Ipv4Addr::new(198, 51, 100, 100 + number), 7), F);
        probe.inside.expect("a SYN");
    }
    assert_eq!(probe.sessions(), 40);
    // New sessions of any kind evict half-open ones.
    for port in 0..10 {
        probe.open_udp(at(S1, 6000 + port), at(E1, 53));
        connections.push(probe.connect_in(at(E2, 6000 + port), F));
    }
    wait_until("all evictions are counted", || probe.status().sessions.evicted == 20);
    assert_eq!(probe.sessions(), 40);
    for connection in &mut connections {
        probe.assert_open(connection);
    }
    // Closed sessions are evicted next.
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    let closed = connections[0];
    probe.tcp_in(&closed.by_outside(fin, b""));
    probe.tcp_out(&closed.by_inside(fin, b""));
    probe.open_udp(at(S1, 7000), at(E1, 53));
    wait_until("one more eviction is counted", || probe.status().sessions.evicted == 21);
    probe.inside.send(&udp(at(S1, 7001), at(E1, 53), b"hello"));
    assert_eq!(probe.inside.expect("a refusal").icmp(), Some((3, 13)));
}

#[test]
fn long_lived_session_does_not_block_ended_records() {
    let _proof = proves(&["LIM-2"]);
    let probe = Probe::start(Setup::new().limits("sessions: 40").timeouts("udp: 1s"));
    let mut connection = probe.connect_out(at(S1, 5000), at(E1, 80));
    for round in 0..3 {
        for port in 0..39 {
            probe.open_udp(at(S2, 6000 + 100 * round + port), at(E1, 53));
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
    probe.assert_open(&mut connection);
    assert_eq!(probe.dropped("table-full"), 0);
}

#[test]
fn counters_can_be_read_while_packets_flow() {
    let _proof = proves(&["RFC6888-1", "RFC6888-10"]);
    let probe = Probe::start(Setup::new().nat("reject_with: none"));
    let mut reads = 0;
    let mut last = 0;
    for round in 0..20_u16 {
        for number in 0..500 {
            probe.outside.send(&udp(at(E1, round * 500 + number + 1), F, b"hello"));
        }
        let asked = Instant::now();
        let status = probe.status();
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        let packets = status.totals["packets_in"];
        assert!(packets >= last, "a counter went back");
        last = packets;
        reads += 1;
        // A listing meanwhile: no session twice, and none of another time.
        let listed = probe.with_box(crate::single_box::RunningBox::sessions);
        assert!(listed.len() as u64 <= 10_000 && listed.len() as u32 >= status.sessions.now);
        let distinct: std::collections::HashSet<_> =
            listed.iter().map(|one| one.original.clone()).collect();
        assert_eq!(distinct.len(), listed.len(), "something is listed twice");
        probe.inside.drain();
    }
    assert_eq!(reads, 20);
    wait_until("all are counted", || {
        let status = probe.status();
        let dropped: u64 = status.drops.values().sum();
        status.totals["packets_in"] >= 10_000
            && status.totals["packets_in"] == status.totals["packets_out"] + dropped
    });
    assert_eq!(probe.status().sessions.created, 10_000);
    let listed = probe.with_box(crate::single_box::RunningBox::sessions);
    assert_eq!(listed.len(), 10_000);
    let one =
        listed.iter().find(|one| one.original.source == format!("{E1}:777")).expect("it is there");
    assert_eq!(
        (one.protocol.as_str(), one.state.as_str(), one.origin.as_str()),
        ("udp", "udp", "forward")
    );
    assert_eq!(
        (&one.original.destination, &one.reply.source),
        (&F.to_string(), &at(S1, 80).to_string())
    );
    assert_eq!((one.uplink.as_str(), &one.reply.destination), ("isp", &one.original.source));
    assert!((200..=300).contains(&one.expires_in_seconds), "{one:?}");
}

#[test]
fn each_drop_raises_its_own_counter() {
    let _proof = proves(&["MIB-1"]);
    let probe =
        Probe::start(Setup::new().nat("reject_with: none").outbound(&["{ from: 10.0.0.0/28 }"]));
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let sent = udp(external, at(E1, 53), b"hello");
    let mut broken = sent.clone();
    broken[20 + 4] = 0xff;
    let fragments = builder::fragments(
        &builder::udp(builder::tuple(Protocol::UDP, (E1, 9), (G, 8080)), &[0; 100]),
        64,
    );
    let mut beyond = fragments[1].clone();
    beyond[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    builder::refresh_header_checksum(&mut beyond);
    let segment = |source, destination, flags| {
        builder::tcp(Tuple { protocol: Protocol::TCP, source, destination }, flags, 1, 1, &[], b"")
    };
    let outside = [
        (udp(at(E1, 9), at(G, 1), b"hello"), "no-mapping"),
        (udp(at(E2, 9), external, b"hello"), "filtered"),
        (
            builder::icmp_error(3, 3, E1, G, &udp(at(G, 4), at(E1, 4), b"hello")),
            "icmp-error-no-session",
        ),
        (builder::icmp_error(3, 3, E1, G, &sent[..20]), "bad-icmp-error"),
        (builder::icmp(E1, G, 5, 1, [0; 4], &sent), "unsupported-icmp"),
        (beyond, "bad-fragment"),
    ];
    let inside = [
        (udp(at(Ipv4Addr::new(10, 0, 0, 99), 1), at(E1, 53), b"hello"), "no-outbound-rule"),
        (udp(at(Ipv4Addr::new(10, 9, 9, 9), 1), at(E1, 53), b"hello"), "source-not-allowed"),
        (segment(at(S1, 9), at(E1, 80), TcpFlags::ACK), "tcp-without-session"),
        (builder::echo(S1, E1, QueryKind::EchoReply, 9, 1, b""), "icmp-unsolicited-reply"),
        (
            {
                let mut packet = udp(at(S1, 9), at(E1, 53), b"hello");
                packet[24] = 0xff;
                packet
            },
            "bad-transport-header",
        ),
        (
            builder::icmp_error(3, 3, S2, E1, &udp(at(E1, 53), at(S1, 5000), b"hello")),
            "icmp-error-mismatch",
        ),
    ];
    // S2 has sessions of its own, and is therefore no router.
    probe.open_udp(at(S2, 5000), at(E1, 53));
    let wires = [(&probe.outside, outside), (&probe.inside, inside)];
    for (wire, (packet, reason)) in
        wires.into_iter().flat_map(|(wire, cases)| cases.map(|case| (wire, case)))
    {
        let mut expected = probe.status().drops;
        *expected.entry(reason.to_owned()).or_default() += 3;
        for _ in 0..3 {
            wire.send(&packet);
        }
        wait_until(&format!("three more of {reason}"), || probe.status().drops == expected);
    }
    probe.silence();
}

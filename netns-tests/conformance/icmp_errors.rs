//! ICMP errors about translated packets, from either side, and the box's own errors.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{BOX, E1, E2, F, G, G2, Probe, RP, RX, S1, S2, Seen, Setup, at, udp};

/// A packet from inside: as its sender wrote it, as it appeared outside, and its reply.
struct Sent {
    original: Vec<u8>,
    outside: Seen,
}

/// Sends a datagram, a segment and an echo request from S1 to E1.
fn three_kinds(probe: &Probe) -> [Sent; 3] {
    let segment = builder::tcp(
        builder::tuple(Protocol::TCP, (S1, 5000), (E1, 80)),
        TcpFlags::SYN,
        1000,
        0,
        &[2, 4, 5, 180],
        b"",
    );
    [
        udp(at(S1, 5000), at(E1, 53000), b"hello, world, this is a datagram"),
        segment,
        builder::echo(
            S1,
            E1,
            QueryKind::EchoRequest,
            77,
            1,
            b"hello, world, this is an echo request",
        ),
    ]
    .map(|mut original| {
        builder::set_dont_fragment(&mut original, true);
        builder::set_identification(&mut original, 0x1234);
        probe.inside.send(&original);
        Sent { original, outside: probe.outside.expect("the packet that the error quotes") }
    })
}

/// Asserts that the quote shows the packet as its sender wrote it, except for the TTL and the
/// header checksum.
#[track_caller]
fn assert_quotes(error: &Seen, original: &[u8]) {
    let mut quote = error.quote().expect("a quote").0;
    assert!(quote.len() >= 24 && quote.len() <= original.len(), "{error:?}");
    let mut wanted = original[..quote.len()].to_vec();
    for packet in [&mut quote, &mut wanted] {
        packet[8] = 0;
        packet[10..12].fill(0);
    }
    assert_eq!(Seen(quote), Seen(wanted));
}

const ERRORS: [(u8, u8); 22] = [
    (3, 0),
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 4),
    (3, 5),
    (3, 6),
    (3, 7),
    (3, 8),
    (3, 9),
    (3, 10),
    (3, 11),
    (3, 12),
    (3, 13),
    (3, 14),
    (3, 15),
    (11, 0),
    (11, 1),
    (12, 0),
    (12, 1),
    (12, 2),
    (3, 3),
];

#[test]
fn icmp_errors_from_outside_reach_the_sender() {
    let _proof = proves(&["ICMP-4", "UDP-12a", "UDP-12b", "TCP-9"]);
    let probe = Probe::plain();
    for sent in three_kinds(&probe) {
        for (kind, code) in ERRORS {
            for reporter in [E1, RX] {
                probe.outside.send(&builder::icmp(
                    reporter,
                    G,
                    kind,
                    code,
                    [0, 0, 5, 20],
                    &sent.outside.0,
                ));
                let error = probe.inside.expect("the error");
                assert_eq!((error.icmp(), error.source().address), (Some((kind, code)), reporter));
                assert_eq!((error.destination().address, error.icmp_last_word()), (S1, 1300));
                assert_quotes(&error, &sent.original);
            }
        }
    }
}

#[test]
fn icmp_errors_from_inside_leave_with_an_external_address() {
    let _proof = proves(&["ICMP-5"]);
    let probe = Probe::plain();
    let question = udp(at(E1, 4444), F, b"question");
    probe.outside.send(&question);
    let arrived = probe.inside.expect("the question");
    for (reporter, kind, code) in [(S1, 3, 3), (RP, 11, 0), (RP, 3, 1)] {
        probe.inside.send(&builder::icmp_error(kind, code, reporter, E1, &arrived.0));
        let error = probe.outside.expect("the error");
        assert_eq!(
            (error.icmp(), error.source().address, error.destination().address),
            (Some((kind, code)), G, E1)
        );
        assert_quotes(&error, &question);
    }
    // A host that the inside host knows as a router counts as one, even with sessions of its own
    // such as to a time server.
    probe.open_udp(at(RP, 123), at(E1, 123));
    let expired = builder::icmp_error(11, 0, RP, E1, &arrived.0);
    probe.inside.send(&expired);
    probe.silence();
    probe.natbox.route("10.0.0.240/28", RP).unwrap();
    probe.kill();
    probe.launch();
    probe.open_udp(at(RP, 123), at(E1, 123));
    for (kind, code) in [(11, 0), (3, 3)] {
        probe.inside.send(&builder::icmp_error(kind, code, RP, E1, &arrived.0));
        let error = probe.outside.expect("the error");
        assert_eq!((error.icmp(), error.source().address), (Some((kind, code)), G));
        assert_quotes(&error, &question);
    }
    // About a reply to a request from inside.
    let external = probe.open_udp(at(S2, 5000), at(E1, 53000));
    let answer = udp(at(E1, 53000), external, b"answer");
    probe.outside.send(&answer);
    let arrived = probe.inside.expect("the answer");
    probe.inside.send(&builder::icmp_error(3, 3, S2, E1, &arrived.0));
    assert_quotes(&probe.outside.expect("the error"), &answer);
}

#[test]
fn icmp_errors_with_bad_checksums_are_dropped() {
    let _proof = proves(&["ICMP-3", "ICMP-3a"]);
    let probe = Probe::plain();
    for sent in three_kinds(&probe) {
        let good = builder::icmp_error(3, 3, E1, G, &sent.outside.0);
        let mut bad = good.clone();
        bad[22] ^= 1;
        probe.outside.send(&bad);
        let mut quoted = sent.outside.0.clone();
        quoted[10] ^= 1;
        probe.outside.send(&builder::icmp_error(3, 3, E1, G, &quoted));
        probe.silence();
        probe.outside.send(&good);
        probe.inside.expect("the good one");
    }
    probe.assert_dropped("bad-icmp-error", 6);
}

#[test]
fn ip_options_in_quotes_are_skipped() {
    let _proof = proves(&["ICMP-3b"]);
    let probe = Probe::plain();
    for sent in three_kinds(&probe) {
        for words in 0..=10 {
            let options = [1].repeat(words * 4);
            let quoted = builder::with_ip_options(&sent.outside.0, &options);
            let original = builder::with_ip_options(&sent.original, &options);
            probe.outside.send(&builder::icmp_error(3, 3, E1, G, &quoted));
            assert_quotes(&probe.inside.expect("the error"), &original);
        }
        // A header longer than the quote.
        let mut lying = sent.outside.0[..28].to_vec();
        lying[0] = 0x4f;
        builder::refresh_header_checksum(&mut lying);
        probe.outside.send(&builder::icmp_error(3, 3, E1, G, &lying));
        probe.silence();
    }
}

#[test]
fn quoted_transport_checksum_is_not_verified() {
    let _proof = proves(&["ICMP-3c"]);
    let probe = Probe::plain();
    probe.inside.tolerate();
    let [sent, _, _] = three_kinds(&probe);
    let mut quoted = sent.outside.0.clone();
    let wrong = u16::from_be_bytes([quoted[26], quoted[27]]).wrapping_add(1);
    quoted[26..28].copy_from_slice(&wrong.to_be_bytes());
    probe.outside.send(&builder::icmp_error(3, 3, E1, G, &quoted));
    let error = probe.inside.expect("the error");
    let right = Seen(sent.original).checksum();
    assert_eq!(error.quote().unwrap().checksum(), right.wrapping_add(1), "as wrong as it was");
}

#[test]
fn icmp_extensions_pass_unchanged() {
    let _proof = proves(&["ICMP-3d"]);
    let probe = Probe::plain();
    // An MPLS label stack (RFC 4950) behind quotes of 128, 124 and 132 bytes, and behind one of
    // undeclared length.
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 0xff];
    let sum: u32 =
        extension.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    extension[2..4].copy_from_slice(&checksum.to_be_bytes());
    let original = udp(at(S1, 5000), at(E1, 53000), &[7; 200]);
    probe.inside.send(&original);
    let outside = probe.outside.expect("a datagram");
    for (words, quoted) in [(32, 128), (31, 124), (33, 132), (0, 128)] {
        let body = [&outside.0[..quoted], &extension].concat();
        for kind in [3, 11, 12] {
            probe.outside.send(&builder::icmp(RX, G, kind, 0, [0, words, 0, 0], &body));
            let error = probe.inside.expect("the error");
            assert_eq!(&error.body()[8 + quoted..], extension);
            assert_eq!(error.body()[5], words);
            let quote = Seen(error.body()[8..8 + quoted].to_vec());
            assert_eq!((quote.source(), quote.destination()), (at(S1, 5000), at(E1, 53000)));
        }
    }
    let body = [&outside.0[..128], &extension].concat();
    probe.outside.send(&builder::icmp(RX, G, 3, 0, [0, 200, 0, 0], &body));
    probe.silence();
}

#[test]
fn icmp_errors_about_unknown_sessions_are_dropped() {
    let _proof = proves(&["ICMP-4n"]);
    let probe = Probe::plain();
    probe.assert_alive();
    let before = probe.sessions();
    for port in [1, 33_333, 65_535] {
        probe.outside.send(&builder::icmp_error(3, 3, E1, G, &udp(at(G, port), at(E1, 53), b"x")));
        probe.inside.send(&builder::icmp_error(3, 3, S2, E1, &udp(at(E1, 53), at(S2, port), b"x")));
    }
    probe.silence();
    assert_eq!((probe.sessions(), probe.dropped("icmp-error-no-session")), (before, 6));
}

#[test]
fn icmp_messages_neither_end_nor_refresh_a_session() {
    let _proof = proves(&["UDP-12", "TCP-10", "ICMP-6"]);
    // Only the first packets may keep the sessions alive; errors of every kind follow meanwhile.
    let setup = Setup::new()
        .timeouts("udp: 3s, icmp: 3s, tcp_syn: 3s, tcp_established: 3s, tcp_transitory: 3s");
    let probe = Probe::start(setup);
    let sent = three_kinds(&probe);
    let opened = Instant::now();
    let connection = probe.connect_out(at(S2, 6000), at(E1, 80));
    let data = probe.tcp_out(&connection.by_inside(TcpFlags::ACK, b"x"));
    let mut errors = 0;
    while opened.elapsed() < Duration::from_millis(2000) {
        for sent in sent.iter().map(|sent| &sent.outside).chain([&data]) {
            for (kind, code) in ERRORS {
                probe.outside.send(&builder::icmp(RX, G, kind, code, [0, 0, 5, 20], &sent.0));
                errors += 1;
            }
        }
        while probe.inside.poll().is_some() {}
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(errors > 200);
    // No error ended or shortened a session.
    if opened.elapsed() < Duration::from_millis(2800) {
        probe.inside.drain();
        assert_eq!(probe.sessions(), 4);
    }
    // No error kept a session alive.
    wait_until("all of them end", || {
        for sent in sent.iter().map(|sent| &sent.outside).chain([&data]) {
            probe.outside.send(&builder::icmp(RX, G, 3, 1, [0; 4], &sent.0));
        }
        probe.sessions() == 0
    });
    assert!(
        opened.elapsed() < Duration::from_millis(7000),
        "kept alive until {:?}",
        opened.elapsed()
    );
}

#[test]
fn icmp_errors_with_quotes_of_any_length_pass() {
    let _proof = proves(&["ERR-TRUNC", "ERR-CSUM"]);
    let probe = Probe::plain();
    for sent in three_kinds(&probe) {
        // Without ports and identifiers the session is unknown.
        let needed = if sent.outside.icmp().is_some() { 26 } else { 24 };
        for length in 20..needed {
            probe.outside.send(&builder::icmp_error(3, 1, E1, G, &sent.outside.0[..length]));
        }
        probe.silence();
        // A quote that ends in the middle of the checksum: the half is ignored.
        let halved = if sent.outside.destination().port == 80 { 37 } else { 27 };
        for length in (needed..=sent.outside.0.len()).filter(|length| *length != halved) {
            // The wires recompute all checksums within the quote.
            probe.outside.send(&builder::icmp_error(3, 1, E1, G, &sent.outside.0[..length]));
            let error = probe.inside.expect("the error");
            assert_eq!(error.quote().unwrap().0.len(), length);
            assert_quotes(&error, &sent.original);
        }
    }
    // The longest quote: a datagram of the whole MTU, less the headers of the error.
    let mut original = udp(at(S1, 5000), at(E1, 53000), &[7; 1400]);
    builder::set_dont_fragment(&mut original, true);
    probe.inside.send(&original);
    let outside = probe.outside.expect("a long datagram");
    probe.outside.send(&builder::icmp_error(3, 1, E1, G, &outside.0));
    assert_quotes(&probe.inside.expect("the error"), &original);
    // The quote of a datagram without checksum has none either.
    let original = builder::udp_without_checksum(
        builder::tuple(Protocol::UDP, (S1, 5000), (E1, 53000)),
        b"none",
    );
    probe.inside.send(&original);
    let outside = probe.outside.expect("a datagram without checksum");
    assert_eq!(outside.checksum(), 0);
    probe.outside.send(&builder::icmp_error(3, 1, E1, G, &outside.0));
    assert_eq!(probe.inside.expect("the error").quote().unwrap().checksum(), 0);
}

#[test]
fn addresses_of_an_icmp_error_must_match_its_quote() {
    let _proof = proves(&["ERR-REL"]);
    let probe = Probe::start(Setup::new().pool());
    let external = probe.open_udp(at(S1, 5000), at(E1, 53000));
    let other = if external.address == G { G2 } else { G };
    let sent = udp(external, at(E1, 53000), b"hello");
    probe.outside.send(&builder::icmp_error(3, 3, E1, other, &sent));
    probe.silence();
    probe.outside.send(&builder::icmp_error(3, 3, E1, external.address, &sent));
    probe.inside.expect("the right one");
    // Another inside host, which knows the packet that S1 received, reports that it could not be
    // delivered. First the host is silent otherwise; then it has sessions of its own, so that its
    // reports as a router are not believed either.
    let received = udp(at(E1, 53000), at(S1, 5000), b"answer");
    probe.inside.send(&builder::icmp_error(3, 3, S2, E1, &received));
    probe.silence();
    probe.open_udp(at(S2, 5000), at(E1, 53000));
    for (kind, code) in [(3, 3), (3, 1), (11, 0)] {
        probe.inside.send(&builder::icmp_error(kind, code, S2, E1, &received));
        probe.silence();
    }
    probe.assert_dropped("icmp-error-mismatch", 5);
    probe.inside.send(&builder::icmp_error(3, 3, S1, E1, &received));
    probe.outside.expect("S1's own report");
}

#[test]
fn icmp_errors_about_errors_and_later_fragments_are_dropped() {
    let _proof = proves(&["ERR-NEST"]);
    let probe = Probe::plain();
    for sent in three_kinds(&probe) {
        let error = builder::icmp_error(3, 3, G, E1, &sent.outside.0);
        probe.outside.send(&builder::icmp_error(3, 1, E1, G, &error));
        let mut later = sent.outside.0.clone();
        later[6..8].copy_from_slice(&185_u16.to_be_bytes());
        builder::refresh_header_checksum(&mut later);
        probe.outside.send(&builder::icmp_error(11, 1, E1, G, &later));
        probe.silence();
        let mut first = sent.outside.0.clone();
        first[6..8].copy_from_slice(&0x2000_u16.to_be_bytes());
        builder::refresh_header_checksum(&mut first);
        probe.outside.send(&builder::icmp_error(11, 1, E1, G, &first));
        let error = probe.inside.expect("the error about the first fragment");
        assert_eq!((error.icmp(), error.quote().unwrap().source().address), (Some((11, 1)), S1));
    }
}

#[test]
fn box_sends_no_icmp_error_where_none_is_due() {
    let _proof = proves(&["RTR-NO"]);
    let probe = Probe::plain();
    let sent = three_kinds(&probe);
    let dying = |mut packet: Vec<u8>| {
        builder::set_ttl(&mut packet, 1);
        packet
    };
    let long = udp(at(S1, 5000), at(E1, 53000), &[7; 100]);
    let from = |source: [u8; 4]| {
        let mut packet = udp(at(Ipv4Addr::from(source), 5000), at(G, 8080), b"x");
        builder::set_ttl(&mut packet, 1);
        packet
    };
    probe.inside.send(&dying(builder::icmp_error(3, 3, S1, E1, &sent[0].outside.0)));
    probe.inside.send(&dying(builder::fragments(&long, 40)[1].clone()));
    probe.inside.send(&dying(udp(at(S1, 5000), at(Ipv4Addr::new(239, 1, 1, 1), 53), b"x")));
    probe.inside.send(&dying(udp(at(S1, 5000), at(Ipv4Addr::new(10, 0, 0, 255), 53), b"x")));
    for source in
        [[0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]]
    {
        probe.outside.send(&from(source));
    }
    // Too long with DF: the whole datagram gets an error; an ICMP error of that length gets none.
    probe.silence();
    let mut echo = builder::echo(S1, E1, QueryKind::EchoRequest, 5, 1, b"x");
    builder::set_ttl(&mut echo, 1);
    probe.inside.send(&echo);
    let error = probe.inside.expect("the error about an echo request");
    assert_eq!((error.icmp(), error.destination().address), (Some((11, 0)), S1));
    probe.silence();
}

#[test]
fn icmp_errors_of_the_box_are_rate_limited_per_receiver() {
    let _proof = proves(&["RTR-RATE"]);
    let probe = Probe::start(Setup::new().mtu(1400, 1500).limits("icmp_errors_per_host: 20"));
    let too_long = |host| {
        let mut packet = udp(at(host, 5000), at(E1, 53000), &[7; 1450]);
        builder::set_dont_fragment(&mut packet, true);
        packet
    };
    let started = Instant::now();
    let mut errors = 0;
    for number in 0..1000 {
        probe.inside.send(&too_long(S1));
        if number % 50 == 0 {
            errors += std::iter::from_fn(|| probe.inside.poll()).count();
        }
    }
    errors += probe.inside.drain().len();
    let bound = 60 + 30 * started.elapsed().as_secs() as usize;
    assert!((10..=bound).contains(&errors), "{errors} errors for 1000 packets");
    // Another host still gets its error, at once.
    probe.inside.send(&too_long(S2));
    let error = probe.inside.expect("the error for another host");
    assert_eq!(
        (error.icmp(), error.destination().address, error.icmp_last_word()),
        (Some((3, 4)), S2, 1400)
    );
    // Errors that the kernel writes: packets of ten thousand other hosts do not use up the
    // allowance of E1.
    for number in 0..10_000_u32 {
        let other_host = Ipv4Addr::from(0xc612_0000 + number);
        let mut packet = udp(at(other_host, 5000), F, b"x");
        builder::set_ttl(&mut packet, 1);
        probe.outside.send(&packet);
        if number % 100 == 0 {
            while probe.outside.poll().is_some() {}
        }
    }
    let mut packet = udp(at(E1, 5000), F, b"x");
    builder::set_ttl(&mut packet, 1);
    probe.outside.send(&packet);
    let receivers: HashSet<_> =
        probe.outside.drain().iter().map(|seen| seen.destination().address).collect();
    assert!(receivers.contains(&E1), "{} others got an error", receivers.len());
}

#[test]
fn icmp_errors_of_the_box_have_addresses_that_the_receiver_knows() {
    let _proof = proves(&["RTR-SRC", "PMTU-2", "UDP-13"]);
    let probe = Probe::start(Setup::new().mtu(1400, 1300));
    // From inside to the uplink with the smaller MTU.
    let mut packet = udp(at(S1, 5000), at(E1, 53000), &[7; 1473 - 28]);
    builder::set_dont_fragment(&mut packet, true);
    builder::set_type_of_service(&mut packet, 0x48);
    probe.inside.send(&packet);
    let error = probe.inside.expect("the error");
    assert_eq!((error.icmp(), error.icmp_last_word()), (Some((3, 4)), 1400));
    assert_eq!((error.source().address, error.destination().address), (BOX, S1));
    assert!(error.0.len() <= 576 && error.0.len() >= 560, "{} bytes", error.0.len());
    assert_eq!(error.type_of_service() & 0xfc, 0x48, "the class of what it answers");
    assert_quotes(&error, &packet);
    // From outside to the private network with the smaller MTU. The error has the address that the
    // client uses.
    let mut packet = udp(at(E1, 4444), F, &[7; 1373 - 28]);
    builder::set_dont_fragment(&mut packet, true);
    probe.outside.send(&packet);
    let error = probe.outside.expect("the error");
    assert_eq!((error.icmp(), error.icmp_last_word()), (Some((3, 4)), 1300));
    assert_eq!((error.source().address, error.destination().address), (G, E1));
    assert_quotes(&error, &packet);
    assert!(error.0.len() <= 576);
    // An exact fit passes.
    for (length, leaves) in [(1400, true), (1401, false)] {
        let mut packet = udp(at(S1, 5000), at(E2, 53000), &vec![7; length - 28]);
        builder::set_dont_fragment(&mut packet, true);
        probe.inside.send(&packet);
        if leaves {
            assert_eq!(probe.outside.expect("a datagram that fits").0.len(), length);
        } else {
            assert_eq!(probe.inside.expect("an error").icmp_last_word(), 1400);
        }
    }
    // A reject has the box's inside address.
    let probe = Probe::start(Setup::new().outbound(&[]));
    let packet = udp(at(S1, 5000), at(E1, 53000), b"may I?");
    probe.inside.send(&packet);
    let error = probe.inside.expect("the refusal");
    assert_eq!(
        (error.icmp(), error.source().address, error.destination().address),
        (Some((3, 13)), BOX, S1)
    );
    assert_quotes(&error, &packet);
}

//! Checksums: correct ones stay correct, and wrong ones are never corrected. The wires recompute
//! all of them.

use natbox::packet::{Endpoint, Protocol, QueryKind, TcpFlags, builder};

use super::proves;
use crate::probe::{E1, F, F_TARGET, G, G2, Probe, S1, S2, Seen, Setup, assert_carried, at, tuple};

/// Words at which sums carry over.
const CORNERS: [u16; 6] = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];

/// Returns the offset of a packet's checksum, behind an IP header without options.
fn checksum_at(packet: &[u8]) -> usize {
    20 + match Protocol(packet[9]) {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        _ => 2,
    }
}

#[test]
fn checksum_updates_are_exact() {
    let _proof = proves(&["CSUM-1"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let mut connection = probe.connect_in(at(E1, 7), F);
    for first in CORNERS {
        for second in CORNERS {
            // Ports at the corners, and a payload of odd length.
            let payload = [first.to_be_bytes(), second.to_be_bytes()].concat();
            for payload in [&payload[..], &payload[..3]] {
                let inward = builder::udp(tuple(Protocol::UDP, at(E1, first), F), payload);
                probe.outside.send(&inward);
                assert_carried(&inward, &probe.inside.expect("in"), at(E1, first), F_TARGET);
                let out = builder::udp(
                    tuple(Protocol::UDP, at(S1, 5000), at(E1, second.max(1))),
                    payload,
                );
                probe.inside.send(&out);
                assert_carried(&out, &probe.outside.expect("out"), external, at(E1, second.max(1)));
                let data = connection.by_outside(TcpFlags::ACK, payload);
                probe.outside.send(&data);
                assert_carried(&data, &probe.inside.expect("data"), at(E1, 7), F_TARGET);
                connection.outside_next += payload.len() as u32;
            }
        }
    }
    // All sums that one word can make.
    for word in (0..=u16::MAX).step_by(31) {
        let out = builder::udp(tuple(Protocol::UDP, at(S1, 5000), at(E1, 53)), &word.to_be_bytes());
        probe.inside.send(&out);
        assert_carried(&out, &probe.outside.expect("out"), external, at(E1, 53));
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let _proof = proves(&["CSUM-2"]);
    let probe = Probe::plain();
    let (inside, remote) = (at(S1, 5000), at(E1, 53));
    let out = builder::udp_without_checksum(tuple(Protocol::UDP, inside, remote), b"none");
    probe.inside.send(&out);
    let seen = probe.outside.expect("out");
    assert_ne!(seen.source(), inside);
    assert_eq!(seen.checksum(), 0);
    let external = seen.source();
    assert_carried(&out, &seen, external, remote);
    let back = builder::udp_without_checksum(tuple(Protocol::UDP, remote, external), b"none");
    probe.outside.send(&back);
    let seen = probe.inside.expect("back");
    assert_eq!(seen.checksum(), 0);
    assert_carried(&back, &seen, remote, inside);
    let inward = builder::udp_without_checksum(tuple(Protocol::UDP, remote, F), b"none");
    probe.outside.send(&inward);
    let seen = probe.inside.expect("in");
    assert_eq!(seen.checksum(), 0);
    assert_carried(&inward, &seen, remote, F_TARGET);
    // In quotes, in both directions.
    probe.inside.send(&builder::icmp_error(3, 3, S1, E1, &seen.0));
    let quote = probe.outside.expect("an error").quote().expect("a quote");
    assert_eq!((quote.checksum(), quote.destination()), (0, F));
    let sent = builder::udp_without_checksum(tuple(Protocol::UDP, external, remote), b"none");
    probe.outside.send(&builder::icmp_error(3, 3, E1, G, &sent));
    let quote = probe.inside.expect("an error").quote().expect("a quote");
    assert_eq!((quote.checksum(), quote.source()), (0, inside));
}

#[test]
fn zero_and_all_ones_checksums_are_kept_apart() {
    let _proof = proves(&["CSUM-3"]);
    let probe = Probe::plain();
    let client = at(E1, 4444);
    let identifier = probe.open_ping(at(S1, 77), E1);
    let connection = probe.connect_in(client, F);
    // Each packet as a function of the word that makes its sum the wanted value, before and after
    // translation.
    let datagram = |to: Endpoint, word: u16| {
        builder::udp(tuple(Protocol::UDP, client, to), &word.to_be_bytes())
    };
    let segment = |to: Endpoint, word: u16| {
        let (sequence, acknowledgement) = (connection.outside_next, connection.inside_next);
        let to = tuple(Protocol::TCP, client, to);
        builder::tcp(to, TcpFlags::ACK, sequence, acknowledgement, &[], &word.to_be_bytes())
    };
    let reply = |to: Endpoint, word: u16| {
        builder::echo(E1, to.address, QueryKind::EchoReply, to.port, 1, &word.to_be_bytes())
    };
    let checksum = |packet: &[u8]| Seen(packet.to_vec()).checksum();
    type Make<'a> = &'a dyn Fn(Endpoint, u16) -> Vec<u8>;
    let kinds: [(Make<'_>, Endpoint, Endpoint, u16); 3] = [
        (&datagram, F, F_TARGET, 0xffff),
        (&segment, F, F_TARGET, 0),
        (&reply, identifier, at(S1, 77), 0),
    ];
    for (make, published, target, zero) in kinds {
        for view in [published, target] {
            // The complement of the sum of everything else makes the sum all ones, whose complement
            // is zero.
            let word = checksum(&make(view, 0));
            assert_eq!(checksum(&make(view, word)), zero, "the sum is zero before or after");
            probe.outside.send(&make(published, word));
            let seen = probe.inside.expect("in");
            assert_eq!(seen.0[20..], make(target, word)[20..], "{seen:?}");
        }
    }
}

#[test]
fn wrong_checksums_stay_wrong() {
    let _proof = proves(&["CSUM-4"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let identifier = probe.open_ping(at(S1, 77), E1);
    let connection = probe.connect_in(at(E1, 4444), F);
    let inner = connection.inside;
    probe.inside.tolerate();
    probe.outside.tolerate();
    let cases = [
        (
            true,
            builder::udp(tuple(Protocol::UDP, at(S1, 5000), at(E1, 53)), b"payload"),
            builder::udp(tuple(Protocol::UDP, external, at(E1, 53)), b"payload"),
        ),
        (
            false,
            builder::udp(tuple(Protocol::UDP, at(E1, 53), external), b"payload"),
            builder::udp(tuple(Protocol::UDP, at(E1, 53), at(S1, 5000)), b"payload"),
        ),
        (true, connection.by_inside(TcpFlags::ACK, b"payload"), {
            let to = tuple(Protocol::TCP, connection.external, connection.outside);
            let (sequence, acknowledgement) = (connection.inside_next, connection.outside_next);
            builder::tcp(to, TcpFlags::ACK, sequence, acknowledgement, &[], b"payload")
        }),
        (false, connection.by_outside(TcpFlags::ACK, b"payload"), {
            let to = tuple(Protocol::TCP, connection.outside, inner);
            let (sequence, acknowledgement) = (connection.outside_next, connection.inside_next);
            builder::tcp(to, TcpFlags::ACK, sequence, acknowledgement, &[], b"payload")
        }),
        (
            true,
            builder::echo(S1, E1, QueryKind::EchoRequest, 77, 1, b"payload"),
            builder::echo(G, E1, QueryKind::EchoRequest, identifier.port, 1, b"payload"),
        ),
        (
            false,
            builder::echo(E1, G, QueryKind::EchoReply, identifier.port, 1, b"payload"),
            builder::echo(E1, S1, QueryKind::EchoReply, 77, 1, b"payload"),
        ),
    ];
    for (from_inside, sent, arrives) in cases {
        let at = checksum_at(&sent);
        let field = |packet: &[u8]| u16::from_be_bytes([packet[at], packet[at + 1]]);
        for error in [1_u16, 0x0100, 0x8000] {
            let mut wrong = sent.clone();
            wrong[at..at + 2]
                .copy_from_slice(&ones_complement_add(field(&sent), error).to_be_bytes());
            let (from, to) = if from_inside {
                (&probe.inside, &probe.outside)
            } else {
                (&probe.outside, &probe.inside)
            };
            from.send(&wrong);
            let seen = to.expect("what is wrong passes");
            let expected = ones_complement_add(field(&arrives), error);
            assert!(
                field(&seen.0) == expected,
                "{error:#x}: {:#x} for {expected:#x}, {seen:?}",
                field(&seen.0)
            );
        }
    }
}

fn ones_complement_add(one: u16, other: u16) -> u16 {
    let sum = u32::from(one) + u32::from(other);
    (sum & 0xffff) as u16 + (sum >> 16) as u16
}

#[test]
fn checksums_survive_a_translation_that_changes_nothing() {
    let _proof = proves(&["CSUM-1"]);
    // A forward to the published port itself, and back: only addresses change.
    let probe = Probe::start(Setup::new().forward(
        "name: same, protocol: tcp+udp, port: 7777, address: 192.0.2.1, to: '10.0.0.13:7777'",
    ));
    for length in 0..64 {
        let payload = vec![0xff; length];
        let inward = builder::udp(tuple(Protocol::UDP, at(E1, 9), at(G, 7777)), &payload);
        probe.outside.send(&inward);
        assert_carried(&inward, &probe.inside.expect("in"), at(E1, 9), at(crate::probe::S3, 7777));
    }
}

#[test]
fn checksums_of_udp_lite_and_dccp_follow_the_addresses() {
    let _proof = proves(&["CSUM-6"]);
    let probe = Probe::start(
        Setup::new().pool().forward("protocol: any, address: 192.0.2.2, to: 10.0.0.12"),
    );
    let payload: Vec<u8> = (0..61).collect();
    let (client, server) = (at(E1, 4000), at(S2, 80));
    let published = at(G2, 80);
    for coverage in [0, 8, 9, 30, 69] {
        let lite =
            |from, to| builder::udp_lite(tuple(Protocol::UDP_LITE, from, to), coverage, &payload);
        probe.outside.send(&lite(client, published));
        assert_eq!(probe.inside.expect("in").0[20..], lite(client, server)[20..]);
        probe.inside.send(&lite(server, client));
        assert_eq!(probe.outside.expect("out").0[20..], lite(published, client)[20..]);
        probe.inside.send(&builder::icmp_error(3, 3, S2, E1, &lite(client, server)));
        let quote = probe.outside.expect("an error").quote().expect("a quote");
        assert_eq!(quote.0[20..], lite(client, published)[20..]);
    }
    for coverage in [0, 1, 2, 15] {
        let dccp = |from, to| builder::dccp(tuple(Protocol::DCCP, from, to), coverage, &payload);
        probe.outside.send(&dccp(client, published));
        assert_eq!(probe.inside.expect("in").0[20..], dccp(client, server)[20..]);
        // Over a mapping as well: the first host has no forward for these protocols.
        let out = dccp(at(S1, 80), client);
        probe.inside.send(&out);
        let seen = probe.outside.expect("out");
        assert_eq!(seen.0[20..], dccp(at(seen.source().address, 80), client)[20..]);
    }
}

//! Packets that are not what they should be.

use super::*;

/// One packet of each kind for each direction, towards a published server and from a host inside.
fn of_each_kind() -> Vec<Vec<u8>> {
    let echo = |from, to| builder::echo(from, to, QueryKind::EchoRequest, 7, 1, b"odd");
    vec![
        tcp(SYN, (E2, 4), (G, 8080), 1, 0),
        tcp(SYN, (S2, 4), (E2, 80), 1, 0),
        udp((E2, 4), (G, 8080)),
        udp((S2, 4), (E2, 53)),
        echo(E2, G),
        echo(S2, E2),
    ]
}

/// MAL-2.
#[test]
fn what_lies_behind_the_total_length_is_neither_looked_at_nor_sent() {
    let (mut stage, mut clean) = (Stage::new(settings()), Stage::new(settings()));
    let outside = |packet: &[u8]| parsed(packet).destination() == G;
    for packet in of_each_kind() {
        let expected = clean.send(&packet).expect("passes");
        let out = stage.send(&[&packet[..], &[0xaa; 10]].concat()).expect("passes");
        assert_eq!(out.len(), expected.len());
        if outside(&packet) {
            assert_eq!(out, expected);
            let error = builder::icmp_error(3, 3, S1, E2, &out);
            let expected = clean.send(&error).map(|error| error[20..].to_vec());
            let junk =
                stage.send(&[&error[..], &[0x55; 11]].concat()).map(|error| error[20..].to_vec());
            assert_eq!(junk, expected);
        }
    }
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 2500]);
    let pieces = builder::fragments(&datagram, 1000);
    let with_junk =
        [1, 0, 2].map(|index| ([&pieces[index][..], &[0xaa; 7]].concat(), Offload::default()));
    let out = stage.run(&with_junk);
    let lengths: Vec<usize> = out.iter().map(|(piece, _)| piece.len()).collect();
    assert_eq!(lengths, [pieces[0].len(), pieces[1].len(), pieces[2].len()]);
}

/// MAL-3.
#[test]
fn inconsistent_transport_headers_are_dropped_without_state_with_and_without_a_session() {
    let damaged = |packet: &[u8]| -> Vec<Vec<u8>> {
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = packet.to_vec();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        let cut = |transport: usize| {
            let mut packet = packet[..20 + transport].to_vec();
            packet[2..4].copy_from_slice(&(20 + transport as u16).to_be_bytes());
            builder::refresh_header_checksum(&mut packet);
            packet
        };
        match packet[9] {
            6 => vec![with(32, &[0x40]), with(32, &[0xf0]), cut(19), cut(4), cut(0)],
            17 => vec![with(24, &[0, 7]), with(24, &[1, 0]), cut(7), cut(0)],
            _ => vec![cut(7), cut(0)],
        }
    };
    for open_first in [false, true] {
        for packet in of_each_kind() {
            let mut stage = Stage::new(settings());
            if open_first {
                stage.pass(&packet);
            }
            let sessions = stage.sessions();
            for bad in damaged(&packet) {
                assert_eq!(stage.refuse(&bad), DropReason::BadTransportHeader, "{bad:02x?}");
            }
            assert_eq!(stage.sessions(), sessions);
        }
    }
}

/// ICMP-3: each bit that a checksum guards.
#[test]
fn errors_with_a_wrong_checksum_of_their_own_or_of_the_quoted_header_are_dropped() {
    let mut stage = Stage::new(settings());
    let on_the_wire = stage.send(&udp((S2, 5000), (E1, 53))).expect("translated");
    let error = builder::icmp_error(3, 3, ROUTER, G, &on_the_wire);
    for bit in 20 * 8..error.len() * 8 {
        let mut bad = error.clone();
        bad[bit / 8] ^= 0x80 >> (bit % 8);
        if bad[20] == 3 {
            assert_eq!(stage.refuse(&bad), DropReason::BadIcmpError, "bit {bit}");
        }
    }
    for bit in 0..20 * 8 {
        let mut quoted = on_the_wire.clone();
        quoted[bit / 8] ^= 0x80 >> (bit % 8);
        let bad = builder::icmp_error(3, 3, ROUTER, G, &quoted);
        assert_eq!(stage.refuse(&bad), DropReason::BadIcmpError, "bit {bit} of the quote");
    }
    // RFC 4884: a length that points behind the packet.
    let lying = builder::icmp(ROUTER, G, 3, 3, [0, 200, 0, 0], &on_the_wire);
    assert_eq!(stage.refuse(&lying), DropReason::BadIcmpError);
    stage.send(&error).expect("the error itself is good");
}

//! Malformed packets.

use super::*;

/// Returns one packet of each kind for each direction: to a published server and from an inside
/// host.
fn packets_of_each_kind() -> Vec<Vec<u8>> {
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
fn bytes_after_the_ip_total_length_are_neither_read_nor_sent() {
    let (mut harness, mut clean) = (Harness::new(settings()), Harness::new(settings()));
    let from_outside = |packet: &[u8]| parsed(packet).destination() == G;
    for packet in packets_of_each_kind() {
        let expected = clean.send(&packet).expect("passes");
        let out = harness.send(&[&packet[..], &[0xaa; 10]].concat()).expect("passes");
        assert_eq!(out.len(), expected.len());
        if from_outside(&packet) {
            assert_eq!(out, expected);
            let error = builder::icmp_error(3, 3, S1, E2, &out);
            let expected = clean.send(&error).map(|error| error[20..].to_vec());
            let with_junk =
                harness.send(&[&error[..], &[0x55; 11]].concat()).map(|error| error[20..].to_vec());
            assert_eq!(with_junk, expected);
        }
    }
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 2500]);
    let fragments = builder::fragments(&datagram, 1000);
    let padded =
        [1, 0, 2].map(|index| ([&fragments[index][..], &[0xaa; 7]].concat(), Offload::default()));
    let out = harness.run(&padded);
    let lengths: Vec<usize> = out.iter().map(|(fragment, _)| fragment.len()).collect();
    assert_eq!(lengths, [fragments[0].len(), fragments[1].len(), fragments[2].len()]);
}

/// MAL-3.
#[test]
fn inconsistent_transport_headers_are_dropped_and_change_no_session() {
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
        for packet in packets_of_each_kind() {
            let mut harness = Harness::new(settings());
            if open_first {
                harness.pass(&packet);
            }
            let sessions = harness.sessions();
            for bad in damaged(&packet) {
                assert_eq!(harness.drop_reason(&bad), DropReason::BadTransportHeader, "{bad:02x?}");
            }
            assert_eq!(harness.sessions(), sessions);
        }
    }
}

/// ICMP-3: with each bit flipped that one of the two checksums covers.
#[test]
fn an_icmp_error_with_a_wrong_icmp_checksum_or_quoted_header_checksum_is_dropped() {
    let mut harness = Harness::new(settings());
    let on_the_wire = harness.send(&udp((S2, 5000), (E1, 53))).expect("translated");
    let error = builder::icmp_error(3, 3, ROUTER, G, &on_the_wire);
    for bit in 20 * 8..error.len() * 8 {
        let mut bad = error.clone();
        bad[bit / 8] ^= 0x80 >> (bit % 8);
        if bad[20] == 3 {
            assert_eq!(harness.drop_reason(&bad), DropReason::BadIcmpError, "bit {bit}");
        }
    }
    for bit in 0..20 * 8 {
        let mut quoted = on_the_wire.clone();
        quoted[bit / 8] ^= 0x80 >> (bit % 8);
        let bad = builder::icmp_error(3, 3, ROUTER, G, &quoted);
        assert_eq!(harness.drop_reason(&bad), DropReason::BadIcmpError, "bit {bit} of the quote");
    }
    // RFC 4884: a length that points beyond the packet.
    let bad_length = builder::icmp(ROUTER, G, 3, 3, [0, 200, 0, 0], &on_the_wire);
    assert_eq!(harness.drop_reason(&bad_length), DropReason::BadIcmpError);
    harness.send(&error).expect("the unchanged error is translated");
}

//! Translation of fragmented datagrams.

use super::*;

/// Reassembles fragments. Returns the source, the destination and the payload of the datagram.
fn reassembled(fragments: &[(Vec<u8>, Offload)]) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut payload = vec![0; 65_536];
    let mut end = 0;
    for (fragment, _) in fragments {
        let parsed = parsed(fragment);
        let Payload::Fragment { offset, .. } = parsed.payload() else { panic!("a fragment") };
        let body = &fragment[parsed.header_length()..parsed.length()];
        payload[usize::from(offset)..usize::from(offset) + body.len()].copy_from_slice(body);
        end = end.max(usize::from(offset) + body.len());
    }
    let first = parsed(&fragments[0].0);
    payload.truncate(end);
    (first.source(), first.destination(), payload)
}

/// Sends a datagram in three fragments in the given order. The engine must send all of them.
fn send_in_fragments(
    harness: &mut Harness,
    packet: &[u8],
    identification: u16,
    order: [usize; 3],
) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut packet = packet.to_vec();
    builder::set_identification(&mut packet, identification);
    let fragments = builder::fragments(&packet, 1000);
    assert_eq!(fragments.len(), 3);
    let out = harness.run(&order.map(|index| (fragments[index].clone(), Offload::default())));
    assert_eq!(out.len(), 3, "{order:?}: {:?}", harness.dropped());
    reassembled(&out)
}

#[test]
fn fragments_of_every_protocol_are_translated_in_every_order_in_both_directions() {
    let payload: Vec<u8> = (0..2500u32).map(|byte| byte as u8).collect();
    let udp = |from, to| builder::udp(tuple(Protocol::UDP, from, to), &payload);
    let echo = |from, to, kind| builder::echo(from, to, kind, 7, 1, &payload);
    let data =
        |from, to| builder::tcp(tuple(Protocol::TCP, from, to), ACK, 101, 501, &[], &payload);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut harness = Harness::new(settings());
        connect(&mut harness);
        let external = harness.pass(&udp((S2, 5000), (E1, 53))).source;
        // Connections and echo requests of S2: to E1, and to S1 through the published address.
        let external_port = harness.pass(&tcp(SYN, (S2, 6000), (E1, 80), 100, 0)).source.port;
        harness.pass(&tcp(SYN_ACK, (E1, 80), (G, external_port), 500, 101));
        let hairpin_port = harness.pass(&tcp(SYN, (S2, 6001), (G, 8080), 100, 0)).source.port;
        harness.pass(&tcp(SYN_ACK, (S1, 80), (G, hairpin_port), 500, 101));
        let query_from_s2 = |harness: &mut Harness, to| {
            harness.pass(&builder::echo(S2, to, QueryKind::EchoRequest, 9, 1, b"ping")).source.port
        };
        let (query, hairpin_query) =
            (query_from_s2(&mut harness, E1), query_from_s2(&mut harness, G));
        let echo_of =
            |from, to, kind, identifier| builder::echo(from, to, kind, identifier, 1, &payload);
        for (number, (sent, expected)) in [
            (udp((E1, 4444), (G, 8080)), udp((E1, 4444), (S1, 80))),
            (udp((S1, 80), (E1, 4444)), udp((G, 8080), (E1, 4444))),
            (echo(E1, G, QueryKind::EchoRequest), echo(E1, S1, QueryKind::EchoRequest)),
            (echo(S1, E1, QueryKind::EchoReply), echo(G, E1, QueryKind::EchoReply)),
            (data((E1, 4444), (G, 8080)), data((E1, 4444), (S1, 80))),
            (udp((S2, 5000), (E1, 53)), udp((G, external.port), (E1, 53))),
            (udp((S2, 5000), (G, 8080)), udp((G, external.port), (S1, 80))),
            (udp((S1, 80), (G, external.port)), udp((G, 8080), (S2, 5000))),
            (udp((E1, 53), (G, external.port)), udp((E1, 53), (S2, 5000))),
            (data((S2, 6000), (E1, 80)), data((G, external_port), (E1, 80))),
            (data((E1, 80), (G, external_port)), data((E1, 80), (S2, 6000))),
            (data((S2, 6001), (G, 8080)), data((G, hairpin_port), (S1, 80))),
            (data((S1, 80), (G, hairpin_port)), data((G, 8080), (S2, 6001))),
            (
                echo_of(S2, E1, QueryKind::EchoRequest, 9),
                echo_of(G, E1, QueryKind::EchoRequest, query),
            ),
            (echo_of(E1, G, QueryKind::EchoReply, query), echo_of(E1, S2, QueryKind::EchoReply, 9)),
            (
                echo_of(S2, G, QueryKind::EchoRequest, 9),
                echo_of(G, S1, QueryKind::EchoRequest, hairpin_query),
            ),
            (
                echo_of(S1, G, QueryKind::EchoReply, hairpin_query),
                echo_of(G, S2, QueryKind::EchoReply, 9),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let (source, destination, payload) =
                send_in_fragments(&mut harness, &sent, number as u16 + 1, order);
            let whole = parsed(&expected);
            assert_eq!((source, destination), (whole.source(), whole.destination()));
            assert!(
                payload == expected[20..],
                "payload and transport checksum of case {number}, {order:?}"
            );
        }
    }
}

#[test]
fn fragments_whose_first_one_never_arrives_are_counted_as_fragment_timeout() {
    let mut harness = Harness::new(settings());
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 3000]);
    let fragments = builder::fragments(&datagram, 1000);
    for fragment in &fragments[1..] {
        assert_eq!(harness.send(fragment), None);
    }
    harness.wait(Span::seconds(16));
    assert_eq!(harness.counters().drops.of(DropReason::FragmentTimeout), 3);
    assert_eq!(harness.sessions(), 0);
    harness.send(&fragments[0]).expect("a first fragment passes at once");
}

/// FRAG-1: towards a forward, towards a dynamic mapping, and from inside.
#[test]
fn overlapping_and_malformed_fragments_are_dropped_and_leave_no_state() {
    let mut harness = Harness::new(settings());
    let external = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    for (round, (from, to)) in
        [((E1, 4444), (G, 8080)), ((E1, 53), (G, external)), ((S2, 5000), (E1, 53))]
            .into_iter()
            .enumerate()
    {
        let mut number = 100 * round as u16;
        let mut next_datagram = || {
            number += 1;
            let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[1; 3000]);
            builder::set_identification(&mut packet, number);
            builder::fragments(&packet, 1000)
        };
        let with_offset_word = |fragment: &[u8], word: u16| {
            let mut fragment = fragment.to_vec();
            fragment[6..8].copy_from_slice(&word.to_be_bytes());
            builder::refresh_header_checksum(&mut fragment);
            fragment
        };
        // A fragment that overlaps the first, its neighbour or the end of the datagram. The first
        // fragment comes before or after it.
        for offset in [1, 60, 124, 126, 200, 370] {
            let fragments = next_datagram();
            let overlapping = with_offset_word(&fragments[1], 0x2000 | offset);
            harness.send(&fragments[0]).expect("passes");
            harness.send(&fragments[1]).expect("passes");
            harness.send(&fragments[3]).expect("passes");
            assert_eq!(harness.drop_reason(&overlapping), DropReason::FragmentOverlap, "{offset}");
            assert_eq!(harness.drop_reason(&fragments[2]), DropReason::FragmentOverlap);

            let fragments = next_datagram();
            harness.send(&fragments[3]);
            harness.send(&fragments[1]);
            assert_eq!(
                harness.drop_reason(&with_offset_word(&fragments[1], 0x2000 | offset)),
                DropReason::FragmentOverlap
            );
            assert_eq!(harness.drop_reason(&fragments[0]), DropReason::FragmentOverlap);
        }
        // A fragment beyond the longest datagram, one with a length that is no multiple of eight,
        // and an empty one.
        let fragments = next_datagram();
        assert_eq!(
            harness.drop_reason(&with_offset_word(&fragments[0], 8191)),
            DropReason::BadFragment
        );
        for payload in [&b"not eight"[..], b""] {
            let fragment = builder::other(Protocol::UDP, from.0, to.0, payload);
            assert_eq!(
                harness.drop_reason(&with_offset_word(&fragment, 0x2000 | 9)),
                DropReason::BadFragment
            );
        }
        // A duplicate fragment is dropped. After the last fragment, another datagram can use the
        // identification.
        for _ in 0..2 {
            for (index, fragment) in fragments.iter().enumerate() {
                harness.send(fragment).expect("passes");
                if index < 3 {
                    assert_eq!(harness.drop_reason(fragment), DropReason::FragmentDuplicate);
                }
            }
        }
        // A last fragment of one byte.
        let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[1; 1993]);
        builder::set_identification(&mut packet, 99);
        let fragments = builder::fragments(&packet, 1000);
        assert_eq!(fragments[2].len(), 21);
        assert_eq!(harness.run(&frames(&fragments)).len(), 3);
    }
    let tiny = builder::other(Protocol::TCP, E1, G, &[0x11; 24]);
    for word in [0x2000 | 1u16, 1, 2] {
        let mut fragment = tiny.clone();
        fragment[6..8].copy_from_slice(&word.to_be_bytes());
        builder::refresh_header_checksum(&mut fragment);
        assert_eq!(harness.drop_reason(&fragment), DropReason::BadFragment);
    }
    harness.wait(Span::seconds(16));
    let sessions = harness.sessions();
    assert_eq!(sessions, 2, "one over the mapping and one through the forward");
}

#[test]
fn a_fragmented_syn_with_data_opens_a_session_in_every_order_of_fragments() {
    let payload = [7; 2500];
    let syn = |from, to| builder::tcp(tuple(Protocol::TCP, from, to), SYN, 100, 0, &[], &payload);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut harness = Harness::new(settings());
        let (source, destination, _) =
            send_in_fragments(&mut harness, &syn((S2, 6000), (E1, 80)), 1, order);
        assert_eq!((source, destination), (G, E1));
        let (source, destination, _) =
            send_in_fragments(&mut harness, &syn((E1, 4444), (G, 8080)), 2, order);
        assert_eq!((source, destination), (E1, S1));
    }
}

/// A first fragment that fits passes. The sender of a later one cannot get an ICMP error (RFC 1812
/// section 4.3.2.7).
#[test]
fn a_later_fragment_with_df_that_exceeds_the_next_mtu_is_dropped_and_counted() {
    const DF: u16 = 0x4000;
    const FIRST: u16 = 400;
    let setup = settings().with(|setup| {
        setup.policy.uplinks[0].mtu = 1000;
        setup.policy.legs[0].mtu = 1200;
    });
    for (from, to, mtu) in [((S2, 5000), (E1, 53), 1000), ((E1, 4444), (G, 8080), 1200)] {
        for later_first in [false, true] {
            let mut harness = Harness::new(setup.clone());
            for (number, (flags, length)) in
                [(DF, mtu), (DF, mtu + 1), (0, mtu + 1)].into_iter().enumerate()
            {
                let mut whole = builder::udp(tuple(Protocol::UDP, from, to), &[1; 3000]);
                builder::set_identification(&mut whole, number as u16);
                let first = builder::fragments(&whole, usize::from(FIRST)).swap_remove(0);
                let mut later = builder::other(Protocol::UDP, from.0, to.0, &vec![1; length - 20]);
                builder::set_identification(&mut later, number as u16);
                later[6..8].copy_from_slice(&(flags | (FIRST / 8)).to_be_bytes());
                builder::refresh_header_checksum(&mut later);
                let order = if later_first { [later, first] } else { [first, later] };
                let before = harness.counters().drops.of(DropReason::MtuExceeded);
                let passed = harness.run(&frames(&order)).len();
                let dropped = harness.counters().drops.of(DropReason::MtuExceeded) - before;
                let wanted = if length > mtu && flags == DF { (1, 1) } else { (2, 0) };
                assert_eq!((passed as u64, dropped), wanted, "{length} bytes, flags {flags:04x}");
            }
        }
    }
}

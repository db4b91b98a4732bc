//! Fragmented datagrams.

use super::*;

fn frames(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    packets.iter().map(|packet| (packet.clone(), Offload::default())).collect()
}

/// Reassembles fragments that came out: addresses, and the datagram's payload.
fn reassembled(pieces: &[(Vec<u8>, Offload)]) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut payload = vec![0; 65_536];
    let mut end = 0;
    for (piece, _) in pieces {
        let parsed = parsed(piece);
        let Payload::Fragment { offset, .. } = parsed.payload() else { panic!("a fragment") };
        let body = &piece[parsed.header_length()..parsed.length()];
        payload[usize::from(offset)..usize::from(offset) + body.len()].copy_from_slice(body);
        end = end.max(usize::from(offset) + body.len());
    }
    let first = parsed(&pieces[0].0);
    payload.truncate(end);
    (first.source(), first.destination(), payload)
}

/// Sends a datagram in three fragments, in the given order; all of it must come out.
fn in_pieces(
    stage: &mut Stage,
    packet: &[u8],
    identification: u16,
    order: [usize; 3],
) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut packet = packet.to_vec();
    builder::set_identification(&mut packet, identification);
    let pieces = builder::fragments(&packet, 1000);
    assert_eq!(pieces.len(), 3);
    let out = stage.run(&order.map(|index| (pieces[index].clone(), Offload::default())));
    assert_eq!(out.len(), 3, "{order:?}: {:?}", stage.dropped());
    reassembled(&out)
}

#[test]
fn datagrams_in_pieces_pass_in_every_order_both_ways_for_every_protocol() {
    let payload: Vec<u8> = (0..2500u32).map(|byte| byte as u8).collect();
    let udp = |from, to| builder::udp(tuple(Protocol::UDP, from, to), &payload);
    let echo = |from, to, kind| builder::echo(from, to, kind, 7, 1, &payload);
    let data =
        |from, to| builder::tcp(tuple(Protocol::TCP, from, to), ACK, 101, 501, &[], &payload);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut stage = Stage::new(settings());
        connect(&mut stage);
        let external = stage.pass(&udp((S2, 5000), (E1, 53))).source;
        // Connections and queries of S2: outwards, and to S1 by its published address.
        let dialled = stage.pass(&tcp(SYN, (S2, 6000), (E1, 80), 100, 0)).source.port;
        stage.pass(&tcp(SYN_ACK, (E1, 80), (G, dialled), 500, 101));
        let hairpin = stage.pass(&tcp(SYN, (S2, 6001), (G, 8080), 100, 0)).source.port;
        stage.pass(&tcp(SYN_ACK, (S1, 80), (G, hairpin), 500, 101));
        let asked = |stage: &mut Stage, of| {
            stage.pass(&builder::echo(S2, of, QueryKind::EchoRequest, 9, 1, b"ping")).source.port
        };
        let (query, inner_query) = (asked(&mut stage, E1), asked(&mut stage, G));
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
            (data((S2, 6000), (E1, 80)), data((G, dialled), (E1, 80))),
            (data((E1, 80), (G, dialled)), data((E1, 80), (S2, 6000))),
            (data((S2, 6001), (G, 8080)), data((G, hairpin), (S1, 80))),
            (data((S1, 80), (G, hairpin)), data((G, 8080), (S2, 6001))),
            (
                echo_of(S2, E1, QueryKind::EchoRequest, 9),
                echo_of(G, E1, QueryKind::EchoRequest, query),
            ),
            (echo_of(E1, G, QueryKind::EchoReply, query), echo_of(E1, S2, QueryKind::EchoReply, 9)),
            (
                echo_of(S2, G, QueryKind::EchoRequest, 9),
                echo_of(G, S1, QueryKind::EchoRequest, inner_query),
            ),
            (
                echo_of(S1, G, QueryKind::EchoReply, inner_query),
                echo_of(G, S2, QueryKind::EchoReply, 9),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let (source, destination, payload) =
                in_pieces(&mut stage, &sent, number as u16 + 1, order);
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
fn pieces_that_wait_in_vain_are_counted_when_their_time_is_over() {
    let mut stage = Stage::new(settings());
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 3000]);
    let pieces = builder::fragments(&datagram, 1000);
    for piece in &pieces[1..] {
        assert_eq!(stage.send(piece), None);
    }
    stage.wait(Span::seconds(16));
    assert_eq!(stage.counters().drops.of(DropReason::FragmentTimeout), 3);
    assert_eq!(stage.sessions(), 0);
    stage.send(&pieces[0]).expect("a first piece passes on its own");
}

/// FRAG-1: each against a forward and a dynamic mapping.
#[test]
fn hostile_pieces_are_never_delivered_and_leave_nothing_behind() {
    let mut stage = Stage::new(settings());
    let external = stage.pass(&udp((S2, 5000), (E1, 53))).source.port;
    for (round, (from, to)) in
        [((E1, 4444), (G, 8080)), ((E1, 53), (G, external)), ((S2, 5000), (E1, 53))]
            .into_iter()
            .enumerate()
    {
        let mut number = 100 * round as u16;
        let mut fresh = || {
            number += 1;
            let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[1; 3000]);
            builder::set_identification(&mut packet, number);
            builder::fragments(&packet, 1000)
        };
        let moved = |piece: &[u8], word: u16| {
            let mut piece = piece.to_vec();
            piece[6..8].copy_from_slice(&word.to_be_bytes());
            builder::refresh_header_checksum(&mut piece);
            piece
        };
        // A later piece that covers the first, its neighbour, or the datagram's end; with the first
        // before or behind it.
        for bad in [1, 60, 124, 126, 200, 370] {
            let pieces = fresh();
            let overlapping = moved(&pieces[1], 0x2000 | bad);
            stage.send(&pieces[0]).expect("passes");
            stage.send(&pieces[1]).expect("passes");
            stage.send(&pieces[3]).expect("passes");
            assert_eq!(stage.refuse(&overlapping), DropReason::FragmentOverlap, "{bad}");
            assert_eq!(stage.refuse(&pieces[2]), DropReason::FragmentOverlap);

            let pieces = fresh();
            stage.send(&pieces[3]);
            stage.send(&pieces[1]);
            assert_eq!(stage.refuse(&moved(&pieces[1], 0x2000 | bad)), DropReason::FragmentOverlap);
            assert_eq!(stage.refuse(&pieces[0]), DropReason::FragmentOverlap);
        }
        // Past the longest datagram; not a multiple of eight; empty.
        let pieces = fresh();
        assert_eq!(stage.refuse(&moved(&pieces[0], 8191)), DropReason::BadFragment);
        for payload in [&b"not eight"[..], b""] {
            let piece = builder::other(Protocol::UDP, from.0, to.0, payload);
            assert_eq!(stage.refuse(&moved(&piece, 0x2000 | 9)), DropReason::BadFragment);
        }
        // Repeats pass once; then the name is free for another datagram.
        for _ in 0..2 {
            for (index, piece) in pieces.iter().enumerate() {
                stage.send(piece).expect("passes");
                if index < 3 {
                    assert_eq!(stage.refuse(piece), DropReason::FragmentDuplicate);
                }
            }
        }
        // A last piece of one byte.
        let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[1; 1993]);
        builder::set_identification(&mut packet, 99);
        let pieces = builder::fragments(&packet, 1000);
        assert_eq!(pieces[2].len(), 21);
        assert_eq!(stage.run(&frames(&pieces)).len(), 3);
    }
    let tiny = builder::other(Protocol::TCP, E1, G, &[0x11; 24]);
    for word in [0x2000 | 1u16, 1, 2] {
        let mut piece = tiny.clone();
        piece[6..8].copy_from_slice(&word.to_be_bytes());
        builder::refresh_header_checksum(&mut piece);
        assert_eq!(stage.refuse(&piece), DropReason::BadFragment);
    }
    stage.wait(Span::seconds(16));
    let sessions = stage.sessions();
    assert_eq!(sessions, 2, "of the mapping, and through the forward");
}

#[test]
fn a_syn_with_data_in_fragments_opens_a_connection_in_every_order() {
    let payload = [7; 2500];
    let syn = |from, to| builder::tcp(tuple(Protocol::TCP, from, to), SYN, 100, 0, &[], &payload);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut stage = Stage::new(settings());
        let (source, destination, _) = in_pieces(&mut stage, &syn((S2, 6000), (E1, 80)), 1, order);
        assert_eq!((source, destination), (G, E1));
        let (source, destination, _) = in_pieces(&mut stage, &syn((E1, 4444), (G, 8080)), 2, order);
        assert_eq!((source, destination), (E1, S1));
    }
}

//! Datagrams in pieces.

use super::*;

/// Puts pieces that came out back together: addresses, and the datagram's payload.
fn reassembled(pieces: &[(Vec<u8>, Offload)]) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut payload = vec![0; 65_536];
    let mut end = 0;
    for (piece, _) in pieces {
        let parsed = parsed(piece);
        let Content::Fragment { offset, .. } = parsed.content() else { panic!("a fragment") };
        let body = &piece[parsed.header_length()..parsed.length()];
        payload[usize::from(offset)..usize::from(offset) + body.len()].copy_from_slice(body);
        end = end.max(usize::from(offset) + body.len());
    }
    let first = parsed(&pieces[0].0);
    payload.truncate(end);
    (first.source(), first.destination(), payload)
}

/// Sends a datagram in three pieces, in the given order; all of it must come out.
fn in_pieces(
    stage: &mut Stage,
    packet: &[u8],
    identification: u16,
    order: [usize; 3],
) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let mut packet = packet.to_vec();
    craft::set_identification(&mut packet, identification);
    let pieces = craft::fragments(&packet, 1000);
    assert_eq!(pieces.len(), 3);
    let out = stage.run(&order.map(|index| (pieces[index].clone(), Offload::default())));
    assert_eq!(out.len(), 3, "{order:?}: {:?}", stage.dropped());
    reassembled(&out)
}

#[test]
fn datagrams_in_pieces_pass_in_every_order_both_ways_for_every_protocol() {
    let payload: Vec<u8> = (0..2500u32).map(|byte| byte as u8).collect();
    let udp = |from, to| craft::udp(tuple(Protocol::UDP, from, to), &payload);
    let echo = |from, to, kind| craft::echo(from, to, kind, 7, 1, &payload);
    let data = |from, to| craft::tcp(tuple(Protocol::TCP, from, to), ACK, 101, 501, &[], &payload);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut stage = Stage::new(settings());
        connect(&mut stage);
        let external = stage.pass(&udp((S2, 5000), (E1, 53))).source;
        for (number, (sent, expected)) in [
            (udp((E1, 4444), (G, 8080)), udp((E1, 4444), (S1, 80))),
            (udp((S1, 80), (E1, 4444)), udp((G, 8080), (E1, 4444))),
            (echo(E1, G, QueryKind::EchoRequest), echo(E1, S1, QueryKind::EchoRequest)),
            (echo(S1, E1, QueryKind::EchoReply), echo(G, E1, QueryKind::EchoReply)),
            (data((E1, 4444), (G, 8080)), data((E1, 4444), (S1, 80))),
            (udp((S2, 5000), (E1, 53)), udp((G, external.port), (E1, 53))),
            (udp((S2, 5000), (G, 8080)), udp((G, external.port), (S1, 80))),
        ]
        .into_iter()
        .enumerate()
        {
            let (source, destination, payload) = in_pieces(&mut stage, &sent, number as u16 + 1, order);
            let whole = parsed(&expected);
            assert_eq!((source, destination), (whole.source(), whole.destination()));
            assert!(payload == expected[20..], "payload and transport checksum of case {number}, {order:?}");
        }
    }
}

#[test]
fn pieces_that_wait_in_vain_are_counted_when_their_time_is_over() {
    let mut stage = Stage::new(settings());
    let datagram = craft::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 3000]);
    let pieces = craft::fragments(&datagram, 1000);
    for piece in &pieces[1..] {
        assert_eq!(stage.send(piece), None);
    }
    stage.wait(Span::seconds(16));
    assert_eq!(stage.counters().drops.of(DropReason::FragmentIncomplete), 3);
    assert_eq!(stage.sessions(), 0);
    stage.send(&pieces[0]).expect("a first piece passes on its own");
}

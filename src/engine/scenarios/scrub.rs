//! What a header reveals of the inside beside addresses and ports: IP identifications and recorded
//! routes.

use std::collections::HashSet;

use super::*;

fn identification(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

fn numbered(mut packet: Vec<u8>, number: u16, dont_fragment: bool) -> Vec<u8> {
    builder::set_dont_fragment(&mut packet, dont_fragment);
    builder::set_identification(&mut packet, number);
    packet
}

fn plain(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    packets.iter().map(|packet| (packet.clone(), Offload::default())).collect()
}

/// IPID-1.
#[test]
fn what_leaves_the_inside_gets_a_number_of_its_own_unless_it_is_atomic() {
    let mut stage = Stage::new(settings());
    let mut seen = HashSet::new();
    for round in 0..500u16 {
        for host in [S1, S2] {
            let out = stage.send(&numbered(udp((host, 5000), (E1, 53)), 7, false)).expect("passes");
            assert!(seen.insert(identification(&out)), "round {round}");
            assert!(!parsed(&out).dont_fragment());
            let atomic =
                stage.send(&numbered(udp((host, 5000), (E1, 53)), 7, true)).expect("passes");
            assert!(identification(&atomic) == 7 && parsed(&atomic).dont_fragment());
        }
    }
    // Hairpin changes the source too.
    let hairpin: HashSet<u16> = (0..50)
        .map(|_| stage.send(&numbered(udp((S2, 5000), (G, 8080)), 7, false)).expect("passes"))
        .map(|out| identification(&out))
        .collect();
    assert_eq!(hairpin.len(), 50);
    // A whole packet from outside is its sender's own.
    let inward = stage.send(&numbered(udp((E1, 4444), (G, 8080)), 7, false)).expect("passes");
    assert_eq!(identification(&inward), 7);
}

/// IPID-1, in the form in which it hurts: fragments of two hosts' datagrams with one number,
/// interleaved; and of two datagrams of one client to one server through two lines.
#[test]
fn pieces_of_datagrams_with_equal_numbers_never_mix() {
    let mut stage = Stage::new(two_uplinks());
    let pieces = |from, to, fill: u8| {
        let packet = builder::udp(tuple(Protocol::UDP, from, to), &[fill; 2500]);
        builder::fragments(&numbered(packet, 7, false), 1000)
    };
    for (one, other, receiver) in [
        (pieces((S1, 5000), (E1, 53), 1), pieces((S2, 5000), (E1, 53), 2), E1),
        (pieces((E1, 4444), (G, 8080), 1), pieces((E1, 4444), (G2, 8080), 2), S1),
    ] {
        // Each order of one against each of the other.
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
            let interleaved: Vec<_> = order
                .iter()
                .flat_map(|index| [one[*index].clone(), other[2 - *index].clone()])
                .collect();
            let out = stage.run(&plain(&interleaved));
            assert_eq!(out.len(), 6);
            let numbers: HashSet<u16> =
                out.iter().map(|(packet, _)| identification(packet)).collect();
            assert_eq!(numbers.len(), 2);
            for number in numbers {
                let fills: HashSet<u8> = out
                    .iter()
                    .filter(|(packet, _)| identification(packet) == number)
                    .map(|(packet, _)| *packet.last().expect("a payload"))
                    .collect();
                assert_eq!(fills.len(), 1, "the pieces under one number are of one datagram");
            }
            assert!(out.iter().all(|(packet, _)| parsed(packet).destination() == receiver));
        }
    }
}

#[test]
fn an_error_about_a_first_piece_shows_the_number_that_its_sender_gave_it() {
    let mut stage = Stage::new(settings());
    for (from, to, reporter, expected) in
        [((S2, 5000), (E1, 53), ROUTER, (S2, 5000)), ((E1, 4444), (G, 8080), S1, (E1, 4444))]
    {
        let packet = builder::udp(tuple(Protocol::UDP, from, to), &[7; 2500]);
        let pieces = builder::fragments(&numbered(packet, 77, false), 1000);
        let sent = stage.run(&plain(&pieces));
        assert_eq!(sent.len(), 3);
        assert_ne!(identification(&sent[0].0), 77);
        let error =
            builder::icmp_error(11, 1, reporter, parsed(&sent[0].0).source(), &sent[0].0[..100]);
        let out = stage.send(&error).expect("translated");
        assert_eq!(identification(&out[28..]), 77);
        let Payload::IcmpError(error) = parsed(&out).payload() else { panic!("an ICMP error") };
        assert_eq!((error.quoted.source.address, error.quoted.source.port), expected);
    }
}

#[test]
fn segments_of_a_super_packet_share_no_number_with_other_packets() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    let connection = tuple(Protocol::TCP, (S1, 80), (E1, 4444));
    let mut seen = HashSet::new();
    for round in 0..50 {
        let single = builder::tcp(connection, ACK, 501, 101, &[], b"single");
        assert!(seen.insert(identification(&stage.send(&single).expect("passes"))));
        let mut packet = builder::tcp(connection, ACK, 501, 101, &[], &[7; 60_000]);
        builder::make_partial(&mut packet);
        let segmentation =
            Some(Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_length: 40 });
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        let out = stage.run(&[(packet, Offload { checksum, segmentation, valid: false })]);
        let first = identification(&out[0].0);
        for segment in 0..42 {
            assert!(seen.insert(first + segment), "segment {segment} of round {round}");
        }
    }
}

/// OPT-1.
#[test]
fn recorded_private_addresses_stay_inside() {
    let mut stage = Stage::new(settings());
    let tun = Ipv4Addr::new(169, 254, 71, 1);
    let link_local = Ipv4Addr::new(169, 254, 71, 2);
    let option = |addresses: [Ipv4Addr; 5]| {
        let mut list = vec![1, 7, 23, 24];
        list.extend(addresses.iter().flat_map(|address| address.octets()));
        list
    };
    let with = |packet: Vec<u8>, addresses| builder::with_ip_options(&packet, &option(addresses));
    let recorded = [S2, BOX, tun, link_local, ROUTER];
    let concealed = [G, G, G, G, ROUTER];

    for dont_fragment in [false, true] {
        let sent = numbered(with(udp((S2, 5000), (E1, 53)), recorded), 7, dont_fragment);
        let out = stage.send(&sent).expect("passes");
        assert_eq!(out[20..44], option(concealed));
        assert_eq!(out[48..], builder::udp(parsed(&out).tuple().expect("udp"), b"payload")[24..]);
    }
    // Inwards they stay: nothing there is to be hidden from the inside.
    let arrived = stage.send(&with(udp((E1, 4444), (G, 8080)), recorded)).expect("passes");
    assert_eq!(arrived[20..44], option(recorded));
    // The server quotes what has arrived.
    let out = stage.send(&builder::icmp_error(3, 3, S1, E1, &arrived)).expect("translated");
    assert_eq!(out[28 + 20..28 + 44], option(concealed));
    // Pieces have the option each, as these copy it.
    let datagram = builder::udp(tuple(Protocol::UDP, (S2, 5000), (E1, 53)), &[1; 2500]);
    let pieces = builder::fragments(&with(datagram, recorded), 1000);
    let out = stage.run(&plain(&[pieces[1].clone(), pieces[0].clone(), pieces[2].clone()]));
    assert_eq!(out.len(), 3);
    for (piece, _) in out {
        assert_eq!(piece[20..44], option(concealed));
    }
}

/// OPT-1: with 40 bytes as well.
#[test]
fn other_options_pass_as_they_are_both_ways() {
    let mut stage = Stage::new(settings());
    for list in [
        &[1, 1, 1, 1][..],
        &[0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[130, 4, 10, 0],
        &[1; 40],
        &[
            130, 40, 10, 0, 0, 101, 10, 0, 0, 101, 10, 0, 0, 101, 10, 0, 0, 101, 10, 0, 0, 101, 10,
            0, 0, 101, 10, 0, 0, 101, 10, 0, 0, 101, 10, 0, 0, 101, 1, 1,
        ],
    ] {
        for packet in [udp((S2, 5000), (E1, 53)), udp((E1, 4444), (G, 8080))] {
            let out = stage.send(&builder::with_ip_options(&packet, list)).expect("passes");
            assert_eq!(out[20..20 + list.len()], *list);
        }
    }
    for list in [&[131, 7, 4, 10, 0, 0, 1][..], &[137, 7, 4, 10, 0, 0, 1]] {
        let packet = builder::with_ip_options(&udp((S2, 5000), (E1, 53)), list);
        assert_eq!(stage.refuse(&packet), DropReason::SourceRoute);
    }
    for list in [&[7, 0, 4, 0][..], &[7, 39, 4, 0]] {
        let packet = builder::with_ip_options(&udp((S2, 5000), (E1, 53)), list);
        assert_eq!(stage.refuse(&packet), DropReason::BadIpHeader);
    }
}

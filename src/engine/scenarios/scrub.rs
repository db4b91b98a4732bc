//! Scrubbing: IP identifications and recorded routes reveal nothing of the inside after
//! translation.

use std::collections::HashSet;

use super::*;

/// Returns the IP identification of a packet.
fn identification(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

/// Returns the packet with the given IP identification and DF bit.
fn with_identification(mut packet: Vec<u8>, value: u16, dont_fragment: bool) -> Vec<u8> {
    builder::set_dont_fragment(&mut packet, dont_fragment);
    builder::set_identification(&mut packet, value);
    packet
}

/// IPID-1.
#[test]
fn outbound_packets_get_unique_ip_identifications_unless_they_are_atomic() {
    let mut harness = Harness::new(settings());
    let mut seen = HashSet::new();
    for round in 0..500u16 {
        for host in [S1, S2] {
            let out = harness
                .send(&with_identification(udp((host, 5000), (E1, 53)), 7, false))
                .expect("passes");
            assert!(seen.insert(identification(&out)), "round {round}");
            assert!(!parsed(&out).dont_fragment());
            let atomic = harness
                .send(&with_identification(udp((host, 5000), (E1, 53)), 7, true))
                .expect("passes");
            assert!(identification(&atomic) == 7 && parsed(&atomic).dont_fragment());
        }
    }
    // Hairpin packets get new identifications: translation changes their source.
    let hairpin: HashSet<u16> = (0..50)
        .map(|_| {
            harness
                .send(&with_identification(udp((S2, 5000), (G, 8080)), 7, false))
                .expect("passes")
        })
        .map(|out| identification(&out))
        .collect();
    assert_eq!(hairpin.len(), 50);
    // An unfragmented packet from outside keeps the identification of its sender.
    let inbound =
        harness.send(&with_identification(udp((E1, 4444), (G, 8080)), 7, false)).expect("passes");
    assert_eq!(identification(&inbound), 7);
}

/// IPID-1, where equal identifications would corrupt data. The first case interleaves fragments of
/// the datagrams of two hosts. The second case interleaves fragments of two datagrams of one client
/// to one server over two uplinks.
#[test]
fn interleaved_fragments_of_two_datagrams_with_one_identification_get_two_identifications() {
    let mut harness = Harness::new(two_uplinks());
    let fragments = |from, to, fill: u8| {
        let packet = builder::udp(tuple(Protocol::UDP, from, to), &[fill; 2500]);
        builder::fragments(&with_identification(packet, 7, false), 1000)
    };
    for (first, second, receiver) in [
        (fragments((S1, 5000), (E1, 53), 1), fragments((S2, 5000), (E1, 53), 2), E1),
        (fragments((E1, 4444), (G, 8080), 1), fragments((E1, 4444), (G2, 8080), 2), S1),
    ] {
        // Each order of the first datagram with each order of the second.
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
            let interleaved: Vec<_> = order
                .iter()
                .flat_map(|index| [first[*index].clone(), second[2 - *index].clone()])
                .collect();
            let out = harness.run(&frames(&interleaved));
            assert_eq!(out.len(), 6);
            let identifications: HashSet<u16> =
                out.iter().map(|(packet, _)| identification(packet)).collect();
            assert_eq!(identifications.len(), 2);
            for expected in identifications {
                let fills: HashSet<u8> = out
                    .iter()
                    .filter(|(packet, _)| identification(packet) == expected)
                    .map(|(packet, _)| *packet.last().expect("a payload"))
                    .collect();
                assert_eq!(
                    fills.len(),
                    1,
                    "all fragments with one identification are of one datagram"
                );
            }
            assert!(out.iter().all(|(packet, _)| parsed(packet).destination() == receiver));
        }
    }
}

#[test]
fn an_icmp_error_about_a_first_fragment_quotes_the_original_ip_identification() {
    let mut harness = Harness::new(settings());
    for (from, to, reporter, expected) in
        [((S2, 5000), (E1, 53), ROUTER, (S2, 5000)), ((E1, 4444), (G, 8080), S1, (E1, 4444))]
    {
        let packet = builder::udp(tuple(Protocol::UDP, from, to), &[7; 2500]);
        let fragments = builder::fragments(&with_identification(packet, 77, false), 1000);
        let sent = harness.run(&frames(&fragments));
        assert_eq!(sent.len(), 3);
        assert_ne!(identification(&sent[0].0), 77);
        let error =
            builder::icmp_error(11, 1, reporter, parsed(&sent[0].0).source(), &sent[0].0[..100]);
        let out = harness.send(&error).expect("translated");
        assert_eq!(identification(&out[28..]), 77);
        let Payload::IcmpError(error) = parsed(&out).payload() else { panic!("an ICMP error") };
        assert_eq!((error.quoted.source.address, error.quoted.source.port), expected);
    }
}

#[test]
fn segments_of_a_tso_packet_share_no_ip_identification_with_other_packets() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let connection = tuple(Protocol::TCP, (S1, 80), (E1, 4444));
    let mut seen = HashSet::new();
    for round in 0..50 {
        let single = builder::tcp(connection, ACK, 501, 101, &[], b"single");
        assert!(seen.insert(identification(&harness.send(&single).expect("passes"))));
        let mut packet = builder::tcp(connection, ACK, 501, 101, &[], &[7; 60_000]);
        builder::make_partial(&mut packet);
        let segmentation =
            Some(Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_length: 40 });
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        let out = harness.run(&[(packet, Offload { checksum, segmentation, valid: false })]);
        let first = identification(&out[0].0);
        for segment in 0..42 {
            assert!(seen.insert(first + segment), "segment {segment} of round {round}");
        }
    }
}

/// OPT-1.
#[test]
fn recorded_routes_of_outbound_packets_show_the_external_address_for_private_ones() {
    let mut harness = Harness::new(settings());
    let tun = Ipv4Addr::new(169, 254, 71, 1);
    let link_local = Ipv4Addr::new(169, 254, 71, 2);
    let option = |addresses: [Ipv4Addr; 5]| {
        let mut list = vec![1, 7, 23, 24];
        list.extend(addresses.iter().flat_map(|address| address.octets()));
        list
    };
    let with_option =
        |packet: Vec<u8>, addresses| builder::with_ip_options(&packet, &option(addresses));
    let recorded = [S2, BOX, tun, link_local, ROUTER];
    let scrubbed = [G, G, G, G, ROUTER];

    for dont_fragment in [false, true] {
        let sent =
            with_identification(with_option(udp((S2, 5000), (E1, 53)), recorded), 7, dont_fragment);
        let out = harness.send(&sent).expect("passes");
        assert_eq!(out[20..44], option(scrubbed));
        assert_eq!(out[48..], builder::udp(parsed(&out).tuple().expect("udp"), b"payload")[24..]);
    }
    // Packets to the inside keep the recorded addresses.
    let arrived = harness.send(&with_option(udp((E1, 4444), (G, 8080)), recorded)).expect("passes");
    assert_eq!(arrived[20..44], option(recorded));
    // The server quotes the packet as it arrived.
    let out = harness.send(&builder::icmp_error(3, 3, S1, E1, &arrived)).expect("translated");
    assert_eq!(out[28 + 20..28 + 44], option(scrubbed));
    // The builder copies the option into each fragment.
    let datagram = builder::udp(tuple(Protocol::UDP, (S2, 5000), (E1, 53)), &[1; 2500]);
    let fragments = builder::fragments(&with_option(datagram, recorded), 1000);
    let out =
        harness.run(&frames(&[fragments[1].clone(), fragments[0].clone(), fragments[2].clone()]));
    assert_eq!(out.len(), 3);
    for (fragment, _) in out {
        assert_eq!(fragment[20..44], option(scrubbed));
    }
}

/// OPT-1, with options of up to 40 bytes.
#[test]
fn options_without_recorded_addresses_pass_unchanged_and_source_routes_are_dropped() {
    let mut harness = Harness::new(settings());
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
            let out = harness.send(&builder::with_ip_options(&packet, list)).expect("passes");
            assert_eq!(out[20..20 + list.len()], *list);
        }
    }
    for list in [&[131, 7, 4, 10, 0, 0, 1][..], &[137, 7, 4, 10, 0, 0, 1]] {
        let packet = builder::with_ip_options(&udp((S2, 5000), (E1, 53)), list);
        assert_eq!(harness.drop_reason(&packet), DropReason::SourceRoute);
    }
    for list in [&[7, 0, 4, 0][..], &[7, 39, 4, 0]] {
        let packet = builder::with_ip_options(&udp((S2, 5000), (E1, 53)), list);
        assert_eq!(harness.drop_reason(&packet), DropReason::BadIpHeader);
    }
}

//! ICMP errors, packets larger than the next MTU, and translation of other fields: MSS and TTL.

use super::*;

#[test]
fn an_icmp_error_from_outside_quotes_the_packet_as_the_inside_host_sent_it() {
    let mut harness = Harness::new(settings());
    let sent = udp((S2, 5000), (E1, 53));
    let on_the_wire = harness.send(&sent).expect("translated");
    for (kind, code) in [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)] {
        let error = builder::icmp_error(kind, code, ROUTER, G, &on_the_wire);
        let out = harness.send(&error).expect("translated");
        let parsed = parsed(&out);
        assert_eq!((parsed.source(), parsed.destination()), (ROUTER, S2));
        let Payload::IcmpError(error) = parsed.payload() else { panic!("an ICMP error") };
        assert_eq!((error.kind, error.code), (kind, code));
        assert_eq!(error.quoted, tuple(Protocol::UDP, (S2, 5000), (E1, 53)));
        assert_eq!(
            out[28 + 20..],
            sent[20..],
            "the quoted transport bytes equal those that the sender sent, with the checksum"
        );
    }
    let without_session = builder::icmp_error(3, 3, ROUTER, G, &udp((G, 1), (E1, 53)));
    assert_eq!(harness.drop_reason(&without_session), DropReason::IcmpErrorNoSession);
    let mut crossed = Harness::new(two_uplinks());
    let on_the_wire = crossed.send(&sent).expect("translated");
    let mismatched = builder::icmp_error(3, 3, ROUTER, G2, &on_the_wire);
    assert_eq!(crossed.drop_reason(&mismatched), DropReason::IcmpErrorMismatch);
}

#[test]
fn an_icmp_error_from_inside_has_the_published_address_and_quotes_the_packet_of_the_client() {
    for full in [false, true] {
        let mut settings = settings();
        settings.limits.sessions = if full { 1 } else { 1000 };
        let mut harness = Harness::new(settings);
        harness.pass(&udp((S2, 1), (E2, 2)));
        let sent = udp((E1, 4444), (G, 8080));
        let arrived = harness.send(&sent).expect("translated");
        // Reported by the server, by a router before the server, and by the kernel of the box.
        let (router, host) = (Ipv4Addr::new(10, 0, 0, 254), Ipv4Addr::new(169, 254, 71, 1));
        for (reporter, code) in [(S1, 3), (router, 1), (host, 1)] {
            let out = harness
                .send(&builder::icmp_error(3, code, reporter, E1, &arrived))
                .expect("translated");
            let parsed = parsed(&out);
            assert_eq!((parsed.source(), parsed.destination()), (G, E1));
            let Payload::IcmpError(error) = parsed.payload() else { panic!("an ICMP error") };
            assert_eq!(error.quoted, tuple(Protocol::UDP, (E1, 4444), (G, 8080)));
        }
        // Only the server itself can report a closed port.
        let spoofed = builder::icmp_error(3, 3, router, E1, &arrived);
        assert_eq!(harness.drop_reason(&spoofed), DropReason::IcmpErrorMismatch);
        assert_eq!(harness.counters().forwarded_stateless, u64::from(full));
    }
}

#[test]
fn icmp_errors_of_the_kernel_about_outbound_packets_reach_the_inside_host() {
    let mut harness = Harness::new(settings());
    let sent = udp((S2, 5000), (E1, 53));
    let on_the_wire = harness.send(&sent).expect("translated");
    let out = harness
        .send(&builder::icmp_error(3, 1, Ipv4Addr::new(169, 254, 71, 1), G, &on_the_wire))
        .expect("translated");
    assert_eq!((parsed(&out).source(), parsed(&out).destination()), (BOX, S2));
}

#[test]
fn icmp_errors_about_hairpin_packets_are_translated() {
    let mut harness = Harness::new(settings());
    let arrived = harness.send(&udp((S2, 5000), (G, 8080))).expect("translated");
    let external = parsed(&arrived).tuple().expect("udp").source;
    let out = harness
        .send(&builder::icmp_error(3, 3, S1, external.address, &arrived))
        .expect("translated");
    assert_eq!((parsed(&out).source(), parsed(&out).destination()), (G, S2));
    let Payload::IcmpError(error) = parsed(&out).payload() else { panic!("an ICMP error") };
    assert_eq!(error.quoted, tuple(Protocol::UDP, (S2, 5000), (G, 8080)));
}

#[test]
fn icmp_errors_neither_refresh_nor_end_a_session() {
    let mut harness = Harness::new(settings());
    let on_the_wire = harness.send(&udp((S2, 5000), (E1, 5353))).expect("translated");
    for _ in 0..29 {
        harness.wait(Span::seconds(10));
        harness.send(&builder::icmp_error(3, 3, E1, G, &on_the_wire)).expect("translated");
        assert_eq!(harness.sessions(), 1);
    }
    harness.wait(Span::seconds(11));
    assert_eq!(harness.sessions(), 0);
}

#[test]
fn a_packet_larger_than_the_next_mtu_gets_an_icmp_error_that_quotes_it_untranslated() {
    let mut settings = settings();
    settings.policy.uplinks[0].mtu = 1400;
    settings.policy.legs[0].mtu = 1300;
    let mut harness = Harness::new(settings);
    let big = |protocol_tuple: Tuple| {
        let mut packet = builder::udp(protocol_tuple, &[0; 1400]);
        builder::set_dont_fragment(&mut packet, true);
        packet
    };
    for (packet, receiver, source, mtu) in [
        (big(tuple(Protocol::UDP, (S2, 5000), (E1, 53))), S2, BOX, 1400u16),
        (big(tuple(Protocol::UDP, (E1, 4444), (G, 8080))), E1, G, 1300),
    ] {
        let out = harness.send(&packet).expect("an ICMP error");
        assert_eq!((parsed(&out).source(), parsed(&out).destination()), (source, receiver));
        let Payload::IcmpError(error) = parsed(&out).payload() else { panic!("an ICMP error") };
        assert_eq!((error.kind, error.code), (3, 4));
        assert_eq!(Some(error.quoted), parsed(&packet).tuple());
        assert_eq!(u16::from_be_bytes([out[26], out[27]]), mtu);
    }
    assert_eq!(harness.counters().drops.of(DropReason::MtuExceeded), 2);
    let small = builder::udp(tuple(Protocol::UDP, (S2, 5000), (E1, 53)), &[0; 1372]);
    harness.pass(&small);
    let fragmentable = builder::udp(tuple(Protocol::UDP, (S2, 5000), (E1, 53)), &[0; 1400]);
    harness.pass(&fragmentable);
}

#[test]
fn a_tso_packet_passes_whole_and_its_segment_size_is_checked_against_the_mtu() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let tso_packet = |size: u16| {
        let connection = tuple(Protocol::TCP, (S1, 80), (E1, 4444));
        let mut packet = builder::tcp(connection, ACK, 501, 101, &[], &[7; 60_000]);
        builder::set_dont_fragment(&mut packet, true);
        builder::make_partial(&mut packet);
        let segmentation =
            Some(Segmentation { kind: SegmentationKind::Tcp4, size, header_length: 40 });
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        (packet, Offload { checksum, segmentation, valid: false })
    };
    let (packet, offload) = tso_packet(1460);
    let out = harness.run(&[(packet.clone(), offload)]);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].1, offload);
    assert_eq!(out[0].0.len(), packet.len());
    let out = harness.run(&[tso_packet(1461)]);
    let Payload::IcmpError(error) = parsed(&out[0].0).payload() else { panic!("an ICMP error") };
    assert_eq!((error.kind, error.code, parsed(&out[0].0).destination()), (3, 4, S1));
    assert_eq!(out[0].1, Offload::default());
}

#[test]
fn the_mss_is_clamped_to_the_smaller_mtu_in_both_directions() {
    let mut settings = settings();
    settings.policy.uplinks[0].mtu = 1400;
    let mut harness = Harness::new(settings);
    let with_mss = |flags, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), mss: u16| {
        let [high, low] = mss.to_be_bytes();
        builder::tcp(tuple(Protocol::TCP, from, to), flags, 1, 0, &[2, 4, high, low], b"")
    };
    let mss = |packet: Vec<u8>| u16::from_be_bytes([packet[42], packet[43]]);
    assert_eq!(mss(harness.send(&with_mss(SYN, (E1, 4), (G, 8080), 1460)).expect("passes")), 1360);
    assert_eq!(
        mss(harness.send(&with_mss(SYN_ACK, (S1, 80), (E1, 4), 1460)).expect("passes")),
        1360
    );
    assert_eq!(
        mss(harness.send(&with_mss(SYN_ACK, (S1, 80), (E1, 4), 1200)).expect("passes")),
        1200
    );
}

#[test]
fn translation_increments_the_ttl_so_that_the_box_counts_as_one_hop() {
    let mut harness = Harness::new(settings());
    for ttl in [1, 63, 254] {
        let mut packet = udp((E1, 4444), (G, 8080));
        builder::set_ttl(&mut packet, ttl);
        assert_eq!(parsed(&harness.send(&packet).expect("passes")).ttl(), ttl + 1);
    }
}

/// A server reported on a packet that it had invented, from the box's own address. The error left
/// for that address, and came back.
#[test]
fn an_error_about_an_invented_packet_of_the_box_itself_is_dropped() {
    let mut harness = Harness::new(settings());
    let invented = udp((G, 5000), (S1, 80));
    let error = builder::icmp_error(3, 3, S1, G, &invented);
    assert_eq!(harness.drop_reason(&error), DropReason::IcmpErrorNoSession);
}

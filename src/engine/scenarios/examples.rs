//! Examples of dropped packets. [`Harness::run`] checks in every scenario that each example is a
//! packet that arrived.

use super::*;
use crate::engine::observe::MAX_EXAMPLES;
use crate::packet::PacketHead;

fn numbers(harness: &Harness, reason: DropReason) -> Vec<u64> {
    harness.examples(reason).iter().map(|example| example.number).collect()
}

fn heads(harness: &Harness, reason: DropReason) -> Vec<PacketHead> {
    harness.examples(reason).iter().map(|example| example.head).collect()
}

#[test]
fn the_last_dropped_packets_are_kept_in_order_by_reason() {
    let mut harness = Harness::new(settings());
    let mut packets = Vec::new();
    for port in 1..=40 {
        let packet = udp((E1, port), (G, 81));
        assert_eq!(harness.drop_reason(&packet), DropReason::NoMapping);
        packets.push(PacketHead::of(&packet));
        let kept = packets.len().saturating_sub(MAX_EXAMPLES);
        assert_eq!(heads(&harness, DropReason::NoMapping), packets[kept..]);
        harness.wait(Span(10));
    }
    let malformed = vec![0x45; 19];
    assert_eq!(harness.drop_reason(&malformed), DropReason::NotIpv4);
    assert_eq!(heads(&harness, DropReason::NotIpv4), [PacketHead::of(&malformed)]);
    assert_eq!(heads(&harness, DropReason::NoMapping), packets[24..]);
    assert!(harness.send(&udp((S1, 5), (E1, 53))).is_some());
    assert_eq!(harness.examples(DropReason::NoMapping).len(), MAX_EXAMPLES);
}

#[test]
fn a_flood_keeps_the_first_packets_of_each_window_and_gaps_show_by_their_numbers() {
    let mut harness = Harness::new(settings());
    let flood: Vec<_> = (1..=1000).map(|port| udp((E1, port), (G, 81))).collect();
    harness.run(&frames(&flood));
    assert_eq!(numbers(&harness, DropReason::NoMapping), (1..=16).collect::<Vec<_>>());
    harness.wait(Span(100));
    harness.run(&frames(&flood[..3]));
    let expected: Vec<u64> = (4..=16).chain(1001..=1003).collect();
    assert_eq!(numbers(&harness, DropReason::NoMapping), expected);
}

/// The packet is replaced by an ICMP error in its own buffer.
#[test]
fn a_packet_that_is_answered_is_kept_as_it_arrived() {
    let setup = settings().with(|setup| setup.policy.outbound.clear());
    let mut harness = Harness::new(setup.with(|setup| setup.policy.reject_with = Some(13)));
    let packet = udp((S2, 9), (E1, 53));
    let error = harness.send(&packet).expect("an ICMP error");
    assert_eq!(parsed(&error).protocol(), Protocol::ICMP);
    assert_eq!(heads(&harness, DropReason::NoOutboundRule), [PacketHead::of(&packet)]);
}

#[test]
fn fragments_that_wait_in_vain_are_kept() {
    let mut harness = Harness::new(settings());
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 2500]);
    let fragments = builder::fragments(&datagram, 1000);
    harness.run(&frames(&fragments[1..]));
    harness.wait(Span::seconds(60));
    harness.wait(Span::seconds(60));
    let lost: Vec<_> = fragments[1..].iter().map(|packet| PacketHead::of(packet)).collect();
    assert_eq!(heads(&harness, DropReason::FragmentTimeout), lost);
}

#[test]
fn packets_with_a_bad_offload_header_are_kept() {
    let mut harness = Harness::new(settings());
    let checksum = Some(PartialChecksum { start: 20, offset: 6 });
    let packet = vec![7; 27];
    harness.run(&[(packet.clone(), Offload { checksum, ..Offload::default() })]);
    harness.wait(Span(1));
    assert_eq!(heads(&harness, DropReason::BadVnetHeader), [PacketHead::of(&packet)]);
}

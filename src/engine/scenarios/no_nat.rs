//! Packets that bypass translation because a `no_nat` rule matches.

use super::*;
use crate::nat::{NoNatRule, PortRange};

/// Returns a setup with two `no_nat` rules: for UDP to port 53 of E1, and for all packets to
/// 198.18.0.0/15.
fn settings_with_no_nat() -> Setup {
    let no_nat_rule = |to: &str, protocol, ports| NoNatRule {
        to: to.parse().expect("a prefix"),
        protocol,
        ports,
    };
    settings().with(|setup| {
        setup.policy.no_nat = vec![
            no_nat_rule("192.0.2.1/32", ForwardProtocol::Udp, PortRange::single(53)),
            no_nat_rule("198.18.0.0/15", ForwardProtocol::Any, PortRange::ALL),
        ];
    })
}

/// An address of the second `no_nat` rule.
const BYPASSED: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);

#[test]
fn packets_to_and_from_a_no_nat_destination_change_only_in_their_ttl() {
    let mut harness = Harness::new(settings_with_no_nat());
    let echo = |from, to, kind| builder::echo(from, to, kind, 7, 1, b"ping");
    let gre = |from, to| builder::other(Protocol(47), from, to, b"gre");
    let packets = [
        udp((S2, 5000), (E1, 53)),
        udp((E1, 53), (S2, 5000)),
        // Bypassed packets need no session: a midstream segment, and an echo reply without a
        // request.
        tcp(ACK, (S2, 5000), (BYPASSED, 80), 1, 2),
        tcp(SYN, (BYPASSED, 5000), (S1, 80), 1, 0),
        echo(BYPASSED, S2, QueryKind::EchoReply),
        gre(S2, BYPASSED),
        gre(BYPASSED, S2),
    ];
    for mut packet in packets.clone() {
        let out = harness.send(&packet).expect("passes");
        builder::set_ttl(&mut packet, 65);
        assert_eq!(out, packet);
    }
    assert_eq!(harness.counters().bypassed, packets.len() as u64);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
}

#[test]
fn packets_that_no_no_nat_rule_matches_are_translated_or_dropped() {
    let mut harness = Harness::new(settings_with_no_nat());
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 54))).source.address, G);
    assert_eq!(harness.pass(&tcp(SYN, (S2, 5000), (E1, 53), 1, 0)).source.address, G);
    assert_eq!(harness.drop_reason(&udp((E1, 54), (S2, 5000))), DropReason::SourceNotAllowed);
    assert_eq!(harness.drop_reason(&udp((E2, 53), (S2, 5000))), DropReason::SourceNotAllowed);
    assert_eq!(harness.drop_reason(&udp((E1, 53), (E2, 5000))), DropReason::SourceNotAllowed);
    // Clients that a `no_nat` rule covers reach a published address. The replies are translated.
    assert_eq!(harness.pass(&udp((BYPASSED, 4444), (G, 8080))).destination.address, S1);
    assert_eq!(harness.pass(&udp((S1, 80), (BYPASSED, 4444))).source.address, G);
    assert_eq!(harness.counters().bypassed, 0);
}

#[test]
fn a_no_nat_rule_for_every_destination_passes_no_spoofed_inside_source() {
    let mut rule_for_all = settings_with_no_nat();
    rule_for_all.policy.no_nat[1].to = "0.0.0.0/0".parse().expect("a prefix");
    let mut harness = Harness::new(rule_for_all);
    harness.send(&udp((S2, 5000), (E2, 1))).expect("passes");
    let spoofed = harness.pass(&udp((S2, 5000), (G, 8080)));
    assert_eq!(
        (spoofed.source.address, spoofed.destination.address),
        (G, S1),
        "a hairpin packet is translated"
    );
    let out = harness.send(&udp((S2, 5000), (S1, 80)));
    assert!(
        out.is_none_or(|packet| parsed(&packet).source() != S2),
        "an inside source is not allowed without translation"
    );
}

#[test]
fn fragments_to_and_from_a_no_nat_destination_keep_their_addresses_and_identification() {
    let mut harness = Harness::new(settings_with_no_nat());
    for (from, to) in [((S2, 5000), (E1, 53)), ((E1, 53), (S2, 5000))] {
        let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[7; 2500]);
        builder::set_identification(&mut packet, 77);
        let fragments = builder::fragments(&packet, 1000);
        let out =
            harness.run(&[2, 0, 1].map(|index| (fragments[index].clone(), Offload::default())));
        for (out, index) in out.iter().zip([0, 2, 1]) {
            let mut expected = fragments[index].clone();
            builder::set_ttl(&mut expected, 65);
            assert_eq!(out.0, expected);
        }
    }
    assert_eq!(harness.counters().bypassed, 6);
}

#[test]
fn icmp_errors_about_bypassed_packets_pass_without_the_tun_address_as_source() {
    let mut harness = Harness::new(settings_with_no_nat());
    let tun = Ipv4Addr::new(169, 254, 71, 1);
    let (out, back) = (udp((S2, 5000), (E1, 53)), udp((E1, 53), (S2, 5000)));
    for (reporter, quoted, receiver, appears_as) in [
        (ROUTER, &out, S2, ROUTER),
        (tun, &out, S2, BOX),
        (S2, &back, E1, S2),
        (tun, &back, E1, S2),
    ] {
        let error =
            harness.send(&builder::icmp_error(3, 4, reporter, receiver, quoted)).expect("passes");
        assert_eq!((parsed(&error).source(), parsed(&error).destination()), (appears_as, receiver));
        assert_eq!(error[28..], quoted[..]);
    }
    let to_another_host = builder::icmp_error(3, 4, ROUTER, S1, &out);
    assert_eq!(harness.drop_reason(&to_another_host), DropReason::IcmpErrorNoSession);
}

//! Destinations that are reached without translation.

use super::*;
use crate::nat::{NoNatRule, PortRange};

/// UDP to port 53 of E1 is not translated, and nothing to 198.18.0.0/15 is.
fn settings_with_exemptions() -> Setup {
    let exemption = |to: &str, protocol, ports| NoNatRule {
        to: to.parse().expect("a prefix"),
        protocol,
        ports,
    };
    settings().with(|setup| {
        setup.policy.no_nat = vec![
            exemption("192.0.2.1/32", ForwardProtocol::Udp, PortRange::single(53)),
            exemption("198.18.0.0/15", ForwardProtocol::Any, PortRange::ALL),
        ];
    })
}

const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);

#[test]
fn packets_to_and_from_exempt_destinations_pass_as_they_are_but_for_the_ttl() {
    let mut stage = Stage::new(settings_with_exemptions());
    let echo = |from, to, kind| builder::echo(from, to, kind, 7, 1, b"ping");
    let gre = |from, to| builder::other(Protocol(47), from, to, b"gre");
    let packets = [
        udp((S2, 5000), (E1, 53)),
        udp((E1, 53), (S2, 5000)),
        // In the middle of a connection, and an answer nobody asked for here: there are no
        // sessions.
        tcp(ACK, (S2, 5000), (FAR, 80), 1, 2),
        tcp(SYN, (FAR, 5000), (S1, 80), 1, 0),
        echo(FAR, S2, QueryKind::EchoReply),
        gre(S2, FAR),
        gre(FAR, S2),
    ];
    for mut packet in packets.clone() {
        let out = stage.send(&packet).expect("passes");
        builder::set_ttl(&mut packet, 65);
        assert_eq!(out, packet);
    }
    assert_eq!(stage.counters().bypassed, packets.len() as u64);
    assert_eq!((stage.sessions(), stage.nat.mappings()), (0, 0));
}

#[test]
fn everything_else_is_translated_or_refused_as_ever() {
    let mut stage = Stage::new(settings_with_exemptions());
    assert_eq!(stage.pass(&udp((S2, 5000), (E1, 54))).source.address, G);
    assert_eq!(stage.pass(&tcp(SYN, (S2, 5000), (E1, 53), 1, 0)).source.address, G);
    assert_eq!(stage.refuse(&udp((E1, 54), (S2, 5000))), DropReason::SourceNotAllowed);
    assert_eq!(stage.refuse(&udp((E2, 53), (S2, 5000))), DropReason::SourceNotAllowed);
    assert_eq!(stage.refuse(&udp((E1, 53), (E2, 5000))), DropReason::SourceNotAllowed);
    // A published address is one for exempt clients, too, and is what answers them.
    assert_eq!(stage.pass(&udp((FAR, 4444), (G, 8080))).destination.address, S1);
    assert_eq!(stage.pass(&udp((S1, 80), (FAR, 4444))).source.address, G);
    assert_eq!(stage.counters().bypassed, 0);
}

#[test]
fn an_exemption_of_everything_opens_no_way_for_spoofed_inside_sources() {
    let mut all = settings_with_exemptions();
    all.policy.no_nat[1].to = "0.0.0.0/0".parse().expect("a prefix");
    let mut stage = Stage::new(all);
    stage.send(&udp((S2, 5000), (E2, 1))).expect("passes");
    let spoofed = stage.pass(&udp((S2, 5000), (G, 8080)));
    assert_eq!((spoofed.source.address, spoofed.destination.address), (G, S1), "hairpin as ever");
    let out = stage.send(&udp((S2, 5000), (S1, 80)));
    assert!(
        out.is_none_or(|packet| parsed(&packet).source() != S2),
        "as from outside with an inside source"
    );
}

#[test]
fn pieces_follow_their_first_one_untranslated_with_their_own_number() {
    let mut stage = Stage::new(settings_with_exemptions());
    for (from, to) in [((S2, 5000), (E1, 53)), ((E1, 53), (S2, 5000))] {
        let mut packet = builder::udp(tuple(Protocol::UDP, from, to), &[7; 2500]);
        builder::set_identification(&mut packet, 77);
        let pieces = builder::fragments(&packet, 1000);
        let out = stage.run(&[2, 0, 1].map(|index| (pieces[index].clone(), Offload::default())));
        for (out, index) in out.iter().zip([0, 2, 1]) {
            let mut expected = pieces[index].clone();
            builder::set_ttl(&mut expected, 65);
            assert_eq!(out.0, expected);
        }
    }
    assert_eq!(stage.counters().bypassed, 6);
}

#[test]
fn errors_about_exempt_packets_pass_and_show_no_address_of_the_tun() {
    let mut stage = Stage::new(settings_with_exemptions());
    let tun = Ipv4Addr::new(169, 254, 71, 1);
    let (out, back) = (udp((S2, 5000), (E1, 53)), udp((E1, 53), (S2, 5000)));
    for (reporter, quoted, receiver, appears_as) in [
        (ROUTER, &out, S2, ROUTER),
        (tun, &out, S2, BOX),
        (S2, &back, E1, S2),
        (tun, &back, E1, S2),
    ] {
        let error =
            stage.send(&builder::icmp_error(3, 4, reporter, receiver, quoted)).expect("passes");
        assert_eq!((parsed(&error).source(), parsed(&error).destination()), (appears_as, receiver));
        assert_eq!(error[28..], quoted[..]);
    }
    let crossed = builder::icmp_error(3, 4, ROUTER, S1, &out);
    assert_eq!(stage.refuse(&crossed), DropReason::IcmpErrorNoSession);
}

//! Sessions that a published server opens to a client of its own: TFTP from a new port, active FTP,
//! GRE after a control connection. They use the uplink and the address of the client's request.

use std::ops::RangeInclusive;

use crate::nat::{AdmitNew, ExternalAddress};

use super::uplinks::{recovered, sweep, two_outbound_uplinks};
use super::*;

/// Client ports, each with a request; as many requests on each uplink.
const CLIENT_PORTS: RangeInclusive<u16> = 40_000..=40_019;
/// An IP protocol without ports.
const GRE: Protocol = Protocol(47);

/// The published address that the client behind a port uses.
fn published(port: u16) -> Ipv4Addr {
    if port.is_multiple_of(2) { G } else { G2 }
}

/// Sends a request from a port of E1 to an address. Returns the client's endpoint as S1 sees it.
fn request(harness: &mut Harness, port: u16, to: Ipv4Addr) -> (Ipv4Addr, u16) {
    let seen = harness.pass(&udp((E1, port), (to, 8080)));
    assert_eq!((seen.destination.address, seen.destination.port), (S1, 80));
    (seen.source.address, seen.source.port)
}

#[test]
fn answers_from_a_new_port_use_the_uplink_of_their_request() {
    let mut harness = Harness::new(two_outbound_uplinks());
    for port in CLIENT_PORTS {
        request(&mut harness, port, published(port));
    }
    for port in CLIENT_PORTS {
        let answer = harness.pass(&udp((S1, 5000 + port % 100), (E1, port)));
        assert_eq!(answer.source.address, published(port), "port {port}");
        let (address, mapped) = (answer.source.address, answer.source.port);
        let back = harness.pass(&udp((E1, port), (address, mapped)));
        assert_eq!((back.destination.address, back.destination.port), (S1, 5000 + port % 100));
    }
}

#[test]
fn sessions_of_other_protocols_use_the_uplink_of_the_latest_request() {
    for to in [G, G2] {
        let setup = two_outbound_uplinks();
        let setup = setup.with(|setup| {
            // The forward of ping would decide about S1's own pings.
            setup.policy.forwards.retain(|forward| forward.protocol != ForwardProtocol::Icmp);
        });
        let mut harness = Harness::new(setup);
        harness.pass(&tcp(SYN, (E1, 4444), (to, 8080), 100, 0));
        for port in 20..40 {
            let data = harness.pass(&tcp(SYN, (S1, port), (E1, 5000 + port), 9, 0));
            assert_eq!(data.source.address, to, "active FTP from port {port}");
        }
        let gre = builder::other(GRE, S1, E1, b"gre");
        assert_eq!(harness.pass(&gre).source.address, to);
        let ping = builder::echo(S1, E1, QueryKind::EchoRequest, 7, 1, b"ping");
        assert_eq!(harness.pass(&ping).source.address, to);
    }
}

/// The server sees one of the two clients with another port than the client's own.
#[test]
fn answers_reach_a_client_that_uses_one_port_on_both_uplinks() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let seen = [G, G2].map(|to| request(&mut harness, 4444, to));
    assert_ne!(seen[0], seen[1]);
    for (to, seen) in [G, G2].into_iter().zip(seen) {
        let answer = harness.pass(&udp((S1, 5000), seen));
        let destination = (answer.destination.address, answer.destination.port);
        assert_eq!((answer.source.address, destination), (to, (E1, 4444)));
        let back = harness.pass(&udp((E1, 4444), (to, answer.source.port)));
        let (source, destination) = (back.source, back.destination);
        assert_eq!((source.address, source.port), seen, "the client as its server knows it");
        assert_eq!((destination.address, destination.port), (S1, 5000));
    }
}

#[test]
fn a_mapping_on_another_uplink_does_not_divert_an_answer() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let first = harness.pass(&udp((S1, 5000), (E2, 53))).source.address;
    let other = if first == G { G2 } else { G };
    request(&mut harness, 4444, other);
    assert_eq!(harness.pass(&udp((S1, 5000), (E1, 4444))).source.address, other);
    assert_eq!(harness.pass(&udp((S1, 5000), (E2, 54))).source.address, first);
}

#[test]
fn answers_use_the_address_of_their_request_among_those_of_one_uplink() {
    let address = |address| ExternalAddress { address, assigned_to_host: false, reserved: vec![] };
    let setup = settings().with(|setup| {
        setup.policy.uplinks[0].addresses.push(address(G2));
        let first = setup.policy.forwards[0].clone();
        setup.policy.forwards.push(Forward { address: G2, ..first });
    });
    let mut harness = Harness::new(setup);
    for port in CLIENT_PORTS {
        request(&mut harness, port, published(port));
        let answer = harness.pass(&udp((S1, 5000 + port), (E1, port)));
        assert_eq!(answer.source.address, published(port), "port {port}");
    }
}

#[test]
fn only_the_live_requests_of_the_same_two_hosts_count() {
    // Each time from other ports: a port with a mapping keeps the uplink of its mapping.
    let mut ports = 6000..;
    let mut uplinks = |harness: &mut Harness, server, client| {
        let chosen = ports
            .by_ref()
            .take(40)
            .map(|port| harness.pass(&udp((server, port), (client, 5000))).source.address);
        chosen.collect::<std::collections::HashSet<_>>().len()
    };
    let mut harness = Harness::new(two_outbound_uplinks());
    request(&mut harness, 4444, G2);
    assert_eq!(uplinks(&mut harness, S1, E1), 1);
    assert_eq!((uplinks(&mut harness, S2, E1), uplinks(&mut harness, S1, E2)), (2, 2));
    harness.wait(Span::seconds(601));
    assert_eq!(harness.sessions(), 0);
    assert_eq!(uplinks(&mut harness, S1, E1), 2);
}

#[test]
fn a_failed_uplink_gets_no_answers_while_another_one_is_healthy() {
    for admission in [AdmitNew::None, AdmitNew::KnownEndpoints] {
        let mut harness = Harness::new(two_outbound_uplinks());
        request(&mut harness, 4444, G2);
        harness.nat.set_admission(1, admission);
        assert_eq!(harness.pass(&udp((S1, 5000), (E1, 4444))).source.address, G);
        harness.nat.set_admission(0, admission);
        assert_eq!(harness.pass(&udp((S1, 5001), (E1, 4444))).source.address, G2);
    }
}

#[test]
fn a_recovered_uplink_does_not_take_an_answer_from_the_uplink_of_its_request() {
    let mut harness = Harness::new(two_outbound_uplinks());
    for port in CLIENT_PORTS {
        request(&mut harness, port, G2);
        harness.pass(&udp((S1, 5000 + port), (E1, port)));
    }
    let (ended, _) = sweep(&mut harness, recovered(0));
    assert_eq!(ended, 0);
}

#[test]
fn answers_use_an_uplink_that_the_outbound_rule_does_not_name() {
    let setup = two_outbound_uplinks().with(|setup| setup.policy.outbound[0].uplinks = vec![0]);
    let mut harness = Harness::new(setup.clone());
    request(&mut harness, 4444, G2);
    assert_eq!(harness.pass(&udp((S1, 5000), (E1, 4444))).source.address, G2);
    assert_eq!(harness.pass(&udp((S1, 5000), (E2, 4444))).source.address, G);
    assert_eq!(harness.reload(setup.clone()), 0, "the sessions continue");
    let nothing = setup.with(|setup| setup.policy.outbound.clear());
    assert_eq!(harness.reload(nothing), 2, "without a rule no session goes out");
    let reason = harness.drop_reason(&udp((S1, 5000), (E1, 4444)));
    assert_eq!(reason, DropReason::NoOutboundRule);
}

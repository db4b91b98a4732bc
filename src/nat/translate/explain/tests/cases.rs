//! Single cases of explanations that random packets seldom reach.

use std::num::NonZeroU32;

use super::{Instance, Tally, check};
use crate::nat::mapping::allocator::PortOrigin;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::{Forward, Policy, Uplink};
use crate::nat::table::session::EndpointKind;
use crate::nat::translate::decide::tests::ADDRESSES;
use crate::nat::translate::explain::Explained;
use crate::nat::translate::rehearsal::Doubt;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{ChecksumMode, Protocol, builder, parse};
use crate::time::{Span, Tick};
use crate::values::nat::{EndpointDependence, ForwardProtocol, PortRange};

/// Checks packets one after the other, and returns the last explanation.
fn check_all(limits: Limits, policy: Policy, packets: &[Vec<u8>]) -> Explained {
    let mut one = Instance::new(limits.clone(), policy.clone(), 1, Tick(0));
    let mut twin = Instance::new(limits, policy, 1, Tick(0));
    let (last, before) = packets.split_last().expect("a packet");
    for packet in before {
        let sent = check(&mut one, &mut twin, packet, Tick(0), &Tally::default());
        assert_eq!(sent.expect("as explained").len(), 1);
    }
    let said = one.nat.explain(last, Tick(0));
    check(&mut one, &mut twin, last, Tick(0), &Tally::default()).expect("as explained");
    said
}

fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Vec<u8> {
    builder::udp(builder::tuple(Protocol::UDP, source, destination), b"payload")
}

/// One or two uplinks with forwards from these published ports to one port of the first host.
fn publishing(published: &[(u8, u16)]) -> (Limits, Policy) {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let mut policy = Policy::one_uplink(inside, ADDRESSES[2].into());
    let mut second = Uplink { name: "isp2".into(), ..policy.uplinks[0].clone() };
    second.addresses[0].address = ADDRESSES[3].into();
    policy.uplinks.push(second);
    policy.outbound[0].uplinks = vec![0, 1];
    let forward = |(uplink, port): &(u8, u16)| Forward {
        name: format!("server {uplink} {port}"),
        uplink: *uplink,
        protocol: ForwardProtocol::TcpUdp,
        address: ADDRESSES[2 + usize::from(*uplink)].into(),
        ports: (*port..=*port).into(),
        to_address: ADDRESSES[0].into(),
        to_port: 80,
    };
    policy.forwards = published.iter().map(forward).collect();
    (Limits::new(inside), policy)
}

#[test]
fn a_second_port_towards_one_server_counts_as_one_session_of_its_host() {
    let (limits, policy) = publishing(&[(0, 8080), (0, 8081)]);
    let limits = Limits { sessions_per_host: NonZeroU32::new(2), ..limits };
    let to = |port| udp((ADDRESSES[1], 5000), (ADDRESSES[2], port));
    let said = check_all(limits, policy, &[to(8080), to(8081)]);
    assert_eq!(said.verdict, Verdict::Translated, "{said:?}");
}

#[test]
fn the_request_of_a_client_replaces_the_tentative_session_of_the_server() {
    for uplink in [0, 1] {
        let (limits, policy) = publishing(&[(0, 8080), (1, 8080)]);
        let client = (ADDRESSES[4], 5000);
        let sends = udp((ADDRESSES[0], 80), client);
        let asks = udp(client, (ADDRESSES[2 + uplink], 8080));
        let said = check_all(limits, policy, &[sends, asks]);
        let sent = parse(&said.sent[0], ChecksumMode::Complete).expect("well-formed");
        // The client keeps its port: no other session has its tuple.
        assert_eq!(sent.tuple().expect("a tuple").source.port, 5000, "{said:?}");
    }
}

#[test]
fn the_limit_of_sessions_from_outside_over_a_mapping_is_foreseen() {
    let (limits, mut policy) = publishing(&[]);
    policy.kept_ports = vec![(5000..=5000).into()];
    policy.outbound[0].uplinks = vec![0];
    let filtering = EndpointDependence::EndpointIndependent;
    let limits = Limits { sessions: 8, filtering, ..limits };
    let opens = udp((ADDRESSES[0], 5000), (ADDRESSES[4], 53));
    let knocks = |port| udp((ADDRESSES[5], port), (ADDRESSES[2], 5000));
    let said = check_all(limits, policy, &[opens, knocks(1), knocks(2)]);
    assert_eq!(said.verdict, Verdict::Drop(DropReason::InboundLimit));
}

/// The sender's new mapping takes the very port to which the sender sends.
#[test]
fn a_session_does_not_hold_a_port_that_its_own_mapping_has_taken() {
    let (limits, mut policy) = publishing(&[(0, 0)]);
    policy.forwards[0].protocol = ForwardProtocol::Any;
    policy.forwards[0].ports = (0..=65_535).into();
    policy.forwards[0].to_port = 0;
    let limits = Limits { ports: PortRange { first: 40_000, last: 40_000 }, ..limits };
    let said = check_all(limits, policy, &[udp((ADDRESSES[1], 5000), (ADDRESSES[2], 40_000))]);
    let opened = said.story.opened.expect("a session");
    assert_eq!(opened.origin.responder, EndpointKind::Forward, "{said:?}");
}

/// A packet of a session whose time is over: natbox removes the session first.
#[test]
fn the_rehearsal_says_that_the_session_of_a_packet_has_just_expired() {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let limits = Limits::new(inside);
    let idle = limits.timeouts.udp;
    let policy = Policy::one_uplink(inside, ADDRESSES[2].into());
    let mut one = Instance::new(limits, policy, 1, Tick(0));
    let tuple = builder::tuple(Protocol::UDP, (ADDRESSES[0], 5000), (ADDRESSES[4], 53));
    let bytes = builder::udp(tuple, b"question");
    one.process(&bytes, Tick(0));
    let said = one.nat.explain(&bytes, Tick(0).after(Span(idle.0 - 1)));
    assert!(said.story.session.is_some() && said.story.doubt.is_none());
    let said = one.nat.explain(&bytes, Tick(0).after(idle));
    assert_eq!((said.story.session.is_some(), said.story.doubt), (false, Some(Doubt::Expired)));
}

/// A running box cannot look into the generators of its workers.
#[test]
fn a_random_port_is_called_random() {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let mut policy = Policy::one_uplink(inside, ADDRESSES[2].into());
    policy.kept_ports = vec![(6000..=6000).into()];
    let one = Instance::new(Limits::new(inside), policy, 1, Tick(0));
    let origin = |port| {
        let tuple = builder::tuple(Protocol::UDP, (ADDRESSES[0], port), (ADDRESSES[4], 53));
        let said = one.nat.explain(&builder::udp(tuple, b"question"), Tick(0));
        said.story.mapping.map(|(_, foreseen)| foreseen.origin)
    };
    assert_eq!((origin(5000), origin(6000)), (Some(PortOrigin::Random), Some(PortOrigin::Kept)));
}

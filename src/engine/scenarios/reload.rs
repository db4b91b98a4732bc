//! Replacement of the policy while sessions exist. A session that the new policy allows continues,
//! and any other session ends in both directions.

use super::*;
use crate::nat::EndReason;

#[test]
fn a_reload_keeps_sessions_that_the_new_policy_allows() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let external = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let mut new = settings();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, 7777..=7777, S2, 7777));
    new.policy.hairpin = false;
    assert_eq!(harness.reload(new), 0);
    assert_eq!(harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
    assert_eq!(harness.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101)).source.address, G);
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source, external);
    let reply = builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (G, external.port)), b"");
    assert_eq!(harness.pass(&reply).destination.address, S2);
    assert_eq!(
        harness.pass(&udp((E2, 1), (G, 7777))).destination.address,
        S2,
        "the new forward works"
    );
}

/// Regression: such sessions counted as sessions of a forward and ended with every reload.
#[test]
fn a_reload_keeps_sessions_of_protocols_without_ports() {
    let gre = Protocol(47);
    let mut harness = Harness::new(settings());
    let external = harness.pass(&builder::other(gre, S2, E1, b"hello")).source.address;
    assert_eq!(harness.reload(settings()), 0);
    assert_eq!(harness.pass(&builder::other(gre, E1, external, b"reply")).destination.address, S2);
    let mut new = settings();
    new.policy.outbound.clear();
    assert_eq!(harness.reload(new), 1);
}

#[test]
fn a_preview_names_the_reasons_and_changes_nothing() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let external = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let removed = |policy: &mut Policy| policy.uplinks[0].addresses[0].address = G2;
    let disallowed = |policy: &mut Policy| policy.outbound.clear();
    let preview = |harness: &Harness, change: fn(&mut Policy)| {
        let mut policy = settings().policy;
        change(&mut policy);
        harness.nat.preview(policy).disallowed()
    };
    let counts = |removed, changed| {
        vec![(EndReason::AddressRemoved, removed), (EndReason::PolicyChanged, changed)]
    };
    assert_eq!(preview(&harness, |_| ()), counts(0, 0));
    assert_eq!(preview(&harness, removed), counts(2, 0));
    assert_eq!(preview(&harness, disallowed), counts(0, 1));
    assert_eq!(harness.sessions(), 2);
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source, external);
    let another = harness.pass(&udp((S2, 5001), (E1, 53))).source.address;
    assert_eq!(another, G, "new mappings still have the address in use");
}

#[test]
fn sessions_of_a_removed_forward_end_in_both_directions() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let mut new = settings();
    new.policy.forwards.remove(0);
    assert_eq!(harness.reload(new), 1);
    assert_eq!(harness.sessions(), 0);
    assert_eq!(
        harness.drop_reason(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)),
        DropReason::NoMapping
    );
    assert_eq!(
        harness.drop_reason(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101)),
        DropReason::TcpWithoutSession
    );
    assert_eq!(harness.reload(settings()), 0);
    connect(&mut harness);
}

#[test]
fn a_forward_with_a_new_server_ends_its_sessions_and_sends_new_clients_there() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    let mut new = settings();
    new.policy.forwards[0].to_address = S2;
    assert_eq!(harness.reload(new), 1);
    assert_eq!(harness.pass(&tcp(SYN, (E1, 4445), (G, 8080), 1, 0)).destination.address, S2);
}

#[test]
fn hosts_without_an_outbound_rule_after_a_reload_lose_their_sessions_and_mappings() {
    let mut harness = Harness::new(settings());
    let external = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let mut new = settings();
    new.policy.outbound.clear();
    assert_eq!(harness.reload(new), 1);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
    assert_eq!(harness.drop_reason(&udp((S2, 5000), (E1, 53))), DropReason::NoOutboundRule);
    let reply = builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (G, external.port)), b"");
    assert_eq!(harness.drop_reason(&reply), DropReason::NoMapping);
}

/// A hairpin session holds both mappings and releases both when it ends.
#[test]
fn a_hairpin_session_releases_both_mappings_whether_hairpin_or_a_forward_changes() {
    let original = || {
        settings().with(|setup| setup.limits.filtering = EndpointDependence::EndpointIndependent)
    };
    let mut harness = Harness::new(original());
    let peer = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let open_hairpin = |harness: &mut Harness| {
        let delivered = harness.pass(&udp((S1, 6000), (peer.address, peer.port)));
        assert_eq!(delivered.destination.address, S2);
        assert_eq!((harness.sessions(), harness.nat.mappings()), (2, 2));
    };
    open_hairpin(&mut harness);
    let mut new = original();
    new.policy.hairpin = false;
    assert_eq!(harness.reload(new), 1);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (1, 1));
    assert_eq!(harness.reload(original()), 0);
    open_hairpin(&mut harness);
    // A new forward on the port ends the mapping and both sessions over it.
    let mut new = original();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, peer.port..=peer.port, S1, 7));
    assert_eq!(harness.reload(new), 2);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
    // The endpoint is a forward's now. A session to it holds one mapping only and ends with the
    // forward.
    assert_eq!(harness.pass(&udp((S2, 6000), (peer.address, peer.port))).destination.address, S1);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (1, 1));
    assert_eq!(harness.reload(original()), 1);
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
}

#[test]
fn a_new_forward_takes_the_port_of_a_mapping_and_a_removed_forward_makes_it_dynamic_again() {
    let two_ports = || settings().with(|setup| setup.limits.ports = (40_000..=40_001).into());
    let mut harness = Harness::new(two_ports());
    // Mappings use both ports. The new policy has a forward on one of them.
    let first = harness.pass(&udp((S2, 5000), (E1, 53))).source.port;
    let second = harness.pass(&udp((S2, 5001), (E1, 53))).source.port;
    let mut new = two_ports();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, first..=first, S1, 7));
    assert_eq!(harness.reload(new), 1, "the mapping on the forward's port ends");
    assert_eq!(harness.pass(&udp((E2, 9), (G, first))).destination.address, S1);
    assert_eq!(
        harness.pass(&udp((S2, 5001), (E1, 53))).source.port,
        second,
        "the other mapping stays"
    );
    assert_eq!(harness.drop_reason(&udp((S2, 5000), (E1, 53))), DropReason::PortsExhausted);
    // TCP has both ports: a forward takes the ports of its own protocol only.
    let ports =
        [6000, 6001].map(|port| harness.pass(&tcp(SYN, (S2, port), (E1, 80), 1, 0)).source.port);
    assert!(ports.contains(&first), "{ports:?}");
    // Without the forward, the port is dynamic again.
    assert_eq!(harness.reload(two_ports()), 1, "the forward's session ends");
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source.port, first);
}

//! New rules while sessions live: what they allow goes on, what they do not ends in both
//! directions.

use super::*;

#[test]
fn sessions_that_the_new_rules_allow_notice_nothing() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    let outside = stage.pass(&udp((S2, 5000), (E1, 53))).source;
    let mut new = settings();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, 7777..=7777, S2, 7777));
    new.policy.hairpin = false;
    assert_eq!(stage.reload(new), 0);
    assert_eq!(stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
    assert_eq!(stage.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101)).source.address, G);
    assert_eq!(stage.pass(&udp((S2, 5000), (E1, 53))).source, outside);
    let answer = builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (G, outside.port)), b"");
    assert_eq!(stage.pass(&answer).destination.address, S2);
    assert_eq!(
        stage.pass(&udp((E2, 1), (G, 7777))).destination.address,
        S2,
        "the new forward works"
    );
}

/// They were taken for a forward's own, and ended with every reload.
#[test]
fn sessions_of_protocols_without_ports_go_on_too() {
    let gre = Protocol(47);
    let mut stage = Stage::new(settings());
    let outside = stage.pass(&builder::other(gre, S2, E1, b"hello")).source.address;
    assert_eq!(stage.reload(settings()), 0);
    assert_eq!(stage.pass(&builder::other(gre, E1, outside, b"answer")).destination.address, S2);
    let mut new = settings();
    new.policy.outbound.clear();
    assert_eq!(stage.reload(new), 1);
}

#[test]
fn sessions_of_a_forward_that_is_gone_end_in_both_directions() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    let mut new = settings();
    new.policy.forwards.remove(0);
    assert_eq!(stage.reload(new), 1);
    assert_eq!(stage.sessions(), 0);
    assert_eq!(stage.refuse(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)), DropReason::NoMapping);
    assert_eq!(
        stage.refuse(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101)),
        DropReason::TcpWithoutSession
    );
    assert_eq!(stage.reload(settings()), 0);
    connect(&mut stage);
}

#[test]
fn a_forward_that_moves_takes_its_new_clients_elsewhere() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    let mut new = settings();
    new.policy.forwards[0].to_address = S2;
    assert_eq!(stage.reload(new), 1);
    assert_eq!(stage.pass(&tcp(SYN, (E1, 4445), (G, 8080), 1, 0)).destination.address, S2);
}

#[test]
fn hosts_that_may_not_go_out_any_more_are_cut_off_and_hold_nothing() {
    let mut stage = Stage::new(settings());
    let outside = stage.pass(&udp((S2, 5000), (E1, 53))).source;
    let mut new = settings();
    new.policy.outbound.clear();
    assert_eq!(stage.reload(new), 1);
    assert_eq!((stage.sessions(), stage.nat.mappings()), (0, 0));
    assert_eq!(stage.refuse(&udp((S2, 5000), (E1, 53))), DropReason::NoOutboundRule);
    let answer = builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (G, outside.port)), b"");
    assert_eq!(stage.refuse(&answer), DropReason::NoMapping);
}

/// A hairpin session holds both mappings, and gives both back whatever ends it.
#[test]
fn a_hairpin_session_gives_back_both_mappings_whatever_ends_it() {
    let before = || {
        settings().with(|setup| setup.limits.filtering = EndpointDependence::EndpointIndependent)
    };
    let mut stage = Stage::new(before());
    let spoken_to = stage.pass(&udp((S2, 5000), (E1, 53))).source;
    let talk = |stage: &mut Stage| {
        let seen = stage.pass(&udp((S1, 6000), (spoken_to.address, spoken_to.port)));
        assert_eq!(seen.destination.address, S2);
        assert_eq!((stage.sessions(), stage.nat.mappings()), (2, 2));
    };
    talk(&mut stage);
    let mut new = before();
    new.policy.hairpin = false;
    assert_eq!(stage.reload(new), 1);
    assert_eq!((stage.sessions(), stage.nat.mappings()), (1, 1));
    assert_eq!(stage.reload(before()), 0);
    talk(&mut stage);
    // A forward that takes the port ends the mapping and both sessions on it.
    let mut new = before();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, spoken_to.port..=spoken_to.port, S1, 7));
    assert_eq!(stage.reload(new), 2);
    assert_eq!((stage.sessions(), stage.nat.mappings()), (0, 0));
    // Now the same endpoint is a forward's, and the session to it holds one mapping only; it ends
    // with the forward.
    assert_eq!(
        stage.pass(&udp((S2, 6000), (spoken_to.address, spoken_to.port))).destination.address,
        S1
    );
    assert_eq!((stage.sessions(), stage.nat.mappings()), (1, 1));
    assert_eq!(stage.reload(before()), 1);
    assert_eq!((stage.sessions(), stage.nat.mappings()), (0, 0));
}

#[test]
fn a_port_changes_hands_between_mapping_and_forward() {
    let narrow = || settings().with(|setup| setup.limits.ports = (40_000..=40_001).into());
    let mut stage = Stage::new(narrow());
    // Both ports are taken by mappings; one of them is wanted for a forward.
    let first = stage.pass(&udp((S2, 5000), (E1, 53))).source.port;
    let second = stage.pass(&udp((S2, 5001), (E1, 53))).source.port;
    let mut new = narrow();
    new.policy.forwards.push(forward(ForwardProtocol::Udp, first..=first, S1, 7));
    assert_eq!(stage.reload(new), 1, "the mapping on the forward's port ends");
    assert_eq!(stage.pass(&udp((E2, 9), (G, first))).destination.address, S1);
    assert_eq!(stage.pass(&udp((S2, 5001), (E1, 53))).source.port, second, "the other one stays");
    assert_eq!(stage.refuse(&udp((S2, 5000), (E1, 53))), DropReason::PortsExhausted);
    // TCP has both ports still: a forward owns those of its own protocol.
    let ports =
        [6000, 6001].map(|port| stage.pass(&tcp(SYN, (S2, port), (E1, 80), 1, 0)).source.port);
    assert!(ports.contains(&first), "{ports:?}");
    // The forward goes, and its port is dynamic again.
    assert_eq!(stage.reload(narrow()), 1, "the forward's session ends");
    assert_eq!(stage.pass(&udp((S2, 5000), (E1, 53))).source.port, first);
}

//! Reloads that add and remove uplinks, and that change limits, while sessions live.

use super::uplinks::two_outbound_uplinks;
use super::*;
use crate::nat::{EndReason, Filter, Uplink};

/// The external address of a third uplink.
const G3: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 30);

/// Returns a setup with the first uplink alone, which may get others.
fn first_alone() -> Setup {
    settings().with(|setup| setup.limits.addresses_may_grow = true)
}

/// Returns a setup with both uplinks.
fn both() -> Setup {
    let limits = first_alone().limits;
    two_outbound_uplinks().with(|setup| {
        setup.limits = limits;
        setup.policy.uplinks[1].name = "isp2".into();
    })
}

/// Returns a setup with the second uplink alone, whose number stays.
fn second_alone() -> Setup {
    both().with(|setup| {
        setup.policy.uplinks[0] = Uplink::vacant();
        setup.policy.forwards.retain(|forward| forward.uplink == 1);
        setup.policy.outbound[0].uplinks = vec![1];
    })
}

/// Opens a session from E1 to the service that an uplink publishes.
fn request(harness: &mut Harness, external: Ipv4Addr, port: u16) -> Tuple {
    harness.pass(&tcp(SYN, (E1, port), (external, 8080), 1, 0))
}

#[test]
fn an_added_uplink_works_and_the_sessions_of_a_removed_one_end() {
    let mut harness = Harness::new(first_alone());
    request(&mut harness, G, 4444);
    assert_eq!(harness.reload_all(both()), 0);
    assert_eq!(request(&mut harness, G2, 5555).destination.address, S1);
    let reply = harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 5555), 9, 2));
    assert_eq!(reply.source.address, G2, "each reply by its own uplink");
    assert_eq!(harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4444), 9, 2)).source.address, G);
    assert_eq!(harness.reload_all(first_alone()), 1);
    assert_eq!(harness.sessions(), 1);
    assert_eq!(harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 2, 10)).destination.address, S1);
    assert_eq!(harness.send(&tcp(ACK, (E1, 5555), (G2, 8080), 2, 10)), None);
}

/// A server answers a request over an added uplink with a session of its own. The lists of related
/// sessions must exist although the first policy had one address.
#[test]
fn a_session_that_is_related_to_a_request_over_an_added_uplink_uses_this_uplink() {
    let mut harness = Harness::new(first_alone());
    harness.reload_all(both());
    for port in 1..20 {
        harness.pass(&udp((E2, port), (G2, 8080)));
        let related = harness.pass(&udp((S1, 40_000 + port), (E2, port)));
        assert_eq!(related.source.address, G2);
    }
}

#[test]
fn a_removed_uplink_leaves_its_number_vacant_and_the_others_theirs() {
    let mut harness = Harness::new(first_alone());
    harness.reload_all(both());
    request(&mut harness, G, 4444);
    request(&mut harness, G2, 5555);
    assert_eq!(harness.reload_all(second_alone()), 1);
    assert_eq!(harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 5555), 9, 2)).source.address, G2);
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source.address, G2);
    let reply = builder::udp(builder::tuple(Protocol::UDP, (E2, 7), (G, 8080)), b"");
    assert_eq!(harness.send(&reply), None, "the address is gone");
    // A vacant number is no other uplink to which sessions could move.
    let ended = harness.end_all(&Filter::movable_from(1), EndReason::UplinkFailed);
    assert_eq!(ended, 0);
    // Another uplink gets the number.
    let third = second_alone().with(|setup| {
        let mut uplink = setup.policy.uplinks[1].clone();
        uplink.name = "isp3".into();
        uplink.addresses[0].address = G3;
        uplink.probe_address = None;
        setup.policy.uplinks[0] = uplink;
        setup.policy.outbound[0].uplinks = vec![0];
    });
    assert_eq!(harness.reload_all(third), 1, "the UDP session may not use the second uplink now");
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source.address, G3);
}

/// The address stays, but with another uplink: the sessions name the old one by its number.
#[test]
fn an_address_that_moves_to_another_uplink_ends_its_sessions() {
    let mut harness = Harness::new(both());
    request(&mut harness, G2, 5555);
    let moved = both().with(|setup| {
        let policy = &mut setup.policy;
        policy.uplinks.push(Uplink { name: "isp3".into(), ..policy.uplinks[1].clone() });
        policy.uplinks[1] = Uplink::vacant();
        policy.forwards.retain(|forward| forward.uplink == 0);
        policy.outbound[0].uplinks = vec![0, 2];
    });
    assert_eq!(harness.reload_all(moved), 1);
}

#[test]
fn sessions_of_hosts_that_are_not_inside_any_more_end() {
    let mut harness = Harness::new(first_alone());
    harness.pass(&udp((S1, 5000), (E1, 53)));
    harness.pass(&udp((S2, 5000), (E1, 53)));
    let narrower = first_alone().with(|setup| {
        let only_second = "10.0.0.102/32".parse().expect("a prefix");
        setup.limits.inside = vec![only_second];
        setup.policy.legs[0].prefixes = vec![only_second];
    });
    assert_eq!(harness.reload_all(narrower), 1);
    assert_eq!(harness.sessions(), 1);
}

#[test]
fn sessions_whose_destination_needs_no_translation_any_more_end() {
    let mut harness = Harness::new(first_alone());
    harness.pass(&udp((S1, 5000), (E1, 53)));
    harness.pass(&udp((S1, 5000), (E2, 53)));
    let bypass = first_alone().with(|setup| {
        setup.policy.no_nat.push(crate::nat::NoNatRule {
            to: E1.into(),
            protocol: ForwardProtocol::Any,
            ports: (0..=65535).into(),
        });
    });
    assert_eq!(harness.reload_all(bypass), 1);
    assert_eq!(harness.pass(&udp((S1, 5000), (E1, 53))).source.address, S1);
}

#[test]
fn limits_change_while_sessions_live() {
    let mut harness = Harness::new(first_alone());
    for port in 1..=3 {
        harness.pass(&udp((S2, port), (E1, 53)));
    }
    let with = |sessions: u32, udp: u32| {
        first_alone().with(|setup| {
            setup.limits.sessions_per_host = NonZeroU32::new(sessions);
            setup.limits.timeouts.udp = Span::seconds(udp);
        })
    };
    // Sessions from before the first limit do not count.
    assert_eq!(harness.reload_all(with(2, 300)), 0);
    for port in 4..=5 {
        harness.pass(&udp((S2, port), (E1, 53)));
    }
    let sixth = udp((S2, 6), (E1, 53));
    assert_eq!(harness.drop_reason(&sixth), DropReason::HostSessionLimit);
    harness.reload_all(with(3, 300));
    harness.pass(&sixth);
    // All sessions count on while there is no limit.
    harness.reload_all(with(0, 300));
    harness.pass(&udp((S2, 7), (E1, 53)));
    harness.reload_all(with(4, 300));
    assert_eq!(harness.drop_reason(&udp((S2, 8), (E1, 53))), DropReason::HostSessionLimit);
    // A shorter timeout holds for sessions that live already.
    harness.reload_all(with(0, 5));
    harness.wait(Span::seconds(6));
    let before = harness.counters().sessions_created;
    harness.pass(&udp((S2, 7), (E1, 53)));
    assert_eq!(harness.counters().sessions_created, before + 1, "a session of its own");
}

#[test]
fn the_log_of_mappings_begins_and_ends_while_sessions_live() {
    let mut harness = Harness::new(first_alone());
    harness.pass(&udp((S2, 1), (E1, 53)));
    let events = harness.nat.log_mappings(10);
    harness.pass(&udp((S2, 2), (E1, 53)));
    harness.reload_all(first_alone());
    harness.pass(&udp((S2, 3), (E1, 53)));
    harness.nat.end_mapping_log();
    harness.pass(&udp((S2, 4), (E1, 53)));
    let ports: Vec<u16> = std::iter::from_fn(|| events.next()).map(|it| it.inside.port).collect();
    assert_eq!(ports, [2, 3]);
}

#[test]
fn the_range_of_ports_changes_while_mappings_live() {
    let with =
        |ports: RangeInclusive<u16>| first_alone().with(|setup| setup.limits.ports = ports.into());
    let mut harness = Harness::new(with(40_000..=40_001));
    let open = |harness: &mut Harness, port| harness.pass(&udp((S2, port), (E1, 53))).source.port;
    let before = [open(&mut harness, 1), open(&mut harness, 2)];
    let third = udp((S2, 3), (E1, 53));
    assert_eq!(harness.drop_reason(&third), DropReason::PortsExhausted);
    assert_eq!(harness.reload_all(with(50_000..=50_002)), 0);
    assert_eq!([open(&mut harness, 1), open(&mut harness, 2)], before, "they keep their ports");
    let mut new: Vec<u16> = (3..=5).map(|port| open(&mut harness, port)).collect();
    new.sort_unstable();
    assert_eq!(new, [50_000, 50_001, 50_002]);
    assert_eq!(harness.drop_reason(&udp((S2, 6), (E1, 53))), DropReason::PortsExhausted);
    // The first range again: its ports are in use still.
    assert_eq!(harness.reload_all(with(40_000..=40_001)), 0);
    assert_eq!(harness.drop_reason(&udp((S2, 6), (E1, 53))), DropReason::PortsExhausted);
    harness.wait(Span::seconds(301));
    let mut again: Vec<u16> = (1..=2).map(|port| open(&mut harness, port)).collect();
    again.sort_unstable();
    assert_eq!(again, [40_000, 40_001]);
    // All ports of the second range are free again.
    harness.reload_all(with(50_000..=50_002));
    let mut second: Vec<u16> = (7..=9).map(|port| open(&mut harness, port)).collect();
    second.sort_unstable();
    assert_eq!(second, [50_000, 50_001, 50_002]);
}

//! Addresses and ports after translation: forwards, outbound sessions, hairpin, two uplinks.

use super::*;

#[test]
fn a_forward_rewrites_only_the_destination_of_a_request_and_only_the_source_of_a_reply() {
    let mut harness = Harness::new(settings());
    for (protocol, packet, reply) in [
        (Protocol::UDP, udp((E1, 4444), (G, 8080)), udp((S1, 80), (E1, 4444))),
        (
            Protocol::TCP,
            tcp(SYN, (E1, 4444), (G, 8080), 1, 0),
            tcp(SYN_ACK, (S1, 80), (E1, 4444), 9, 2),
        ),
    ] {
        assert_eq!(harness.pass(&packet), tuple(protocol, (E1, 4444), (S1, 80)));
        assert_eq!(harness.pass(&reply), tuple(protocol, (G, 8080), (E1, 4444)));
    }
    assert_eq!(harness.sessions(), 2);
}

#[test]
fn a_port_range_forward_keeps_the_offset_and_publishes_no_port_outside_the_range() {
    let mut harness = Harness::new(settings());
    for port in 9000..=9015 {
        let out = harness.pass(&udp((E1, 4444), (G, port)));
        assert_eq!(out, tuple(Protocol::UDP, (E1, 4444), (S2, 7000 + port - 9000)));
    }
    assert_eq!(harness.drop_reason(&udp((E1, 4444), (G, 8999))), DropReason::NoMapping);
    assert_eq!(harness.drop_reason(&udp((E1, 4444), (G, 9016))), DropReason::NoMapping);
}

#[test]
fn a_ping_to_a_published_address_reaches_the_server_and_its_reply_the_client() {
    let mut harness = Harness::new(settings());
    let request = builder::echo(E1, G, QueryKind::EchoRequest, 77, 1, b"ping");
    assert_eq!(harness.pass(&request), tuple(Protocol::ICMP, (E1, 77), (S1, 0)));
    let reply = builder::echo(S1, E1, QueryKind::EchoReply, 77, 1, b"ping");
    assert_eq!(harness.pass(&reply), tuple(Protocol::ICMP, (G, 0), (E1, 77)));
    let unsolicited = builder::echo(S2, E1, QueryKind::EchoReply, 77, 1, b"ping");
    assert_eq!(harness.drop_reason(&unsolicited), DropReason::IcmpUnsolicitedReply);
}

#[test]
fn a_whole_address_forward_translates_every_protocol_and_keeps_the_ports() {
    let mut settings = settings();
    settings.policy.forwards = vec![forward(ForwardProtocol::Any, 0..=65535, S2, 0)];
    let mut harness = Harness::new(settings);
    assert_eq!(harness.pass(&udp((E1, 5), (G, 6))), tuple(Protocol::UDP, (E1, 5), (S2, 6)));
    assert_eq!(harness.pass(&udp((S2, 6), (E1, 5))), tuple(Protocol::UDP, (G, 6), (E1, 5)));
    for number in [2, 47, 50, 132, 253] {
        let protocol = Protocol(number);
        assert_eq!(
            harness.pass(&builder::other(protocol, E1, G, b"anything")),
            tuple(protocol, (E1, 0), (S2, 0))
        );
        assert_eq!(
            harness.pass(&builder::other(protocol, S2, E1, b"anything")),
            tuple(protocol, (G, 0), (E1, 0))
        );
        assert_eq!(
            harness.pass(&builder::other(protocol, S2, E2, b"first")),
            tuple(protocol, (G, 0), (E2, 0))
        );
    }
    let request = builder::echo(S2, E2, QueryKind::EchoRequest, 9, 1, b"");
    assert_eq!(harness.pass(&request), tuple(Protocol::ICMP, (G, 9), (E2, 0)));
}

#[test]
fn outbound_mappings_are_endpoint_independent_and_replies_reach_the_inside_host() {
    let mut harness = Harness::new(settings());
    let first = harness.pass(&udp((S1, 5000), (E1, 53))).source;
    assert_eq!(first.address, G);
    for (remote, port) in [(E1, 54), (E2, 53), (E2, 9)] {
        assert_eq!(harness.pass(&udp((S1, 5000), (remote, port))).source, first);
        let back = harness.pass(&udp((remote, port), (G, first.port)));
        assert_eq!(back, tuple(Protocol::UDP, (remote, port), (S1, 5000)));
    }
    let other = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    assert_ne!(other, first);
    assert_eq!(other.port % 2, 0, "parity is kept for UDP (RFC 4787 REQ-4)");
}

#[test]
fn all_nine_combinations_of_mapping_and_filtering_follow_rfc_4787() {
    use EndpointDependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    for mapping in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
        for filtering in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
            let mut harness = Harness::new(settings().with(|setup| {
                setup.limits.mapping = mapping;
                setup.limits.filtering = filtering;
            }));
            let first = harness.pass(&udp((S1, 5000), (E1, 53))).source;
            let same_address = harness.pass(&udp((S1, 5000), (E1, 54))).source == first;
            let other_address = harness.pass(&udp((S1, 5000), (E2, 53))).source == first;
            assert_eq!(
                (same_address, other_address),
                match mapping {
                    EndpointIndependent => (true, true),
                    AddressDependent => (true, false),
                    AddressAndPortDependent => (false, false),
                }
            );
            let mut harness = Harness::new(settings().with(|setup| {
                setup.limits.mapping = mapping;
                setup.limits.filtering = filtering;
            }));
            let first = harness.pass(&udp((S1, 5000), (E1, 53))).source;
            let passes = [(E1, 53), (E1, 99), (E2, 53)]
                .map(|from| harness.send(&udp(from, (G, first.port))).is_some());
            assert_eq!(
                passes,
                match filtering {
                    EndpointIndependent => [true, true, true],
                    AddressDependent => [true, true, false],
                    AddressAndPortDependent => [true, false, false],
                }
            );
            harness.wait(Span::seconds(301));
            assert_eq!(
                (harness.sessions(), harness.nat.mappings()),
                (0, 0),
                "no session or mapping remains"
            );
        }
    }
}

#[test]
fn dynamic_ports_exclude_forwards_and_an_exhausted_pool_drops_with_ports_exhausted() {
    let mut settings = settings();
    settings.limits.ports = (8079..=8082).into();
    let mut harness = Harness::new(settings);
    let mut seen: Vec<u16> =
        (0..3).map(|port| harness.pass(&udp((S2, 5000 + port), (E1, 53))).source.port).collect();
    seen.sort_unstable();
    assert_eq!(seen, [8079, 8081, 8082]);
    assert_eq!(harness.drop_reason(&udp((S2, 6000), (E1, 53))), DropReason::PortsExhausted);
    assert_eq!(harness.sessions(), 3);
    harness.wait(Span::seconds(301));
    harness.pass(&udp((S2, 6000), (E1, 53)));
}

#[test]
fn a_session_that_a_server_opens_from_its_published_port_leaves_with_the_published_endpoint() {
    let mut harness = Harness::new(settings());
    assert_eq!(harness.pass(&udp((S1, 80), (E2, 999))), tuple(Protocol::UDP, (G, 8080), (E2, 999)));
    assert_eq!(harness.pass(&udp((E2, 999), (G, 8080))), tuple(Protocol::UDP, (E2, 999), (S1, 80)));
    assert_eq!(harness.sessions(), 1);
}

#[test]
fn echo_requests_of_two_hosts_with_one_identifier_get_two_external_identifiers() {
    let mut harness = Harness::new(settings());
    let echo = |from, to| builder::echo(from, to, QueryKind::EchoRequest, 42, 1, b"");
    let other = Ipv4Addr::new(10, 0, 0, 7);
    let (one, two) = (harness.pass(&echo(S2, E1)).source, harness.pass(&echo(other, E1)).source);
    assert_ne!(one.port, two.port);
    for (external, host) in [(one, S2), (two, other)] {
        let reply = builder::echo(E1, G, QueryKind::EchoReply, external.port, 1, b"");
        assert_eq!(harness.pass(&reply), tuple(Protocol::ICMP, (E1, 0), (host, 42)));
    }
    assert_eq!(
        harness.pass(&echo(S2, E2)).source,
        one,
        "one identifier, two targets: one mapping (RFC 5508 REQ-1)"
    );
    let unsolicited = builder::echo(E2, G, QueryKind::EchoReply, two.port, 1, b"");
    assert_eq!(harness.drop_reason(&unsolicited), DropReason::IcmpUnsolicitedReply);
}

#[test]
fn a_hairpin_packet_has_the_external_endpoint_of_its_sender_as_source() {
    let mut harness = Harness::new(settings());
    // To a forward, from another host and from the server itself.
    for host in [S2, S1] {
        let out = harness.pass(&tcp(SYN, (host, 5000), (G, 8080), 1, 0));
        assert_eq!(
            (out.source.address, out.destination),
            (G, tuple(Protocol::TCP, (S1, 80), (S1, 80)).source)
        );
        let back = harness.pass(&tcp(SYN_ACK, (S1, 80), (G, out.source.port), 1, 2));
        assert_eq!(back, tuple(Protocol::TCP, (G, 8080), (host, 5000)));
    }
    // Between two dynamic mappings, the filter of the target applies as for an outside host.
    harness.pass(&udp((S1, 5000), (E1, 53)));
    let two = harness.pass(&udp((S2, 6000), (E1, 53))).source;
    assert_eq!(harness.drop_reason(&udp((S1, 5000), (G, two.port))), DropReason::Filtered);
    assert_eq!(
        harness.pass(&udp((S2, 6000), (G, 8080))),
        tuple(Protocol::UDP, (G, two.port), (S1, 80))
    );
    let mut open = Harness::new(
        settings().with(|setup| setup.limits.filtering = EndpointDependence::EndpointIndependent),
    );
    let one = open.pass(&udp((S1, 5000), (E1, 53))).source;
    let two = open.pass(&udp((S2, 6000), (E1, 53))).source;
    assert_eq!(
        open.pass(&udp((S1, 5000), (G, two.port))),
        tuple(Protocol::UDP, (G, one.port), (S2, 6000))
    );
    assert_eq!(
        open.pass(&udp((S2, 6000), (G, one.port))),
        tuple(Protocol::UDP, (G, two.port), (S1, 5000))
    );
    let mut off = Harness::new(settings().with(|setup| setup.policy.hairpin = false));
    assert_eq!(off.drop_reason(&udp((S2, 6000), (G, 8080))), DropReason::HairpinDisabled);
}

#[test]
fn one_client_port_can_reach_one_server_over_two_uplinks_at_once() {
    let mut harness = Harness::new(two_uplinks());
    assert_eq!(
        harness.pass(&tcp(SYN, (E1, 4444), (G, 8080), 1, 0)),
        tuple(Protocol::TCP, (E1, 4444), (S1, 80))
    );
    let second = harness.pass(&tcp(SYN, (E1, 4444), (G2, 8080), 1, 0));
    assert_eq!(second.source.address, E1);
    assert_ne!(second.source.port, 4444);
    let back = harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, second.source.port), 1, 2));
    assert_eq!(back, tuple(Protocol::TCP, (G2, 8080), (E1, 4444)));
    let back = harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4444), 1, 2));
    assert_eq!(back, tuple(Protocol::TCP, (G, 8080), (E1, 4444)));
}

/// Regression: the translator assigned hosts to an address that a forward publishes whole. That
/// address has no dynamic port.
#[test]
fn hosts_get_no_mapping_on_a_pool_address_that_a_forward_publishes_whole() {
    let mut settings = settings();
    let mut second = settings.policy.uplinks[0].addresses[0].clone();
    second.address = G2;
    settings.policy.uplinks[0].addresses.push(second);
    settings.policy.forwards =
        vec![Forward { address: G2, ..forward(ForwardProtocol::Any, 0..=65535, S2, 0) }];
    let mut harness = Harness::new(settings);
    for host in 1..40 {
        let host = Ipv4Addr::new(10, 0, 0, 110 + host);
        assert_eq!(harness.pass(&udp((host, 5000), (E1, 53))).source.address, G);
        let hairpin = harness.pass(&tcp(SYN, (host, 6000), (G2, 80), 1, 0));
        assert_eq!((hairpin.source.address, hairpin.destination.address), (G, S2));
    }
}

/// Regression: the worker divided by the number of addresses and panicked.
#[test]
fn a_hairpin_session_over_an_uplink_whose_only_address_is_published_whole_gets_a_port() {
    let mut setup = two_uplinks();
    setup.policy.forwards = vec![forward(ForwardProtocol::Any, 0..=65535, S2, 0)];
    let mut harness = Harness::new(setup);
    let hairpin = harness.pass(&tcp(SYN, (S1, 6000), (G, 80), 1, 0));
    assert_eq!((hairpin.source.address, hairpin.destination.address), (G, S2));
    assert_eq!(
        harness.pass(&builder::other(Protocol(47), S1, G, b"gre")),
        tuple(Protocol(47), (G, 0), (S2, 0))
    );
    assert_eq!(harness.pass(&tcp(SYN, (E1, 6000), (G, 80), 1, 0)).destination.address, S2);
}

/// Regression: with a full table, the host limit counted the replies of a published server as
/// sessions of that server.
#[test]
fn session_limits_do_not_drop_the_stateless_replies_of_a_published_server() {
    let mut harness = Harness::new(settings().with(|setup| {
        setup.limits.sessions = 4;
        setup.limits.new_sessions_per_host = NonZeroU32::new(3);
    }));
    for port in 0..4 {
        harness.pass(&udp((Ipv4Addr::new(10, 0, 0, 110 + port as u8), 5000 + port), (E1, 53)));
    }
    for port in 0..30 {
        assert_eq!(harness.pass(&udp((E1, 4000 + port), (G, 8080))).destination.address, S1);
        assert_eq!(
            harness.pass(&udp((S1, 80), (E1, 4000 + port))).source,
            tuple(Protocol::UDP, (G, 8080), (G, 0)).source
        );
    }
}

/// Regression: after a restart, the first matching uplink sent the data of the server.
#[test]
fn after_a_restart_tcp_of_a_server_on_two_uplinks_passes_only_once_the_client_has_sent() {
    let mut harness = Harness::new(two_uplinks());
    let reply = tcp(ACK, (S1, 80), (E1, 4444), 501, 101);
    assert_eq!(harness.drop_reason(&reply), DropReason::UplinkUnknown);
    harness.pass(&tcp(ACK, (E1, 4444), (G2, 8080), 101, 501));
    assert_eq!(harness.pass(&reply), tuple(Protocol::TCP, (G2, 8080), (E1, 4444)));
}

/// Regression: with the default filtering, the packets of two inside hosts to each other's mappings
/// were always dropped.
#[test]
fn two_inside_hosts_that_send_to_each_others_mappings_pass_the_filter() {
    let mut harness = Harness::new(settings());
    let a = harness.pass(&udp((S1, 5000), (E1, 53))).source.port;
    let b = harness.pass(&udp((S2, 6000), (E1, 53))).source.port;
    assert_eq!(harness.drop_reason(&udp((S1, 5000), (G, b))), DropReason::Filtered);
    assert_eq!(harness.pass(&udp((S2, 6000), (G, a))), tuple(Protocol::UDP, (G, b), (S1, 5000)));
    assert_eq!(harness.pass(&udp((S1, 5000), (G, b))), tuple(Protocol::UDP, (G, a), (S2, 6000)));
    // An outside host stays filtered, and the pinhole expires.
    assert_eq!(harness.drop_reason(&udp((E2, b), (G, a))), DropReason::Filtered);
    let mut harness = Harness::new(settings());
    let a = harness.pass(&udp((S1, 5000), (E1, 53))).source.port;
    let b = harness.pass(&udp((S2, 6000), (E1, 53))).source.port;
    assert_eq!(harness.drop_reason(&udp((S1, 5000), (G, b))), DropReason::Filtered);
    for _ in 0..3 {
        harness.wait(Span::seconds(150));
        harness.pass(&udp((S1, 5000), (E1, 53)));
        harness.pass(&udp((S2, 6000), (E1, 53)));
    }
    assert_eq!(harness.drop_reason(&udp((S2, 6000), (G, a))), DropReason::Filtered);
}

#[test]
fn a_port_is_kept_while_it_is_free_and_random_otherwise() {
    let kept = |ports: &[RangeInclusive<u16>]| {
        let ports = ports.iter().cloned().map(Into::into).collect();
        settings().with(|setup| setup.policy.kept_ports = ports)
    };
    let mut harness = Harness::new(kept(&[500..=500, 3074..=3080, 8080..=8080]));
    let mut mapped = |packet: &[u8]| harness.pass(packet).source.port;
    for port in [500, 3074, 3080] {
        assert_eq!(mapped(&udp((S2, port), (E1, 53))), port);
        assert_eq!(mapped(&udp((S2, port), (E2, 54))), port, "towards every remote endpoint");
        assert_eq!(mapped(&tcp(SYN, (S2, port), (E1, 80), 1, 0)), port);
        assert_ne!(mapped(&udp((S1, port), (E1, 53))), port, "another host has it");
    }
    assert_ne!(mapped(&udp((S2, 8080), (E1, 53))), 8080, "a forward has it");
    let others = (20_000..20_020).filter(|port| mapped(&udp((S2, *port), (E1, 53))) == *port);
    assert!(others.count() < 3, "other ports are random");
    let ping = builder::echo(S2, E1, QueryKind::EchoRequest, 3075, 1, b"ping");
    assert_ne!(harness.pass(&ping).source.port, 3075, "a query has no port");

    // The port is free again when the last session has ended.
    harness.wait(Span::seconds(601));
    assert_eq!(harness.sessions(), 0);
    assert_eq!(harness.pass(&udp((S1, 3074), (E1, 53))).source.port, 3074);
    // A reload changes the ports of new mappings only.
    harness.reload(kept(&[4500..=4500]));
    assert_eq!(harness.pass(&udp((S1, 3074), (E2, 53))).source.port, 3074);
    assert_eq!(harness.pass(&udp((S2, 4500), (E1, 53))).source.port, 4500);
    assert_ne!(harness.pass(&udp((S2, 3075), (E1, 53))).source.port, 3075);
}

/// Regression: without a list, the ports below the range of random ports were not kept, so IPsec
/// and NTP lost theirs (RFC 4787 REQ-3a).
#[test]
fn every_port_is_kept_where_no_forward_and_no_other_host_has_it() {
    let setup = settings().with(|setup| {
        setup.policy.kept_ports = vec![(0..=65_535).into()];
        setup.policy.forwards = vec![forward(ForwardProtocol::Udp, 80..=90, S1, 80)];
    });
    let mut harness = Harness::new(setup);
    let mut mapped = |host, port| harness.pass(&udp((host, port), (E1, 53))).source.port;
    for port in [1, 123, 500, 1023, 1024, 4500, 65_535] {
        assert_eq!(mapped(S2, port), port);
        assert!(mapped(S1, port) >= 1024, "another host has {port}");
    }
    for port in 80..=90 {
        assert!(mapped(S2, port) >= 1024, "a forward has {port}");
    }
}

/// RFC 6888 REQ-8: the port waits for its last holder.
#[test]
fn a_kept_port_that_waits_for_its_last_holder_goes_to_no_other_host() {
    let setup = settings().with(|setup| {
        setup.policy.kept_ports = vec![(3074..=3074).into()];
        setup.limits.filtering = EndpointDependence::EndpointIndependent;
        setup.limits.timeouts.port_reuse_delay = Some(Span::seconds(120));
        setup.limits.delayed_ports = 16;
    });
    let mut harness = Harness::new(setup);
    assert_eq!(harness.pass(&udp((S1, 3074), (E1, 53))).source.port, 3074);
    harness.wait(Span::seconds(310));
    assert_eq!(harness.sessions(), 0);
    assert_ne!(harness.pass(&udp((S2, 3074), (E1, 53))).source.port, 3074);
    assert_eq!(harness.pass(&udp((S1, 3074), (E1, 53))).source.port, 3074);
}

/// CSUM-6: whole packets, fragments, and quotes in errors. The harness recomputes every checksum.
#[test]
fn udp_lite_and_dccp_have_right_checksums_after_the_translation() {
    let setup = settings().with(|setup| {
        setup.policy.forwards = vec![forward(ForwardProtocol::Any, 0..=65535, S1, 0)];
    });
    let mut harness = Harness::new(setup);
    let payload: Vec<u8> = (0..100).collect();
    type Make<'a> = &'a dyn Fn((Ipv4Addr, u16), (Ipv4Addr, u16)) -> Vec<u8>;
    let lite = |coverage| {
        let payload = payload.clone();
        move |from, to| builder::udp_lite(tuple(Protocol::UDP_LITE, from, to), coverage, &payload)
    };
    let dccp = |coverage| {
        let payload = payload.clone();
        move |from, to| builder::dccp(tuple(Protocol::DCCP, from, to), coverage, &payload)
    };
    let (whole, part, header) = (lite(0), lite(20), lite(8));
    let (all, some, none) = (dccp(0), dccp(4), dccp(1));
    let makes: [Make<'_>; 6] = [&whole, &part, &header, &all, &some, &none];
    for (number, make) in makes.into_iter().enumerate() {
        let (client, server) = ((E1, 4000), (S1, 80));
        let out = harness.send(&make(client, (G, 80))).expect("passes");
        assert_eq!(out[20..], make(client, server)[20..], "in");
        let out = harness.send(&make(server, client)).expect("passes");
        assert_eq!(out[20..], make((G, 80), client)[20..], "out");
        let error = builder::icmp_error(3, 3, S1, E1, &make(client, server));
        let out = harness.send(&error).expect("passes");
        assert_eq!(out[48..], make(client, (G, 80))[20..], "quoted");
        let mut sent = make(server, client);
        builder::set_identification(&mut sent, 100 + number as u16);
        let out = harness.run(&frames(&builder::fragments(&sent, 48)));
        let joined: Vec<u8> =
            out.iter().flat_map(|(fragment, _)| fragment[20..].to_vec()).collect();
        assert_eq!(joined, make((G, 80), client)[20..], "in fragments");
    }
}

//! Two uplinks that publish one server. When the uplink of a client is unknown, a session is
//! tentative or the packet is dropped.

use super::*;

/// Regression: the table was full, and a client endpoint with an established connection sent over
/// the other uplink. The server took these packets for packets of the established connection and
/// replied there.
#[test]
fn a_full_table_drops_a_client_endpoint_that_has_a_session_over_another_uplink() {
    let mut harness = Harness::new(two_uplinks().with(|setup| setup.limits.sessions = 1));
    connect(&mut harness);
    assert_eq!(
        harness.drop_reason(&tcp(SYN, (E1, 4444), (G2, 8080), 100, 0)),
        DropReason::TableFull
    );
    assert_eq!(
        harness.drop_reason(&tcp(ACK, (E1, 4444), (G2, 8080), 101, 501)),
        DropReason::TableFull
    );
    for flags in [RST, FIN_ACK] {
        let reason = harness.drop_reason(&tcp(flags, (E1, 4444), (G2, 8080), 101, 501));
        assert_eq!(reason, DropReason::TcpWithoutSession);
    }
    // Another client endpoint has no conflict, and the established connection is unchanged.
    let other = harness.pass(&tcp(RST, (E1, 4445), (G2, 8080), 1, 0));
    assert_eq!(other, tuple(Protocol::TCP, (E1, 4445), (S1, 80)));
    harness.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
}

/// Regression: with a full table, the first matching uplink sent the replies of the server.
#[test]
fn a_reply_without_a_session_is_dropped_when_two_uplinks_publish_its_server() {
    let mut harness = Harness::new(two_uplinks().with(|setup| setup.limits.sessions = 1));
    connect(&mut harness);
    for published in [G, G2] {
        let request = udp((E1, 5000), (published, 8080));
        let arrived = harness.send(&request).expect("translated without a session");
        assert_eq!(harness.drop_reason(&udp((S1, 80), (E1, 5000))), DropReason::UplinkUnknown);
        let error = builder::icmp_error(3, 3, S1, E1, &arrived);
        assert_eq!(harness.drop_reason(&error), DropReason::IcmpErrorNoSession);
    }
    let mut limited = Harness::new(
        two_uplinks().with(|setup| setup.limits.sessions_per_host = NonZeroU32::new(1)),
    );
    limited.pass(&udp((S1, 5000), (E1, 53)));
    assert_eq!(limited.drop_reason(&udp((S1, 80), (E1, 5000))), DropReason::UplinkUnknown);
}

/// Regression: after a restart, all datagrams of a server left over one uplink. A client that used
/// the other uplink got a translated source port and was a new peer for the server.
#[test]
fn a_tentative_udp_session_of_a_server_moves_to_the_uplink_over_which_the_client_sends() {
    let mut harness = Harness::new(two_uplinks());
    let reply = udp((S1, 80), (E1, 5000));
    let tentative = harness.pass(&reply).source.address;
    let used = if tentative == G { G2 } else { G };
    harness.pass(&reply);
    let request = harness.pass(&udp((E1, 5000), (used, 8080)));
    assert_eq!(request, tuple(Protocol::UDP, (E1, 5000), (S1, 80)));
    assert_eq!(harness.pass(&reply), tuple(Protocol::UDP, (used, 8080), (E1, 5000)));
    assert_eq!(harness.sessions(), 1);

    // A packet of the client over the tentative uplink confirms the uplink. Over the other uplink,
    // the same client endpoint then gets a session with a translated source port.
    let chosen = harness.pass(&udp((S1, 80), (E2, 5000))).source.address;
    harness.pass(&udp((E2, 5000), (chosen, 8080)));
    let other = if chosen == G { G2 } else { G };
    assert_ne!(harness.pass(&udp((E2, 5000), (other, 8080))).source.port, 5000);
    assert_eq!(harness.pass(&udp((S1, 80), (E2, 5000))).source.address, chosen);
    assert_eq!(harness.sessions(), 3);
}

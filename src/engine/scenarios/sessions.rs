//! Idle timeouts of sessions, midstream pick-up, and the limits of the session table.

use super::*;

#[test]
fn a_tcp_session_expires_after_the_idle_timeout_of_its_state() {
    let mut harness = Harness::new(settings());
    harness.pass(&tcp(SYN, (E1, 4444), (G, 8080), 100, 0));
    harness.wait(Span::seconds(31));
    assert_eq!(harness.sessions(), 0, "a SYN without a reply");
    connect(&mut harness);
    harness.wait(Span::seconds(7439));
    assert_eq!(harness.sessions(), 1, "an established connection");
    harness.pass(&tcp(FIN_ACK, (E1, 4444), (G, 8080), 101, 501));
    harness.wait(Span::seconds(7000));
    assert_eq!(
        harness.sessions(),
        1,
        "a half-closed connection keeps the timeout of an established one"
    );
    harness.pass(&tcp(FIN_ACK, (S1, 80), (E1, 4444), 501, 102));
    harness.wait(Span::seconds(239));
    assert_eq!(harness.sessions(), 1);
    harness.wait(Span::seconds(2));
    assert_eq!(harness.sessions(), 0, "a closed connection");
    connect(&mut harness);
    harness.wait(Span::seconds(7441));
    assert_eq!(harness.sessions(), 0, "an idle connection");
}

#[test]
fn a_reset_shortens_the_idle_timeout_only_with_the_exact_sequence_number() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    for sequence in [0, 101 + 1000, 101 + (1 << 20), 101_u32.wrapping_sub(9)] {
        harness.pass(&tcp(RST, (E1, 4444), (G, 8080), sequence, 0));
    }
    harness.wait(Span::seconds(3000));
    assert_eq!(harness.sessions(), 1);
    harness.pass(&tcp(RST, (E1, 4444), (G, 8080), 101, 0));
    harness.wait(Span::seconds(241));
    assert_eq!(harness.sessions(), 0);
}

#[test]
fn a_syn_on_the_tuple_of_a_closed_connection_reopens_the_session() {
    let mut harness = Harness::new(settings());
    connect(&mut harness);
    harness.pass(&tcp(FIN_ACK, (E1, 4444), (G, 8080), 101, 501));
    harness.pass(&tcp(FIN_ACK, (S1, 80), (E1, 4444), 501, 102));
    connect(&mut harness);
    harness.wait(Span::seconds(1000));
    assert_eq!(harness.sessions(), 1);
}

#[test]
fn a_connection_through_a_forward_survives_a_restart_of_natbox() {
    for first_from_server in [false, true] {
        let mut harness = Harness::new(settings());
        let (data, reply) =
            (tcp(ACK, (E1, 4444), (G, 8080), 101, 501), tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
        for from_server in [first_from_server, !first_from_server, first_from_server] {
            if from_server {
                assert_eq!(harness.pass(&reply), tuple(Protocol::TCP, (G, 8080), (E1, 4444)));
            } else {
                assert_eq!(harness.pass(&data), tuple(Protocol::TCP, (E1, 4444), (S1, 80)));
            }
        }
        assert_eq!(harness.sessions(), 1);
        harness.wait(Span::seconds(1000));
        assert_eq!(
            harness.sessions(),
            1,
            "after packets of both ends the connection is established"
        );
    }
    let mut harness = Harness::new(settings());
    harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    harness.wait(Span::seconds(241));
    assert_eq!(harness.sessions(), 0, "packets of an outside host alone establish no connection");
}

#[test]
fn only_a_syn_opens_an_outbound_tcp_session_and_a_reset_or_fin_opens_none_on_a_forward() {
    let mut harness = Harness::new(settings());
    for flags in [ACK, FIN_ACK, RST, SYN_ACK, TcpFlags(0), TcpFlags(0x3f), TcpFlags(0x03)] {
        assert_eq!(
            harness.drop_reason(&tcp(flags, (S2, 5000), (E1, 80), 1, 1)),
            DropReason::TcpWithoutSession
        );
        assert_eq!(
            harness.drop_reason(&tcp(flags, (E1, 80), (G, 5000), 1, 1)),
            DropReason::NoMapping
        );
    }
    for flags in [RST, FIN_ACK] {
        harness.pass(&tcp(flags, (E1, 80), (G, 8080), 1, 1));
    }
    assert_eq!((harness.sessions(), harness.counters().forwarded_stateless), (0, 2));
}

#[test]
fn a_full_table_drops_new_outbound_sessions_and_translates_forwards_statelessly() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut harness = Harness::new(settings);
    for port in 0..16 {
        harness.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    assert_eq!(harness.drop_reason(&udp((S2, 6000), (E1, 53))), DropReason::TableFull);
    assert_eq!(harness.nat.mappings(), 16, "a session that was not opened holds no mapping");
    assert_eq!(
        harness.pass(&tcp(SYN, (E1, 4), (G, 8080), 1, 0)),
        tuple(Protocol::TCP, (E1, 4), (S1, 80))
    );
    assert_eq!(
        harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4), 9, 2)),
        tuple(Protocol::TCP, (G, 8080), (E1, 4))
    );
    assert_eq!(harness.pass(&udp((E1, 4), (G, 8080))), tuple(Protocol::UDP, (E1, 4), (S1, 80)));
    assert_eq!(harness.pass(&udp((S1, 80), (E1, 4))), tuple(Protocol::UDP, (G, 8080), (E1, 4)));
    assert_eq!((harness.sessions(), harness.counters().forwarded_stateless), (16, 4));
    for port in 0..16 {
        harness.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    harness.wait(Span::seconds(301));
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
    harness.pass(&udp((S2, 6000), (E1, 53)));
}

/// Regression: a flood of answered SYNs and datagrams on one published port filled the table, and
/// no inside host could open a session.
#[test]
fn a_flood_on_a_forward_is_evicted_for_outbound_sessions() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut harness = Harness::new(settings);
    connect(&mut harness);
    for port in 1000..1015 {
        if port % 2 == 0 {
            harness.pass(&tcp(SYN, (E2, port), (G, 8080), 1, 0));
            harness.pass(&tcp(SYN_ACK, (S1, 80), (E2, port), 1, 2));
        } else {
            harness.pass(&udp((E2, port), (G, 8080)));
        }
    }
    assert_eq!(harness.sessions(), 16);
    for port in 0..15 {
        harness.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    assert_eq!(harness.counters().sessions_evicted, 15);
    // An evicted client is translated without a session. The established connection was not
    // evicted.
    assert_eq!(
        harness.pass(&udp((E2, 1001), (G, 8080))),
        tuple(Protocol::UDP, (E2, 1001), (S1, 80))
    );
    assert_eq!(
        harness.pass(&udp((S1, 80), (E2, 1001))),
        tuple(Protocol::UDP, (G, 8080), (E2, 1001))
    );
    let before = harness.counters().forwarded_stateless;
    harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    assert_eq!(harness.counters().forwarded_stateless, before);
}

#[test]
fn a_full_table_evicts_half_open_connections_but_no_established_one() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut harness = Harness::new(settings);
    connect(&mut harness);
    for port in 0..15 {
        harness.pass(&tcp(SYN, (E2, 1000 + port), (G, 8080), 1, 0));
    }
    for port in 0..100 {
        harness.pass(&tcp(SYN, (E2, 5000 + port), (G, 8080), 1, 0));
    }
    assert_eq!((harness.sessions(), harness.counters().sessions_evicted), (16, 100));
    harness.pass(&udp((S2, 5000), (E1, 53)));
    let before = harness.counters().forwarded_stateless;
    harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    assert_eq!(
        harness.counters().forwarded_stateless,
        before,
        "the established connection still has its session"
    );
}

#[test]
fn an_inside_host_cannot_exceed_the_session_limit_per_host() {
    let mut harness =
        Harness::new(settings().with(|setup| setup.limits.sessions_per_host = NonZeroU32::new(5)));
    for _ in 0..3 {
        for port in 0..5 {
            harness.pass(&udp((S2, 5000 + port), (E1, 53)));
        }
        assert_eq!(harness.drop_reason(&udp((S2, 6000), (E1, 53))), DropReason::HostSessionLimit);
        harness.pass(&udp((Ipv4Addr::new(10, 0, 0, 9), 6000), (E1, 53)));
        harness.wait(Span::seconds(301));
    }
    for port in 0..100 {
        harness.pass(&udp((E1, 1000 + port), (G, 9000)));
    }
}

#[test]
fn a_dns_session_expires_10_seconds_after_its_reply() {
    let mut harness = Harness::new(settings());
    let external = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    let other = harness.pass(&udp((S2, 5001), (E1, 5353))).source;
    harness.wait(Span::seconds(20));
    assert_eq!(harness.sessions(), 2, "no reply yet");
    harness.pass(&udp((E1, 53), (G, external.port)));
    harness.pass(&udp((E1, 5353), (G, other.port)));
    harness.wait(Span::seconds(11));
    assert_eq!(harness.sessions(), 1);
}

#[test]
fn a_packet_that_finds_an_expired_session_opens_a_new_one() {
    let mut harness = Harness::new(settings());
    let first = harness.pass(&udp((S2, 5000), (E1, 53))).source;
    // No expiry runs, so the packet itself finds the expired session.
    harness.now = harness.now.after(Span::seconds(301));
    harness.pass(&udp((S2, 5000), (E1, 53)));
    assert_eq!((harness.sessions(), harness.counters().sessions_expired), (1, 1));
    harness.now = harness.now.after(Span::seconds(301));
    assert_eq!(harness.drop_reason(&udp((E1, 53), (G, first.port))), DropReason::NoMapping);
}

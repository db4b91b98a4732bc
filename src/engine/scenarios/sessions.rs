//! How long sessions live, and what happens when there is no room for one.

use super::*;

#[test]
fn tcp_sessions_live_as_long_as_their_state_says() {
    let mut stage = Stage::new(settings());
    stage.pass(&tcp(SYN, (E1, 4444), (G, 8080), 100, 0));
    stage.wait(Span::seconds(31));
    assert_eq!(stage.sessions(), 0, "an unanswered SYN");
    connect(&mut stage);
    stage.wait(Span::seconds(7439));
    assert_eq!(stage.sessions(), 1, "an open connection");
    stage.pass(&tcp(FIN_ACK, (E1, 4444), (G, 8080), 101, 501));
    stage.wait(Span::seconds(7000));
    assert_eq!(stage.sessions(), 1, "a half-closed connection is still open");
    stage.pass(&tcp(FIN_ACK, (S1, 80), (E1, 4444), 501, 102));
    stage.wait(Span::seconds(239));
    assert_eq!(stage.sessions(), 1);
    stage.wait(Span::seconds(2));
    assert_eq!(stage.sessions(), 0, "a closed connection");
    connect(&mut stage);
    stage.wait(Span::seconds(7441));
    assert_eq!(stage.sessions(), 0, "an idle connection");
}

#[test]
fn a_reset_ends_a_session_only_with_the_exact_number() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    for sequence in [0, 101 + 1000, 101 + (1 << 20), 101_u32.wrapping_sub(9)] {
        stage.pass(&tcp(RST, (E1, 4444), (G, 8080), sequence, 0));
    }
    stage.wait(Span::seconds(3000));
    assert_eq!(stage.sessions(), 1);
    stage.pass(&tcp(RST, (E1, 4444), (G, 8080), 101, 0));
    stage.wait(Span::seconds(241));
    assert_eq!(stage.sessions(), 0);
}

#[test]
fn a_closed_tuple_is_used_again_at_once() {
    let mut stage = Stage::new(settings());
    connect(&mut stage);
    stage.pass(&tcp(FIN_ACK, (E1, 4444), (G, 8080), 101, 501));
    stage.pass(&tcp(FIN_ACK, (S1, 80), (E1, 4444), 501, 102));
    connect(&mut stage);
    stage.wait(Span::seconds(1000));
    assert_eq!(stage.sessions(), 1);
}

#[test]
fn a_connection_through_a_forward_survives_a_restart_of_the_box() {
    for first_from_server in [false, true] {
        let mut stage = Stage::new(settings());
        let (data, answer) =
            (tcp(ACK, (E1, 4444), (G, 8080), 101, 501), tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
        for from_server in [first_from_server, !first_from_server, first_from_server] {
            if from_server {
                assert_eq!(stage.pass(&answer), tuple(Protocol::TCP, (G, 8080), (E1, 4444)));
            } else {
                assert_eq!(stage.pass(&data), tuple(Protocol::TCP, (E1, 4444), (S1, 80)));
            }
        }
        assert_eq!(stage.sessions(), 1);
        stage.wait(Span::seconds(1000));
        assert_eq!(stage.sessions(), 1, "both sides were heard: the connection is open");
    }
    let mut stage = Stage::new(settings());
    stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    stage.wait(Span::seconds(241));
    assert_eq!(stage.sessions(), 0, "an outsider alone makes no long-lived session");
}

#[test]
fn tcp_out_of_nowhere_opens_nothing() {
    let mut stage = Stage::new(settings());
    for flags in [ACK, FIN_ACK, RST, SYN_ACK, TcpFlags(0), TcpFlags(0x3f), TcpFlags(0x03)] {
        assert_eq!(
            stage.refuse(&tcp(flags, (S2, 5000), (E1, 80), 1, 1)),
            DropReason::TcpWithoutSession
        );
        assert_eq!(stage.refuse(&tcp(flags, (E1, 80), (G, 5000), 1, 1)), DropReason::NoMapping);
    }
    for flags in [RST, FIN_ACK] {
        stage.pass(&tcp(flags, (E1, 80), (G, 8080), 1, 1));
    }
    assert_eq!((stage.sessions(), stage.counters().forwarded_stateless), (0, 2));
}

#[test]
fn a_full_table_refuses_outbound_and_lets_forwards_go_on_without_sessions() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut stage = Stage::new(settings);
    for port in 0..16 {
        stage.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    assert_eq!(stage.refuse(&udp((S2, 6000), (E1, 53))), DropReason::TableFull);
    assert_eq!(stage.nat.mappings(), 16, "a refused session holds no mapping");
    assert_eq!(
        stage.pass(&tcp(SYN, (E1, 4), (G, 8080), 1, 0)),
        tuple(Protocol::TCP, (E1, 4), (S1, 80))
    );
    assert_eq!(
        stage.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4), 9, 2)),
        tuple(Protocol::TCP, (G, 8080), (E1, 4))
    );
    assert_eq!(stage.pass(&udp((E1, 4), (G, 8080))), tuple(Protocol::UDP, (E1, 4), (S1, 80)));
    assert_eq!(stage.pass(&udp((S1, 80), (E1, 4))), tuple(Protocol::UDP, (G, 8080), (E1, 4)));
    assert_eq!((stage.sessions(), stage.counters().forwarded_stateless), (16, 4));
    for port in 0..16 {
        stage.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    stage.wait(Span::seconds(301));
    assert_eq!((stage.sessions(), stage.nat.mappings()), (0, 0));
    stage.pass(&udp((S2, 6000), (E1, 53)));
}

/// Answered SYNs and datagrams of a flood on one published port filled the table, and no inside
/// host could go out.
#[test]
fn a_flood_on_a_forward_leaves_room_for_the_inside() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut stage = Stage::new(settings);
    connect(&mut stage);
    for port in 1000..1015 {
        if port % 2 == 0 {
            stage.pass(&tcp(SYN, (E2, port), (G, 8080), 1, 0));
            stage.pass(&tcp(SYN_ACK, (S1, 80), (E2, port), 1, 2));
        } else {
            stage.pass(&udp((E2, port), (G, 8080)));
        }
    }
    assert_eq!(stage.sessions(), 16);
    for port in 0..15 {
        stage.pass(&udp((S2, 5000 + port), (E1, 53)));
    }
    assert_eq!(stage.counters().sessions_evicted, 15);
    // Who was given up goes on without a session; the open connection was not.
    assert_eq!(stage.pass(&udp((E2, 1001), (G, 8080))), tuple(Protocol::UDP, (E2, 1001), (S1, 80)));
    assert_eq!(stage.pass(&udp((S1, 80), (E2, 1001))), tuple(Protocol::UDP, (G, 8080), (E2, 1001)));
    let before = stage.counters().forwarded_stateless;
    stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    assert_eq!(stage.counters().forwarded_stateless, before);
}

#[test]
fn a_full_table_gives_up_half_open_connections_but_never_open_ones() {
    let mut settings = settings();
    settings.limits.sessions = 16;
    let mut stage = Stage::new(settings);
    connect(&mut stage);
    for port in 0..15 {
        stage.pass(&tcp(SYN, (E2, 1000 + port), (G, 8080), 1, 0));
    }
    for port in 0..100 {
        stage.pass(&tcp(SYN, (E2, 5000 + port), (G, 8080), 1, 0));
    }
    assert_eq!((stage.sessions(), stage.counters().sessions_evicted), (16, 100));
    stage.pass(&udp((S2, 5000), (E1, 53)));
    let before = stage.counters().forwarded_stateless;
    stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
    assert_eq!(
        stage.counters().forwarded_stateless,
        before,
        "the open connection still has its session"
    );
}

#[test]
fn a_host_cannot_have_more_sessions_than_its_limit() {
    let mut stage =
        Stage::new(settings().with(|setup| setup.limits.sessions_per_host = NonZeroU32::new(5)));
    for _ in 0..3 {
        for port in 0..5 {
            stage.pass(&udp((S2, 5000 + port), (E1, 53)));
        }
        assert_eq!(stage.refuse(&udp((S2, 6000), (E1, 53))), DropReason::HostSessionLimit);
        stage.pass(&udp((Ipv4Addr::new(10, 0, 0, 9), 6000), (E1, 53)));
        stage.wait(Span::seconds(301));
    }
    for port in 0..100 {
        stage.pass(&udp((E1, 1000 + port), (G, 9000)));
    }
}

#[test]
fn dns_sessions_end_soon_after_their_answer() {
    let mut stage = Stage::new(settings());
    let external = stage.pass(&udp((S2, 5000), (E1, 53))).source;
    let other = stage.pass(&udp((S2, 5001), (E1, 5353))).source;
    stage.wait(Span::seconds(20));
    assert_eq!(stage.sessions(), 2, "no answer yet");
    stage.pass(&udp((E1, 53), (G, external.port)));
    stage.pass(&udp((E1, 5353), (G, other.port)));
    stage.wait(Span::seconds(11));
    assert_eq!(stage.sessions(), 1);
}

#[test]
fn the_first_packet_after_the_end_opens_a_new_session() {
    let mut stage = Stage::new(settings());
    let first = stage.pass(&udp((S2, 5000), (E1, 53))).source;
    // The wheel is not turned: the packet itself meets the corpse.
    stage.now = stage.now.after(Span::seconds(301));
    stage.pass(&udp((S2, 5000), (E1, 53)));
    assert_eq!((stage.sessions(), stage.counters().sessions_expired), (1, 1));
    stage.now = stage.now.after(Span::seconds(301));
    assert_eq!(stage.refuse(&udp((E1, 53), (G, first.port))), DropReason::NoMapping);
}

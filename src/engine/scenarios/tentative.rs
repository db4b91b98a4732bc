//! Several uplinks that publish one server: without knowledge of the uplink, a session is tentative
//! or refused.

use super::*;

/// The same client endpoint came in over the other line while the table was full: the server took its packets for those of
/// the open connection, and answered there.
#[test]
fn without_a_session_nobody_passes_for_a_client_of_the_other_line() {
    let mut stage = Stage::new(two_lines().with(|setup| setup.limits.sessions = 1));
    connect(&mut stage);
    assert_eq!(stage.refuse(&tcp(SYN, (E1, 4444), (G2, 8080), 100, 0)), DropReason::TableFull);
    assert_eq!(stage.refuse(&tcp(ACK, (E1, 4444), (G2, 8080), 101, 501)), DropReason::TableFull);
    for flags in [RST, FIN_ACK] {
        let refused = stage.refuse(&tcp(flags, (E1, 4444), (G2, 8080), 101, 501));
        assert_eq!(refused, DropReason::TcpWithoutSession);
    }
    // Another endpoint is nobody else's, and the connection is as it was.
    let other = stage.pass(&tcp(RST, (E1, 4445), (G2, 8080), 1, 0));
    assert_eq!(other, tuple(Protocol::TCP, (E1, 4445), (S1, 80)));
    stage.pass(&tcp(ACK, (S1, 80), (E1, 4444), 501, 101));
}

/// With a full table, a server's answers left by whichever line came first.
#[test]
fn an_answer_without_a_session_is_sent_by_no_line() {
    let mut stage = Stage::new(two_lines().with(|setup| setup.limits.sessions = 1));
    connect(&mut stage);
    for published in [G, G2] {
        let question = udp((E1, 5000), (published, 8080));
        let arrived = stage.send(&question).expect("translated without a session");
        assert_eq!(stage.refuse(&udp((S1, 80), (E1, 5000))), DropReason::UplinkUnknown);
        let error = builder::icmp_error(3, 3, S1, E1, &arrived);
        assert_eq!(stage.refuse(&error), DropReason::IcmpErrorNoSession);
    }
    let mut limited =
        Stage::new(two_lines().with(|setup| setup.limits.sessions_per_host = NonZeroU32::new(1)));
    limited.pass(&udp((S1, 5000), (E1, 53)));
    assert_eq!(limited.refuse(&udp((S1, 80), (E1, 5000))), DropReason::UplinkUnknown);
}

/// After a restart a server's datagrams went out by one line for ever, and the client, who had asked over the other, became
/// an unknown host to the server.
#[test]
fn a_servers_datagrams_leave_by_a_guess_only_until_the_client_shows_the_line() {
    let mut stage = Stage::new(two_lines());
    let answer = udp((S1, 80), (E1, 5000));
    let guessed = stage.pass(&answer).source.address;
    let asked = if guessed == G { G2 } else { G };
    stage.pass(&answer);
    let question = stage.pass(&udp((E1, 5000), (asked, 8080)));
    assert_eq!(question, tuple(Protocol::UDP, (E1, 5000), (S1, 80)));
    assert_eq!(stage.pass(&answer), tuple(Protocol::UDP, (asked, 8080), (E1, 5000)));
    assert_eq!(stage.sessions(), 1);

    // Who is answered has guessed right: over the other line the client is somebody else.
    let begun = stage.pass(&udp((S1, 80), (E2, 5000))).source.address;
    stage.pass(&udp((E2, 5000), (begun, 8080)));
    let other = if begun == G { G2 } else { G };
    assert_ne!(stage.pass(&udp((E2, 5000), (other, 8080))).source.port, 5000);
    assert_eq!(stage.pass(&udp((S1, 80), (E2, 5000))).source.address, begun);
    assert_eq!(stage.sessions(), 3);
}

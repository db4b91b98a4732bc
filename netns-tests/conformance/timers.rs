//! The lifetime of sessions and the packets that refresh them. Short timeouts replace the long
//! ones; the defaults are read from `natbox config`.

use std::time::{Duration, Instant};

use natbox::packet::{Protocol, TcpFlags, Tuple, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{E1, E2, F, Probe, S1, S2, SYN_ACK, Setup, at, udp};

const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);

/// Returns the default of a timeout, as `natbox config` prints it.
fn default_of(key: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.yaml");
    let text = "inside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks: [{ interface: wan0, addresses: [192.0.2.1] }]\n";
    std::fs::write(&path, text).unwrap();
    let output = std::process::Command::new(crate::single_box::NATBOX)
        .args(["config", "--config", path.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{key}:"))).unwrap();
    line.split_once(": ").unwrap().1.to_owned()
}

/// Sends at an interval for a while.
fn keep(span: Duration, mut send: impl FnMut()) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        send();
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn udp_sessions_live_as_configured_and_only_dns_ends_early() {
    let _proof = proves(&["UDP-5", "UDP-5a", "UDP-5b", "UDP-5c"]);
    assert_eq!((default_of("udp"), default_of("udp_dns")), ("5m".to_owned(), "10s".to_owned()));
    let probe = Probe::start(Setup::new().timeouts("udp: 4s, udp_dns: 1s"));
    let opened = Instant::now();
    let (dns, similar, other) = (
        probe.open_udp(at(S1, 5000), at(E1, 53)),
        probe.open_udp(at(S1, 5001), at(E1, 5353)),
        probe.open_udp(at(S1, 5002), at(E1, 123)),
    );
    probe.assert_udp_in(at(E1, 53), dns, at(S1, 5000));
    probe.assert_udp_in(at(E1, 5353), similar, at(S1, 5001));
    probe.assert_udp_in(at(E1, 123), other, at(S1, 5002));
    wait_until("the answered DNS session ends", || probe.status().mappings == 2);
    assert!(opened.elapsed() >= Duration::from_millis(900));
    if opened.elapsed() < Duration::from_millis(3500) {
        probe.assert_udp_in(at(E1, 5353), similar, at(S1, 5001));
    }
    wait_until("the others end", || probe.status().mappings == 0);
    assert!(opened.elapsed() >= Duration::from_millis(3900), "after {:?}", opened.elapsed());
}

#[test]
fn outbound_packets_refresh_and_inbound_packets_as_configured() {
    let _proof = proves(&["UDP-6", "UDP-6a"]);
    for inbound in [true, false] {
        let setup = Setup::new().nat(&format!("inbound_refresh: {inbound}")).timeouts("udp: 2s");
        let probe = Probe::start(setup);
        let kept = probe.open_udp(at(S1, 5000), at(E1, 53000));
        keep(Duration::from_millis(3500), || {
            assert_eq!(probe.open_udp(at(S1, 5000), at(E1, 53000)), kept);
        });
        probe.assert_udp_in(at(E1, 53000), kept, at(S1, 5000));
        // From here on only the outside sends. A forwarded server's session is refreshed by its
        // client in any case.
        probe.assert_udp_in(at(E2, 9), F, at(S1, 80));
        keep(Duration::from_millis(3500), || {
            probe.udp_in(at(E2, 9), F);
            probe.udp_in(at(E1, 53000), kept);
        });
        let last = probe.inside.drain();
        let arrived = last.iter().filter(|seen| seen.destination() == at(S1, 5000)).count();
        if inbound {
            assert_eq!(arrived * 2, last.len());
            assert_eq!(probe.status().mappings, 1);
        } else {
            assert!(arrived < 9, "{arrived} passed");
            assert_eq!(probe.status().mappings, 0);
        }
        assert_eq!(
            last.iter().filter(|seen| seen.destination() == at(S1, 80)).count(),
            last.len() - arrived
        );
    }
}

/// A regression test: each new remote port opened a session that held the mapping for its own time.
#[test]
fn outside_hosts_cannot_keep_a_mapping_alive_by_changing_ports() {
    let _proof = proves(&["UDP-6a"]);
    for filtering in ["endpoint-independent", "address-dependent"] {
        let nat = format!("inbound_refresh: false, filtering: {filtering}");
        let probe = Probe::start(Setup::new().nat(&nat).timeouts("udp: 2s"));
        let external = probe.open_udp(at(S1, 5000), at(E1, 53000));
        // A packet from inside to one remote keeps the mapping for all of them.
        std::thread::sleep(Duration::from_millis(1000));
        assert_eq!(probe.open_udp(at(S1, 5000), at(E1, 53000)), external);
        let opened = Instant::now();
        std::thread::sleep(Duration::from_millis(1500));
        probe.assert_udp_in(at(E1, 1), external, at(S1, 5000));
        let mut port = 1000;
        while probe.status().mappings != 0 {
            assert!(
                opened.elapsed() < Duration::from_secs(4),
                "kept alive from outside ({filtering})"
            );
            port += 1;
            probe.udp_in(at(E1, port), external);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(opened.elapsed() >= Duration::from_millis(1900));
        probe.inside.drain();
        // A packet from inside refreshes as always.
        let external = probe.open_udp(at(S1, 5000), at(E1, 53000));
        probe.assert_udp_in(at(E1, 7), external, at(S1, 5000));
        keep(Duration::from_millis(3500), || {
            assert_eq!(probe.open_udp(at(S1, 5000), at(E1, 7)), external);
        });
        probe.assert_udp_in(at(E1, 8), external, at(S1, 5000));
    }
}

#[test]
fn errors_and_resets_from_inside_do_not_keep_a_mapping_alive() {
    let _proof = proves(&["RFC7857-7.1"]);
    let setup = Setup::new()
        .nat("inbound_refresh: false")
        .timeouts("udp: 2s, tcp_transitory: 2s, tcp_established: 2s");
    let probe = Probe::start(setup);
    let external = probe.open_udp(at(S1, 5000), at(E1, 53000));
    let opened = Instant::now();
    while probe.status().mappings != 0 {
        assert!(opened.elapsed() < Duration::from_secs(8), "kept alive by errors");
        probe.udp_in(at(E1, 53000), external);
        while let Some(seen) = probe.inside.poll() {
            probe.inside.send(&builder::icmp_error(3, 3, S1, E1, &seen.0));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(opened.elapsed() >= Duration::from_millis(1900));
    probe.outside.drain();
    let connection = probe.connect_out(at(S1, 5000), at(E1, 80));
    let opened = Instant::now();
    while probe.status().mappings != 0 {
        assert!(opened.elapsed() < Duration::from_secs(8), "kept alive by resets");
        // Resets with an unrelated number, as a host sends them for an unknown connection. They
        // pass and refresh nothing.
        let stray = Tuple {
            protocol: Protocol::TCP,
            source: connection.inside,
            destination: connection.inside_peer,
        };
        probe.inside.send(&builder::tcp(stray, TcpFlags::RST, 99_999_999, 0, &[], b""));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn established_connections_live_for_two_hours() {
    let _proof = proves(&["TCP-5e"]);
    assert_eq!(default_of("tcp_established"), "2h4m");
    let setup = Setup::new().timeouts("tcp_established: 4s, tcp_transitory: 1s, tcp_syn: 1s");
    let probe = Probe::start(setup);
    let mut connections =
        [probe.connect_out(at(S1, 5000), at(E1, 80)), probe.connect_in(at(E2, 7), F)];
    let opened = Instant::now();
    std::thread::sleep(Duration::from_millis(2500));
    for connection in &mut connections {
        probe.assert_open(connection);
    }
    // A half-closed connection lives as long.
    assert_eq!(probe.tcp_out(&connections[0].by_inside(FIN, b"")).flags(), FIN);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(probe.tcp_in(&connections[0].by_outside(TcpFlags::ACK, b"late")).payload(), b"late");
    wait_until("idle connections end", || probe.sessions() == 0);
    assert!(opened.elapsed() >= Duration::from_millis(5900), "after {:?}", opened.elapsed());
}

#[test]
fn opening_and_closing_connections_have_their_own_timers() {
    let _proof = proves(&["TCP-5t", "RFC7857-2.1"]);
    assert_eq!(
        (default_of("tcp_transitory"), default_of("tcp_syn")),
        ("4m".to_owned(), "30s".to_owned())
    );
    let probe = Probe::start(Setup::new().timeouts("tcp_syn: 1s, tcp_transitory: 4s"));
    let closing = probe.connect_out(at(S1, 5001), at(E1, 80));
    let opened = Instant::now();
    probe.syn_out(at(S1, 5000), at(E1, 80));
    assert_eq!(probe.sessions(), 2);
    probe.tcp_out(&closing.by_inside(FIN, b""));
    probe.tcp_in(&closing.by_outside(FIN, b""));
    wait_until("the unanswered SYN ends", || probe.sessions() == 1);
    let unanswered = opened.elapsed();
    assert!(
        unanswered >= Duration::from_millis(900) && unanswered < Duration::from_millis(3800),
        "{unanswered:?}"
    );
    wait_until("the closed connection ends", || probe.sessions() == 0);
    assert!(opened.elapsed() >= Duration::from_millis(3900));
}

#[test]
fn icmp_queries_live_as_configured() {
    let _proof = proves(&["ICMP-2", "RFC7857-11"]);
    assert_eq!(default_of("icmp"), "1m");
    let probe = Probe::start(Setup::new().timeouts("icmp: 3s"));
    let external = probe.open_ping(at(S1, 5), E1);
    let opened = Instant::now();
    std::thread::sleep(Duration::from_millis(1500));
    probe.pong_in(E1, external);
    assert_eq!(probe.inside.expect("a late reply").icmp(), Some((0, 0)));
    wait_until("the query ends", || probe.status().mappings == 0);
    assert!(opened.elapsed() >= Duration::from_millis(2900));
    probe.pong_in(E1, external);
    probe.silence();
}

#[test]
fn both_directions_of_a_session_end_together() {
    let _proof = proves(&["TIM-1"]);
    let probe = Probe::start(
        Setup::new()
            .nat("ports: 40000-40001, reject_with: none, port_parity: false")
            .timeouts("udp: 1s"),
    );
    // A download: the outside sends, the inside is almost silent. Meanwhile another host takes
    // every free port.
    let external = probe.open_udp(at(S1, 5000), at(E1, 53000));
    keep(Duration::from_millis(3500), || {
        probe.udp_in(at(E1, 53000), external);
        let seen = probe.inside.expect("the download");
        assert_eq!(seen.destination(), at(S1, 5000));
        for port in 0..5 {
            probe.inside.send(&udp(at(S2, 6000 + port), at(E2, 53000), b"hello"));
        }
        let others = probe.outside.drain();
        assert!(
            others.iter().all(|seen| seen.source() != external),
            "the port was given away: {others:?}"
        );
    });
    assert_eq!(probe.open_udp(at(S1, 5000), at(E1, 53000)), external);
    // Then both directions end in one step.
    wait_until("it ends", || probe.status().mappings == 0);
    probe.udp_in(at(E1, 53000), external);
    probe.silence();
}

#[test]
fn first_packet_after_a_session_ends_opens_a_new_one() {
    let _proof = proves(&["TIM-2"]);
    let setup = Setup::new()
        .timeouts("udp: 1s, tcp_syn: 1s, tcp_established: 1s, tcp_transitory: 1s, icmp: 1s");
    let probe = Probe::start(setup);
    for _ in 0..3 {
        probe.open_udp(at(S1, 5000), at(E1, 53000));
        probe.assert_udp_in(at(E2, 9), F, at(S1, 80));
        probe.open_ping(at(S1, 7), E1);
        probe.connect_out(at(S1, 5000), at(E1, 80));
        probe.connect_in(at(E2, 9), F);
        // Expired, and collected or not yet collected: in both cases the next packet must pass.
        std::thread::sleep(Duration::from_millis(1030));
    }
    let stale =
        Tuple { protocol: Protocol::TCP, source: at(E1, 80), destination: at(crate::probe::G, 9) };
    probe.outside.send(&builder::tcp(stale, SYN_ACK, 1, 1, &[], b""));
    probe.silence();
}

//! Filtering of inbound packets.

use std::time::{Duration, Instant};

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{E1, E2, F, G, Probe, S1, S2, SYN_ACK, Setup, at};

const FILTERINGS: [(&str, usize); 3] =
    [("endpoint-independent", 3), ("address-dependent", 2), ("address-and-port-dependent", 1)];

#[test]
fn filtering_is_as_configured() {
    let _proof = proves(&["UDP-8", "TCP-3"]);
    for mapping in ["endpoint-independent", "address-dependent", "address-and-port-dependent"] {
        for (filtering, passes) in FILTERINGS {
            let probe = Probe::start(
                Setup::new().nat(&format!("mapping: {mapping}, filtering: {filtering}")),
            );
            let external = probe.open_udp(at(S1, 5000), at(E1, 53));
            let connection = probe.connect_out(at(S1, 5000), at(E1, 53));
            for (number, from) in [at(E1, 53), at(E1, 99), at(E2, 53)].into_iter().enumerate() {
                if number < passes {
                    probe.assert_udp_in(from, external, at(S1, 5000));
                } else {
                    probe.assert_udp_refused(from, external);
                }
                if number == 0 {
                    continue;
                }
                probe.syn_in(from, connection.external);
                if number < passes {
                    assert_eq!(probe.inside.expect("a SYN").destination(), at(S1, 5000));
                } else {
                    probe.silence();
                }
            }
            // Mapping: one external endpoint for all remotes, for each address, or for each
            // endpoint.
            let others =
                [at(E1, 154), at(E2, 153)].map(|to| probe.open_udp(at(S1, 5000), to) == external);
            let wanted = match mapping {
                "endpoint-independent" => [true, true],
                "address-dependent" => [true, false],
                _ => [false, false],
            };
            assert_eq!(others, wanted, "{mapping}");
        }
    }
}

#[test]
fn a_mapping_admits_its_own_protocol_only() {
    let _proof = proves(&["RFC7857-6"]);
    let probe = Probe::start(Setup::new().nat("filtering: endpoint-independent"));
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    probe.assert_udp_in(at(E2, 9), external, at(S1, 5000));
    probe.syn_in(at(E1, 53), external);
    probe.outside.send(&builder::echo(E1, G, QueryKind::EchoReply, external.port, 1, b"x"));
    probe.outside.send(&builder::echo(E1, G, QueryKind::EchoRequest, external.port, 1, b"x"));
    let _ = probe.outside.within(Duration::from_millis(300));
    probe.inside.drain().first().inspect(|seen| panic!("admitted: {seen:?}"));
    probe.assert_alive();
}

#[test]
fn a_filtered_packet_changes_nothing() {
    let _proof = proves(&["FILT-1", "RFC7857-7"]);
    let probe = Probe::start(Setup::new().timeouts("udp: 2s"));
    probe.assert_alive();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let opened = Instant::now();
    wait_until("both sessions are counted", || probe.status().totals["sessions_created"] == 2);
    let before = probe.status();
    let mut sent = 0;
    while opened.elapsed() < Duration::from_millis(1500) {
        for port in 0..100 {
            probe.udp_in(at(E2, 2000 + port), external);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_until("all are counted", || probe.dropped("filtered") == sent);
    let after = probe.status();
    assert_eq!(after.totals["sessions_created"], before.totals["sessions_created"]);
    assert_eq!(after.mappings, before.mappings);
    // The mapping ends at the time at which it would end without the filtered packets.
    wait_until("the mapping ends", || {
        probe.udp_in(at(E2, 1), external);
        probe.status().mappings == 0
    });
    assert!(
        opened.elapsed() < Duration::from_millis(6000),
        "kept alive until {:?}",
        opened.elapsed()
    );
}

#[test]
fn unsolicited_syn_gets_no_reply() {
    let _proof = proves(&["TCP-4"]);
    let probe = Probe::plain();
    let taken = probe.connect_out(at(S1, 5000), at(E1, 80)).external;
    probe.syn_in(at(E2, 7), at(G, 33_333));
    probe.syn_in(at(E2, 7), taken);
    std::thread::sleep(Duration::from_millis(6500));
    probe.silence();
    assert_eq!(probe.dropped("no-mapping") + probe.dropped("filtered"), 2);
}

#[test]
fn a_delayed_reject_answers_a_syn_without_counterpart() {
    let _proof = proves(&["TCP-4"]);
    let probe = Probe::start(Setup::new().nat("unsolicited_syn: delayed-reject"));
    let mapped = probe.connect_out(at(S1, 5000), at(E1, 80)).external;
    let sent = Instant::now();
    probe.syn_in(at(E1, 7), at(G, 33_333));
    probe.syn_in(at(E2, 9), mapped);
    // The inside host dials out to the sender of another SYN: a simultaneous open, which must get
    // no error.
    assert!(probe.outside.within(Duration::from_secs(2)).is_none(), "too early");
    let syn = builder::tcp(
        builder::tuple(Protocol::TCP, (S1, 5000), (E2, 9)),
        TcpFlags::SYN,
        1000,
        0,
        &[],
        b"",
    );
    assert_eq!(probe.tcp_out(&syn).source(), mapped);
    let again = builder::tcp(
        natbox::packet::Tuple { protocol: Protocol::TCP, source: at(E2, 9), destination: mapped },
        TcpFlags::SYN,
        7000,
        0,
        &[],
        b"",
    );
    assert_eq!(probe.tcp_in(&again).destination(), at(S1, 5000));
    let error = probe.outside.expect("the late error");
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_millis(5900) && waited < Duration::from_secs(9), "{waited:?}");
    assert_eq!(
        (error.icmp(), error.source().address, error.destination().address),
        (Some((3, 3)), G, E1)
    );
    let quote = error.quote().expect("a quote");
    assert_eq!((quote.source(), quote.destination()), (at(E1, 7), at(G, 33_333)));
    assert!(
        probe.outside.within(Duration::from_secs(3)).is_none(),
        "one error, and none for the other"
    );
    probe.assert_alive();
    // A flood of such SYNs takes little memory and disturbs nothing else.
    for number in 0..20_000_u32 {
        probe.syn_in(at(E2, (number % 60_000) as u16), at(G, 20_000 + (number % 7000) as u16));
    }
    // A packet behind the flood in a full queue of the kernel would be lost there.
    let read = std::cell::Cell::new(0);
    wait_until("the box has read the flood", || {
        let packets = probe.status().totals["packets_in"];
        read.replace(packets) == packets
    });
    probe.connect_in(at(E1, 5), F);
}

#[test]
fn tcp_without_syn_opens_no_lasting_session() {
    let _proof = proves(&["FILT-2"]);
    let probe = Probe::start(Setup::new().nat("reject_with: none"));
    probe.assert_alive();
    let before = probe.sessions();
    let (ack, fin, rst) =
        (TcpFlags::ACK, TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0), TcpFlags::RST);
    for flags in [ack, fin, rst, SYN_ACK] {
        let data: &[u8] = if flags == ack { b"data" } else { b"" };
        probe.outside.send(&builder::tcp(
            builder::tuple(Protocol::TCP, (E1, 7), (G, 33_333)),
            flags,
            1,
            1,
            &[],
            data,
        ));
        probe.inside.send(&builder::tcp(
            builder::tuple(Protocol::TCP, (S2, 7), (E1, 80)),
            flags,
            1,
            1,
            &[],
            data,
        ));
    }
    probe.silence();
    assert_eq!(probe.sessions(), before);
    // Such a segment passes to a forward, since the connection may be older than the box. Its
    // session is short-lived.
    let setup = Setup::new().timeouts("tcp_transitory: 1s, tcp_syn: 1s");
    let probe = Probe::start(setup);
    probe.outside.send(&builder::tcp(
        builder::tuple(Protocol::TCP, (E1, 7), (G, 8080)),
        ack,
        1,
        1,
        &[],
        b"data",
    ));
    assert_eq!(probe.inside.expect("a segment").destination(), at(S1, 80));
    wait_until("it is forgotten", || probe.sessions() == 0);
}

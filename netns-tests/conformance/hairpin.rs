//! Inside hosts that use each other's external endpoints.

use std::time::{Duration, Instant};

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{
    E1, E2, F, F_TARGET, G, G2, Probe, S1, S2, S3, SYN_ACK, Setup, assert_carried, at, segment, udp,
};

#[test]
fn hairpinned_hosts_see_each_others_external_endpoints() {
    let _proof = proves(&["UDP-9", "UDP-9a", "TCP-8", "TCP-8a"]);
    let probe = Probe::start(Setup::new().nat("filtering: endpoint-independent"));
    let (one, other) = (at(S1, 5000), at(S2, 6000));
    let (a, b) = (probe.open_udp(one, at(E1, 53)), probe.open_udp(other, at(E1, 53)));
    let question = udp(one, b, b"question");
    probe.inside.send(&question);
    assert_carried(&question, &probe.inside.expect("the question"), a, other);
    let answer = udp(other, a, b"answer");
    probe.inside.send(&answer);
    assert_carried(&answer, &probe.inside.expect("the answer"), b, one);
    let (a, b) = (
        probe.connect_out(one, at(E1, 80)).external,
        probe.connect_out(other, at(E1, 80)).external,
    );
    probe.inside.send(&segment(one, b, TcpFlags::SYN, 1, 0));
    let seen = probe.inside.expect("a SYN");
    assert_eq!((seen.source(), seen.destination()), (a, other));
    probe.inside.send(&segment(other, a, SYN_ACK, 100, 2));
    let seen = probe.inside.expect("its answer");
    assert_eq!((seen.source(), seen.destination()), (b, one));
    // Filtering applies as for the outside: an unknown peer is dropped. Once both hosts have sent,
    // their packets pass.
    for filtering in ["address-and-port-dependent", "address-dependent"] {
        let probe = Probe::start(Setup::new().nat(&format!("filtering: {filtering}")));
        let (a, b) = (probe.open_udp(one, at(E1, 53)), probe.open_udp(other, at(E1, 53)));
        probe.inside.send(&udp(one, b, b"question"));
        probe.silence();
        for _ in 0..2 {
            let answer = udp(other, a, b"answer");
            probe.inside.send(&answer);
            assert_carried(&answer, &probe.inside.expect("the answer"), b, one);
            let question = udp(one, b, b"question");
            probe.inside.send(&question);
            assert_carried(&question, &probe.inside.expect("the question"), a, other);
        }
    }
}

/// A regression test: the called mapping ended after its own time although both hosts still used
/// it, and its port went to another host.
#[test]
fn hairpinned_packets_keep_both_mappings_alive() {
    let _proof = proves(&["UDP-1", "UDP-3", "UDP-6", "UDP-9", "TIM-1"]);
    let setup =
        Setup::new().nat("filtering: endpoint-independent, ports: 40000-40001, reject_with: none");
    let probe = Probe::start(setup.timeouts("udp: 1s, port_reuse_delay: 0s"));
    let (one, other) = (at(S1, 5000), at(S2, 6000));
    let (a, b) = (probe.open_udp(one, at(E1, 53)), probe.open_udp(other, at(E1, 53)));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        for (from, to, seen_from, seen_at) in [(one, b, a, other), (other, a, b, one)] {
            probe.inside.send(&udp(from, to, b"talk"));
            let seen = probe.inside.expect("talk");
            assert_eq!((seen.source(), seen.destination()), (seen_from, seen_at));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(probe.status().mappings, 2);
    probe.inside.send(&udp(at(S3, 7000), at(E1, 53), b"is a port free?"));
    probe.silence();
    assert_eq!(probe.open_udp(other, at(E2, 53)), b, "one mapping for all");
    probe.assert_udp_in(at(E2, 9), a, one);
    wait_until("mappings of silent hosts end", || probe.status().mappings == 0);
    assert_eq!(probe.sessions(), 0);
}

#[test]
fn forwards_are_reached_from_inside_and_by_their_own_server() {
    let _proof = proves(&["HAIR-1"]);
    let probe = Probe::plain();
    for client in [at(S2, 5000), at(S1, 5000)] {
        probe.inside.send(&segment(client, F, TcpFlags::SYN, 1, 0));
        let syn = probe.inside.expect("a SYN");
        assert_eq!((syn.source().address, syn.destination()), (G, F_TARGET));
        let external = syn.source();
        probe.inside.send(&segment(F_TARGET, external, SYN_ACK, 100, 2));
        let answer = probe.inside.expect("its answer");
        assert_eq!((answer.source(), answer.destination()), (F, client));
        probe.inside.send(&segment(client, F, TcpFlags::ACK, 2, 101));
        let seen = probe.inside.expect("the end of the handshake");
        assert_eq!((seen.source(), seen.destination()), (external, F_TARGET));
        let question = udp(client, F, b"question");
        probe.inside.send(&question);
        let seen = probe.inside.expect("a datagram");
        assert_carried(&question, &seen, seen.source(), F_TARGET);
        assert_eq!(seen.source().address, G);
    }
    assert_eq!(probe.outside.drain(), []);
}

#[test]
fn echo_from_inside_reaches_the_host_behind_an_external_address() {
    let _proof = proves(&["ICMP-7q", "RFC7857-12"]);
    let whole = "name: whole, protocol: any, address: 192.0.2.2, to: 10.0.0.12";
    let probe = Probe::start(Setup::new().pool().forward(whole));
    probe.inside.send(&builder::echo(S1, G2, QueryKind::EchoRequest, 5, 1, b"ping"));
    let seen = probe.inside.expect("an echo request");
    assert_eq!(
        (seen.icmp(), seen.destination().address, seen.source().address),
        (Some((8, 0)), S2, G)
    );
    probe.inside.send(&builder::echo(S2, G, QueryKind::EchoReply, seen.identifier(), 1, b"ping"));
    let seen = probe.inside.expect("the reply");
    assert_eq!(
        (seen.icmp(), seen.source().address, seen.destination().address),
        (Some((0, 0)), G2, S1)
    );
    assert_eq!(seen.identifier(), 5);
    // No inside host has G for echo: no reply comes, inside or outside.
    probe.inside.send(&builder::echo(S1, G, QueryKind::EchoRequest, 5, 1, b"ping"));
    probe.outside.send(&builder::echo(E1, G, QueryKind::EchoRequest, 5, 1, b"ping"));
    probe.silence();
}

#[test]
fn icmp_errors_cross_the_hairpin_with_both_ends_rewritten() {
    let _proof = proves(&["ICMP-7e", "ICMP-7a"]);
    let probe = Probe::start(Setup::new().nat("filtering: endpoint-independent"));
    let (one, other) = (at(S1, 5000), at(S2, 6000));
    let (a, b) = (probe.open_udp(one, at(E1, 53)), probe.open_udp(other, at(E1, 53)));
    let question = udp(one, b, b"question");
    probe.inside.send(&question);
    let arrived = probe.inside.expect("the question");
    assert_eq!((arrived.source(), arrived.destination()), (a, other));
    probe.inside.send(&builder::icmp_error(3, 3, S2, G, &arrived.0));
    let error = probe.inside.expect("the error");
    assert_eq!(
        (error.icmp(), error.source().address, error.destination().address),
        (Some((3, 3)), G, S1)
    );
    let quote = error.quote().expect("a quote");
    assert_eq!((quote.source(), quote.destination()), (one, b));
    assert_eq!(quote.checksum(), crate::probe::Seen(question).checksum());
    // The same with a forward.
    probe.inside.send(&udp(at(S3, 7), F, b"question"));
    let arrived = probe.inside.expect("the question");
    probe.inside.send(&builder::icmp_error(3, 3, S1, G, &arrived.0));
    let error = probe.inside.expect("the error");
    assert_eq!((error.source().address, error.destination().address), (G, S3));
    let quote = error.quote().expect("a quote");
    assert_eq!((quote.source(), quote.destination()), (at(S3, 7), F));
}

#[test]
fn hairpin_has_no_loops_and_carries_fragments() {
    let _proof = proves(&["HAIR-2"]);
    // A forward to an external address would be a loop: natbox rejects the configuration.
    let loops = "name: x\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks: [{ interface: wan0, addresses: [192.0.2.1] }]\nforwards: [{ protocol: tcp, port: 1, to: '192.0.2.1:2' }]\n";
    let path = std::env::temp_dir().join(format!("natbox-loop-{}.yaml", std::process::id()));
    std::fs::write(&path, loops).unwrap();
    let output = std::process::Command::new(crate::single_box::NATBOX)
        .args(["check", "--config", path.to_str().unwrap()])
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let probe = Probe::plain();
    let long = builder::udp(builder::tuple(Protocol::UDP, (S2, 5000), (G, 8080)), &[7; 100]);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut whole = long.clone();
        builder::set_identification(&mut whole, 100 + order[0] as u16);
        let fragments = builder::fragments(&whole, 40);
        for number in order {
            probe.inside.send(&fragments[number]);
        }
        let mut payload: Vec<_> = probe.inside.expect_all(3, "the fragments");
        assert!(
            payload
                .iter()
                .all(|seen| (seen.source().address, seen.destination().address) == (G, S1))
        );
        assert!(payload.iter().all(|seen| seen.ttl() == 63), "one hop");
        payload.sort_by_key(|seen| seen.fragment().0);
        let body: Vec<u8> = payload.iter().flat_map(|seen| seen.body().to_vec()).collect();
        assert_eq!(&body[8..], &long[28..]);
    }
}

//! Addresses and mappings.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::proves;
use crate::probe::{E1, E2, F, F_TARGET, G, G2, Probe, S1, S2, S3, Setup, assert_carried, at};

#[test]
fn inside_endpoint_has_one_mapping_for_all_destinations() {
    let _proof = proves(&["UDP-1", "TCP-1", "ICMP-1a"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let others = probe.open_udp(at(S2, 5000), at(E1, 53));
    assert_ne!(external, others);
    for number in 0..50 {
        let to = at(if number % 2 == 0 { E1 } else { E2 }, 54 + number);
        assert_eq!(probe.open_udp(at(S1, 5000), to), external);
        assert_eq!(probe.open_udp(at(S2, 5000), to), others);
    }
    let external = probe.connect_out(at(S1, 5000), at(E1, 80)).external;
    for to in [at(E1, 81), at(E2, 80), at(E2, 443)] {
        assert_eq!(probe.connect_out(at(S1, 5000), to).external, external);
    }
    let external = probe.open_ping(at(S1, 77), E1);
    assert_eq!(probe.open_ping(at(S1, 77), E2), external);
}

#[test]
fn each_protocol_has_its_own_mappings() {
    let _proof = proves(&["RFC7857-5"]);
    // Each protocol has two ports, so that numbers coincide. Exhausting one protocol leaves the
    // others.
    let probe = Probe::start(Setup::new().nat("ports: 40000-40001, reject_with: none"));
    let mut connections = Vec::new();
    for port in [5000, 5001] {
        probe.open_udp(at(S1, port), at(E1, 53));
        connections.push(probe.connect_out(at(S1, port), at(E1, 53)));
    }
    let echo = probe.open_ping(at(S1, 5000), E1);
    let datagrams = probe.open_udp(at(S1, 5000), at(E1, 53));
    for connection in &mut connections {
        probe.assert_open(connection);
    }
    probe.assert_udp_in(at(E1, 53), datagrams, at(S1, 5000));
    probe.pong_in(E1, echo);
    assert_eq!(probe.inside.expect("the echo reply").identifier(), 5000);
    probe.inside.send(&builder::udp(builder::tuple(Protocol::UDP, (S1, 5002), (E1, 53)), b""));
    probe.silence_outside();
}

#[test]
fn a_host_keeps_one_external_address() {
    let _proof = proves(&["UDP-2", "RFC6888-2"]);
    let probe = Probe::start(Setup::new().pool());
    let mut used = HashSet::new();
    for host in 20..120 {
        let host = Ipv4Addr::new(10, 0, 0, host);
        let address = probe.open_udp(at(host, 5000), at(E1, 53)).address;
        assert_eq!(probe.open_udp(at(host, 5001), at(E2, 53)).address, address);
        assert_eq!(probe.syn_out(at(host, 5000), at(E1, 80)).source().address, address);
        assert_eq!(probe.open_ping(at(host, 1), E1).address, address);
        used.insert(address);
    }
    assert_eq!(used, HashSet::from([G, G2]));
    let address = probe.open_udp(at(S3, 1), at(E1, 53)).address;
    for port in 2..200 {
        assert_eq!(probe.open_udp(at(S3, port), at(E1, 53)).address, address);
    }
}

/// A host uses the address at which it is published.
#[test]
fn published_host_uses_its_published_address_outbound() {
    let _proof = proves(&["UDP-2", "RFC6888-2"]);
    let mut setup = Setup::new().pool().no_forwards();
    for host in 20..40 {
        let address = if host % 2 == 0 { G } else { G2 };
        setup = setup.forward(&format!(
            "name: h{host}, protocol: tcp, address: {address}, port: {}, to: '10.0.0.{host}:80'",
            8000 + host
        ));
    }
    let probe = Probe::start(setup);
    for host in 20..40 {
        let address = if host % 2 == 0 { G } else { G2 };
        let host = Ipv4Addr::new(10, 0, 0, host);
        assert_eq!(probe.open_udp(at(host, 5000), at(E1, 53)).address, address);
        assert_eq!(probe.syn_out(at(host, 5000), at(E1, 80)).source().address, address);
        assert_eq!(probe.open_ping(at(host, 1), E1).address, address);
    }
}

#[test]
fn exhausted_external_address_refuses_or_moves_as_configured() {
    let _proof = proves(&["RFC7857-4"]);
    for soft in [false, true] {
        let pooling = if soft { "address_pooling: paired-soft" } else { "address_pooling: paired" };
        let setup = Setup::new().pool().nat("ports: 40000-40003, reject_with: none").nat(pooling);
        let probe = Probe::start(setup);
        let first: Vec<_> =
            (0..4).map(|port| probe.open_udp(at(S1, 5000 + port), at(E1, 53))).collect();
        assert!(first.iter().all(|external| external.address == first[0].address));
        let next = builder::udp(builder::tuple(Protocol::UDP, (S1, 6000), (E1, 53)), b"one more");
        probe.inside.send(&next);
        if soft {
            let seen = probe.outside.expect("a datagram under the other address");
            assert_ne!(seen.source().address, first[0].address);
        } else {
            probe.silence();
        }
        for (port, external) in (5000..).zip(first) {
            probe.assert_udp_in(at(E1, 53), external, at(S1, port));
        }
    }
}

#[test]
fn external_addresses_need_not_be_contiguous() {
    let _proof = proves(&["RFC6888-3"]);
    let probe = Probe::start(Setup::new().addresses("192.0.2.1, 192.0.2.77, 192.0.2.80/30"));
    let mut used = std::collections::BTreeSet::new();
    for host in 20..120 {
        let inside = at(std::net::Ipv4Addr::new(10, 0, 0, host), 5000);
        let external = probe.open_udp(inside, at(E1, 53));
        probe.assert_udp_in(at(E1, 53), external, inside);
        used.insert(external.address.octets()[3]);
    }
    // 100 hosts over 6 addresses: an unused address has a probability of 10^-7.
    assert_eq!(Vec::from_iter(used), [1, 77, 80, 81, 82, 83]);
}

#[test]
fn outside_host_with_a_private_address_is_distinguished_or_refused() {
    let _proof = proves(&["UDP-7"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    // An outside host with S1's address, and one with another private address.
    for source in [S1, S2] {
        probe.udp_in(at(source, 53), external);
        probe.udp_in(at(source, 53), F);
        probe.silence();
    }
    probe.assert_udp_in(at(E1, 53), external, at(S1, 5000));
    // natbox rejects external addresses within the inside prefixes.
    let overlapping = "name: x\ninside: { interface: lan0, prefixes: [192.0.2.0/24] }\nuplinks: [{ interface: wan0, addresses: [192.0.2.1] }]\n";
    let path = std::env::temp_dir().join(format!("natbox-overlap-{}.yaml", std::process::id()));
    std::fs::write(&path, overlapping).unwrap();
    let output = std::process::Command::new(crate::single_box::NATBOX)
        .args(["check", "--config", path.to_str().unwrap()])
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("192.0.2.1"), "{output:?}");
}

#[test]
fn behaviour_is_the_same_for_the_second_and_third_host_on_a_port() {
    let _proof = proves(&["UDP-11"]);
    for (filtering, passes) in
        [("endpoint-independent", 3), ("address-dependent", 2), ("address-and-port-dependent", 1)]
    {
        let probe = Probe::start(Setup::new().nat(&format!("filtering: {filtering}")));
        for host in [S1, S2, S3] {
            let external = probe.open_udp(at(host, 5000), at(E1, 53));
            assert_eq!(probe.open_udp(at(host, 5000), at(E2, 54)), external, "{filtering}");
        }
        let externals = [S1, S2, S3].map(|host| probe.open_udp(at(host, 6000), at(E1, 53)));
        for (host, external) in [S1, S2, S3].into_iter().zip(externals) {
            for (number, from) in [at(E1, 53), at(E1, 99), at(E2, 53)].into_iter().enumerate() {
                if number < passes {
                    probe.assert_udp_in(from, external, at(host, 6000));
                } else {
                    probe.assert_udp_refused(from, external);
                }
            }
        }
    }
}

#[test]
fn forward_keeps_the_endpoint_of_the_client() {
    let _proof = proves(&["FWD-1"]);
    let probe = Probe::plain();
    let client = at(E1, 4444);
    let question = builder::udp(builder::tuple(Protocol::UDP, (E1, 4444), (G, 8080)), b"question");
    probe.outside.send(&question);
    assert_carried(&question, &probe.inside.expect("the question"), client, F_TARGET);
    let answer = builder::udp(builder::tuple(Protocol::UDP, (S1, 80), (E1, 4444)), b"answer");
    probe.inside.send(&answer);
    assert_carried(&answer, &probe.outside.expect("the answer"), F, client);
    let mut connection = probe.connect_in(client, F);
    assert_eq!((connection.inside, connection.inside_peer), (F_TARGET, client));
    probe.assert_open(&mut connection);
}

#[test]
fn range_forward_keeps_its_offset() {
    let _proof = proves(&["FWD-2"]);
    let probe = Probe::plain();
    let mut targets = HashSet::new();
    for port in 9000..=9015 {
        let target = at(S2, 7000 + port - 9000);
        probe.assert_udp_in(at(E1, 1000), at(G, port), target);
        assert_eq!(probe.connect_in(at(E1, 1000), at(G, port)).inside, target);
        assert!(targets.insert(target));
    }
    for port in [8999, 9016] {
        probe.udp_in(at(E1, 1000), at(G, port));
        probe.syn_in(at(E1, 1000), at(G, port));
        probe.silence();
    }
}

#[test]
fn server_sends_from_its_published_endpoint() {
    let _proof = proves(&["FWD-3"]);
    let probe = Probe::plain();
    assert_eq!(probe.open_udp(F_TARGET, at(E2, 999)), F);
    probe.assert_udp_in(at(E2, 999), F, F_TARGET);
    let mut connection = probe.connect_out(F_TARGET, at(E2, 999));
    assert_eq!(connection.external, F);
    probe.assert_open(&mut connection);
    assert_eq!(probe.open_udp(at(S2, 7003), at(E2, 999)), at(G, 9003));
}

#[test]
fn published_ports_are_never_dynamic() {
    let _proof = proves(&["FWD-4"]);
    let setup = || Setup::new().nat("ports: 9014-9017, reject_with: none");
    let probe = Probe::start(setup());
    let mut taken = HashSet::new();
    for port in 0..2 {
        taken.insert(probe.open_udp(at(S1, 5000 + port), at(E1, 53)).port);
    }
    assert_eq!(taken, HashSet::from([9016, 9017]));
    probe.inside.send(&builder::udp(builder::tuple(Protocol::UDP, (S1, 5002), (E1, 53)), b""));
    probe.silence();
    // A new UDP forward replaces a mapping of the same port. The TCP mapping of the same number
    // continues.
    let mut connections: Vec<_> =
        (0..2).map(|port| probe.connect_out(at(S1, 6000 + port), at(E1, 80))).collect();
    probe.write(
        &setup().forward(
            "name: new, protocol: udp, port: 9016, address: 192.0.2.1, to: '10.0.0.13:16'",
        ),
    );
    let reloaded = probe.with_box(|running| running.reload());
    assert_eq!((reloaded.changed, reloaded.sessions_ended), (vec!["forwards".to_owned()], 1));
    probe.assert_udp_in(at(E2, 53), at(G, 9016), at(S3, 16));
    for connection in &mut connections {
        probe.assert_open(connection);
    }
    assert!(probe.log().contains("reloaded"), "{}", probe.log());
}

#[test]
fn forwarded_connections_survive_a_killed_box() {
    let _proof = proves(&["FWD-5"]);
    let probe = Probe::plain();
    let mut first = probe.connect_in(at(E1, 4444), F);
    let mut second = probe.connect_in(at(E2, 4445), F);
    probe.kill();
    probe.launch();
    // One continues from outside, one from inside.
    let data = TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0);
    let seen = probe.tcp_in(&first.by_outside(data, b"on"));
    assert_eq!((seen.source(), seen.destination()), (first.outside, F_TARGET));
    first.outside_next += 2;
    probe.assert_open(&mut first);
    probe.assert_open(&mut second);
}

#[test]
fn whole_address_forward_carries_every_protocol() {
    let _proof = proves(&["FWD-6"]);
    let probe = Probe::start(
        Setup::new()
            .pool()
            .forward("name: whole, protocol: any, address: 192.0.2.2, to: 10.0.0.12"),
    );
    // SCTP has no pseudo header: its bytes must not change.
    for protocol in [47, 50, 132, 253] {
        let body = [0x12, 0x34, 0x56, 0x78, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let inbound = builder::other(Protocol(protocol), E1, G2, &body);
        probe.outside.send(&inbound);
        assert_carried(
            &inbound,
            &probe.inside.expect("a packet of another protocol"),
            at(E1, 0),
            at(S2, 0),
        );
        let outbound = builder::other(Protocol(protocol), S2, E2, &body);
        probe.inside.send(&outbound);
        assert_carried(
            &outbound,
            &probe.outside.expect("a packet of another protocol"),
            at(G2, 0),
            at(E2, 0),
        );
    }
    for port in [1, 80, 1023, 1024, 8080, 65535] {
        probe.assert_udp_in(at(E1, 53), at(G2, port), at(S2, port));
        assert_eq!(probe.open_udp(at(S2, port), at(E2, 53)), at(G2, port));
        assert_eq!(probe.connect_in(at(E1, port), at(G2, port)).inside, at(S2, port));
    }
    let question = builder::echo(E1, G2, QueryKind::EchoRequest, 99, 1, b"ping");
    probe.outside.send(&question);
    assert_carried(&question, &probe.inside.expect("an echo request"), at(E1, 99), at(S2, 0));
    assert_eq!(probe.open_ping(at(S2, 5), E1), at(G2, 5));
}

#[test]
fn multicast_broadcast_and_link_local_are_never_translated() {
    let _proof = proves(&["MAP-1"]);
    let probe = Probe::plain();
    probe.assert_alive();
    let before = probe.sessions();
    for to in [
        [224, 0, 0, 251],
        [239, 1, 1, 1],
        [255, 255, 255, 255],
        [10, 0, 0, 255],
        [169, 254, 1, 1],
        [0, 1, 2, 3],
    ] {
        let to = Ipv4Addr::from(to);
        probe.inside.send(&builder::udp(builder::tuple(Protocol::UDP, (S1, 5000), (to, 53)), b"x"));
        probe.inside.send(&builder::tcp(
            builder::tuple(Protocol::TCP, (S1, 5000), (to, 53)),
            TcpFlags::SYN,
            1,
            0,
            &[],
            b"",
        ));
    }
    for from in [[169, 254, 1, 1], [0, 1, 2, 3], [224, 0, 0, 251]] {
        probe.udp_in(at(Ipv4Addr::from(from), 53), F);
        probe.syn_in(at(Ipv4Addr::from(from), 53), F);
    }
    assert!(probe.inside.drain().iter().all(|seen| seen.destination() != F_TARGET));
    assert_eq!(probe.outside.drain(), []);
    // The kernel itself answers some of these.
    probe.inside.drain();
    probe.assert_alive();
    assert_eq!(probe.sessions(), before);
}

#[test]
fn reload_keeps_allowed_sessions_and_ends_the_others() {
    let _proof = proves(&["MAP-2"]);
    let probe = Probe::plain();
    let mut published = probe.connect_in(at(E1, 4444), F);
    let mut outbound = probe.connect_out(at(S2, 5000), at(E1, 80));
    probe.write(&Setup::new().forward(
        "name: other, protocol: tcp, port: 1234, address: 192.0.2.1, to: '10.0.0.13:1234'",
    ));
    assert_eq!(probe.with_box(|running| running.reload()).sessions_ended, 0);
    probe.assert_open(&mut published);
    probe.assert_open(&mut outbound);
    assert_eq!(probe.connect_in(at(E1, 1), at(G, 1234)).inside, at(S3, 1234));
    // Without the forwards, and without outbound rules.
    probe.write(&Setup::new().no_forwards().outbound(&[]).nat("reject_with: none"));
    assert_eq!(probe.with_box(|running| running.reload()).sessions_ended, 3);
    for connection in [&published, &outbound] {
        probe.inside.send(&connection.by_inside(TcpFlags::ACK, b"on"));
        probe.outside.send(&connection.by_outside(TcpFlags::ACK, b"on"));
        probe.silence();
    }
    // A wrong file, or a change that needs a restart, changes nothing.
    for bad in [Setup::new().nat("hairpin: perhaps"), Setup::new().limits("sessions: 128k")] {
        probe.write(&bad);
        assert!(probe.with_box(|running| running.try_reload()).is_err());
        probe.syn_in(at(E1, 4444), F);
        probe.silence();
    }
    probe.write(&Setup::new());
    probe.with_box(|running| running.reload());
    probe.connect_in(at(E1, 4444), F);
}

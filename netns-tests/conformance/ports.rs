//! External ports: their owners, their choice, and their exhaustion.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::proves;
use crate::probe::{E1, E2, G, Probe, S1, S2, S3, Setup, at, syn, udp};

#[test]
fn no_two_inside_endpoints_share_an_external_port() {
    let _proof = proves(&["UDP-3", "TCP-7"]);
    let probe = Probe::start(Setup::new().nat("ports: 40000-40099, reject_with: none"));
    let (mut datagrams, mut connections) = (HashMap::new(), HashMap::new());
    for number in 0..50 {
        for host in [S1, S2] {
            let inside = at(host, 5000 + number);
            assert_eq!(datagrams.insert(probe.open_udp(inside, at(E1, 53)), inside), None);
            assert_eq!(
                connections.insert(probe.syn_out(inside, at(E1, 80)).source(), inside),
                None
            );
        }
    }
    assert!(datagrams.keys().all(|external| (40_000..=40_099).contains(&external.port)));
    probe.inside.send(&udp(at(S3, 5000), at(E1, 53), b"hello"));
    probe.inside.send(&syn(at(S3, 5000), at(E1, 80)));
    probe.silence();
    for (external, inside) in datagrams {
        probe.assert_udp_in(at(E1, 53), external, inside);
    }
}

#[test]
fn ports_stay_below_or_above_1024_while_the_range_allows() {
    let _proof = proves(&["UDP-3a"]);
    let probe = Probe::start(Setup::new().nat("ports: 512-2047"));
    for port in [500, 1, 1023, 0x0155] {
        let external = probe.open_udp(at(S3, port), at(E1, 53));
        assert!(external.port < 1024, "{port} left as {external}");
    }
    for port in (1024..1400).chain([65_535]) {
        assert!(probe.open_udp(at(S3, port), at(E1, 53)).port >= 1024);
    }
    assert!(probe.syn_out(at(S3, 1024), at(E1, 80)).source().port >= 1024);
    // All of the 1,024 high ports are used. Then a high port is refused, and no port below 1024 is
    // used instead.
    for port in 2000..2000 + 1024 - 377 {
        assert!(probe.open_udp(at(S2, port), at(E1, 53)).port >= 1024);
    }
    probe.inside.send(&udp(at(S2, 60_000), at(E1, 53), b"hello"));
    assert_eq!(probe.outside.drain(), []);
    probe.inside.drain();
    probe.assert_alive();
}

#[test]
fn udp_ports_keep_their_parity_unless_configured_otherwise() {
    let _proof = proves(&["UDP-4", "RFC7857-8"]);
    let probe = Probe::plain();
    for number in 0..500 {
        let port = 5000 + number;
        assert_eq!(probe.open_udp(at(S1, port), at(E1, 53)).port % 2, port % 2);
        assert_eq!(probe.open_udp(at(S2, port), at(E1, 53)).port % 2, port % 2);
    }
    let probe = Probe::start(Setup::new().nat("port_parity: false"));
    let odd = (0..200)
        .filter(|number| probe.open_udp(at(S1, 5000 + 2 * number), at(E1, 53)).port % 2 == 1)
        .count();
    // Of 200 fair coins, fewer than 50 or more than 150 heads have a probability of 10^-12.
    assert!((50..=150).contains(&odd), "{odd} of 200 even ports became odd");
}

#[test]
fn external_ports_cannot_be_predicted() {
    let _proof = proves(&["RFC7857-9", "SEC-4"]);
    let take = || {
        let probe = Probe::plain();
        let ports: Vec<i64> = (0..1000)
            .map(|number| {
                i64::from(probe.syn_out(at(S1, 10_000 + number), at(E1, 80)).source().port)
            })
            .collect();
        ports
    };
    let (ports, again) = (take(), take());
    assert_ne!(ports, again, "a restart does not repeat the sequence");
    let steps: HashSet<i64> = ports.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.len() > 900, "steps repeat: {} different ones", steps.len());
    let low = ports.iter().filter(|port| **port < 33_280).count();
    assert!((400..=600).contains(&low), "{low} of 1000 in the lower half of the range");
    let mean = ports.iter().sum::<i64>() as f64 / 1000.0;
    let covariance: f64 =
        ports.windows(2).map(|pair| (pair[0] as f64 - mean) * (pair[1] as f64 - mean)).sum::<f64>();
    let variance: f64 = ports.iter().map(|port| (*port as f64 - mean).powi(2)).sum::<f64>();
    assert!((covariance / variance).abs() < 0.15, "serial correlation {}", covariance / variance);
}

#[test]
fn a_freed_port_is_not_reused_by_others_during_the_delay() {
    let _proof = proves(&["RFC6888-8"]);
    // By default filtering knows every remote endpoint, and no delay is needed. With this filtering
    // any remote may answer, so that ports are delayed.
    let setup = Setup::new()
        .nat("ports: 40000-40001, filtering: endpoint-independent, port_parity: false, reject_with: none")
        .timeouts("udp: 1s, port_reuse_delay: 4s");
    let probe = Probe::start(setup);
    let first = probe.open_udp(at(S1, 5000), at(E1, 53));
    let second = probe.open_udp(at(S1, 5001), at(E1, 53));
    assert_ne!(first, second);
    wait_until("both have ended", || probe.sessions() == 0);
    let freed = Instant::now();
    probe.inside.send(&udp(at(S2, 5000), at(E1, 53), b"hello"));
    probe.silence();
    assert_eq!(
        probe.open_udp(at(S1, 5000), at(E1, 53)),
        first,
        "its last holder has it back at once"
    );
    wait_until("the other one may have the other port", || {
        probe.inside.send(&udp(at(S2, 5000), at(E1, 53), b"hello"));
        probe.inside.send(&udp(at(S1, 5000), at(E1, 53), b"hello"));
        let seen = [
            probe.outside.within(Duration::from_millis(300)),
            probe.outside.within(Duration::from_millis(100)),
        ];
        seen.iter().flatten().any(|seen| seen.source() == second)
    });
    assert!(freed.elapsed() > Duration::from_millis(2500), "after {:?} already", freed.elapsed());
}

#[test]
fn first_and_last_ports_of_the_port_space_work() {
    let _proof = proves(&["PORT-1"]);
    for ports in ["1-1", "1023-1024", "65535-65535"] {
        let probe = Probe::start(Setup::new().nat(&format!("ports: {ports}, port_parity: false")));
        let external = probe.open_udp(at(S3, 5000), at(E1, 53));
        probe.assert_udp_in(at(E1, 53), external, at(S3, 5000));
        let mut connection = probe.connect_out(at(S3, 5000), at(E1, 80));
        probe.assert_open(&mut connection);
        assert!(ports.contains(&external.port.to_string()));
    }
    let probe = Probe::plain();
    // Source port 0 is a port like any other. Destination port 0 is never mapped.
    let external = probe.open_udp(at(S1, 0), at(E1, 53));
    probe.assert_udp_in(at(E1, 53), external, at(S1, 0));
    probe.assert_udp_refused(at(E1, 53), at(G, 0));
    probe.assert_udp_in(at(E1, 0), at(G, 8080), at(S1, 80));
}

#[test]
fn exhausted_ports_cost_little_and_one_freed_port_serves_one_mapping() {
    let _proof = proves(&["PORT-2"]);
    let setup =
        Setup::new().no_forwards().nat("ports: 40000-40009, reject_with: none").timeouts("udp: 6s");
    let probe = Probe::start(setup);
    let kept: Vec<_> = (0..9).map(|port| probe.open_udp(at(S1, 5000 + port), at(E1, 53))).collect();
    let spare = probe.open_udp(at(S1, 5009), at(E1, 53));
    // One second of new flows at full speed. Hosts that have a port lose nothing.
    let started = Instant::now();
    let mut tried = 0_u32;
    while started.elapsed() < Duration::from_millis(1000) {
        for _ in 0..100 {
            probe.inside.send(&udp(at(S2, 1024 + (tried % 60_000) as u16), at(E2, 53), b"hello"));
            tried += 1;
        }
        for (port, external) in (5000..).zip(&kept) {
            assert_eq!(probe.open_udp(at(S1, port), at(E1, 53)), *external);
        }
        let asked = Instant::now();
        probe.status();
        assert!(asked.elapsed() < Duration::from_millis(500), "status took {:?}", asked.elapsed());
    }
    assert!(tried > 1000);
    assert!(probe.dropped("ports-exhausted") > 1000);
    let keep = || {
        for (port, external) in (5000..).zip(&kept) {
            assert_eq!(probe.open_udp(at(S1, port), at(E1, 53)), *external);
        }
    };
    // The spare mapping ends, and exactly one further mapping can be made.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        keep();
        if probe.status().mappings == 9 {
            break;
        }
        assert!(Instant::now() < deadline, "the spare mapping never ends");
        std::thread::sleep(Duration::from_millis(100));
    }
    keep();
    assert_eq!(probe.open_udp(at(S3, 1), at(E1, 53)), spare);
    probe.inside.send(&udp(at(S3, 2), at(E1, 53), b"hello"));
    assert_eq!(probe.outside.drain(), []);
}

#[test]
fn ports_overlap_for_different_destinations_if_configured() {
    let _proof = proves(&["RFC7857-3", "RFC6888-13"]);
    let setup = Setup::new().nat("ports: 40000-40001, port_parity: false");
    let setup = setup.nat("mapping: address-and-port-dependent, port_overlapping: true");
    let probe = Probe::start(setup);
    let mut flows = Vec::new();
    for number in 0..100 {
        let to = at(E1, 1000 + number);
        let of = |host| probe.open_udp(at(host, 5000 + number), to);
        let pair = [of(S1), of(S2)];
        assert_ne!(pair[0], pair[1], "towards one destination they are apart");
        flows.push((to, number, pair));
    }
    for (to, number, [first, second]) in flows {
        probe.assert_udp_in(to, first, at(S1, 5000 + number));
        probe.assert_udp_in(to, second, at(S2, 5000 + number));
    }
    // Without the mode a port serves one mapping.
    let setup = Setup::new().nat("ports: 40000-40001, port_parity: false, reject_with: none");
    let probe = Probe::start(setup.nat("mapping: address-and-port-dependent"));
    probe.open_udp(at(S1, 5000), at(E1, 1));
    probe.open_udp(at(S1, 5000), at(E1, 2));
    probe.inside.send(&udp(at(S1, 5000), at(E1, 3), b"hello"));
    probe.silence();
}

#[test]
fn a_port_is_kept_where_it_can_be() {
    let _proof = proves(&["PORT-4"]);
    let probe = Probe::start(Setup::new().nat("port_preservation: [500, 3074-3080, 8080]"));
    let (first, second) = (at(S1, 3074), at(S2, 3074));
    let external = probe.open_udp(first, at(E1, 53));
    assert_eq!(external, at(G, 3074));
    assert_eq!(probe.open_udp(first, at(E2, 54)), external, "towards every destination");
    let other = probe.open_udp(second, at(E1, 53));
    assert_ne!(other, external, "the first host has it");
    probe.assert_udp_in(at(E1, 53), external, first);
    probe.assert_udp_in(at(E1, 53), other, second);
    assert_eq!(probe.open_udp(at(S3, 500), at(E1, 500)), at(G, 500), "outside of nat.ports");
    assert_eq!(probe.syn_out(at(S3, 3080), at(E1, 80)).source(), at(G, 3080));
    assert_ne!(probe.open_udp(at(S3, 8080), at(E1, 53)).port, 8080, "a forward has it");
    let same = (5000..5100).filter(|port| probe.open_udp(at(S3, *port), at(E1, 53)).port == *port);
    assert!(same.count() < 5, "the other ports are random");

    for ports in ["1024-65535", "2000-65535"] {
        let nat = format!("port_preservation: true, ports: {ports}");
        let probe = Probe::start(Setup::new().nat(&nat));
        // NTP, IPsec and games among them (RFC 4787 REQ-3a).
        for port in [1, 123, 500, 1023, 1024, 3074, 4500, 65_535].into_iter().chain(2000..2100) {
            assert_eq!(probe.open_udp(at(S1, port), at(E1, 53)), at(G, port), "{ports}");
        }
        let other = probe.open_udp(at(S2, 500), at(E1, 500));
        assert!(other.port >= 1024, "the first host has 500: {other:?}");
        probe.assert_udp_in(at(E1, 500), other, at(S2, 500));
        assert_ne!(probe.open_udp(at(S3, 8080), at(E1, 53)).port, 8080, "a forward has it");
        assert_eq!(probe.syn_out(at(S3, 22), at(E1, 80)).source(), at(G, 22));
    }
}

/// Waits until a condition holds. Fails after [`TIMEOUT`].
#[track_caller]
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", TIMEOUT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Longest wait for a condition, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

//! Forged sources: a sender outside takes neither the ports nor the records of the other hosts.

use std::net::Ipv4Addr;

use natbox::packet::{Protocol, TcpFlags, builder};

use crate::probe::{E1, E2, G, Probe, S1, S2, SYN_ACK, Setup, at, segment, udp};

/// Returns a source that no other packet of a flood has.
fn forged(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// Sessions on every port of the exposed address leave ports to the other hosts.
#[test]
fn a_flood_to_every_port_of_an_exposed_host_leaves_ports_to_the_others() {
    let setup = Setup::new()
        .no_forwards()
        .nat("ports: 40000-40063")
        .forward("name: all, protocol: any, address: 192.0.2.1, to: 10.0.0.11");
    let probe = Probe::start(setup);
    for number in 0..64 {
        let from = at(forged(number), 7);
        probe.assert_udp_in(from, at(G, 40_000 + number), at(S1, 40_000 + number));
    }
    for port in 5000..5016 {
        assert_eq!(probe.open_udp(at(S2, port), at(E1, 53)).address, G);
    }
    // Protocols without ports: that of the other host, then the exposed host's.
    let gre = Protocol(47);
    probe.inside.send(&builder::other(gre, S2, E1, b"from the other host"));
    assert_eq!(probe.outside.expect("GRE").source().address, G);
    for (remote, inside) in [(E1, S2), (E2, S1)] {
        probe.outside.send(&builder::other(gre, remote, G, b"from outside"));
        assert_eq!(probe.inside.expect("GRE").destination().address, inside);
    }
    // The exposed host's TCP, in both directions from the same port.
    probe.outside.send(&segment(at(E1, 7), at(G, 443), TcpFlags::SYN, 1, 0));
    assert_eq!(probe.inside.expect("a SYN").destination(), at(S1, 443));
    probe.inside.send(&segment(at(S1, 443), at(E1, 7), SYN_ACK, 1, 2));
    assert_eq!(probe.outside.expect("its answer").source(), at(G, 443));
    assert_eq!(probe.dropped("ports-exhausted"), 0);
}

/// A mapping that admits every sender gets a share of the table at most.
#[test]
fn a_flood_to_a_mapping_that_admits_all_leaves_the_table_to_the_others() {
    let setup = Setup::new().nat("filtering: endpoint-independent").limits("sessions: 2000");
    let probe = Probe::start(setup);
    let mapped = probe.open_udp(at(S2, 5000), at(E1, 53));
    for number in 0..250 {
        probe.assert_udp_in(at(forged(number), 7), mapped, at(S2, 5000));
    }
    for number in 250..300 {
        probe.outside.send(&udp(at(forged(number), 7), mapped, b"one more"));
    }
    probe.assert_dropped("inbound-limit", 50);
    assert!(probe.sessions() <= 252, "the flood fills the table");
    // The flooded host and another one open sessions.
    for host in [S1, S2] {
        for port in 6000..6020 {
            assert_eq!(probe.open_udp(at(host, port), at(E2, 53)).address, G);
        }
    }
    probe.assert_alive();
}

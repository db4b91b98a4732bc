//! Packets that no correct stack sends.

use std::net::Ipv4Addr;

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{
    E1, E2, F, F_TARGET, G, Probe, S1, S2, Setup, Wire, assert_carried, at, cut, segment, udp, with,
};

#[test]
fn bytes_beyond_the_total_length_are_removed() {
    let _proof = proves(&["MAL-2"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let identifier = probe.open_ping(at(S1, 77), E1);
    let connection = probe.connect_in(at(E1, 4444), F);
    let sent = udp(external, at(E1, 53), b"sent");
    let inward = [
        (udp(at(E1, 53), external, b"answer"), at(E1, 53), at(S1, 5000)),
        (connection.by_outside(TcpFlags::ACK, b"data"), at(E1, 4444), F_TARGET),
        (
            builder::echo(E1, G, QueryKind::EchoReply, identifier.port, 1, b"pong"),
            at(E1, 0),
            at(S1, 77),
        ),
    ];
    for (packet, source, destination) in inward {
        probe.outside.send(&[&packet[..], b"0123456789"].concat());
        // The wires check that no byte follows the end.
        assert_carried(&packet, &probe.inside.expect("in"), source, destination);
    }
    probe.outside.send(&[&builder::icmp_error(3, 3, E1, G, &sent)[..], b"0123456789"].concat());
    assert_eq!(probe.inside.expect("an error").quote().expect("a quote").payload(), b"sent");
    let out = udp(at(S1, 5000), at(E1, 53), b"again");
    probe.inside.send(&[&out[..], b"0123456789"].concat());
    assert_carried(&out, &probe.outside.expect("out"), external, at(E1, 53));
}

#[test]
fn malformed_transport_headers_open_no_session() {
    let _proof = proves(&["MAL-3"]);
    let probe = Probe::plain();
    let syn = TcpFlags::SYN;
    // Once as first packets, then within live sessions.
    for known in [false, true] {
        let (client, inside, remote) = (at(E1, 4444), at(S1, 5000), at(E1, 53));
        if known {
            probe.open_udp(inside, remote);
            probe.connect_in(client, F);
            probe.connect_out(inside, remote);
            probe.open_ping(at(S1, 77), E1);
        }
        let before = probe.status();
        let ways: [(&Wire, [Vec<u8>; 3]); 2] = [
            (
                &probe.inside,
                [
                    udp(inside, remote, b"payload"),
                    segment(inside, remote, syn, 1000, 1),
                    builder::echo(S1, E1, QueryKind::EchoRequest, 77, 1, b""),
                ],
            ),
            (
                &probe.outside,
                [
                    udp(client, F, b"payload"),
                    segment(client, F, syn, 1000, 1),
                    builder::echo(E1, G, QueryKind::EchoReply, 77, 1, b""),
                ],
            ),
        ];
        let mut sent = 0;
        for (wire, [datagram, segment, echo]) in ways {
            let broken = [
                with(segment.clone(), &[(32, 0x40)]),
                with(segment.clone(), &[(32, 0x00)]),
                with(segment.clone(), &[(32, 0xf0)]),
                cut(segment.clone(), 20),
                cut(segment.clone(), 39),
                with(datagram.clone(), &[(24, 0), (25, 7)]),
                with(datagram.clone(), &[(24, 0), (25, 0)]),
                with(datagram.clone(), &[(24, 0), (25, 16)]),
                cut(datagram.clone(), 20),
                cut(datagram.clone(), 27),
                cut(echo.clone(), 27),
                cut(echo, 20),
            ];
            sent += broken.len() as u64;
            broken.iter().for_each(|packet| wire.send(packet));
        }
        probe.silence();
        let after = probe.status();
        let dropped = |status: &natbox::api::Status| {
            status.drops.get("bad-transport-header").copied().unwrap_or(0)
        };
        assert_eq!(dropped(&after) - dropped(&before), sent, "{:?}", after.drops);
        let beats = u32::from(!known);
        assert_eq!(after.sessions.now, before.sessions.now + beats);
        assert_eq!(after.mappings, before.mappings);
    }
}

#[test]
fn invalid_tcp_flags_open_no_session() {
    let _proof = proves(&["MAL-4"]);
    let probe = Probe::start(Setup::new().nat("reject_with: none").timeouts("tcp_transitory: 60s"));
    let created = || probe.status().sessions.created;
    for bits in 0..64_u8 {
        let flags = TcpFlags(bits);
        let port = 1000 + u16::from(bits);
        let (opens, reveals) = (
            flags.syn() && !flags.ack() && !flags.fin() && !flags.rst(),
            flags.ack() && bits & 0b111 == 0,
        );
        // Outbound: only a SYN opens a session.
        let before = created();
        probe.inside.send(&segment(at(S2, port), at(E1, 80), flags, 1000, 1));
        assert_eq!(
            probe
                .outside
                .within(std::time::Duration::from_millis(if opens { 5000 } else { 30 }))
                .is_some(),
            opens,
            "{bits:#08b}"
        );
        // A worker publishes its counters after it has sent the packets.
        wait_until("the session is counted", || created() - before >= u64::from(opens));
        assert_eq!(created() - before, u64::from(opens), "{bits:#08b}");
        // To a forward: an ACK reveals a connection that is older than the box. All segments pass
        // to the server.
        let before = created();
        probe.outside.send(&segment(at(E1, port), F, flags, 1000, 1));
        let seen = probe.inside.expect("a segment to a forward");
        assert_eq!((seen.flags(), seen.destination()), (flags, F_TARGET));
        assert_eq!(created() - before, u64::from(opens || reveals), "{bits:#08b}");
    }
    // Within a session they pass and end nothing.
    let mut connection = probe.connect_in(at(E2, 7), F);
    for bits in 0..64_u8 {
        let flags = TcpFlags(bits);
        if flags.rst() || flags.fin() && !flags.syn() {
            continue;
        }
        probe.outside.send(&connection.by_outside(flags, b""));
        assert_eq!(probe.inside.expect("a segment of a session").flags(), flags);
        probe.assert_open(&mut connection);
    }
    // They do not reopen a closed session.
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    probe.tcp_in(&connection.by_outside(fin, b""));
    probe.tcp_out(&connection.by_inside(fin, b""));
    let syn_fin = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0);
    let before = created();
    probe.outside.send(&connection.by_outside(syn_fin, b""));
    probe.inside.drain();
    assert_eq!(created(), before);
}

#[test]
fn invalid_source_addresses_are_dropped() {
    let _proof = proves(&["MAL-5"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let before = probe.sessions();
    let sources = [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(0, 0, 0, 0),
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(239, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::BROADCAST,
        G,
        S1,
        S2,
    ];
    for source in sources {
        for to in [F, external, at(G, 9000)] {
            probe.outside.send(&udp(at(source, 53), to, b"from nowhere"));
            probe.outside.send(&segment(at(source, to.port), to, TcpFlags::SYN, 1000, 1));
        }
    }
    // Errors with the box's own address as source, about a packet that the box has sent.
    let sent = udp(external, at(E1, 53), b"hello");
    for (kind, code) in [(3, 3), (3, 1), (11, 0)] {
        probe.outside.send(&builder::icmp_error(kind, code, G, G, &sent));
    }
    // From inside: the box's own external address, and addresses of no host.
    for source in [G, Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST]
    {
        probe.inside.send(&udp(at(source, 5000), at(E1, 53), b"from nowhere"));
        probe.inside.send(&udp(at(source, 5000), F, b"from nowhere"));
    }
    probe.silence();
    assert_eq!(probe.sessions(), before + 1, "the heartbeat's alone");
}

#[test]
fn other_protocols_are_tracked_by_address_or_dropped() {
    let _proof = proves(&["MAL-7"]);
    let probe = Probe::start(Setup::new().nat("reject_with: none"));
    let known = [Protocol::ICMP, Protocol::TCP, Protocol::UDP];
    // The first bytes look like the ports of a forward.
    let payload = [0x1f, 0x90, 0x1f, 0x90, 0, 8, 0, 0];
    let packet = |protocol, source: Ipv4Addr, destination: Ipv4Addr| {
        let tuple = builder::tuple(protocol, (source, 8080), (destination, 8080));
        match protocol {
            // Their checksums cover the addresses.
            Protocol::UDP_LITE => builder::udp_lite(tuple, 8, &payload),
            Protocol::DCCP => builder::dccp(tuple, 0, &payload),
            _ => builder::other(protocol, source, destination, &payload),
        }
    };
    for protocol in (0..=255).map(Protocol).filter(|protocol| !known.contains(protocol)) {
        // Inbound without a session: dropped.
        probe.outside.send(&packet(protocol, E2, G));
        // Outbound: the first host to use a remote address with a protocol has that pair alone.
        let out = packet(protocol, S1, E1);
        for _ in 0..2 {
            probe.inside.send(&out);
            assert_carried(&out, &probe.outside.expect("out"), at(G, 0), at(E1, 0));
        }
        let back = packet(protocol, E1, G);
        probe.outside.send(&back);
        assert_carried(&back, &probe.inside.expect("back"), at(E1, 0), at(S1, 0));
        // Another host, and another remote: distinguished, or dropped.
        probe.inside.send(&packet(protocol, S2, E1));
        probe.outside.send(&packet(protocol, E2, G));
    }
    probe.silence();
    wait_until("all are counted", || {
        (probe.dropped("address-conflict"), probe.dropped("no-mapping")) == (253, 2 * 253)
    });
}

/// Sends IPv6 packets and fragments into the TUN.
fn send_ipv6(probe: &Probe) -> anyhow::Result<()> {
    probe.natbox.sysctl("net/ipv6/conf/nb0/disable_ipv6", "0")?;
    let address = ["-6", "address", "replace", "fd00::1/64", "dev", "nb0", "nodad"];
    probe.natbox.ip(&address)?;
    let route = ["-6", "route", "replace", "fd00::2/128", "dev", "nb0", "mtu", "1280"];
    probe.natbox.ip(&route)?;
    let socket = probe.natbox.enter(|| std::net::UdpSocket::bind("[fd00::1]:8080"))??;
    for length in [0, 100, 1200, 5000] {
        for port in [1, 80, 8080, 65_000] {
            socket.send_to(&vec![7; length], ("fd00::2", port))?;
        }
    }
    Ok(())
}

#[test]
fn ipv6_packets_are_dropped_and_counted() {
    let _proof = proves(&["V6-1"]);
    let probe = Probe::plain();
    let before = probe.dropped("ipv6");
    let sessions = probe.sessions();
    // natbox switches IPv6 on its device off again, within a second.
    wait_until("all are counted", || {
        let _ = send_ipv6(&probe);
        probe.dropped("ipv6") - before >= 3 * 4 + 4 * 4
    });
    probe.silence();
    assert!(probe.sessions() <= sessions + 1, "no session but the heartbeat's");
    assert!(
        probe.status().drops.keys().all(|reason| reason == "ipv6"),
        "{:?}",
        probe.status().drops
    );
}

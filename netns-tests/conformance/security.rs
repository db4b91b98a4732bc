//! Attacks by an outside host or an inside neighbour. In all these tests the outside wire checks
//! every packet for private addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use super::proves;
use crate::probe::{
    E1, E2, F, F_TARGET, G, Probe, RX, S1, S2, SYN_ACK, Setup, assert_carried, at, segment, udp,
};

#[test]
fn only_inside_sources_leave_also_while_the_box_restarts() {
    let _proof = proves(&["SEC-1"]);
    let probe = Probe::start(Setup::new().nat("reject_with: none"));
    for source in [Ipv4Addr::new(8, 8, 8, 8), G, Ipv4Addr::new(10, 0, 1, 1), E2] {
        probe.inside.send(&udp(at(source, 5000), at(E1, 53), b"spoofed"));
        probe.inside.send(&segment(at(source, 5000), at(E1, 80), TcpFlags::SYN, 1, 0));
    }
    // Errors that an inside host writes with other source addresses are dropped.
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    probe.assert_udp_in(at(E1, 53), external, at(S1, 5000));
    let answer = udp(at(E1, 53), at(S1, 5000), b"answer");
    for source in ["10.0.1.1", "172.16.0.1", "169.254.1.1", "8.8.8.8", "192.0.2.1"] {
        probe.inside.send(&builder::icmp_error(3, 3, source.parse().unwrap(), E1, &answer));
        probe.inside.send(&builder::icmp_error(11, 0, source.parse().unwrap(), E1, &answer));
    }
    probe.silence();
    // While the box is killed, started and reloaded under load, the wire checks for private
    // addresses outside.
    let load = || {
        for port in 0..300 {
            probe.inside.send(&udp(at(S1, 5000 + port), at(E1, 53), b"load"));
            probe.inside.send(&segment(at(S2, 5000 + port), at(E1, 80), TcpFlags::SYN, 1, 0));
            while probe.outside.poll().is_some() {}
        }
    };
    for _ in 0..3 {
        load();
        probe.kill();
        load();
        probe.launch();
        load();
        probe.with_box(crate::single_box::RunningBox::reload);
    }
    load();
    probe.outside.drain();
    probe.inside.drain();
    probe.assert_alive();
}

#[test]
fn outside_packets_with_inside_addresses_are_dropped() {
    let _proof = proves(&["SEC-2"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let mapping = probe.status().mappings;
    probe.udp_in(at(E1, 53), at(S1, 5000));
    probe.udp_in(at(E1, 53), F_TARGET);
    probe.syn_in(at(E1, 7), F_TARGET);
    for source in [S2, S1, G, Ipv4Addr::new(10, 0, 0, 1)] {
        probe.udp_in(at(source, 53), F);
        probe.udp_in(at(source, 53), external);
        probe.syn_in(at(source, 7), F);
    }
    probe.silence();
    assert_eq!(probe.status().mappings, mapping);
}

#[test]
fn blind_segments_end_no_connection() {
    let _proof = proves(&["SEC-3"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s, tcp_syn: 1s"));
    let mut out = probe.connect_out(at(S1, 5000), at(E1, 80));
    let mut inward = probe.connect_in(at(E1, 4444), F);
    probe.assert_open(&mut out);
    probe.assert_open(&mut inward);
    let step = u32::from(builder::WINDOW) / 64;
    let reset_ack = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    for connection in [out, inward] {
        for number in 1..=64 {
            let blind = |flags, sequence| {
                segment(connection.outside, connection.external, flags, sequence, 0)
            };
            let next = connection.outside_next;
            probe.outside.send(&blind(TcpFlags::RST, next.wrapping_add(number * step)));
            probe.outside.send(&blind(TcpFlags::RST, next.wrapping_sub(number * step)));
            probe.outside.send(&blind(reset_ack, next.wrapping_add(number << 26)));
            probe.outside.send(&blind(fin, next.wrapping_sub(number << 25)));
            probe.outside.send(&blind(TcpFlags::SYN, next.wrapping_add(number * step)));
            probe.inside.drain_now();
        }
    }
    // To every port: a reset ends no session.
    for port in 0..=u16::MAX {
        probe.outside.send(&segment(
            at(E1, 80),
            at(G, port),
            TcpFlags::RST,
            u32::from(port) << 16,
            0,
        ));
        if port % 256 == 0 {
            probe.inside.drain_now();
        }
    }
    probe.inside.drain();
    std::thread::sleep(Duration::from_millis(2500));
    probe.assert_open(&mut out);
    probe.assert_open(&mut inward);
    assert_eq!(probe.syn_out(at(S1, 5000), at(E2, 80)).source(), out.external, "the same mapping");
}

/// The FIN of a half-closed connection counts only with the expected sequence and acknowledgement
/// numbers.
#[test]
fn blind_fin_closes_no_half_closed_connection() {
    let _proof = proves(&["SEC-3", "TCP-HC"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s"));
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    let mut connection = probe.connect_out(at(S1, 5000), at(E1, 80));
    probe.assert_open(&mut connection);
    probe.tcp_out(&connection.by_inside(fin, b""));
    connection.inside_next += 1;
    let next = connection.outside_next;
    let blind = |flags, distance: i32, acknowledgement| {
        let sequence = next.wrapping_add_signed(distance);
        probe.tcp_in(&segment(
            connection.outside,
            connection.external,
            flags,
            sequence,
            acknowledgement,
        ));
    };
    for distance in [-60_000, -3000, -5, 0, 5, 60_000] {
        blind(fin, distance, 0);
        blind(TcpFlags::FIN, distance, 0);
    }
    blind(fin, -3000, connection.inside_next);
    std::thread::sleep(Duration::from_millis(2000));
    assert_eq!(probe.tcp_in(&connection.by_outside(TcpFlags::ACK, b"late")).payload(), b"late");
}

/// A client that never saw the server's SYN-ACK must not keep a session for hours.
#[test]
fn client_that_never_saw_the_syn_ack_is_not_established() {
    let _proof = proves(&["FILT-2", "SEC-5", "TCP-5t"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s, tcp_syn: 1s"));
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    let guesses = [
        (TcpFlags::FIN, 0),
        (fin, 0),
        (fin, 123_456_789),
        (TcpFlags::ACK, 0),
        (TcpFlags::ACK, 123_456_789),
        (TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0), 3_000_000_000),
        (TcpFlags::PSH, 0),
        (TcpFlags(0), 0),
    ];
    for (number, (flags, acknowledgement)) in guesses.into_iter().enumerate() {
        let client = at(E1, 1000 + number as u16);
        probe.outside.send(&segment(client, F, TcpFlags::SYN, 1000, 0));
        probe.inside.expect("a SYN");
        probe.tcp_out(&segment(F_TARGET, client, SYN_ACK, 1_000_000, 1001));
        probe.outside.send(&segment(client, F, flags, 1001, acknowledgement));
        probe.inside.expect("a guess");
    }
    super::ports::wait_until("none of them is connected", || probe.sessions() == 0);
    assert_eq!(probe.status().totals["sessions_created"], guesses.len() as u64);
}

#[test]
fn syn_flood_keeps_no_client_from_the_server() {
    let _proof = proves(&["SEC-5"]);
    let probe = Probe::start(Setup::new().limits("sessions: 2000"));
    let mut established: Vec<_> =
        (0..20).map(|port| probe.connect_in(at(E2, 100 + port), F)).collect();
    let mut memory = 0;
    probe.inside.ignore(|seen| seen.source().address.octets()[0] == 11);
    for round in 0..100_u32 {
        for number in 0..300_u32 {
            let source = Ipv4Addr::from(0x0b00_0000 + round * 300 + number);
            probe.outside.send(&segment(at(source, 1024), F, TcpFlags::SYN, number, 0));
        }
        probe.inside.drain_until_quiet();
        let mut connection = probe.connect_in(at(E1, 5000 + round as u16), F);
        probe.assert_open(&mut connection);
        let number = round as usize % established.len();
        probe.assert_open(&mut established[number]);
        if round == 20 {
            memory = probe.resident();
        }
    }
    let grown = probe.resident().saturating_sub(memory);
    assert!(grown < 4096, "{grown} KiB more");
    for connection in &mut established {
        probe.assert_open(connection);
    }
}

#[test]
fn flood_of_an_inside_host_affects_only_that_host() {
    let _proof = proves(&["SEC-6"]);
    let probe = Probe::start(
        Setup::new().nat("reject_with: none").limits("sessions: 2000, sessions_per_host: 500"),
    );
    let mut connection = probe.connect_out(at(S2, 4000), at(E1, 80));
    probe.outside.ignore(|seen| seen.payload() == b"flood");
    for round in 0..50_u16 {
        for number in 0..300 {
            let to = at(E2, (round * 300 + number) | 1);
            probe.inside.send(&udp(at(S1, 1024 + number), to, b"flood"));
        }
        probe.outside.drain_until_quiet();
        let identifier = probe.open_ping(at(S2, round), E1);
        probe.pong_in(E1, identifier);
        assert_eq!(probe.inside.expect("a reply").destination().address, S2);
        let external = probe.open_udp(at(S2, 5000 + round), at(E1, 53));
        probe.assert_udp_in(at(E1, 53), external, at(S2, 5000 + round));
        probe.connect_out(at(S2, 5000 + round), at(E1, 80));
        probe.assert_open(&mut connection);
    }
    assert!(probe.dropped("host-session-limit") > 10_000);
}

#[test]
fn mapped_and_unmapped_ports_cannot_be_distinguished_from_outside() {
    let _proof = proves(&["SEC-7"]);
    for syn in ["drop", "delayed-reject"] {
        let setup = Setup::new().nat(&format!("unsolicited_syn: {syn}"));
        let probe = Probe::start(setup.limits("icmp_errors_per_host: 5"));
        let mapped = [
            probe.connect_out(at(S1, 5000), at(E1, 80)).external.port,
            probe.open_udp(at(S1, 5000), at(E1, 53)).port,
        ];
        let unmapped =
            [20_001, 20_001].map(|port| if mapped.contains(&port) { 20_003 } else { port });
        let mut answers = Vec::new();
        // One attacker for each kind, because the limits are per receiver.
        for (attacker, ports) in [(E2, mapped), (RX, unmapped)] {
            for number in 0..50 {
                let from = at(attacker, 1000 + number);
                let to = ports.map(|port| at(G, port));
                for flags in [TcpFlags::SYN, TcpFlags::ACK, SYN_ACK, TcpFlags::RST] {
                    probe.outside.send(&segment(from, to[0], flags, 1, 0));
                }
                probe.outside.send(&udp(from, to[1], b"there?"));
                probe.outside.send(&builder::echo(
                    attacker,
                    G,
                    QueryKind::EchoReply,
                    ports[1],
                    1,
                    b"",
                ));
            }
        }
        while let Some(seen) = probe.outside.within(Duration::from_millis(6800)) {
            answers.push(seen);
        }
        let errors_to =
            |attacker| answers.iter().filter(|seen| seen.destination().address == attacker).count();
        if syn == "drop" {
            assert_eq!(answers, []);
        } else {
            // Each gets one second's allowance, give or take the random cost of an error.
            assert!(
                (4..=7).contains(&errors_to(E2)) && (4..=7).contains(&errors_to(RX)),
                "{} {}",
                errors_to(E2),
                errors_to(RX)
            );
        }
        probe.silence();
    }
}

#[test]
fn hash_keys_differ_at_each_start() {
    let _proof = proves(&["SEC-8"]);
    // Two tables, as two starts of a box make them: keys that collide in one do not collide in the
    // other.
    let table = |secret: [u64; 4]| {
        let timeouts = natbox::nat::Timeouts {
            tcp_established: natbox::time::Span::seconds(10),
            tcp_transitory: natbox::time::Span::seconds(10),
            tcp_syn: natbox::time::Span::seconds(10),
            udp: natbox::time::Span::seconds(10),
            udp_dns: natbox::time::Span::seconds(10),
            icmp: natbox::time::Span::seconds(10),
            fragment: natbox::time::Span::seconds(10),
            port_reuse_delay: None,
        };
        let idle_timeouts = natbox::nat::IdleTimeouts::new(&timeouts);
        natbox::nat::Table::new(1000, 1, idle_timeouts, secret, natbox::time::Tick(0)).unwrap()
    };
    let (one, same, other) = (table([1, 2, 3, 4]), table([1, 2, 3, 4]), table([5, 6, 7, 8]));
    let key = |port| natbox::nat::Key::of(builder::tuple(Protocol::TCP, (E1, port), (G, 80)));
    let places = |table: &natbox::nat::Table| {
        (1..1000).map(|port| table.hash(key(port))).collect::<Vec<_>>()
    };
    assert!(places(&one) == places(&same) && places(&one) != places(&other));
    // Two processes choose different ports for the same flows.
    let ports = || {
        let probe = Probe::plain();
        (0..20)
            .map(|port| probe.syn_out(at(S1, 5000 + port), at(E1, 80)).source().port)
            .collect::<Vec<_>>()
    };
    assert_ne!(ports(), ports());
}

#[test]
fn payload_is_neither_read_nor_changed() {
    let _proof = proves(&["UDP-10", "UDP-10a", "TCP-6"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5060), at(E1, 5060));
    let mut connection = probe.connect_out(at(S1, 5000), at(E1, 21));
    let mappings = probe.status().mappings;
    let mut binary = S1.octets().to_vec();
    binary.extend(5060_u16.to_be_bytes());
    let payloads: [&[u8]; 5] = [
        b"PORT 10,0,0,11,19,136\r\n",
        b"INVITE sip:x@198.51.100.1 SIP/2.0\r\nContact: <sip:10.0.0.11:5060>\r\n\r\nc=IN IP4 10.0.0.11\r\n",
        b"REGISTER sip:198.51.100.1;transport=TCP SIP/2.0\r\nContact: <sip:s@10.0.0.11:445;transport=TCP>\r\n\r\n",
        b"PASV\r\n227 Entering Passive Mode (10,0,0,11,19,136)\r\n",
        &binary,
    ];
    for payload in payloads {
        let out = udp(at(S1, 5060), at(E1, 5060), payload);
        probe.inside.send(&out);
        assert_carried(&out, &probe.outside.expect("a datagram"), external, at(E1, 5060));
        let data = connection.by_inside(TcpFlags::ACK, payload);
        probe.inside.send(&data);
        assert_carried(&data, &probe.outside.expect("a segment"), connection.external, at(E1, 21));
        connection.inside_next += payload.len() as u32;
    }
    // No payload opened a mapping or a session.
    for port in [5000, 445, 5060] {
        probe.syn_in(at(E1, 20), at(G, port));
    }
    probe.silence();
    assert_eq!(probe.status().mappings, mappings);
}

#[test]
fn only_published_ports_are_open_and_privileges_are_dropped() {
    let _proof = proves(&["SEC-9"]);
    let probe = Probe::plain();
    let mut open = BTreeSet::new();
    for port in 1..=u16::MAX {
        probe.outside.send(&segment(at(E1, 4444), at(G, port), TcpFlags::SYN, 1, 0));
        probe.outside.send(&udp(at(E1, 4444), at(G, port), b"scan"));
        while let Some(seen) = probe.inside.poll() {
            open.insert((seen.protocol().0, seen.destination().address, seen.destination().port));
        }
        if port % 128 == 0 {
            for seen in probe.inside.drain_until_quiet() {
                open.insert((
                    seen.protocol().0,
                    seen.destination().address,
                    seen.destination().port,
                ));
            }
        }
    }
    for seen in probe.inside.drain() {
        open.insert((seen.protocol().0, seen.destination().address, seen.destination().port));
    }
    let range = (7000..=7015).flat_map(|port| [(6, S2, port), (17, S2, port)]);
    let mut published: BTreeSet<_> = range.collect();
    published.extend([(6, S1, 80), (17, S1, 80), (17, Ipv4Addr::new(10, 0, 0, 250), 65_000)]);
    assert_eq!(open, published);
    assert_eq!(probe.outside.drain(), [], "not a word");
    let status = std::fs::read_to_string(format!("/proc/{}/status", probe.status().pid)).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    // CAP_NET_ADMIN is number 12.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), format!("{:016x}", 1 << 12), "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), format!("{:016x}", 0), "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
}

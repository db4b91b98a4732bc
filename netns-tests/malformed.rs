//! Malformed packets from the outside segment. None of them may stop the box, make it grow, or
//! disturb its work.
//!
//! The box's kernel checks IP headers before it routes, so that the worst packets never reach
//! natbox. The tests beside the parser compare natbox's own checks with those of the kernel.

use std::net::Ipv4Addr;

use natbox::api::Status;
use natbox::nat::DropReason;
use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

use crate::probe::{cut, with};
use crate::single_box::{
    Config, DATAGRAMS, Injector, Published, RunningBox, SingleBox, WEB, eventually,
};

const UNUSED_CLIENT: Ipv4Addr = Injector::UNUSED_CLIENT;

/// Makes a correct packet to a port of the published address.
fn udp(to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    builder::udp(builder::tuple(Protocol::UDP, (UNUSED_CLIENT, 4000), (to, port)), payload)
}

fn tcp(to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let tuple = builder::tuple(Protocol::TCP, (UNUSED_CLIENT, 4000), (to, port));
    builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], payload)
}

#[test]
fn malformed_ip_headers_are_dropped_by_the_kernel_of_the_box() {
    let _proof = crate::conformance::proves(&["MAL-1"]);
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    let injector = Injector::new(&testbed);
    let g = testbed.published;
    let good = udp(g, 9999, b"payload");
    let with_raw = |changes: &[(usize, u8)]| {
        let mut packet = good.clone();
        changes.iter().for_each(|(at, byte)| packet[*at] = *byte);
        packet
    };
    let broken = [
        Vec::new(),
        good[..1].to_vec(),
        good[..19].to_vec(),
        // Shorter than its total length.
        good[..good.len() - 1].to_vec(),
        // Header lengths of 16 and 60 bytes, versions 5 and 6.
        with(good.clone(), &[(0, 0x44)]),
        with(good.clone(), &[(0, 0x4f)]),
        with(good.clone(), &[(0, 0x55)]),
        with(good.clone(), &[(0, 0x65)]),
        // A total length below the header length.
        with(good.clone(), &[(2, 0), (3, 19)]),
        // A wrong checksum.
        with_raw(&[(10, good[10] ^ 1)]),
        // Invalid sources: loopback, broadcast, multicast, the unspecified address.
        with(good.clone(), &[(12, 127)]),
        with(good.clone(), &[(12, 255), (13, 255), (14, 255), (15, 255)]),
        with(good.clone(), &[(12, 224)]),
        with(good.clone(), &[(12, 0), (13, 0), (14, 0), (15, 0)]),
        // TTL expired on arrival: the kernel answers.
        with(good.clone(), &[(8, 1)]),
        with(good.clone(), &[(8, 0)]),
        // Options beyond their end; loose and strict source routes.
        builder::with_ip_options(&good, &[7, 40, 4, 0]),
        builder::with_ip_options(&good, &[131, 7, 4, 10, 0, 0, 101, 0]),
        builder::with_ip_options(&good, &[137, 7, 4, 10, 0, 0, 101, 0]),
        // An inside source.
        with(good.clone(), &[(12, 10), (13, 0), (14, 0), (15, 55)]),
    ];
    let before = natbox.status().totals["packets_in"];
    for packet in &broken {
        injector.send(packet);
    }
    // The link keeps the order: the last packet arrives last.
    injector.send(&good);
    eventually("the good packet after them is counted", || {
        (natbox.dropped(DropReason::NoMapping.name()) == 1).then_some(())
    });
    let status = natbox.status();
    assert_eq!(
        status.totals["packets_in"] - before,
        1,
        "only the good one; drops: {:?}",
        status.drops
    );
    testbed.assert_traffic();
}

#[test]
fn malformed_transport_headers_are_dropped_with_their_reason() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    let injector = Injector::new(&testbed);
    let g = testbed.published;
    let error = |quoted: &[u8]| builder::icmp_error(3, 1, UNUSED_CLIENT, g, quoted);
    let tuple = builder::tuple(Protocol::UDP, (g, DATAGRAMS), (UNUSED_CLIENT, 4000));
    let sent = builder::udp(tuple, b"payload");
    let large = udp(g, 9999, &[0; 100]);
    let fragments = builder::fragments(&large, 64);
    let cases = [
        // Data offset below 5 words, and beyond the end.
        (with(tcp(g, WEB, b""), &[(32, 0x40)]), DropReason::BadTransportHeader),
        (with(tcp(g, WEB, b""), &[(32, 0xf0)]), DropReason::BadTransportHeader),
        (cut(tcp(g, WEB, b""), 20), DropReason::BadTransportHeader),
        (cut(tcp(g, WEB, b""), 30), DropReason::BadTransportHeader),
        // UDP length below 8, and beyond the end.
        (with(udp(g, DATAGRAMS, b"payload"), &[(24, 0), (25, 7)]), DropReason::BadTransportHeader),
        (with(udp(g, DATAGRAMS, b"payload"), &[(24, 1), (25, 0)]), DropReason::BadTransportHeader),
        (cut(udp(g, DATAGRAMS, b"payload"), 20), DropReason::BadTransportHeader),
        (cut(udp(g, DATAGRAMS, b"payload"), 27), DropReason::BadTransportHeader),
        (cut(error(&sent), 22), DropReason::BadTransportHeader),
        // Errors with a quote that is too short, malformed, or itself an error; with a wrong
        // checksum; about no known session.
        (error(&sent[..20]), DropReason::BadIcmpError),
        (error(&with(sent.clone(), &[(0, 0x44)])), DropReason::BadIcmpError),
        (error(&error(&sent)), DropReason::BadIcmpError),
        (with(error(&sent), &[(22, 1)]), DropReason::BadIcmpError),
        (error(&udp(g, 9999, b"unmapped")), DropReason::IcmpErrorNoSession),
        (builder::icmp_error(5, 1, UNUSED_CLIENT, g, &sent), DropReason::UnsupportedIcmp),
        (
            builder::echo(UNUSED_CLIENT, g, QueryKind::EchoRequest, 1, 1, b"ping"),
            DropReason::NoMapping,
        ),
        (fragments[0].clone(), DropReason::NoMapping),
        (fragments[1].clone(), DropReason::NoMapping),
        // Beyond 65,535 bytes; a first fragment without complete ports.
        (with(fragments[1].clone(), &[(6, 0x1f), (7, 0xff)]), DropReason::BadFragment),
        // A source in "this network". The kernel drops only the unspecified address of these.
        (with(udp(g, 9999, b""), &[(12, 0)]), DropReason::Martian),
        (udp(g, 9999, b"unmapped"), DropReason::NoMapping),
        (tcp(g, 9999, b""), DropReason::NoMapping),
    ];
    for (number, (packet, reason)) in cases.iter().enumerate() {
        let before = natbox.status();
        injector.send(packet);
        eventually(&format!("case {number} is dropped as {}", reason.name()), || {
            let before = before.drops.get(reason.name()).copied().unwrap_or(0);
            (natbox.dropped(reason.name()) == before + 1).then_some(())
        });
    }
    let status = natbox.status();
    assert_eq!(
        status.drops.values().sum::<u64>(),
        cases.len() as u64,
        "once each: {:?}",
        status.drops
    );
    testbed.assert_traffic();
}

#[test]
fn unknown_protocols_are_dropped_with_their_reason() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    let injector = Injector::new(&testbed);
    let known = [Protocol::ICMP, Protocol::TCP, Protocol::UDP];
    let unknown: Vec<Protocol> =
        (0..=255).map(Protocol).filter(|protocol| !known.contains(protocol)).collect();
    for protocol in &unknown {
        for payload in [&[] as &[u8], &[0], &[0xff; 64]] {
            injector.send(&builder::other(*protocol, UNUSED_CLIENT, testbed.published, payload));
        }
    }
    eventually("all are counted", || {
        (natbox.dropped(DropReason::NoMapping.name()) == 3 * unknown.len() as u64).then_some(())
    });
    testbed.assert_traffic();
}

#[test]
fn random_mutations_neither_stop_the_box_nor_make_it_grow() {
    let _proof = crate::conformance::proves(&["MAL-6"]);
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    // A small table, so that the flood fills it: from then on memory must not grow.
    let extra = "timeouts: { fragment: 1s }\n".into();
    let natbox = testbed.start(&Config { sessions: "4k".into(), extra, ..testbed.config() });
    let injector = Injector::new(&testbed);
    let g = testbed.published;
    let sent = builder::udp(
        builder::tuple(Protocol::UDP, (g, DATAGRAMS), (UNUSED_CLIENT, 4000)),
        b"payload",
    );
    let good = [
        tcp(g, WEB, b""),
        tcp(g, WEB, &[7; 200]),
        udp(g, DATAGRAMS, &[7; 200]),
        udp(g, 9999, b""),
        builder::echo(UNUSED_CLIENT, g, QueryKind::EchoRequest, 1, 1, b"ping"),
        builder::icmp_error(3, 4, UNUSED_CLIENT, g, &sent),
        builder::with_ip_options(&udp(g, DATAGRAMS, b"payload"), &[7, 7, 4, 0, 0, 0, 0]),
    ];
    let mut random = StdRng::seed_from_u64(0x6e61_7462_6f78);
    let count = mutations();
    // A connection through a flood takes its time.
    let interval = (count / 15).max(20_000);
    let mut flood = |count: u64| {
        for number in 0..count {
            let packet = good[random.random_range(0..good.len())].clone();
            injector.send(&mutated(packet, &mut random));
            if number % interval == 0 {
                assert_eq!(
                    testbed.fetch().unwrap(),
                    crate::single_box::CLIENT.to_string(),
                    "in the flood"
                );
            }
        }
    };
    flood(count / 3);
    let (before, packets) = (natbox.resident(), natbox.status().totals["packets_in"]);
    flood(count - count / 3);
    let after = natbox.resident();
    let status = natbox.status();
    let arrived = status.totals["packets_in"] - packets;
    assert!(arrived > count / 3, "only {arrived} packets of {count} got through to natbox");
    assert!(after < before + 2048, "memory grew from {before} kB to {after} kB");
    assert!(status.sessions.now <= 4000);
    for reason in [DropReason::BadTransportHeader, DropReason::NoMapping, DropReason::BadIcmpError]
    {
        assert!(
            status.drops.get(reason.name()).is_some_and(|count| *count > 100),
            "{:?}",
            status.drops
        );
    }
    // Early in the flood the server's own sessions may have got records, which the table frees
    // again.
    assert_eq!(testbed.fetch().unwrap(), crate::single_box::CLIENT.to_string());
    assert_every_packet_is_accounted_for(&testbed, &natbox);
    let log = natbox.process.log();
    assert!(!log.contains("bug") && !log.contains("WARN"), "{log}");
    natbox.stop(Signal::TERM);
}

/// Number of mutated packets.
fn mutations() -> u64 {
    let text = std::env::var("NATBOX_MUTATIONS");
    text.map_or(1_000_000, |text| text.parse().expect("NATBOX_MUTATIONS is a number"))
}

/// Checks natbox's counters to the packet: against those of the kernel's device, and against each
/// other once no fragment waits.
fn assert_every_packet_is_accounted_for(testbed: &SingleBox, natbox: &RunningBox) {
    let device = || {
        let table = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let table = testbed.natbox.enter(table).unwrap();
        let line = table.lines().find_map(|line| line.trim().strip_prefix("nb0:")).unwrap();
        let figures: Vec<u64> =
            line.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        // Packets that the kernel received of natbox, and those that natbox read.
        (figures[1], figures[9])
    };
    eventually("every packet left, was dropped or was answered", || {
        let Status { totals, drops, .. } = natbox.status();
        let read = totals["packets_in"] + drops.get("bad-vnet-header").unwrap_or(&0);
        let own = totals["icmp_errors_sent"] + totals["failover_notifications"];
        let ended = totals["packets_out"] + drops.values().sum::<u64>();
        (read + own == ended && device() == (totals["packets_out"], read)).then_some(())
    });
}

/// Changes random bytes of a packet, and the length of some packets.
fn mutated(mut packet: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..packet.len());
        // The destination stays, because the packet would be routed elsewhere otherwise.
        if !(16..20).contains(&at) {
            packet[at] = random.random();
        }
    }
    if random.random_ratio(1, 8) {
        packet.truncate(random.random_range(0..packet.len()));
    }
    // Most packets pass the kernel's own checks.
    if packet.len() >= 20 && random.random_ratio(7, 8) {
        packet[0] = if random.random_ratio(7, 8) { 0x45 } else { packet[0] };
        let [high, low] = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&[high, low]);
        builder::refresh_header_checksum(&mut packet);
    }
    packet
}

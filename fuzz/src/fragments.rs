//! Fragments of datagrams in any order, with repetitions, overlaps and floods. What the box sends
//! of a datagram never overlaps, and a whole datagram is right as a whole.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use natbox::fuzzing::SentPackets;
use natbox::nat::Counters;
use natbox::packet::{ChecksumMode, Protocol, QueryKind, TcpFlags, builder};
use natbox::time::Span;

use super::input::{Input, damage};
use super::instance::Instance;
use super::world::{self, EXTERNAL, INSIDE, PUBLISHED, REMOTE};

/// Source, destination, protocol and identification.
type DatagramKey = ([u8; 8], u8, [u8; 2]);

/// The fragments of a datagram that have left, by their first byte.
type Assembly = Vec<(usize, Vec<u8>)>;

/// Sends fragments through a worker.
///
/// # Panics
/// If fragments that leave overlap, if a datagram that arrived whole does not leave whole, or if a
/// packet leaves that must not.
pub fn run(data: &[u8]) {
    counters(data);
}

/// Does the work of [`run`], and returns the counters of the worker.
///
/// # Panics
/// As [`run`].
pub fn counters(data: &[u8]) -> Counters {
    let mut input = Input::new(data);
    let limits = world::limits(&mut Input::new(&[]));
    // The forwards are there, and no address is the host's, which would get what belongs to none.
    let switches = input.number() & !0b0110_1001;
    let mut instance = Instance::new(limits, world::policy(switches), 4);
    let mut assemblies = HashMap::new();
    let mut used = HashSet::new();
    while !input.is_empty() {
        match input.below(8) {
            0 => {
                let span = Span(u32::from(input.number()) / 4);
                follow(&mut assemblies, instance.wait(span));
                if span >= Span::seconds(16) {
                    assemblies.clear();
                }
            }
            1 => flood(&mut input, &mut instance, &mut assemblies),
            2..=4 => whole(&mut input, &mut instance, &mut used),
            _ => hostile(&mut input, &mut instance, &mut assemblies, &mut used),
        }
    }
    instance.finish()
}

/// Makes a datagram of up to some thousand bytes with an identification that none before had.
fn datagram(input: &mut Input<'_>, used: &mut HashSet<u16>) -> Option<Vec<u8>> {
    let payload = vec![input.byte(); usize::from(input.number() % 3000)];
    let udp = |from, to| builder::udp(builder::tuple(Protocol::UDP, from, to), &payload);
    let mut packet = match input.below(5) {
        0 => udp((REMOTE[0], 5000), (EXTERNAL[0], PUBLISHED)),
        1 => udp((INSIDE[1], 40_001), (REMOTE[0], 53)),
        2 => builder::echo(INSIDE[1], REMOTE[1], QueryKind::EchoRequest, 77, 1, &payload),
        3 => udp((REMOTE[0], 5000), (EXTERNAL[0], 9)),
        _ => {
            let tuple = builder::tuple(Protocol::TCP, (INSIDE[2], 40_002), (REMOTE[1], 443));
            builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], &payload)
        }
    };
    let identification = input.number();
    builder::set_identification(&mut packet, identification);
    used.insert(identification).then_some(packet)
}

/// Sends all fragments of a datagram in any order. The datagram leaves whole and right, or not at
/// all.
fn whole(input: &mut Input<'_>, instance: &mut Instance, used: &mut HashSet<u16>) {
    let Some(packet) = datagram(input, used) else { return };
    let is_published = packet[16..20] != EXTERNAL[0].octets() || packet[22..24] != [0, 9];
    let size = 8 * (4 + input.below(100));
    let mut fragments = builder::fragments(&packet, size);
    if fragments.len() > 100 {
        return;
    }
    let count = fragments.len();
    for at in 0..count {
        fragments.swap(at, at + input.below(count - at));
    }
    fragments.iter().for_each(|fragment| instance.push_complete(fragment));
    let sent = instance.run();
    if !is_published {
        assert!(sent.is_empty(), "fragments of a datagram to no forward leave");
        return;
    }
    if sent.is_empty() {
        // No port is free, or no session.
        return;
    }
    let mut assembly: Assembly =
        sent.iter().map(|(packet, _)| (start(packet), body(packet))).collect();
    let mut whole = sent[0].0[..20].to_vec();
    assembly.sort();
    for (start, body) in assembly {
        assert_eq!(start, whole.len() - 20, "a fragment is missing, or leaves twice");
        whole.extend(body);
    }
    let length = whole.len() as u16;
    whole[2..4].copy_from_slice(&length.to_be_bytes());
    whole[6..8].fill(0);
    builder::refresh_header_checksum(&mut whole);
    assert_eq!(whole.len(), packet.len(), "the datagram leaves whole");
    builder::verify(&whole, ChecksumMode::Complete).expect("the datagram is right as a whole");
}

/// Sends fragments that overlap, repeat each other, end early, or are damaged.
fn hostile(
    input: &mut Input<'_>,
    instance: &mut Instance,
    assemblies: &mut HashMap<DatagramKey, Assembly>,
    used: &mut HashSet<u16>,
) {
    let Some(packet) = datagram(input, used) else { return };
    let fragments = builder::fragments(&packet, 8 * (1 + input.below(40)));
    for _ in 0..=input.below(12) {
        let mut fragment = fragments[input.below(fragments.len().min(256))].clone();
        match input.below(6) {
            0 => {
                // Another place, another end.
                let anywhere = input.number() & 0x3fff;
                let word = input.pick(&[anywhere, 0x2000, 1, 0x2001, 0x1fff]);
                fragment[6..8].copy_from_slice(&word.to_be_bytes());
                builder::refresh_header_checksum(&mut fragment);
            }
            1 => {
                let length = 20 + input.below(fragment.len() - 19);
                fragment.truncate(length);
                fragment[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                builder::refresh_header_checksum(&mut fragment);
            }
            2 => fragment[6] ^= 0x20,
            3 if input.once_in(4) => damage(&mut fragment, input),
            _ => {}
        }
        if fragment.len() >= 20 && !input.once_in(8) {
            builder::refresh_header_checksum(&mut fragment);
        }
        follow(assemblies, instance.send(&fragment));
    }
}

/// Sends fragments of many datagrams, which displace others in the store.
fn flood(
    input: &mut Input<'_>,
    instance: &mut Instance,
    assemblies: &mut HashMap<DatagramKey, Assembly>,
) {
    let tuple = builder::tuple(Protocol::UDP, (REMOTE[1], 6000), (EXTERNAL[0], PUBLISHED));
    let fragments = builder::fragments(&builder::udp(tuple, &[1; 200]), 64);
    let (count, at) = (input.byte(), input.below(fragments.len()));
    let is_spoofed = input.once_in(2);
    for number in 0..count {
        let mut fragment = fragments[at].clone();
        if is_spoofed {
            fragment[12..16].copy_from_slice(&[192, 0, 2, number]);
        }
        builder::set_identification(&mut fragment, u16::from(number) << 8 | 0xff);
        instance.push_complete(&fragment);
    }
    instance.run();
    // The store has forgotten what it displaced.
    assemblies.clear();
}

/// Enters fragments that leave.
///
/// # Panics
/// If two fragments of one datagram overlap.
fn follow(assemblies: &mut HashMap<DatagramKey, Assembly>, sent: SentPackets) {
    for (packet, _) in sent {
        if packet[6] & 0x3f == 0 && packet[7] == 0 {
            continue;
        }
        let mut key: DatagramKey = ([0; 8], packet[9], [packet[4], packet[5]]);
        key.0.copy_from_slice(&packet[12..20]);
        let (start, body) = (start(&packet), body(&packet));
        let assembly = assemblies.entry(key).or_default();
        for (other, bytes) in &*assembly {
            let overlaps = start < other + bytes.len() && *other < start + body.len();
            let from = Ipv4Addr::from(*key.0.first_chunk().expect("8 bytes"));
            assert!(!overlaps, "fragments from {from} overlap at {start} and {other}");
        }
        assembly.push((start, body));
        let is_last = packet[6] & 0x20 == 0;
        let bytes: usize = assembly.iter().map(|(_, body)| body.len()).sum();
        // A whole datagram is forgotten, and the next one may have its identification.
        let end = assembly.iter().map(|(start, body)| start + body.len()).max();
        if is_last && end == Some(bytes) {
            assemblies.remove(&key);
        }
    }
}

/// Returns the place of a fragment's first byte in its datagram.
fn start(packet: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([packet[6] & 0x1f, packet[7]])) * 8
}

/// Returns the bytes of a fragment.
fn body(packet: &[u8]) -> Vec<u8> {
    packet[usize::from(packet[0] & 15) * 4..].to_vec()
}

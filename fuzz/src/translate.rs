//! A policy and a sequence of packets, both read from the input: what leaves the translator is
//! well-formed, what is decided is done, and no packet is lost without a reason.

use natbox::nat::{
    Counters, Decision, DropReason, EndpointDependence, Forward, ForwardProtocol, Limits, Policy,
    PortRange, Query, Seed, Translator, WorkerContext,
};
use natbox::packet::{ChecksumMode, Protocol, QueryKind, TcpFlags, VecFrames, builder, parse};
use natbox::time::{Span, Tick};

use super::input::Input;

/// Hosts inside, external addresses, remote hosts, and addresses that are none of these.
const ADDRESSES: [[u8; 4]; 8] = [
    [10, 0, 0, 5],
    [10, 0, 0, 6],
    [203, 0, 113, 10],
    [203, 0, 113, 11],
    [192, 0, 2, 1],
    [192, 0, 2, 2],
    [127, 0, 0, 1],
    [224, 0, 0, 1],
];

/// Reads an address and a port. There are few ports, so that packets meet.
fn endpoint(input: &mut Input<'_>) -> ([u8; 4], u16) {
    (input.pick(&ADDRESSES), 40_000 + u16::from(input.byte()) % 16)
}

/// Runs the packets of the input through a translator with the policy of the input.
///
/// # Panics
/// If a packet leaves with a wrong checksum or other than as decided, or vanishes.
pub fn run(data: &[u8]) {
    counters(data);
}

/// Does the work of [`run`], and returns the counters of the worker.
///
/// # Panics
/// As [`run`].
pub fn counters(data: &[u8]) -> Counters {
    let mut input = Input::new(data);
    let mut now = Tick(0);
    let nat = translator(&mut input, now);
    let mut context = nat.worker(0);
    while !input.is_empty() {
        now = now.after(Span(u32::from(input.number()) * 4));
        let mut frames = VecFrames::new();
        while nat.poll(&mut context, &mut frames, now) == Some(now) {}
        frames.take_sent();
        send(&nat, &mut context, &packet(&mut input), now);
    }
    context.counters
}

fn translator(input: &mut Input<'_>, now: Tick) -> Translator {
    let (behaviour, switches) = (input.byte(), input.byte());
    let dependence = |number: u8| match number % 3 {
        0 => EndpointDependence::EndpointIndependent,
        1 => EndpointDependence::AddressDependent,
        _ => EndpointDependence::AddressAndPortDependent,
    };
    let inside = ipnet::Ipv4Net::new_assert([10, 0, 0, 0].into(), 24);
    let limits = Limits {
        mapping: dependence(behaviour),
        filtering: dependence(behaviour / 3),
        ports: PortRange { first: 40_000, last: 40_015 },
        inbound_refresh: switches & 1 == 0,
        sessions: 32,
        fragments: 8,
        ..Limits::new(inside)
    };
    let mut policy = Policy::one_uplink(inside, ADDRESSES[2].into());
    policy.hairpin = switches & 2 == 0;
    policy.delayed_reject = switches & 4 != 0;
    policy.reject_with = (switches & 8 != 0).then_some(13);
    policy.uplinks[0].addresses[0].assigned_to_host = switches & 16 != 0;
    if switches & 32 != 0 {
        policy.forwards.push(Forward {
            name: "server".into(),
            uplink: 0,
            protocol: if switches & 64 == 0 {
                ForwardProtocol::TcpUdp
            } else {
                ForwardProtocol::Any
            },
            address: ADDRESSES[2].into(),
            ports: if switches & 64 == 0 { PortRange::single(40_001) } else { PortRange::ALL },
            to_address: ADDRESSES[0].into(),
            to_port: if switches & 64 == 0 { 40_002 } else { 0 },
        });
    }
    Translator::new(limits, policy, 1, Seed::from(u64::from(behaviour)), now)
        .expect("memory for 32 sessions")
}

/// A packet of the input. The kind decides how much of it is well-formed.
fn packet(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte();
    let (from, to) = (endpoint(input), endpoint(input));
    let tuple = |protocol| builder::tuple(protocol, from, to);
    match kind % 8 {
        0 | 1 => {
            let flags = TcpFlags(input.byte());
            let (sequence, ack) = (u32::from(input.number()), u32::from(input.number()));
            builder::tcp(tuple(Protocol::TCP), flags, sequence, ack, &[], b"")
        }
        2 => builder::udp(tuple(Protocol::UDP), b"payload"),
        3 => {
            let kind =
                if input.byte() & 1 == 0 { QueryKind::EchoRequest } else { QueryKind::EchoReply };
            builder::echo(from.0.into(), to.0.into(), kind, to.1, 1, b"ping")
        }
        4 => {
            let quoted = builder::udp(tuple(Protocol::UDP).reversed(), b"payload");
            builder::icmp_error(3, input.byte() % 16, from.0.into(), to.0.into(), &quoted)
        }
        5 => {
            let whole = builder::udp(tuple(Protocol::UDP), &[0; 100]);
            let mut fragments = builder::fragments(&whole, 40);
            let number = usize::from(input.byte()) % fragments.len();
            fragments.swap_remove(number)
        }
        6 => builder::other(Protocol(47), from.0.into(), to.0.into(), b"gre"),
        _ => {
            let mut packet = builder::udp(tuple(Protocol::UDP), b"payload");
            let (at, value) = (usize::from(input.byte()) % packet.len(), input.byte());
            packet[at] ^= value;
            packet
        }
    }
}

fn send(nat: &Translator, context: &mut WorkerContext, packet: &[u8], now: Tick) {
    let decision = parse(packet, ChecksumMode::Complete)
        .ok()
        .and_then(|parsed| Query::of(&parsed, packet))
        .map(|query| nat.decide(&query, now));
    let before = context.counters.clone();
    let mut frames = VecFrames::new();
    frames.push(packet);
    nat.process(context, &mut frames, now);
    let sent = frames.take_sent();
    let was_right = builder::verify(packet, ChecksumMode::Complete).is_ok();
    for (packet, _) in &sent {
        let parsed = parse(packet, ChecksumMode::Complete);
        parsed.expect("what leaves is well-formed");
        if was_right {
            builder::verify(packet, ChecksumMode::Complete).expect("every checksum is exact");
        }
    }
    let after = &context.counters;
    let drops = after.drops.iter().map(|(reason, count)| (reason, count - before.drops.of(reason)));
    let dropped: Vec<_> = drops.filter(|(_, count)| *count != 0).collect();
    if let Some(Decision::Drop(reason)) = decision {
        let actual = dropped.first().map(|(reason, _)| *reason);
        // A new mapping may draw the very port that the packet is for: few ports make this likely
        // here.
        let by_chance = reason == DropReason::NoMapping
            && matches!(actual, Some(DropReason::AddressConflict | DropReason::Filtered));
        // A decision is about the tuple. The store rejects some fragments before.
        let by_chance = by_chance
            || matches!(actual, Some(DropReason::FragmentDuplicate | DropReason::FragmentOverlap));
        assert!(by_chance || actual == Some(reason), "{reason:?} was decided, {actual:?} done");
    }
    // A fragment may wait; everything else leaves or has a reason.
    let is_fragment = packet.get(6..8).is_some_and(|bytes| bytes[0] & 0x3f != 0 || bytes[1] != 0);
    assert!(!sent.is_empty() || !dropped.is_empty() || is_fragment, "a packet vanished");
}

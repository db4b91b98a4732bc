//! Tests that send packets through the whole engine over memory queues: one test for each behaviour
//! of the translator.
//!
//! The inside prefix is 10.0.0.0/24, behind one or two uplinks. E1 and E2 are outside hosts.
//! The harness verifies every field and checksum of each packet that the engine sends
//! ([`builder::verify`]).

mod errors;
mod examples;
mod exhaustion;
mod exposed;
mod fragments;
mod inside_legs;
mod malformed;
mod no_nat;
mod related;
mod reload;
mod reload_uplinks;
mod replay;
mod scrub;
mod sessions;
mod tentative;
mod trace;
mod traffic;
mod translation;
mod unsolicited;
mod uplinks;

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::io::{MemoryIo, PacketIo};
use crate::nat::{
    Counters, DropReason, EndpointDependence, Forward, ForwardProtocol, Limits, Policy, Seed,
    Transition, Translator,
};
use crate::packet::{
    ChecksumMode, Offload, Parsed, PartialChecksum, Payload, Protocol, QueryKind, Segmentation,
    SegmentationKind, TcpFlags, Tuple, builder, parse,
};
use crate::time::{Span, Tick};
use arc_swap::ArcSwap;

use super::observe::{DropExample, Observation};
use super::pipeline::Pipeline;
use super::swap_policy;

/// The external address of the first uplink.
pub(super) const G: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The external address of the second uplink.
pub(super) const G2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The box's own address on the inside.
pub(super) const BOX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The inside host that the forwards of [`settings`] publish.
pub(super) const S1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
/// A second inside host.
pub(super) const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);
pub(super) const E1: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const E2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A router on the outside.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// A translator and one worker on a memory queue, with a clock that the test moves.
pub(super) struct Harness {
    pub(super) nat: Arc<Translator>,
    current: Arc<ArcSwap<Translator>>,
    pipeline: Pipeline,
    observation: Arc<Observation>,
    io: MemoryIo,
    /// Every packet so far.
    arrived: Vec<Vec<u8>>,
    pub(super) now: Tick,
}

/// Builds a forward of the first uplink's address.
pub(super) fn forward(
    protocol: ForwardProtocol,
    ports: RangeInclusive<u16>,
    to: Ipv4Addr,
    to_port: u16,
) -> Forward {
    Forward {
        name: "test".into(),
        uplink: 0,
        protocol,
        address: G,
        ports: ports.into(),
        to_address: to,
        to_port,
    }
}

/// The limits and the policy of a translator.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

impl Setup {
    /// Returns the setup after `change`.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Returns a setup with one uplink that publishes two ranges of ports and ping.
pub(super) fn settings() -> Setup {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let mut policy = Policy {
        tun_address: Some(Ipv4Addr::new(169, 254, 71, 1)),
        forwards: vec![
            forward(ForwardProtocol::TcpUdp, 8080..=8080, S1, 80),
            forward(ForwardProtocol::TcpUdp, 9000..=9015, S2, 7000),
            forward(ForwardProtocol::Icmp, 0..=65535, S1, 0),
        ],
        ..Policy::one_uplink(inside, G)
    };
    policy.legs[0].address = Some(BOX);
    Setup { limits: Limits::new(inside), policy }
}

/// Returns [`settings`] with a second uplink. Both uplinks publish port 80 of S1.
fn two_uplinks() -> Setup {
    let mut settings = settings();
    let mut second = settings.policy.uplinks[0].clone();
    second.addresses[0].address = G2;
    settings.policy.uplinks.push(second);
    settings.policy.forwards.push(Forward {
        uplink: 1,
        address: G2,
        ..settings.policy.forwards[0].clone()
    });
    settings
}

impl Harness {
    pub(super) fn new(setup: Setup) -> Self {
        Self::with_seed(setup, Seed::from(7))
    }

    fn with_seed(Setup { limits, policy }: Setup, seed: Seed) -> Self {
        let now = Tick(u32::MAX - 5000);
        let nat = Arc::new(Translator::new(limits, policy, 1, seed, now).expect("memory"));
        let current = Arc::new(ArcSwap::new(Arc::clone(&nat)));
        let observation = Observation::new(1);
        Self {
            pipeline: Pipeline::new(Arc::clone(&current), 0, Arc::clone(&observation)),
            observation,
            current,
            nat,
            io: MemoryIo::new(),
            arrived: Vec::new(),
            now,
        }
    }

    /// Replaces the policy. Returns the number of sessions that the new policy ended, which the
    /// preview of the change has counted before.
    pub(super) fn reload(&mut self, setup: Setup) -> usize {
        let limits = self.nat.limits().clone();
        let counted = self.count_ending(limits, &setup.policy);
        let next = self.nat.with_policy(setup.policy);
        self.enforce(next, counted)
    }

    /// Replaces limits and policy. Returns the number of sessions that the new ones ended.
    pub(super) fn reload_all(&mut self, Setup { limits, policy }: Setup) -> usize {
        let counted = self.count_ending(limits.clone(), &policy);
        let next = self.nat.with_limits(limits, policy, self.now);
        self.enforce(next, counted)
    }

    fn count_ending(&self, limits: Limits, policy: &Policy) -> usize {
        let counted = self.nat.preview(limits, policy.clone()).disallowed();
        counted.iter().map(|(_, count)| count).sum()
    }

    fn enforce(
        &mut self,
        (nat, mut transition): (Translator, Transition),
        counted: usize,
    ) -> usize {
        self.nat = Arc::new(nat);
        swap_policy(&self.current, Arc::clone(&self.nat));
        let mut ended = 0;
        while !transition.is_complete() {
            ended += self.nat.enforce(&mut transition, self.now);
        }
        assert_eq!(counted, ended, "the preview counts what the change ends");
        ended
    }

    /// Sends packets through the engine in one batch. Returns the packets that the engine sent, all
    /// verified.
    pub(super) fn run(&mut self, packets: &[(Vec<u8>, Offload)]) -> Vec<(Vec<u8>, Offload)> {
        for (packet, offload) in packets {
            self.io.push(packet, *offload);
        }
        loop {
            let frames = self.io.receive(std::time::Duration::ZERO).expect("memory does not fail");
            if frames == 0 {
                break;
            }
            self.pipeline.process(&mut self.io, self.now).expect("memory does not fail");
        }
        let sent = self.io.sent();
        for (packet, offload) in &sent {
            let mode = if offload.checksum.is_some() {
                ChecksumMode::Partial
            } else {
                ChecksumMode::Complete
            };
            builder::verify(packet, mode).expect("every checksum is right");
        }
        self.arrived.extend(packets.iter().map(|(packet, _)| packet.clone()));
        self.verify_examples();
        sent
    }

    /// Checks that each example is a packet that arrived, under a number that was counted.
    fn verify_examples(&self) {
        for (reason, count) in self.counters().drops.iter() {
            let examples = self.examples(reason);
            assert_eq!(examples.is_empty(), count == 0, "{reason:?}: {count} drops");
            assert!(examples.is_sorted_by(|one, two| one.number < two.number), "{reason:?}");
            for DropExample { number, head, .. } in examples {
                assert!((1..=count).contains(&number), "{reason:?}: {number} of {count}");
                let is_example = |packet: &Vec<u8>| packet.starts_with(head.bytes());
                assert!(self.arrived.iter().any(is_example), "{reason:?}: {head:?}");
            }
        }
    }

    /// Returns the examples of the packets dropped for a reason.
    fn examples(&self, reason: DropReason) -> Vec<DropExample> {
        self.observation.examples[0].of(reason)
    }

    /// Sends one packet. Returns the packet that the engine sent, or `None` if it sent none.
    pub(super) fn send(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let sent = self.run(&[(packet.to_vec(), Offload::default())]);
        assert!(sent.len() <= 1);
        sent.into_iter().next().map(|(packet, _)| packet)
    }

    /// Sends one packet that the engine must send on. Returns the tuple of the packet sent.
    fn pass(&mut self, packet: &[u8]) -> Tuple {
        let out = self.send(packet).unwrap_or_else(|| panic!("dropped: {:?}", self.dropped()));
        parsed(&out).tuple().expect("a packet with a tuple")
    }

    /// Sends one packet that the engine must drop. Returns the reason.
    pub(super) fn drop_reason(&mut self, packet: &[u8]) -> DropReason {
        let before = self.counters().drops;
        let out = self.send(packet);
        assert_eq!(out, None, "the engine sent a packet");
        let after = self.counters().drops;
        let counted: Vec<_> =
            after.iter().filter(|(reason, count)| before.of(*reason) != *count).collect();
        assert_eq!(counted.len(), 1, "one drop counter changes: {counted:?}");
        counted[0].0
    }

    pub(super) fn counters(&self) -> &Counters {
        self.pipeline.counters()
    }

    /// Returns the drop counters that are not zero.
    fn dropped(&self) -> Vec<(DropReason, u64)> {
        self.counters().drops.iter().filter(|(_, count)| *count != 0).collect()
    }

    /// Moves the clock forward by `span` and expires what is due.
    pub(super) fn wait(&mut self, span: Span) {
        self.now = self.now.after(span);
        while !self.pipeline.expire(&mut self.io, self.now).expect("memory does not fail") {}
    }

    /// Returns the number of sessions.
    pub(super) fn sessions(&self) -> u32 {
        self.nat.table().len()
    }
}

pub(super) fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Vec<u8> {
    builder::udp(builder::tuple(Protocol::UDP, source, destination), b"payload")
}

fn tcp(
    flags: TcpFlags,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    sequence: u32,
    ack: u32,
) -> Vec<u8> {
    builder::tcp(builder::tuple(Protocol::TCP, source, destination), flags, sequence, ack, &[], b"")
}

/// Returns the packets as frames without offload.
fn frames(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    packets.iter().map(|packet| (packet.clone(), Offload::default())).collect()
}

fn parsed(packet: &[u8]) -> Parsed {
    parse(packet, ChecksumMode::Complete).expect("well-formed")
}

fn tuple(protocol: Protocol, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    builder::tuple(protocol, source, destination)
}

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const FIN_ACK: TcpFlags = TcpFlags(0x11);
const RST: TcpFlags = TcpFlags::RST;

/// Opens a connection from E1 to the forward. The next sequence numbers are 101 (client) and 501
/// (server).
fn connect(harness: &mut Harness) {
    harness.pass(&tcp(SYN, (E1, 4444), (G, 8080), 100, 0));
    harness.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4444), 500, 101));
    harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
}

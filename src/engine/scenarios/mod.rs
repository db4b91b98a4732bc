//! Packets through the whole engine over memory queues: one test per behaviour of the translator.
//!
//! The stage: inside 10.0.0.0/24 behind one or two uplinks; outside hosts E1, E2. Every packet that comes out is
//! checked in full ([`builder::verify`]).

mod errors;
mod fragments;
mod malformed;
mod no_nat;
mod reload;
mod replay;
mod scrub;
mod sessions;
mod tentative;
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
    Translator,
};
use crate::packet::{
    ChecksumMode, Offload, Parsed, PartialChecksum, Payload, Protocol, QueryKind, Segmentation,
    SegmentationKind, TcpFlags, Tuple, builder, parse,
};
use crate::time::{Span, Tick};
use arc_swap::ArcSwap;

use super::pipeline::Pipeline;
use super::swap_policy;

pub(super) const G: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(super) const G2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(super) const BOX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(super) const S1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
pub(super) const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);
pub(super) const E1: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const E2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// A box on memory queues, with its own clock.
pub(super) struct Stage {
    pub(super) nat: Arc<Translator>,
    rules: Arc<ArcSwap<Translator>>,
    batch: Pipeline,
    io: MemoryIo,
    pub(super) now: Tick,
}

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

/// What a translator is made of.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

impl Setup {
    /// The same with a change.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

pub(super) fn settings() -> Setup {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let policy = Policy {
        inside_address: Some(BOX),
        tun_address: Some(Ipv4Addr::new(169, 254, 71, 1)),
        forwards: vec![
            forward(ForwardProtocol::TcpUdp, 8080..=8080, S1, 80),
            forward(ForwardProtocol::TcpUdp, 9000..=9015, S2, 7000),
            forward(ForwardProtocol::Icmp, 0..=65535, S1, 0),
        ],
        ..Policy::one_uplink(inside, G)
    };
    Setup { limits: Limits::new(inside), policy }
}

/// Two lines that publish the same server, as in the three-legged box.
fn two_lines() -> Setup {
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

impl Stage {
    pub(super) fn new(setup: Setup) -> Self {
        Self::with_seed(setup, Seed::from(7))
    }

    fn with_seed(Setup { limits, policy }: Setup, seed: Seed) -> Self {
        let now = Tick(u32::MAX - 5000);
        let nat = Arc::new(Translator::new(limits, policy, 1, seed, now).expect("memory"));
        let lane = nat.worker(0);
        let rules = Arc::new(ArcSwap::new(Arc::clone(&nat)));
        Self {
            batch: Pipeline::new(Arc::clone(&rules), lane),
            rules,
            nat,
            io: MemoryIo::new(),
            now,
        }
    }

    /// Gives the box new rules; how many sessions that ended.
    pub(super) fn reload(&mut self, setup: Setup) -> usize {
        let (nat, mut transition) = self.nat.with_policy(setup.policy);
        self.nat = Arc::new(nat);
        swap_policy(&self.rules, Arc::clone(&self.nat));
        let mut ended = 0;
        while !transition.is_complete() {
            ended += self.nat.enforce(&mut transition, self.now);
        }
        ended
    }

    /// Sends packets through the box in one batch; what comes out is verified.
    pub(super) fn run(&mut self, packets: &[(Vec<u8>, Offload)]) -> Vec<(Vec<u8>, Offload)> {
        for (packet, offload) in packets {
            self.io.push(packet, *offload);
        }
        loop {
            let frames = self.io.receive(std::time::Duration::ZERO).expect("memory does not fail");
            if frames == 0 {
                break;
            }
            self.batch.process(&mut self.io, self.now).expect("memory does not fail");
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
        sent
    }

    /// Sends one packet; what came out, if anything.
    pub(super) fn send(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let sent = self.run(&[(packet.to_vec(), Offload::default())]);
        assert!(sent.len() <= 1);
        sent.into_iter().next().map(|(packet, _)| packet)
    }

    /// Sends one packet that must come out, and tells its tuple.
    fn pass(&mut self, packet: &[u8]) -> Tuple {
        let out = self.send(packet).unwrap_or_else(|| panic!("dropped: {:?}", self.dropped()));
        parsed(&out).tuple().expect("a packet with a tuple")
    }

    /// Sends one packet that must be dropped, and tells why.
    pub(super) fn refuse(&mut self, packet: &[u8]) -> DropReason {
        let before = self.counters().drops;
        let out = self.send(packet);
        assert_eq!(out, None, "a packet came out");
        let after = self.counters().drops;
        let moved: Vec<_> =
            after.iter().filter(|(reason, count)| before.of(*reason) != *count).collect();
        assert_eq!(moved.len(), 1, "one reason moves: {moved:?}");
        moved[0].0
    }

    pub(super) fn counters(&self) -> &Counters {
        self.batch.counters()
    }

    fn dropped(&self) -> Vec<(DropReason, u64)> {
        self.counters().drops.iter().filter(|(_, count)| *count != 0).collect()
    }

    pub(super) fn wait(&mut self, span: Span) {
        self.now = self.now.after(span);
        while !self.batch.expire(&mut self.io, self.now).expect("memory does not fail") {}
    }

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

/// Opens a connection from E1 to the forward; sequence numbers after it are 101 and 501.
fn connect(stage: &mut Stage) {
    stage.pass(&tcp(SYN, (E1, 4444), (G, 8080), 100, 0));
    stage.pass(&tcp(SYN_ACK, (S1, 80), (E1, 4444), 500, 101));
    stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501));
}

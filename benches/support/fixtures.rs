//! An instance with a published server, its clients, and their packets.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use natbox::nat::{
    Contents, Counters, Forward, ForwardProtocol, Limits, Policy, PortRange, Seed,
    SessionFileSizes, SessionFiles, Timeouts, Translator, WorkerContext,
};
use natbox::packet::{Frames, Protocol, TcpFlags, Tuple, builder};
use natbox::time::{Span, Tick};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::replay::Replay;

/// Start of every bench.
pub(crate) const START: Tick = Tick(0);
/// Lifetime of sessions that end during a bench.
pub(crate) const SHORT: Span = Span::seconds(1);
/// Number of sessions opened between two readings of the clock: a multiple of `BATCH`.
pub(crate) const CHUNK: usize = 4096;

pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// A packet with headers and a small payload.
pub(crate) type Small = [u8; SMALL];
pub(crate) const SMALL: usize = 64;

/// Returns settings in which open connections last for ever, and others for [`SHORT`].
pub(crate) fn settings(sessions: u32) -> (Limits, Policy) {
    settings_with(1, sessions)
}

/// Returns the same settings with several uplinks, each of which publishes the server.
fn settings_with(uplinks: u32, sessions: u32) -> (Limits, Policy) {
    let inside = "10.0.0.0/8".parse().expect("a prefix");
    let one = Policy::one_uplink(inside, PUBLIC);
    let forwards = (0..uplinks).map(forward);
    let uplinks = (0..uplinks).map(|uplink_index| {
        let mut uplink = one.uplinks[0].clone();
        uplink.addresses[0].address = public(uplink_index);
        uplink
    });
    let limits = Limits {
        timeouts: Timeouts {
            tcp_established: Span::MAX,
            tcp_transitory: Span::MAX,
            tcp_syn: SHORT,
            udp: SHORT,
            udp_dns: SHORT,
            icmp: SHORT,
            fragment: SHORT,
            port_reuse_delay: None,
        },
        sessions,
        sessions_per_host: NonZeroU32::new(64 << 10),
        ..Limits::new(inside)
    };
    let policy = Policy { uplinks: uplinks.collect(), forwards: forwards.collect(), ..one };
    (limits, policy)
}

/// The forward that publishes the server on an uplink.
fn forward(uplink: u32) -> Forward {
    Forward {
        name: "web".into(),
        uplink: uplink as u8,
        protocol: ForwardProtocol::Tcp,
        address: public(uplink),
        ports: PortRange::single(80),
        to_address: SERVER,
        to_port: 80,
    }
}

/// Returns the published address of an uplink.
fn public(uplink: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(PUBLIC.to_bits() + (uplink << 8))
}

/// Returns the endpoint of the `index`-th client.
pub(crate) fn client(index: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0xc612_0000 + index / 50_000), (index % 50_000) as u16 + 10_000)
}

/// Returns the `index`-th inside endpoint of outbound traffic: 64 endpoints for each host.
pub(crate) fn inside(index: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0a01_0000 + index / 64), (index % 64) as u16 + 20_000)
}

pub(crate) fn segment(
    flags: TcpFlags,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    ack: u32,
) -> Small {
    let tuple = builder::tuple(Protocol::TCP, from, to);
    let mut packet = builder::tcp(tuple, flags, sequence, ack, &[], &[0x5a; SMALL - 40]);
    // TCP sets DF. Without DF the translator would give the packet a new identification.
    builder::set_dont_fragment(&mut packet, true);
    packet.try_into().expect("headers and payload have the requested length")
}

/// A worker of a translator.
pub(crate) struct Worker {
    nat: Arc<Translator>,
    context: WorkerContext,
    sent: u64,
}

impl Worker {
    pub(crate) fn new(nat: &Arc<Translator>, worker: usize) -> Self {
        Self { nat: Arc::clone(nat), context: nat.worker(worker), sent: 0 }
    }

    /// Translates the next batch of `frames`.
    pub(crate) fn run(&mut self, frames: &mut Replay, now: Tick) {
        frames.receive();
        self.nat.process(&mut self.context, frames, now);
        self.sent += frames.flush();
    }

    /// Ends a slice of the expired sessions. Returns true when no more are due.
    pub(crate) fn expire(&mut self, frames: &mut impl Frames, now: Tick) -> bool {
        self.nat.poll(&mut self.context, frames, now) != Some(now)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.context.counters
    }

    /// Returns the number of packets that left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}

/// Returns the tuple of the `index`-th client's packets, and that of the replies.
pub(crate) fn tuples(index: u32) -> [Tuple; 2] {
    let client = client(index);
    [
        builder::tuple(Protocol::TCP, client, (PUBLIC, 80)),
        builder::tuple(Protocol::TCP, (SERVER, 80), client),
    ]
}

/// Makes an instance for `workers` workers, with `size` open connections through the forward and
/// capacity for `more`.
pub(crate) fn new_instance(size: u32, more: u32, workers: usize) -> (Vec<Worker>, Arc<Translator>) {
    new_instance_with(1, size, more, workers)
}

/// Makes the same with the connections spread over several uplinks.
pub(crate) fn new_instance_with(
    uplinks: u32,
    size: u32,
    more: u32,
    workers: usize,
) -> (Vec<Worker>, Arc<Translator>) {
    let (limits, policy) = settings_with(uplinks, size + more);
    let nat = match std::env::var_os(KEEP) {
        None => Translator::new(limits, policy, workers, Seed::from(1), START),
        Some(directory) => {
            let (files, seed) = (session_files(&limits, directory), Seed::from(1));
            Translator::in_files(limits, policy, workers, seed, START, &files, Contents::Empty)
        }
    };
    let nat = Arc::new(nat.expect("memory"));
    let mut instance: Vec<_> = (0..workers).map(|worker| Worker::new(&nat, worker)).collect();
    let mut flights = (0..size).flat_map(move |index| {
        let (there, back) =
            ((client(index), (public(index % uplinks), 80)), ((SERVER, 80), client(index)));
        [
            segment(TcpFlags::SYN, there.0, there.1, 100, 0),
            segment(SYN_ACK, back.0, back.1, 500, 125),
            segment(TcpFlags::ACK, there.0, there.1, 125, 525),
        ]
    });
    let finished = Arc::new(AtomicBool::new(false));
    let at_end = Arc::clone(&finished);
    let mut frames = Replay::generate(move |buffer| {
        let packet = flights.next().unwrap_or_else(|| {
            at_end.store(true, Relaxed);
            // Fills the last batch with packets of an open connection.
            segment(TcpFlags::ACK, client(0), (PUBLIC, 80), 125, 525)
        });
        *buffer = packet;
    });
    while !finished.load(Relaxed) {
        instance[0].run(&mut frames, START);
    }
    assert_eq!(nat.table().len(), size);
    (instance, nat)
}

/// Names the directory of the session files; without it the sessions end with the process.
const KEEP: &str = "NATBOX_BENCH_KEEP";

/// Makes session files in a directory.
pub(crate) fn session_files(limits: &Limits, directory: impl AsRef<Path>) -> SessionFiles {
    let sizes = SessionFileSizes::of(limits.sessions, limits.accounting).expect("sizes");
    let file = |bytes| {
        let file = tempfile::tempfile_in(&directory).expect("a file");
        // Reserved as natbox does, so that no page is made later.
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, bytes).expect("space");
        file
    };
    SessionFiles {
        records: file(sizes.records),
        index: file(sizes.index),
        accounts: file(sizes.accounts.max(1)),
    }
}

/// Returns one packet of each connection, in a random order and direction.
pub(crate) fn established(size: u32) -> Vec<Small> {
    established_over(1, size)
}

/// Returns the same of connections that are spread over several uplinks.
pub(crate) fn established_over(uplinks: u32, size: u32) -> Vec<Small> {
    let mut random = StdRng::seed_from_u64(2);
    let mut packets: Vec<_> = (0..size)
        .map(|index| {
            if random.random() {
                segment(TcpFlags::ACK, client(index), (public(index % uplinks), 80), 125, 525)
            } else {
                segment(TcpFlags::ACK, (SERVER, 80), client(index), 525, 125)
            }
        })
        .collect();
    packets.shuffle(&mut random);
    packets
}

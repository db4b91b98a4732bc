//! What one worker needs beside the translator that all workers share.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::nat::counters::Counters;
use crate::nat::dropped::DroppedPackets;
use crate::nat::shared::traffic::WorkerTraffic;
use crate::nat::table::EndedSession;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::verdict::DropReason;
use crate::packet::{BATCH, IcmpError, PacketHead, Parsed};
use crate::time::Tick;

/// The number, counters, random generator and buffers of one worker.
pub struct WorkerContext {
    /// The worker's counters.
    pub counters: Counters,
    /// The worker's traffic by uplink.
    pub(super) traffic: Arc<WorkerTraffic>,
    pub(super) worker: usize,
    pub(super) random: StdRng,
    pub(super) classes: Box<[FrameClass]>,
    pub(super) ended: Vec<EndedSession>,
    /// Packets to send after the one that released them.
    pub(super) outbox: Vec<Box<[u8]>>,
    pub(super) last_sweep: Tick,
    /// Examples of dropped packets.
    pub(crate) dropped: DroppedPackets,
    /// The packet that was last replaced by an ICMP error.
    pub(super) replaced: PacketHead,
}

/// What a frame of the batch is, by its headers.
#[derive(Clone, Copy)]
pub(crate) enum FrameClass {
    Dropped(DropReason),
    Classified {
        parsed: Parsed,
        key: Key,
        hash: KeyHash,
    },
    Error {
        parsed: Parsed,
        error: IcmpError,
    },
    Fragment {
        parsed: Parsed,
    },
    /// Without a tuple, and neither an ICMP error nor a fragment: dropped for this reason unless
    /// the host has the destination address.
    Untranslatable {
        parsed: Parsed,
        reason: DropReason,
    },
}

impl WorkerContext {
    /// Makes the context of the worker with this number. Up to `ended` sessions end in one slice of
    /// expiry work.
    pub(super) fn new(
        worker: usize,
        random: StdRng,
        ended: usize,
        traffic: Arc<WorkerTraffic>,
    ) -> Self {
        Self {
            counters: Counters::default(),
            traffic,
            worker,
            random,
            classes: Box::new([FrameClass::Dropped(DropReason::NotIpv4); BATCH]),
            ended: Vec::with_capacity(ended),
            outbox: Vec::new(),
            last_sweep: Tick(0),
            dropped: DroppedPackets::new(),
            replaced: PacketHead::EMPTY,
        }
    }

    /// Counts a dropped packet, and keeps it as an example.
    #[cold]
    #[inline(never)]
    pub(crate) fn drop_packet(&mut self, reason: DropReason, packet: &[u8], now: Tick) {
        self.counters.drops.count(reason, 1);
        self.dropped.note(reason);
        self.dropped.keep(reason, self.counters.drops.of(reason), now, packet);
    }

    /// Counts the packet that was last replaced by an ICMP error, and keeps it as an example.
    #[cold]
    #[inline(never)]
    pub(crate) fn drop_replaced(&mut self, reason: DropReason, now: Tick) {
        let replaced = self.replaced;
        self.drop_packets(reason, 1, &[replaced], now);
    }

    /// Counts packets that were dropped for a reason. `heads` are the last of them, as far as they
    /// are known.
    #[cold]
    #[inline(never)]
    pub(crate) fn drop_packets(
        &mut self,
        reason: DropReason,
        packets: u64,
        heads: &[PacketHead],
        now: Tick,
    ) {
        self.counters.drops.count(reason, packets);
        self.dropped.note(reason);
        let before = self.counters.drops.of(reason) - heads.len() as u64;
        for (number, head) in (before + 1..).zip(heads) {
            self.dropped.keep_head(reason, number, now, *head);
        }
    }

    /// Makes a context for one packet that need not exist, with the random choices of this one.
    pub(super) fn rehearsing(worker: usize, random: StdRng) -> Self {
        Self::new(worker, random, 0, Arc::default())
    }

    /// Draws a random unprivileged port.
    pub(super) fn random_unprivileged_port(&mut self) -> u16 {
        self.random.random_range(1024..=u16::MAX)
    }
}

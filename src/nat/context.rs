//! What one worker needs beside the translator that all workers share.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::nat::counters::Counters;
use crate::nat::table::EndedSession;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::verdict::DropReason;
use crate::packet::{BATCH, IcmpError, Parsed};
use crate::time::Tick;

/// The number, counters, random generator and buffers of one worker.
pub struct WorkerContext {
    /// The worker's counters.
    pub counters: Counters,
    pub(super) worker: usize,
    pub(super) random: StdRng,
    pub(super) classes: Box<[FrameClass]>,
    pub(super) ended: Vec<EndedSession>,
    /// Packets to send after the one that released them.
    pub(super) outbox: Vec<Box<[u8]>>,
    pub(super) last_sweep: Tick,
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
    pub(super) fn new(worker: usize, random: StdRng, ended: usize) -> Self {
        Self {
            counters: Counters::default(),
            worker,
            random,
            classes: Box::new([FrameClass::Dropped(DropReason::NotIpv4); BATCH]),
            ended: Vec::with_capacity(ended),
            outbox: Vec::new(),
            last_sweep: Tick(0),
        }
    }

    /// Makes a context for one packet that need not exist, with the random choices of this one.
    pub(super) fn rehearsing(worker: usize, random: StdRng) -> Self {
        Self::new(worker, random, 0)
    }

    /// Draws a random unprivileged port.
    pub(super) fn random_unprivileged_port(&mut self) -> u16 {
        self.random.random_range(1024..=u16::MAX)
    }
}

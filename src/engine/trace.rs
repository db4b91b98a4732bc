//! Traces: live packets, before and after, with what the translator has decided about them.
//!
//! ```text
//!   worker ── one relaxed load a batch: is a trace on? ── no ─▶ translate
//!                                                     └─ yes ─▶ translate, observe each frame
//!             ── matching packets ──▶ a ring for each worker and trace ──▶ Trace::take ── control
//! ```
//!
//! A worker never waits for a reader. A packet that finds its ring full is not stored, and it is
//! counted. A trace ends when its [`Trace`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::nat::{Decided, DropReason, Observer, PacketOrigin, Translator, Verdict};
use crate::packet::{BATCH, Frame, Frames, PacketHead};
use crate::time::Tick;

/// A packet that a worker has handled while a trace was on.
#[derive(Clone, Debug)]
pub(crate) struct TracedPacket {
    /// Time of the packet's batch.
    pub(crate) at: SystemTime,
    /// The same time for spans.
    pub(crate) now: Tick,
    /// Number of the worker.
    pub(crate) worker: usize,
    /// The packet as it arrived. None: a fragment that another packet has released.
    pub(crate) before: Option<PacketHead>,
    /// The packet that leaves. None: none leaves.
    pub(crate) after: Option<PacketHead>,
    pub(crate) outcome: TraceOutcome,
    /// True: the packet has opened its session.
    pub(crate) opened: bool,
    /// None: the packet is malformed, or another packet has released it.
    pub(crate) origin: Option<PacketOrigin>,
}

/// What has happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceOutcome {
    /// It leaves, translated or by a rule without translation.
    Translated,
    /// The host gets it.
    PassedToHost,
    /// It is dropped, and an ICMP error leaves.
    Rejected(DropReason),
    /// It is a fragment that waits for the first one.
    Held,
    /// It is a fragment that has waited, and leaves.
    Released,
    /// It is dropped.
    Dropped(DropReason),
}

/// Decides whether a packet belongs to a trace. Workers call it.
pub(crate) type TraceFilter = Box<dyn Fn(&TracedPacket) -> bool + Send + Sync>;

/// The traces that are on.
pub(crate) struct Tracers {
    /// Number of the traces. Relaxed: a worker that reads an old number traces a batch later.
    active: AtomicUsize,
    list: ArcSwap<Vec<Arc<Tracer>>>,
}

/// The workers' end of a trace.
struct Tracer {
    accepts: TraceFilter,
    rings: Box<[Ring]>,
}

/// The ring of one worker.
struct Ring {
    sender: Sender<TracedPacket>,
    /// Matching packets that found the ring full. Relaxed: a count.
    lost: AtomicU64,
}

/// The reader's end of a trace. The trace ends when it is dropped.
pub(crate) struct Trace {
    tracers: Arc<Tracers>,
    tracer: Arc<Tracer>,
    receivers: Vec<Receiver<TracedPacket>>,
    reported: u64,
}

/// Packets of a trace, in the order of each worker.
#[derive(Debug, Default)]
pub(crate) struct TracedPackets {
    pub(crate) packets: Vec<TracedPacket>,
    /// Matching packets that were lost since the last call.
    pub(crate) lost: u64,
}

impl Default for Tracers {
    fn default() -> Self {
        Self { active: AtomicUsize::new(0), list: ArcSwap::from_pointee(Vec::new()) }
    }
}

impl Tracers {
    /// Reports whether a trace is on.
    #[inline]
    pub(crate) fn are_active(&self) -> bool {
        self.active.load(Relaxed) != 0
    }

    /// Returns the number of traces.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.load().len()
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Tracer>>)) {
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            change(&mut list);
            list
        });
        self.active.store(self.list.load().len(), Relaxed);
    }
}

impl Trace {
    /// Begins a trace of `workers` workers with rings of `capacity` packets. None: too many traces
    /// are on.
    pub(super) fn begin(
        tracers: &Arc<Tracers>,
        workers: usize,
        capacity: usize,
        accepts: TraceFilter,
    ) -> Option<Self> {
        if tracers.list.load().len() >= MAX_TRACES {
            return None;
        }
        let (rings, receivers): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (sender, receiver) = bounded(capacity);
                (Ring { sender, lost: AtomicU64::new(0) }, receiver)
            })
            .unzip();
        let tracer = Arc::new(Tracer { accepts, rings: rings.into() });
        tracers.change(|list| list.push(Arc::clone(&tracer)));
        Some(Self { tracers: Arc::clone(tracers), tracer, receivers, reported: 0 })
    }

    /// Takes at most `most` packets, the same number of each worker as far as it has them.
    pub(crate) fn take(&mut self, most: usize) -> TracedPackets {
        let share = most.div_ceil(self.receivers.len().max(1));
        let mut packets = Vec::new();
        for receiver in &self.receivers {
            packets.extend(receiver.try_iter().take(share));
        }
        let lost: u64 = self.tracer.rings.iter().map(|ring| ring.lost.load(Relaxed)).sum();
        let new = lost - self.reported;
        self.reported = lost;
        TracedPackets { packets, lost: new }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.tracers.change(|list| list.retain(|tracer| !Arc::ptr_eq(tracer, &self.tracer)));
    }
}

impl Tracer {
    fn offer(&self, packet: &TracedPacket) {
        if !(self.accepts)(packet) {
            return;
        }
        let ring = &self.rings[packet.worker];
        if let Err(TrySendError::Full(_)) = ring.sender.try_send(packet.clone()) {
            ring.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Observes one batch of a worker.
pub(super) struct BatchTracer<'a> {
    nat: &'a Translator,
    tracers: Arc<Vec<Arc<Tracer>>>,
    worker: usize,
    at: SystemTime,
    arrived: Vec<PacketHead>,
}

impl<'a> BatchTracer<'a> {
    pub(super) fn new(nat: &'a Translator, tracers: &Tracers, worker: usize) -> Self {
        let (tracers, at) = (tracers.list.load_full(), SystemTime::now());
        Self { nat, tracers, worker, at, arrived: vec![PacketHead::EMPTY; BATCH] }
    }

    fn offer(&self, packet: &TracedPacket) {
        self.tracers.iter().for_each(|tracer| tracer.offer(packet));
    }
}

impl Observer for BatchTracer<'_> {
    fn arrived(&mut self, index: usize, frame: &Frame<'_>) {
        // The translator takes frames in slices of this length.
        self.arrived[index % BATCH] = PacketHead::of(&frame.buffer[..frame.length]);
    }

    fn decided(&mut self, frames: &mut impl Frames, decided: &Decided<'_>, now: Tick) {
        let Decided { index, parsed, verdict, opened } = *decided;
        let length = parsed.map_or(0, |parsed| parsed.length());
        let (outcome, length) = match verdict {
            Verdict::Translated => (TraceOutcome::Translated, Some(length)),
            Verdict::PassToHost => (TraceOutcome::PassedToHost, Some(length)),
            Verdict::Reply(length, reason) => (TraceOutcome::Rejected(reason), Some(length)),
            Verdict::Held => (TraceOutcome::Held, None),
            Verdict::Drop(reason) => (TraceOutcome::Dropped(reason), None),
        };
        let after = length.map(|length| PacketHead::of(&frames.frame(index).buffer[..length]));
        self.offer(&TracedPacket {
            at: self.at,
            now,
            worker: self.worker,
            before: Some(self.arrived[index % BATCH]),
            after,
            outcome,
            opened,
            origin: parsed.map(|parsed| self.nat.origin_of(parsed, now)),
        });
    }

    fn released(&mut self, packet: &[u8], now: Tick) {
        self.offer(&TracedPacket {
            at: self.at,
            now,
            worker: self.worker,
            before: None,
            after: Some(PacketHead::of(packet)),
            outcome: TraceOutcome::Released,
            opened: false,
            origin: None,
        });
    }
}

/// Traces at one time: each costs the workers time for every packet.
const MAX_TRACES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(worker: usize, number: u32) -> TracedPacket {
        TracedPacket {
            at: SystemTime::UNIX_EPOCH,
            now: Tick(number),
            worker,
            before: None,
            after: None,
            outcome: TraceOutcome::Held,
            opened: false,
            origin: None,
        }
    }

    #[test]
    fn traces_end_when_they_are_dropped_and_only_some_run_at_once() {
        let tracers = Arc::new(Tracers::default());
        let begin = || Trace::begin(&tracers, 1, 1, Box::new(|_| true));
        assert!(!tracers.are_active());
        let mut traces: Vec<_> = (0..MAX_TRACES).map(|_| begin().expect("a trace")).collect();
        assert!(begin().is_none());
        traces.remove(1);
        assert_eq!(tracers.len(), MAX_TRACES - 1);
        drop(begin().expect("a trace"));
        drop(traces);
        assert_eq!((tracers.len(), tracers.are_active()), (0, false));
    }

    proptest! {
        /// Every matching packet is taken, in the order of its worker, or counted as lost.
        #[test]
        fn no_loss_is_silent(
            capacity in 1..8usize,
            steps in prop::collection::vec((0..3usize, 0..6usize), 0..200),
        ) {
            let tracers = Arc::new(Tracers::default());
            let odd = |packet: &TracedPacket| packet.now.0 % 2 == 1;
            let mut trace = Trace::begin(&tracers, 3, capacity, Box::new(odd)).expect("a trace");
            let (mut sent, mut lost) = (0, 0);
            let mut taken: [Vec<u32>; 3] = Default::default();
            for (number, (worker, most)) in (0..).zip(steps) {
                trace.tracer.offer(&packet(worker, number));
                sent += u64::from(number % 2);
                // 0: the reader is slow.
                if most != 0 {
                    let found = trace.take(most);
                    lost += found.lost;
                    found.packets.iter().for_each(|found| taken[found.worker].push(found.now.0));
                }
            }
            let found = trace.take(1000);
            lost += found.lost;
            found.packets.iter().for_each(|found| taken[found.worker].push(found.now.0));
            prop_assert_eq!(taken.iter().map(|one| one.len() as u64).sum::<u64>() + lost, sent);
            for one in &taken {
                prop_assert!(one.is_sorted_by(|one, two| one < two) && one.iter().all(|n| n % 2 == 1));
            }
        }
    }
}

//! What the control plane sees of single packets: the last dropped packets of each reason, and
//! traces ([`super::trace`]).
//!
//! ```text
//!   worker ── DropExamples, once a batch in which packets were dropped ──▶ Handle ── control
//! ```
//!
//! A worker never waits: if a reader holds the examples, those of the batch are not stored, and
//! they are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::trace::{Trace, TraceFilter, Tracers};
use crate::nat::{DropReason, DroppedPackets};
use crate::packet::PacketHead;

/// What the workers and the control plane share about single packets.
pub(crate) struct Observation {
    /// The examples of each worker.
    pub(super) examples: Box<[DropExamples]>,
    pub(super) tracers: Arc<Tracers>,
}

impl Observation {
    /// Makes the observation of the packets of `workers` workers.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let examples = (0..workers).map(|_| DropExamples::default()).collect();
        Arc::new(Self { examples, tracers: Arc::default() })
    }

    /// Begins a trace. None: too many traces are on.
    pub(crate) fn trace(&self, filter: TraceFilter) -> Option<Trace> {
        Trace::begin(&self.tracers, self.examples.len(), RING, filter)
    }
}

/// Examples that are kept of each reason.
pub(crate) const MAX_EXAMPLES: usize = 16;

/// The last dropped packets of one worker, by reason. The worker writes them, others read them.
pub(crate) struct DropExamples {
    rings: Mutex<Box<[Ring]>>,
    /// Time of the last drop of each reason, in milliseconds since 1970. 0: none. Relaxed: the
    /// times are independent of each other and of the examples.
    last: [AtomicU64; REASONS],
    /// Examples that were not stored because a reader held the examples. Relaxed: a count.
    missed: AtomicU64,
}

/// The last examples of one reason. After the first [`MAX_EXAMPLES`], each replaces the oldest.
struct Ring {
    examples: Vec<DropExample>,
    oldest: usize,
}

/// A dropped packet, as the control plane sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropExample {
    /// Time of the end of its batch.
    pub(crate) at: SystemTime,
    /// Number of the worker.
    pub(crate) worker: usize,
    /// Number of this drop among those of its worker and its reason, from 1.
    pub(crate) number: u64,
    /// The packet as it arrived. For [`DropReason::TunWriteError`]: the translated packet.
    pub(crate) head: PacketHead,
}

/// The drops of one reason.
#[derive(Clone, Debug)]
pub(crate) struct DropRecord {
    pub(crate) reason: DropReason,
    /// Packets dropped since the start.
    pub(crate) packets: u64,
    /// Time of the last drop. None: no packet was dropped.
    pub(crate) last: Option<SystemTime>,
    /// The last examples of all workers, oldest first.
    pub(crate) examples: Vec<DropExample>,
}

impl Default for DropExamples {
    fn default() -> Self {
        let ring = |_| Ring { examples: Vec::with_capacity(MAX_EXAMPLES), oldest: 0 };
        Self {
            rings: Mutex::new((0..REASONS).map(ring).collect()),
            last: [const { AtomicU64::new(0) }; REASONS],
            missed: AtomicU64::new(0),
        }
    }
}

impl DropExamples {
    /// Stores the examples of a batch and removes them from `dropped`. Only the worker that owns
    /// the examples calls this.
    #[inline]
    pub(crate) fn store(&self, worker: usize, dropped: &mut DroppedPackets) {
        if !dropped.is_empty() {
            self.store_at(SystemTime::now(), worker, dropped);
        }
    }

    #[cold]
    fn store_at(&self, at: SystemTime, worker: usize, dropped: &mut DroppedPackets) {
        let milliseconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for reason in dropped.reasons() {
            self.last[reason as usize].store(milliseconds.as_millis() as u64, Relaxed);
        }
        match self.rings.try_lock() {
            Some(mut rings) => {
                for packet in dropped.packets() {
                    let (number, head) = (packet.number, packet.head);
                    rings[packet.reason as usize].push(DropExample { at, worker, number, head });
                }
            }
            None => {
                self.missed.fetch_add(dropped.packets().len() as u64, Relaxed);
            }
        }
        dropped.clear();
    }

    /// Returns the examples of a reason, oldest first. Holds the lock for one copy of them.
    pub(crate) fn of(&self, reason: DropReason) -> Vec<DropExample> {
        let mut examples = Vec::with_capacity(MAX_EXAMPLES);
        let rings = self.rings.lock();
        let Ring { examples: kept, oldest } = &rings[reason as usize];
        examples.extend_from_slice(&kept[*oldest..]);
        examples.extend_from_slice(&kept[..*oldest]);
        examples
    }

    /// Returns the time of the last drop of a reason.
    pub(crate) fn last(&self, reason: DropReason) -> Option<SystemTime> {
        let milliseconds = self.last[reason as usize].load(Relaxed);
        (milliseconds != 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds))
    }

    /// Returns the number of examples that were not stored because a reader held the examples.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

impl Ring {
    fn push(&mut self, example: DropExample) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(example);
        } else {
            self.examples[self.oldest] = example;
            self.oldest = (self.oldest + 1) % MAX_EXAMPLES;
        }
    }
}

/// Returns the last examples of a reason over all workers, oldest first.
pub(super) fn last_examples(workers: &[DropExamples], reason: DropReason) -> Vec<DropExample> {
    let mut examples: Vec<_> = workers.iter().flat_map(|worker| worker.of(reason)).collect();
    // Stable: the examples of one worker keep their order.
    examples.sort_by_key(|example| example.at);
    examples.drain(..examples.len().saturating_sub(MAX_EXAMPLES));
    examples
}

/// Packets of a trace that wait for the reader, for each worker.
const RING: usize = 2048;
const REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Tick;

    const REASON: DropReason = DropReason::NoMapping;

    fn dropped(numbers: impl IntoIterator<Item = u64>) -> DroppedPackets {
        let mut dropped = DroppedPackets::new();
        for number in numbers {
            dropped.note(REASON);
            // One window for each.
            dropped.keep(REASON, number, Tick(number as u32 * 1000), &number.to_be_bytes());
        }
        dropped
    }

    fn numbers(examples: &[DropExample]) -> Vec<u64> {
        for example in examples {
            assert_eq!(example.head.bytes(), example.number.to_be_bytes());
        }
        examples.iter().map(|example| example.number).collect()
    }

    fn second(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn the_last_examples_are_kept_in_order_and_other_reasons_have_none() {
        let examples = DropExamples::default();
        assert_eq!(examples.last(REASON), None);
        examples.store(0, &mut dropped([]));
        assert_eq!(examples.last(REASON), None);
        let mut first = 1;
        for batch in [1, 7, 16, 3, 40, 16, 1] {
            let last = first + batch - 1;
            let mut packets = dropped(first..=last);
            examples.store_at(second(last), 0, &mut packets);
            assert!(packets.is_empty());
            let kept = last.saturating_sub(15).max(1)..=last;
            assert_eq!(numbers(&examples.of(REASON)), kept.collect::<Vec<_>>());
            assert_eq!(examples.last(REASON), Some(second(last)));
            first = last + 1;
        }
        assert!(examples.of(DropReason::Martian).is_empty());
        assert_eq!(examples.missed(), 0);
    }

    #[test]
    fn a_reader_delays_no_worker_and_what_is_not_stored_is_counted() {
        let examples = DropExamples::default();
        let reading = examples.rings.lock();
        examples.store_at(second(9), 0, &mut dropped(1..=5));
        assert_eq!((examples.missed(), examples.last(REASON)), (5, Some(second(9))));
        drop(reading);
        examples.store_at(second(10), 0, &mut dropped(6..=7));
        assert_eq!(numbers(&examples.of(REASON)), [6, 7]);
    }

    #[test]
    fn examples_of_all_workers_are_one_list_by_time() {
        let workers = [DropExamples::default(), DropExamples::default()];
        for number in 1..=20 {
            let worker = number as usize % 2;
            workers[worker].store_at(second(number), worker, &mut dropped([number]));
        }
        let examples = last_examples(&workers, REASON);
        assert_eq!(numbers(&examples), (5..=20).collect::<Vec<_>>());
        assert!(examples.iter().all(|example| example.number as usize % 2 == example.worker));
    }
}

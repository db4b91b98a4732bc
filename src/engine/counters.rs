//! A worker's counters, shared with the control plane.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::nat::Counters;

use super::batch_times::SharedBatchTimes;

/// The counters of one worker, on cache lines of their own. The worker writes them once per batch.
#[repr(align(128))]
pub(crate) struct SharedCounters {
    counters: [AtomicU64; Counters::COUNT],
    /// Durations of the worker's batches.
    pub(super) batch_times: SharedBatchTimes,
}

impl Default for SharedCounters {
    fn default() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counters::COUNT],
            batch_times: SharedBatchTimes::default(),
        }
    }
}

impl SharedCounters {
    /// Publishes the counters. Only the worker that owns them calls this.
    #[inline]
    pub(crate) fn write(&self, counters: &Counters) {
        for (cell, value) in self.counters.iter().zip(counters.values()) {
            // Relaxed: the counters are independent of each other and of any other memory.
            cell.store(value, Relaxed);
        }
    }

    /// Returns the counters of the last batch. A reader may see a batch in part.
    pub(crate) fn read(&self) -> Counters {
        Counters::from_values(self.counters.iter().map(|cell| cell.load(Relaxed)))
    }
}

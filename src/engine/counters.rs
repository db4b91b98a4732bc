//! Counters as the outside of a worker sees them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::nat::Counters;

/// A worker's counters, on cache lines of their own: written by the worker once per batch, read by anyone.
#[repr(align(128))]
pub struct SharedCounters([AtomicU64; Counters::COUNT]);

impl Default for SharedCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Counters::COUNT])
    }
}

impl SharedCounters {
    /// Publishes the counters. Only the worker that owns them calls this.
    #[inline]
    pub fn write(&self, counters: &Counters) {
        for (cell, value) in self.0.iter().zip(counters.values()) {
            // Relaxed: the numbers are independent of each other and of any other memory.
            cell.store(value, Relaxed);
        }
    }

    /// The counters as published last. Numbers of one batch may be seen in part.
    pub fn read(&self) -> Counters {
        Counters::from_values(self.0.iter().map(|cell| cell.load(Relaxed)))
    }
}

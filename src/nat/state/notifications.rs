//! Packets that tell inside hosts of sessions that a change of uplinks has ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// Packets to inside hosts that wait to be sent.
#[derive(Default)]
pub(crate) struct NotificationQueue {
    waiting: Mutex<VecDeque<Box<[u8]>>>,
    /// Whether any wait, so that a batch need not take the lock to see that none do. Written under it.
    some: AtomicBool,
}

impl NotificationQueue {
    /// Adds packets that are to be sent.
    pub(crate) fn extend(&self, packets: impl IntoIterator<Item = Box<[u8]>>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(packets);
        self.some.store(!waiting.is_empty(), Relaxed);
    }

    /// Takes at most `most` of them, the oldest first.
    pub(crate) fn take(&self, most: usize) -> Vec<Box<[u8]>> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(most);
        let taken = waiting.drain(..count).collect();
        self.some.store(!waiting.is_empty(), Relaxed);
        taken
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        !self.some.load(Relaxed)
    }
}

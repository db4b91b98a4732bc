//! Notifications to inside hosts about sessions that natbox has ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// Notification packets that wait to be sent.
#[derive(Default)]
pub(crate) struct NotificationQueue {
    waiting: Mutex<VecDeque<Box<[u8]>>>,
    /// Whether any packet waits, so that a batch finds the empty queue without the lock. Written
    /// under the lock.
    some: AtomicBool,
}

impl NotificationQueue {
    /// Adds packets to send.
    pub(crate) fn extend(&self, packets: impl IntoIterator<Item = Box<[u8]>>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(packets);
        self.some.store(!waiting.is_empty(), Relaxed);
    }

    /// Takes at most `most` packets, the oldest first.
    pub(crate) fn take(&self, most: usize) -> Vec<Box<[u8]>> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(most);
        let taken = waiting.drain(..count).collect();
        self.some.store(!waiting.is_empty(), Relaxed);
        taken
    }

    /// Number of packets that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Whether no packet waits.
    pub(crate) fn is_empty(&self) -> bool {
        !self.some.load(Relaxed)
    }
}

//! A bounded channel for events of the packet path: the sender never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Reading end of a channel of events.
pub struct EventReceiver<E> {
    receiver: Receiver<E>,
    lost: Arc<AtomicU64>,
}

/// Writing end of a channel of events.
pub(crate) struct EventSender<E> {
    sender: Sender<E>,
    /// Relaxed: a count.
    lost: Arc<AtomicU64>,
    /// Whether the reader is gone. Relaxed: a later event finds out again.
    closed: AtomicBool,
}

/// Makes a channel in which at most `capacity` events wait for the reader.
pub(crate) fn event_channel<E>(capacity: usize) -> (EventSender<E>, EventReceiver<E>) {
    let (sender, receiver) = bounded(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    let closed = AtomicBool::new(false);
    (EventSender { sender, lost: Arc::clone(&lost), closed }, EventReceiver { receiver, lost })
}

impl<E> EventReceiver<E> {
    /// Waits for the next event. None when the translator is gone and every event is read.
    pub fn next(&self) -> Option<E> {
        self.receiver.recv().ok()
    }

    /// Waits for the next event for at most `timeout`. None when no event came.
    pub fn next_within(&self, timeout: Duration) -> Option<E> {
        self.receiver.recv_timeout(timeout).ok()
    }

    /// Number of events lost so far because the reader was slow.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl<E> EventSender<E> {
    /// Sends an event. If the channel is full, the event is lost and counted.
    pub(crate) fn send(&self, event: E) {
        match self.sender.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => self.closed.store(true, Relaxed),
        }
    }

    /// Whether an event found the reader gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Number of events lost so far because the reader was slow.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

//! Session events: what subscribers learn of beginnings, handshakes and ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::nat::event_channel::{EventReceiver, EventSender, event_channel};
use crate::nat::table::session::{EndReason, SessionInfo};
use crate::packet::Tuple;
use crate::time::Tick;

/// A session has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEvent<T = Tuple> {
    /// The change.
    pub change: SessionChange,
    /// The session after the change; for an end, the session before it.
    pub session: SessionInfo<T>,
    /// Time of the change.
    pub at: Tick,
}

/// Change of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// The session was added to the table.
    Opened,
    /// Both ends have taken part: the TCP handshake is complete, the server of a connection that
    /// was adopted in mid-stream has answered, or a tentative UDP session was answered. Sessions of
    /// other kinds have no such event.
    Established,
    /// The session was removed from the table.
    Ended(EndReason),
}

/// Reading end of a subscription. The events of one session, and those of sessions with one tuple,
/// come in the order in which they happened.
pub type SessionEvents<T = Tuple> = EventReceiver<SessionEvent<T>>;

/// The subscribers of a table.
pub(crate) struct Subscribers<T> {
    senders: RwLock<Vec<EventSender<SessionEvent<T>>>>,
    /// Whether there are any, so that a change costs one load when there are none. Relaxed: a
    /// subscription may miss the changes of the same moment.
    any: AtomicBool,
}

impl<T: Copy> Subscribers<T> {
    pub(crate) fn new() -> Self {
        Self { senders: RwLock::new(Vec::new()), any: AtomicBool::new(false) }
    }

    /// Adds a subscriber; at most `capacity` events wait for it.
    pub(crate) fn add(&self, capacity: usize) -> SessionEvents<T> {
        let (sender, events) = event_channel(capacity);
        self.senders.write().push(sender);
        self.any.store(true, Relaxed);
        events
    }

    /// Whether anything subscribes.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Sends an event to every subscriber, and forgets the subscribers that are gone.
    #[cold]
    pub(crate) fn send(&self, event: SessionEvent<T>) {
        let senders = self.senders.read();
        senders.iter().for_each(|sender| sender.send(event));
        let is_one_gone = senders.iter().any(EventSender::is_closed);
        drop(senders);
        if is_one_gone {
            let mut senders = self.senders.write();
            senders.retain(|sender| !sender.is_closed());
            self.any.store(!senders.is_empty(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;

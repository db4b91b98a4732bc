//! Beginnings and ends of dynamic mappings, for whoever must be able to say who had an external endpoint at a time (RFC
//! 6888 section 4). Remote endpoints are not told (RFC 6888 REQ-12).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

/// A mapping has begun or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingEvent {
    /// Which of the two.
    pub change: MappingChange,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// The inside endpoint; for ICMP its port is the query's identifier.
    pub inside: Endpoint,
    /// The external endpoint; likewise.
    pub external: Endpoint,
    /// When.
    pub at: Tick,
}

/// What happens to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingChange {
    /// Its first session has begun.
    Begins,
    /// Its last session is over.
    Ends,
}

/// The reading end of the log.
pub struct MappingEvents {
    receiver: Receiver<MappingEvent>,
    lost: Arc<AtomicU64>,
}

impl MappingEvents {
    /// Waits for the next event; None when the box is no more. The end of one mapping at an external endpoint comes before
    /// the beginning of the next.
    pub fn next(&self) -> Option<MappingEvent> {
        self.receiver.recv().ok()
    }

    /// Events that found no room so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Takes events without ever waiting: what finds no room is lost, and counted.
pub(crate) struct MappingLog {
    sender: Sender<MappingEvent>,
    /// Relaxed: a count.
    lost: Arc<AtomicU64>,
}

impl MappingLog {
    /// A log with room for so many unread events, and its reading end.
    pub(crate) fn new(room: usize) -> (Self, MappingEvents) {
        let (sender, receiver) = bounded(room);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { sender, lost: Arc::clone(&lost) }, MappingEvents { receiver, lost })
    }

    pub(crate) fn note(&self, event: MappingEvent) {
        if self.sender.try_send(event).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

//! SYNs from outside that wait for their rejection (RFC 5382 REQ-4).

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::packet::{ChecksumMode, Tuple};
use crate::time::Tick;

/// SYNs that wait, oldest first; at most [`MAX_WAITING`]. Further ones get no rejection.
#[derive(Default)]
pub(crate) struct DelayedRejects(Mutex<VecDeque<DelayedReject>>);

/// A SYN that waits.
pub(crate) struct DelayedReject {
    /// Time of the rejection.
    pub(crate) due: Tick,
    /// Tuple of the SYN.
    pub(crate) tuple: Tuple,
    /// The whole packet.
    pub(crate) packet: Box<[u8]>,
    /// Mode of its checksum.
    pub(crate) checksum: ChecksumMode,
}

impl DelayedRejects {
    /// Whether no SYN waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Adds a SYN, unless [`MAX_WAITING`] wait already.
    pub(crate) fn push(&self, reject: DelayedReject) {
        let mut waiting = self.0.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(reject);
        }
    }

    /// Takes a SYN whose time has come.
    pub(crate) fn due(&self, now: Tick) -> Option<DelayedReject> {
        let mut waiting = self.0.lock();
        if now.reached(waiting.front()?.due) { waiting.pop_front() } else { None }
    }
}

/// SYNs that wait at one time.
const MAX_WAITING: usize = 1024;

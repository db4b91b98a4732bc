//! Freed ports that are kept for their last holders for a while (RFC 6888 REQ-8): a packet that is still under way to
//! the old holder must not reach another host.
//!
//! Only mappings that anyone may send to need this. With the other two filtering modes the newcomer's sessions do not
//! admit the old one's peers, and TCP is followed to its end; REQ-8 exempts both.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;

use parking_lot::Mutex;

use crate::nat::mapping::key::MappingKey;
use crate::time::{Span, Tick};

/// The resting ports of one pool. The pool's bits of these stay taken.
pub(crate) struct ReuseDelay {
    inner: Mutex<Inner>,
    rest: Span,
    most: usize,
}

#[derive(Default)]
struct Inner {
    by_holder: HashMap<MappingKey, Delayed, RandomState>,
    /// In the order of their ends. An entry whose port was fetched since then is stale, and skipped.
    queue: VecDeque<(Delayed, MappingKey)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Delayed {
    port: u16,
    until: Tick,
}

impl ReuseDelay {
    /// Room for `most` ports, each for the time of `rest`.
    pub(crate) fn new(rest: Span, most: u32) -> Self {
        Self { inner: Mutex::default(), rest, most: most as usize }
    }

    /// Lays a port to rest; ports that have to make room are handed to `wake`.
    pub(crate) fn quarantine(
        &self,
        port: u16,
        holder: MappingKey,
        now: Tick,
        mut wake: impl FnMut(u16),
    ) {
        if self.most == 0 {
            return wake(port);
        }
        let mut inner = self.inner.lock();
        while inner.by_holder.len() >= self.most || inner.queue.len() >= 2 * self.most {
            inner.release_first(&mut wake);
        }
        let rest = Delayed { port, until: now.after(self.rest) };
        if let Some(other) = inner.by_holder.insert(holder, rest) {
            // It had two: one since before its port was given to a forward and back, or by a race.
            wake(other.port);
        }
        inner.queue.push_back((rest, holder));
    }

    /// The port that rests for this holder, which has it again.
    pub(crate) fn reclaim(&self, holder: &MappingKey) -> Option<u16> {
        self.inner.lock().by_holder.remove(holder).map(|rest| rest.port)
    }

    /// Hands the ports that have rested long enough to `wake`.
    pub(crate) fn release_due(&self, now: Tick, mut wake: impl FnMut(u16)) {
        let mut inner = self.inner.lock();
        while inner.queue.front().is_some_and(|(rest, _)| now.reached(rest.until)) {
            inner.release_first(&mut wake);
        }
    }

    /// Takes a port away from its rest, for a forward; false when it does not rest.
    pub(crate) fn take_over(&self, port: u16) -> bool {
        let mut inner = self.inner.lock();
        let holder =
            inner.by_holder.iter().find(|(_, rest)| rest.port == port).map(|(holder, _)| *holder);
        holder.is_some_and(|holder| inner.by_holder.remove(&holder).is_some())
    }
}

impl Inner {
    fn release_first(&mut self, wake: &mut impl FnMut(u16)) {
        let Some((rest, holder)) = self.queue.pop_front() else { return };
        if self.by_holder.get(&holder) == Some(&rest) {
            self.by_holder.remove(&holder);
            wake(rest.port);
        }
    }
}

#[cfg(test)]
mod tests;

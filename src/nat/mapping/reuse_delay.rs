//! Freed ports that wait for their last holders for a while (RFC 6888 REQ-8): a packet that is
//! still under way to the old holder must not reach another host.
//!
//! Only mappings with endpoint-independent filtering need this. With the other two filtering modes
//! the new holder's sessions do not admit the old holder's peers, and natbox tracks TCP to its end.
//! REQ-8 exempts both.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::nat::mapping::key::MappingKey;
use crate::time::{Span, Tick};

/// The delayed ports of one pool. Their bits in the pool stay taken.
pub(crate) struct ReuseDelay {
    /// False while no port was ever delayed: the lock is not needed then. Relaxed: a port or two
    /// that pass beside a change do no harm.
    is_used: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    delay: Span,
    capacity: usize,
    by_holder: HashMap<MappingKey, Delayed>,
    /// In the order of their ends. An entry whose port was reclaimed since then is stale and
    /// skipped.
    queue: VecDeque<(Delayed, MappingKey)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Delayed {
    port: u16,
    until: Tick,
}

impl ReuseDelay {
    /// Makes an empty quarantine of `capacity` ports at most, each for `delay`.
    pub(crate) fn new(delay: Span, capacity: u32) -> Self {
        let capacity = capacity as usize;
        let (by_holder, queue) = (HashMap::new(), VecDeque::new());
        let inner = Inner { delay, capacity, by_holder, queue };
        Self { is_used: AtomicBool::new(capacity != 0), inner: Mutex::new(inner) }
    }

    /// Changes the number of ports and the delay. Ports beyond the number are free at once, and
    /// `release` gets them.
    pub(crate) fn set(&self, delay: Span, capacity: u32, mut release: impl FnMut(u16)) {
        let mut inner = self.inner.lock();
        (inner.delay, inner.capacity) = (delay, capacity as usize);
        while inner.by_holder.len() > inner.capacity {
            inner.release_first(&mut release);
        }
        if capacity != 0 {
            self.is_used.store(true, Relaxed);
        }
    }

    fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    /// Keeps a port for its holder, and passes the ports that it displaces to `release`.
    pub(crate) fn quarantine(
        &self,
        port: u16,
        holder: MappingKey,
        now: Tick,
        mut release: impl FnMut(u16),
    ) {
        if !self.is_used() {
            return release(port);
        }
        let mut inner = self.inner.lock();
        let capacity = inner.capacity;
        if capacity == 0 {
            return release(port);
        }
        while inner.by_holder.len() >= capacity || inner.queue.len() >= 2 * capacity {
            inner.release_first(&mut release);
        }
        let delayed = Delayed { port, until: now.after(inner.delay) };
        if let Some(other) = inner.by_holder.insert(holder, delayed) {
            // The holder had two: by a race, or one from before a forward took its port and gave it
            // back.
            release(other.port);
        }
        inner.queue.push_back((delayed, holder));
    }

    /// Returns the port that waits for this holder; the holder has the port again.
    pub(crate) fn reclaim(&self, holder: &MappingKey) -> Option<u16> {
        if !self.is_used() {
            return None;
        }
        self.inner.lock().by_holder.remove(holder).map(|delayed| delayed.port)
    }

    /// Takes this very port if it waits for this holder; the holder has the port again.
    pub(crate) fn reclaim_exact(&self, holder: &MappingKey, port: u16) -> bool {
        let mut inner = self.inner.lock();
        let waits = inner.by_holder.get(holder).is_some_and(|delayed| delayed.port == port);
        waits && inner.by_holder.remove(holder).is_some()
    }

    /// Hands the ports whose time is over to `release`.
    pub(crate) fn release_due(&self, now: Tick, mut release: impl FnMut(u16)) {
        if !self.is_used() {
            return;
        }
        let mut inner = self.inner.lock();
        while inner.queue.front().is_some_and(|(delayed, _)| now.reached(delayed.until)) {
            inner.release_first(&mut release);
        }
    }

    /// Returns the port that waits for this holder.
    pub(crate) fn waiting_for(&self, holder: &MappingKey) -> Option<u16> {
        self.inner.lock().by_holder.get(holder).map(|delayed| delayed.port)
    }

    /// Returns the ports that [`Self::release_due`] would release, without that of one holder.
    pub(crate) fn due(&self, now: Tick, without: &MappingKey) -> Vec<u16> {
        let inner = self.inner.lock();
        let due = inner.queue.iter().take_while(|(delayed, _)| now.reached(delayed.until));
        let waits = due.filter(|(delayed, holder)| {
            holder != without && inner.by_holder.get(holder) == Some(delayed)
        });
        waits.map(|(delayed, _)| delayed.port).collect()
    }

    /// Takes a delayed port for a forward; false when the port does not wait.
    pub(crate) fn take_over(&self, port: u16) -> bool {
        let mut inner = self.inner.lock();
        let holder = inner
            .by_holder
            .iter()
            .find(|(_, delayed)| delayed.port == port)
            .map(|(holder, _)| *holder);
        holder.is_some_and(|holder| inner.by_holder.remove(&holder).is_some())
    }
}

#[cfg(test)]
impl ReuseDelay {
    /// Returns the delayed ports in the order of their ends, to compare.
    pub(super) fn snapshot(&self) -> Vec<(u16, Tick, bool)> {
        let inner = self.inner.lock();
        let waits = |delayed, holder| inner.by_holder.get(holder) == Some(delayed);
        let queue = inner.queue.iter();
        queue
            .map(|(delayed, holder)| (delayed.port, delayed.until, waits(delayed, holder)))
            .collect()
    }
}

impl Inner {
    fn release_first(&mut self, release: &mut impl FnMut(u16)) {
        let Some((delayed, holder)) = self.queue.pop_front() else { return };
        if self.by_holder.get(&holder) == Some(&delayed) {
            self.by_holder.remove(&holder);
            release(delayed.port);
        }
    }
}

#[cfg(test)]
mod tests;

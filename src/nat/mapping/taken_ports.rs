//! The ports of a pool that are taken: as they are, or as they would be.
//!
//! The choice of a port is the same for a packet that has arrived and for one that might arrive.
//! For the first one it takes the port. For the second one it changes nothing.

use crate::nat::mapping::key::MappingKey;
use crate::nat::mapping::ports::{PortPool, Ports};
use crate::nat::mapping::reuse_delay::ReuseDelay;
use crate::time::Tick;

/// [`Ports`] with those that wait for their last holders.
pub(crate) trait DelayedPorts: Ports {
    /// Returns the port that waits for this holder; the holder has the port again.
    fn reclaim(&mut self, delay: &ReuseDelay, holder: &MappingKey) -> Option<u16>;
    /// Frees the ports whose delay is over. `holder` has reclaimed its own.
    fn release_due(&mut self, delay: &ReuseDelay, holder: &MappingKey, now: Tick);
}

impl DelayedPorts for &PortPool {
    fn reclaim(&mut self, delay: &ReuseDelay, holder: &MappingKey) -> Option<u16> {
        delay.reclaim(holder)
    }

    fn release_due(&mut self, delay: &ReuseDelay, _: &MappingKey, now: Tick) {
        delay.release_due(now, |port| self.release(port));
    }
}

/// A pool as it would be without the ports that become free. The pool does not change.
pub(crate) struct ForeseenPorts<'p> {
    pool: &'p PortPool,
    /// Ports that are taken and would be free.
    freed: Vec<u16>,
}

impl<'p> ForeseenPorts<'p> {
    /// The pool as it is.
    pub(crate) fn new(pool: &'p PortPool) -> Self {
        Self { pool, freed: Vec::new() }
    }
}

impl Ports for ForeseenPorts<'_> {
    fn free(&self) -> u32 {
        let dynamic = self.freed.iter().filter(|port| self.pool.is_dynamic(**port));
        self.pool.free() + dynamic.count() as u32
    }

    fn taken_in(&self, word: usize) -> u64 {
        let here = self.freed.iter().filter(|port| usize::from(**port / 64) == word);
        let freed = here.fold(0, |bits, port| bits | 1u64 << (port % 64));
        self.pool.taken_in(word) & !freed
    }

    fn reserve(&mut self, port: u16) -> bool {
        self.taken_in(usize::from(port / 64)) & 1 << (port % 64) == 0
    }

    fn release(&mut self, port: u16) {
        self.freed.push(port);
    }
}

impl DelayedPorts for ForeseenPorts<'_> {
    fn reclaim(&mut self, delay: &ReuseDelay, holder: &MappingKey) -> Option<u16> {
        delay.waiting_for(holder)
    }

    fn release_due(&mut self, delay: &ReuseDelay, holder: &MappingKey, now: Tick) {
        self.freed.extend(delay.due(now, holder));
    }
}

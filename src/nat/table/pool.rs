//! Pools: a slab of records and the timing wheel over the live ones, under one lock.
//!
//! Every worker has a pool of its own. A worker takes records from another pool only when its own
//! pool is empty.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use crate::nat::table::slab::Slab;
use crate::nat::table::wheel::Wheel;
use crate::time::Tick;

/// One pool with its lock.
#[repr(align(64))]
pub(crate) struct Pool {
    contents: Mutex<PoolContents>,
    /// Number of live sessions in the pool. Writers hold the pool's lock; readers need none.
    live: AtomicU32,
}

/// What the lock of a pool guards, besides the links of the records.
pub(crate) struct PoolContents {
    pub(crate) slab: Slab,
    pub(crate) wheel: Wheel,
}

impl Pool {
    /// Makes a pool over a slab without live sessions, or with sessions to adopt.
    pub(crate) fn new(slab: Slab, now: Tick) -> Self {
        let contents = PoolContents { slab, wheel: Wheel::new(now) };
        Self { contents: Mutex::new(contents), live: AtomicU32::new(0) }
    }

    /// Locks the pool.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PoolContents> {
        self.contents.lock()
    }

    /// Locks the pool if no other thread has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, PoolContents>> {
        self.contents.try_lock()
    }

    /// Number of live sessions.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Counts a session in. The caller holds the lock.
    pub(crate) fn count_in(&self) {
        self.live.fetch_add(1, Relaxed);
    }

    /// Counts a session out. The caller holds the lock.
    pub(crate) fn count_out(&self) {
        self.live.fetch_sub(1, Relaxed);
    }
}

/// Number of records of a table, the reserved ones included.
pub(super) fn record_count(capacity: u32) -> usize {
    capacity as usize + RESERVE as usize
}

/// Records that only sessions of the box itself get: see `Table::insert_reserved`.
pub(crate) const RESERVE: u32 = 1024;

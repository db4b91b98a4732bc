//! Which parts of inherited files are checked; see [`crate::nat::table::verify`].

use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use crate::nat::table::session::{Adopted, SessionInfo};
use crate::time::Tick;

/// Which shards and records of inherited files are checked.
pub(super) struct Checks<T> {
    shards: Box<[Once]>,
    /// One bit for each record: 1 after its check. Written under the lock of the record's pool.
    records: Box<[AtomicU64]>,
    /// Next shard that the adoption checks.
    next_shard: AtomicUsize,
    /// Time of the start: no packet of the other process is later.
    pub(super) started: Tick,
    pub(super) is_possible: IsPossible<T>,
    /// What the checks have found and no adoption has reported yet.
    pub(super) found: Mutex<Adopted>,
}

/// Whether the values of a session fit together.
pub(crate) type IsPossible<T> = Box<dyn Fn(&SessionInfo<T>) -> bool + Send + Sync>;

impl<T> Checks<T> {
    /// Notes that nothing is checked.
    pub(super) fn new(
        shards: usize,
        records: usize,
        started: Tick,
        is_possible: IsPossible<T>,
    ) -> Self {
        Self {
            shards: (0..shards).map(|_| Once::new()).collect(),
            records: (0..records.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            next_shard: AtomicUsize::new(0),
            started,
            is_possible,
            found: Mutex::default(),
        }
    }

    /// Runs `check` unless a thread has checked the shard. Waits for a thread that checks it now.
    pub(super) fn for_unchecked_shard(&self, shard: usize, check: impl FnOnce()) {
        self.shards[shard].call_once(check);
    }

    /// Returns the next shard that the adoption checks. None: there is none left.
    pub(super) fn next_shard(&self) -> Option<usize> {
        let shard = self.next_shard.fetch_add(1, Relaxed);
        (shard < self.shards.len()).then_some(shard)
    }

    /// Reports whether a record is checked. A slot beyond the records counts as checked.
    pub(super) fn is_checked(&self, slot: u32) -> bool {
        let word = self.records.get(slot as usize / 64);
        word.is_none_or(|word| word.load(Acquire) >> (slot % 64) & 1 != 0)
    }

    /// Notes that a record is checked. The entries of a record that is not whole are gone.
    pub(super) fn set_checked(&self, slot: u32) {
        self.records[slot as usize / 64].fetch_or(1 << (slot % 64), Release);
    }
}

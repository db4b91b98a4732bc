//! Adoption: the sessions of a process before this one become sessions of this table.
//!
//! The table translates by an inherited session from the first packet on: a lookup needs only the
//! index and the record. The rest is made again, one record after the other: the free slots, the
//! timing wheel, the lists of related sessions, and what the translator reserves for a session.
//!
//! The other process may have died between any two instructions. A record is *whole* if the index
//! has both of its entries: a worker fills a record before the entries appear, and removes both
//! entries before the record is free. The adoption removes what is left of a record that is not
//! whole. No packet was translated by a record without entries.
//!
//! An insertion or removal that was cut off leaves a shard whose overflow counts are wrong. So
//! the torn shards are repaired first.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::index::IndexEntry;
use crate::nat::table::pool::{Pool, PoolContents};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::SessionInfo;
use crate::nat::table::session_table::{Table, entries};
use crate::nat::tracking::direction::Direction;
use crate::time::Tick;

/// Outcome of a slice of the adoption, in sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Sessions that continue.
    pub kept: u32,
    /// Sessions that are not allowed, and records that were not whole.
    pub dropped: u32,
}

impl<F: Family> Table<F> {
    /// Reports whether sessions of a process before this one may wait for their adoption.
    #[inline]
    pub(crate) fn inherits(&self) -> bool {
        self.inherits.load(Relaxed)
    }

    /// Repairs the shards of the index that the other process was changing when it died. Call this
    /// before the first [`Self::adopt`].
    pub(crate) fn repair_index(&self) -> usize {
        let torn: Vec<usize> = self.index.torn_shards().collect();
        for shard in &torn {
            self.index.repair(*shard, |entry| {
                let (slot, direction) = entry.split();
                let record = self.records.get(slot as usize)?;
                record.common().is_live().then(|| self.hash(record.key(direction)))
            });
        }
        torn.len()
    }

    /// Adopts the next `budget` records, from the pool of `worker` first. `reserve` reserves what a
    /// session holds; false: the session is not allowed and ends.
    pub(crate) fn adopt(
        &self,
        worker: usize,
        budget: u32,
        now: Tick,
        mut reserve: impl FnMut(&SessionInfo<TupleOf<F>>) -> bool,
    ) -> Adopted {
        let mut adopted = Adopted::default();
        let mut left = budget;
        for pool in self.pools_from(worker).chain([&self.reserve]) {
            let mut locked = pool.lock();
            while left > 0 && self.adopt_next(pool, &mut locked, now, &mut reserve, &mut adopted) {
                left -= 1;
            }
        }
        if left > 0 {
            self.inherits.store(false, Relaxed);
        }
        adopted
    }

    /// Adopts the next record of a pool. False if the pool has none left.
    fn adopt_next(
        &self,
        pool: &Pool,
        locked: &mut PoolContents,
        now: Tick,
        reserve: &mut impl FnMut(&SessionInfo<TupleOf<F>>) -> bool,
        adopted: &mut Adopted,
    ) -> bool {
        let Some(slot) = locked.slab.next_to_adopt() else { return false };
        let record = &self.records[slot as usize];
        let common = record.common();
        if !common.was_used() {
            locked.slab.give_back(&self.records, slot);
            return true;
        }
        let session = self.info(slot, record);
        if common.is_live() && self.is_whole(slot) && reserve(&session) {
            self.enter_list(slot, session.origin, record.key(Direction::Reply));
            locked.wheel.schedule(&self.records, slot, session.deadline, now);
            pool.count_in();
            adopted.kept += 1;
        } else {
            adopted.dropped += u32::from(common.is_live());
            self.leave_index(slot, || {});
            locked.slab.give_back(&self.records, slot);
        }
        true
    }

    /// Reports whether the index has both entries of a record.
    fn is_whole(&self, slot: u32) -> bool {
        let record = &self.records[slot as usize];
        let keys = [Direction::Original, Direction::Reply].map(|direction| record.key(direction));
        let [original, reply] = keys.map(|key| self.hash(key));
        let locked = self.index.lock_both(original, reply);
        let has = |hash, wanted: IndexEntry| locked.find(hash, |entry| entry == wanted).is_some();
        let [original_entry, reply_entry] = entries(slot);
        has(original, original_entry) && has(reply, reply_entry)
    }
}

#[cfg(test)]
mod tests;

//! The check of inherited files, before the first packet.
//!
//! The other process may have died between any two instructions, and something else may have
//! damaged its files. A record is *whole* if the index has each of its two entries once: a worker
//! fills a record before the entries appear, and removes both entries before the record is free.
//! After the check, only whole records with possible values have entries. So a packet of a session
//! is translated by a record that two hashes and all values confirm, or not at all.
//!
//! An insertion or removal that was cut off leaves a shard whose overflow counts are wrong. So the
//! torn shards are repaired first, and those with damaged buckets: a bucket has its overflow count
//! twice, four bytes that are always zero, and no entry that points beyond the records.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::common::FREE;
use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{Adopted, SessionInfo};
use crate::nat::table::session_table::{Table, entries};
use crate::nat::tracking::direction::Direction;
use crate::time::Tick;

impl<F: Family> Table<F> {
    /// Checks inherited files and removes what is not whole or not possible. Call this once, before
    /// the first packet and the first [`Self::adopt`]. `is_possible`: whether the values of a
    /// session fit together. The first call of [`Self::adopt`] reports what was found.
    pub(crate) fn verify(&self, now: Tick, is_possible: impl Fn(&SessionInfo<TupleOf<F>>) -> bool) {
        let torn = self.index.torn_shards(self.records.len());
        let mut found = Adopted { damaged: torn.damaged_buckets, ..Adopted::default() };
        for shard in torn.shards {
            self.index.repair(shard, |entry| {
                let (slot, direction) = entry.split();
                let record = self.records.get(slot as usize)?;
                record.common().is_live().then(|| self.hash(record.key(direction)))
            });
        }
        let count = self.records.len() as u32;
        for first in (0..count).step_by(BATCH) {
            let slots = first..count.min(first + BATCH as u32);
            self.prefetch_entries(slots.clone());
            for slot in slots {
                self.verify_record(slot, now, &is_possible, &mut found);
            }
        }
        *self.found.lock() = found;
    }

    /// Fetches the buckets of some records.
    fn prefetch_entries(&self, slots: Range<u32>) {
        for record in slots.map(|slot| &self.records[slot as usize]) {
            if !record.is_blank() {
                for direction in [Direction::Original, Direction::Reply] {
                    self.prefetch_index(self.hash(record.key(direction)));
                }
            }
        }
    }

    fn verify_record(
        &self,
        slot: u32,
        now: Tick,
        is_possible: impl Fn(&SessionInfo<TupleOf<F>>) -> bool,
        found: &mut Adopted,
    ) {
        let record = &self.records[slot as usize];
        let common = record.common();
        if record.is_blank() && !common.is_live() {
            return;
        }
        let is_whole = self.count_entries(slot) == [1; 2];
        let [original, reply] = [Direction::Original, Direction::Reply].map(|it| record.key(it));
        let has_possible_values = common.has_possible_values(now)
            && original != reply
            && is_possible(&self.info(slot, record));
        if common.is_live() && is_whole && has_possible_values {
            return;
        }
        while self.count_entries(slot) != [0; 2] {
            self.leave_index(slot, || {});
        }
        // An entry that damage has put where nothing finds it may come to light later.
        record.clear_keys();
        if common.is_live() {
            common.wheel_slot.store(FREE, Relaxed);
            match has_possible_values {
                true => found.dropped += 1,
                false => found.damaged += 1,
            }
        }
    }

    /// Counts how often the index has each of the two entries of a record.
    fn count_entries(&self, slot: u32) -> [usize; 2] {
        let record = &self.records[slot as usize];
        let [original, reply] =
            [Direction::Original, Direction::Reply].map(|it| self.hash(record.key(it)));
        let [original_entry, reply_entry] = entries(slot);
        let locked = self.index.lock_both(original, reply);
        [locked.count(original, original_entry), locked.count(reply, reply_entry)]
    }
}

/// Records whose buckets are fetched together.
const BATCH: usize = 32;

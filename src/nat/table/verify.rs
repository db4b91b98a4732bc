//! The check of inherited files, behind the traffic.
//!
//! The other process may have died between any two instructions, and something else may have
//! damaged its files. A record is *whole* if the index has each of its two entries once: a worker
//! fills a record before the entries appear, and removes both entries before the record is free. A
//! checked record that has entries is whole and has possible values. So a packet of a session is
//! translated by a record that two hashes and all values confirm, or not at all.
//!
//! An insertion or removal that was cut off leaves a shard whose overflow counts are wrong. So a
//! torn shard is repaired before its first use, and so is one with damaged buckets: a bucket has
//! its overflow count twice, four bytes that are always zero, and no entry that points beyond the
//! records.
//!
//! The first packet waits for no other check than that of its own record and its two shards. The
//! adoption checks the rest.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::checks::Checks;
use crate::nat::table::common::FREE;
use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::hash::KeyHash;
use crate::nat::table::pool::PoolContents;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::Adopted;
use crate::nat::table::session_table::{Table, entries};
use crate::nat::tracking::direction::Direction;

impl<F: Family> Table<F> {
    /// Checks the shard of a key and the records that it may name, if they are inherited. Call this
    /// before a lookup, without a lock of a pool or shard.
    #[inline]
    pub(super) fn check_key(&self, hash: KeyHash) {
        if self.inherits() {
            self.check_inherited_key(hash);
        }
    }

    #[cold]
    fn check_inherited_key(&self, hash: KeyHash) {
        let Some(checks) = &self.checks else { return };
        self.check_shard(checks, self.index.shard_of_key(hash));
        let unchecked = || {
            let is_unchecked = |slot| !checks.is_checked(slot);
            let locked = self.index.lock(hash);
            Some(locked.find(hash, |entry| is_unchecked(entry.split().0))?.split().0)
        };
        while let Some(slot) = unchecked() {
            self.check_record(slot, &self.pool_of(slot).lock());
        }
    }

    /// Checks the next shard for the adoption. Returns false if all are checked.
    pub(super) fn check_next_shard(&self) -> bool {
        let Some(checks) = &self.checks else { return false };
        let next = checks.next_shard();
        next.inspect(|shard| self.check_shard(checks, *shard)).is_some()
    }

    /// Waits until no other thread checks a shard: from then on sessions begin without a check.
    pub(super) fn wait_for_checks(&self) {
        if let Some(checks) = &self.checks {
            (0..self.index.shards()).for_each(|shard| self.check_shard(checks, shard));
        }
    }

    /// Checks a record if it is inherited. The caller holds its pool, and no shard.
    pub(super) fn check_record(&self, slot: u32, _pool: &PoolContents) {
        let Some(checks) = &self.checks else { return };
        if checks.is_checked(slot) {
            return;
        }
        let record = &self.records[slot as usize];
        if !record.is_blank() || record.common().is_live() {
            self.check_used_record(checks, slot);
        }
        // After the entries of a record that is not whole are gone.
        checks.set_checked(slot);
    }

    /// Returns what the checks have found since the last call.
    pub(super) fn take_found(&self) -> Adopted {
        let Some(checks) = &self.checks else { return Adopted::default() };
        std::mem::take(&mut *checks.found.lock())
    }

    fn check_shard(&self, checks: &Checks<TupleOf<F>>, shard: usize) {
        checks.for_unchecked_shard(shard, || {
            let condition = self.index.condition(shard, self.records.len());
            if condition.is_torn {
                self.index.repair(shard, |entry| {
                    let (slot, direction) = entry.split();
                    let record = self.records.get(slot as usize)?;
                    record.common().is_live().then(|| self.hash(record.key(direction)))
                });
            }
            checks.found.lock().damaged += condition.damaged_buckets;
        });
    }

    fn check_used_record(&self, checks: &Checks<TupleOf<F>>, slot: u32) {
        let record = &self.records[slot as usize];
        let common = record.common();
        let [original, reply] = [Direction::Original, Direction::Reply].map(|it| record.key(it));
        for key in [original, reply] {
            self.check_shard(checks, self.index.shard_of_key(self.hash(key)));
        }
        let is_whole = self.count_entries(slot) == [1; 2];
        let has_possible_values = common.has_possible_values(checks.started)
            && original != reply
            && (checks.is_possible)(&self.info(slot, record));
        if common.is_live() && is_whole && has_possible_values {
            return;
        }
        self.leave_index(slot, || {});
        if common.is_live() {
            common.wheel_slot.store(FREE, Relaxed);
            let mut found = checks.found.lock();
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

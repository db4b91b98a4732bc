//! Adoption: the sessions of a process before this one become sessions of this table.
//!
//! The table translates by an inherited session from the first packet on: a lookup needs only the
//! index and the record. The rest is made again, one record after the other: the free slots, the
//! timing wheel, the lists of related sessions, and what the translator reserves for a session.
//! [`crate::nat::table::verify`] checks each record before it is adopted or used.
//!
//! Some sessions depend on others, wherever those lie in the table. Such a session is put off until
//! the adoption has gone through all other records.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::pool::{Pool, PoolContents};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{Adopted, SessionInfo};
use crate::nat::table::session_table::Table;
use crate::nat::tracking::direction::Direction;
use crate::time::Tick;

/// Which attempt to adopt a session the adoption makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The first one.
    First,
    /// The last one: the session was put off.
    Last,
    /// None: the session was put off, and has ended.
    Ended,
}

/// Outcome of an attempt to adopt a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdoptionOutcome {
    /// The session continues.
    Keep,
    /// The session ends.
    End,
    /// The session is put off. Only a first attempt has this outcome.
    PutOff,
}

impl<F: Family> Table<F> {
    /// Reports whether sessions of a process before this one may wait for their adoption.
    #[inline]
    pub(crate) fn inherits(&self) -> bool {
        self.inherits.load(Relaxed)
    }

    /// Adopts the next `budget` records, from the pool of `worker` first. `reserve` reserves what a
    /// session holds and decides about the session.
    pub(crate) fn adopt(
        &self,
        worker: usize,
        budget: u32,
        now: Tick,
        mut reserve: impl FnMut(&SessionInfo<TupleOf<F>>, Attempt) -> AdoptionOutcome,
    ) -> Adopted {
        let mut adopted = Adopted::default();
        let mut left = budget;
        for attempt in [Attempt::First, Attempt::Last] {
            // A slice of another thread ends before this one sees that its pool has no more. So no
            // session is put off any more when the last attempts begin.
            for pool in self.pools_from(worker).chain([&self.reserve]) {
                let mut locked = pool.lock();
                let mut next = || self.adopt_next(attempt, pool, &mut locked, now, &mut reserve);
                while left > 0
                    && let Some(one) = next()
                {
                    adopted += one;
                    left -= 1;
                }
                // A worker that waits has the pool next. Otherwise this thread would take it again.
                MutexGuard::unlock_fair(locked);
            }
        }
        // Most shards are checked by now, with the records that they name.
        while left > 0 && self.check_next_shard() {
            left = left.saturating_sub(SHARD_COST);
        }
        if left > 0 {
            self.wait_for_checks();
            self.inherits.store(false, Relaxed);
        }
        adopted += self.take_found();
        adopted
    }

    /// Adopts the next record of a pool. None if the pool has none left.
    fn adopt_next(
        &self,
        attempt: Attempt,
        pool: &Pool,
        locked: &mut PoolContents,
        now: Tick,
        reserve: &mut impl FnMut(&SessionInfo<TupleOf<F>>, Attempt) -> AdoptionOutcome,
    ) -> Option<Adopted> {
        let is_first = attempt == Attempt::First;
        let slot = if is_first { locked.slab.next_to_adopt() } else { locked.slab.next_waiting() }?;
        self.check_record(slot, locked);
        let record = &self.records[slot as usize];
        let common = record.common();
        if !common.was_used() {
            locked.slab.give_back(&self.records, slot);
            return Some(Adopted::default());
        }
        let session = self.info(slot, record);
        let is_live = common.is_live();
        let outcome = match (is_live, attempt) {
            (true, _) => reserve(&session, attempt),
            (false, Attempt::First) => AdoptionOutcome::End,
            (false, Attempt::Last | Attempt::Ended) => {
                reserve(&session, Attempt::Ended);
                AdoptionOutcome::End
            }
        };
        match (outcome, attempt) {
            (AdoptionOutcome::Keep, _) => {
                self.enter_list(slot, session.origin, record.key(Direction::Reply));
                locked.wheel.schedule(&self.records, slot, session.deadline, now);
                pool.count_in();
                Some(Adopted { kept: 1, ..Adopted::default() })
            }
            (AdoptionOutcome::PutOff, Attempt::First) => {
                locked.slab.put_off(&self.records, slot);
                Some(Adopted::default())
            }
            (AdoptionOutcome::End | AdoptionOutcome::PutOff, _) => {
                self.leave_index(slot, || {});
                locked.slab.give_back(&self.records, slot);
                Some(Adopted { dropped: u32::from(is_live), ..Adopted::default() })
            }
        }
    }
}

/// The check of a shard costs about as much as the adoption of this number of records.
const SHARD_COST: u32 = 64;

#[cfg(test)]
mod tests;

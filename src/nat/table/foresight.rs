//! What an insertion would do now. Nothing here changes the table.

use crate::nat::table::ending::{EVICTION_SCAN, leaves_reserve, yields_first};
use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::index::IndexEntry;
use crate::nat::table::pool::RESERVE;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{NewSession, SessionId, SessionInfo};
use crate::nat::table::session_table::{InsertError, Table};
use crate::time::Tick;

impl<F: Family> Table<F> {
    /// Returns the outcome of [`Self::insert`], after [`Self::evict`] if the table is full: the
    /// session that the new one would replace, if any. A session that is `reaped` counts as ended.
    ///
    /// # Errors
    /// Those of [`Self::insert`].
    pub(crate) fn would_insert(
        &self,
        worker: usize,
        new: &NewSession<F::Key>,
        reaped: Option<SessionId>,
        now: Tick,
    ) -> Result<Option<SessionInfo<TupleOf<F>>>, InsertError> {
        let has_free = reaped.is_some()
            || self.pools_from(worker).any(|pool| pool.lock().slab.has_free(&self.records));
        let victim = match has_free {
            true => None,
            false => Some(self.victim(worker, now).ok_or(InsertError::Full)?),
        };
        self.would_enter(new, victim, reaped)
    }

    /// Returns the outcome of [`Self::insert_reserved`], after [`Self::evict_reserved`] if no
    /// record is left; see [`Self::would_insert`].
    ///
    /// # Errors
    /// Those of [`Self::insert_reserved`].
    pub(crate) fn would_insert_reserved(
        &self,
        most: u32,
        new: &NewSession<F::Key>,
        reaped: Option<SessionId>,
        now: Tick,
    ) -> Result<Option<SessionInfo<TupleOf<F>>>, InsertError> {
        let live = self.reserve.live();
        let has_free = live < most && self.reserve.lock().slab.has_free(&self.records);
        let victim = match has_free {
            true => None,
            false => {
                let victim = self.victim_of_reserve(None, now).filter(|_| live <= most);
                Some(victim.ok_or(InsertError::Full)?)
            }
        };
        self.would_enter(new, victim, reaped)
    }

    /// Returns the slot of the session that [`Self::evict_reserved`] would end.
    pub(crate) fn victim_of_reserve(&self, uplink: Option<u8>, now: Tick) -> Option<u32> {
        let is_over = |record: &F::Record| {
            let record = record.common();
            uplink.is_none_or(|uplink| record.uplink() == uplink)
                && leaves_reserve(record, &self.idle_timeouts, now)
        };
        let slab = &self.reserve.lock().slab;
        slab.victim_from(slab.clock_hand(), &self.records, RESERVE, is_over).1
    }

    /// Returns the session of which a tuple is one of the two.
    pub(crate) fn session_at(&self, key: F::Key) -> Option<SessionInfo<TupleOf<F>>> {
        let hash = self.hash(key);
        let locked = self.index.lock(hash);
        let (slot, _) = locked.find(hash, |entry| self.has_key(entry, key))?.split();
        Some(self.info(slot, &self.records[slot as usize]))
    }

    /// Returns the slot of the session that [`Self::evict`] would end.
    fn victim(&self, worker: usize, now: Tick) -> Option<u32> {
        let yields = |record: &F::Record| yields_first(record.common(), &self.idle_timeouts, now);
        let is_closing = |record: &F::Record| record.common().state().is_closing();
        self.pools_from(worker).find_map(|pool| {
            let slab = &pool.lock().slab;
            let search = slab.victim_from(slab.clock_hand(), &self.records, EVICTION_SCAN, yields);
            let (hand, None) = search else { return search.1 };
            slab.victim_from(hand, &self.records, EVICTION_SCAN, is_closing).1
        })
    }

    /// Returns the outcome for the two keys of a new session, once the sessions that make way have
    /// ended.
    fn would_enter(
        &self,
        new: &NewSession<F::Key>,
        victim: Option<u32>,
        reaped: Option<SessionId>,
    ) -> Result<Option<SessionInfo<TupleOf<F>>>, InsertError> {
        let (original, reply) = (self.hash(new.original), self.hash(new.reply));
        let ended = [victim, reaped.map(SessionId::slot)];
        let is_taken = |hash, key: F::Key| {
            let is_others = |entry: IndexEntry| {
                self.has_key(entry, key) && !ended.contains(&Some(entry.split().0))
            };
            self.index.lock(hash).find(hash, is_others).is_some()
        };
        if is_taken(original, new.original) {
            return Err(InsertError::AlreadyExists);
        }
        if new.original == new.reply || is_taken(reply, new.reply) {
            return Err(InsertError::ReplyConflict);
        }
        Ok(victim.map(|slot| self.info(slot, &self.records[slot as usize])))
    }
}

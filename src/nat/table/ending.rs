//! Ends of sessions: by time, by request, and for new sessions.

use parking_lot::MutexGuard;

use crate::nat::table::common::RecordCommon;
use crate::nat::table::events::SessionChange;
use crate::nat::table::family::Family;
use crate::nat::table::pool::{Pool, PoolContents, RESERVE};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{EndReason, EndedSession, SessionId};
use crate::nat::table::session_table::{Table, entries};
use crate::nat::table::wheel::Due;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::TcpState;
use crate::time::{Span, Tick};

impl<F: Family> Table<F> {
    /// Ends a session if its time is over. Returns None if a packet has refreshed the session or
    /// another worker has ended it in the meantime.
    pub fn reap_if_expired(&self, id: SessionId, now: Tick) -> Option<EndedSession<F::Key>> {
        self.end_if(id, EndReason::Expired, now, |record| {
            now.reached(record.common().deadline(&self.idle_timeouts))
        })
    }

    /// Ends a session, whatever its time. Returns None if there is no such session.
    pub fn end(&self, id: SessionId, reason: EndReason, now: Tick) -> Option<EndedSession<F::Key>> {
        self.end_if(id, reason, now, |_| true)
    }

    /// Ends the session of this original tuple if its state is [`State::Tentative`]. Returns None
    /// if there is no such session.
    pub fn end_tentative(&self, original: F::Key, now: Tick) -> Option<EndedSession<F::Key>> {
        let hash = self.hash(original);
        self.check_key(hash);
        let shard = self.index.lock(hash);
        let (slot, direction) = shard.find(hash, |entry| self.has_key(entry, original))?.split();
        let id = self.records[slot as usize].common().id(slot);
        drop(shard);
        if direction == Direction::Reply {
            return None;
        }
        self.end_if(id, EndReason::Superseded, now, |record| {
            record.common().state() == State::Tentative
        })
    }

    fn end_if(
        &self,
        id: SessionId,
        reason: EndReason,
        now: Tick,
        due: impl Fn(&F::Record) -> bool,
    ) -> Option<EndedSession<F::Key>> {
        let (pool, mut locked) = self.lock_pool_of(id)?;
        due(&self.records[id.slot() as usize]).then(|| {
            if locked.slab.has_adopted(&self.records, id.slot()) {
                locked.wheel.cancel(&self.records, id.slot());
            }
            self.free(pool, &mut locked, id.slot(), reason, now)
        })
    }

    /// Moves a session to its right slot of the wheel, and to its right place in the list of
    /// related sessions, after [`Match::reschedule`].
    ///
    /// [`Match::reschedule`]: crate::nat::table::lookup::Match::reschedule
    pub fn reschedule(&self, id: SessionId, now: Tick) {
        // Between the lookup and here another worker may have ended the session.
        let Some((_, mut locked)) = self.lock_pool_of(id) else { return };
        // The adoption schedules the session.
        if !locked.slab.has_adopted(&self.records, id.slot()) {
            return;
        }
        locked.wheel.cancel(&self.records, id.slot());
        let deadline = self.records[id.slot() as usize].common().deadline(&self.idle_timeouts);
        locked.wheel.schedule(&self.records, id.slot(), deadline, now);
        self.close_in_list(id.slot());
    }

    /// Takes at most `budget` steps of the wheel of `worker`'s pool and appends the sessions that
    /// ended to `ended`. True when the wheel has caught up with `now`. Does nothing while another
    /// thread has the pool.
    pub fn expire(
        &self,
        worker: usize,
        now: Tick,
        budget: u32,
        ended: &mut Vec<EndedSession<F::Key>>,
    ) -> bool {
        let pool = &self.pools[worker % self.pools.len()];
        // Sessions can wait for their end. Packets cannot wait for another thread, which may be
        // adopting sessions of the pool.
        let Some(locked) = pool.try_lock() else { return false };
        self.expire_pool((pool, locked), now, budget, ended)
    }

    /// [`Self::expire`] for the reserved records.
    pub(crate) fn expire_reserved(
        &self,
        now: Tick,
        budget: u32,
        ended: &mut Vec<EndedSession<F::Key>>,
    ) -> bool {
        self.expire_pool((&self.reserve, self.reserve.lock()), now, budget, ended)
    }

    fn expire_pool(
        &self,
        (pool, mut locked): (&Pool, MutexGuard<'_, PoolContents>),
        now: Tick,
        budget: u32,
        ended: &mut Vec<EndedSession<F::Key>>,
    ) -> bool {
        let mut steps = budget;
        loop {
            let mut due = [0; EXPIRY_BATCH];
            let (mut count, mut caught_up) = (0, false);
            while steps > 0 && count < due.len() && !caught_up {
                match locked.wheel.step(&self.records, now, &self.idle_timeouts) {
                    Due::Ended(slot) => {
                        due[count] = slot;
                        count += 1;
                    }
                    Due::Rescheduled => {}
                    Due::Nothing => caught_up = true,
                }
                steps -= 1;
            }
            // Otherwise the removal of each entry would wait for its bucket.
            for slot in &due[..count] {
                let record = &self.records[*slot as usize];
                for direction in [Direction::Original, Direction::Reply] {
                    self.prefetch_index(self.hash(record.key(direction)));
                }
            }
            for slot in &due[..count] {
                ended.push(self.free(pool, &mut locked, *slot, EndReason::Expired, now));
            }
            if caught_up || steps == 0 {
                return caught_up;
            }
        }
    }

    /// Ends one session of a full table. The first choice is a session that
    /// [`yields_first`]; the second is a session that is closing. No other session is a victim:
    /// natbox does not end live mappings for newcomers (RFC 6888 REQ-11). Looks at a bounded number
    /// of records of each pool, `worker`'s first.
    pub fn evict(&self, worker: usize, now: Tick) -> Option<EndedSession<F::Key>> {
        let yields = |record: &F::Record| yields_first(record.common(), &self.idle_timeouts, now);
        let is_closing = |record: &F::Record| record.common().state().is_closing();
        self.pools_from(worker).find_map(|pool| {
            self.evict_from(pool, EVICTION_SCAN, yields, now)
                .or_else(|| self.evict_from(pool, EVICTION_SCAN, is_closing, now))
        })
    }

    /// Ends a session of the box itself in a reserved record that no probe needs any more: its time
    /// is over, it is closing, or it is a TCP connection that is not established and has been
    /// idle for [`MAX_PROBE_IDLE`]. `uplink` restricts the search to the sessions of an uplink.
    pub(crate) fn evict_reserved(
        &self,
        uplink: Option<u8>,
        now: Tick,
    ) -> Option<EndedSession<F::Key>> {
        let is_over = |record: &F::Record| {
            let record = record.common();
            uplink.is_none_or(|uplink| record.uplink() == uplink)
                && leaves_reserve(record, &self.idle_timeouts, now)
        };
        self.evict_from(&self.reserve, RESERVE, is_over, now)
    }

    /// Ends a session that `is_victim` accepts among the next `scan` records of a pool.
    fn evict_from(
        &self,
        pool: &Pool,
        scan: u32,
        is_victim: impl Fn(&F::Record) -> bool,
        now: Tick,
    ) -> Option<EndedSession<F::Key>> {
        let mut locked = pool.lock();
        let victim = locked.slab.find_victim(&self.records, scan, is_victim)?;
        locked.wheel.cancel(&self.records, victim);
        let overdue =
            now.reached(self.records[victim as usize].common().deadline(&self.idle_timeouts));
        let reason = if overdue { EndReason::Expired } else { EndReason::Evicted };
        Some(self.free(pool, &mut locked, victim, reason, now))
    }

    /// Frees a record that is not in the wheel; the caller holds the record's pool.
    pub(super) fn free(
        &self,
        pool: &Pool,
        locked: &mut PoolContents,
        slot: u32,
        reason: EndReason,
        now: Tick,
    ) -> EndedSession<F::Key> {
        let record = &self.records[slot as usize];
        let adopted = locked.slab.has_adopted(&self.records, slot);
        let ended = EndedSession {
            original: record.key(Direction::Original),
            reply: record.key(Direction::Reply),
            origin: record.common().origin(),
            uplink: record.common().uplink(),
            reason,
            adopted,
        };
        let removed = self.leave_index(slot, || {
            if self.subscribers.any() {
                self.publish(SessionChange::Ended(reason), slot, record, now);
            }
        });
        debug_assert!(removed || !adopted, "a live record's two entries are in the index");
        if adopted {
            self.leave_list(slot, ended.origin, ended.reply);
            locked.slab.give_back(&self.records, slot);
            pool.count_out();
        } else {
            locked.slab.abandon(&self.records, slot);
        }
        ended
    }

    /// Removes both entries of a record from the index. `before` runs under the locks of their
    /// shards. True if both entries were there.
    ///
    /// Damage of inherited files may have put another entry of the record where no lookup finds it
    /// yet. So the record loses its keys as well: no packet belongs to an entry that comes to
    /// light.
    pub(super) fn leave_index(&self, slot: u32, before: impl FnOnce()) -> bool {
        let record = &self.records[slot as usize];
        let [original, reply] = [Direction::Original, Direction::Reply]
            .map(|direction| self.hash(record.key(direction)));
        let [original_entry, reply_entry] = entries(slot);
        let shards = self.index.lock_both(original, reply);
        before();
        let remove =
            || [shards.remove(original, original_entry), shards.remove(reply, reply_entry)];
        let removed = remove();
        if self.checks.is_some() {
            while remove() != [false; 2] {}
            record.clear_keys();
        }
        removed == [true; 2]
    }
}

/// Sessions whose index entries are fetched together.
const EXPIRY_BATCH: usize = 16;

/// Whether a session's time is over, or the session came in over a static forward and is no
/// established TCP connection: packets of such a session pass without a session.
pub(super) fn yields_first(record: &RecordCommon, idle_timeouts: &IdleTimeouts, now: Tick) -> bool {
    now.reached(record.deadline(idle_timeouts))
        || record.origin().is_from_client()
            && matches!(
                record.state(),
                State::Udp
                    | State::DnsReplied
                    | State::Icmp
                    | State::Other
                    | State::Tcp(
                        TcpState::SynOriginal
                            | TcpState::SynReply
                            | TcpState::SynBoth
                            | TcpState::Midstream
                            | TcpState::MidstreamFin
                    )
            )
}

/// Whether no probe needs a session in a reserved record any more.
pub(super) fn leaves_reserve(
    record: &RecordCommon,
    idle_timeouts: &IdleTimeouts,
    now: Tick,
) -> bool {
    record.state().is_closing()
        || now.reached(record.deadline(idle_timeouts))
        || is_unestablished(record) && now.since(record.last_seen()) >= MAX_PROBE_IDLE
}

/// Whether a TCP connection is not complete, or one end has closed it.
fn is_unestablished(record: &RecordCommon) -> bool {
    matches!(record.state(), State::Tcp(state) if state != TcpState::Established)
}

/// Records examined in one search for a victim.
pub(super) const EVICTION_SCAN: u32 = 64;
/// Longest time that a probe takes. A probe that is over has closed its connection.
const MAX_PROBE_IDLE: Span = Span::seconds(10);

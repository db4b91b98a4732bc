//! Lookups: the session of a packet, refreshed by the packet or untouched.

use crate::nat::table::events::SessionChange;
use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::SessionKey;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{SessionId, SessionInfo, SessionKind};
use crate::nat::table::session_table::Table;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::tcp_window::Segment;
use crate::packet::Tuple;
use crate::time::Tick;

/// Outcome of a lookup.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<T = Tuple> {
    /// The packet belongs to a session and has refreshed it.
    Hit(Match<T>),
    /// The packet's session has ended and is not reaped yet: call [`Table::reap_if_expired`].
    Expired(SessionId),
    /// No session has the packet's tuple.
    Miss,
}

/// A session as one of its packets sees it.
#[derive(Clone, Copy, Debug)]
pub struct Match<T = Tuple> {
    /// Tuple to rewrite the packet to.
    pub to: T,
    /// Direction of the packet.
    pub direction: Direction,
    /// Kinds of the session's two endpoints.
    pub origin: SessionKind,
    /// Index of the session's uplink.
    pub uplink: u8,
    /// Set when the session now ends sooner than its slot of the wheel, or is closing from now on:
    /// call [`Table::reschedule`].
    pub reschedule: Option<SessionId>,
}

impl<F: Family> Table<F> {
    /// Looks a packet up. If the packet belongs to a session, refreshes the session and moves its
    /// state. `bytes` is the length of the packet, for accounting.
    #[inline]
    pub fn lookup_and_update(
        &self,
        key: F::Key,
        hash: KeyHash,
        segment: Option<&Segment>,
        bytes: u32,
        now: Tick,
    ) -> Lookup<TupleOf<F>> {
        self.check_key(hash);
        let locked = self.index.lock(hash);
        let Some(entry) = locked.find(hash, |entry| self.has_key(entry, key)) else {
            return Lookup::Miss;
        };
        let (slot, direction) = entry.split();
        let record = &self.records[slot as usize];
        if now.reached(record.common().deadline(&self.idle_timeouts)) {
            return Lookup::Expired(record.common().id(slot));
        }
        if let Some(accounts) = &self.accounts {
            accounts.count(slot, direction, bytes);
        }
        let common = record.common();
        let tracked =
            common.update(direction, segment, now, &self.idle_timeouts, || record.is_dns());
        if tracked.established && self.subscribers.any() {
            self.publish(SessionChange::Established, slot, record, now);
        }
        Lookup::Hit(Match {
            reschedule: tracked.ends_sooner.then(|| record.common().id(slot)),
            ..matched(record, direction)
        })
    }

    /// Returns the session of a tuple, without touching it.
    pub(crate) fn session_of(&self, key: F::Key, now: Tick) -> Option<SessionInfo<TupleOf<F>>> {
        let hash = self.hash(key);
        self.check_key(hash);
        let locked = self.index.lock(hash);
        let (slot, _) = locked.find(hash, |entry| self.has_key(entry, key))?.split();
        let record = &self.records[slot as usize];
        (!now.reached(record.common().deadline(&self.idle_timeouts)))
            .then(|| self.info(slot, record))
    }

    /// Looks a tuple up without touching its session.
    pub fn lookup(&self, key: F::Key, now: Tick) -> Option<Match<TupleOf<F>>> {
        match self.peek(key, now) {
            Lookup::Hit(hit) => Some(hit),
            Lookup::Expired(_) | Lookup::Miss => None,
        }
    }

    /// Returns the outcome that [`Self::lookup_and_update`] would have, and touches no session.
    #[inline]
    pub(crate) fn peek(&self, key: F::Key, now: Tick) -> Lookup<TupleOf<F>> {
        let hash = self.hash(key);
        self.check_key(hash);
        let locked = self.index.lock(hash);
        let Some(entry) = locked.find(hash, |entry| self.has_key(entry, key)) else {
            return Lookup::Miss;
        };
        let (slot, direction) = entry.split();
        let record = &self.records[slot as usize];
        match now.reached(record.common().deadline(&self.idle_timeouts)) {
            true => Lookup::Expired(record.common().id(slot)),
            false => Lookup::Hit(matched(record, direction)),
        }
    }
}

#[inline]
fn matched<R: SessionRecord>(
    record: &R,
    direction: Direction,
) -> Match<<R::Key as SessionKey>::Tuple> {
    Match {
        to: record.key(direction.opposite()).reversed_tuple(),
        direction,
        origin: record.common().origin(),
        uplink: record.common().uplink(),
        reschedule: None,
    }
}

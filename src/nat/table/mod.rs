//! The session table: records, index and pools, of fixed capacity.
//!
//! Locks are taken in this order and never the other way round: one pool, then one or two shards of the index. A
//! look-up takes one shard only. A record is freed by whoever holds its pool and has taken its two entries out of
//! the index under their shards, so a worker that found a record under a shard may use it until it lets the shard go.

pub(crate) mod index;
pub(crate) mod key;
#[cfg(test)]
mod model;
pub(crate) mod pool;
pub(crate) mod record;
pub(crate) mod region;
pub(crate) mod session;
#[cfg(test)]
pub(in crate::nat) mod smp_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use crate::packet::Tuple;
use crate::time::Tick;

use crate::nat::table::index::{Entry, Index};

use crate::nat::table::key::{Key, KeyHash, KeyHasher};
use crate::nat::table::pool::{Due, Pool};
use crate::nat::table::record::Record;
use crate::nat::table::region::Region;
use crate::nat::table::session::{NewSession, SessionKind};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::{SequenceCheck, TcpState};
use crate::nat::tracking::tcp_window::{Segment, TcpSequences};

/// The session table.
pub struct Table {
    records: Region<Record>,
    index: Index,
    hasher: KeyHasher,
    pools: Box<[SharedPool]>,
    /// Records in each pool's range but the last, which may have fewer.
    pool_size: u32,
    capacity: u32,
    idle_timeouts: IdleTimeouts,
}

#[repr(align(64))]
struct SharedPool {
    pool: Mutex<Pool>,
    /// Sessions that live in the pool; written under its lock, read by anyone.
    live: AtomicU32,
}

/// What the table knows of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// A session, refreshed by the packet.
    Hit(Match),
    /// A session that has ended but was not collected yet; end it with [`Table::reap_if_expired`].
    Expired(SessionId),
    /// No session.
    Miss,
}

/// A session as one of its packets sees it.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// What the packet is rewritten to.
    pub to: Tuple,
    /// Which way it goes.
    pub direction: Direction,
    /// How the session came to be.
    pub origin: SessionKind,
    /// Its uplink.
    pub uplink: u8,
    /// Set when the session now ends sooner than its place in the wheel: call [`Table::reschedule`].
    pub reschedule: Option<SessionId>,
}

/// Names a record, live or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(u32);

/// A session that is no more, for giving back what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSession {
    /// Tuple of the packets that opened it.
    pub original: Key,
    /// Tuple of those that answered.
    pub reply: Key,
    /// How it had come to be.
    pub origin: SessionKind,
    /// Its uplink.
    pub uplink: u8,
}

/// A session in a listing.
#[derive(Clone, Copy, Debug)]
pub struct SessionInfo {
    /// Its place; another session may have it later.
    pub id: SessionId,
    /// Tuple of the packets that opened it, on arrival.
    pub original: Tuple,
    /// Tuple of those that answer, on arrival.
    pub reply: Tuple,
    /// How it came to be.
    pub origin: SessionKind,
    /// Its uplink.
    pub uplink: u8,
    /// Its state.
    pub state: State,
    /// Its numbers; they mean something for TCP only.
    pub tcp: TcpSequences,
    /// When it ends if nothing more comes.
    pub deadline: Tick,
}

/// Why a session could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// No record is free.
    Full,
    /// A session with this original tuple exists: somebody else was faster.
    AlreadyExists,
    /// The reply tuple belongs to another session: choose another port.
    ReplyConflict,
}

impl Table {
    /// A table for exactly `capacity` sessions with one pool per worker.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(
        capacity: u32,
        workers: usize,
        idle_timeouts: IdleTimeouts,
        secret: [u64; 4],
        now: Tick,
    ) -> io::Result<Self> {
        let pool_size = capacity.div_ceil(workers.max(1) as u32).max(1);
        let pools = (0..workers.max(1) as u32)
            .map(|number| {
                let first = (number * pool_size).min(capacity);
                let count = pool_size.min(capacity - first);
                SharedPool {
                    pool: Mutex::new(Pool::new(first, count, now)),
                    live: AtomicU32::new(0),
                }
            })
            .collect();
        Ok(Self {
            records: Region::map(capacity as usize)?,
            index: Index::new(2 * capacity as usize)?,
            hasher: KeyHasher::new(secret),
            pools,
            pool_size,
            capacity,
            idle_timeouts,
        })
    }

    /// Sessions the table can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Sessions it holds; may lag by those being added or ended at this moment.
    pub fn len(&self) -> u32 {
        self.pools.iter().map(|shared| shared.live.load(Relaxed)).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// See [`Index::displaced`].
    #[cfg(test)]
    pub(crate) fn displaced(&self) -> u32 {
        self.index.displacement()
    }

    /// Hashes a key. Hash a whole batch first, then look up: see [`Self::prefetch_index`].
    #[inline]
    pub fn hash(&self, key: Key) -> KeyHash {
        self.hasher.hash(key)
    }

    /// First stage of a batched look-up: fetches the bucket.
    #[inline]
    pub fn prefetch_index(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Second stage: fetches the record that the bucket most likely names.
    #[inline]
    pub fn prefetch_record(&self, hash: KeyHash) {
        if let Some(entry) = self.index.speculate(hash) {
            self.records.prefetch(split(entry).0 as usize);
        }
    }

    /// Looks a packet up and, when it belongs to a session, counts it in.
    #[inline]
    pub fn lookup_and_update(
        &self,
        key: Key,
        hash: KeyHash,
        segment: Option<&Segment>,
        now: Tick,
    ) -> Lookup {
        let locked = self.index.lock(hash);
        let Some(entry) = locked.find(hash, |entry| self.has_key(entry, key)) else {
            return Lookup::Miss;
        };
        let (id, direction) = split(entry);
        let record = &self.records[id as usize];
        if now.reached(record.deadline(&self.idle_timeouts)) {
            return Lookup::Expired(SessionId(id));
        }
        let ends_sooner = record.track(direction, segment, now, &self.idle_timeouts);
        Lookup::Hit(Match {
            reschedule: ends_sooner.then_some(SessionId(id)),
            ..hit(record, direction)
        })
    }

    /// Looks a tuple up without touching its session.
    pub fn lookup(&self, key: Key, now: Tick) -> Option<Match> {
        let hash = self.hash(key);
        let locked = self.index.lock(hash);
        let (id, direction) = split(locked.find(hash, |entry| self.has_key(entry, key))?);
        let record = &self.records[id as usize];
        (!now.reached(record.deadline(&self.idle_timeouts))).then(|| hit(record, direction))
    }

    /// Adds a session, in the pool of `worker` if it has room. `first` is the packet that opens it.
    ///
    /// # Errors
    /// See [`InsertError`]; nothing has changed then.
    pub fn insert(
        &self,
        worker: usize,
        new: &NewSession,
        first: Option<&Segment>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let pools = self.pools.len();
        for step in 0..pools {
            let shared = &self.pools[(worker + step) % pools];
            let mut pool = shared.pool.lock();
            let Some(id) = pool.take(&self.records) else { continue };
            let record = &self.records[id as usize];
            record.fill(new, now);
            if let Some(segment) = first {
                record.tcp.advance(Direction::Original, segment, SequenceCheck::InWindow);
            }
            if let Err(error) = self.enter(id, new) {
                pool.give_back(&self.records, id);
                return Err(error);
            }
            pool.schedule(&self.records, id, record.deadline(&self.idle_timeouts), now);
            shared.live.fetch_add(1, Relaxed);
            return Ok(());
        }
        Err(InsertError::Full)
    }

    fn enter(&self, id: u32, new: &NewSession) -> Result<(), InsertError> {
        let (original, reply) = (self.hash(new.original), self.hash(new.reply));
        let locked = self.index.lock_both(original, reply);
        if locked.find(original, |entry| self.has_key(entry, new.original)).is_some() {
            return Err(InsertError::AlreadyExists);
        }
        // A session whose two tuples are equal would talk to itself.
        if new.original == new.reply
            || locked.find(reply, |entry| self.has_key(entry, new.reply)).is_some()
        {
            return Err(InsertError::ReplyConflict);
        }
        locked.insert(original, entry(id, Direction::Original)).map_err(|_| InsertError::Full)?;
        if locked.insert(reply, entry(id, Direction::Reply)).is_err() {
            locked.remove(original, entry(id, Direction::Original));
            return Err(InsertError::Full);
        }
        Ok(())
    }

    /// Ends a session if its time is over; None when it was refreshed or collected in the meantime.
    pub fn reap_if_expired(&self, id: SessionId, now: Tick) -> Option<EndedSession> {
        self.end_if(id, |record| now.reached(record.deadline(&self.idle_timeouts)))
    }

    /// Ends the session of this original tuple at this place, whatever its time; None when it is gone.
    pub fn end(&self, id: SessionId, original: Key) -> Option<EndedSession> {
        self.end_if(id, |record| record.key(Direction::Original) == original)
    }

    /// Ends the session of this original tuple if where it belongs is a guess; None when there is no such session.
    pub fn end_tentative(&self, original: Key) -> Option<EndedSession> {
        let hash = self.hash(original);
        let (id, _) =
            split(self.index.lock(hash).find(hash, |entry| self.has_key(entry, original))?);
        self.end_if(SessionId(id), |record| {
            record.key(Direction::Original) == original && record.state() == State::Tentative
        })
    }

    fn end_if(
        &self,
        SessionId(id): SessionId,
        due: impl Fn(&Record) -> bool,
    ) -> Option<EndedSession> {
        let (shared, mut pool) = self.lock_pool_of(id);
        let record = &self.records[id as usize];
        (pool.is_live(&self.records, id) && due(record)).then(|| {
            pool.cancel(&self.records, id);
            self.bury(shared, &mut pool, id)
        })
    }

    /// Moves a session to its right place in the wheel after [`Match::reschedule`].
    pub fn reschedule(&self, SessionId(id): SessionId, now: Tick) {
        let (_, mut pool) = self.lock_pool_of(id);
        // Between the look-up and here the record may have ended, and even been used anew; then this is idle work.
        if pool.is_live(&self.records, id) {
            pool.cancel(&self.records, id);
            pool.schedule(
                &self.records,
                id,
                self.records[id as usize].deadline(&self.idle_timeouts),
                now,
            );
        }
    }

    /// Takes at most `budget` steps of the wheel of `worker`'s pool; sessions that ended are appended to `ended`.
    /// True when the wheel has caught up with `now`.
    pub fn expire(
        &self,
        worker: usize,
        now: Tick,
        budget: u32,
        ended: &mut Vec<EndedSession>,
    ) -> bool {
        let shared = &self.pools[worker % self.pools.len()];
        let mut pool = shared.pool.lock();
        for _ in 0..budget {
            match pool.step(&self.records, now, &self.idle_timeouts) {
                Due::Ended(id) => ended.push(self.bury(shared, &mut pool, id)),
                Due::Rescheduled => {}
                Due::Nothing => return true,
            }
        }
        false
    }

    /// Makes room in a full table: ends one session whose time is over, or that came through a static forward, is not (or not
    /// yet) a TCP connection, and goes on without a session as well, else one that is closed. No other is a victim: live mappings are not ended for
    /// newcomers (RFC 6888 REQ-11). Looks at a bounded number of records of each pool, `worker`'s first.
    pub fn evict(&self, worker: usize, now: Tick) -> Option<EndedSession> {
        let pools = self.pools.len();
        (0..pools).find_map(|step| self.evict_from(&self.pools[(worker + step) % pools], now))
    }

    fn evict_from(&self, shared: &SharedPool, now: Tick) -> Option<EndedSession> {
        let mut pool = shared.pool.lock();
        let opening = |record: &Record| {
            now.reached(record.deadline(&self.idle_timeouts))
                || record.origin() == SessionKind::FORWARD
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
        };
        let closing = |record: &Record| {
            matches!(record.state(), State::Tcp(TcpState::FinBoth | TcpState::Reset))
        };
        let victim = pool
            .find_victim(&self.records, opening)
            .or_else(|| pool.find_victim(&self.records, closing))?;
        pool.cancel(&self.records, victim);
        Some(self.bury(shared, &mut pool, victim))
    }

    /// Calls `visit` for the sessions of a pool, in slices of at most `limit` records, so that a listing holds the
    /// lock only briefly. Start at pool 0, record 0, and pass on what is returned; None ends the listing. Sessions
    /// that come or go meanwhile may or may not be seen; none is seen twice.
    pub fn list(
        &self,
        from: (usize, u32),
        limit: u32,
        mut visit: impl FnMut(SessionInfo),
    ) -> Option<(usize, u32)> {
        let (number, offset) = from;
        let pool = self.pools.get(number)?.pool.lock();
        let next = pool.visit(&self.records, offset, limit, |id, record| {
            visit(SessionInfo {
                id: SessionId(id),
                original: record.key(Direction::Original).tuple(),
                reply: record.key(Direction::Reply).tuple(),
                origin: record.origin(),
                uplink: record.uplink(),
                state: record.state(),
                tcp: record.tcp.snapshot(),
                deadline: record.deadline(&self.idle_timeouts),
            });
        });
        match next {
            Some(offset) => Some((number, offset)),
            None => (number + 1 < self.pools.len()).then_some((number + 1, 0)),
        }
    }

    /// Frees an unlinked record of a locked pool.
    fn bury(&self, shared: &SharedPool, pool: &mut Pool, id: u32) -> EndedSession {
        let record = &self.records[id as usize];
        let ended = EndedSession {
            original: record.key(Direction::Original),
            reply: record.key(Direction::Reply),
            origin: record.origin(),
            uplink: record.uplink(),
        };
        let (original, reply) = (self.hash(ended.original), self.hash(ended.reply));
        let locked = self.index.lock_both(original, reply);
        let removed = locked.remove(original, entry(id, Direction::Original))
            & locked.remove(reply, entry(id, Direction::Reply));
        debug_assert!(removed, "a live record's two entries are in the index");
        drop(locked);
        pool.give_back(&self.records, id);
        shared.live.fetch_sub(1, Relaxed);
        ended
    }

    fn lock_pool_of(&self, id: u32) -> (&SharedPool, MutexGuard<'_, Pool>) {
        let shared = &self.pools[(id / self.pool_size) as usize];
        (shared, shared.pool.lock())
    }

    #[inline]
    fn has_key(&self, entry: Entry, key: Key) -> bool {
        let (id, direction) = split(entry);
        self.records[id as usize].key(direction) == key
    }
}

#[inline]
fn hit(record: &Record, direction: Direction) -> Match {
    Match {
        to: record.key(direction.opposite()).tuple().reversed(),
        direction,
        origin: record.origin(),
        uplink: record.uplink(),
        reschedule: None,
    }
}

#[inline]
fn entry(id: u32, direction: Direction) -> Entry {
    Entry(id << 1 | direction.number() as u32)
}

#[inline]
fn split(Entry(entry): Entry) -> (u32, Direction) {
    (entry >> 1, if entry & 1 == 0 { Direction::Original } else { Direction::Reply })
}

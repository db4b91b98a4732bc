//! The table itself: construction, insertion, and what every operation on records needs.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::MutexGuard;

use crate::nat::table::accounting::{Accounting, Accounts};
use crate::nat::table::checks::{Checks, IsPossible};
use crate::nat::table::events::{SessionChange, SessionEvent, SessionEvents, Subscribers};
use crate::nat::table::family::{Family, TupleOf, V4};
use crate::nat::table::files::SessionFiles;
use crate::nat::table::hash::{KeyHash, KeyHasher};
use crate::nat::table::index::{Index, IndexEntry};
use crate::nat::table::key::SessionKey;
use crate::nat::table::pool::{Pool, PoolContents, RESERVE, record_count};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::region::Region;
use crate::nat::table::related_lists::RelatedLists;
use crate::nat::table::session::{NewSession, SessionId};
use crate::nat::table::slab::Slab;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::SequenceCheck;
use crate::nat::tracking::tcp_window::Segment;
use crate::time::{Span, Tick};

/// The session table.
pub struct Table<F: Family = V4> {
    pub(super) records: Region<F::Record>,
    pub(super) index: Index,
    hasher: KeyHasher,
    /// The pools of the workers.
    pub(super) pools: Box<[Pool]>,
    /// The pool after those of the workers: see [`Self::insert_reserved`].
    pub(super) reserve: Pool,
    /// Number of records in each worker's pool but the last, which may have fewer.
    pool_size: u32,
    /// Number of records of all workers' pools.
    capacity: u32,
    pub(super) idle_timeouts: IdleTimeouts,
    pub(super) subscribers: Subscribers<TupleOf<F>>,
    /// None: no accounting.
    pub(super) accounts: Option<Accounts>,
    /// None: the uplink of a session from inside depends on no other session.
    pub(super) related: Option<RelatedLists>,
    /// Sessions of a process before this one may wait for their adoption.
    pub(super) inherits: AtomicBool,
    /// None: the records are those of this process.
    pub(super) checks: Option<Checks<TupleOf<F>>>,
}

/// The packet that opens a session.
#[derive(Clone, Copy, Debug)]
pub struct FirstPacket<'a> {
    /// Its TCP segment, if tracking takes the segment into account.
    pub segment: Option<&'a Segment>,
    /// Direction of the packet.
    pub direction: Direction,
    /// Length of the packet in bytes, for accounting.
    pub bytes: u32,
}

/// What the files of a table have.
pub(crate) enum TableContents<T> {
    /// All zeros.
    Empty,
    /// Sessions that this process has entered.
    Imported,
    /// Sessions of a process before this one, which may have died at any moment.
    Inherited(IsPossible<T>),
}

/// Why the table cannot add a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// No record is free.
    Full,
    /// A session with this original tuple exists: another worker was faster.
    AlreadyExists,
    /// The reply tuple belongs to another session: choose another port.
    ReplyConflict,
}

impl Table {
    /// Makes a table for exactly `capacity` IPv4 sessions with one pool per worker.
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
        Self::of_family(capacity, workers, idle_timeouts, secret, now)
    }
}

impl<F: Family> Table<F> {
    /// Makes a table for exactly `capacity` sessions of a family with one pool per worker.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn of_family(
        capacity: u32,
        workers: usize,
        idle_timeouts: IdleTimeouts,
        secret: [u64; 4],
        now: Tick,
    ) -> io::Result<Self> {
        let pools = Pools::new(capacity, workers, now, Slab::new);
        Self::with_pools(capacity, pools, idle_timeouts, secret, None)
    }

    /// Makes a table in files. If the files have sessions, the table translates by them at once and
    /// adopts them bit by bit; see [`Self::adopt`]. `secret` must be the one by which they were
    /// entered.
    ///
    /// # Errors
    /// When a file is too short or cannot be mapped.
    pub(crate) fn in_files(
        capacity: u32,
        workers: usize,
        idle_timeouts: IdleTimeouts,
        secret: [u64; 4],
        now: Tick,
        files: &SessionFiles,
        content: TableContents<TupleOf<F>>,
    ) -> io::Result<Self> {
        let inherits = !matches!(content, TableContents::Empty);
        let slab = if inherits { Slab::inherited } else { Slab::new };
        let pools = Pools::new(capacity, workers, now, slab);
        let table = Self::with_pools(capacity, pools, idle_timeouts, secret, Some(files))?;
        table.inherits.store(inherits, Relaxed);
        let checks = match content {
            TableContents::Empty | TableContents::Imported => None,
            TableContents::Inherited(is_possible) => {
                let (shards, records) = (table.index.shards(), table.records.len());
                Some(Checks::new(shards, records, now, is_possible))
            }
        };
        Ok(Self { checks, ..table })
    }

    fn with_pools(
        capacity: u32,
        pools: Pools,
        idle_timeouts: IdleTimeouts,
        secret: [u64; 4],
        files: Option<&SessionFiles>,
    ) -> io::Result<Self> {
        let (records, index) = (files.map(|it| &it.records), files.map(|it| &it.index));
        let count = record_count(capacity);
        let Pools { of_workers, reserve } = pools;
        Ok(Self {
            records: Region::map_in(records, count)?,
            index: Index::new(2 * count, index)?,
            hasher: KeyHasher::new(secret),
            pool_size: pool_size(capacity, of_workers.len()),
            pools: of_workers,
            reserve,
            capacity,
            idle_timeouts,
            subscribers: Subscribers::new(),
            accounts: None,
            related: None,
            inherits: AtomicBool::new(false),
            checks: None,
        })
    }

    /// Adds accounting, 64 bytes a session. Call this method before the table has sessions.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn with_accounting(self) -> io::Result<Self> {
        self.with_accounts_in(None)
    }

    /// Adds accounting as [`Self::with_accounting`] does, in a file if there is one.
    ///
    /// # Errors
    /// As [`Self::with_accounting`].
    pub(crate) fn with_accounts_in(self, file: Option<&File>) -> io::Result<Self> {
        let accounts = Some(Accounts::new(self.records.len(), file)?);
        Ok(Self { accounts, ..self })
    }

    /// Adds the lists of related sessions. Call this method before the table has sessions.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub(crate) fn with_related(self) -> io::Result<Self> {
        let related = Some(RelatedLists::new(self.capacity + RESERVE)?);
        Ok(Self { related, ..self })
    }

    /// Subscribes to the changes of sessions from now on; at most `capacity` events wait for the
    /// reader.
    pub fn subscribe(&self, capacity: usize) -> SessionEvents<TupleOf<F>> {
        self.subscribers.add(capacity)
    }

    /// Sends a change to the subscribers. The caller holds the shard of one of the record's keys,
    /// so the changes of one session, and those of one tuple, keep their order.
    #[cold]
    pub(super) fn publish(&self, change: SessionChange, slot: u32, record: &F::Record, now: Tick) {
        self.subscribers.send(SessionEvent { change, session: self.info(slot, record), at: now });
    }

    /// Changes the idle timeouts. A session has the new timeout from now on.
    pub(crate) fn set_idle_timeouts(&self, idle_timeouts: &IdleTimeouts) {
        self.idle_timeouts.set(idle_timeouts);
    }

    /// Reports whether the table has the lists of related sessions.
    pub(crate) fn has_related(&self) -> bool {
        self.related.is_some()
    }

    /// Idle timeout of a state.
    pub(crate) fn idle_timeout(&self, state: State) -> Span {
        self.idle_timeouts.of(state)
    }

    /// Maximum number of sessions, without the reserved records.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Number of sessions, those in reserved records included. May lag behind insertions and ends
    /// that are under way.
    pub fn len(&self) -> u32 {
        self.pools.iter().chain([&self.reserve]).map(Pool::live).sum()
    }

    /// Whether the table holds no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// See [`Index::displacement`].
    #[cfg(test)]
    pub(crate) fn displaced(&self) -> u32 {
        self.index.displacement()
    }

    /// Hashes a key. Hash a whole batch first, then look up: see [`Self::prefetch_index`].
    #[inline]
    pub fn hash(&self, key: F::Key) -> KeyHash {
        key.hash_with(&self.hasher)
    }

    /// Hashes the two addresses of a key.
    #[inline]
    pub(super) fn hash_hosts(&self, key: F::Key) -> KeyHash {
        key.hash_hosts_with(&self.hasher)
    }

    /// Fetches the bucket of a hash into the cache: the first stage of a batched lookup.
    #[inline]
    pub fn prefetch_index(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Fetches the record that the bucket most likely names: the second stage of a batched lookup.
    #[inline]
    pub fn prefetch_record(&self, hash: KeyHash) {
        if let Some(entry) = self.index.speculate(hash) {
            self.records.prefetch(entry.split().0 as usize);
        }
    }

    /// Adds a session, in the pool of `worker` if that pool has a free record. `first` is the
    /// packet that opens the session. Another worker may end the session before this call returns.
    ///
    /// # Errors
    /// See [`InsertError`]; the table has not changed then.
    pub fn insert(
        &self,
        worker: usize,
        new: &NewSession<F::Key>,
        first: Option<FirstPacket<'_>>,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        self.insert_first(self.pools_from(worker), new, first, now)
    }

    /// Adds a session of the box itself in a reserved record. Only such sessions get one of these
    /// records, so a table that is full of other sessions still takes them. At most `most`
    /// reserved records are in use afterwards.
    ///
    /// # Errors
    /// See [`InsertError`]; the table has not changed then.
    pub(crate) fn insert_reserved(
        &self,
        most: u32,
        new: &NewSession<F::Key>,
        first: Option<FirstPacket<'_>>,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        let reserve = (self.reserve.live() < most).then_some(&self.reserve);
        self.insert_first(reserve.into_iter(), new, first, now)
    }

    #[inline]
    fn insert_first<'t>(
        &'t self,
        pools: impl Iterator<Item = &'t Pool>,
        new: &NewSession<F::Key>,
        first: Option<FirstPacket<'_>>,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        let accounting = || {
            let mut accounting = Accounting::starting(now);
            if let Some(FirstPacket { direction, bytes, .. }) = first {
                accounting.count(direction, bytes);
            }
            accounting
        };
        self.insert_filled(pools, new, accounting, now, |record| {
            if let Some(FirstPacket { segment: Some(segment), direction, .. }) = first {
                record.common().tcp.advance(direction, segment, SequenceCheck::InWindow);
            }
        })
    }

    /// The workers' pools, that of `worker` first.
    #[inline]
    pub(super) fn pools_from(&self, worker: usize) -> impl Iterator<Item = &Pool> {
        let pools = self.pools.len();
        (0..pools).map(move |step| &self.pools[(worker + step) % pools])
    }

    /// Adds a session in the first of these pools that has a free record. `complete` finishes the
    /// record before the index names it.
    #[inline]
    pub(super) fn insert_filled<'t>(
        &'t self,
        pools: impl Iterator<Item = &'t Pool>,
        new: &NewSession<F::Key>,
        accounting: impl Fn() -> Accounting,
        now: Tick,
        complete: impl Fn(&F::Record),
    ) -> Result<SessionId, InsertError> {
        if self.inherits() {
            for key in [new.original, new.reply] {
                self.check_key(self.hash(key));
            }
        }
        for pool in pools {
            let mut locked = pool.lock();
            if let Some(last) = locked.slab.last_to_adopt() {
                self.check_record(last, &locked);
            }
            let Some(slot) = locked.slab.take(&self.records) else { continue };
            let record = &self.records[slot as usize];
            record.fill(new, now);
            complete(record);
            if let Some(accounts) = &self.accounts {
                accounts.set(slot, &accounting());
            }
            if let Err(error) = self.enter(slot, new, now) {
                if self.checks.is_some() {
                    record.clear_keys();
                }
                locked.slab.give_back(&self.records, slot);
                return Err(error);
            }
            self.enter_list(slot, new.origin, new.reply);
            let deadline = record.common().deadline(&self.idle_timeouts);
            locked.wheel.schedule(&self.records, slot, deadline, now);
            pool.count_in();
            return Ok(record.common().id(slot));
        }
        Err(InsertError::Full)
    }

    /// Enters both keys of a filled record into the index.
    #[inline]
    fn enter(&self, slot: u32, new: &NewSession<F::Key>, now: Tick) -> Result<(), InsertError> {
        let (original, reply) = (self.hash(new.original), self.hash(new.reply));
        let locked = self.index.lock_both(original, reply);
        // An entry of this record is one that damage has hidden until now: see `leave_index`.
        let is_others =
            |entry: IndexEntry, key| self.has_key(entry, key) && entry.split().0 != slot;
        if locked.find(original, |entry| is_others(entry, new.original)).is_some() {
            return Err(InsertError::AlreadyExists);
        }
        // A session whose two tuples are equal would send to itself.
        if new.original == new.reply
            || locked.find(reply, |entry| is_others(entry, new.reply)).is_some()
        {
            return Err(InsertError::ReplyConflict);
        }
        let [original_entry, reply_entry] = entries(slot);
        locked.insert(original, original_entry).map_err(|_| InsertError::Full)?;
        if locked.insert(reply, reply_entry).is_err() {
            locked.remove(original, original_entry);
            return Err(InsertError::Full);
        }
        if self.subscribers.any() {
            self.publish(SessionChange::Opened, slot, &self.records[slot as usize], now);
        }
        Ok(())
    }

    /// Locks the pool of a session. None if the identifier is stale or from another table.
    pub(super) fn lock_pool_of(
        &self,
        id: SessionId,
    ) -> Option<(&Pool, MutexGuard<'_, PoolContents>)> {
        let pool = self.pool_of(id.slot());
        let locked = pool.lock();
        self.check_record(id.slot(), &locked);
        locked.slab.has(&self.records, id).then_some((pool, locked))
    }

    /// The pool of a slot.
    pub(super) fn pool_of(&self, slot: u32) -> &Pool {
        match slot < self.capacity {
            true => &self.pools[(slot / self.pool_size) as usize],
            false => &self.reserve,
        }
    }

    /// Whether an entry names a record with this key.
    #[inline]
    pub(super) fn has_key(&self, entry: IndexEntry, key: F::Key) -> bool {
        let (slot, direction) = entry.split();
        // Damage of the files of a table may make an entry point beyond the records.
        self.records.get(slot as usize).is_some_and(|record| record.key(direction) == key)
    }
}

/// The pools of a table.
struct Pools {
    of_workers: Box<[Pool]>,
    reserve: Pool,
}

impl Pools {
    /// Makes one pool per worker, and that of the reserved records. `slab`: makes a slab over a
    /// range of slots.
    fn new(capacity: u32, workers: usize, now: Tick, slab: fn(u32, u32) -> Slab) -> Self {
        let size = pool_size(capacity, workers);
        let of_worker = |number: u32| {
            let first = (number * size).min(capacity);
            Pool::new(slab(first, size.min(capacity - first)), now)
        };
        Self {
            of_workers: (0..workers.max(1) as u32).map(of_worker).collect(),
            reserve: Pool::new(slab(capacity, RESERVE), now),
        }
    }
}

/// Number of records in each pool's range but the last.
fn pool_size(capacity: u32, workers: usize) -> u32 {
    capacity.div_ceil(workers.max(1) as u32).max(1)
}

/// The entries of a record's original and reply key.
pub(super) fn entries(slot: u32) -> [IndexEntry; 2] {
    [Direction::Original, Direction::Reply].map(|direction| IndexEntry::new(slot, direction))
}

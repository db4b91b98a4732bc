//! Listings of sessions, in slices.

use crate::nat::table::family::{Family, TupleOf};
use crate::nat::table::key::SessionKey;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{SessionId, SessionInfo};
use crate::nat::table::session_table::Table;
use crate::nat::tracking::direction::Direction;

/// Position in a walk over the table: a pool, and a record in the pool. The pool of the reserved
/// records comes last. The default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCursor {
    /// Index of the pool.
    pub pool: usize,
    /// Offset of the next record in the pool.
    pub record: u32,
}

/// Part of a walk over the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in no particular order; may be empty.
    pub items: Vec<T>,
    /// Start of the next page; None: this page was the last.
    pub next: Option<TableCursor>,
}

impl<F: Family> Table<F> {
    /// Calls `visit` for the sessions among the next `limit` records, and returns where to
    /// continue. None ends the walk. The lock of the pool is held meanwhile, so `limit` should be
    /// small.
    ///
    /// A walk may or may not visit sessions that begin or end meanwhile; no session is visited
    /// twice.
    pub fn list(
        &self,
        from: TableCursor,
        limit: u32,
        mut visit: impl FnMut(SessionInfo<TupleOf<F>>),
    ) -> Option<TableCursor> {
        let TableCursor { pool, record } = from;
        let pools = self.pools.len();
        let locked = match pool == pools {
            true => self.reserve.lock(),
            false => self.pools.get(pool)?.lock(),
        };
        let next = locked.slab.visit(&self.records, record, limit, |slot, record| {
            self.check_record(slot, &locked);
            if record.common().is_live() {
                visit(self.info(slot, record));
            }
        });
        match next {
            Some(record) => Some(TableCursor { pool, record }),
            None => (pool < pools).then_some(TableCursor { pool: pool + 1, record: 0 }),
        }
    }

    /// One session. None if there is no such session.
    pub fn session(&self, id: SessionId) -> Option<SessionInfo<TupleOf<F>>> {
        let (_, _locked) = self.lock_pool_of(id)?;
        Some(self.info(id.slot(), &self.records[id.slot() as usize]))
    }

    /// Describes a live record. The caller holds the pool's lock or the shard of one of its keys.
    pub(super) fn info(&self, slot: u32, record: &F::Record) -> SessionInfo<TupleOf<F>> {
        let common = record.common();
        SessionInfo {
            id: common.id(slot),
            original: record.key(Direction::Original).tuple(),
            reply: record.key(Direction::Reply).tuple(),
            origin: common.origin(),
            uplink: common.uplink(),
            state: common.state(),
            tcp: common.tcp.snapshot(),
            last_seen: common.last_seen(),
            deadline: common.deadline(&self.idle_timeouts),
            accounting: self.accounts.as_ref().map(|accounts| accounts.read(slot)),
        }
    }
}

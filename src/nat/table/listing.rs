//! Listings of sessions, in slices.

use crate::nat::table::session::SessionInfo;
use crate::nat::table::session_table::Table;
use crate::nat::tracking::direction::Direction;

impl Table {
    /// Calls `visit` for the sessions of a pool, in slices of at most `limit` records, so that a
    /// listing holds the lock only briefly. Start at pool 0, record 0, and pass on the value
    /// returned; None ends the listing. A listing may or may not show sessions that begin or end
    /// meanwhile; it shows no session twice.
    pub fn list(
        &self,
        from: (usize, u32),
        limit: u32,
        mut visit: impl FnMut(SessionInfo),
    ) -> Option<(usize, u32)> {
        let (number, offset) = from;
        let locked = self.pools.get(number)?.lock();
        let next = locked.slab.visit(&self.records, offset, limit, |slot, record| {
            visit(SessionInfo {
                id: record.id(slot),
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
}

//! Sessions of another table, entered with their state, their times and their accounts.

use crate::nat::table::accounting::Accounting;
use crate::nat::table::family::Family;
use crate::nat::table::pool::Pool;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::session::{NewSession, SessionId};
use crate::nat::table::session_table::{InsertError, Table};
use crate::nat::tracking::tcp_window::TcpSnapshot;
use crate::time::Tick;

impl<F: Family> Table<F> {
    /// Adds a session that another table had, in the pool of `worker` if that pool has a free
    /// record.
    ///
    /// # Errors
    /// See [`InsertError`]; the table has not changed then.
    pub(crate) fn restore(
        &self,
        worker: usize,
        new: &NewSession<F::Key>,
        tcp: &TcpSnapshot,
        accounting: &Accounting,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        self.restore_in(self.pools_from(worker), new, tcp, accounting, now)
    }

    /// Adds a session that another table had in a reserved record, in a reserved record.
    ///
    /// # Errors
    /// See [`InsertError`]; the table has not changed then.
    pub(crate) fn restore_reserved(
        &self,
        new: &NewSession<F::Key>,
        tcp: &TcpSnapshot,
        accounting: &Accounting,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        self.restore_in([&self.reserve].into_iter(), new, tcp, accounting, now)
    }

    fn restore_in<'t>(
        &'t self,
        pools: impl Iterator<Item = &'t Pool>,
        new: &NewSession<F::Key>,
        tcp: &TcpSnapshot,
        accounting: &Accounting,
        now: Tick,
    ) -> Result<SessionId, InsertError> {
        let complete = |record: &F::Record| record.common().tcp.restore(tcp);
        self.insert_filled(pools, new, || *accounting, now, complete)
    }
}

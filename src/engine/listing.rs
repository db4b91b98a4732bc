//! The sessions, slice by slice, with the names that the policy gives to their parts.

use std::sync::Arc;

use crate::nat::{EndReason, SessionInfo, TableCursor, Translator};
use crate::time::Tick;

/// Access to the sessions under one policy.
pub(crate) struct Listing(Arc<Translator>);

impl Listing {
    pub(super) fn new(nat: Arc<Translator>) -> Self {
        Self(nat)
    }

    /// Adds the sessions among the next slice of the table to `into`, and returns where to
    /// continue. None ends the walk. A worker waits at most for the copy of one slice.
    pub(crate) fn slice(
        &self,
        from: TableCursor,
        into: &mut Vec<SessionInfo>,
    ) -> Option<TableCursor> {
        self.0.slice(from, into)
    }

    /// Returns the names of the uplinks, by [`SessionInfo::uplink`].
    pub(crate) fn uplinks(&self) -> Vec<&str> {
        self.0.policy().uplinks.iter().map(|uplink| uplink.name.as_str()).collect()
    }

    /// Returns the names of the forwards.
    pub(crate) fn forwards(&self) -> Vec<&str> {
        self.0.policy().forwards.iter().map(|forward| forward.name.as_str()).collect()
    }

    /// Returns the name of the forward that a session uses.
    pub(crate) fn forward_of(&self, session: &SessionInfo) -> Option<&str> {
        self.0.forward_of(session)
    }

    /// Reports whether the table counts packets and bytes.
    pub(crate) fn has_accounting(&self) -> bool {
        self.0.limits().accounting
    }

    /// Ends a session; false if it has ended in the meantime.
    pub(crate) fn end(&self, session: &SessionInfo, reason: EndReason) -> bool {
        self.0.end(session.id, reason, Tick::now()).is_ok()
    }

    /// Returns the number of notifications about ended sessions that wait for a worker.
    pub(crate) fn pending_notifications(&self) -> usize {
        self.0.notifications()
    }
}

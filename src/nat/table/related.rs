//! Related sessions: the live inbound sessions between an inside host and a remote host.
//!
//! A server may answer a request with a session of its own: TFTP answers from a new port, active
//! FTP sends data from port 20, PPTP adds GRE. Such a session belongs on the uplink of the request,
//! and the address of the request is the only one that its client knows.
//!
//! Each inbound session is in one list, which the hash of the two addresses names. The latest
//! session is the first of its list, and those that are closing come behind the others, so that a
//! search meets them last. A list may hold the sessions of several pairs of hosts. The
//! lists need no memory per pair: two links a record and one head a list, reserved at the start.
//!
//! The lock of a list is the last lock that a worker takes, after pool and shard. A record enters
//! its list after its keys enter the index, and leaves the list before the record is free. Both
//! happen under the lock of the record's pool. So a record in a list is live.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::family::Family;
use crate::nat::table::key::Key;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::related_lists::{END, RelatedLists, slot_of};
use crate::nat::table::session::SessionKind;
use crate::nat::table::session_table::Table;
use crate::nat::tracking::direction::Direction;
use crate::packet::{Endpoint, Tuple};
use crate::time::Tick;

/// Where a related session belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelatedPlace {
    /// Uplink of the inbound session.
    pub(crate) uplink: u8,
    /// External address that the client of the inbound session uses.
    pub(crate) address: Ipv4Addr,
    /// Remote endpoint. It differs from that of the tuple if the inbound session shows the server
    /// another client port than the client's own.
    pub(crate) remote: Endpoint,
}

impl<F: Family> Table<F> {
    /// Enters a session into its list if it is inbound. `reply` is its reply tuple.
    #[inline]
    pub(super) fn enter_list(&self, slot: u32, origin: SessionKind, reply: F::Key) {
        if let Some(lists) = &self.related
            && !origin.initiator.is_inside()
        {
            let hash = self.hash_hosts(reply);
            match self.records[slot as usize].common().state().is_closing() {
                true => lists.link_last(hash, slot),
                false => lists.link(hash, slot),
            }
        }
    }

    /// Moves an inbound session that is closing behind the open ones. The caller holds the pool of
    /// the record, which is live.
    pub(super) fn close_in_list(&self, slot: u32) {
        let record = &self.records[slot as usize];
        let common = record.common();
        if let Some(lists) = &self.related
            && !common.origin().initiator.is_inside()
            && common.state().is_closing()
        {
            lists.move_last(self.hash_hosts(record.key(Direction::Reply)), slot);
        }
    }

    /// Removes a session that [`Self::enter_list`] has entered.
    #[inline]
    pub(super) fn leave_list(&self, slot: u32, origin: SessionKind, reply: F::Key) {
        if let Some(lists) = &self.related
            && !origin.initiator.is_inside()
        {
            lists.unlink(self.hash_hosts(reply), slot);
        }
    }
}

impl Table {
    /// Returns the place of an inbound session to which a session from inside with this tuple is
    /// related: a session between the same two hosts. `admits` says which places are usable.
    ///
    /// The first choice is a session with the same remote endpoint, the second one is the latest
    /// session. Looks at [`MAX_STEPS`] sessions at most.
    #[inline]
    pub(crate) fn related(
        &self,
        tuple: Tuple,
        now: Tick,
        admits: impl Fn(RelatedPlace) -> bool,
    ) -> Option<RelatedPlace> {
        let lists = self.related.as_ref()?;
        let wanted = Key::of(tuple);
        let list = lists.list_of(self.hash_hosts(wanted));
        // Relaxed: the request of which this session is a consequence has reached its server.
        if lists.heads[list].load(Relaxed) == END {
            return None;
        }
        self.search(lists, list, wanted, now, admits)
    }

    #[cold]
    fn search(
        &self,
        lists: &RelatedLists,
        list: usize,
        wanted: Key,
        now: Tick,
        admits: impl Fn(RelatedPlace) -> bool,
    ) -> Option<RelatedPlace> {
        let remote = wanted.tuple().destination;
        let mut latest = None;
        let _locked = lists.lock(list);
        let mut next = lists.heads[list].load(Relaxed);
        for _ in 0..MAX_STEPS {
            let Some(slot) = slot_of(next) else { break };
            next = lists.links[slot].next.load(Relaxed);
            let (record, common) = (&self.records[slot], self.records[slot].common());
            let reply = record.key(Direction::Reply);
            let is_open =
                !common.state().is_closing() && !now.reached(common.deadline(&self.idle_timeouts));
            if reply.addresses != wanted.addresses || !is_open {
                continue;
            }
            let original = record.key(Direction::Original).tuple();
            let (uplink, address) = (common.uplink(), original.destination.address);
            let place = RelatedPlace { uplink, address, remote };
            if !admits(place) {
                continue;
            }
            if reply.protocol == wanted.protocol && reply.tuple().destination == remote {
                return Some(RelatedPlace { remote: original.source, ..place });
            }
            latest = latest.or(Some(place));
        }
        latest
    }
}

/// Sessions that one search looks at.
const MAX_STEPS: usize = 128;

#[cfg(test)]
mod tests;

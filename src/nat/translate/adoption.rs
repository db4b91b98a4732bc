//! The sessions of a process before this one, as sessions of this translator.
//!
//! The table translates by them from the first packet on. The adoption reserves what each holds:
//! mappings, external ports, its share of its host's limit. Until that is done, no new dynamic
//! mapping begins, because its port or its inside endpoint may be one of an inherited session.

use std::io;

use crate::nat::mapping::key::MappingValue;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::Policy;
use crate::nat::seed::{Secrets, Seed};
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::table::{Adopted, SessionFiles, SessionInfo, Table};
use crate::nat::translate::snapshot::{
    ImportError, MappingSnapshot, SNAPSHOT_VERSION, SessionSnapshot,
};
use crate::nat::translator::{Translator, idle_timeouts};
use crate::nat::verdict::DropReason;
use crate::time::Tick;

impl Translator {
    /// Makes a translator whose sessions live in files and outlive it.
    ///
    /// `inherits`: the files have the sessions of a translator with this seed, as many records, and
    /// the same uplinks in the same order. The translator continues these sessions at once; call
    /// [`Self::adopt`] until [`Self::inherits`] is false. Otherwise the files are all zeros.
    ///
    /// # Errors
    /// A file is too short or cannot be mapped.
    pub fn in_files(
        limits: Limits,
        policy: Policy,
        workers: usize,
        seed: Seed,
        now: Tick,
        files: &SessionFiles,
        inherits: bool,
    ) -> io::Result<Self> {
        let secrets = Secrets::of(seed);
        let timeouts = idle_timeouts(&limits);
        let secret = secrets.table;
        let mut table =
            Table::in_files(limits.sessions, workers, timeouts, secret, now, files, inherits)?;
        if limits.accounting {
            table = table.with_accounts_in(Some(&files.accounts))?;
        }
        let translator = Self::over(table, limits, policy, secrets, now)?;
        if inherits {
            translator.table.repair_index();
        }
        Ok(translator)
    }

    /// Reports whether sessions of a process before this one may wait for their adoption.
    pub fn inherits(&self) -> bool {
        self.table.inherits()
    }

    /// Adopts the sessions of the next `budget` records, from the pool of `worker` first. A session
    /// that the policy does not allow ends.
    pub fn adopt(&self, worker: usize, budget: u32, now: Tick) -> Adopted {
        self.table.adopt(worker, budget, now, |session| {
            let result = self.adopt_one(session, now);
            if result == Err(ImportError::Disallowed) {
                self.notifications.extend(self.notifications_for(session));
            }
            result.is_ok()
        })
    }

    /// Returns the reason to drop a packet that needs a mapping which does not exist.
    pub(crate) fn without_mapping(&self) -> DropReason {
        if self.table.inherits() { DropReason::AdoptingSessions } else { DropReason::NoMapping }
    }

    fn adopt_one(&self, session: &SessionInfo, now: Tick) -> Result<(), ImportError> {
        if usize::from(session.uplink) >= self.policy.uplinks.len() {
            return Err(ImportError::UnknownUplink);
        }
        let snapshot = self.inherited_snapshot(session, now);
        if !snapshot.is_consistent() {
            return Err(ImportError::Malformed);
        }
        self.reserve(&snapshot, session.uplink, now)
    }

    /// The snapshot of a session whose mappings are not known. A mapping counts as refreshed by the
    /// last packet of its session.
    fn inherited_snapshot(&self, session: &SessionInfo, now: Tick) -> SessionSnapshot {
        let SessionInfo { original, reply, uplink, last_seen, .. } = *session;
        let SessionKind { initiator, responder } = session.origin;
        let protocol = original.protocol;
        let mapping = |inside, remote, external| {
            let key = self.mappings.key(protocol, uplink, inside, remote);
            MappingSnapshot::of(MappingValue { key, external, refreshed: last_seen }, now)
        };
        SessionSnapshot {
            version: SNAPSHOT_VERSION,
            uplink: String::new(),
            original,
            reply,
            kind: session.origin,
            state: session.state,
            tcp: session.tcp,
            idle: now.since(last_seen),
            mappings: [
                (initiator == EndpointKind::Mapping)
                    .then(|| mapping(original.source, original.destination, reply.destination)),
                (responder == EndpointKind::Mapping)
                    .then(|| mapping(reply.source, reply.destination, original.destination)),
            ],
            accounting: None,
        }
    }
}

#[cfg(test)]
mod tests;

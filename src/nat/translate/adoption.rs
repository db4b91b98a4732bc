//! The sessions of a process before this one, as sessions of this translator.
//!
//! The table translates by them from the first packet on. The adoption reserves what each holds:
//! mappings, external ports, its share of its host's limit. Until that is done, no new dynamic
//! mapping begins, because its port or its inside endpoint may be one of an inherited session.
//!
//! Two kinds of sessions depend on others and are put off until all others are adopted:
//! * A session over the mapping of another one. If mappings depend on the remote endpoint, the
//!   session's own tuples do not show on which remote endpoint that mapping depends.
//! * A session that is allowed only because it is related to an inbound session.
//!
//! Others may depend on them in turn, but only on the mapping by which their initiator sends. So
//! the adoption holds this mapping from the first attempt to the last one.

use std::io;

use crate::nat::mapping::key::MappingValue;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::Policy;
use crate::nat::seed::{Secrets, Seed};
use crate::nat::table::adoption::{AdoptionOutcome, Attempt};
use crate::nat::table::session::EndpointKind;
use crate::nat::table::session_table::TableContents;
use crate::nat::table::{Adopted, SessionFiles, SessionInfo, Table};
use crate::nat::translate::import_files::Imported;
use crate::nat::translate::snapshot::{
    ImportError, MappingSnapshot, SNAPSHOT_VERSION, SessionSnapshot, fit_together,
};
use crate::nat::translator::{Translator, idle_timeouts};
use crate::nat::verdict::DropReason;
use crate::time::Tick;

/// What the files of a translator have when the translator begins with them.
#[derive(Clone, Debug)]
pub enum Contents {
    /// All zeros.
    Empty,
    /// The sessions of a translator with the same seed, as many records, and the same uplinks in
    /// the same order.
    Inherited,
    /// The sessions that [`import_sessions`] has entered, with the same seed, limits and policy.
    ///
    /// [`import_sessions`]: crate::nat::import_sessions
    Imported(Imported),
}

impl Translator {
    /// Makes a translator whose sessions live in files and outlive it.
    ///
    /// The translator continues the sessions in the files at once; call [`Self::adopt`] until
    /// [`Self::inherits`] is false.
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
        contents: Contents,
    ) -> io::Result<Self> {
        let content = match &contents {
            Contents::Empty => TableContents::Empty,
            Contents::Imported(_) => TableContents::Imported,
            Contents::Inherited => {
                let uplinks = policy.uplinks.len();
                TableContents::Inherited(Box::new(move |session| is_possible(session, uplinks)))
            }
        };
        let secrets = Secrets::of(seed);
        let timeouts = idle_timeouts(&limits);
        let secret = secrets.table;
        let mut table =
            Table::in_files(limits.sessions, workers, timeouts, secret, now, files, content)?;
        if limits.accounting {
            table = table.with_accounts_in(Some(&files.accounts))?;
        }
        let translator = Self::over(table, limits, policy, secrets, now)?;
        if let Contents::Imported(Imported { without_uplink, .. }) = contents {
            let ended = without_uplink.iter();
            let packets = ended.flat_map(|session| translator.notifications_for(session));
            translator.notifications.extend(packets);
        }
        Ok(translator)
    }

    /// Reports whether sessions of a process before this one may wait for their adoption.
    pub fn inherits(&self) -> bool {
        self.table.inherits()
    }

    /// Adopts the sessions of the next `budget` records, from the pool of `worker` first. A session
    /// that the policy does not allow ends as in [`Self::enforce`].
    pub fn adopt(&self, worker: usize, budget: u32, now: Tick) -> Adopted {
        self.table.adopt(worker, budget, now, |session, attempt| {
            let result = match attempt {
                Attempt::First if self.is_over_another_mapping(session) => None,
                Attempt::First | Attempt::Last => Some(self.adopt_one(session, now)),
                Attempt::Ended => Some(Err(ImportError::Expired)),
            };
            let may_wait = attempt == Attempt::First;
            let outcome = match result {
                Some(Ok(())) => AdoptionOutcome::Keep,
                None => self.put_off(session, now),
                Some(Err(ImportError::Disallowed))
                    if may_wait && !self.address_removed(session) =>
                {
                    self.put_off(session, now)
                }
                Some(Err(_)) => AdoptionOutcome::End,
            };
            if !may_wait {
                self.release_put_off(session, now);
            }
            if outcome == AdoptionOutcome::End
                && attempt != Attempt::Ended
                && self.address_removed(session)
            {
                self.notifications.extend(self.notifications_for(session));
            }
            outcome
        })
    }

    /// Reports whether a session may hold a mapping that its tuples do not show.
    fn is_over_another_mapping(&self, session: &SessionInfo) -> bool {
        session.origin.responder == EndpointKind::Mapping && self.mappings.depend_on_remote()
    }

    /// Holds the mapping of a session that waits for its last attempt. Without it the session
    /// cannot continue.
    fn put_off(&self, session: &SessionInfo, now: Tick) -> AdoptionOutcome {
        let Some(mapping) = self.own_mapping(session) else { return AdoptionOutcome::PutOff };
        let keeps_port = self.policy.keeps_port(mapping.key.protocol, mapping.key.inside.port);
        match self.mappings.restore(mapping, keeps_port, now) {
            Ok(()) => AdoptionOutcome::PutOff,
            Err(_) => AdoptionOutcome::End,
        }
    }

    /// Releases what [`Self::put_off`] holds.
    fn release_put_off(&self, session: &SessionInfo, now: Tick) {
        if let Some(mapping) = self.own_mapping(session) {
            self.mappings.release(mapping.key, now);
        }
    }

    /// Returns the mapping by which the initiator of a session sends.
    fn own_mapping(&self, session: &SessionInfo) -> Option<MappingValue> {
        let SessionInfo { original, reply, uplink, last_seen: refreshed, .. } = *session;
        (session.origin.initiator == EndpointKind::Mapping).then(|| {
            let (inside, remote) = (original.source, original.destination);
            let key = self.mappings.key(original.protocol, uplink, inside, remote);
            MappingValue { key, external: reply.destination, refreshed }
        })
    }

    /// Returns the mapping by which the responder of a session sends: the one that is known at its
    /// external endpoint, or else one of the session alone.
    fn responder_mapping(&self, session: &SessionInfo) -> Option<MappingValue> {
        let SessionInfo { original, reply, uplink, last_seen: refreshed, .. } = *session;
        (session.origin.responder == EndpointKind::Mapping).then(|| {
            let (protocol, external) = (original.protocol, original.destination);
            let (inside, remote) = (reply.source, reply.destination);
            let own = self.mappings.key(protocol, uplink, inside, remote);
            let known = self.mappings.at_external(protocol, external, remote);
            let key = known.map(|known| known.key).filter(|key| {
                (key.uplink, key.inside) == (uplink, inside) && self.mappings.depend_on_remote()
            });
            MappingValue { key: key.unwrap_or(own), external, refreshed }
        })
    }

    /// Returns the reason to drop a packet that needs a mapping which does not exist.
    pub(crate) fn without_mapping(&self) -> DropReason {
        if self.table.inherits() { DropReason::AdoptingSessions } else { DropReason::NoMapping }
    }

    fn adopt_one(&self, session: &SessionInfo, now: Tick) -> Result<(), ImportError> {
        self.reserve(&self.inherited_snapshot(session, now), session.uplink, now)
    }

    /// The snapshot of a session. A mapping counts as refreshed by the last packet of its session.
    fn inherited_snapshot(&self, session: &SessionInfo, now: Tick) -> SessionSnapshot {
        let mappings = [self.own_mapping(session), self.responder_mapping(session)];
        SessionSnapshot {
            version: SNAPSHOT_VERSION,
            uplink: String::new(),
            original: session.original,
            reply: session.reply,
            kind: session.origin,
            state: session.state,
            tcp: session.tcp,
            idle: now.since(session.last_seen),
            mappings: mappings.map(|mapping| mapping.map(|it| MappingSnapshot::of(it, now))),
            accounting: None,
        }
    }
}

/// Reports whether the values of an inherited session fit together, and its uplink exists.
fn is_possible(session: &SessionInfo, uplinks: usize) -> bool {
    let SessionInfo { origin, state, original, reply, uplink, .. } = *session;
    usize::from(uplink) < uplinks && fit_together(origin, state, original, reply)
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;

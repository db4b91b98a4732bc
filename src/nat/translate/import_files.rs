//! Import of session files that cannot be used as they are: those of another configuration, or of a
//! release with another layout of records.
//!
//! The import reads each session of the old files and enters it into a table over new files. The
//! result is what a process with the new configuration would have left behind if it had died. Then
//! a translator inherits the new files as any other ones: it translates by the sessions from the
//! first packet on, and its adoption ends those that the new configuration does not allow.
//!
//! The import takes place before the first packet. During an import behind the traffic, every
//! packet of a session that was not yet imported would be lost, or would open another session in
//! its place.

use std::io;
use std::ops::Range;

use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::Policy;
use crate::nat::seed::{Secrets, Seed};
use crate::nat::table::accounting::Accounting;
use crate::nat::table::formats::{OldSessions, OldTable};
use crate::nat::table::key::Key;
use crate::nat::table::session::{NewSession, SessionInfo};
use crate::nat::table::session_table::TableContents;
use crate::nat::table::{InsertError, SessionFiles, Table};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::translate::snapshot::fit_together;
use crate::nat::translator::{Translator, idle_timeouts};
use crate::time::Tick;

/// Outcome of an import, in sessions.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Sessions in the new files.
    pub kept: u32,
    /// Sessions for which the new table has no record.
    pub without_record: u32,
    /// Sessions whose time is over, or whose record is damaged.
    pub dropped: u32,
    /// Sessions of uplinks that are not configured any more. The translator over the new files
    /// notifies their inside hosts.
    pub without_uplink: Vec<SessionInfo>,
}

/// Imports the sessions of old files into new ones, which are all zeros. `seed` and `workers` are
/// those of the translator that will inherit the new files, `now` is the present.
///
/// If the new table is too small for all sessions, the established and the published ones that the
/// policy allows come first, and among them those with the latest packet. If mappings depend on
/// another part of the remote endpoint than before, the adoption goes through the sessions in this
/// order.
///
/// # Errors
/// A file is too short or cannot be mapped.
pub fn import_sessions(
    old: &OldSessions,
    new: &SessionFiles,
    limits: &Limits,
    policy: &Policy,
    workers: usize,
    seed: Seed,
    now: Tick,
) -> io::Result<Imported> {
    let (timeouts, secret) = (idle_timeouts(limits), Secrets::of(seed).table);
    let table = Table::in_files(
        limits.sessions,
        workers,
        timeouts,
        secret,
        now,
        new,
        TableContents::Empty,
    )?;
    let table = match limits.accounting {
        true => table.with_accounts_in(Some(&new.accounts))?,
        false => table,
    };
    let place = |name| policy.uplinks.iter().position(|uplink| &uplink.name == name);
    let mut import = Import {
        old: OldTable::open(old)?,
        uplinks: old.uplinks.iter().map(|name| place(name).map(|place| place as u8)).collect(),
        table,
        now,
        imported: Imported::default(),
    };
    if old.other_mappings || limits.sessions < old.capacity {
        // A translator without sessions knows what the policy allows.
        let limits = Limits { sessions: 1, accounting: false, ..limits.clone() };
        let empty = Translator::new(limits, policy.clone(), 1, seed, now)?;
        let ranked = import.ranked(&empty);
        import.enter_all(&ranked);
    } else {
        for first in (0..import.old.records()).step_by(BATCH) {
            let slots: Range<u32> = first..import.old.records().min(first + BATCH as u32);
            import.enter(&slots.collect::<Vec<_>>());
        }
    }
    Ok(import.imported)
}

/// An import under way.
struct Import {
    old: OldTable,
    /// For each old uplink, the number of the uplink of this name.
    uplinks: Vec<Option<u8>>,
    table: Table,
    now: Tick,
    imported: Imported,
}

impl Import {
    /// Returns the slots of the old sessions, the best first.
    fn ranked(&self, empty: &Translator) -> Vec<u32> {
        let rank = |session: &SessionInfo| {
            let uplink = self.uplink(session);
            let moved = uplink.map(|uplink| SessionInfo { uplink, ..*session });
            let is_allowed = moved.is_some_and(|session| empty.allows_on_uplink(&session));
            (!is_allowed, !is_first_choice(session), self.now.since(session.last_seen))
        };
        let sessions = (0..self.old.records()).filter_map(|slot| self.old.session(slot));
        let mut ranked: Vec<_> =
            sessions.map(|session| (rank(&session), session.id.slot())).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, slot)| slot).collect()
    }

    fn enter_all(&mut self, slots: &[u32]) {
        slots.chunks(BATCH).for_each(|slots| self.enter(slots));
    }

    /// Enters the sessions of some records into the new table.
    fn enter(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.old.prefetch(*slot));
        let sessions: Vec<_> = slots.iter().filter_map(|slot| self.old.session(*slot)).collect();
        for session in &sessions {
            for tuple in [session.original, session.reply] {
                self.table.prefetch_index(self.table.hash(Key::of(tuple)));
            }
        }
        sessions.into_iter().for_each(|session| self.enter_one(session));
    }

    fn enter_one(&mut self, session: SessionInfo) {
        let SessionInfo { original, reply, origin, state, tcp, last_seen, .. } = session;
        let idle = self.now.since(last_seen);
        let is_over = idle >= self.table.idle_timeout(state) || !self.now.reached(last_seen);
        if is_over || !fit_together(origin, state, original, reply) {
            self.imported.dropped += 1;
            return;
        }
        let Some(uplink) = self.uplink(&session) else {
            match self.uplinks.get(usize::from(session.uplink)) {
                Some(_) => self.imported.without_uplink.push(session),
                None => self.imported.dropped += 1,
            }
            return;
        };
        let (original, reply) = (Key::of(original), Key::of(reply));
        let new = NewSession { original, reply, origin, uplink, state, idle };
        let accounting = session.accounting.unwrap_or(Accounting::starting(self.now));
        let is_reserved = self.old.is_reserved(session.id.slot());
        let turn = self.imported.kept as usize;
        let entered = match is_reserved {
            true => self.table.restore_reserved(&new, &tcp, &accounting, self.now),
            false => self.table.restore(turn, &new, &tcp, &accounting, self.now),
        };
        match entered {
            Ok(_) => self.imported.kept += 1,
            Err(InsertError::Full) => self.imported.without_record += 1,
            Err(InsertError::AlreadyExists | InsertError::ReplyConflict) => {
                self.imported.dropped += 1;
            }
        }
    }

    /// Returns the new number of a session's uplink.
    fn uplink(&self, session: &SessionInfo) -> Option<u8> {
        self.uplinks.get(usize::from(session.uplink)).copied().flatten()
    }
}

/// Reports whether a session has a place before others: it is an established connection, or a
/// client outside has opened it through a forward.
fn is_first_choice(session: &SessionInfo) -> bool {
    let is_established = matches!(
        session.state,
        State::Tcp(TcpState::Established | TcpState::FinOriginal | TcpState::FinReply)
    );
    is_established || session.origin.is_from_client()
}

/// Records that are fetched together.
const BATCH: usize = 32;

#[cfg(test)]
mod formats;
#[cfg(test)]
mod tests;

//! The formats of session files that this program reads.
//!
//! A change of the records or the index makes a new layout. Then [`FileFormat`] gets a new reader,
//! and the old ones stay as they are. A test keeps files of each format.

use std::io;

use crate::nat::seed::{Secrets, Seed};
use crate::nat::table::files::{SessionFileSizes, SessionFiles};
use crate::nat::table::format_v1::{self, SessionsV1};
use crate::nat::table::session::SessionInfo;

/// A format of session files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Layouts 1 and 2.
    V1,
}

impl FileFormat {
    /// Returns the format of a layout; see [`layout`](crate::nat::layout). None: this program does
    /// not read it.
    pub fn of(layout: &[u64]) -> Option<Self> {
        (cfg!(target_endian = "little") && format_v1::LAYOUTS.contains(&layout)).then_some(Self::V1)
    }

    /// Lengths of the files for `capacity` sessions.
    pub fn sizes(self, capacity: u32, accounting: bool) -> SessionFileSizes {
        match self {
            Self::V1 => format_v1::sizes(capacity, accounting),
        }
    }
}

/// The sessions in the files of a process before this one.
#[derive(Debug)]
pub struct OldSessions {
    /// The files. Nothing changes them.
    pub files: SessionFiles,
    /// Their format.
    pub format: FileFormat,
    /// Capacity of the table, in sessions.
    pub capacity: u32,
    /// True: the files have accounts.
    pub accounting: bool,
    /// Names of the uplinks, in the order of their numbers.
    pub uplinks: Vec<String>,
    /// True: mappings depend on another part of the remote endpoint than now.
    pub other_mappings: bool,
    /// Seed of the translator that made the files.
    pub seed: Seed,
}

/// The mapped files of old sessions.
pub(crate) enum OldTable {
    V1(SessionsV1),
}

impl OldTable {
    /// Maps the files.
    ///
    /// # Errors
    /// A file is too short or cannot be mapped.
    pub(crate) fn open(old: &OldSessions) -> io::Result<Self> {
        let OldSessions { files, format, capacity, accounting, seed, .. } = old;
        let secret = Secrets::of(*seed).table;
        match format {
            FileFormat::V1 => SessionsV1::open(files, *capacity, *accounting, secret).map(Self::V1),
        }
    }

    /// Number of records.
    pub(crate) fn records(&self) -> u32 {
        match self {
            Self::V1(sessions) => sessions.records(),
        }
    }

    /// Reports whether a record is kept for the box itself.
    pub(crate) fn is_reserved(&self, slot: u32) -> bool {
        match self {
            Self::V1(sessions) => sessions.is_reserved(slot),
        }
    }

    /// Fetches what [`Self::session`] needs of a record into the cache.
    pub(crate) fn prefetch(&self, slot: u32) {
        match self {
            Self::V1(sessions) => sessions.prefetch(slot),
        }
    }

    /// Reads the session of a record. Its uplink is a place in [`OldSessions::uplinks`], its
    /// deadline the time of its last packet. None: the record has no session, or is torn or
    /// damaged.
    pub(crate) fn session(&self, slot: u32) -> Option<SessionInfo> {
        match self {
            Self::V1(sessions) => sessions.session(slot),
        }
    }
}

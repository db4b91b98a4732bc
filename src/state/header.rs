//! The header: what the files hold, and whether another process can use them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::nat::{self, FileFormat, OldSessions, Seed, SessionFileSizes, SessionFiles};

/// What a process needs of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateRequirements {
    /// Identifier of this boot: the times in the files count from the boot.
    pub(crate) boot: String,
    /// Capacity of the session table.
    pub(crate) sessions: u32,
    /// True: the table counts packets and bytes.
    pub(crate) accounting: bool,
    /// Names of the uplinks, in the order of their numbers. A number without an uplink has an empty
    /// name.
    pub(crate) uplinks: Vec<String>,
    /// Everything else of the configuration that decides what a record means.
    pub(crate) meaning: String,
}

/// The content of `header.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateHeader {
    /// Always [`MAGIC`].
    magic: String,
    /// Version of this file and of the set of files.
    version: u32,
    /// [`nat::layout`] of the program that made the files.
    layout: Vec<u64>,
    /// [`StateRequirements::boot`].
    boot: String,
    sessions: u32,
    accounting: bool,
    uplinks: Vec<String>,
    meaning: String,
    /// Seed of the translator.
    pub(super) seed: [u8; 32],
    /// Processes that took the files over and did not live long enough to adopt all sessions.
    pub(super) attempts: u32,
}

/// Why the sessions in the files cannot continue.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("the header is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("the files are of another boot")]
    Boot,
    #[error("natbox of another version wrote them (format {found}, this one reads {VERSION})")]
    Version { found: u32 },
    #[error("natbox of another release wrote them, with another layout of records")]
    Layout,
    #[error("{0} processes in a row died while they took the sessions over")]
    Attempts(u32),
    #[error("the configuration has another {0}")]
    Configuration(&'static str),
    #[error("only one of the two processes counts the packets and bytes of each session")]
    Accounting,
    #[error("the file `{0}` has another length")]
    Length(&'static str),
    #[error("a process died while it imported them")]
    CutOff,
}

impl StateHeader {
    pub(super) fn new(required: &StateRequirements, seed: [u8; 32]) -> Self {
        let StateRequirements { boot, sessions, accounting, uplinks, meaning } = required.clone();
        Self {
            magic: MAGIC.to_owned(),
            version: VERSION,
            layout: nat::layout(),
            boot,
            sessions,
            accounting,
            uplinks,
            meaning,
            seed,
            attempts: 0,
        }
    }

    /// Takes other names of the uplinks, in the order of their numbers. Returns whether they are
    /// others.
    pub(super) fn set_uplinks(&mut self, uplinks: Vec<String>) -> bool {
        let before = std::mem::replace(&mut self.uplinks, uplinks);
        before != self.uplinks
    }

    /// The header while a process takes the files over.
    pub(super) fn taken_over(self) -> Self {
        Self { attempts: self.attempts + 1, ..self }
    }

    /// Reads the header `name` of a directory. None: the directory has none.
    pub(super) fn read(directory: &Path, name: &str) -> Result<Option<Self>, Unusable> {
        match fs::read(directory.join(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the header `name` of a directory, atomically.
    pub(super) fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        let new = directory.join(format!("{name}.new"));
        let mut options = OpenOptions::new();
        let mut file: File =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        file.write_all(&text)?;
        fs::rename(&new, directory.join(name))
    }

    /// Checks whether a process can continue the sessions.
    pub(super) fn check(&self, required: &StateRequirements) -> Result<(), Unusable> {
        if self.magic != MAGIC || self.version != VERSION {
            return Err(Unusable::Version { found: self.version });
        }
        if self.boot != required.boot {
            return Err(Unusable::Boot);
        }
        if self.layout != nat::layout() {
            return Err(Unusable::Layout);
        }
        if self.attempts >= MAX_ATTEMPTS {
            return Err(Unusable::Attempts(self.attempts));
        }
        if self.accounting != required.accounting {
            return Err(Unusable::Accounting);
        }
        if self.uplinks != required.uplinks {
            return Err(Unusable::Configuration("list of uplinks"));
        }
        if self.meaning != required.meaning {
            return Err(Unusable::Configuration("mapping behaviour"));
        }
        if self.sessions != required.sessions {
            return Err(Unusable::Configuration("`limits.sessions`"));
        }
        Ok(())
    }

    /// FileFormat of the files, if an import can read them.
    pub(super) fn format(&self) -> Option<FileFormat> {
        FileFormat::of(&self.layout)
    }

    /// Lengths of the files in this format.
    pub(super) fn sizes(&self, format: FileFormat) -> SessionFileSizes {
        format.sizes(self.sessions, self.accounting)
    }

    /// Describes the sessions in files of this format for a process that imports them.
    pub(super) fn old_sessions(
        self,
        files: SessionFiles,
        format: FileFormat,
        required: &StateRequirements,
    ) -> OldSessions {
        OldSessions {
            files,
            format,
            capacity: self.sessions,
            accounting: self.accounting,
            other_mappings: self.meaning != required.meaning,
            uplinks: self.uplinks,
            seed: Seed::from(self.seed),
        }
    }
}

impl Unusable {
    /// Reports whether an import can still read the files, if it knows their format.
    pub(super) fn allows_import(&self) -> bool {
        match self {
            Self::Layout | Self::Configuration(_) | Self::Accounting | Self::CutOff => true,
            Self::Unreadable(_)
            | Self::Damaged(_)
            | Self::Boot
            | Self::Version { .. }
            | Self::Attempts(_)
            | Self::Length(_) => false,
        }
    }
}

/// Name of the header.
pub(super) const HEADER: &str = "header.json";
const MAGIC: &str = "natbox sessions";
const VERSION: u32 = 1;
/// Processes that may die in a row during the adoption. After them the files count as damaged.
const MAX_ATTEMPTS: u32 = 10;

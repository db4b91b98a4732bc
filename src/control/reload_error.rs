//! Reasons why an instance refuses a reload.

use std::path::PathBuf;

use crate::config::{self, Problems};
use crate::dns::DnsError;

/// Reason why the instance keeps the old configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file has problems.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The file cannot be read.
    #[error(
        "{problems}; since its start natbox reads only files in {directories}; if the file is now a \
         link to another directory, restart natbox"
    )]
    Unreadable {
        /// The system's error.
        problems: Problems,
        /// Where the file may be.
        directories: String,
    },
    /// The file changes keys that need a restart.
    #[error(
        "{path}: {keys} changed; restart natbox to use the new values; a reload can change only {}; \
         nothing was changed",
        config::reloadable_keys().join(", ")
    )]
    NeedsRestart {
        /// The file.
        path: String,
        /// Paths of the changed keys.
        keys: String,
    },
    /// The file changes keys that a waiting instance uses already.
    #[error(
        "{path}: {keys} changed; restart natbox to use the new values; while natbox waits for its \
         interfaces, a reload can change every key except admin, log and name; nothing was changed"
    )]
    FixedWhileWaiting {
        /// The file.
        path: String,
        /// Paths of the changed keys.
        keys: String,
    },
    /// The instance has begun to start, and waits for an interface that has vanished.
    #[error(
        "{path}: {keys} changed; natbox has begun to start with the old values and waits for its \
         interfaces; restart natbox, or reload when it runs; nothing was changed"
    )]
    FixedWhileStarting {
        /// The file.
        path: String,
        /// Paths of the changed keys.
        keys: String,
    },
    /// A file that the new configuration names is not usable.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The time for a confirmation is not in its range.
    #[error("--confirm: found {found} s, wanted 1 s to 24 h; nothing was changed")]
    ConfirmTime {
        /// Time in seconds.
        found: u64,
    },
    /// Another reload waits for its confirmation.
    #[error(
        "a reload waits for its confirmation and goes back in {seconds_left} s; natbox confirm \
         keeps it, natbox reload --cancel goes back now, natbox reload --confirm uses the file and \
         begins the time again; nothing was changed"
    )]
    Unconfirmed {
        /// Seconds until natbox goes back.
        seconds_left: u64,
    },
    /// The instance has gone back already.
    #[error(
        "no reload waits for its confirmation: natbox went back at {at}; natbox reload uses the \
         file again"
    )]
    GoneBack {
        /// Time in UTC.
        at: String,
    },
    /// No reload waits for its confirmation.
    #[error("no reload waits for its confirmation; natbox reload --confirm 60s begins one")]
    NothingToConfirm,
    /// The record of an unconfirmed reload cannot be written or removed.
    #[error("{path}: the record of the reload cannot be kept there: {source}; nothing was changed")]
    Record {
        /// The record.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

//! Reasons why an instance keeps its old configuration.

use crate::config::{self, Problems};
use crate::control::error::SocketError;
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
        "{path}: {keys} changed; restart natbox to use the new values; a reload can change every \
         key except {}; nothing was changed",
        config::fixed_keys().join(", ")
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
    /// The process may not open files that the new configuration needs.
    #[error(
        "{path}: the new configuration needs {files}; since its start natbox can open only files that \
         the old one needed; restart natbox to use the new values; nothing was changed"
    )]
    NeedsFiles {
        /// The file.
        path: String,
        /// Paths that are closed to the process.
        files: String,
    },
    /// The admin socket cannot be made at another path.
    #[error("{0}; nothing was changed; with `admin.group`, another `admin.socket` needs a restart")]
    Socket(#[from] SocketError),
    /// A health check cannot begin.
    #[error("{0}; nothing was changed")]
    Checks(std::io::Error),
    /// More uplinks than numbers.
    #[error(
        "uplinks: the uplinks before and after the reload are more than {} together; remove uplinks \
         by one reload and add the new ones by another; nothing was changed",
        crate::config::Uplink::MAX
    )]
    TooManyUplinks,
    /// The host refuses a setting of the new configuration.
    #[error("the host refuses the new configuration: {0}; natbox uses the old one again")]
    Host(String),
    /// The instance stops.
    #[error("the instance is stopping")]
    Stopping,
}

//! Errors that prevent the start of an instance or end it early.

use std::io;
use std::path::PathBuf;

use super::reload_error::ReloadError;
use crate::dns::DnsError;
use crate::host::HostError;
use crate::io::OpenError;
use crate::state::StateError;

/// Reason why an instance did not start, or ended without a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The admin socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TUN device cannot be opened.
    #[error("tun.name: {name}: {source}")]
    Tun {
        /// Name of the device.
        name: String,
        /// Reason.
        source: OpenError,
    },
    /// Routes, rules or sysctls of the host cannot be set.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The name server, the updates or the hook cannot start.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The system has no memory for the session table.
    #[error(
        "limits.sessions: no memory for {sessions} sessions ({source}); choose a smaller number"
    )]
    Memory {
        /// Configured number of sessions.
        sessions: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The time for the confirmation of a reload has passed before the instance ran, and it has
    /// begun to start with the configuration of the reload.
    #[error("{0}; the next start of natbox goes back from the reload")]
    GoBack(#[from] ReloadError),
    /// The sessions cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configured I/O backend is not available.
    #[error("tun.io: io_uring is not available on this host ({0}); set tun.io to poll or auto")]
    NoUring(io::Error),
    /// A health check by ping needs a raw socket.
    #[error(
        "{key}: no socket for ICMP ({source}); start natbox with CAP_NET_RAW, which natbox drops at \
         once, or use health.tcp"
    )]
    RawSocket {
        /// The key that asks for pings.
        key: String,
        /// The system's error.
        source: io::Error,
    },
    /// The system refused to drop privileges.
    #[error("dropping privileges: {0}")]
    Sandbox(String),
    /// A system call failed that should not fail.
    #[error("{doing}: {source}")]
    System {
        /// Action that failed.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A worker's queue failed.
    #[error(
        "worker {worker}: the TUN device {tun} is gone ({source}); natbox stops; start natbox again \
         if the interface was deleted"
    )]
    QueueFailed {
        /// Number of the worker.
        worker: usize,
        /// Name of the device.
        tun: String,
        /// The system's error.
        source: io::Error,
    },
    /// The TUN device was deleted, or moved to another network namespace.
    #[error(
        "the TUN device {tun} is gone (deleted, or moved to another network namespace); natbox \
         stops; start natbox again"
    )]
    TunGone {
        /// Name of the device.
        tun: String,
    },
    /// A worker panicked.
    #[error("worker {worker} panicked: {message}; natbox stops. This is a bug, please report it")]
    Panicked {
        /// Number of the worker.
        worker: usize,
        /// The panic's message.
        message: String,
    },
}

/// Reason why the admin socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another process answers on the socket.
    #[error(
        "admin.socket: {path} is in use by another natbox; stop it, or give this instance \
         another name or another admin.socket"
    )]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is not a socket has the name.
    #[error(
        "admin.socket: {path} exists and is not a socket; remove the file, or choose another path"
    )]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The group that may read does not exist.
    #[error(
        "admin.group: {group} is unknown ({source}); add the group, or give its number in quotes"
    )]
    NoGroup {
        /// The group.
        group: String,
        /// Reason.
        source: io::Error,
    },
    /// The system refused.
    #[error(
        "admin.socket: {path} cannot be made: {source}; the directory must be writable for natbox's \
         user without CAP_DAC_OVERRIDE; run natbox as root"
    )]
    Other {
        /// The socket or its directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

//! Errors of the host's configuration, as messages that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the host's configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// Another natbox in this network namespace uses the same device.
    #[error(
        "{what}: taken by natbox with pid {pid} (TUN {tun}); stop that natbox, or put all uplinks \
         that share an interface into one configuration"
    )]
    Taken {
        /// The shared device and its key or kind.
        what: String,
        /// Process that uses the device.
        pid: u32,
        /// The TUN device of that process.
        tun: String,
    },
    /// Another natbox has been starting or stopping in this network namespace for too long.
    #[error(
        "network namespace: another natbox has been starting or stopping here for more than \
         {seconds} s; check whether that process hangs"
    )]
    Locked {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// No block of table and rule numbers is free.
    #[error(
        "policy rules: natbox needs {wanted}, but {found}; move the conflicting rules (ip rule show)"
    )]
    NoFreeIds {
        /// The conflict.
        found: String,
        /// The numbers that natbox needs.
        wanted: String,
    },
    /// Another program's route has the place of a route that natbox needs.
    #[error(
        "route `{found}`: natbox needs `{wanted}` in this place; remove the route (ip route del), \
         or set host.manage: false"
    )]
    Conflict {
        /// The other program's route.
        found: String,
        /// The route that natbox needs.
        wanted: String,
    },
    /// Another program has renamed the TUN, and another interface has its name.
    #[error(
        "{doing}: another interface is named {name}, the name of the TUN (tun.name); rename that \
         interface"
    )]
    TunNameTaken {
        /// Name of the TUN in the configuration.
        name: String,
        /// The attempted change, as a command.
        doing: String,
    },
    /// An interface of the configuration vanished or went down while natbox set up the host.
    #[error("interface {interface} vanished or went down while natbox set up the host ({source})")]
    Vanished {
        /// Name of the interface.
        interface: String,
        /// The failed change.
        source: Box<HostError>,
    },
    /// The kernel refused for lack of privilege.
    #[error(
        "{doing}: permission denied; run natbox as root, or from a unit with \
         AmbientCapabilities=CAP_NET_ADMIN, RuntimeDirectory=natbox and \
         RuntimeDirectoryPreserve=yes. natbox needs CAP_NET_ADMIN in this network namespace and \
         writes to /run/natbox"
    )]
    Permission {
        /// The attempted change.
        doing: String,
    },
    /// The kernel refused a netlink request.
    #[error("{doing}: the kernel refused: {source}")]
    Netlink {
        /// The attempted change, as a command where one exists.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sysctl could not be read or written.
    #[error(
        "{path}: wanted {wanted}: {source}; if /proc/sys is read-only here (a container), set the \
         value from outside"
    )]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// The value to write, or `a value` for reading.
        wanted: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The journal could not be written. Without a journal natbox changes nothing.
    #[error(
        "{path}: natbox cannot keep its journal of changes here: {source}; make the directory \
         writable for natbox"
    )]
    Journal {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The caller's TUN device is not the configured one.
    #[error(
        "tun.name: interface {name} has index {found} here, but natbox opened the device with index \
         {opened}; start natbox again"
    )]
    WrongTun {
        /// Configured name.
        name: String,
        /// Index that the kernel lists under the name, or `missing`.
        found: String,
        /// Index of the opened device.
        opened: u32,
    },
}

impl HostError {
    /// Makes the error of a refused netlink request. Lack of privilege has a variant of its own.
    pub(crate) fn netlink(doing: impl Into<String>, error: rtnetlink::Error) -> Self {
        let doing = doing.into();
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other @ (rtnetlink::Error::UnexpectedMessage(_)
            | rtnetlink::Error::RequestFailed
            | rtnetlink::Error::NamespaceError(_)
            | rtnetlink::Error::InvalidHardwareAddress(_)
            | rtnetlink::Error::InvalidIp(_)
            | rtnetlink::Error::InvalidAddress(_, _)
            | rtnetlink::Error::InvalidNla(_)) => io::Error::other(other.to_string()),
        };
        match source.kind() == io::ErrorKind::PermissionDenied {
            true => HostError::Permission { doing },
            false => HostError::Netlink { doing, source },
        }
    }

    /// Makes the error of a sysctl. Lack of privilege has a variant of its own; a read-only file
    /// system has not.
    pub(crate) fn sysctl(path: &Path, wanted: &str, source: io::Error) -> Self {
        match source.kind() == io::ErrorKind::PermissionDenied {
            true => {
                HostError::Permission { doing: format!("writing {wanted} to {}", path.display()) }
            }
            false => HostError::Sysctl { path: path.into(), wanted: wanted.into(), source },
        }
    }

    /// Makes the error of a journal file. Lack of privilege has a variant of its own.
    pub(crate) fn journal(path: &Path, source: io::Error) -> Self {
        match source.kind() == io::ErrorKind::PermissionDenied {
            true => HostError::Permission { doing: format!("writing {}", path.display()) },
            false => HostError::Journal { path: path.into(), source },
        }
    }
}

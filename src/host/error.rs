//! What can go wrong with the host, as sentences that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the host's plumbing.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration names an interface that does not exist.
    #[error(
        "{key}: there is no interface {name:?} here; there are: {present}. Correct the key, or create the interface first"
    )]
    MissingInterface {
        /// Key path in the configuration.
        key: String,
        /// What it says.
        name: String,
        /// The interfaces that there are, for the message.
        present: String,
    },
    /// An interface that the kernel needs up is administratively down.
    #[error("{key}: interface {name} is down; bring it up first: ip link set {name} up")]
    InterfaceDown {
        /// Key path in the configuration.
        key: String,
        /// What it says.
        name: String,
    },
    /// Another natbox in this network namespace uses the same device.
    #[error(
        "{what} is already taken by natbox pid {pid} (TUN {tun}); stop that one, or put everything that shares an \
         interface into one configuration with several uplinks"
    )]
    Taken {
        /// The shared device and what it is.
        what: String,
        /// Process that has it.
        pid: u32,
        /// The TUN device of that process.
        tun: String,
    },
    /// Another natbox is starting or stopping in this network namespace and does not get done.
    #[error(
        "another natbox has been starting or stopping in this network namespace for more than {seconds} s; see \
         whether it hangs"
    )]
    Locked {
        /// How long was waited.
        seconds: u64,
    },
    /// No block of table and rule numbers is free.
    #[error(
        "no free numbers for rules: {found}. natbox needs {wanted}; move the rules that are in the way (ip rule show)"
    )]
    NoFreeIds {
        /// What is in the way.
        found: String,
        /// What is needed.
        wanted: String,
    },
    /// Something foreign is where natbox has to put something else.
    #[error(
        "the host already has the route `{found}` where natbox needs `{wanted}`; remove it (ip route del), or set host.manage: false"
    )]
    Conflict {
        /// The foreign thing.
        found: String,
        /// RuleOwner.
        wanted: String,
    },
    /// The kernel refused for lack of privilege.
    #[error(
        "no permission: {doing}. natbox needs CAP_NET_ADMIN in this network namespace and may have to write to \
         /run/natbox: run it as root, or from a unit with AmbientCapabilities=CAP_NET_ADMIN, RuntimeDirectory=natbox \
         and RuntimeDirectoryPreserve=yes"
    )]
    Permission {
        /// What was tried.
        doing: String,
    },
    /// The kernel refused a netlink request.
    #[error("{doing}: the kernel refused: {source}")]
    Netlink {
        /// What was tried, as a command where there is one.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sysctl could not be read or written.
    #[error(
        "{path}: wanted {wanted}: {source}. If /proc/sys is read-only here (a container), set it from outside"
    )]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// The value that was to be written, or `a value` for reading.
        wanted: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The journal could not be kept, and without it nothing is changed.
    #[error(
        "{path}: cannot keep the journal of changes there: {source}. The directory must be writable for natbox"
    )]
    Journal {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The caller's TUN device is not the configured one.
    #[error(
        "tun.name: {name} is interface {found} here, but the device that was opened is interface {opened}"
    )]
    WrongTun {
        /// Configured name.
        name: String,
        /// What the kernel lists under the name.
        found: String,
        /// Index that the caller gave.
        opened: u32,
    },
}

impl HostError {
    /// True when the configuration, rather than the machine, has to change: exit code 1 instead of 2.
    pub fn is_users(&self) -> bool {
        match self {
            HostError::MissingInterface { .. } => true,
            HostError::InterfaceDown { .. }
            | HostError::Taken { .. }
            | HostError::Locked { .. }
            | HostError::NoFreeIds { .. }
            | HostError::Conflict { .. }
            | HostError::Permission { .. }
            | HostError::Netlink { .. }
            | HostError::Sysctl { .. }
            | HostError::Journal { .. }
            | HostError::WrongTun { .. } => false,
        }
    }

    /// The error of a refused netlink request; lack of privilege is told apart.
    pub(super) fn netlink(doing: impl Into<String>, error: rtnetlink::Error) -> Self {
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

    /// The error of a sysctl; lack of privilege is told apart, but not a read-only file system.
    pub(super) fn sysctl(path: &Path, wanted: &str, source: io::Error) -> Self {
        match source.kind() == io::ErrorKind::PermissionDenied {
            true => {
                HostError::Permission { doing: format!("writing {wanted} to {}", path.display()) }
            }
            false => HostError::Sysctl { path: path.into(), wanted: wanted.into(), source },
        }
    }

    /// The error of a journal file; lack of privilege is told apart.
    pub(super) fn journal(path: &Path, source: io::Error) -> Self {
        match source.kind() == io::ErrorKind::PermissionDenied {
            true => HostError::Permission { doing: format!("writing {}", path.display()) },
            false => HostError::Journal { path: path.into(), source },
        }
    }
}

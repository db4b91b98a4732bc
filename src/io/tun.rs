//! Opens the TUN device: one file per queue, and the best offloads that the kernel grants.
//!
//! The device lives as long as one of its queues is open; when the last is dropped, the kernel removes it with its
//! addresses and routes. It comes up without address, down, with an MTU of 1500: bringing it up is `host`'s part.
//!
//! Every queue carries the virtio header ([`super::virtio`]), whatever the [`OffloadLevel`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_TUN_EXCL, IFF_VNET_HDR};
use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_USO4, TUN_F_USO6};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys;
use super::virtio::HEADER_SIZE;

/// An open TUN device.
#[derive(Debug)]
pub struct Tun {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface (`ifindex`).
    pub index: u32,
    /// What the kernel granted.
    pub offload: OffloadLevel,
    /// The queues, one for each worker.
    pub queues: Vec<TunQueue>,
}

/// One queue of a TUN device, not blocking.
#[derive(Debug)]
pub struct TunQueue {
    file: OwnedFd,
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
impl TunQueue {
    /// A queue of any file that keeps message boundaries, so that tests need no device.
    pub(super) fn from_file(file: OwnedFd) -> Self {
        Self { file }
    }
}

/// What the kernel may leave undone in packets that it hands to us; each rung includes those after it.
///
/// What we may leave undone in packets for the kernel does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OffloadLevel {
    /// Super-packets of TCP and UDP, and checksums. Linux 6.2.
    #[default]
    TsoUso,
    /// Super-packets of TCP, and checksums.
    Tso,
    /// Checksums.
    Checksum,
    /// Nothing.
    None,
}

/// The rung of the ladder to start from.
pub type OffloadCeiling = OffloadLevel;

impl OffloadLevel {
    /// The next rung down.
    fn next_weaker(self) -> Option<Self> {
        match self {
            Self::TsoUso => Some(Self::Tso),
            Self::Tso => Some(Self::Checksum),
            Self::Checksum => Some(Self::None),
            Self::None => None,
        }
    }

    /// The `TUN_F_*` flags.
    ///
    /// The kernel takes UDP for IPv4 and IPv6 only together; TCP over IPv6 is not asked for, since IPv6 is dropped.
    fn flags(self) -> u32 {
        match self {
            Self::TsoUso => Self::Tso.flags() | TUN_F_USO4 | TUN_F_USO6,
            Self::Tso => Self::Checksum.flags() | TUN_F_TSO4 | TUN_F_TSO_ECN,
            Self::Checksum => TUN_F_CSUM,
            Self::None => 0,
        }
    }
}

impl fmt::Display for OffloadLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TsoUso => "tso4+uso4+checksum",
            Self::Tso => "tso4+checksum",
            Self::Checksum => "checksum",
            Self::None => "none",
        })
    }
}

/// Why the device could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no TUN driver, or no way to it.
    #[error(
        "{DRIVER} is missing, but natbox needs a TUN device: load the driver with `modprobe tun`, \
         or pass it into the container (docker, podman: --device {DRIVER})"
    )]
    Missing(#[source] io::Error),
    /// The process may not do this.
    #[error(
        "no permission to {action}: run as root or with CAP_NET_ADMIN \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN; docker, podman: --cap-add NET_ADMIN --device {DRIVER})"
    )]
    Permission {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else has an interface of this name.
    #[error(
        "the interface name {name} is taken, by another natbox or another program \
         (`ip -d link show {name}` tells more): stop that one, or choose another `tun.name`"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// The kernel would cut the name off.
    #[error("`tun.name` {name} has {} bytes, an interface name has at most {}: shorten it", name.len(), sys::NAME_LIMIT)]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// The kernel would refuse the name, or make up another.
    #[error("`tun.name` {name:?} is no interface name: use letters, digits, `-`, `_` and `.`")]
    NameInvalid {
        /// The name.
        name: String,
    },
    /// The kernel has no offload headers on TUN devices.
    #[error(
        "the kernel refuses the virtio header on TUN devices, without which natbox cannot work: \
         Linux 4.0 or newer is needed, and a sandbox that only imitates it (gVisor) will not do"
    )]
    NoHeader(#[source] io::Error),
    /// More queues were asked for than the kernel gives one device.
    #[error(
        "interface {name} got {granted} of {wanted} queues, more the kernel does not allow: lower `tun.workers`"
    )]
    TooManyQueues {
        /// The interface.
        name: String,
        /// How many were asked for.
        wanted: u16,
        /// How many the kernel gave.
        granted: u16,
    },
    /// Anything else.
    #[error("cannot {action}")]
    Other {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Creates the TUN device `name` with `queues` queues and the best offloads from `ceiling` downwards.
///
/// `queues` counts from 1 (0 is taken for 1); Linux 6.18 allows 256. With one queue the device is not a multi-queue
/// device, so that the kernel lets nobody else attach to it.
///
/// # Errors
/// See [`OpenError`]; nothing is left behind.
pub fn open(name: &str, queues: u16, max_offload: OffloadCeiling) -> Result<Tun, OpenError> {
    check_name(name)?;
    let wanted = queues.max(1);
    let multi_queue = if wanted > 1 { IFF_MULTI_QUEUE } else { 0 };
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | multi_queue;

    // Exclusive: else a second process would silently become a further queue of a multi-queue device, and take a
    // share of its packets.
    let first = open_driver()?;
    let started = Instant::now();
    let name = loop {
        match sys::set_interface(&first, name, flags | IFF_TUN_EXCL) {
            Ok(name) => break name,
            // A predecessor that was killed: the kernel lets go of what its rings held a moment after its death.
            Err(Errno::BUSY) if started.elapsed() < RELEASE_TIMEOUT => {
                std::thread::sleep(RELEASE_TIMEOUT / 50)
            }
            Err(Errno::BUSY) => return Err(OpenError::Taken { name: name.to_owned() }),
            Err(other) => return Err(failed(other, format!("create the TUN interface {name}"))),
        }
    };

    // All of this is the device's, not the queue's.
    sys::set_header_size(&first, HEADER_SIZE).map_err(|errno| OpenError::NoHeader(errno.into()))?;
    match sys::set_header_little_endian(&first) {
        Ok(()) => {}
        // The machine's own byte order is the right one.
        Err(_) if cfg!(target_endian = "little") => {}
        Err(errno) => return Err(OpenError::NoHeader(errno.into())),
    }
    let offload = negotiate(&first, max_offload)
        .map_err(|errno| failed(errno, format!("set the offloads of the TUN interface {name}")))?;

    let mut queues = vec![TunQueue { file: first }];
    for granted in 1..wanted {
        let file = open_driver()?;
        sys::set_interface(&file, &name, flags).map_err(|errno| match errno {
            Errno::TOOBIG => OpenError::TooManyQueues { name: name.clone(), wanted, granted },
            other => failed(other, format!("add queue {granted} to the TUN interface {name}")),
        })?;
        queues.push(TunQueue { file });
    }

    let index = interface_index(&name)
        .map_err(|errno| failed(errno, format!("find the index of the TUN interface {name}")))?;
    Ok(Tun { name, index, offload, queues })
}

/// How long a name may still be taken by a process that has just died.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Walks down the ladder until the kernel agrees: it refuses what it does not know, and keeps no list to ask for.
fn negotiate(file: impl AsFd, max_offload: OffloadCeiling) -> rustix::io::Result<OffloadLevel> {
    let mut level = max_offload;
    loop {
        match sys::set_offload(&file, level.flags()) {
            Ok(()) => return Ok(level),
            Err(errno) => level = level.next_weaker().ok_or(errno)?,
        }
    }
}

/// Refuses what `dev_valid_name` in the kernel refuses, and `%`, from which it makes a name of its own.
fn check_name(name: &str) -> Result<(), OpenError> {
    if name.len() > sys::NAME_LIMIT {
        return Err(OpenError::NameTooLong { name: name.to_owned() });
    }
    let forbidden = |character: char| {
        character.is_whitespace() || character.is_control() || "/:%".contains(character)
    };
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(OpenError::NameInvalid { name: name.to_owned() });
    }
    Ok(())
}

fn open_driver() -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(DRIVER, flags, Mode::empty()).map_err(|errno| match errno {
        // A node without a driver behind it (a static /dev) is as good as none.
        Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO => {
            OpenError::Missing(errno.into())
        }
        other => failed(other, format!("open {DRIVER}")),
    })
}

fn failed(errno: Errno, action: String) -> OpenError {
    match errno {
        Errno::PERM | Errno::ACCESS => OpenError::Permission { action, source: errno.into() },
        other => OpenError::Other { action, source: other.into() },
    }
}

fn interface_index(name: &str) -> rustix::io::Result<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    netdevice::name_to_index(socket, name)
}

/// The device that every TUN queue is a clone of.
const DRIVER: &str = "/dev/net/tun";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_change_are_refused_first() {
        for name in ["", ".", "..", "a b", "a/b", "a:b", "nb%d", "tab\t"] {
            assert!(matches!(check_name(name), Err(OpenError::NameInvalid { .. })), "{name:?}");
        }
        for name in ["nb0", "nb-1_x.2", "fifteen-bytes-x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let error = check_name("sixteen-bytes-xx").expect_err("one byte too long");
        assert_eq!(
            error.to_string(),
            "`tun.name` sixteen-bytes-xx has 16 bytes, an interface name has at most 15: shorten it"
        );
    }

    #[test]
    fn ladder_goes_down_to_nothing_and_each_rung_asks_for_less() {
        let mut level = OffloadLevel::default();
        let mut names = vec![level.to_string()];
        while let Some(lower) = level.next_weaker() {
            assert_eq!(lower.flags() & !level.flags(), 0);
            assert_ne!(lower.flags(), level.flags());
            level = lower;
            names.push(level.to_string());
        }
        assert_eq!(names, ["tso4+uso4+checksum", "tso4+checksum", "checksum", "none"]);
    }
}

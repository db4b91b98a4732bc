//! Opens the TUN device: one file per queue, and the strongest offloads that the kernel grants.
//!
//! The device exists as long as one of its queues is open. When the last queue is dropped, the
//! kernel removes the device with its addresses and routes. A new device is down, has no address
//! and an MTU of 1500. `host` brings it up.
//!
//! A *persistent* device stays, with its addresses and routes, until [`remove`] removes it. While
//! it has no queue, it has no carrier and drops every packet. While another process holds its
//! queues open, packets wait in them.
//!
//! Every queue carries the virtio header ([`super::virtio`]), whatever the [`OffloadLevel`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_TUN_EXCL, IFF_VNET_HDR};
use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_USO4, TUN_F_USO6};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys;
use super::virtio::HEADER_SIZE;

/// An open TUN device.
#[derive(Debug)]
pub(crate) struct TunDevice {
    /// Name of the interface.
    pub(crate) name: String,
    /// Index of the interface (`ifindex`).
    pub(crate) index: u32,
    /// Offload level that the kernel granted.
    pub(crate) offload: OffloadLevel,
    /// The queues, one for each worker.
    pub(crate) queues: Vec<TunQueue>,
}

impl TunDevice {
    /// Makes a second set of descriptors of the queues.
    ///
    /// # Errors
    /// The process has too many open files.
    pub(crate) fn handle(&self) -> io::Result<TunHandle> {
        let queues = self.queues.iter().map(|queue| queue.file.try_clone());
        Ok(TunHandle { queues: queues.collect::<io::Result<_>>()? })
    }
}

/// Descriptors of all queues of a device, which keep the queues open.
#[derive(Debug)]
pub(crate) struct TunHandle {
    queues: Vec<OwnedFd>,
}

impl TunHandle {
    /// Makes the device outlive its last queue.
    ///
    /// # Errors
    /// The device was deleted.
    pub(crate) fn make_persistent(&self) -> io::Result<()> {
        self.queues.iter().take(1).try_for_each(|queue| Ok(sys::set_persistent(queue, true)?))
    }

    /// Returns the descriptors.
    pub(crate) fn queues(&self) -> &[OwnedFd] {
        &self.queues
    }
}

/// One queue of a TUN device, non-blocking.
#[derive(Debug)]
pub(crate) struct TunQueue {
    file: OwnedFd,
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
impl TunQueue {
    /// Makes a queue of any file that keeps message boundaries, so that tests need no device.
    pub(super) fn from_file(file: OwnedFd) -> Self {
        Self { file }
    }
}

/// The work that the kernel may leave undone in packets that natbox reads. Each level includes the
/// ones after it.
///
/// The work that natbox may leave undone in packets for the kernel does not depend on the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum OffloadLevel {
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

impl OffloadLevel {
    /// Returns the next weaker level.
    fn next_weaker(self) -> Option<Self> {
        match self {
            Self::TsoUso => Some(Self::Tso),
            Self::Tso => Some(Self::Checksum),
            Self::Checksum => Some(Self::None),
            Self::None => None,
        }
    }

    /// Returns the `TUN_F_*` flags.
    ///
    /// The kernel accepts UDP for IPv4 and IPv6 only together. TCP over IPv6 is left out, as natbox
    /// drops IPv6.
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

/// The reason why the device could not be opened, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The TUN driver is missing or cannot be reached.
    #[error(
        "{DRIVER}: missing, but natbox needs a TUN device; load the driver with `modprobe tun`, \
         or pass it into the container (docker, podman: --device {DRIVER})"
    )]
    Missing(#[source] io::Error),
    /// The process lacks a capability.
    #[error(
        "no permission to {action}: run as root or with CAP_NET_ADMIN \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN; docker, podman: --cap-add NET_ADMIN --device {DRIVER})"
    )]
    Permission {
        /// The refused action, as a verb with its object.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The interface name is in use.
    #[error(
        "the interface name {name} is taken by another natbox or another program \
         (`ip -d link show {name}` shows it): stop that program, or choose another `tun.name`"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// The kernel would truncate the name.
    #[error("`tun.name` {name} has {} bytes, an interface name has at most {}: shorten it", name.len(), sys::NAME_LIMIT)]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// The kernel would refuse the name, or choose another one.
    #[error("`tun.name` {name:?} is not an interface name: use letters, digits, `-`, `_` and `.`")]
    NameInvalid {
        /// The name.
        name: String,
    },
    /// The kernel has no offload headers on TUN devices.
    #[error(
        "the kernel refuses the virtio header on TUN devices, which natbox needs: \
         use Linux 4.0 or newer, and no sandbox that only imitates Linux (gVisor)"
    )]
    NoHeader(#[source] io::Error),
    /// The configuration asks for more queues than the kernel gives one device.
    #[error(
        "interface {name}: the kernel allows {granted} of {wanted} queues; lower `tun.workers`"
    )]
    TooManyQueues {
        /// The interface.
        name: String,
        /// Number of queues that the configuration asks for.
        wanted: u16,
        /// Number of queues that the kernel gave.
        granted: u16,
    },
    /// Any other error.
    #[error("cannot {action}")]
    Other {
        /// The refused action, as a verb with its object.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Creates the TUN device `name` with `queues` queues and the strongest offloads up to
/// `max_offload`.
///
/// `queues` counts from 1 (0 means 1). Linux 6.18 allows 256. With one queue the device is not a
/// multi-queue device, so the kernel lets no other process attach to it.
///
/// `kept`: None, or the device may outlive the process ([`TunHandle::make_persistent`]). If a
/// process before this one has left the device, this one takes it over, with the queues in `kept`
/// that were kept open. Those of another device are closed. The caller knows that no other process
/// uses it. Such a device always is a multi-queue device, because the kernel does not change that
/// later.
///
/// # Errors
/// See [`OpenError`]. No device is left behind, unless it is persistent. [`OpenError::Taken`] may
/// pass within a second: after a killed process the kernel releases the files of its rings with a
/// delay.
pub(crate) fn open(
    name: &str,
    queues: u16,
    max_offload: OffloadLevel,
    kept: Option<&mut Vec<OwnedFd>>,
) -> Result<TunDevice, OpenError> {
    check_name(name)?;
    let wanted = queues.max(1);
    let multi_queue = if wanted > 1 || kept.is_some() { IFF_MULTI_QUEUE } else { 0 };
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | multi_queue;

    let may_outlive = kept.is_some();
    let kept = kept.map(std::mem::take).unwrap_or_default();
    let mut queues = usable_queues(kept, name, wanted);
    if queues.is_empty() {
        let first = open_driver()?;
        create(&first, name, flags, may_outlive)?;
        queues.push(TunQueue { file: first });
    }
    let offload = set_up(&queues[0], name, max_offload)?;
    for granted in queues.len() as u16..wanted {
        let file = open_driver()?;
        sys::set_interface(&file, name, flags).map_err(|errno| match errno {
            Errno::TOOBIG => OpenError::TooManyQueues { name: name.to_owned(), wanted, granted },
            other => failed(other, format!("add queue {granted} to the TUN interface {name}")),
        })?;
        queues.push(TunQueue { file });
    }
    let index = interface_index(name)
        .map_err(|errno| failed(errno, format!("find the index of the TUN interface {name}")))?;
    Ok(TunDevice { name: name.to_owned(), index, offload, queues })
}

/// Returns the kept descriptors that are queues of the device `name`, at most `wanted`. The store
/// may have descriptors of a device that was deleted, or that lies in another network namespace.
fn usable_queues(kept: Vec<OwnedFd>, name: &str, wanted: u16) -> Vec<TunQueue> {
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    let is_usable = |file: &OwnedFd| {
        // The backend of the other process may have made the file blocking.
        rustix::fs::fcntl_setfl(file, OFlags::NONBLOCK).is_ok()
            && sys::interface_of(file)
                .is_ok_and(|(found, has)| found == name && has & flags == flags)
            && sys::has_device_here(file).unwrap_or_else(|_| interface_index(name).is_ok())
    };
    let queues = kept.into_iter().filter(is_usable).take(usize::from(wanted));
    queues.map(|file| TunQueue { file }).collect()
}

/// Makes the settings that belong to the device and not to a queue. Returns the offload level that
/// the kernel grants.
fn set_up(
    queue: &TunQueue,
    name: &str,
    max_offload: OffloadLevel,
) -> Result<OffloadLevel, OpenError> {
    sys::set_header_size(queue, HEADER_SIZE).map_err(|errno| OpenError::NoHeader(errno.into()))?;
    match sys::set_header_little_endian(queue) {
        Ok(()) => {}
        // The machine's own byte order is little-endian already.
        Err(_) if cfg!(target_endian = "little") => {}
        Err(errno) => return Err(OpenError::NoHeader(errno.into())),
    }
    negotiate(queue, max_offload)
        .map_err(|errno| failed(errno, format!("set the offloads of the TUN interface {name}")))
}

/// Creates the device, or attaches the first queue to a persistent one.
fn create(
    first: &OwnedFd,
    name: &str,
    flags: libc::c_int,
    persistent: bool,
) -> Result<(), OpenError> {
    // Exclusive: otherwise a second process would silently become a further queue of a multi-queue
    // device and receive a share of its packets.
    match sys::set_interface(first, name, flags | IFF_TUN_EXCL) {
        Ok(_) => Ok(()),
        Err(Errno::BUSY) => {
            let attached = persistent && sys::set_interface(first, name, flags).is_ok();
            attached.then_some(()).ok_or_else(|| OpenError::Taken { name: name.to_owned() })
        }
        Err(other) => Err(failed(other, format!("create the TUN interface {name}"))),
    }
}

/// Removes a persistent device. Returns false if there is none of this name.
///
/// # Errors
/// A process uses the device, or it is no TUN of natbox.
pub(crate) fn remove(name: &str) -> Result<bool, OpenError> {
    if interface_index(name).is_err() {
        return Ok(false);
    }
    let file = open_driver()?;
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    sys::set_interface(&file, name, flags)
        .and_then(|_| sys::set_persistent(&file, false))
        .map_err(|errno| failed(errno, format!("remove the TUN interface {name}")))?;
    Ok(true)
}

/// Tries weaker and weaker levels until the kernel accepts one. The kernel has no list of the
/// offloads that it knows.
fn negotiate(file: impl AsFd, max_offload: OffloadLevel) -> rustix::io::Result<OffloadLevel> {
    let mut level = max_offload;
    loop {
        match sys::set_offload(&file, level.flags()) {
            Ok(()) => return Ok(level),
            Err(errno) => level = level.next_weaker().ok_or(errno)?,
        }
    }
}

/// Returns whether no packet will ever get through again. `EBADFD`: the interface was deleted.
pub(super) fn device_is_gone(errno: Errno) -> bool {
    [Errno::BADFD, Errno::BADF, Errno::NODEV, Errno::NXIO].contains(&errno)
}

/// Rejects the names that `dev_valid_name` in the kernel rejects, and `%`, from which the kernel
/// makes another name.
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
        // A device node without a driver (a static /dev) counts as missing.
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

/// The device file that every TUN queue is opened from.
const DRIVER: &str = "/dev/net/tun";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_change_are_rejected() {
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
    fn levels_end_with_none_and_each_one_has_fewer_flags() {
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

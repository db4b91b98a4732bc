//! The TUN driver's ioctls (`linux/if_tun.h`), the address of a packet socket (`packet(7)`), the
//! groups of a process at the other end of a Unix socket (`unix(7)`), and the descriptors of the
//! service manager, each behind a safe function.
#![allow(
    unsafe_code,
    reason = "ioctls take untyped arguments; rustix has no safe wrappers for the TUN driver's, and \
              no type for the address of a packet socket and no option SO_PEERGROUPS; the service \
              manager passes descriptors by \
              number"
)]

use std::os::fd::{AsFd, AsRawFd as _, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_short, c_void};
use rustix::fs::{fstat, stat};
use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{SendFlags, sendto};

/// Length of the longest interface name, in bytes, without the closing zero.
pub(super) const NAME_LIMIT: usize = libc::IFNAMSIZ - 1;

/// Creates an interface, or attaches a queue to it (`TUNSETIFF`), and returns the name that the
/// kernel chose.
///
/// # Errors
/// The kernel's error. `EINVAL`, without a system call, if `name` is longer than [`NAME_LIMIT`].
pub(super) fn set_interface(file: impl AsFd, name: &str, flags: c_int) -> Result<String> {
    let mut request = named_request(name)?;
    // The flags fill all 16 bits: IFF_TUN_EXCL is the sign bit.
    request.ifr_ifru.ifru_flags = flags as u16 as c_short;

    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNSETIFF, for which the kernel reads and writes back one `struct
    // ifreq`. `libc::ifreq` is that struct (size asserted below), exclusively borrowed for the
    // call. Its name ends in a zero byte, as at most NAME_LIMIT bytes were set. No union field that
    // the kernel could write is read afterwards.
    unsafe {
        ioctl(file, Updater::<{ libc::TUNSETIFF as Opcode }, libc::ifreq>::new(&mut request))?
    };
    Ok(name_in(&request))
}

/// Sets the offloads that natbox accepts (`TUNSETOFFLOAD`, `TUN_F_*` flags), for the whole device.
///
/// # Errors
/// `EINVAL`: the kernel does not know one of the flags, and has changed nothing.
pub(super) fn set_offload(file: impl AsFd, flags: u32) -> Result<()> {
    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNSETOFFLOAD, whose argument is the integer itself, not a pointer. The
    // kernel checks every bit of it and accesses no memory of this process.
    unsafe {
        ioctl(file, IntegerSetter::<{ libc::TUNSETOFFLOAD as Opcode }>::new_usize(flags as usize))
    }
}

/// Sets the length of the virtio header (`TUNSETVNETHDRSZ`), for the whole device.
///
/// # Errors
/// The kernel has no virtio header on this device.
pub(super) fn set_header_size(file: impl AsFd, bytes: usize) -> Result<()> {
    let bytes = c_int::try_from(bytes).map_err(|_| Errno::INVAL)?;
    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNSETVNETHDRSZ, for which the kernel reads one `int`. The setter owns
    // it for the call.
    unsafe { ioctl(file, Setter::<{ libc::TUNSETVNETHDRSZ as Opcode }, c_int>::new(bytes)) }
}

/// Sets the byte order of the virtio header to little-endian (`TUNSETVNETLE`), for the whole
/// device.
///
/// # Errors
/// The kernel is older than 4.0 and uses the machine's own byte order.
pub(super) fn set_header_little_endian(file: impl AsFd) -> Result<()> {
    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNSETVNETLE, for which the kernel reads one `int`. The setter owns it
    // for the call.
    unsafe { ioctl(file, Setter::<{ libc::TUNSETVNETLE as Opcode }, c_int>::new(1)) }
}

/// Sets whether the device outlives its last queue (`TUNSETPERSIST`).
///
/// # Errors
/// The kernel's error.
pub(super) fn set_persistent(file: impl AsFd, persistent: bool) -> Result<()> {
    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNSETPERSIST, whose argument is the integer itself, not a pointer. The
    // kernel compares it with zero and accesses no memory of this process.
    unsafe {
        ioctl(
            file,
            IntegerSetter::<{ libc::TUNSETPERSIST as Opcode }>::new_usize(usize::from(persistent)),
        )
    }
}

/// Returns the name and the `IFF_*` flags of the device that a queue belongs to (`TUNGETIFF`).
///
/// # Errors
/// `EBADFD`: the file is no queue of a TUN device, or its device was deleted.
pub(super) fn interface_of(file: impl AsFd) -> Result<(String, c_int)> {
    let mut request = empty_request();
    // Needed because the ioctl is untyped.
    // SAFETY: the opcode is TUNGETIFF, for which the kernel writes one `struct ifreq` and reads
    // nothing of it. `request` is exclusively borrowed for the call. The kernel's `_IOR` number
    // names another type, but its handler copies a whole `ifreq`.
    unsafe {
        ioctl(file, Updater::<{ libc::TUNGETIFF as Opcode }, libc::ifreq>::new(&mut request))?
    };
    // Needed because a union field is read.
    // SAFETY: the kernel has written the flags, and all bit patterns of an integer are valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_in(&request), c_int::from(flags)))
}

/// Reports whether the device of a TUN queue lies in the network namespace of this thread
/// (`TUNGETDEVNETNS`, Linux 5.5).
///
/// # Errors
/// The kernel's error; an older kernel does not know.
pub(super) fn has_device_here(queue: impl AsFd) -> Result<bool> {
    // Needed because the ioctl is untyped.
    // SAFETY: TUNGETDEVNETNS takes no argument and returns a descriptor.
    is_this_namespace(&unsafe { ioctl(queue, NamespaceOf::<TUNGETDEVNETNS>)? })
}

/// Reports whether a socket lies in the network namespace of this thread (`SIOCGSKNS`).
///
/// # Errors
/// The kernel's error.
pub(super) fn is_socket_here(socket: impl AsFd) -> Result<bool> {
    // Needed because the ioctl is untyped.
    // SAFETY: SIOCGSKNS takes no argument and returns a descriptor.
    is_this_namespace(&unsafe { ioctl(socket, NamespaceOf::<SIOCGSKNS>)? })
}

fn is_this_namespace(namespace: &OwnedFd) -> Result<bool> {
    let (found, own) = (fstat(namespace)?, stat("/proc/thread-self/ns/net")?);
    Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino))
}

/// An ioctl without an argument that returns a descriptor of a network namespace.
struct NamespaceOf<const OPCODE: Opcode>;

// Needed because rustix has no type for an ioctl that returns a descriptor.
// SAFETY: the kernel ignores the argument of these two opcodes, and returns a descriptor that no
// other code has.
unsafe impl<const OPCODE: Opcode> Ioctl for NamespaceOf<OPCODE> {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(returned: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        // SAFETY: see above.
        Ok(unsafe { OwnedFd::from_raw_fd(returned) })
    }
}

/// `TUNGETDEVNETNS` (linux/if_tun.h): `_IO('T', 227)`.
const TUNGETDEVNETNS: Opcode = 0x54e3;
/// `SIOCGSKNS` (linux/sockios.h).
const SIOCGSKNS: Opcode = 0x894c;

/// Returns the descriptors that the service manager has given this process under `name`
/// (`sd_listen_fds(3)`). A second call returns none.
///
/// # Errors
/// The environment of the process is not as `sd_listen_fds(3)` says.
pub(crate) fn inherited_descriptors(name: &str) -> std::io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let inherited = sd_notify::listen_fds_with_names()?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let wanted = inherited.filter(|(_, found)| found == name);
    // Needed because the environment names descriptors by their numbers.
    // SAFETY: the service manager has opened these descriptors for this process alone (LISTEN_PID),
    // and no other code of the process takes them. TAKEN makes sure that each is taken once.
    Ok(wanted.map(|(raw, _)| unsafe { OwnedFd::from_raw_fd(raw) }).collect())
}

/// Returns the name in a request. The name ends in a zero byte.
fn name_in(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|&byte| byte as u8);
    let name: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// Returns a request without a name.
fn empty_request() -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_slave: [0; libc::IFNAMSIZ] },
    }
}

/// Returns a request for an interface. Its name ends in a zero byte.
///
/// # Errors
/// `EINVAL` if `name` is longer than [`NAME_LIMIT`].
fn named_request(name: &str) -> Result<libc::ifreq> {
    if name.len() > NAME_LIMIT {
        return Err(Errno::INVAL);
    }
    let mut request = empty_request();
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    Ok(request)
}

/// Sends an ARP packet to all hosts of an interface's Ethernet segment, by a packet socket that
/// writes the Ethernet header (`SOCK_DGRAM`).
///
/// # Errors
/// `ENXIO` or `ENETDOWN`: the interface does not exist or is down. `EAGAIN`, `ENOBUFS`: its queue
/// is full.
pub(super) fn broadcast_arp(socket: impl AsFd, interface_index: u32, packet: &[u8]) -> Result<()> {
    let address = PacketAddress(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: c_int::try_from(interface_index).map_err(|_| Errno::INVAL)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    });
    sendto(socket, packet, SendFlags::empty(), &address).map(drop)
}

/// The address of a packet socket, as the kernel reads it.
struct PacketAddress(libc::sockaddr_ll);

// Needed because rustix has no such address.
// SAFETY: the pointer is that of a whole `sockaddr_ll`, whose every field is set, and the length is
// its size. The kernel only reads it, during the call. A packet socket takes this address.
unsafe impl SocketAddrArg for PacketAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f((&raw const self.0).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}

/// Returns the supplementary groups that the process at the other end of a Unix socket had when it
/// connected (`SO_PEERGROUPS`).
///
/// # Errors
/// The kernel's error.
pub(crate) fn peer_groups(socket: impl AsFd) -> Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // Needed because the option is untyped.
        // SAFETY: the kernel writes at most `bytes` bytes to the vector, which has as many, and the
        // new length to `bytes`. Both are exclusively borrowed for the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::RANGE) if count > groups.len() => groups.resize(count, 0),
            errno => return Err(errno.unwrap_or(Errno::INVAL)),
        }
    }
}

/// Maps a page whose content could be executed, and unmaps it.
///
/// # Errors
/// The kernel's error.
#[cfg(test)]
pub(crate) fn map_executable_page() -> Result<()> {
    let (read, execute) = (libc::PROT_READ, libc::PROT_EXEC);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // Needed because the call is untyped.
    // SAFETY: without MAP_FIXED the kernel picks an unused address, and no code uses the page
    // before it is unmapped.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, read | execute, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(
                Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
            );
        }
        libc::munmap(page, 4096);
    }
    Ok(())
}

// `struct ifreq`: a name and a union whose largest member, `struct ifmap`, holds two longs and
// eight bytes.
const _: () =
    assert!(size_of::<libc::ifreq>() == libc::IFNAMSIZ + 2 * size_of::<libc::c_long>() + 8);

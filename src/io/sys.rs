//! The TUN driver's ioctls (`linux/if_tun.h`), and the address of a packet socket (`packet(7)`),
//! each behind a safe function.
#![allow(
    unsafe_code,
    reason = "ioctls take untyped arguments; rustix has no safe wrappers for the TUN driver's, and \
              no type for the address of a packet socket"
)]

use std::os::fd::AsFd;

use libc::{c_int, c_short};
use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};
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
    if name.len() > NAME_LIMIT {
        return Err(Errno::INVAL);
    }
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_slave: [0; libc::IFNAMSIZ] },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
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

    let name: Vec<u8> =
        request.ifr_name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
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

// `struct ifreq`: a name and a union whose largest member, `struct ifmap`, holds two longs and
// eight bytes.
const _: () =
    assert!(size_of::<libc::ifreq>() == libc::IFNAMSIZ + 2 * size_of::<libc::c_long>() + 8);

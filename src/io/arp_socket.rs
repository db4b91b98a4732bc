//! A socket that broadcasts ARP packets on Ethernet segments.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::sys;

/// An AF_PACKET socket that only sends. It serves every interface.
pub(crate) struct ArpSocket(OwnedFd);

impl ArpSocket {
    /// Opens the socket. Needs CAP_NET_RAW; sending needs no privilege.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol the socket receives nothing.
        Ok(Self(socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?))
    }

    /// Finds the socket of a process before this one among descriptors that this process has
    /// inherited, and takes it out of them.
    pub(crate) fn among(inherited: &mut Vec<OwnedFd>) -> Option<Self> {
        let is_one = |fd: &OwnedFd| {
            socket_domain(fd).is_ok_and(|it| it == AddressFamily::PACKET)
                && sys::is_socket_here(fd).is_ok_and(|is_here| is_here)
        };
        inherited.extract_if(.., |descriptor| is_one(descriptor)).next().map(Self)
    }

    /// Returns another descriptor of the socket.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Sends an ARP packet to every host of an interface's segment. The kernel writes the Ethernet
    /// header.
    ///
    /// # Errors
    /// The interface does not exist or is down, or its queue is full.
    pub(crate) fn broadcast(&self, interface_index: u32, packet: &[u8]) -> io::Result<()> {
        Ok(sys::broadcast_arp(&self.0, interface_index, packet)?)
    }
}

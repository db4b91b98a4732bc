//! Sends the frames of a flood from one thread, as fast as the kernel takes them.

#![allow(unsafe_code, reason = "rustix has neither packet addresses nor PACKET_QDISC_BYPASS")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Result;
use natbox::lab::Namespace;
use rustix::io::{Errno, IoSlice};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, bind,
    netdevice::name_to_index, sendmmsg, socket_with, sockopt::set_socket_send_buffer_size_force,
};

use super::counters::TunQueue;

/// The frames of a flood and the socket of their sender.
pub(crate) struct Generator {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
}

impl Generator {
    /// Opens a socket on an interface. `ends`: the hardware addresses of receiver and sender are
    /// the second and the first.
    pub(super) fn open(
        namespace: &Namespace,
        interface: &str,
        ends: [[u8; 6]; 2],
        packets: &[Vec<u8>],
    ) -> Result<Generator> {
        let [receiver, sender] = ends;
        let header = [&receiver[..], &sender, &[8, 0]].concat();
        let frames = packets.iter().map(|packet| [&header[..], packet].concat()).collect();
        let socket = namespace.enter(|| open(interface))??;
        Ok(Generator { socket, frames })
    }

    /// Sends until `stop` is set. Returns the number of frames that the interface has taken.
    ///
    /// With `paced_by`, the sender waits while many packets wait in this queue.
    ///
    /// # Errors
    /// A device is gone.
    pub(crate) fn run(&self, mut paced_by: Option<TunQueue>, stop: &AtomicBool) -> Result<u64> {
        let slices: Vec<[IoSlice<'_>; 1]> =
            self.frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut controls: Vec<_> =
            self.frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<MMsgHdr<'_>> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new(slice, control))
            .collect();
        let mut sent = 0;
        loop {
            for chunk in messages.chunks_mut(CHUNK) {
                // Relaxed: the thread needs to see the flag soon, and nothing else.
                if stop.load(Relaxed) {
                    return Ok(sent);
                }
                if let Some(queue) = &mut paced_by {
                    queue.wait_for_space(MAX_QUEUED)?;
                }
                sent += self.send(chunk)?;
            }
        }
    }

    fn send(&self, messages: &mut [MMsgHdr<'_>]) -> Result<u64> {
        let (mut done, mut sent) = (0, 0);
        while done < messages.len() {
            match sendmmsg(&self.socket, &mut messages[done..], SendFlags::empty()) {
                Ok(count) => {
                    done += count;
                    sent += count as u64;
                }
                // The peer's queue is full: the first of the frames is lost.
                Err(Errno::NOBUFS | Errno::AGAIN) => done += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}

fn open(interface: &str) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    // Without a protocol the socket receives nothing.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    set_socket_send_buffer_size_force(&socket, SEND_BUFFER)?;
    let index = name_to_index(&socket, interface)?;
    bind(
        &socket,
        &PacketAddress(libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: 0,
            sll_ifindex: i32::try_from(index)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        }),
    )?;
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int behind the pointer during the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    anyhow::ensure!(outcome == 0, "PACKET_QDISC_BYPASS: {}", std::io::Error::last_os_error());
    Ok(socket)
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

/// Frames of a system call.
const CHUNK: usize = 64;
/// Packets that may wait for natbox when the next chunk is sent. A queue of a TUN device holds 500.
/// The answers of the server, and bursts of it, need the rest.
const MAX_QUEUED: i64 = 128;
const SEND_BUFFER: usize = 4 << 20;

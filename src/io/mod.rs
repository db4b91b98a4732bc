//! Packets in and out: batches of IPv4 packets from one TUN queue and back.
//!
//! A *frame* is a received packet in a buffer of the backend. The worker receives a batch, works on
//! each frame in place, and either submits the frame or leaves it alone. One flush sends the
//! submitted frames:
//!
//! ```text
//!   receive(wait) ─▶ frame(0) .. frame(n-1) ─▶ submit(i, length, offload) / send(packet, offload) ─▶ flush()
//!       ▲                                                                                             │
//!       └────────────────────── buffers are used again, from the first (warm) one ◀───────────────────┘
//! ```
//!
//! | file | content |
//! |---|---|
//! | `virtio.rs` | the ten bytes of an [`Offload`] on the wire, validated |
//! | `batch.rs` | the buffers of one batch and the list of outgoing packets |
//! | `tun.rs` | opens the device and negotiates the offloads |
//! | `sys.rs` | the ioctls; unsafe code is here and in `uring/ring.rs` only |
//! | `arp_socket.rs` | [`ArpSocket`]: broadcasts ARP packets on the segments of the interfaces |
//! | `poll.rs` | `PollIo`: one read or write call for each packet, `poll` while idle |
//! | `uring/` | `UringIo`: one call for many packets, if the kernel allows it (io_uring) |
//! | `memory.rs` | `MemoryIo`: a queue for tests and fuzz targets |
//! | `waker.rs` | [`Waker`]: ends the waiting of workers |
//!
//! No code of this module reads a packet. The module guarantees that every offset of a received
//! [`Offload`] lies inside its packet. Packets with other headers are dropped and counted.

mod arp_socket;
mod batch;
#[cfg(any(test, feature = "fuzzing"))]
mod memory;
mod poll;
mod sys;
#[cfg(test)]
mod testing;
mod tun;
mod uring;
mod virtio;
mod waker;

use std::time::Duration;

use crate::packet::{BATCH, Frame, Frames, Offload};

pub(crate) use arp_socket::ArpSocket;
pub(crate) use batch::FrameBuffers;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use memory::MemoryIo;
pub(crate) use poll::PollIo;
#[cfg(test)]
pub(crate) use sys::map_executable_page;
pub(crate) use sys::{inherited_descriptors, peer_groups};
pub(crate) use tun::OpenError;
pub(crate) use tun::{OffloadLevel, TunDevice, TunHandle, TunQueue, open, remove};
pub(crate) use uring::{ISSUERS_REGISTRATIONS, UringIo};
pub(crate) use waker::Waker;

/// One queue of packets, used by one worker.
///
/// Packets leave in the order of [`submit`](Frames::submit) and [`send`](Frames::send). Submitted
/// frames must be flushed before the next [`receive`](Self::receive), which takes the buffers back.
pub trait PacketIo: Send {
    /// Receives a batch and returns the number of frames, at most
    /// [`batch_limit`](Self::batch_limit).
    ///
    /// Waits at most `wait` for the first packet. If `wait` is zero, looks once and never sleeps.
    /// Returns 0 if the time has passed, if the waker has fired, or (rarely) early without either.
    /// Recycles the frames of the batch before: frames that were submitted but not flushed are
    /// lost, packets given to [`send`](Frames::send) are kept.
    ///
    /// # Errors
    /// The device is gone, or the system call failed for a reason that has nothing to do with a
    /// packet. Frames that arrived before the error are returned first.
    fn receive(&mut self, wait: Duration) -> std::io::Result<usize>;

    /// Sends the submitted frames and extra packets, in order.
    ///
    /// # Errors
    /// The device is gone. Packets that were not sent before are lost. A packet that the kernel
    /// rejects is no error, see [`Flushed::rejected`].
    fn flush(&mut self) -> std::io::Result<Flushed>;

    /// Reads no further packet from the queue. Later calls of [`receive`](Self::receive) return the
    /// packets that have been read, and do not wait.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    fn stop_reading(&mut self) -> std::io::Result<()>;

    /// Returns the buffers of the current batch, to which the methods of [`Frames`] apply.
    fn buffers(&self) -> &FrameBuffers;

    /// Returns the buffers of the current batch.
    fn buffers_mut(&mut self) -> &mut FrameBuffers;

    /// Returns the number of packets dropped since the start because of an invalid offload header,
    /// or one of a kind that natbox has not enabled.
    fn bad_vnet_headers(&self) -> u64 {
        self.buffers().bad_vnet_headers()
    }

    /// Returns the largest number of frames in a batch: constant, from 1 to [`BATCH`].
    #[inline]
    fn batch_limit(&self) -> usize {
        BATCH
    }
}

impl<Q: PacketIo> Frames for Q {
    #[inline]
    fn received(&self) -> usize {
        self.buffers().len()
    }

    #[inline]
    fn frame(&mut self, index: usize) -> Frame<'_> {
        self.buffers_mut().frame(index)
    }

    #[inline]
    fn submit(&mut self, index: usize, length: usize, offload: Offload) {
        self.buffers_mut().submit(index, length, offload);
    }

    #[inline]
    fn send(&mut self, packet: &[u8], offload: Offload) {
        self.buffers_mut().send(packet, offload);
    }
}

/// The result of one [`PacketIo::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Number of packets that the kernel accepted.
    pub sent: u32,
    /// Number of packets that the kernel rejected (EINVAL, EIO while the device is down, ENOBUFS,
    /// EMSGSIZE, ...). They are lost.
    pub rejected: u32,
}

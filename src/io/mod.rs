//! Packets in and out: batches of IPv4 packets from one TUN queue and back.
//!
//! A *frame* is a packet that was received, in a buffer that belongs to the backend. A batch is received, each frame
//! is looked at in place and either submitted or left alone, and one flush sends the submitted ones:
//!
//! ```text
//!   receive(wait) ─▶ frame(0) .. frame(n-1) ─▶ submit(i, length, offload) / inject(packet, offload) ─▶ flush()
//!       ▲                                                                                               │
//!       └────────────────────── buffers are used again, from the first (warm) one ◀─────────────────────┘
//! ```
//!
//! | file         | what lives there                                                                   |
//! |--------------|------------------------------------------------------------------------------------|
//! | [`virtio`]   | [`Offload`] and its ten bytes on the wire, validated                               |
//! | `batch.rs`   | the buffers of one batch and the list of what goes out                             |
//! | `tun.rs`     | opens the device, walks down the offload ladder                                    |
//! | `sys.rs`     | the ioctls; unsafe code is here and in `uring.rs` only                              |
//! | `poll.rs`    | [`PollIo`]: one read or write call a packet, `poll` while idle                     |
//! | `uring.rs`   | [`UringIo`]: one call for many packets, where the kernel can (io_uring)            |
//! | `mem.rs`     | [`MemoryIo`] for tests, [`ReplayIo`] for benches                                   |
//!
//! Nothing here looks into a packet. What io guarantees to the rooms above: every offset of an [`Offload`] that was
//! received lies inside its packet; headers for which that does not hold never leave this room and are counted.

mod batch;
mod mem;
mod poll;
mod sys;
mod tun;
mod uring;
pub mod virtio;

use std::time::Duration;

pub use mem::{MemoryIo, ReplayIo};
pub use poll::{PollIo, Waker};
pub use tun::{OffloadCeiling, OffloadLevel, OpenError, Tun, TunQueue, open};
pub use uring::UringIo;
pub use virtio::{Offload, PartialChecksum, Segmentation, SegmentationKind};

/// The most frames a batch of any backend holds.
pub const BATCH: usize = 64;

/// The least room of a frame's buffer, in bytes, whatever the length of its packet: enough to turn any packet into
/// an ICMP error in place.
pub const MIN_BUFFER: usize = 2048;

/// One queue of packets, used by one worker.
///
/// Packets go out in the order of [`submit`](Self::submit) and [`send`](Self::send). What was submitted must be
/// flushed before the next [`receive`](Self::receive), which takes the buffers back.
pub trait PacketIo: Send {
    /// Receives a batch and returns the number of frames, at most [`batch_limit`](Self::batch_limit).
    ///
    /// Waits at most `wait` for the first packet; zero looks once and never sleeps. Returns 0 when the time passed,
    /// the waker fired, or (rarely) early without either. Frames of the batch before are recycled: those submitted
    /// but not flushed are forgotten, injected packets are kept.
    ///
    /// # Errors
    /// The device is gone, or the system call failed in a way that has nothing to do with a packet. Frames that
    /// arrived before the error are handed out first.
    fn receive(&mut self, wait: Duration) -> std::io::Result<usize>;

    /// The `index`-th frame of the batch.
    ///
    /// # Panics
    /// `index` is not below what [`receive`](Self::receive) returned.
    fn frame(&mut self, index: usize) -> Frame<'_>;

    /// Marks a frame to be sent, its first `length` bytes being the packet, with this offload header.
    ///
    /// The packet is read at [`flush`](Self::flush). Submitting a frame twice sends it twice.
    ///
    /// # Panics
    /// There is no such frame, or `length` exceeds its buffer.
    fn submit(&mut self, index: usize, length: usize, offload: Offload);

    /// Sends an extra packet that is not a received frame (ICMP answers, released fragments); it is copied.
    fn send(&mut self, packet: &[u8], offload: Offload);

    /// Sends what was submitted and injected, in order.
    ///
    /// # Errors
    /// The device is gone; what was not yet sent is lost. A packet that the kernel refuses is no error, see
    /// [`Flushed::rejected`].
    fn flush(&mut self) -> std::io::Result<Flushed>;

    /// How many frames a batch can hold; constant, from 1 to [`BATCH`].
    fn batch_limit(&self) -> usize;

    /// Packets dropped since the start because their offload header was implausible or of a kind never asked for.
    fn bad_vnet_headers(&self) -> u64;
}

/// A received packet in its buffer.
#[derive(Debug)]
pub struct Frame<'a> {
    /// What the kernel left to be done for this packet; offsets lie inside `buffer[..length]`.
    pub offload: Offload,
    /// Length of the packet, in bytes, 0 to 65535.
    pub length: usize,
    /// The packet is `buffer[..length]`; at least [`MIN_BUFFER`] and at least `length` bytes. The bytes after the
    /// packet are left over from earlier packets; memory there may be untouched, so writing far out costs page faults.
    pub buffer: &'a mut [u8],
}

/// What became of the packets of one [`PacketIo::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Packets that the kernel took.
    pub sent: u32,
    /// Packets that the kernel refused (EINVAL, EIO while the device is down, ENOBUFS, EMSGSIZE, ...); they are gone.
    pub rejected: u32,
}

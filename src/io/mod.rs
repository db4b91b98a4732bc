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

use crate::packet::{BATCH, Frame, Frames, MIN_BUFFER, Offload};

/// One queue of packets, used by one worker.
///
/// Packets go out in the order of [`submit`](Frames::submit) and [`send`](Self::send). What was submitted must be
/// flushed before the next [`receive`](Self::receive), which takes the buffers back.
pub trait PacketIo: Frames + Send {
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

/// What became of the packets of one [`PacketIo::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Packets that the kernel took.
    pub sent: u32,
    /// Packets that the kernel refused (EINVAL, EIO while the device is down, ENOBUFS, EMSGSIZE, ...); they are gone.
    pub rejected: u32,
}

//! The backend with batched system calls: one `io_uring_enter` for many packets.
//!
//! ```text
//!   slots:  free ──▶ provided to the kernel ──▶ read into ──▶ arrived ──▶ frame ──▶ free
//!                    (buffers.rs)               (by armed reads)
//! ```
//!
//! * One multishot read fills provided buffers as packets arrive (Linux 6.7). If no buffer is left
//!   or an error occurs, the read ends and the next [`PacketIo::receive`] arms another one.
//! * Before Linux 6.7 single reads are armed, one more than packets arrived the last time. The
//!   number is kept low because each packet wakes every waiting read.
//! * The packets of a batch are submitted at once, in order. A TUN device takes a packet at once or
//!   not at all, so all writes are done when the call returns.
//! * The ring has one issuer and runs its deferred work only inside `io_uring_enter` (Linux 6.1).
//!   The kernel therefore touches the buffers during that call and at no other time.
//! * The ring can only read, write and poll the queue and the waker: it is restricted before the
//!   worker gets it.
//! * A flag in shared memory says whether work is deferred. Unless it is set, looking for packets
//!   costs no system call.

mod buffers;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use self::buffers::ProvidedBuffers;
pub(crate) use self::ring::ISSUERS_REGISTRATIONS;
use self::ring::{Completion, Ring};
use super::batch::{BYTE_BUDGET, FrameBuffers};
use super::tun::device_is_gone;
use super::{Flushed, PacketIo, TunQueue, Waker};
use crate::packet::BATCH;

/// Reads and writes one TUN queue through a ring. The first thread that receives is the only one
/// that may use it.
pub(crate) struct UringIo {
    // Dropped first: without the ring nothing can run the work that knows the addresses below.
    ring: Ring,
    batch: FrameBuffers,
    inbox: Inbox,
    queue: TunQueue,
    _waker: Waker,
}

/// The packets that the kernel has read, and the slots that it may read into.
struct Inbox {
    buffers: ProvidedBuffers,
    /// Reads that are done and not handed out yet.
    arrived: VecDeque<Arrived>,
    /// Reason why no further packet will come. It is returned after the packets that have arrived.
    failed: Option<io::Error>,
    /// No further packet is read.
    stopped: bool,
    /// Packets that the kernel has dropped since the last batch, because no virtio header describes
    /// them.
    undescribed: u64,
    /// Numbers of the outgoing packets that the kernel has rejected in this flush.
    rejected: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Arrived {
    slot: u16,
    /// Bytes, header included.
    count: usize,
}

impl UringIo {
    /// Takes over all queues of a device.
    ///
    /// # Errors
    /// The kernel is too old, forbids io_uring or is short of memory. The queues are given back as
    /// they were.
    pub(crate) fn all(
        queues: Vec<TunQueue>,
        waker: &Waker,
    ) -> Result<Vec<Self>, (io::Error, Vec<TunQueue>)> {
        Self::all_with(queues, waker, true)
    }

    fn all_with(
        queues: Vec<TunQueue>,
        waker: &Waker,
        may_multishot: bool,
    ) -> Result<Vec<Self>, (io::Error, Vec<TunQueue>)> {
        let mut rings: Vec<(Ring, FrameBuffers, ProvidedBuffers)> = Vec::new();
        for queue in &queues {
            let mut batch = FrameBuffers::new();
            match Ring::set_up(queue, waker, &mut batch, may_multishot) {
                Ok((ring, buffers)) => rings.push((ring, batch, buffers)),
                Err(error) => {
                    drop(rings);
                    return Err((error, queues));
                }
            }
        }
        let whole = |((ring, batch, buffers), queue)| {
            let arrived = VecDeque::with_capacity(BATCH);
            let inbox = Inbox {
                buffers,
                arrived,
                failed: None,
                stopped: false,
                undescribed: 0,
                rejected: Vec::new(),
            };
            Self { ring, batch, inbox, queue, _waker: waker.clone() }
        };
        Ok(rings.into_iter().zip(queues).map(whole).collect())
    }
}

impl Inbox {
    /// Returns whether there is neither a packet nor an error to hand out.
    fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.failed.is_none()
    }

    /// Makes frames of the arrived packets, until the batch is full or holds [`BYTE_BUDGET`].
    fn hand_out(&mut self, batch: &mut FrameBuffers) {
        batch.count_bad_headers(std::mem::take(&mut self.undescribed));
        let mut bytes = 0;
        while bytes < BYTE_BUDGET
            && let Some(Arrived { slot, count }) = self.arrived.pop_front()
        {
            bytes += count;
            if !batch.accept_read(usize::from(slot), count) {
                self.buffers.give(slot);
            }
        }
    }

    /// Takes all completions, and counts those of writes.
    fn reap(&mut self, ring: &mut Ring, flushed: &mut Flushed) {
        while let Some(completion) = ring.next_completion() {
            match completion {
                Completion::Read(Ok(count), Some(slot)) => {
                    self.arrived.push_back(Arrived { slot, count: count as usize });
                }
                Completion::Read(Ok(_), None) | Completion::Woken => {}
                Completion::Read(Err(errno), slot) => {
                    slot.into_iter().for_each(|slot| self.buffers.give(slot));
                    self.read_failed(errno);
                }
                Completion::Written(_, Ok(())) => flushed.sent += 1,
                Completion::Written(_, Err(errno)) if device_is_gone(errno) => {
                    self.failed.get_or_insert(errno.into());
                }
                Completion::Written(packet, Err(_)) => {
                    flushed.rejected += 1;
                    self.rejected.push(packet);
                }
            }
        }
    }

    fn read_failed(&mut self, errno: Errno) {
        match errno {
            // No buffer was free. One is free when the read is armed again.
            Errno::NOBUFS | Errno::AGAIN | Errno::INTR | Errno::CANCELED => {}
            Errno::INVAL => self.undescribed += 1,
            errno => {
                self.failed.get_or_insert(errno.into());
            }
        }
    }
}

impl PacketIo for UringIo {
    fn receive(&mut self, wait: Duration) -> io::Result<usize> {
        let Self { ring, batch, inbox, queue, .. } = self;
        ring.start(queue)?;
        let wanted = batch.len() + 1;
        batch.taken_slots().for_each(|slot| inbox.buffers.give(slot as u16));
        batch.recycle();
        inbox.buffers.publish();
        // No write is pending here, so this stays empty.
        let mut flushed = Flushed::default();
        if inbox.is_empty() && !inbox.stopped {
            ring.arm_reads(wanted);
            ring.submit_pending()?;
            inbox.reap(ring, &mut flushed);
        }
        if inbox.is_empty() && !inbox.stopped && !wait.is_zero() {
            // A multishot read may have ended just now for lack of a buffer.
            ring.arm_reads(1);
            ring.sleep(wait)?;
            inbox.reap(ring, &mut flushed);
        }
        inbox.hand_out(batch);
        match inbox.failed.take_if(|_| batch.len() == 0) {
            Some(error) => Err(error),
            None => Ok(batch.len()),
        }
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let Self { ring, batch, inbox, .. } = self;
        let mut flushed = Flushed::default();
        batch.encode_outgoing();
        ring.write(batch, |ring| inbox.reap(ring, &mut flushed))?;
        batch.keep_rejected(inbox.rejected.drain(..));
        batch.clear_outgoing();
        match inbox.failed.take() {
            Some(error) => Err(error),
            None => Ok(flushed),
        }
    }

    fn stop_reading(&mut self) -> io::Result<()> {
        let Self { ring, inbox, .. } = self;
        inbox.stopped = true;
        let mut flushed = Flushed::default();
        ring.cancel_reads(|ring| inbox.reap(ring, &mut flushed))
    }

    fn buffers(&self) -> &FrameBuffers {
        &self.batch
    }

    fn buffers_mut(&mut self) -> &mut FrameBuffers {
        &mut self.batch
    }
}

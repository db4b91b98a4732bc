//! The backend that works everywhere: one `read` or `write` call for each packet, and `poll` while
//! idle.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::batch::{BYTE_BUDGET, FrameBuffers};
use super::tun::device_is_gone;
use super::{Flushed, PacketIo, TunQueue, Waker};
use crate::packet::BATCH;

/// Reads and writes one TUN queue, packet by packet.
pub(crate) struct PollIo {
    queue: TunQueue,
    waker: Waker,
    batch: FrameBuffers,
    /// No further packet is read.
    stopped: bool,
}

impl PollIo {
    /// Takes over a queue.
    pub(crate) fn new(queue: TunQueue, waker: Waker) -> Self {
        Self { queue, waker, batch: FrameBuffers::new(), stopped: false }
    }

    /// Reads until the queue is empty, the batch is full, or the batch holds [`BYTE_BUDGET`].
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = 0;
        let mut dropped = 0;
        while self.batch.len() < BATCH && dropped < BATCH && bytes < BYTE_BUDGET {
            let slot = self.batch.len();
            let accepted = match rustix::io::read(&self.queue, self.batch.slot(slot)) {
                Ok(count) => {
                    bytes += count;
                    self.batch.accept_read(slot, count)
                }
                // The kernel could not describe the packet in a virtio header, and has dropped it.
                Err(Errno::INVAL) => {
                    self.batch.count_bad_headers(1);
                    false
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(_) if self.batch.len() > 0 => break,
                Err(errno) => return Err(errno.into()),
            };
            dropped += usize::from(!accepted);
        }
        Ok(())
    }

    /// Sleeps until a packet can be read, the waker fires, a signal arrives or the time has passed.
    /// Returns true if a packet can be read.
    fn sleep(&self, wait: Duration) -> io::Result<bool> {
        // A time that the kernel's clock cannot hold is as good as for ever.
        let timeout = Timespec::try_from(wait).ok();
        let mut watched = [
            PollFd::new(&self.queue, PollFlags::IN),
            PollFd::new(self.waker.event(), PollFlags::IN),
        ];
        match poll(&mut watched, timeout.as_ref()) {
            // Errors count as readable: the next read returns them.
            Ok(_) => Ok(!watched[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl PacketIo for PollIo {
    fn receive(&mut self, wait: Duration) -> io::Result<usize> {
        self.batch.recycle();
        if self.stopped {
            return Ok(0);
        }
        self.fill()?;
        if self.batch.len() == 0 && !wait.is_zero() && self.sleep(wait)? {
            self.fill()?;
        }
        Ok(self.batch.len())
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        let mut gone = None;
        self.batch.encode_outgoing();
        let mut rejected = Vec::new();
        for (packet, (wire, _)) in self.batch.outgoing().enumerate() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.queue, wire)) {
                Ok(_) => flushed.sent += 1,
                Err(errno) if device_is_gone(errno) => {
                    gone = Some(errno);
                    break;
                }
                // Every other error concerns this packet only. That includes EAGAIN: a TUN device
                // takes a packet at once or not at all, so waiting would not help.
                Err(_) => rejected.push(packet),
            }
        }
        flushed.rejected = rejected.len() as u32;
        self.batch.keep_rejected(rejected);
        self.batch.clear_outgoing();
        gone.map_or(Ok(flushed), |errno| Err(errno.into()))
    }

    fn stop_reading(&mut self) -> io::Result<()> {
        self.stopped = true;
        Ok(())
    }

    fn buffers(&self) -> &FrameBuffers {
        &self.batch
    }

    fn buffers_mut(&mut self) -> &mut FrameBuffers {
        &mut self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::{SUPER, collect, deliver, queue};
    use crate::packet::{Frames, Offload};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    /// A backend, the kernel's end of its queue, and the backend's waker.
    fn pair() -> (PollIo, OwnedFd, Waker) {
        let (queue, kernel) = queue();
        let waker = Waker::new().expect("an eventfd");
        (PollIo::new(queue, waker.clone()), kernel, waker)
    }

    #[test]
    fn packets_and_their_offloads_go_through_unchanged() {
        let (mut io, kernel, _waker) = pair();
        deliver(&kernel, Offload::default(), b"small");
        deliver(&kernel, SUPER, &[9; 60_000]);
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 2);
        assert_eq!(io.frame(1).offload, SUPER);
        io.frame(0).buffer[..5].copy_from_slice(b"SMALL");
        io.submit(1, 60_000, SUPER);
        io.submit(0, 5, Offload::default());
        io.send(b"extra", Offload::default());
        assert_eq!(io.flush().expect("alive"), Flushed { sent: 3, rejected: 0 });
        assert_eq!(collect(&kernel), Some((SUPER, vec![9; 60_000])));
        assert_eq!(collect(&kernel), Some((Offload::default(), b"SMALL".to_vec())));
        assert_eq!(collect(&kernel), Some((Offload::default(), b"extra".to_vec())));
        assert_eq!(collect(&kernel), None);
    }

    #[test]
    fn bad_vnet_headers_are_counted_and_the_packets_after_them_arrive() {
        let (mut io, kernel, _waker) = pair();
        deliver(&kernel, SUPER, &[0; 30]);
        rustix::io::write(&kernel, b"short").expect("space in the socket");
        rustix::io::write(&kernel, &[255; 100]).expect("space in the socket");
        deliver(&kernel, Offload::default(), b"good");
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 1);
        let frame = io.frame(0);
        assert_eq!(&frame.buffer[..frame.length], b"good");
        assert_eq!(io.bad_vnet_headers(), 3);
    }

    #[test]
    fn super_packets_beyond_the_byte_budget_wait_for_the_next_batch() {
        static PACKET: [u8; 65_000] = [0; 65_000];
        const FITTING: usize = BYTE_BUDGET.div_ceil(65_000);
        let (mut io, kernel, _waker) = pair();
        let mut delivered = 0;
        while rustix::io::write(&kernel, &PACKET).is_ok() {
            delivered += 1;
        }
        assert!(delivered > FITTING, "only {delivered} packets fit into the socket");
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), FITTING);
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), delivered - FITTING);
    }

    #[test]
    fn looking_once_does_not_wait() {
        let (mut io, _kernel, _waker) = pair();
        let start = Instant::now();
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn waiting_ends_when_the_time_has_passed() {
        let (mut io, _kernel, _waker) = pair();
        let start = Instant::now();
        assert_eq!(io.receive(Duration::from_millis(20)).expect("alive"), 0);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn waiting_ends_with_a_packet() {
        let (mut io, kernel, _waker) = pair();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| io.receive(Duration::MAX));
            std::thread::sleep(Duration::from_millis(10));
            deliver(&kernel, Offload::default(), b"late");
            assert_eq!(receiver.join().expect("no panic").expect("alive"), 1);
        });
    }

    #[test]
    fn one_wake_ends_the_waiting_of_all_and_lasts() {
        let waker = Waker::new().expect("an eventfd");
        let mut backends: Vec<_> = (0..3)
            .map(|_| {
                let (io, kernel, _) = pair();
                (PollIo { waker: waker.clone(), ..io }, kernel)
            })
            .collect();
        std::thread::scope(|scope| {
            for (io, _kernel) in &mut backends {
                scope.spawn(|| {
                    assert_eq!(io.receive(Duration::MAX).expect("alive"), 0);
                    assert_eq!(io.receive(Duration::MAX).expect("alive"), 0);
                });
            }
            std::thread::sleep(Duration::from_millis(10));
            waker.wake();
        });
    }

    #[test]
    fn a_packet_that_cannot_be_written_is_counted_as_rejected() {
        let (mut io, kernel, _waker) = pair();
        // Without a reader the socket buffer fills up, and further packets are rejected with
        // EAGAIN.
        for _ in 0..BATCH {
            io.send(&[0; 60_000], Offload::default());
        }
        let flushed = io.flush().expect("alive");
        assert!(flushed.sent > 0 && flushed.rejected > 0);
        assert_eq!(flushed.sent + flushed.rejected, BATCH as u32);
        drop(kernel);
        io.send(b"lost", Offload::default());
        assert_eq!(io.flush().expect("alive"), Flushed { sent: 0, rejected: 1 });
    }
}

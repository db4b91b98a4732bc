//! The backend that asks the kernel in batches: one `io_uring_enter` for many packets.
//!
//! ```text
//!   buffers:  free ──▶ provided to the kernel ──▶ read into ──▶ arrived ──▶ frame ──▶ free
//!                       (a ring of its own)      (by reads that wait)
//! ```
//!
//! * One multishot read fills provided buffers as packets come (Linux 6.7). It ends when there is no buffer left, or with
//!   an error, and is armed again then. Before 6.7 there are single reads, one more than packets came the last time: each
//!   that waits is woken by each packet.
//! * What a batch sends is submitted at once, in order; a TUN device takes a packet at once or not at all, so all writes
//!   are done when the call returns.
//! * The ring has one issuer and runs its deferred work only inside our own calls (Linux 6.1). So the kernel touches the
//!   buffers during [`Ring::enter`] and at no other time, and between two calls they are plain memory of ours.
//! * While nothing is deferred the ring says so in shared memory, and looking for packets costs no system call.
#![allow(
    unsafe_code,
    reason = "the kernel is given addresses of buffers; the crate io-uring leaves that to its user"
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use rustix::io::Errno;

use super::batch::{BYTE_BUDGET, FrameBuffers};
use super::poll::{Waker, device_is_gone};
use super::virtio::{self, HEADER_SIZE};
use super::{BATCH, Flushed, Frame, Frames, Offload, PacketIo, TunQueue};

/// Reads and writes one TUN queue through a ring. Used by one thread: the first one that receives.
pub struct UringIo {
    // The ring goes first when this is dropped: after that nobody can run the work that knows the addresses below.
    ring: Ring,
    batch: FrameBuffers,
    inbox: Inbox,
    queue: TunQueue,
    _waker: Waker,
}

/// What the kernel has read, and what it may read into.
struct Inbox {
    provided: Provided,
    /// Reads that are done and not handed out yet.
    arrived: VecDeque<Arrived>,
    /// Why no further packet will come; told when those that had arrived are handed out.
    failed: Option<io::Error>,
    bad_headers: u64,
}

struct Ring {
    ring: IoUring,
    waker: Fd,
    enabled: bool,
    /// There is a read that goes on after a packet.
    multishot: bool,
    /// Reads that are armed; one is all that a multishot one needs.
    reads: usize,
    /// The waker is watched.
    watches: bool,
    /// Writes that are not done.
    writing: u32,
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
    /// The kernel is too old, forbids io_uring or is short of memory; the queues are given back as they were.
    pub fn all(
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
        let mut rings: Vec<(Ring, FrameBuffers, Provided)> = Vec::new();
        for queue in &queues {
            let mut batch = FrameBuffers::new();
            match Ring::set_up(queue, waker, &mut batch, may_multishot) {
                Ok((ring, provided)) => rings.push((ring, batch, provided)),
                Err(error) => {
                    drop(rings);
                    return Err((error, queues));
                }
            }
        }
        let whole = |((ring, batch, provided), queue)| {
            let arrived = VecDeque::with_capacity(BATCH);
            let inbox = Inbox { provided, arrived, failed: None, bad_headers: 0 };
            Self { ring, batch, inbox, queue, _waker: waker.clone() }
        };
        Ok(rings.into_iter().zip(queues).map(whole).collect())
    }
}

impl Inbox {
    /// Whether there is nothing to tell.
    fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.failed.is_none()
    }

    /// Makes frames of what has arrived, until the batch is full or holds [`BYTE_BUDGET`].
    fn hand_out(&mut self, batch: &mut FrameBuffers) {
        let mut bytes = 0;
        while bytes < BYTE_BUDGET
            && let Some(Arrived { slot, count }) = self.arrived.pop_front()
        {
            bytes += count;
            let wire = batch.slot(usize::from(slot));
            let decoded = match (wire.first_chunk::<HEADER_SIZE>(), count.checked_sub(HEADER_SIZE))
            {
                (Some(header), Some(length)) => {
                    virtio::decode(header, length).ok().map(|offload| (length, offload))
                }
                _ => None,
            };
            match decoded {
                Some((length, offload)) => batch.accept(usize::from(slot), length, offload),
                None => {
                    self.bad_headers += 1;
                    self.provided.give(slot);
                }
            }
        }
    }

    /// Takes completions in; counts those of writes.
    fn reap(&mut self, ring: &mut Ring, flushed: &mut Flushed) {
        while let Some(entry) = ring.ring.completion().next() {
            let (result, flags) = (entry.result(), entry.flags());
            let outcome = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
            match entry.user_data() {
                READ => {
                    ring.reads -= usize::from(!cqueue::more(flags));
                    match (outcome, cqueue::buffer_select(flags)) {
                        (Ok(count), Some(slot)) => {
                            self.arrived.push_back(Arrived { slot, count: count as usize });
                        }
                        (Ok(_), None) => {}
                        (Err(errno), slot) => {
                            slot.into_iter().for_each(|slot| self.provided.give(slot));
                            self.read_failed(errno);
                        }
                    }
                }
                WAKE => ring.watches = false,
                _ => {
                    ring.writing -= 1;
                    match outcome {
                        Ok(_) => flushed.sent += 1,
                        Err(errno) if device_is_gone(errno) => {
                            self.failed.get_or_insert(errno.into());
                        }
                        Err(_) => flushed.rejected += 1,
                    }
                }
            }
        }
    }

    fn read_failed(&mut self, errno: Errno) {
        match errno {
            // No buffer was free; there is one when the read is armed again.
            Errno::NOBUFS | Errno::AGAIN | Errno::INTR | Errno::CANCELED => {}
            // The kernel could not describe the packet in a virtio header, and has dropped it.
            Errno::INVAL => self.bad_headers += 1,
            errno => {
                self.failed.get_or_insert(errno.into());
            }
        }
    }
}

impl Frames for UringIo {
    fn received(&self) -> usize {
        self.batch.len()
    }

    fn frame(&mut self, index: usize) -> Frame<'_> {
        self.batch.frame(index)
    }

    fn submit(&mut self, index: usize, length: usize, offload: Offload) {
        self.batch.submit(index, length, offload);
    }

    fn send(&mut self, packet: &[u8], offload: Offload) {
        self.batch.inject(packet, offload);
    }
}

impl PacketIo for UringIo {
    fn receive(&mut self, wait: Duration) -> io::Result<usize> {
        let Self { ring, batch, inbox, queue, .. } = self;
        ring.start(queue)?;
        let wanted = batch.len() + 1;
        batch.taken_slots().for_each(|slot| inbox.provided.give(slot as u16));
        batch.recycle();
        inbox.provided.publish();
        let mut unasked = Flushed::default();
        if inbox.is_empty() {
            ring.arm_reads(wanted);
            ring.look()?;
            inbox.reap(ring, &mut unasked);
        }
        if inbox.is_empty() && !wait.is_zero() {
            // A multishot read may have ended just now, for want of a buffer.
            ring.arm_reads(1);
            ring.sleep(wait)?;
            inbox.reap(ring, &mut unasked);
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
        for (wire, _) in batch.outgoing() {
            // SAFETY: the packets stay where they are until forget_outgoing below, which is reached when all writes are done.
            while !unsafe { ring.push_write(wire) } {
                ring.enter(1, None)?;
                inbox.reap(ring, &mut flushed);
            }
        }
        while ring.writing != 0 {
            ring.enter(1, None)?;
            inbox.reap(ring, &mut flushed);
        }
        batch.forget_outgoing();
        match inbox.failed.take() {
            Some(error) => Err(error),
            None => Ok(flushed),
        }
    }

    fn batch_limit(&self) -> usize {
        BATCH
    }

    fn bad_vnet_headers(&self) -> u64 {
        self.inbox.bad_headers
    }
}

impl Ring {
    fn set_up(
        queue: &TunQueue,
        waker: &Waker,
        batch: &mut FrameBuffers,
        may_multishot: bool,
    ) -> io::Result<(Self, Provided)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // The worker's thread, and not this one, is to be the issuer.
            .setup_r_disabled()
            .setup_cqsize(4 * ENTRIES)
            .build(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let multishot = may_multishot && probe.is_supported(opcode::ReadMulti::CODE);
        ring.submitter().register_files(&[queue.as_fd().as_raw_fd()])?;
        let provided = Provided::new(batch);
        // SAFETY: the ring of entries is page-aligned, as long as said, and owned by `provided`, which does not move it and
        // outlives the ring (field order of UringIo).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                provided.address(),
                BATCH as u16,
                GROUP,
                0,
            )?;
        }
        let waker = Fd(waker.event().as_raw_fd());
        Ok((
            Self { ring, waker, enabled: false, multishot, reads: 0, watches: false, writing: 0 },
            provided,
        ))
    }

    /// Makes the calling thread the issuer, unless it is.
    fn start(&mut self, queue: &TunQueue) -> io::Result<()> {
        if !self.enabled {
            // A read of a file that must not block would fail instead of waiting for a packet.
            let flags = rustix::fs::fcntl_getfl(queue)?;
            rustix::fs::fcntl_setfl(queue, flags - rustix::fs::OFlags::NONBLOCK)?;
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// Has so many reads armed; of multishot ones there is one.
    fn arm_reads(&mut self, wanted: usize) {
        let wanted = if self.multishot { 1 } else { wanted.min(BATCH) };
        while self.reads < wanted {
            let read = match self.multishot {
                true => opcode::ReadMulti::new(Fixed(0), 0, GROUP).build(),
                false => opcode::Read::new(Fixed(0), std::ptr::null_mut(), 0)
                    .buf_group(GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT),
            };
            // SAFETY: it names no memory; the buffers it picks are provided ones, which live as long as the ring.
            if !unsafe { self.push(&read.user_data(READ)) } {
                break;
            }
            self.reads += 1;
        }
    }

    /// Looks whether anything is done, with a system call only if there is something to tell the kernel or to run.
    fn look(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(0, None)
    }

    /// Sleeps until something is done, the waker fires, a signal comes or the time passes.
    fn sleep(&mut self, wait: Duration) -> io::Result<()> {
        if !self.watches {
            let poll =
                opcode::PollAdd::new(self.waker, libc::POLLIN as u32).build().user_data(WAKE);
            // SAFETY: it names no memory.
            self.watches = unsafe { self.push(&poll) };
        }
        self.enter(1, Some(wait))
    }

    /// Submits what was pushed and runs what was deferred; waits for so many completions, at most this long.
    fn enter(&mut self, least: usize, wait: Option<Duration>) -> io::Result<()> {
        let time = wait.and_then(|wait| {
            // A time that the kernel's clock cannot hold is as good as for ever.
            i64::try_from(wait.as_secs()).ok()?;
            Some(Timespec::from(wait))
        });
        let mut arguments = SubmitArgs::new();
        if let Some(time) = &time {
            arguments = arguments.timespec(time);
        }
        match self.ring.submitter().submit_with_args(least, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // The time passed, a signal came, or completions must be taken in first.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                Some(_) | None => Err(error),
            },
        }
    }

    /// Pushes a write of a packet; false when the queue is full.
    ///
    /// # Safety
    /// Its bytes stay where they are, unchanged, until the write is done.
    unsafe fn push_write(&mut self, wire: &[u8]) -> bool {
        let write =
            opcode::Write::new(Fixed(0), wire.as_ptr(), wire.len() as u32).build().user_data(WRITE);
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.push(&write) };
        self.writing += u32::from(pushed);
        pushed
    }

    /// Pushes an entry; false when the queue is full.
    ///
    /// # Safety
    /// The memory that the entry names stays valid until it is done.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }
}

impl Drop for Ring {
    /// Lets go of the device at once. A ring that is only closed keeps its file for a moment, in which the next box would find
    /// the device's name taken.
    fn drop(&mut self) {
        let submitter = self.ring.submitter();
        // What fails here the kernel does by itself, later.
        let _ = submitter.register_sync_cancel(Some(Timespec::new().sec(1)), CancelBuilder::any());
        let _ = submitter.unregister_files();
    }
}

/// The ring of buffers that the kernel may read into: first in, first out.
struct Provided {
    /// A page, as the kernel wants it, of which [`BATCH`] entries are used.
    entries: Box<Page>,
    /// Where each slot begins, from its header on.
    addresses: Box<[u64]>,
    length: u32,
    tail: u16,
}

#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl Provided {
    /// All slots of a batch.
    fn new(batch: &mut FrameBuffers) -> Self {
        let length = batch.slot(0).len() as u32;
        let addresses = (0..BATCH)
            .map(|slot| batch.slot(slot).as_mut_ptr().expose_provenance() as u64)
            .collect();
        let mut provided = Self { entries: Box::new(Page([0; 4096])), addresses, length, tail: 0 };
        for slot in 0..BATCH as u16 {
            provided.give(slot);
        }
        provided.publish();
        provided
    }

    fn address(&self) -> u64 {
        self.entries.0.as_ptr().expose_provenance() as u64
    }

    /// Gives a slot to the kernel, with the next [`Self::publish`]. The caller has no frame in it any more.
    fn give(&mut self, slot: u16) {
        let entries: *mut BufRingEntry = self.entries.0.as_mut_ptr().cast();
        // SAFETY: the page is aligned for entries and has room for BATCH of them (asserted below); the kernel reads an entry
        // only when the tail has passed it. The entry's last field, in the first entry, is the tail: it is not touched here.
        let entry = unsafe { &mut *entries.add(usize::from(self.tail) % BATCH) };
        entry.set_addr(self.addresses[usize::from(slot)]);
        entry.set_len(self.length);
        entry.set_bid(slot);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given.
    fn publish(&mut self) {
        let entries: *const BufRingEntry = self.entries.0.as_ptr().cast();
        // SAFETY: the tail lies in the first entry of the page, aligned for a u16; both sides access it atomically.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        // Release pairs with the kernel's acquire: the entries before the tail are complete.
        tail.store(self.tail, Ordering::Release);
    }
}

const _: () =
    assert!(BATCH.is_power_of_two() && BATCH * size_of::<BufRingEntry>() <= size_of::<Page>());

const READ: u64 = 0;
const WAKE: u64 = 1;
const WRITE: u64 = 2;
/// The group of the provided buffers.
const GROUP: u16 = 0;
/// Entries of the submission queue: a batch, and as many answers and released pieces.
const ENTRIES: u32 = 2 * BATCH as u32;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::packet::{PartialChecksum, Segmentation, SegmentationKind};

    /// Does it with multishot reads, and as on a kernel without them.
    fn both(work: impl Fn(bool)) {
        [true, false].into_iter().for_each(work);
    }

    /// A backend and the kernel's end of its queue: datagrams in the place of a device.
    fn pair(multishot: bool) -> (UringIo, OwnedFd, Waker) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, kernels) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a socket pair");
        let waker = Waker::new().expect("an eventfd");
        let rings = UringIo::all_with(vec![TunQueue::from_file(ours)], &waker, multishot);
        let mut rings = rings.map_err(|(error, _)| error).expect("a kernel with io_uring");
        assert_eq!(rings[0].ring.multishot, multishot, "this kernel has multishot reads");
        (rings.remove(0), kernels, waker)
    }

    fn deliver(kernel: &OwnedFd, offload: Offload, packet: &[u8]) {
        let wire = [&virtio::encode(&offload)[..], packet].concat();
        rustix::io::write(kernel, &wire).expect("room in the socket");
    }

    fn collect(kernel: &OwnedFd) -> Option<(Offload, Vec<u8>)> {
        let mut wire = vec![0; 70_000];
        let count = rustix::io::read(kernel, &mut wire).ok()?;
        let header = wire.first_chunk().expect("ten bytes");
        let packet = wire[HEADER_SIZE..count].to_vec();
        Some((virtio::decode(header, packet.len()).expect("a good header"), packet))
    }

    /// Receives until so many frames have come; their packets.
    fn receive(io: &mut UringIo, count: usize) -> Vec<Vec<u8>> {
        let (mut packets, started) = (Vec::new(), Instant::now());
        while packets.len() < count {
            let frames = io.receive(Duration::from_secs(1)).expect("alive");
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{} of {count} came",
                packets.len()
            );
            let mut bytes = 0;
            for index in 0..frames {
                assert!(bytes < BYTE_BUDGET);
                let frame = io.frame(index);
                bytes += frame.length;
                packets.push(frame.buffer[..frame.length].to_vec());
            }
        }
        packets
    }

    const SUPER: Offload = Offload {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        segmentation: Some(Segmentation {
            kind: SegmentationKind::Tcp4,
            size: 1448,
            header_length: 52,
        }),
        valid: false,
    };

    #[test]
    fn packets_and_their_offloads_go_through_unchanged() {
        both(|multishot| {
            let (mut io, kernel, _waker) = pair(multishot);
            deliver(&kernel, SUPER, &[9; 60_000]);
            assert_eq!(io.receive(Duration::from_secs(5)).expect("alive"), 1);
            let frame = io.frame(0);
            assert_eq!((frame.offload, &frame.buffer[..frame.length]), (SUPER, &[9; 60_000][..]));
            io.frame(0).buffer[..5].copy_from_slice(b"SMALL");
            io.submit(0, 60_000, SUPER);
            io.send(b"extra", Offload::default());
            assert_eq!(io.flush().expect("alive"), Flushed { sent: 2, rejected: 0 });
            let (offload, packet) = collect(&kernel).expect("the frame");
            assert_eq!((offload, &packet[..6], packet.len()), (SUPER, &b"SMALL\x09"[..], 60_000));
            assert_eq!(collect(&kernel), Some((Offload::default(), b"extra".to_vec())));
            assert_eq!(collect(&kernel), None);
        });
    }

    #[test]
    fn more_packets_than_buffers_and_entries_come_and_go_in_order() {
        both(|multishot| {
            let (mut io, kernel, _waker) = pair(multishot);
            for round in 0..50_u8 {
                // Three times the buffers; no more than 11 wait in a socket.
                let feeder = rustix::io::dup(&kernel).expect("a descriptor");
                let fed = std::thread::spawn(move || {
                    for number in 0..3 * BATCH as u8 {
                        let wire =
                            [&virtio::encode(&Offload::default())[..], &[round, number]].concat();
                        while rustix::io::write(&feeder, &wire) == Err(Errno::AGAIN) {
                            std::thread::yield_now();
                        }
                    }
                });
                let wanted: Vec<_> =
                    (0..3 * BATCH as u8).map(|number| vec![round, number]).collect();
                assert_eq!(receive(&mut io, 3 * BATCH), wanted);
                fed.join().expect("no panic");
            }
            // Outwards more than the queue has entries, while somebody takes them.
            let taker = rustix::io::dup(&kernel).expect("a descriptor");
            let count = 3 * ENTRIES;
            let taken = std::thread::spawn(move || {
                let mut packets = Vec::new();
                while packets.len() < count as usize {
                    packets.extend(collect(&taker).map(|(_, packet)| packet));
                }
                packets
            });
            for number in 0..count {
                io.send(&number.to_be_bytes(), Offload::default());
            }
            assert_eq!(io.flush().expect("alive").sent, count);
            let mut packets = taken.join().expect("no panic");
            // A socket that is full for a moment lets others overtake; a device never is.
            packets.sort();
            assert_eq!(
                packets,
                (0..count).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>()
            );
        });
    }

    #[test]
    fn bad_headers_are_counted_and_the_packets_after_them_arrive() {
        both(|multishot| {
            let (mut io, kernel, _waker) = pair(multishot);
            for _ in 0..BATCH {
                deliver(&kernel, SUPER, &[0; 30]);
                rustix::io::write(&kernel, b"short").expect("room in the socket");
                deliver(&kernel, Offload::default(), b"good");
                assert_eq!(receive(&mut io, 1), [b"good"]);
            }
            assert_eq!(io.bad_vnet_headers(), 2 * BATCH as u64);
        });
    }

    #[test]
    fn looking_once_does_not_wait_and_waiting_ends_with_the_time() {
        both(|multishot| {
            let (mut io, _kernel, _waker) = pair(multishot);
            let start = Instant::now();
            assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
            assert!(start.elapsed() < Duration::from_secs(1));
            let start = Instant::now();
            assert_eq!(io.receive(Duration::from_millis(20)).expect("alive"), 0);
            assert!(start.elapsed() >= Duration::from_millis(20));
        });
    }

    #[test]
    fn waiting_ends_with_a_packet_and_with_the_waker_for_good() {
        both(|multishot| {
            let (mut io, kernel, waker) = pair(multishot);
            std::thread::scope(|scope| {
                let receiver = scope.spawn(|| {
                    assert_eq!(io.receive(Duration::MAX).expect("alive"), 1);
                    for _ in 0..3 {
                        assert_eq!(io.receive(Duration::MAX).expect("alive"), 0);
                    }
                });
                std::thread::sleep(Duration::from_millis(10));
                deliver(&kernel, Offload::default(), b"late");
                std::thread::sleep(Duration::from_millis(10));
                waker.wake();
                receiver.join().expect("no panic");
            });
        });
    }

    #[test]
    fn nothing_holds_the_queue_when_the_backend_is_gone() {
        both(|multishot| {
            let (mut io, kernel, _waker) = pair(multishot);
            assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
            drop(io);
            // Nobody is at the other end any more; a child that another test has just forked holds it for a moment.
            let started = Instant::now();
            while rustix::io::write(&kernel, b"anybody?") != Err(Errno::CONNREFUSED) {
                assert!(started.elapsed() < Duration::from_secs(10), "something holds the queue");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

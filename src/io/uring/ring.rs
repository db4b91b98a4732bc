//! The submission and completion rings of one queue.
#![allow(
    unsafe_code,
    reason = "the kernel is given addresses of buffers; the crate io-uring leaves that to its user"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use rustix::io::Errno;

use super::buffers::ProvidedBuffers;
use crate::io::batch::FrameBuffers;
use crate::io::{TunQueue, Waker};
use crate::packet::BATCH;

/// An io_uring instance that reads and writes one queue and watches the waker.
pub(super) struct Ring {
    ring: IoUring,
    enabled: bool,
    /// Reads continue after a packet.
    multishot: bool,
    /// Number of armed reads, at most 1 if multishot.
    reads: usize,
    /// A poll of the waker is armed.
    watches: bool,
    /// Number of writes without completion.
    writing: u32,
    /// A write call failed. The kernel must not run again what may still name packets.
    broken: bool,
}

/// A completed request.
pub(super) enum Completion {
    /// A read: the number of bytes, the slot that the kernel picked or `None` if no slot was free.
    Read(Result<u32, Errno>, Option<u16>),
    /// The poll of the waker.
    Woken,
    /// A write of the outgoing packet with this number.
    Written(usize, Result<(), Errno>),
}

impl Ring {
    /// Sets up a ring, disabled, and the buffers that it reads into.
    ///
    /// The caller keeps `batch` and the buffers as long as the ring: it drops the ring first.
    ///
    /// # Errors
    /// The kernel is too old, forbids io_uring or is short of memory.
    pub(super) fn set_up(
        queue: &TunQueue,
        waker: &Waker,
        batch: &mut FrameBuffers,
        may_multishot: bool,
    ) -> io::Result<(Self, ProvidedBuffers)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // The issuer is the worker's thread, not this one.
            .setup_r_disabled()
            .setup_cqsize(4 * ENTRIES)
            .build(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let multishot = may_multishot && probe.is_supported(opcode::ReadMulti::CODE);
        let files = [queue.as_fd().as_raw_fd(), waker.event().as_raw_fd()];
        ring.submitter().register_files(&files)?;
        let buffers = ProvidedBuffers::new(batch);
        // Needed because the kernel is given an address.
        // SAFETY: the ring of entries is page-aligned, has BATCH entries and is owned by `buffers`.
        // `buffers` does not move it and outlives the ring (field order of UringIo).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.address(),
                BATCH as u16,
                GROUP,
                0,
            )?;
        }
        ring.submitter().register_restrictions(&mut restrictions(multishot))?;
        let idle = Self {
            ring,
            enabled: false,
            multishot,
            reads: 0,
            watches: false,
            writing: 0,
            broken: false,
        };
        Ok((idle, buffers))
    }

    /// Makes the calling thread the issuer at the first call.
    pub(super) fn start(&mut self, queue: &TunQueue) -> io::Result<()> {
        if !self.enabled {
            // A read of a non-blocking file would fail instead of waiting for a packet.
            let flags = rustix::fs::fcntl_getfl(queue)?;
            rustix::fs::fcntl_setfl(queue, flags - rustix::fs::OFlags::NONBLOCK)?;
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// Arms reads until `wanted` are armed, or one if reads are multishot.
    pub(super) fn arm_reads(&mut self, wanted: usize) {
        let wanted = if self.multishot { 1 } else { wanted.min(BATCH) };
        while self.reads < wanted {
            let read = match self.multishot {
                true => opcode::ReadMulti::new(QUEUE, 0, GROUP).build(),
                false => opcode::Read::new(QUEUE, std::ptr::null_mut(), 0)
                    .buf_group(GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT),
            };
            // Needed because an entry may name memory.
            // SAFETY: this one names none. It picks provided buffers, which live as long as the
            // ring.
            if !unsafe { self.push(&read.user_data(READ)) } {
                break;
            }
            self.reads += 1;
        }
    }

    /// Cancels the armed reads, and waits until all have ended.
    ///
    /// Calls `reap` whenever completions may have arrived. `reap` must take all of them.
    pub(super) fn cancel_reads(&mut self, mut reap: impl FnMut(&mut Self)) -> io::Result<()> {
        if self.reads != 0 {
            let reads = CancelBuilder::user_data(READ).all();
            match self.ring.submitter().register_sync_cancel(Some(CANCEL_TIMEOUT), reads) {
                // All have ended.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {}
                cancelled => cancelled?,
            }
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.reads != 0 && Instant::now() < deadline {
            self.enter(1, Some(Duration::from_millis(10)))?;
            reap(self);
        }
        Ok(())
    }

    /// Runs deferred work and submits entries, with a system call only if there are any.
    pub(super) fn submit_pending(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(0, None)
    }

    /// Sleeps until a request completes, the waker fires, a signal arrives or the time has passed.
    pub(super) fn sleep(&mut self, wait: Duration) -> io::Result<()> {
        if !self.watches {
            let poll = opcode::PollAdd::new(WAKER, libc::POLLIN as u32).build().user_data(WAKE);
            // Needed because an entry may name memory.
            // SAFETY: this one names none.
            self.watches = unsafe { self.push(&poll) };
        }
        self.enter(1, Some(wait))
    }

    /// Takes the next completion. `None` if there is no further one.
    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let (result, flags) = (entry.result(), entry.flags());
        let outcome = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
        Some(match entry.user_data() {
            READ => {
                self.reads -= usize::from(!cqueue::more(flags));
                Completion::Read(outcome, cqueue::buffer_select(flags))
            }
            WAKE => {
                self.watches = false;
                Completion::Woken
            }
            write => {
                self.writing -= 1;
                let packet = write.saturating_sub(WRITE) as usize;
                Completion::Written(packet, outcome.map(|_| ()))
            }
        })
    }

    /// Writes the outgoing packets of `batch`, in order. Returns when all writes are done.
    ///
    /// Calls `reap` whenever completions may have arrived. `reap` must take all of them.
    ///
    /// # Errors
    /// The ring failed. It then submits and waits for nothing any more.
    pub(super) fn write(
        &mut self,
        batch: &FrameBuffers,
        reap: impl FnMut(&mut Self),
    ) -> io::Result<()> {
        let done = self.write_until_done(batch, reap);
        self.broken |= done.is_err();
        done
    }

    fn write_until_done(
        &mut self,
        batch: &FrameBuffers,
        mut reap: impl FnMut(&mut Self),
    ) -> io::Result<()> {
        for (packet, (wire, _)) in (WRITE..).zip(batch.outgoing()) {
            let write = opcode::Write::new(QUEUE, wire.as_ptr(), wire.len() as u32).build();
            let write = write.user_data(packet);
            // Needed because the entry names the packet's memory.
            // SAFETY: `batch` is borrowed until this function returns. By then all writes are done,
            // or the ring is broken: the kernel touches packets only inside `enter`, which a broken
            // ring refuses.
            while !unsafe { self.push(&write) } {
                self.enter(1, None)?;
                reap(self);
            }
            self.writing += 1;
        }
        while self.writing != 0 {
            self.enter(1, None)?;
            reap(self);
        }
        Ok(())
    }

    /// Submits entries and runs deferred work. Waits for `least` completions, at most for `wait`.
    fn enter(&mut self, least: usize, wait: Option<Duration>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the ring of this queue has failed before"));
        }
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
                // The time has passed, a signal arrived, or completions must be taken first.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                Some(_) | None => Err(error),
            },
        }
    }

    /// Pushes an entry. Returns false if the submission queue is full.
    ///
    /// # Safety
    /// The memory that the entry names stays valid and unchanged until the entry is done.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // Needed because the entry may name memory.
        // SAFETY: the caller's promise.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    #[cfg(test)]
    pub(super) fn is_multishot(&self) -> bool {
        self.multishot
    }

    /// Submits a request that names no memory of a buffer, and returns its result.
    #[cfg(test)]
    pub(super) fn try_request(&mut self, request: squeue::Entry) -> i32 {
        // Needed because an entry may name memory.
        // SAFETY: this one names constants alone.
        assert!(unsafe { self.push(&request.user_data(u64::MAX)) });
        self.enter(1, None).expect("the ring works");
        let found = self.ring.completion().find(|entry| entry.user_data() == u64::MAX);
        found.expect("the request is done").result()
    }
}

impl Drop for Ring {
    /// Releases the device at once. A ring that is only closed keeps its file for a moment, in
    /// which the next instance would find the device's name taken.
    fn drop(&mut self) {
        let submitter = self.ring.submitter();
        // If one of these fails, the kernel does it later, when the ring is closed.
        let _ = submitter.register_sync_cancel(Some(CANCEL_TIMEOUT), CancelBuilder::any());
        let _ = submitter.unregister_files();
    }
}

/// Returns what the ring may do once it is enabled: read, write and poll its own two files. Without
/// these restrictions the issuer could open files and sockets by the ring, past every filter of
/// system calls.
fn restrictions(multishot: bool) -> [Restriction; 7] {
    let read = if multishot { opcode::ReadMulti::CODE } else { opcode::Read::CODE };
    let [_enable, unregister_files, cancel] = ISSUERS_REGISTRATIONS.map(|number| number as u8);
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
    [
        Restriction::sqe_op(read),
        Restriction::sqe_op(opcode::Write::CODE),
        Restriction::sqe_op(opcode::PollAdd::CODE),
        Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()),
        Restriction::sqe_flags_allowed(flags.bits()),
        Restriction::register_op(unregister_files),
        Restriction::register_op(cancel),
    ]
}

/// Numbers of the registrations (`io_uring_register(2)`) that the issuer makes: it enables the
/// ring, releases the files, and cancels requests.
pub(crate) const ISSUERS_REGISTRATIONS: [u32; 3] = [12, 3, 24];

/// Longest wait for cancelled requests.
const CANCEL_TIMEOUT: Timespec = Timespec::new().sec(1);
/// The registered files.
const QUEUE: Fixed = Fixed(0);
const WAKER: Fixed = Fixed(1);
/// Values of `user_data`. The write of the n-th outgoing packet has `WRITE` + n.
const READ: u64 = 0;
const WAKE: u64 = 1;
const WRITE: u64 = 2;
/// The group of the provided buffers.
const GROUP: u16 = 0;
/// Entries of the submission queue: a batch, and as many extra packets.
pub(super) const ENTRIES: u32 = 2 * BATCH as u32;

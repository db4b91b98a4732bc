//! Ends the waiting of workers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Ends the waiting of every backend that holds a clone, for good. It serves the shutdown.
///
/// A waker that has fired stays so. After that [`PacketIo::receive`](super::PacketIo::receive)
/// still receives, but no longer waits.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Creates a waker that has not fired.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// The file that becomes readable when the waker fires.
    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Fires.
    pub(crate) fn wake(&self) {
        // The write fails only if the counter is full. Then the waker has fired before, as no code
        // reads the counter.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

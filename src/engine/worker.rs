//! The worker thread: receive, process, expire, publish; poll a little before sleeping.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;

use crate::io::PacketIo;
use crate::nat::Translator;
use crate::time::Tick;

use super::{Options, Pipeline, SharedCounters};

/// What a worker reports.
#[derive(Debug)]
pub enum Event {
    /// Its queue failed: the device is gone.
    QueueFailed {
        /// Number of the worker.
        worker: usize,
        /// What the system said.
        error: io::Error,
    },
    /// It panicked, which is a bug.
    Panicked {
        /// Number of the worker.
        worker: usize,
        /// The panic's message.
        message: String,
    },
}

/// A worker before its thread runs.
pub(super) struct Worker<Q> {
    number: usize,
    queue: Q,
    batch: Pipeline,
    published: Arc<SharedCounters>,
    stop: Arc<AtomicBool>,
    options: Options,
}

impl<Q: PacketIo> Worker<Q> {
    pub(super) fn new(
        number: usize,
        queue: Q,
        nat: Arc<ArcSwap<Translator>>,
        published: Arc<SharedCounters>,
        stop: Arc<AtomicBool>,
        options: Options,
    ) -> Self {
        let context = nat.load().worker(number);
        let batch = Pipeline::new(nat, context);
        Self { number, queue, batch, published, stop, options }
    }

    /// Runs until told to stop.
    fn run(&mut self) -> io::Result<()> {
        // Acquire pairs with the Release in Engine::halt.
        while !self.stop.load(Ordering::Acquire) {
            self.receive()?;
            let now = Tick::now();
            self.batch.process(&mut self.queue, now)?;
            self.batch.expire(&mut self.queue, now)?;
            self.published.write(self.batch.counters());
        }
        Ok(())
    }

    /// Polls for a while, then sleeps. Waking a sleeping core costs several times what translating a packet does, so
    /// while packets come the next is waited for awake; an idle box does not poll, for every sleep ends with at most
    /// one round of it. Between two looks the core is offered to whoever else wants it: that may be who makes the packets.
    fn receive(&mut self) -> io::Result<usize> {
        let frames = self.queue.receive(Duration::ZERO)?;
        if frames != 0 || self.options.busy_poll.is_zero() {
            return if frames != 0 { Ok(frames) } else { self.sleep() };
        }
        let started = Instant::now();
        while started.elapsed() < self.options.busy_poll {
            std::thread::yield_now();
            let frames = self.queue.receive(Duration::ZERO)?;
            if frames != 0 {
                return Ok(frames);
            }
        }
        self.sleep()
    }

    fn sleep(&mut self) -> io::Result<usize> {
        loop {
            // Expiry goes on while nothing arrives, in the same small slices.
            let now = Tick::now();
            let due = self.batch.poll(&mut self.queue, now)?;
            let wait = due.map_or(IDLE_WAIT, |due| Duration::from_millis(due.since(now).0.into()));
            let frames = self.queue.receive(wait)?;
            if frames != 0 || self.stop.load(Ordering::Acquire) {
                return Ok(frames);
            }
            self.published.write(self.batch.counters());
        }
    }
}

/// Runs a worker and reports how it ended, if it was not told to.
pub(super) fn run_guarded<Q: PacketIo>(mut worker: Worker<Q>, events: &Sender<Event>) {
    // After a panic the worker is dropped unseen; what it shares are atomics and locks that do not poison.
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.run()));
    let event = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Event::QueueFailed { worker: worker.number, error },
        Err(panic) => {
            Event::Panicked { worker: worker.number, message: message_of(panic.as_ref()) }
        }
    };
    // The channel has room for one event of every worker; it can only be closed, and then nobody listens.
    let _ = events.send(event);
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Longest sleep of a worker without sessions; only the stop signal could come late by it, and that wakes.
const IDLE_WAIT: Duration = Duration::from_secs(5);

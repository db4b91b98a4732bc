//! A worker thread: receive, process, expire, publish. A worker polls for a moment before it
//! sleeps.

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

use super::counters::SharedCounters;
use super::observe::Observation;
use super::pipeline::Pipeline;

/// Options of all workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Time for which a worker polls before it sleeps while traffic flows. Zero: a worker never
    /// polls.
    pub busy_poll: Duration,
    /// Drops the privileges of a worker's thread, before its first packet.
    pub confine_worker: fn() -> io::Result<()>,
    /// Drops the privileges of each other thread of the engine.
    pub confine_thread: fn(),
}

/// Reason why a worker has ended.
#[derive(Debug)]
pub(crate) enum WorkerFailure {
    /// The queue failed: the device is gone.
    QueueFailed {
        /// Number of the worker.
        worker: usize,
        /// The system's error.
        error: io::Error,
    },
    /// The worker's thread could not drop its privileges, and has read no packet.
    Unconfined {
        /// Number of the worker.
        worker: usize,
        /// The system's error.
        error: io::Error,
    },
    /// The worker panicked, which is a bug.
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
    pipeline: Pipeline,
    counters: Arc<SharedCounters>,
    stop: Arc<AtomicBool>,
    options: Options,
}

impl<Q: PacketIo> Worker<Q> {
    pub(super) fn new(
        number: usize,
        queue: Q,
        nat: Arc<ArcSwap<Translator>>,
        counters: Arc<SharedCounters>,
        observation: Arc<Observation>,
        stop: Arc<AtomicBool>,
        options: Options,
    ) -> Self {
        let pipeline = Pipeline::new(nat, number, observation);
        Self { number, queue, pipeline, counters, stop, options }
    }

    /// Drops the privileges of the thread, and runs.
    fn run_confined(&mut self) -> Result<(), WorkerFailure> {
        let worker = self.number;
        (self.options.confine_worker)()
            .map_err(|error| WorkerFailure::Unconfined { worker, error })?;
        self.run().map_err(|error| WorkerFailure::QueueFailed { worker, error })
    }

    /// Runs until the stop flag is set. Then translates what it has read, and reads no more:
    /// packets in the queue wait for the next process.
    fn run(&mut self) -> io::Result<()> {
        // Acquire pairs with the Release in Engine::halt.
        while !self.stop.load(Ordering::Acquire) {
            self.receive()?;
            let (now, started) = (Tick::now(), Instant::now());
            self.pipeline.process(&mut self.queue, now)?;
            self.pipeline.expire(&mut self.queue, now)?;
            self.counters.write(self.pipeline.counters());
            self.counters.batch_times.count(started.elapsed());
        }
        self.queue.stop_reading()?;
        while self.queue.receive(Duration::ZERO)? != 0 {
            self.pipeline.process(&mut self.queue, Tick::now())?;
        }
        self.counters.write(self.pipeline.counters());
        Ok(())
    }

    /// Receives frames: polls for a while, then sleeps.
    ///
    /// Waking a sleeping core costs several times as much as translating a packet. So a worker
    /// stays awake while packets arrive. An idle worker does not poll: each sleep is followed by at
    /// most one round of polling. Between two polls, the worker yields the core: another thread may
    /// be the source of the packets.
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
            // While no packet arrives, sessions expire in the same small slices.
            let now = Tick::now();
            let due = self.pipeline.poll(&mut self.queue, now)?;
            let wait =
                due.map_or(IDLE_TIMEOUT, |due| Duration::from_millis(due.since(now).0.into()));
            let frames = self.queue.receive(wait)?;
            if frames != 0 || self.stop.load(Ordering::Acquire) {
                return Ok(frames);
            }
            self.counters.write(self.pipeline.counters());
        }
    }
}

/// Runs a worker. Reports a failure unless the stop flag ended the worker.
pub(super) fn run_guarded<Q: PacketIo>(mut worker: Worker<Q>, failures: &Sender<WorkerFailure>) {
    // After a panic the worker is dropped and not used. It shares only atomics, and locks that do
    // not poison.
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.run_confined()));
    let failure = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            WorkerFailure::Panicked { worker: worker.number, message: message_of(panic.as_ref()) }
        }
    };
    // The channel holds one failure of every worker. Sending fails only when the engine is
    // gone.
    let _ = failures.send(failure);
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Longest sleep of a worker without sessions. A stop does not wait for its end, because the waker
/// ends the sleep.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

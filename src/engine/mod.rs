//! The engine: one worker per queue, batch by batch.
//!
//! This is where io, packet and nat are joined. A worker owns its queue and its [`crate::nat::WorkerContext`]; workers share
//! only the translator. Everything a worker has to say to the rest of the process goes through a bounded channel
//! ([`Event`]) and through counters that it publishes once per batch ([`SharedCounters`]).

mod counters;
mod pipeline;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod smoltcp_tests;
mod swap;
mod worker;
#[cfg(test)]
mod worker_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded};

use crate::io::{PacketIo, Waker};
use crate::nat::{Counters, Translator};

pub use counters::SharedCounters;
pub use pipeline::Pipeline;
pub use swap::swap_policy;
pub use worker::Event;

/// Names of the workers' threads start with this; a panic there is caught and reported as an [`Event`].
pub const WORKER_THREAD: &str = "natbox-w";

/// Running workers. Dropping it stops them.
pub struct Engine {
    threads: Vec<JoinHandle<()>>,
    published: Vec<Arc<SharedCounters>>,
    nat: Arc<ArcSwap<Translator>>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    events: Receiver<Event>,
}

/// What the workers of an engine have in common.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long to poll before sleeping while traffic flows; zero: never.
    pub busy_poll: Duration,
}

impl Engine {
    /// Starts one worker per queue. `waker` is the one the queues were made with.
    ///
    /// # Errors
    /// When a thread cannot be started; those already running are stopped.
    pub fn start<Q: PacketIo + 'static>(
        queues: Vec<Q>,
        nat: Translator,
        waker: Waker,
        options: Options,
    ) -> std::io::Result<Self> {
        // Each worker sends one event at the most, so nothing is ever lost.
        let (sender, events) = bounded(queues.len().max(1));
        let nat = Arc::new(ArcSwap::from_pointee(nat));
        let mut engine = Self {
            threads: Vec::new(),
            published: Vec::new(),
            nat: Arc::clone(&nat),
            stop: Arc::new(AtomicBool::new(false)),
            waker,
            events,
        };
        for (number, queue) in queues.into_iter().enumerate() {
            let published = Arc::new(SharedCounters::default());
            let worker = worker::Worker::new(
                number,
                queue,
                Arc::clone(&nat),
                Arc::clone(&published),
                Arc::clone(&engine.stop),
                options,
            );
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{WORKER_THREAD}{number}"))
                .spawn(move || worker::run_guarded(worker, &sender))?;
            engine.threads.push(thread);
            engine.published.push(published);
        }
        Ok(engine)
    }

    /// The translator at work.
    pub fn nat(&self) -> Arc<ArcSwap<Translator>> {
        Arc::clone(&self.nat)
    }

    /// Events of the workers: that one has died, which must take the process down.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Where the workers publish their counters, one entry per worker; outlives the engine.
    pub fn shared_counters(&self) -> Vec<Arc<SharedCounters>> {
        self.published.clone()
    }

    /// Stops all workers and returns what they have counted, one entry per worker.
    pub fn stop(mut self) -> Vec<Counters> {
        self.halt();
        self.published.iter().map(|published| published.read()).collect()
    }

    fn halt(&mut self) {
        // Release: a worker that sees the flag (Acquire in its loop) sees all that happened before.
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        for thread in self.threads.drain(..) {
            // A panic was caught inside the thread and reported as an event.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.halt();
    }
}

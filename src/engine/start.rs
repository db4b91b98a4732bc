//! The threads of the workers, and how they start and stop together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded};

use crate::io::{PacketIo, Waker};
use crate::nat::{
    Adopted, Contents, Counters, Limits, MappingEvents, Policy, Seed, SessionFiles, Translator,
};
use crate::time::Tick;

use super::counters::SharedCounters;
use super::handle::Handle;
use super::observe::Observation;
use super::worker::{self, Worker, WorkerFailure};

pub(crate) use super::worker::Options;

/// Start of the names of the workers' threads. A panic of such a thread is caught and reported as a
/// [`WorkerFailure`].
pub(crate) const WORKER_THREAD: &str = "natbox-w";

/// An engine before its workers run.
pub(crate) struct Builder {
    nat: Translator,
    adopted: Option<AdoptionEnds>,
}

/// Called when all sessions of a process before this one are adopted.
type AdoptionEnds = Box<dyn FnOnce(Adopted) + Send>;

/// Where the sessions of an engine live beyond its process.
pub(crate) struct KeptSessions<'a> {
    /// The files.
    pub(crate) files: &'a SessionFiles,
    /// What the files have.
    pub(crate) contents: Contents,
    /// Called when all of these sessions are adopted; at the start if there are none.
    pub(crate) adopted: AdoptionEnds,
}

impl Builder {
    /// Makes the translator. `kept`: its sessions live in files and outlive the process; `seed` is
    /// then that of the files. None: they end with the process.
    ///
    /// # Errors
    /// The memory for the sessions, or their files, cannot be mapped.
    pub(crate) fn new(
        limits: Limits,
        policy: Policy,
        workers: usize,
        seed: Seed,
        now: Tick,
        kept: Option<KeptSessions<'_>>,
    ) -> std::io::Result<Self> {
        let Some(KeptSessions { files, contents, adopted }) = kept else {
            let nat = Translator::new(limits, policy, workers, seed, now)?;
            return Ok(Self { nat, adopted: None });
        };
        let nat = Translator::in_files(limits, policy, workers, seed, now, files, contents)?;
        Ok(Self { nat, adopted: Some(adopted) })
    }

    /// Makes the mapping log. The log holds `capacity` unread events.
    pub(crate) fn log_mappings(&mut self, capacity: usize) -> MappingEvents {
        self.nat.log_mappings(capacity)
    }

    /// Starts one worker per queue. `waker`: the waker of the queues.
    ///
    /// # Errors
    /// A thread cannot be started. Workers that run already are stopped.
    pub(crate) fn start<Q: PacketIo + 'static>(
        self,
        queues: Vec<Q>,
        waker: Waker,
        options: Options,
    ) -> std::io::Result<Engine> {
        let engine = Engine::start(queues, self.nat, waker, options)?;
        if let Some(adopted) = self.adopted {
            let nat = Arc::clone(engine.handle.translator());
            if nat.load().inherits() {
                std::thread::Builder::new().name("natbox-adopt".to_owned()).spawn(move || {
                    (options.confine_thread)();
                    adopted(adopt_all(&nat));
                })?;
            } else {
                adopted(Adopted::default());
            }
        }
        Ok(engine)
    }
}

/// Adopts the sessions of a process before this one, behind the traffic.
fn adopt_all(nat: &ArcSwap<Translator>) -> Adopted {
    let mut sum = Adopted::default();
    // Each pool in turn, as an import enters the sessions.
    let mut turns = 0..;
    // A change of policy may replace the translator meanwhile.
    while let current = nat.load()
        && current.inherits()
        && let Some(turn) = turns.next()
    {
        sum += current.adopt(turn, ADOPTION_BATCH_SIZE, Tick::now());
    }
    sum
}

/// Records that are adopted under one lock of a pool: less than a tenth of a millisecond.
const ADOPTION_BATCH_SIZE: u32 = 64;

/// Running workers. Dropping the engine stops them.
pub(crate) struct Engine {
    threads: Vec<JoinHandle<()>>,
    handle: Handle,
    stop: Arc<AtomicBool>,
    waker: Waker,
    failures: Receiver<WorkerFailure>,
}

impl Engine {
    pub(super) fn start<Q: PacketIo + 'static>(
        queues: Vec<Q>,
        nat: Translator,
        waker: Waker,
        options: Options,
    ) -> std::io::Result<Self> {
        // Each worker sends at most one failure, so no failure is lost.
        let (sender, failures) = bounded(queues.len().max(1));
        let nat = Arc::new(ArcSwap::from_pointee(nat));
        let counters: Vec<_> = queues.iter().map(|_| Arc::new(SharedCounters::default())).collect();
        let observation = Observation::new(queues.len());
        let shared = (counters.clone(), Arc::clone(&observation));
        let mut engine = Self {
            threads: Vec::new(),
            handle: Handle::new(Arc::clone(&nat), shared, options.confine_thread)?,
            stop: Arc::new(AtomicBool::new(false)),
            waker,
            failures,
        };
        for (number, (queue, counters)) in queues.into_iter().zip(counters).enumerate() {
            let stop = Arc::clone(&engine.stop);
            let (nat, observation) = (Arc::clone(&nat), Arc::clone(&observation));
            let worker = Worker::new(number, queue, nat, counters, observation, stop, options);
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{WORKER_THREAD}{number}"))
                .spawn(move || worker::run_guarded(worker, &sender))?;
            engine.threads.push(thread);
        }
        Ok(engine)
    }

    /// Returns the handle to the translator and the counters. The handle outlives the engine.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Returns the failures of the workers. A failure must end the process.
    pub(crate) fn failures(&self) -> &Receiver<WorkerFailure> {
        &self.failures
    }

    /// Stops all workers. Returns their counters, one entry per worker.
    pub(crate) fn stop(mut self) -> Vec<Counters> {
        self.halt();
        self.handle.counters()
    }

    fn halt(&mut self) {
        // Release: a worker that sees the flag (Acquire in its loop) sees everything that happened
        // before.
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        for thread in self.threads.drain(..) {
            // A panic was caught inside the thread and reported as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.halt();
    }
}

//! The TUN device and the workers: opens, starts, watches and stops them.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::error::RunError;
use super::kept_sessions::StateFiles;
use super::subsystem::{Outcome, Subsystem};
use super::{mapping_log, sandbox, settings};
use crate::api::TunStatus;
use crate::config::{Config, IoBackend, OffloadLimit, Workers};
use crate::engine::{Builder, Engine, Handle, Options, WorkerFailure};
use crate::host;
use crate::io::{self, OffloadLevel, OpenError, PollIo, TunDevice, TunQueue, UringIo, Waker};
use crate::nat::{Policy, Seed};
use crate::time::Tick;

/// Opens the TUN device with the configured number of queues and the configured offloads.
///
/// The kernel removes the device of a killed process some time after the process. Until then the
/// name is taken.
///
/// # Errors
/// [`RunError::Tun`].
pub(super) async fn open_tun(
    config: &Config,
    mut kept: Option<&mut StateFiles>,
) -> Result<TunDevice, RunError> {
    let workers = match config.tun.workers {
        Workers::Count(count) => count,
        Workers::Auto => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.div_ceil(2).min(usize::from(MAX_AUTO_WORKERS)) as u16
        }
    };
    let max_offload = match config.tun.offload {
        OffloadLimit::Auto | OffloadLimit::TsoUso => OffloadLevel::TsoUso,
        OffloadLimit::Tso => OffloadLevel::Tso,
        OffloadLimit::Checksum => OffloadLevel::Checksum,
        OffloadLimit::None => OffloadLevel::None,
    };
    let name = &config.tun.name;
    let deadline = Instant::now() + TUN_TIMEOUT;
    loop {
        let inherited = kept.as_mut().map(|kept| kept.inherited());
        match io::open(name, workers, max_offload, inherited) {
            Err(OpenError::Taken { .. }) if Instant::now() < deadline => {
                tracing::debug!(tun = %name, "TUN device is taken; natbox tries again");
                tokio::time::sleep(TUN_INTERVAL).await;
            }
            opened => return opened.map_err(|source| RunError::Tun { name: name.clone(), source }),
        }
    }
}

/// The workers and the TUN device that they serve.
pub(super) struct WorkerThreads {
    engine: Engine,
    failures: mpsc::Receiver<WorkerFailure>,
    /// Name of the instance.
    name: String,
    tun: TunStatus,
    kept: Option<StateFiles>,
}

impl WorkerThreads {
    /// Starts the workers on the configured I/O backend, or on the best one that is available, and
    /// the mapping log if it is configured.
    ///
    /// # Errors
    /// No memory, no such backend, or no thread.
    pub(super) async fn start(
        config: &Config,
        tun: TunDevice,
        policy: Policy,
        mut kept: Option<StateFiles>,
    ) -> Result<Self, RunError> {
        let workers = tun.queues.len();
        let (limits, sessions) = (settings::limits(config), config.limits.sessions);
        let mut builder = match &mut kept {
            Some(kept) => kept.builder(limits, policy, workers).await?,
            None => Builder::new(limits, policy, workers, Seed::random(), Tick::now(), None)
                .map_err(|source| RunError::Memory { sessions, source })?,
        };
        if config.log.mappings {
            mapping_log::start(&config.name, builder.log_mappings(mapping_log::CAPACITY))
                .map_err(|source| RunError::System { doing: "starting the mapping log", source })?;
        }
        let offload = tun.offload.to_string();
        let (engine, io) = start_engine(config, tun.queues, builder)?;
        let failures = forward_failures(&engine)?;
        tracing::info!(tun = %tun.name, %offload, io, workers, sessions, "TUN device open");
        let tun = TunStatus { name: tun.name, io: io.to_owned(), offload };
        Ok(Self { engine, failures, name: config.name.clone(), tun, kept })
    }

    /// Returns the handle to the translator.
    pub(super) fn handle(&self) -> Handle {
        self.engine.handle()
    }

    /// Returns the TUN device's part of the status.
    pub(super) fn tun_status(&self) -> TunStatus {
        self.tun.clone()
    }
}

impl Subsystem for WorkerThreads {
    type Event = Option<WorkerFailure>;
    const NAME: &'static str = "workers";
    const STOP_DEADLINE: Duration = Duration::from_secs(10);

    async fn next(&mut self) -> Self::Event {
        self.failures.recv().await
    }

    async fn handle(&mut self, failure: Self::Event) -> Outcome {
        let tun = self.tun.name.clone();
        let error = match failure {
            Some(WorkerFailure::QueueFailed { worker, error }) => {
                RunError::QueueFailed { worker, tun, source: error }
            }
            Some(WorkerFailure::Unconfined { worker, error }) => {
                RunError::Sandbox(format!("worker {worker}: {error}"))
            }
            Some(WorkerFailure::Panicked { worker, message }) => {
                RunError::Panicked { worker, message }
            }
            None => RunError::Panicked { worker: 0, message: "all workers have ended".to_owned() },
        };
        tracing::error!(%error, "a worker failed");
        Outcome::Break(Err(error))
    }

    async fn stop(self) {
        let Self { engine, name, tun, kept, .. } = self;
        let packets: u64 = engine.stop().iter().map(|counters| counters.packets_in).sum();
        if kept.is_none() {
            // The next start must find the host as it was.
            host::wait_until_gone(&tun.name).await;
        }
        tracing::info!(%name, packets, "stopped");
    }
}

/// Returns the options of the workers.
fn options(config: &Config) -> Options {
    Options {
        busy_poll: config.tun.busy_poll,
        confine_worker: sandbox::enter_as_worker,
        confine_thread: sandbox::drop_capabilities,
    }
}

/// Starts the workers. Returns the name of the I/O backend.
fn start_engine(
    config: &Config,
    queues: Vec<TunQueue>,
    builder: Builder,
) -> Result<(Engine, &'static str), RunError> {
    let system = |source| RunError::System { doing: "starting the workers", source };
    let waker = Waker::new().map_err(system)?;
    let options = options(config);
    let queues = match config.tun.io {
        IoBackend::Poll => queues,
        IoBackend::Auto | IoBackend::Uring => match UringIo::all(queues, &waker) {
            Ok(rings) => {
                let engine = builder.start(rings, waker, options).map_err(system)?;
                return Ok((engine, "uring"));
            }
            Err((source, _)) if config.tun.io == IoBackend::Uring => {
                return Err(RunError::NoUring(source));
            }
            Err((error, queues)) => {
                tracing::info!(%error, "io_uring is not available; using one system call a packet");
                queues
            }
        },
    };
    let queues = queues.into_iter().map(|queue| PollIo::new(queue, waker.clone())).collect();
    Ok((builder.start(queues, waker, options).map_err(system)?, "poll"))
}

/// Makes the workers' failures a channel that the control thread can await.
fn forward_failures(engine: &Engine) -> Result<mpsc::Receiver<WorkerFailure>, RunError> {
    let failures = engine.failures().clone();
    let (sender, receiver) = mpsc::channel(1);
    sandbox::spawn("natbox-events", move || {
        while let Ok(failure) = failures.recv() {
            if sender.blocking_send(failure).is_err() {
                break;
            }
        }
    })
    .map_err(|source| RunError::System { doing: "starting the event thread", source })?;
    Ok(receiver)
}

/// Maximum number of workers of `workers: auto`. `auto` takes half of the cores, because the
/// kernel's half of the work (receiving, and forwarding into the TUN) runs beside the workers. In
/// measurements, more queues than this were never faster.
const MAX_AUTO_WORKERS: u16 = 16;
/// Longest wait for the name of the TUN device.
const TUN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two attempts to open the TUN device.
const TUN_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;

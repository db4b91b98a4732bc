//! A box from start to stop.
//!
//! ```text
//!   start   DNS prepared ─ privileges given up ─ socket bound (hidden) ─ host looked at ─ TUN open ─ table mapped ─ workers run ─ host told ─ socket shown
//!   run     signals, dying workers, changing links, admin requests; DNS on a thread of its own
//!   stop    DNS silent ─ socket gone ─ host told back ─ workers stopped ─ TUN closed
//! ```
//!
//! The order of the start is that of the least harm: what can be refused is tried before anything is changed, and
//! the kernel is told to route into the TUN only when somebody reads it. The stop is its mirror image.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::dns::{DnsError, Prepared};
use crate::engine::{Engine, Event, Options};
use crate::host::{self, HostChange, HostError, LinkEvent, LinkWatch, ManagedHost};
use crate::io::{self, OffloadLevel, OpenError, PollIo, TunDevice, UringIo, Waker};
use crate::nat::{Seed, Translator};
use crate::time::Tick;

use super::admin::{AdminSocket, SocketError};
use super::dns::{self, Running};
use super::events::Events;
use super::exhaustion::{self, ExhaustionWatch};
use super::failover::Failover;
use super::health::{Health, RawSockets};
use super::reload::Reloader;
use super::status::InstanceHandle;
use super::{mapping_log, sandbox, settings};
use crate::api::EventKind;
use crate::api::TunStatus;
use crate::config::{Config, IoBackend, OffloadLimit, Workers};

/// Why a box did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The admin socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TUN device.
    #[error("tun.name: {name}: {source}")]
    Tun {
        /// The device.
        name: String,
        /// What went wrong.
        source: OpenError,
    },
    /// The host's plumbing.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The name server, updates or the hook.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// No memory for the sessions.
    #[error(
        "limits.sessions: {sessions}: the memory for them cannot be had ({source}); choose fewer"
    )]
    Memory {
        /// Configured.
        sessions: u32,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The configured I/O backend cannot be had.
    #[error("tun.io: uring cannot be had here ({0}); set it to poll or auto")]
    NoUring(std::io::Error),
    /// What pings need.
    #[error(
        "{key}: no socket for ICMP ({source}); start natbox with CAP_NET_RAW, which it gives up at once, or ask by tcp"
    )]
    RawSocket {
        /// The key that asks for it.
        key: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system refused to take away what the box does not need.
    #[error("giving up privileges: {0}")]
    Sandbox(String),
    /// A system call that should not fail did.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A worker's queue failed.
    #[error(
        "worker {worker}: the TUN device {tun} is gone ({source}); was the interface deleted? The box stops"
    )]
    QueueFailed {
        /// Its number.
        worker: usize,
        /// The device.
        tun: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A worker panicked.
    #[error("worker {worker} panicked: {message}; the box stops. This is a bug, please report it")]
    Panicked {
        /// Its number.
        worker: usize,
        /// What it said.
        message: String,
    },
}

/// Runs a box until a signal ends it; `path` is where its configuration is read again.
///
/// # Errors
/// See [`RunError`]; whatever was changed on the host has been taken back.
pub fn run(path: &Path, config: &Config) -> Result<(), RunError> {
    // Before privileges are given up: raw sockets, port 53, the secret's file, the program that is run as a hook.
    let raw =
        RawSockets::open(config).map_err(|(key, source)| RunError::RawSocket { key, source })?;
    let dns = dns::prepare(config)?;
    // While there is one thread.
    sandbox::enter().map_err(RunError::Sandbox)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::System { doing: "starting the control thread", source })?;
    tokio::task::LocalSet::new().block_on(&runtime, run_box(path, config, raw, dns))
}

async fn run_box(
    path: &Path,
    config: &Config,
    raw: RawSockets,
    mut dns: Option<Prepared>,
) -> Result<(), RunError> {
    // Before anything is changed: a signal during the start must end in the same orderly stop.
    let mut signals = Signals::new()?;
    let mut socket = AdminSocket::bind(&config.admin.socket)?;
    let prepared = host::prepare(config).await?;
    let written = config;
    let config = &prepared.config().clone();
    for warning in &prepared.facts().warnings {
        tracing::warn!("{warning}");
    }
    let dns_ports = dns::listen_at_endpoints(dns.as_mut(), config, prepared.facts())?;
    let tun = open_tun(config)?;
    let workers = tun.queues.len();
    let mut nat = Translator::new(
        settings::limits(config),
        settings::policy(config, prepared.facts(), &dns_ports),
        workers,
        Seed::random(),
        Tick::now(),
    )
    .map_err(|source| RunError::Memory { sessions: config.limits.sessions, source })?;
    if config.log.mappings {
        mapping_log::start(&config.name, nat.log_mappings(mapping_log::ROOM))
            .map_err(|source| RunError::System { doing: "starting the mapping log", source })?;
    }
    nat.exclude_ports(&prepared.facts().listening_ports()?);
    let (engine, io) = start_engine(config, tun.queues, nat)?;
    let tun_status =
        TunStatus { name: tun.name.clone(), io: io.to_owned(), offload: tun.offload.to_string() };
    tracing::info!(
        tun = %tun.name, offload = %tun_status.offload, io, workers,
        sessions = config.limits.sessions, "TUN device open"
    );
    let nat = engine.nat();
    let events = Rc::new(Events::new());
    let reloader =
        Reloader::new(path, written, &prepared, dns_ports, Arc::clone(&nat), Rc::clone(&events));
    let mut engine_events = forward_events(&engine)?;
    let mut links = LinkWatch::start(config).await?;
    let mut applied = prepared.apply(tun.index).await?;
    let mut health = match watch_lines(config, applied.facts(), raw) {
        Ok(health) => health,
        Err(error) => {
            stop(config, applied, engine).await;
            return Err(error);
        }
    };
    let failover = Failover::new(config, health.lines(), Arc::clone(&nat), Rc::clone(&events));
    let dns = match Running::start(dns, config, applied.facts(), &health.lines()) {
        Ok(dns) => dns,
        Err(error) => {
            stop(config, applied, engine).await;
            return Err(error.into());
        }
    };
    let published = engine.shared_counters();
    let source = Rc::new(InstanceHandle {
        name: config.name.clone(),
        started: Instant::now(),
        tun: tun_status,
        lines: health.lines(),
        nat: Arc::clone(&nat),
        reloader,
        published,
        dns,
        events: Rc::clone(&events),
    });
    if let Err(error) = socket.publish() {
        stop(config, applied, engine).await;
        return Err(error.into());
    }
    tracing::info!(socket = %config.admin.socket.display(), "asked there, the box answers");
    events.emit(EventKind::Ready { name: config.name.clone() });
    let ended = {
        let serve = socket.serve(Rc::clone(&source));
        tokio::pin!(serve);
        let mut exhaustion = ExhaustionWatch::default();
        let mut looks = tokio::time::interval(exhaustion::INTERVAL);
        let mut listeners = tokio::time::interval(LISTENERS_INTERVAL);
        let mut tun_link = TunState::default();
        loop {
            tokio::select! {
                () = &mut serve => unreachable!("the admin socket serves for ever"),
                wanted = signals.next() => match wanted {
                    SignalAction::Stop(name) => {
                        events.emit(EventKind::Stopping { signal: name.to_owned() });
                        break Ok(());
                    }
                    SignalAction::Report => log_counters(&source),
                    // Who sent a signal has the outcome from the log.
                    SignalAction::Reload => drop(source.reloader.reload()),
                },
                now = looks.tick() => exhaustion.check(&source.totals().drops, now.into_std(), &events),
                _ = listeners.tick() => match applied.facts().listening_ports() {
                    Ok(ports) => nat.load().exclude_ports(&ports),
                    Err(error) => tracing::warn!(%error, "ports of the host may be given away"),
                },
                event = engine_events.recv() => break Err(failure(event, &tun.name)),
                change = links.next() => match change {
                    HostChange::Addresses => reconcile_host(&mut applied, &source, &mut health).await,
                    HostChange::Link(change) if change.interface == tun.name => {
                        if tun_link.change(config, change.event, &events) {
                            reconcile_host(&mut applied, &source, &mut health).await;
                        }
                    }
                    HostChange::Link(change) => {
                        apply_link_event(config, &nat.load(), &mut health, &change, &events);
                        if change.event == LinkEvent::Up {
                            reconcile_host(&mut applied, &source, &mut health).await;
                        }
                    }
                },
                turn = health.next() => {
                    failover.act(turn, health.last_error(turn.uplink));
                    source.dns.follow(&health.lines());
                }
            }
        }
    };
    source.dns.stop();
    drop(socket);
    stop(config, applied, engine).await;
    ended
}

fn watch_lines(
    config: &Config,
    facts: &host::HostFacts,
    raw: RawSockets,
) -> Result<Health, RunError> {
    let carriers = (0..config.uplinks.len()).map(|line| facts.is_ready(config, line));
    Health::start(config, &facts.probe_addresses, carriers, raw)
        .map_err(|source| RunError::System { doing: "beginning to watch the lines", source })
}

fn open_tun(config: &Config) -> Result<TunDevice, RunError> {
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
    io::open(&config.tun.name, workers, max_offload)
        .map_err(|source| RunError::Tun { name: config.tun.name.clone(), source })
}

/// Starts the workers on the backend that is asked for, or on the best that can be had; its name.
fn start_engine(
    config: &Config,
    queues: Vec<io::TunQueue>,
    nat: Translator,
) -> Result<(Engine, &'static str), RunError> {
    let system = |source| RunError::System { doing: "starting the workers", source };
    let waker = Waker::new().map_err(system)?;
    let options = Options { busy_poll: config.tun.busy_poll };
    let queues = match config.tun.io {
        IoBackend::Poll => queues,
        IoBackend::Auto | IoBackend::Uring => match UringIo::all(queues, &waker) {
            Ok(rings) => {
                return Ok((Engine::start(rings, nat, waker, options).map_err(system)?, "uring"));
            }
            Err((source, _)) if config.tun.io == IoBackend::Uring => {
                return Err(RunError::NoUring(source));
            }
            Err((error, queues)) => {
                tracing::info!(%error, "no io_uring; one system call a packet instead");
                queues
            }
        },
    };
    let queues = queues.into_iter().map(|queue| PollIo::new(queue, waker.clone())).collect();
    Ok((Engine::start(queues, nat, waker, options).map_err(system)?, "poll"))
}

/// The engine's events as a channel that the control thread can wait for beside everything else.
fn forward_events(engine: &Engine) -> Result<mpsc::Receiver<Event>, RunError> {
    let events = engine.events().clone();
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("natbox-events".to_owned())
        .spawn(move || {
            while let Ok(event) = events.recv() {
                if sender.blocking_send(event).is_err() {
                    break;
                }
            }
        })
        .map_err(|source| RunError::System { doing: "starting the event thread", source })?;
    Ok(receiver)
}

fn failure(event: Option<Event>, tun: &str) -> RunError {
    let error = match event {
        Some(Event::QueueFailed { worker, error }) => {
            RunError::QueueFailed { worker, tun: tun.to_owned(), source: error }
        }
        Some(Event::Panicked { worker, message }) => RunError::Panicked { worker, message },
        None => RunError::Panicked { worker: 0, message: "all workers ended".to_owned() },
    };
    tracing::error!(%error, "a worker died");
    error
}

/// Takes in how the host is now. Only sessions over addresses that are gone end.
async fn reconcile_host(applied: &mut ManagedHost, source: &InstanceHandle, health: &mut Health) {
    let before = applied.config().uplinks.clone();
    if let Err(error) = applied.reconcile().await {
        tracing::warn!(%error, "the host could not be followed");
    }
    let (config, facts) = (applied.config(), applied.facts());
    let sessions_ended = source.reloader.follow(config, facts);
    source.dns.follow_addresses(config);
    for (uplink, _) in config.uplinks.iter().zip(&before).filter(|(now, before)| now != before) {
        let address = uplink.addresses.first().copied();
        source.events.emit(EventKind::AddressChanged {
            uplink: uplink.name.clone(),
            address,
            sessions_ended,
        });
    }
    for line in 0..config.uplinks.len() {
        health.set_carrier(line, facts.is_ready(config, line));
    }
}

/// Takes in what can be taken in at once; when an interface is up, the host has to be looked at.
fn apply_link_event(
    config: &Config,
    nat: &Translator,
    health: &mut Health,
    change: &host::LinkChange,
    events: &Events,
) {
    let interface = change.interface.clone();
    let uplinks =
        config.uplinks.iter().enumerate().filter(|(_, uplink)| uplink.interface == interface);
    let uplinks: Vec<usize> = uplinks.map(|(number, _)| number).collect();
    match change.event {
        LinkEvent::Removed => {
            events.emit(EventKind::InterfaceRemoved { interface });
            uplinks.iter().for_each(|line| health.set_carrier(*line, false));
        }
        LinkEvent::Down => {
            events.emit(EventKind::InterfaceDown { interface });
            uplinks.iter().for_each(|line| health.set_carrier(*line, false));
        }
        LinkEvent::Up => events.emit(EventKind::InterfaceUp { interface }),
        LinkEvent::Mtu(bytes) => {
            if config.inside.interface == interface {
                nat.set_mtu(None, settings::mtu(bytes));
            }
            uplinks
                .iter()
                .for_each(|number| nat.set_mtu(Some(*number as u8), settings::mtu(bytes)));
            events.emit(EventKind::MtuChanged { interface, mtu: bytes });
        }
    }
}

/// The TUN as an interface that anybody may set down and up.
#[derive(Default)]
struct TunState {
    down: bool,
}

impl TunState {
    /// True when it is up again, without what the kernel dropped with it.
    fn change(&mut self, config: &Config, event: LinkEvent, events: &Events) -> bool {
        let tun = config.tun.name.clone();
        match event {
            LinkEvent::Down => {
                self.down = true;
                events.emit(EventKind::TunDown { tun });
                false
            }
            // At the start it comes up for the first time.
            LinkEvent::Up if self.down => {
                self.down = false;
                if !config.host.manage {
                    tracing::warn!(
                        %tun,
                        "the TUN came up without its routes; with host.manage: false, set them as `natbox plan` says"
                    );
                }
                events.emit(EventKind::TunUp { tun });
                true
            }
            // A worker's queue says that it is gone, and the box stops. Its MTU is the kernel's affair alone.
            LinkEvent::Up | LinkEvent::Removed | LinkEvent::Mtu(_) => false,
        }
    }
}

fn log_counters(source: &InstanceHandle) {
    let totals = source.totals();
    let dropped: u64 = totals.drops.iter().map(|(_, count)| count).sum();
    tracing::info!(
        sessions = source.nat.load().table().len(),
        mappings = source.nat.load().mappings(),
        created = totals.sessions_created,
        packets_in = totals.packets_in,
        packets_out = totals.packets_out,
        dropped,
        "status"
    );
}

/// The host first, so that nothing is routed to workers that are no more.
async fn stop(config: &Config, applied: ManagedHost, engine: Engine) {
    match tokio::time::timeout(UNDO_DEADLINE, applied.restore()).await {
        Ok(errors) => {
            for error in errors {
                tracing::error!(%error, "could not be taken back on the host");
            }
        }
        Err(_) => {
            tracing::error!(
                "taking back what was set on the host takes too long; the next start will do it"
            )
        }
    }
    let workers = engine.stop();
    // Whoever starts it again is to find the host as it was.
    host::wait_until_gone(&config.tun.name).await;
    let packets: u64 = workers.iter().map(|counters| counters.packets_in).sum();
    tracing::info!(name = %config.name, packets, "stopped");
}

/// What a signal asks for.
enum SignalAction {
    Stop(&'static str),
    Report,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    report: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|source| RunError::System { doing: "listening for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            report: listen(SignalKind::user_defined1())?,
        })
    }

    /// TERM and INT stop; USR1 logs the counters; HUP has the configuration read again, so a closing terminal ends no box.
    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("TERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("INT"),
            _ = self.report.recv() => SignalAction::Report,
            _ = self.hang_up.recv() => SignalAction::Reload,
        }
    }
}

/// `workers: auto` is half of the cores, since the kernel's half of the work (receiving, and forwarding into the TUN) runs
/// beside the workers, and stops here: more queues than this never paid.
const MAX_AUTO_WORKERS: u16 = 16;
/// How often it is looked at which ports the host's own programs wait.
const LISTENERS_INTERVAL: Duration = Duration::from_secs(2);
const UNDO_DEADLINE: Duration = Duration::from_secs(10);

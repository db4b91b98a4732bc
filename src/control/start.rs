//! The start of an instance, after privileges are dropped.
//!
//! ```text
//!   start   host probed ─ TUN open ─ workers ─ host set ─ health checks ─
//!           failover ─ DNS ─ admin socket shown ─ signals
//!   stop    the same in reverse
//! ```
//!
//! The order limits the damage of a failed start. natbox tries everything that can fail before it
//! changes the host, and the kernel routes into the TUN only when workers read from it.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::admin::AdminServer;
use super::announcer::Announcer;
use super::countdown::Countdown;
use super::dns::{self, DnsFollower, NameService};
use super::drops::DropRates;
use super::error::RunError;
use super::events::Events;
use super::exhaustion::ExhaustionWatch;
use super::failover::{Failover, FailoverSettings};
use super::firewall::{FirewallWatch, StartingLister};
use super::health::{HealthChecks, NewChecks, RawSockets, UplinkMonitor};
use super::instance::Instance;
use super::kept_sessions::{KeptTun, StateFiles};
use super::reconcile::{self, HostReconciler, Parts};
use super::reload::{ReloadParts, Reloader};
use super::sandbox::{self, FileRules, Sandbox};
use super::settings::{self, DnsPorts};
use super::signals::{SignalStreams, Signals};
use super::status::InstanceHandle;
use super::subsystem::Subsystems;
use super::uplink_states::first_states;
use super::wait;
use super::waiting::WaitingInstance;
use super::warnings::Warnings;
use super::workers::{self, WorkerThreads};
use crate::api::{EventKind, TunStatus};
use crate::config::Config;
use crate::dns::PreparedService;
use crate::engine::Handle;
use crate::host::{self, HostError, LinkWatch, ManagedHost, PlannedHost};
use crate::io::ArpSocket;
use crate::uplinks::Uplinks;

/// Sockets and services that needed the privileges which natbox has dropped since, and those that
/// are left.
pub(super) struct Privileged {
    /// Sockets for pings.
    pub(super) raw: RawSockets,
    /// Socket that announces addresses; None: the system refused it.
    pub(super) arp: Option<ArpSocket>,
    /// DNS; None: the configuration has none.
    pub(super) dns: Option<PreparedService>,
    /// The process that lists the rules of nftables.
    pub(super) lister: StartingLister,
    /// The session files; None: sessions end with the process.
    pub(super) kept: Option<StateFiles>,
    /// The privileges that are left.
    pub(super) sandbox: Sandbox,
    /// The files that the process may open.
    pub(super) files: FileRules,
}

/// The parts that an instance keeps from its wait for interfaces, so that clients see the wait and
/// the run as one instance.
pub(super) struct Entrance {
    pub(super) signals: SignalStreams,
    pub(super) admin: AdminServer,
    pub(super) waiting: Rc<WaitingInstance>,
    pub(super) instance: Rc<Instance>,
    pub(super) events: Rc<Events>,
}

/// Runs an instance until a signal or an error ends it. Restores the host in either case.
pub(super) async fn run_instance(
    path: &Path,
    config: &Config,
    privileged: Privileged,
    entrance: Entrance,
) -> Result<(), RunError> {
    let host = host::prepare(config).await?;
    for warning in host.facts().messages() {
        tracing::warn!("{warning}");
    }
    let uplinks = Rc::new(Uplinks::new(first_states(host.config(), host.facts())));
    let mut subsystems = Subsystems::new(Rc::clone(&uplinks));
    let start = Start { path, file_config: config, privileged, entrance, host, uplinks };
    let result = match start.run(&mut subsystems).await {
        Ok(ControlFlow::Continue(())) => subsystems.ended().await,
        Ok(ControlFlow::Break(())) => Ok(()),
        Err(error) => Err(error),
    };
    subsystems.stop().await;
    result
}

/// Everything that the start needs.
struct Start<'a> {
    path: &'a Path,
    /// Configuration as the file has it.
    file_config: &'a Config,
    privileged: Privileged,
    entrance: Entrance,
    host: PlannedHost,
    uplinks: Rc<Uplinks>,
}

impl Start<'_> {
    /// Starts the subsystems one by one. If one fails, the caller stops those that run. Breaks
    /// after a signal that ends the instance.
    async fn run(self, subsystems: &mut Subsystems) -> Result<ControlFlow<()>, RunError> {
        let Self { path, file_config, privileged, mut entrance, host, uplinks } = self;
        let Privileged { raw, arp, mut dns, lister, kept, sandbox, files } = privileged;
        let events = Rc::clone(&entrance.events);
        let config = host.config().clone();
        let dns_ports = dns::listen_at_probe_addresses(dns.as_mut(), &config, host.facts())?;
        let kept_names = kept.as_ref().map(StateFiles::names);
        let StartedWorkers { engine, tun, tun_index, kept } =
            start_workers(&config, &host, &dns_ports, (kept, arp.as_ref()), subsystems).await?;
        let (checks, new_checks) = mpsc::unbounded_channel();
        let (host_turns, turns) = mpsc::unbounded_channel();
        let live = ReloadParts {
            engine: engine.clone(),
            uplinks: Rc::clone(&uplinks),
            confirmation: Rc::clone(entrance.waiting.confirmation()),
            events: Rc::clone(&events),
            monitor: Rc::new(UplinkMonitor::new(&config, Rc::clone(&uplinks), Rc::clone(&events))),
            raw,
            checks,
            failover: Rc::new(FailoverSettings::of(&config, host.facts().host_address)),
            dns: Rc::new(NameService::new(Rc::clone(&uplinks))),
            host: host_turns,
            admin: entrance.admin.replacer(),
            kept: kept_names,
            files,
        };
        let reloader = Rc::new(Reloader::new(path, file_config, &host, dns_ports, live));
        let live = reloader.parts();
        let parts = Parts::new(Rc::clone(&reloader), config.host.manage);
        let announcements = Rc::clone(&parts.announcements);
        let (host_state, warnings) = (Rc::clone(&parts.state), Rc::clone(&parts.warnings));
        let set_up = set_up_host(file_config, host, tun_index, &mut entrance).await?;
        let Some((host, links)) = set_up else { return Ok(ControlFlow::Break(())) };
        subsystems.start(HostReconciler::new(host, links, turns, parts));
        let announcer = arp.map(|socket| Announcer::new(socket, announcements, &uplinks));
        announcer.into_iter().for_each(|announcer| subsystems.start(announcer));
        start_checks(&config, live, new_checks, subsystems)?;
        start_failover(live, &engine, &uplinks, subsystems);
        live.dns.set(dns, &config)?;
        let dns = Rc::clone(&live.dns);
        subsystems.start(DnsFollower::new(Rc::clone(&dns)));
        let drop_rates = watch_drops(&engine, &events, subsystems);
        watch_firewall(lister, &reloader, &warnings, subsystems)?;
        let (name, uplinks) = (config.name, uplinks.watch());
        let handle = InstanceHandle {
            name,
            started: Instant::now(),
            tun,
            uplinks,
            engine,
            drop_rates,
            reloader,
            dns,
            events,
            host: host_state,
            warnings,
            sandbox,
        };
        entrance.open(Rc::new(handle), kept, subsystems).map(ControlFlow::Continue)
    }
}

fn start_failover(
    live: &ReloadParts,
    engine: &Handle,
    uplinks: &Rc<Uplinks>,
    subsystems: &mut Subsystems,
) {
    let (settings, sink) = (Rc::clone(&live.failover), Rc::clone(&live.events));
    subsystems.start(Failover::new(settings, engine.clone(), uplinks, sink));
}

/// Starts the watch on exhausted resources. Returns the rates of drops, which it measures.
fn watch_drops(engine: &Handle, events: &Rc<Events>, subsystems: &mut Subsystems) -> Rc<DropRates> {
    let watch = ExhaustionWatch::new(engine.clone(), Rc::clone(events));
    let rates = watch.rates();
    subsystems.start(watch);
    rates
}

/// Makes the settings of the host. If an interface has vanished since the wait or vanishes
/// meanwhile, natbox waits for it again, and tries again. Returns None after a signal that ends the
/// instance.
async fn set_up_host(
    config: &Config,
    host: PlannedHost,
    tun_index: u32,
    entrance: &mut Entrance,
) -> Result<Option<(ManagedHost, LinkWatch)>, RunError> {
    let Entrance { signals, admin, waiting, .. } = entrance;
    waiting.begin_start();
    let mut planned = Some(host);
    loop {
        if !waiting.check().await? {
            // The plan holds the lock of the namespace.
            planned = None;
            if wait::until_interfaces_are_up(waiting, signals, admin).await?.is_none() {
                return Ok(None);
            }
        }
        let host = match planned.take() {
            Some(host) => host,
            None => host::prepare(config).await?,
        };
        let links = LinkWatch::start(host.config()).await?;
        match host.apply(tun_index).await {
            Err(error @ HostError::Vanished { .. }) => {
                tracing::warn!("{error}; natbox tries again when its interfaces are up");
            }
            applied => return Ok(Some((applied?, links))),
        }
    }
}

impl Entrance {
    /// Lets clients and signals reach the running instance.
    fn open(
        self,
        handle: Rc<InstanceHandle>,
        kept: Option<KeptTun>,
        subsystems: &mut Subsystems,
    ) -> Result<(), RunError> {
        let Self { signals, mut admin, waiting, instance, events } = self;
        kept.map_or(Ok(()), KeptTun::keep)?;
        if !handle.host.is_managed() {
            // The TUN device is open, and natbox changes nothing else.
            sandbox::drop_capabilities();
        }
        instance.run(Rc::clone(&handle));
        admin.publish()?;
        events.emit(EventKind::Ready { name: handle.name.clone() });
        let (confirmation, reloader) = (waiting.confirmation(), &handle.reloader);
        subsystems.start(Countdown::new(Rc::clone(confirmation), Rc::clone(reloader)));
        subsystems.start(admin);
        subsystems.start(Signals::new(signals, handle));
        Ok(())
    }
}

/// Watches whether the host's filters let natbox's packets pass, if there is a lister.
fn watch_firewall(
    lister: StartingLister,
    reloader: &Rc<Reloader>,
    warnings: &Rc<Warnings>,
    subsystems: &mut Subsystems,
) -> Result<(), RunError> {
    let lister =
        lister.started().inspect_err(|error| tracing::warn!(%error, "the firewall is not watched"));
    if let Ok(lister) = lister {
        let watch = FirewallWatch::new(lister, Rc::clone(reloader), Rc::clone(warnings));
        let doing = "watching the firewall";
        subsystems.start(watch.map_err(|source| RunError::System { doing, source })?);
    }
    Ok(())
}

/// Starts the health checks. `new_checks`: those of each reload.
fn start_checks(
    config: &Config,
    ReloadParts { monitor, uplinks, raw, .. }: &ReloadParts,
    new_checks: mpsc::UnboundedReceiver<NewChecks>,
    subsystems: &mut Subsystems,
) -> Result<(), RunError> {
    let states = uplinks.watch().borrow().clone();
    let checks = HealthChecks::new(config, Rc::clone(monitor), &states, raw, new_checks);
    let failed = |source| RunError::System { doing: "starting health checks", source };
    subsystems.start(checks.map_err(failed)?);
    Ok(())
}

/// Running workers, and the TUN device that they serve.
struct StartedWorkers {
    engine: Handle,
    tun: TunStatus,
    /// Index of the interface.
    tun_index: u32,
    /// None: the device ends with the process.
    kept: Option<KeptTun>,
}

/// Opens the TUN device and starts the workers.
async fn start_workers(
    config: &Config,
    host: &PlannedHost,
    dns_ports: &DnsPorts,
    (mut kept, arp): (Option<StateFiles>, Option<&ArpSocket>),
    subsystems: &mut Subsystems,
) -> Result<StartedWorkers, RunError> {
    let policy = settings::policy(config, host.facts(), dns_ports);
    let used_ports = host::used_ports(config, host.facts())?;
    let tun = workers::open_tun(config, kept.as_mut()).await?;
    let tun_index = tun.index;
    let kept_tun = kept.as_mut().map(|kept| kept.keep_device(&tun, arp)).transpose()?;
    let workers = WorkerThreads::start(config, tun, policy, kept).await?;
    let (engine, tun) = (workers.handle(), workers.tun_status());
    subsystems.start(workers);
    reconcile::exclude_ports(&engine, &used_ports);
    Ok(StartedWorkers { engine, tun, tun_index, kept: kept_tun })
}

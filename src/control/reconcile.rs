//! The subsystem that keeps the host, the translator and the uplinks' states in step.
//!
//! ```text
//!   a reload                 ─▶ host: settings of the new configuration
//!   link or address changes ─▶ host: set again what the kernel dropped
//!   rules or routes change,
//!   or a second has passed   ─▶ host: set again what another program removed
//!                            ─▶ translator: the policy with the present addresses
//!                            ─▶ uplinks: address, link ready or not
//!                            ─▶ neighbours: the addresses that are new
//! ```

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::announcer::Announcements;
use super::error::RunError;
use super::events::Events;
use super::health::UplinkMonitor;
use super::reload::{HostTurn, Reloader};
use super::settings;
use super::status::HostWatchState;
use super::subsystem::{Outcome, Subsystem};
use super::warnings::Warnings;
use crate::api::EventKind;
use crate::config::Config;
use crate::engine::Handle;
use crate::host::doctor::{self, Finding};
use crate::host::{
    self, CheckCause, HostChange, HostError, HostReport, LinkChange, LinkEvent, LinkWatch,
    ManagedHost, UsedPorts,
};
use crate::packet::Protocol;
use crate::uplinks::Uplinks;

/// Reacts to changes of the host, and restores the host at the stop.
pub(super) struct HostReconciler {
    host: ManagedHost,
    links: LinkWatch,
    used_ports: Interval,
    looks: Interval,
    tun_is_down: bool,
    /// False until the first look. It finds what has changed between the reading of the host and
    /// the subscription.
    has_looked: bool,
    turns: mpsc::UnboundedReceiver<HostTurn>,
    parts: Parts,
}

/// The parts of the instance that a change of the host concerns.
pub(super) struct Parts {
    pub(super) engine: Handle,
    pub(super) reloader: Rc<Reloader>,
    pub(super) uplinks: Rc<Uplinks>,
    pub(super) monitor: Rc<UplinkMonitor>,
    pub(super) events: Rc<Events>,
    pub(super) state: Rc<HostWatchState>,
    pub(super) announcements: Rc<Announcements>,
    pub(super) warnings: Rc<Warnings>,
}

impl Parts {
    /// `is_managed`: natbox makes the settings of the host.
    pub(super) fn new(reloader: Rc<Reloader>, is_managed: bool) -> Self {
        let live = reloader.parts();
        Self {
            engine: live.engine.clone(),
            uplinks: Rc::clone(&live.uplinks),
            monitor: Rc::clone(&live.monitor),
            events: Rc::clone(&live.events),
            state: Rc::new(HostWatchState::new(is_managed)),
            announcements: Rc::default(),
            warnings: Rc::new(Warnings::new(Rc::clone(&live.events))),
            reloader,
        }
    }
}

/// Event that the reconciler waits for.
pub(super) enum HostEvent {
    /// The kernel reports a change.
    Change(HostChange),
    /// A reload changes the configuration.
    Reload(Box<HostTurn>),
    /// Time to read the ports that the host's programs use.
    ReadUsedPorts,
    /// Time to look for changes that the kernel does not report.
    Look,
}

impl HostReconciler {
    /// `links`: a subscription that began before `host` was applied, so that no change is lost.
    /// `turns`: the host's part of each reload.
    pub(super) fn new(
        host: ManagedHost,
        links: LinkWatch,
        turns: mpsc::UnboundedReceiver<HostTurn>,
        parts: Parts,
    ) -> Self {
        let used_ports = tokio::time::interval(USED_PORTS_INTERVAL);
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        parts.announcements.adopt(host.announcements());
        let (tun_is_down, has_looked) = (false, false);
        let reconciler =
            Self { host, links, used_ports, looks, tun_is_down, has_looked, turns, parts };
        reconciler.warn();
        reconciler
    }

    /// Sets missing settings on the host, and adopts the host's addresses and links. Sessions end
    /// only if their external address is gone.
    async fn reconcile(&mut self, cause: CheckCause) {
        let before = self.host.config().uplinks.clone();
        match self.host.reconcile(cause).await {
            Ok(report) => self.publish(report),
            Err(error) => {
                tracing::warn!(%error, "host: settings that were removed could not be set again");
            }
        }
        let (config, facts) = (self.host.config(), self.host.facts());
        let sessions_ended = self.parts.reloader.adopt_host(config, facts).await;
        for (index, (uplink, before)) in config.uplinks.iter().zip(&before).enumerate() {
            let address = uplink.addresses.first().copied();
            self.parts.uplinks.update(index, |state| state.address = address);
            if uplink != before {
                let uplink = uplink.name.clone();
                self.parts.events.emit(EventKind::AddressChanged {
                    uplink,
                    address,
                    sessions_ended,
                });
            }
        }
        for (index, uplink) in config.uplinks.iter().enumerate() {
            let is_ready = facts.is_ready(config, index);
            self.parts.monitor.set_link_ready(uplink.numbers.uplink, is_ready);
        }
        self.parts.announcements.adopt(self.host.announcements());
        self.warn();
    }

    /// Does the host's part of a reload. While it runs, no other change of the host is handled.
    async fn reload(&mut self, turn: HostTurn) {
        let HostTurn { both, made, finish, done } = turn;
        let before = self.host.file_config().clone();
        if let Err(problem) = self.make_settings_of(both).await {
            self.go_back(before).await;
            // Fails only when the instance is stopping.
            let _ = made.send(Err(problem));
            return;
        }
        let _ = made.send(Ok((self.host.config().clone(), self.host.facts().clone())));
        // Without an answer the instance is stopping.
        let Ok(config) = finish.await else { return };
        let result = match self.set_config(config).await {
            Ok(()) => self.host.reconcile(CheckCause::Interfaces).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(%error, "host: settings of removed uplinks stay");
        }
        self.reconcile(CheckCause::Interfaces).await;
        self.exclude_used_ports();
        let _ = done.send(());
    }

    /// Makes the settings of a configuration.
    ///
    /// # Errors
    /// A sentence about the settings that the host refuses.
    async fn make_settings_of(&mut self, config: Config) -> Result<(), String> {
        self.set_config(config).await.map_err(|error| error.to_string())?;
        let report = self.host.reconcile(CheckCause::Interfaces).await;
        let report = report.map_err(|error| error.to_string())?;
        match report.failed.is_empty() {
            true => {
                self.publish(report);
                Ok(())
            }
            false => Err(report.failed.join("; ")),
        }
    }

    /// Makes the settings of the configuration before a reload that failed.
    async fn go_back(&mut self, before: Config) {
        let result = match self.set_config(before).await {
            Ok(()) => self.reconcile_twice().await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(%error, "host: the settings before the reload could not be made again");
        }
    }

    /// Makes the settings of a configuration that has fewer uplinks than the one before. Which
    /// networks the host itself has shows only when the rules of the removed uplinks are gone.
    async fn reconcile_twice(&mut self) -> Result<(), HostError> {
        self.host.reconcile(CheckCause::Interfaces).await?;
        self.host.reconcile(CheckCause::Interfaces).await.map(drop)
    }

    /// Replaces the configuration of the host, and watches its interfaces.
    async fn set_config(&mut self, config: Config) -> Result<(), HostError> {
        // The subscription precedes the reading of the host, so that no change is lost.
        let links = LinkWatch::start(&config).await?;
        self.host.set_config(config).await?;
        self.links = links;
        Ok(())
    }

    /// Shows in the status what needs a person's attention, and what the kernel refuses.
    fn warn(&self) {
        let mut findings = doctor::examine_host(self.host.config(), self.host.facts());
        let finding = self.host.filter_problem().map(|problem| {
            Finding::warning(
                host::PRIVATE_FILTER,
                format!("private addresses are not filtered on the uplinks: {problem}"),
                "a program of the host can send packets with a private source by an uplink, and the \
                 outside segment reaches the box's inside addresses",
            )
            .advice(
                "use Linux 5.16 or newer with nf_tables and NETFILTER_EGRESS, or set \
                 host.block_private: false",
            )
        });
        findings.extend(finding);
        self.parts.warnings.set(Self::NAME, findings);
    }

    /// Makes the outcome of a look at the host known.
    fn publish(&self, report: HostReport) {
        let ids = self.host.routing_ids();
        self.parts.reloader.adopt_routing_ids(ids);
        let dispute_begins = self.parts.state.record(&report);
        if let Some(before) = report.moved_before {
            let priority = ids.priorities().start;
            self.parts.events.emit(EventKind::RulesMoved { priority, before });
        }
        // A dispute has one event, however often natbox sets the settings again.
        if !report.restored.is_empty() && !report.is_disputed {
            self.parts.events.emit(EventKind::HostRestored { changed: report.restored });
        }
        if let Some(problem) = report.dispute.filter(|_| dispute_begins) {
            self.parts.events.emit(EventKind::HostDisputed { problem });
        }
    }

    /// Returns true when something has changed that the kernel does not report.
    async fn has_drifted(&self) -> bool {
        self.host.has_drifted().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "host: settings cannot be compared");
            false
        })
    }

    /// Handles a change of an interface of the configuration. Returns whether the host must be
    /// reconciled.
    fn apply_link_event(&self, change: LinkChange) -> bool {
        let LinkChange { interface, event } = change;
        let config = self.host.config();
        let on_interface = config.uplinks.iter().filter(|uplink| uplink.interface == interface);
        let uplinks: Vec<u8> = on_interface.map(|uplink| uplink.numbers.uplink).collect();
        let leg = config.inside.legs.iter().position(|leg| leg.interface == interface);
        match event {
            LinkEvent::Removed | LinkEvent::Down => {
                self.parts.announcements.forget(&interface);
                self.parts.events.emit(match event {
                    LinkEvent::Removed => EventKind::InterfaceRemoved { interface },
                    LinkEvent::Down
                    | LinkEvent::Up
                    | LinkEvent::Mtu(_)
                    | LinkEvent::HardwareAddress => EventKind::InterfaceDown { interface },
                });
                uplinks.iter().for_each(|number| self.parts.monitor.set_link_ready(*number, false));
                // The status shows the legs as of the last reading of the host.
                leg.is_some()
            }
            LinkEvent::Up => {
                self.parts.events.emit(EventKind::InterfaceUp { interface });
                true
            }
            LinkEvent::Mtu(bytes) => {
                let mtu = settings::mtu(bytes);
                leg.into_iter().for_each(|leg| self.parts.engine.set_leg_mtu(leg, mtu));
                uplinks.iter().for_each(|number| self.parts.engine.set_uplink_mtu(*number, mtu));
                self.parts.events.emit(EventKind::MtuChanged { interface, mtu: bytes });
                // The routes of the host's own packets have the smallest MTU of the uplinks.
                !uplinks.is_empty()
            }
            // The neighbours must learn the new address.
            LinkEvent::HardwareAddress => true,
        }
    }

    /// Handles a change of the TUN device. Returns whether the host must be reconciled: natbox sets
    /// the device up again, and the kernel drops the routes of a device that is set down.
    ///
    /// # Errors
    /// When the device is gone. A worker that reads from it may not notice.
    fn apply_tun_event(&mut self, event: LinkEvent) -> Result<bool, RunError> {
        let tun = self.host.config().tun.name.clone();
        match event {
            LinkEvent::Down => {
                self.tun_is_down = true;
                self.parts.events.emit(EventKind::TunDown { tun });
                Ok(true)
            }
            // The first event of this kind reports the start, not a recovery.
            LinkEvent::Up if self.tun_is_down => {
                self.tun_is_down = false;
                if !self.host.config().host.manage {
                    tracing::warn!(
                        %tun,
                        "TUN device is up without its routes (host.manage: false); set the routes \
                         that `natbox plan` prints"
                    );
                }
                self.parts.events.emit(EventKind::TunUp { tun });
                Ok(true)
            }
            LinkEvent::Removed => Err(RunError::TunGone { tun }),
            // Only the kernel uses the device's MTU.
            LinkEvent::Up | LinkEvent::Mtu(_) | LinkEvent::HardwareAddress => Ok(false),
        }
    }

    fn exclude_used_ports(&self) {
        match host::used_ports(self.host.config(), self.host.facts()) {
            Ok(ports) => exclude_ports(&self.parts.engine, &ports),
            Err(error) => tracing::warn!(
                %error, "host: the ports in use cannot be read; a mapping may get the port of a program"
            ),
        }
    }
}

impl Subsystem for HostReconciler {
    type Event = HostEvent;
    const NAME: &'static str = "host";
    const STOP_DEADLINE: Duration = Duration::from_secs(10);
    const IF_LATE: &'static str = "the next start of natbox removes the rest from the host";

    async fn next(&mut self) -> HostEvent {
        tokio::select! {
            change = self.links.next() => HostEvent::Change(change),
            Some(turn) = self.turns.recv() => HostEvent::Reload(Box::new(turn)),
            _ = self.used_ports.tick() => HostEvent::ReadUsedPorts,
            _ = self.looks.tick() => HostEvent::Look,
        }
    }

    async fn handle(&mut self, event: HostEvent) -> Outcome {
        let cause = match event {
            HostEvent::ReadUsedPorts => {
                self.exclude_used_ports();
                None
            }
            HostEvent::Reload(turn) => {
                self.reload(*turn).await;
                None
            }
            HostEvent::Look if !self.has_looked => {
                self.has_looked = true;
                Some(CheckCause::Interfaces)
            }
            HostEvent::Look => self.has_drifted().await.then_some(CheckCause::Time),
            HostEvent::Change(HostChange::Addresses) => Some(CheckCause::Interfaces),
            HostEvent::Change(HostChange::Settings) => Some(CheckCause::Settings),
            HostEvent::Change(HostChange::Link(change)) => {
                match change.interface == self.host.config().tun.name {
                    true => match self.apply_tun_event(change.event) {
                        Ok(must_check) => must_check.then_some(CheckCause::Settings),
                        Err(error) => return Outcome::Break(Err(error)),
                    },
                    false => self.apply_link_event(change).then_some(CheckCause::Interfaces),
                }
            }
        };
        if let Some(cause) = cause {
            self.reconcile(cause).await;
        }
        Outcome::Continue(())
    }

    async fn stop(self) {
        if self.host.config().state.keep {
            let addresses = self.host.facts().addresses_of_host(self.host.config());
            if !addresses.is_empty() {
                let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
                tracing::warn!(
                    addresses = %addresses.join(", "),
                    "programs of the host itself cannot be reached at its external addresses \
                     until natbox starts again; `natbox down` makes them reachable without natbox"
                );
            }
            self.host.leave();
            return;
        }
        for error in self.host.restore().await {
            tracing::error!(%error, "host: a change could not be removed");
        }
    }
}

/// Excludes the ports that the host's programs use from new mappings.
pub(super) fn exclude_ports(engine: &Handle, UsedPorts { tcp, udp }: &UsedPorts) {
    for (protocol, ports) in [(Protocol::TCP, tcp), (Protocol::UDP, udp)] {
        engine.exclude_ports(protocol, &ports.listening, &ports.connected);
    }
}

/// Time between two readings of the ports that the host's programs use.
const USED_PORTS_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two looks for changes that the kernel does not report.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

//! The subsystem that moves sessions when an uplink fails or recovers.
//!
//! In one step, failover sets which new sessions each uplink admits. From the next packet on, no
//! new session uses a failed uplink. If the configuration says so, failover then ends the sessions
//! of the failed uplink, slice by slice. While no uplink is up, sessions continue: no other uplink
//! could take them.
//!
//! The translator itself prefers the lowest tier that has an uplink which admits new sessions.
//! Failover only reports that another tier is in use.
//!
//! The host's own sessions (`host.default_route: follow`) leave a failed uplink whatever
//! `on_failure` says: as with a default route that moves, no socket of the host keeps to the failed
//! uplink. When a lower tier is in use again, the host's UDP flows return to it, so that a VPN does
//! not keep a backup uplink busy for ever.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::events::Events;
use super::subsystem::{Outcome, Subsystem};
use crate::api::EventKind;
use crate::config::{Config, Failback, OnFailure, Uplink};
use crate::engine::Handle;
use crate::nat::{AdmitNew, EndReason, Filter, TableCursor};
use crate::packet::Protocol;
use crate::uplinks::UplinkStates;

/// Adapts the translator to the states of the uplinks.
pub(super) struct Failover {
    uplinks: Rc<[Uplink]>,
    engine: Handle,
    states: watch::Receiver<UplinkStates>,
    events: Rc<Events>,
    /// See [`crate::nat::Policy::host_address`].
    host_address: Option<Ipv4Addr>,
    /// True for each uplink that was up at the last change.
    up: Vec<bool>,
    /// Tier that was in use last; while no uplink is up, the one before.
    tier: u32,
}

impl Failover {
    /// Adapts the translator to the present states. Must run in a `LocalSet`.
    pub(super) fn new(
        config: &Config,
        engine: Handle,
        states: watch::Receiver<UplinkStates>,
        events: Rc<Events>,
        host_address: Option<Ipv4Addr>,
    ) -> Self {
        let (uplinks, up) = (config.uplinks.clone().into(), vec![true; config.uplinks.len()]);
        // An instance that starts with a backup uplink reports that as well.
        let tier = config.uplinks.iter().map(|uplink| uplink.tier).min().unwrap_or(1);
        let mut failover = Self { uplinks, engine, states, events, host_address, up, tier };
        let now = failover.states.borrow().clone();
        failover.changed(&now);
        failover
    }

    /// Sets which new sessions each uplink admits.
    fn set_admissions(&self) {
        let any_is_up = self.up.contains(&true);
        for (index, (settings, is_up)) in self.uplinks.iter().zip(&self.up).enumerate() {
            let admit = match settings.on_failure {
                _ if *is_up || !any_is_up => AdmitNew::All,
                OnFailure::Keep => AdmitNew::KnownEndpoints,
                OnFailure::Drain | OnFailure::Reset => AdmitNew::None,
            };
            self.engine.set_admission(index as u8, admit);
        }
    }

    /// Emits an event if another tier is in use.
    fn report_tier(&mut self, states: &UplinkStates) {
        let Some(tier) = states.tier_in_use().filter(|tier| *tier != self.tier) else { return };
        let before = std::mem::replace(&mut self.tier, tier);
        let uplinks = states.in_use().map(|uplink| uplink.name.clone()).collect();
        self.events.emit(EventKind::TierChanged { tier, before, uplinks });
    }

    /// Ends the sessions of each uplink that is down while another one is up, unless this was so
    /// `before`.
    fn end_doomed(&self, before: &[bool]) {
        let all_were_down = !before.contains(&true);
        for (index, settings) in self.uplinks.iter().enumerate() {
            let Some(doomed) = self.doomed(index) else { continue };
            if is_replaced(index, &self.up) && !is_replaced(index, before) {
                let states = self.states.clone();
                let delay = if all_were_down { recovery_time(settings) } else { Duration::ZERO };
                self.sweep((doomed, EndReason::UplinkFailed), index, delay, move || {
                    is_replaced(index, &up(&states.borrow()))
                });
            }
        }
    }

    /// Returns the sessions that end when an uplink fails while another one is up.
    fn doomed(&self, index: usize) -> Option<Filter> {
        let all = Filter::movable_from(index as u8);
        match self.uplinks[index].on_failure {
            OnFailure::Reset => Some(all),
            OnFailure::Keep | OnFailure::Drain => {
                let host = self.host_address?;
                Some(Filter { inside_host: Some(host), ..all })
            }
        }
    }

    /// Ends sessions that belong on uplinks that have recovered, so that they return.
    /// `tier_before`: the tier that was in use before the recovery.
    fn fail_back(&self, before: &[bool], tier_before: u32) {
        for index in (0..self.uplinks.len()).filter(|index| self.up[*index] && !before[*index]) {
            let Some(returning) = self.returning(index, tier_before) else { continue };
            let states = self.states.clone();
            self.sweep((returning, EndReason::Failback), index, Duration::ZERO, move || {
                states.borrow().uplinks[index].up
            });
        }
    }

    /// Returns the sessions that end when an uplink has recovered.
    fn returning(&self, index: usize, tier_before: u32) -> Option<Filter> {
        let all = Filter::preferring(index as u8);
        match self.uplinks[index].failback {
            Failback::Reset => Some(all),
            Failback::NewSessions => {
                let host = self.host_address.filter(|_| self.tier < tier_before)?;
                Some(Filter { inside_host: Some(host), protocol: Some(Protocol::UDP), ..all })
            }
        }
    }

    /// Ends the sessions that match a filter after `delay`, slice by slice, as long as `goes_on` is
    /// true.
    fn sweep(
        &self,
        (filter, reason): (Filter, EndReason),
        uplink: usize,
        delay: Duration,
        goes_on: impl Fn() -> bool + 'static,
    ) {
        let (engine, events) = (self.engine.clone(), Rc::clone(&self.events));
        let uplink = self.uplinks[uplink].name.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let mut sessions = 0;
            let mut cursor = Some(TableCursor::default());
            while let Some(from) = cursor
                && goes_on()
            {
                let slice = engine.end_matching(&filter, reason, from);
                sessions += slice.ended;
                cursor = slice.next;
                // The rest of the control thread runs between two slices, and the workers send what
                // waits.
                match engine.pending_notifications() {
                    0..MAX_QUEUED_NOTIFICATIONS => tokio::task::yield_now().await,
                    MAX_QUEUED_NOTIFICATIONS.. => tokio::time::sleep(PAUSE).await,
                }
            }
            if sessions != 0 {
                events.emit(EventKind::SessionsEnded { uplink, sessions });
            }
        });
    }
}

impl Subsystem for Failover {
    /// Failover only follows the uplinks.
    type Event = std::convert::Infallible;
    const NAME: &'static str = "failover";

    async fn next(&mut self) -> Self::Event {
        std::future::pending().await
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {}
    }

    fn changed(&mut self, states: &UplinkStates) {
        let (before, tier_before) = (std::mem::replace(&mut self.up, up(states)), self.tier);
        self.set_admissions();
        self.report_tier(states);
        self.end_doomed(&before);
        self.fail_back(&before, tier_before);
    }
}

fn up(states: &UplinkStates) -> Vec<bool> {
    states.uplinks.iter().map(|uplink| uplink.up).collect()
}

/// Reports whether an uplink is down while another one is up.
fn is_replaced(index: usize, up: &[bool]) -> bool {
    !up[index] && up.contains(&true)
}

/// Time that an uplink may take to recover after another uplink has. Uplinks that failed together
/// recover together, but one of them recovers first.
fn recovery_time(settings: &Uplink) -> Duration {
    let check = settings.health.as_ref();
    check.map_or(LINK_DELAY, |health| health.interval * (health.rise + 1))
}

/// Notifications that may wait before a sweep pauses.
const MAX_QUEUED_NOTIFICATIONS: usize = 4096;
/// Pause of a sweep while many notifications wait.
const PAUSE: Duration = Duration::from_millis(1);
/// Recovery time of interfaces that come up together.
const LINK_DELAY: Duration = Duration::from_secs(1);

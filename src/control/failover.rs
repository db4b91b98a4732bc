//! The subsystem that moves sessions when an uplink fails or recovers.
//!
//! In one step, failover sets which new sessions each uplink admits: the uplinks of the best rank
//! ([`Rank`]) admit all. From the next packet on, no new session uses a failed uplink. If the
//! configuration says so, failover then ends the sessions of the failed uplink, slice by slice.
//! While no uplink has a better rank, sessions continue: no other uplink could take them.
//!
//! The translator itself prefers the lowest tier that has an uplink which admits new sessions.
//! Failover only reports that another tier is in use. When an uplink of a lower tier recovers,
//! failover ends the sessions on higher tiers that belong on it: those of protocols that begin a
//! session with any packet, and with `failback: reset` all.
//!
//! The host's own sessions (`host.default_route: follow`) leave a failed uplink whatever
//! `on_failure` says: as with a default route that moves, no socket of the host keeps to the failed
//! uplink.

use std::cell::RefCell;
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
use crate::uplinks::{Answers, Rank, UplinkState, UplinkStates, Uplinks};

/// The settings that failover follows. A reload replaces them before it replaces the states of the
/// uplinks.
pub(super) struct FailoverSettings(RefCell<Rc<Settings>>);

struct Settings {
    /// In the order of the states.
    uplinks: Vec<Uplink>,
    /// See [`crate::nat::Policy::host_address`].
    host_address: Option<Ipv4Addr>,
}

impl FailoverSettings {
    /// Makes the settings of a configuration.
    pub(super) fn of(config: &Config, host_address: Option<Ipv4Addr>) -> Self {
        let uplinks = config.uplinks.clone();
        Self(RefCell::new(Rc::new(Settings { uplinks, host_address })))
    }

    /// Takes the settings of another configuration.
    pub(super) fn set(&self, config: &Config, host_address: Option<Ipv4Addr>) {
        self.0.swap(&Self::of(config, host_address).0);
    }

    fn get(&self) -> Rc<Settings> {
        Rc::clone(&self.0.borrow())
    }
}

/// Adapts the translator to the states of the uplinks.
pub(super) struct Failover {
    settings: Rc<FailoverSettings>,
    engine: Handle,
    states: watch::Receiver<UplinkStates>,
    events: Rc<Events>,
    /// Names of the uplinks at the last change.
    names: Vec<String>,
    /// Rank of each of them.
    ranks: Vec<Rank>,
    /// Tier that was in use last; while no uplink is usable, the one before.
    tier: u32,
}

impl Failover {
    /// Adapts the translator to the present states, and to new ones before others read them. Must
    /// run in a `LocalSet`.
    pub(super) fn new(
        settings: Rc<FailoverSettings>,
        engine: Handle,
        channel: &Uplinks,
        events: Rc<Events>,
    ) -> Self {
        let of_start = settings.get();
        let ranks = vec![Rank::Healthy; of_start.uplinks.len()];
        let names = of_start.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        // An instance that starts with a backup uplink reports that as well.
        let tier = of_start.uplinks.iter().map(|uplink| uplink.tier).min().unwrap_or(1);
        let (of_now, translator, states) = (Rc::clone(&settings), engine.clone(), channel.watch());
        let apply = move |states: &UplinkStates| {
            set_admissions(&translator, &of_now.get().uplinks, &states.uplinks);
        };
        let mut failover = Self { settings, engine, states, events, names, ranks, tier };
        let now = failover.states.borrow().clone();
        apply(&now);
        channel.apply_first(apply);
        failover.changed(&now);
        failover
    }

    /// Emits an event if another tier is in use.
    fn report_tier(&mut self, states: &UplinkStates) {
        let Some(tier) = states.tier_in_use().filter(|tier| *tier != self.tier) else { return };
        let before = std::mem::replace(&mut self.tier, tier);
        let uplinks = states.in_use().map(|uplink| uplink.name.clone()).collect();
        self.events.emit(EventKind::TierChanged { tier, before, uplinks });
    }

    /// Ends the sessions of each uplink that has failed while another one has a better rank. If an
    /// uplink was as good as all others until one of them recovered, it has time to recover as
    /// well.
    fn end_doomed(&self, before: &[Rank]) {
        for (index, settings) in self.settings.get().uplinks.iter().enumerate() {
            let Some(doomed) = self.doomed(settings) else { continue };
            let has_failed = self.ranks[index] > before[index];
            if !is_replaced(index, &self.ranks) || !has_failed && is_replaced(index, before) {
                continue;
            }
            let timeout = (!has_failed).then(|| recovery_time(settings));
            let (waiting, states) = (self.states.clone(), self.states.clone());
            let (name, goes_on) = (settings.name.clone(), settings.name.clone());
            self.sweep(
                (doomed, EndReason::UplinkFailed),
                &settings.name,
                async move {
                    if let Some(time) = timeout {
                        wait_for_recovery(&waiting, &name, time).await;
                    }
                },
                move || is_named_replaced(&goes_on, &states.borrow()),
            );
        }
    }

    /// Returns the sessions that end when an uplink fails while another one has a better rank.
    fn doomed(&self, uplink: &Uplink) -> Option<Filter> {
        let all = Filter::movable_from(uplink.numbers.uplink);
        match uplink.on_failure {
            OnFailure::Reset => Some(all),
            OnFailure::Keep | OnFailure::Drain => {
                let host = self.settings.get().host_address?;
                Some(Filter { inside_host: Some(host), ..all })
            }
        }
    }

    /// Ends sessions that belong on uplinks that have recovered, so that they return.
    fn fail_back(&self, before: &[Rank], states: &UplinkStates) {
        let recovered =
            |index: &usize| self.ranks[*index] == Rank::Healthy && before[*index] != Rank::Healthy;
        let settings = self.settings.get();
        for index in (0..settings.uplinks.len()).filter(recovered) {
            let uplink = &settings.uplinks[index];
            let Some(returning) = returning(uplink, index, states) else { continue };
            let (states, name) = (self.states.clone(), uplink.name.clone());
            let goes_on = move || states.borrow().named(&name).is_some_and(|uplink| uplink.up);
            self.sweep(returning, &uplink.name, std::future::ready(()), goes_on);
        }
    }

    /// Ends the sessions that match a filter when `due` is ready, slice by slice, as long as
    /// `goes_on` is true.
    fn sweep(
        &self,
        (filter, reason): (Filter, EndReason),
        uplink: &str,
        due: impl Future<Output = ()> + 'static,
        goes_on: impl Fn() -> bool + 'static,
    ) {
        let (engine, events) = (self.engine.clone(), Rc::clone(&self.events));
        let uplink = uplink.to_owned();
        tokio::task::spawn_local(async move {
            due.await;
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
                    MAX_QUEUED_NOTIFICATIONS.. => tokio::time::sleep(QUEUE_RETRY_INTERVAL).await,
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
        // After a reload the uplinks may be others. A new one has not changed.
        let rank_before = |uplink: &UplinkState| {
            let place = self.names.iter().position(|name| *name == uplink.name);
            place.map_or_else(|| uplink.rank(), |place| self.ranks[place])
        };
        let before: Vec<Rank> = states.uplinks.iter().map(rank_before).collect();
        self.names = states.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        self.ranks = ranks(&states.uplinks);
        self.report_tier(states);
        self.end_doomed(&before);
        self.fail_back(&before, states);
    }
}

/// Returns the sessions that end when an uplink has recovered, and the reason.
fn returning(
    settings: &Uplink,
    place: usize,
    states: &UplinkStates,
) -> Option<(Filter, EndReason)> {
    let uplink = settings.numbers.uplink;
    match settings.failback {
        Failback::Reset => Some((Filter::preferring(uplink), EndReason::Failback)),
        Failback::NewSessions => {
            let tier = states.uplinks[place].tier;
            let is_backed_up = states.uplinks.iter().any(|other| other.tier > tier);
            let from_backup = (Filter::returning_from_backup(uplink), EndReason::TierRecovered);
            is_backed_up.then_some(from_backup)
        }
    }
}

/// Sets which new sessions each uplink admits. `uplinks` and `states` have the same order.
pub(super) fn set_admissions(engine: &Handle, uplinks: &[Uplink], states: &[UplinkState]) {
    let ranks = ranks(states);
    for (index, (settings, rank)) in uplinks.iter().zip(&ranks).enumerate() {
        let admit = match settings.on_failure {
            _ if !is_replaced(index, &ranks) => AdmitNew::All,
            OnFailure::Keep => AdmitNew::KnownEndpoints,
            OnFailure::Drain | OnFailure::Reset => AdmitNew::None,
        };
        // An outbound rule may name none of the uplinks of the best rank.
        let number = settings.numbers.uplink;
        engine.set_last_resort(number, *rank == Rank::LastResort);
        engine.set_admission(number, admit);
    }
}

fn ranks(states: &[UplinkState]) -> Vec<Rank> {
    states.iter().map(UplinkState::rank).collect()
}

/// Reports whether another uplink has a better rank than this one.
fn is_replaced(index: usize, ranks: &[Rank]) -> bool {
    ranks.iter().any(|rank| *rank < ranks[index])
}

/// Reports whether another uplink has a better rank than the one of this name; false if a reload
/// has removed it.
fn is_named_replaced(name: &str, states: &UplinkStates) -> bool {
    let place = states.uplinks.iter().position(|uplink| uplink.name == name);
    place.is_some_and(|place| is_replaced(place, &ranks(&states.uplinks)))
}

/// Waits until the sessions of an uplink must end: its recovery has taken too long, or it has
/// recovered. An uplink that answers well and that only the hold keeps out has time until the end
/// of its hold. `time`: see [`recovery_time`].
async fn wait_for_recovery(states: &watch::Receiver<UplinkStates>, name: &str, time: Duration) {
    loop {
        tokio::time::sleep(time).await;
        let states = states.borrow();
        let answers_well = states.named(name).is_some_and(|uplink| uplink.answers == Answers::Good);
        if !answers_well || !is_named_replaced(name, &states) {
            return;
        }
    }
}

/// Time that an uplink may take to recover after another uplink has begun to answer. Uplinks that
/// failed together recover together, but one of them answers first: it is up after `rise` rounds,
/// and the others may take as long again.
fn recovery_time(settings: &Uplink) -> Duration {
    let check = settings.health.as_ref();
    check.map_or(LINK_DELAY, |health| health.interval * (2 * health.rise + 1))
}

/// Notifications that may wait before a sweep pauses.
const MAX_QUEUED_NOTIFICATIONS: usize = 4096;
/// Pause of a sweep while many notifications wait.
const QUEUE_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Recovery time of interfaces that come up together.
const LINK_DELAY: Duration = Duration::from_secs(1);

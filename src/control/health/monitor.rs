//! The state machines of all uplinks: fed by the health checks and the links, published in
//! [`Uplinks`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::api::EventKind;
use crate::config::{Config, Health, Uplink};
use crate::control::events::Events;
use crate::uplinks::{UplinkState, Uplinks};

use super::uplink::{DownReason, UplinkEvent, UplinkHealth};

/// Feeds the state machines of all uplinks, publishes their states and emits their events.
pub(in crate::control) struct UplinkMonitor {
    monitored: RefCell<Vec<MonitoredUplink>>,
    uplinks: Rc<Uplinks>,
    events: Rc<Events>,
}

/// One uplink.
struct MonitoredUplink {
    name: String,
    number: u8,
    /// The settings of its health check.
    settings: Option<Health>,
    health: UplinkHealth,
    /// Error of the last probe that got no answer; empty: every probe got one.
    last_error: String,
}

impl UplinkMonitor {
    /// Starts with the published states: an uplink is healthy if its link is ready.
    pub(in crate::control) fn new(
        config: &Config,
        uplinks: Rc<Uplinks>,
        events: Rc<Events>,
    ) -> Self {
        let now = Instant::now();
        let published = uplinks.watch();
        let published = &published.borrow().uplinks;
        let monitored = config
            .uplinks
            .iter()
            .zip(published)
            .map(|(uplink, published)| MonitoredUplink::new(uplink, published.link_ready, now));
        Self { monitored: RefCell::new(monitored.collect()), uplinks, events }
    }

    /// Takes the uplinks of another configuration, whose states are `states` in the same order, and
    /// publishes all of them. An uplink that stays keeps its health. If its health check has
    /// changed, the check begins again, and an uplink that is down stays down until the check finds
    /// it healthy.
    pub(in crate::control) fn replace(&self, config: &Config, states: Vec<UplinkState>) {
        let now = Instant::now();
        let mut before = self.monitored.take();
        let mut take = |uplink: &Uplink, state: &UplinkState| {
            let number = uplink.numbers.uplink;
            let is_same =
                |known: &MonitoredUplink| (known.number, &known.name) == (number, &uplink.name);
            let Some(place) = before.iter().position(is_same) else {
                return MonitoredUplink::new(uplink, state.link_ready, now);
            };
            let known = before.swap_remove(place);
            if known.settings == uplink.health {
                return known;
            }
            let health = known.health.with_settings(uplink.health.as_ref(), now);
            MonitoredUplink { health, ..MonitoredUplink::new(uplink, state.link_ready, now) }
        };
        let uplinks = config.uplinks.iter().zip(&states);
        let monitored: Vec<_> = uplinks.map(|(uplink, state)| take(uplink, state)).collect();
        let published = states.into_iter().zip(&monitored).map(|(mut state, monitored)| {
            monitored.publish(&mut state, now);
            state
        });
        let published = published.collect();
        self.monitored.replace(monitored);
        self.uplinks.replace(published);
    }

    /// Reports whether packets can leave by an uplink.
    pub(in crate::control) fn set_link_ready(&self, uplink: u8, ready: bool) {
        self.change(uplink, |state, now| state.health.set_link_ready(ready, now));
    }

    /// Begins a round of probes of an uplink. Returns the number of the round.
    pub(super) fn begin_round(&self, uplink: u8) -> u64 {
        let mut monitored = self.monitored.borrow_mut();
        let state = monitored.iter_mut().find(|state| state.number == uplink);
        state.map_or(0, |state| state.health.begin_round(Instant::now()))
    }

    /// Records the result of the probe of one target: the time until the answer, or the reason why
    /// there is none.
    pub(super) fn record(
        &self,
        uplink: u8,
        round: u64,
        target: usize,
        answer: Result<Duration, String>,
    ) {
        self.change(uplink, |state, now| match answer {
            Ok(latency) => state.health.answered(round, target, latency, now),
            Err(error) => {
                tracing::debug!(uplink = %state.name, error, "probe without an answer");
                state.last_error = error;
                state.health.unanswered(round, target, now)
            }
        });
    }

    /// Returns the time at which the next uplink fails, or is no last resort any more, unless it
    /// gets an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.monitored.borrow().iter().filter_map(|state| state.health.deadline()).min()
    }

    /// Changes the uplinks whose deadline has passed.
    pub(super) fn expire_deadlines(&self) {
        let uplinks: Vec<u8> = self.monitored.borrow().iter().map(|state| state.number).collect();
        for uplink in uplinks {
            self.change(uplink, |state, now| state.health.tick(now));
        }
    }

    /// Changes the uplink with a number, publishes its state, and emits an event if the uplink
    /// failed or recovered. Does nothing if no uplink has the number.
    fn change(
        &self,
        uplink: u8,
        change: impl FnOnce(&mut MonitoredUplink, Instant) -> Option<UplinkEvent>,
    ) {
        let now = Instant::now();
        let mut monitored = self.monitored.borrow_mut();
        let Some(place) = monitored.iter().position(|state| state.number == uplink) else { return };
        let state = &mut monitored[place];
        let transition = change(state, now);
        // The event first: followers of the states emit events that are its consequences.
        if let Some(transition) = transition {
            self.events.emit(state.event(transition));
        }
        self.uplinks.update(place, |published| state.publish(published, now));
    }
}

impl MonitoredUplink {
    fn new(uplink: &Uplink, link_ready: bool, now: Instant) -> Self {
        Self {
            name: uplink.name.clone(),
            number: uplink.numbers.uplink,
            settings: uplink.health.clone(),
            health: UplinkHealth::new(uplink.health.as_ref(), link_ready, now),
            last_error: String::new(),
        }
    }

    /// Writes the health into the published state.
    fn publish(&self, published: &mut UplinkState, now: Instant) {
        let health = &self.health;
        published.up = health.is_healthy();
        published.answers = health.answers(now);
        published.link_ready = health.link_ready();
        published.latency = health.latency();
        published.loss = health.loss();
        published.reason = health.down().map(|reason| self.reason(reason));
        published.held_until = health.held_until(now);
    }

    fn event(&self, transition: UplinkEvent) -> EventKind {
        let uplink = self.name.clone();
        match transition {
            UplinkEvent::Up => EventKind::UplinkHealthy { uplink },
            UplinkEvent::Down(reason) => {
                EventKind::UplinkFailed { uplink, reason: self.reason(reason) }
            }
        }
    }

    /// Returns why the uplink has failed, with the error of the last probe where that explains
    /// more.
    fn reason(&self, reason: DownReason) -> String {
        match reason {
            DownReason::NoAnswer if !self.last_error.is_empty() => {
                format!("{reason} ({})", self.last_error)
            }
            DownReason::NoAnswer
            | DownReason::LinkNotReady
            | DownReason::Loss { .. }
            | DownReason::Latency(_) => reason.to_string(),
        }
    }
}

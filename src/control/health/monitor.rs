//! The state machines of all uplinks: fed by the health checks and the links, published in
//! [`Uplinks`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::api::EventKind;
use crate::config::Config;
use crate::control::events::Events;
use crate::uplinks::Uplinks;

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
        let monitored = config.uplinks.iter().zip(published).map(|(uplink, published)| {
            let health = UplinkHealth::new(uplink.health.as_ref(), published.link_ready, now);
            MonitoredUplink { name: uplink.name.clone(), health, last_error: String::new() }
        });
        Self { monitored: RefCell::new(monitored.collect()), uplinks, events }
    }

    /// Reports whether packets can leave by an uplink.
    pub(in crate::control) fn set_link_ready(&self, uplink: usize, ready: bool) {
        self.change(uplink, |state, now| state.health.set_link_ready(ready, now));
    }

    /// Begins a round of probes of an uplink. Returns the number of the round.
    pub(super) fn begin_round(&self, uplink: usize) -> u64 {
        self.monitored.borrow_mut()[uplink].health.begin_round(Instant::now())
    }

    /// Records the result of the probe of one target: the time until the answer, or the reason why
    /// there is none.
    pub(super) fn record(
        &self,
        uplink: usize,
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
        let count = self.monitored.borrow().len();
        for uplink in 0..count {
            self.change(uplink, |state, now| state.health.tick(now));
        }
    }

    /// Changes an uplink, publishes its state, and emits an event if the uplink failed or
    /// recovered.
    fn change(
        &self,
        uplink: usize,
        change: impl FnOnce(&mut MonitoredUplink, Instant) -> Option<UplinkEvent>,
    ) {
        let now = Instant::now();
        let mut monitored = self.monitored.borrow_mut();
        let state = &mut monitored[uplink];
        let transition = change(state, now);
        // The event first: followers of the states emit events that are its consequences.
        if let Some(transition) = transition {
            self.events.emit(state.event(transition));
        }
        let reason = state.health.down().map(|reason| state.reason(reason));
        let health = &state.health;
        self.uplinks.update(uplink, |published| {
            published.up = health.is_healthy();
            published.answers = health.answers(now);
            published.link_ready = health.link_ready();
            published.latency = health.latency();
            published.loss = health.loss();
            published.reason = reason;
            published.held_until = health.held_until(now);
        });
    }
}

impl MonitoredUplink {
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

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
        self.change(uplink, |state| state.health.set_link_ready(ready));
    }

    /// Begins a round of probes of an uplink. Returns the number of the round.
    pub(super) fn begin_round(&self, uplink: usize) -> u64 {
        self.monitored.borrow_mut()[uplink].health.begin_round(Instant::now())
    }

    /// Records the result of one probe: the time until the answer, or the reason why there is none.
    pub(super) fn record(&self, uplink: usize, round: u64, answer: Result<Duration, String>) {
        self.change(uplink, |state| match answer {
            Ok(latency) => state.health.answered(round, latency),
            Err(error) => {
                tracing::debug!(uplink = %state.name, error, "probe without an answer");
                state.health.unanswered();
                state.last_error = error;
                None
            }
        });
    }

    /// Returns the time at which the next uplink fails unless it gets an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.monitored.borrow().iter().filter_map(|state| state.health.deadline()).min()
    }

    /// Fails the uplinks whose deadline has passed.
    pub(super) fn expire_deadlines(&self) {
        let (now, count) = (Instant::now(), self.monitored.borrow().len());
        for uplink in 0..count {
            self.change(uplink, |state| state.health.tick(now));
        }
    }

    /// Changes an uplink, publishes its state, and emits an event if the uplink failed or
    /// recovered.
    fn change(
        &self,
        uplink: usize,
        change: impl FnOnce(&mut MonitoredUplink) -> Option<UplinkEvent>,
    ) {
        let mut monitored = self.monitored.borrow_mut();
        let state = &mut monitored[uplink];
        let transition = change(state);
        // The event first: followers of the states emit events that are its consequences.
        if let Some(transition) = transition {
            self.events.emit(event(&state.name, transition, &state.last_error));
        }
        let health = &state.health;
        self.uplinks.update(uplink, |published| {
            published.up = health.is_healthy();
            published.link_ready = health.link_ready();
            published.latency = health.latency();
            published.loss = health.loss();
        });
    }
}

/// Returns the event of a transition. `error`: error of the last probe without an answer; empty if
/// every probe got one.
fn event(name: &str, transition: UplinkEvent, error: &str) -> EventKind {
    let uplink = name.to_owned();
    let reason = match transition {
        UplinkEvent::Up => return EventKind::UplinkHealthy { uplink },
        UplinkEvent::Down(DownReason::LinkNotReady) => {
            "no carrier, no address or no next hop".to_owned()
        }
        UplinkEvent::Down(DownReason::NoAnswer) if error.is_empty() => "no answer".to_owned(),
        UplinkEvent::Down(DownReason::NoAnswer) => format!("no answer ({error})"),
    };
    EventKind::UplinkFailed { uplink, reason }
}

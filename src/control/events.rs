//! The events of an instance: each is logged, kept for a while, and sent to every client of
//! `natbox events --follow`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::service_manager::ServiceManager;
use crate::api::{Event, EventKind};

/// Logs events, keeps the last [`CAPACITY`], and sends them to followers.
pub(super) struct Events {
    recent: RefCell<VecDeque<Event>>,
    followers: broadcast::Sender<Event>,
    ended: Cell<EndedSessions>,
    service_manager: ServiceManager,
}

/// Sessions that have ended early, by what the events say about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndedSessions {
    /// By a failed or recovered uplink.
    pub(super) by_failover: u64,
    /// By a changed address or a reload.
    pub(super) by_changes: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            recent: RefCell::default(),
            followers: broadcast::Sender::new(CAPACITY),
            ended: Cell::default(),
            service_manager: ServiceManager::from_environment(),
        }
    }

    /// Returns the sessions that have ended early since the start.
    pub(super) fn ended_sessions(&self) -> EndedSessions {
        self.ended.get()
    }

    /// Logs an event, reports it to the service manager and sends it to the followers.
    pub(super) fn emit(&self, kind: EventKind) {
        log(&kind);
        self.count_ended(&kind);
        self.service_manager.report(&kind);
        let event = Event { at: now(), kind };
        let mut recent = self.recent.borrow_mut();
        if recent.len() == CAPACITY {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        // Fails when there is no follower.
        let _ = self.followers.send(event);
    }

    fn count_ended(&self, kind: &EventKind) {
        let mut ended = self.ended.get();
        if let EventKind::SessionsEnded { sessions, .. } = kind {
            ended.by_failover += *sessions as u64;
        } else if let EventKind::AddressChanged { sessions_ended, .. }
        | EventKind::Reloaded { sessions_ended, .. }
        | EventKind::ReloadReverted { sessions_ended, .. } = kind
        {
            ended.by_changes += *sessions_ended as u64;
        }
        self.ended.set(ended);
    }

    /// Returns the recent events, and a follower that receives every later event.
    pub(super) fn follow(&self) -> (Vec<Event>, Follower) {
        let recent = self.recent.borrow().iter().cloned().collect();
        (recent, Follower(self.followers.subscribe()))
    }
}

/// Receives events.
pub(super) struct Follower(broadcast::Receiver<Event>);

impl Follower {
    /// Waits for the next event. None: the instance has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => {
                Some(Event { at: now(), kind: EventKind::EventsLost { events } })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn log(kind: &EventKind) {
    match kind {
        EventKind::Waiting { missing } => {
            tracing::warn!("natbox waits and then starts by itself: {}", missing.join("; "));
        }
        EventKind::Ready { name } => tracing::info!(%name, "ready"),
        EventKind::Stopping { signal } => tracing::info!(%signal, "stopping"),
        EventKind::UplinkFailed { uplink, reason } => {
            tracing::warn!(%uplink, reason, "uplink failed");
        }
        EventKind::UplinkHealthy { uplink } => tracing::info!(%uplink, "uplink is healthy"),
        EventKind::TierChanged { tier, before, uplinks } => {
            tracing::info!(tier, before, uplinks = %uplinks.join(", "), "another tier is in use");
        }
        EventKind::SessionsEnded { uplink, sessions } => {
            tracing::info!(
                %uplink, sessions, "sessions ended; hosts open them again over an uplink in use"
            );
        }
        EventKind::AddressChanged { uplink, address, sessions_ended } => {
            let address = address.map_or("none".to_owned(), |address| address.to_string());
            tracing::info!(%uplink, %address, sessions_ended, "address changed");
        }
        EventKind::InterfaceRemoved { interface } => {
            tracing::warn!(
                %interface, "interface was removed; packets are lost until the interface exists again"
            );
        }
        EventKind::InterfaceDown { interface } => tracing::warn!(%interface, "interface is down"),
        EventKind::InterfaceUp { interface } => tracing::info!(%interface, "interface is up"),
        EventKind::MtuChanged { interface, mtu } => tracing::info!(%interface, mtu, "MTU changed"),
        EventKind::TunDown { tun } => tracing::warn!(
            %tun, "TUN device is down; no packet is translated; to set it up: ip link set {tun} up"
        ),
        EventKind::TunUp { tun } => tracing::info!(%tun, "TUN device is up again"),
        EventKind::HostRestored { changed } => tracing::warn!(
            changed = %changed.join("; "), "another program changed the host; natbox set it again"
        ),
        EventKind::HostDisputed { problem } => tracing::error!("{problem}"),
        EventKind::RulesMoved { priority, before } => tracing::info!(
            priority, before = %before.join("; "), "policy rules moved"
        ),
        EventKind::Reloaded { changed, sessions_ended } => {
            tracing::info!(changed = %changed.join(", "), sessions_ended, "configuration reloaded");
        }
        EventKind::ReloadPending { .. } | EventKind::ReloadReverted { .. } => {
            tracing::warn!("{kind}");
        }
        EventKind::ReloadConfirmed { .. } | EventKind::SessionsKilled { .. } => {
            tracing::info!("{kind}");
        }
        EventKind::ReloadFailed { error } => tracing::error!("configuration not reloaded: {error}"),
        EventKind::ResourceExhausted { reason, packets, why } => {
            tracing::warn!(reason, packets, why, "packets are dropped");
        }
        EventKind::HostWarning { found, why } => tracing::warn!("{found}: {why}"),
        EventKind::HostWarningEnded { found } => tracing::info!("no more: {found}"),
        EventKind::EventsLost { events } => tracing::debug!(events, "events lost: slow reader"),
    }
}

/// Events that are kept, and events that wait for one follower.
const CAPACITY: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RevertReason;

    fn failed(number: usize) -> EventKind {
        EventKind::UplinkFailed { uplink: number.to_string(), reason: "no answer".to_owned() }
    }

    #[test]
    fn ended_sessions_are_counted_by_their_cause() {
        let events = Events::new();
        let uplink = || "isp1".to_owned();
        events.emit(EventKind::SessionsEnded { uplink: uplink(), sessions: 3 });
        events.emit(EventKind::SessionsEnded { uplink: uplink(), sessions: 4 });
        events.emit(EventKind::Reloaded { changed: Vec::new(), sessions_ended: 5 });
        events.emit(EventKind::ReloadReverted {
            reason: RevertReason::Cancelled,
            changed: Vec::new(),
            sessions_ended: 20,
        });
        let changed =
            EventKind::AddressChanged { uplink: uplink(), address: None, sessions_ended: 6 };
        events.emit(changed);
        events.emit(failed(1));
        assert_eq!(events.ended_sessions(), EndedSessions { by_failover: 7, by_changes: 31 });
    }

    #[tokio::test]
    async fn a_follower_gets_recent_events_new_events_and_the_number_of_lost_ones() {
        let events = Events::new();
        (0..CAPACITY + 5).for_each(|number| events.emit(failed(number)));
        let (recent, mut follower) = events.follow();
        assert_eq!((recent.len(), &recent[0].kind), (CAPACITY, &failed(5)), "the oldest are gone");
        events.emit(failed(7));
        assert_eq!(follower.next().await.map(|event| event.kind), Some(failed(7)));

        // The channel rounds its capacity up.
        let sent = 2 * CAPACITY.next_power_of_two();
        (0..sent).for_each(|number| events.emit(failed(number)));
        let lost = follower.next().await.map(|event| event.kind);
        let Some(EventKind::EventsLost { events: lost }) = lost else { panic!("{lost:?}") };
        let first = follower.next().await.map(|event| event.kind);
        assert_eq!(first, Some(failed(lost as usize)));
        drop(events);
        let mut last = None;
        while let Some(event) = follower.next().await {
            last = Some(event.kind);
        }
        assert_eq!(last, Some(failed(sent - 1)));
    }
}

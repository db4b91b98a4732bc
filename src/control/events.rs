//! What happens to a box, told once: as a line in the log, and to whoever follows `natbox events`.
//!
//! Here are changes of state, a few in a day of a line that is well. What happens to single packets and sessions is counted
//! (`natbox status`) and can be listed (`natbox sessions`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The box translates.
    Ready {
        /// Its name.
        name: String,
    },
    /// The box is about to end.
    Stopping {
        /// The signal that asked for it.
        signal: String,
    },
    /// A line is not healthy any more.
    UplinkFailed {
        /// Its name.
        uplink: String,
        /// Why.
        reason: String,
    },
    /// A line is healthy again.
    UplinkHealthy {
        /// Its name.
        uplink: String,
    },
    /// Sessions over a line, or that belong on it, were ended so that they begin again elsewhere.
    SessionsEnded {
        /// The line.
        uplink: String,
        /// How many.
        sessions: usize,
    },
    /// A line's external address is that of its interface, which has another one or another gateway now.
    AddressChanged {
        /// The line.
        uplink: String,
        /// The address, if it has one.
        address: Option<Ipv4Addr>,
        /// How many sessions of the box had an address that is gone, and ended.
        sessions_ended: usize,
    },
    /// The interface of a leg does not exist any more.
    InterfaceRemoved {
        /// Its name.
        interface: String,
    },
    /// A leg is down, or has no carrier.
    InterfaceDown {
        /// Its name.
        interface: String,
    },
    /// A leg is up again.
    InterfaceUp {
        /// Its name.
        interface: String,
    },
    /// A leg has another MTU.
    MtuChanged {
        /// Its name.
        interface: String,
        /// Bytes.
        mtu: u32,
    },
    /// Somebody set the TUN down.
    TunDown {
        /// Its name.
        tun: String,
    },
    /// The TUN is up again.
    TunUp {
        /// Its name.
        tun: String,
    },
    /// The configuration was read again and is what the box lives by.
    Reloaded {
        /// Keys whose values differ from before.
        changed: Vec<String>,
        /// Sessions that the new rules do not allow.
        sessions_ended: usize,
    },
    /// The configuration was read again and refused.
    ReloadFailed {
        /// Why.
        error: String,
    },
    /// Something has run out.
    ResourceExhausted {
        /// The reason, as `natbox status` names it.
        reason: String,
        /// Packets dropped since it was told last.
        packets: u64,
        /// What it means.
        why: String,
    },
    /// Who follows did not read in time.
    EventsLost {
        /// How many events are missing here.
        events: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { name } => write!(f, "{name} is ready"),
            Self::Stopping { signal } => write!(f, "stopping ({signal})"),
            Self::UplinkFailed { uplink, reason } => {
                write!(f, "line {uplink} has failed: {reason}")
            }
            Self::UplinkHealthy { uplink } => write!(f, "line {uplink} is healthy"),
            Self::SessionsEnded { uplink, sessions } => {
                write!(
                    f,
                    "line {uplink}: {sessions} sessions ended, so that they begin again elsewhere"
                )
            }
            Self::AddressChanged { uplink, address: Some(address), sessions_ended } => {
                write!(
                    f,
                    "line {uplink} has the address {address}; {sessions_ended} sessions ended"
                )
            }
            Self::AddressChanged { uplink, address: None, sessions_ended } => {
                write!(f, "line {uplink} has no address; {sessions_ended} sessions ended")
            }
            Self::InterfaceRemoved { interface } => write!(f, "interface {interface} is gone"),
            Self::InterfaceDown { interface } => write!(f, "interface {interface} is down"),
            Self::InterfaceUp { interface } => write!(f, "interface {interface} is up"),
            Self::MtuChanged { interface, mtu } => {
                write!(f, "interface {interface} has an MTU of {mtu}")
            }
            Self::TunDown { tun } => write!(f, "the TUN {tun} is down; nothing is translated"),
            Self::TunUp { tun } => write!(f, "the TUN {tun} is up"),
            Self::Reloaded { changed, .. } if changed.is_empty() => {
                write!(f, "configuration read again; nothing has changed")
            }
            Self::Reloaded { changed, sessions_ended } => {
                let changed = changed.join(", ");
                write!(
                    f,
                    "configuration read again; changed: {changed}; {sessions_ended} sessions ended"
                )
            }
            Self::ReloadFailed { error } => write!(f, "configuration refused: {error}"),
            Self::ResourceExhausted { reason, packets, why } => {
                write!(f, "{packets} packets dropped, {reason}: {why}")
            }
            Self::EventsLost { events } => write!(f, "{events} events were not read in time"),
        }
    }
}

/// Tells what happens, and remembers the last of it.
pub(super) struct Events {
    past: RefCell<VecDeque<Event>>,
    followers: broadcast::Sender<Event>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { past: RefCell::default(), followers: broadcast::Sender::new(CAPACITY) }
    }

    /// Writes it into the log and tells the followers.
    pub(super) fn emit(&self, kind: EventKind) {
        log(&kind);
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let event = Event { at, kind };
        let mut past = self.past.borrow_mut();
        if past.len() == CAPACITY {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Fails when nobody follows.
        let _ = self.followers.send(event);
    }

    /// What is remembered, and everything from now on.
    pub(super) fn follow(&self) -> (Vec<Event>, Follower) {
        let past = self.past.borrow().iter().cloned().collect();
        (past, Follower(self.followers.subscribe()))
    }
}

/// Who follows.
pub(super) struct Follower(broadcast::Receiver<Event>);

impl Follower {
    /// Waits for the next one; none when the box has ended. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => {
                let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                Some(Event { at, kind: EventKind::EventsLost { events } })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

fn log(news: &EventKind) {
    match news {
        EventKind::Ready { name } => tracing::info!(%name, "ready"),
        EventKind::Stopping { signal } => tracing::info!(%signal, "stopping"),
        EventKind::UplinkFailed { uplink, reason } => {
            tracing::warn!(%uplink, reason, "line has failed")
        }
        EventKind::UplinkHealthy { uplink } => tracing::info!(%uplink, "line is healthy"),
        EventKind::SessionsEnded { uplink, sessions } => {
            tracing::info!(%uplink, sessions, "sessions ended, so that they begin again elsewhere");
        }
        EventKind::AddressChanged { uplink, address, sessions_ended } => {
            let address = address.map_or("none".to_owned(), |address| address.to_string());
            tracing::info!(%uplink, %address, sessions_ended, "address followed");
        }
        EventKind::InterfaceRemoved { interface } => {
            tracing::warn!(%interface, "interface is gone; its packets are lost until it returns");
        }
        EventKind::InterfaceDown { interface } => tracing::warn!(%interface, "interface is down"),
        EventKind::InterfaceUp { interface } => tracing::info!(%interface, "interface is up"),
        EventKind::MtuChanged { interface, mtu } => tracing::info!(%interface, mtu, "MTU changed"),
        EventKind::TunDown { tun } => tracing::warn!(
            %tun, "the TUN is down; nothing is translated until it is up (ip link set {tun} up)"
        ),
        EventKind::TunUp { tun } => tracing::info!(%tun, "the TUN is up again"),
        EventKind::Reloaded { changed, sessions_ended } => {
            tracing::info!(changed = %changed.join(", "), sessions_ended, "configuration reloaded");
        }
        EventKind::ReloadFailed { error } => tracing::error!("not reloaded: {error}"),
        EventKind::ResourceExhausted { reason, packets, why } => {
            tracing::warn!(reason, packets, why, "packets are being dropped");
        }
        EventKind::EventsLost { events } => tracing::debug!(events, "events missed"),
    }
}

/// Events that are remembered, and that may wait for a follower.
const CAPACITY: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(number: usize) -> EventKind {
        EventKind::UplinkFailed { uplink: number.to_string(), reason: "no answer".to_owned() }
    }

    #[test]
    fn an_event_is_one_flat_object_and_reads_back() {
        let event = Event { at: "2026-11-25T15:00:00.000Z".to_owned(), kind: failed(1) };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"at":"2026-11-25T15:00:00.000Z","event":"uplink-failed","uplink":"1","reason":"no answer"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[tokio::test]
    async fn a_follower_gets_the_past_and_what_comes_and_is_told_what_it_missed() {
        let events = Events::new();
        (0..CAPACITY + 5).for_each(|number| events.emit(failed(number)));
        let (past, mut follower) = events.follow();
        assert_eq!((past.len(), &past[0].kind), (CAPACITY, &failed(5)), "the oldest give way");
        events.emit(failed(7));
        assert_eq!(follower.next().await.map(|event| event.kind), Some(failed(7)));

        // The channel rounds its room up.
        let sent = 2 * CAPACITY.next_power_of_two();
        (0..sent).for_each(|number| events.emit(failed(number)));
        let missed = follower.next().await.map(|event| event.kind);
        let Some(EventKind::EventsLost { events: missed }) = missed else { panic!("{missed:?}") };
        let first = follower.next().await.map(|event| event.kind);
        assert_eq!(first, Some(failed(missed as usize)));
        drop(events);
        let mut last = None;
        while let Some(event) = follower.next().await {
            last = Some(event.kind);
        }
        assert_eq!(last, Some(failed(sent - 1)));
    }
}

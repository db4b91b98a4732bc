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
    pub news: News,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
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
    LineFailed {
        /// Its name.
        uplink: String,
        /// Why.
        reason: String,
    },
    /// A line is healthy again.
    LineHealthy {
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
    AddressFollowed {
        /// The line.
        uplink: String,
        /// The address, if it has one.
        address: Option<Ipv4Addr>,
        /// How many sessions of the box had an address that is gone, and ended.
        sessions_ended: usize,
    },
    /// The interface of a leg does not exist any more.
    InterfaceGone {
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
    NotReloaded {
        /// Why.
        error: String,
    },
    /// Something has run out.
    Dropping {
        /// The reason, as `natbox status` names it.
        reason: String,
        /// Packets dropped since it was told last.
        packets: u64,
        /// What it means.
        why: String,
    },
    /// Who follows did not read in time.
    Missed {
        /// How many events are missing here.
        events: u64,
    },
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { name } => write!(f, "{name} is ready"),
            Self::Stopping { signal } => write!(f, "stopping ({signal})"),
            Self::LineFailed { uplink, reason } => write!(f, "line {uplink} has failed: {reason}"),
            Self::LineHealthy { uplink } => write!(f, "line {uplink} is healthy"),
            Self::SessionsEnded { uplink, sessions } => {
                write!(
                    f,
                    "line {uplink}: {sessions} sessions ended, so that they begin again elsewhere"
                )
            }
            Self::AddressFollowed { uplink, address: Some(address), sessions_ended } => {
                write!(
                    f,
                    "line {uplink} has the address {address}; {sessions_ended} sessions ended"
                )
            }
            Self::AddressFollowed { uplink, address: None, sessions_ended } => {
                write!(f, "line {uplink} has no address; {sessions_ended} sessions ended")
            }
            Self::InterfaceGone { interface } => write!(f, "interface {interface} is gone"),
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
            Self::NotReloaded { error } => write!(f, "configuration refused: {error}"),
            Self::Dropping { reason, packets, why } => {
                write!(f, "{packets} packets dropped, {reason}: {why}")
            }
            Self::Missed { events } => write!(f, "{events} events were not read in time"),
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
        Self { past: RefCell::default(), followers: broadcast::Sender::new(ROOM) }
    }

    /// Writes it into the log and tells the followers.
    pub(super) fn tell(&self, news: News) {
        log(&news);
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let event = Event { at, news };
        let mut past = self.past.borrow_mut();
        if past.len() == ROOM {
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
                Some(Event { at, news: News::Missed { events } })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

fn log(news: &News) {
    match news {
        News::Ready { name } => tracing::info!(%name, "ready"),
        News::Stopping { signal } => tracing::info!(%signal, "stopping"),
        News::LineFailed { uplink, reason } => tracing::warn!(%uplink, reason, "line has failed"),
        News::LineHealthy { uplink } => tracing::info!(%uplink, "line is healthy"),
        News::SessionsEnded { uplink, sessions } => {
            tracing::info!(%uplink, sessions, "sessions ended, so that they begin again elsewhere");
        }
        News::AddressFollowed { uplink, address, sessions_ended } => {
            let address = address.map_or("none".to_owned(), |address| address.to_string());
            tracing::info!(%uplink, %address, sessions_ended, "address followed");
        }
        News::InterfaceGone { interface } => {
            tracing::warn!(%interface, "interface is gone; its packets are lost until it returns");
        }
        News::InterfaceDown { interface } => tracing::warn!(%interface, "interface is down"),
        News::InterfaceUp { interface } => tracing::info!(%interface, "interface is up"),
        News::MtuChanged { interface, mtu } => tracing::info!(%interface, mtu, "MTU changed"),
        News::TunDown { tun } => tracing::warn!(
            %tun, "the TUN is down; nothing is translated until it is up (ip link set {tun} up)"
        ),
        News::TunUp { tun } => tracing::info!(%tun, "the TUN is up again"),
        News::Reloaded { changed, sessions_ended } => {
            tracing::info!(changed = %changed.join(", "), sessions_ended, "configuration reloaded");
        }
        News::NotReloaded { error } => tracing::error!("not reloaded: {error}"),
        News::Dropping { reason, packets, why } => {
            tracing::warn!(reason, packets, why, "packets are being dropped");
        }
        News::Missed { events } => tracing::debug!(events, "events missed"),
    }
}

/// Events that are remembered, and that may wait for a follower.
const ROOM: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(number: usize) -> News {
        News::LineFailed { uplink: number.to_string(), reason: "no answer".to_owned() }
    }

    #[test]
    fn an_event_is_one_flat_object_and_reads_back() {
        let event = Event { at: "2026-11-25T15:00:00.000Z".to_owned(), news: failed(1) };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"at":"2026-11-25T15:00:00.000Z","event":"line-failed","uplink":"1","reason":"no answer"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[tokio::test]
    async fn a_follower_gets_the_past_and_what_comes_and_is_told_what_it_missed() {
        let events = Events::new();
        (0..ROOM + 5).for_each(|number| events.tell(failed(number)));
        let (past, mut follower) = events.follow();
        assert_eq!((past.len(), &past[0].news), (ROOM, &failed(5)), "the oldest give way");
        events.tell(failed(7));
        assert_eq!(follower.next().await.map(|event| event.news), Some(failed(7)));

        // The channel rounds its room up.
        let sent = 2 * ROOM.next_power_of_two();
        (0..sent).for_each(|number| events.tell(failed(number)));
        let missed = follower.next().await.map(|event| event.news);
        let Some(News::Missed { events: missed }) = missed else { panic!("{missed:?}") };
        let first = follower.next().await.map(|event| event.news);
        assert_eq!(first, Some(failed(missed as usize)));
        drop(events);
        let mut last = None;
        while let Some(event) = follower.next().await {
            last = Some(event.news);
        }
        assert_eq!(last, Some(failed(sent - 1)));
    }
}

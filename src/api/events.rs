//! Events: state changes of an instance, as JSON objects and as sentences.
//!
//! A healthy uplink causes a few events a day. Packets and sessions cause no events:
//! `natbox status` counts packets, and `natbox sessions` lists sessions.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::reload::RevertReason;
use crate::config::counted;

/// A state change of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time in UTC (RFC 3339).
    pub at: String,
    /// The change.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Kinds of state changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The instance waits for interfaces that are missing or down. Until then it changes nothing on
    /// the host. The event comes again when the list changes.
    Waiting {
        /// The interfaces, as sentences, each with its key.
        missing: Vec<String>,
    },
    /// The instance translates packets and its admin socket is ready.
    Ready {
        /// Name of the instance.
        name: String,
    },
    /// The instance is about to end.
    Stopping {
        /// Name of the signal.
        signal: String,
    },
    /// An uplink stopped being healthy.
    UplinkFailed {
        /// Name of the uplink.
        uplink: String,
        /// Reason.
        reason: String,
    },
    /// An uplink is healthy again.
    UplinkHealthy {
        /// Name of the uplink.
        uplink: String,
    },
    /// Another tier is in use: the uplinks of the tier before have failed, or uplinks of a lower
    /// tier are healthy again. While no uplink is healthy, the tier in use is that of the last
    /// resorts.
    TierChanged {
        /// Tier in use.
        tier: u32,
        /// Tier that was in use before.
        before: u32,
        /// Names of the uplinks in use.
        uplinks: Vec<String>,
    },
    /// natbox ended sessions of a failed uplink, or sessions that belong on a recovered uplink, so
    /// that the hosts open them again.
    SessionsEnded {
        /// Name of the uplink.
        uplink: String,
        /// Number of sessions.
        sessions: usize,
    },
    /// An administrator ended sessions (`natbox kill`).
    SessionsKilled {
        /// Filter that the sessions matched.
        filter: String,
        /// Number of sessions.
        sessions: u64,
    },
    /// The address or the gateway of an uplink's interface changed.
    AddressChanged {
        /// Name of the uplink.
        uplink: String,
        /// Address; None: the interface has none.
        address: Option<Ipv4Addr>,
        /// Sessions that ended because their external address is gone.
        sessions_ended: usize,
    },
    /// An interface of the configuration does not exist any more.
    InterfaceRemoved {
        /// Name of the interface.
        interface: String,
    },
    /// An interface of the configuration is down or has no carrier.
    InterfaceDown {
        /// Name of the interface.
        interface: String,
    },
    /// An interface of the configuration is up again.
    InterfaceUp {
        /// Name of the interface.
        interface: String,
    },
    /// The MTU of an interface changed.
    MtuChanged {
        /// Name of the interface.
        interface: String,
        /// MTU in bytes.
        mtu: u32,
    },
    /// The TUN device was set down.
    TunDown {
        /// Name of the TUN device.
        tun: String,
    },
    /// The TUN device is up again.
    TunUp {
        /// Name of the TUN device.
        tun: String,
    },
    /// Another program removed settings that natbox had made on the host, and natbox has made them
    /// again.
    HostRestored {
        /// The settings, as commands of `ip` and `sysctl`.
        changed: Vec<String>,
    },
    /// Another program removes settings of the host again and again. natbox makes them again after
    /// a growing pause, without further events.
    HostDisputed {
        /// The settings, and the usual cause.
        problem: String,
    },
    /// natbox moved its policy rules, so that no rule of another program takes its packets.
    RulesMoved {
        /// First priority of natbox's rules.
        priority: u32,
        /// Rules of other programs that came first; empty if natbox's rules return to their place.
        before: Vec<String>,
    },
    /// The instance read its configuration file again and uses it.
    Reloaded {
        /// Paths of the keys whose values changed.
        changed: Vec<String>,
        /// Sessions that ended because the new policy does not allow them.
        sessions_ended: usize,
    },
    /// The instance uses a new configuration, and goes back to the one before unless
    /// `natbox confirm` follows in time.
    ReloadPending {
        /// Seconds until the instance goes back.
        seconds: u64,
    },
    /// The configuration of a reload was confirmed and stays.
    ReloadConfirmed {
        /// Paths of the keys whose new values stay.
        changed: Vec<String>,
    },
    /// The instance went back to the configuration before a reload.
    ReloadReverted {
        /// Reason.
        reason: RevertReason,
        /// Paths of the keys that have their values of before.
        changed: Vec<String>,
        /// Sessions that ended because the configuration before the reload does not allow them.
        sessions_ended: usize,
    },
    /// The instance could not use the changed configuration file and keeps the old configuration.
    ReloadFailed {
        /// Reason.
        error: String,
    },
    /// A resource is exhausted and packets are dropped.
    ResourceExhausted {
        /// Drop reason, as in `natbox status`.
        reason: String,
        /// Number of packets dropped since the last event with this reason.
        packets: u64,
        /// Explanation of the drop reason.
        why: String,
    },
    /// A condition of the host prevents packets from passing, for example a rule of a firewall.
    HostWarning {
        /// The condition.
        found: String,
        /// Why it matters.
        why: String,
    },
    /// A condition of the host has ended.
    HostWarningEnded {
        /// The condition, as in [`EventKind::HostWarning`].
        found: String,
    },
    /// The reader of the events was slow, and events are missing at this place.
    EventsLost {
        /// Number of missing events.
        events: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { missing } => write!(f, "waiting: {}", missing.join("; ")),
            Self::Ready { name } => write!(f, "{name} is ready"),
            Self::Stopping { signal } => write!(f, "stopping ({signal})"),
            Self::UplinkFailed { uplink, reason } => write!(f, "uplink {uplink} failed: {reason}"),
            Self::UplinkHealthy { uplink } => write!(f, "uplink {uplink} is healthy"),
            Self::TierChanged { tier, before, uplinks } => {
                let uplinks = uplinks.join(", ");
                write!(f, "tier {tier} is in use instead of tier {before}: {uplinks}")
            }
            Self::SessionsEnded { uplink, sessions } => write!(
                f,
                "uplink {uplink}: {} ended; hosts open them again over an uplink in use",
                counted_sessions(*sessions)
            ),
            Self::SessionsKilled { filter, sessions } => {
                f.write_str(&sessions_killed(filter, *sessions))
            }
            Self::AddressChanged { uplink, address, sessions_ended } => {
                f.write_str(&address_changed(uplink, *address, *sessions_ended))
            }
            Self::InterfaceRemoved { interface } => write!(f, "interface {interface} was removed"),
            Self::InterfaceDown { interface } => write!(f, "interface {interface} is down"),
            Self::InterfaceUp { interface } => write!(f, "interface {interface} is up"),
            Self::MtuChanged { interface, mtu } => {
                write!(f, "interface {interface}: MTU is now {mtu} bytes")
            }
            Self::TunDown { tun } => {
                write!(f, "TUN device {tun} is down; no packet is translated")
            }
            Self::TunUp { tun } => write!(f, "TUN device {tun} is up"),
            Self::HostRestored { changed } => {
                write!(f, "another program changed the host; set again: {}", changed.join("; "))
            }
            Self::HostDisputed { problem } => f.write_str(problem),
            Self::RulesMoved { priority, before } => f.write_str(&rules_moved(*priority, before)),
            Self::Reloaded { changed, sessions_ended } => {
                f.write_str(&reloaded(changed, *sessions_ended))
            }
            Self::ReloadPending { seconds } => f.write_str(&reload_pending(*seconds)),
            Self::ReloadConfirmed { changed } => {
                write!(f, "the reload is confirmed: {}", changed.join(", "))
            }
            Self::ReloadReverted { reason, changed, sessions_ended } => {
                f.write_str(&reload_reverted(*reason, changed, *sessions_ended))
            }
            Self::ReloadFailed { error } => write!(f, "configuration not reloaded: {error}"),
            Self::ResourceExhausted { reason, packets, why } => {
                let packets = counted(*packets, "packet", "packets");
                write!(f, "{packets} dropped ({reason}): {why}")
            }
            Self::HostWarning { found, why } => write!(f, "{found}: {why}"),
            Self::HostWarningEnded { found } => write!(f, "no more: {found}"),
            Self::EventsLost { events } => {
                write!(f, "{} lost: slow reader", counted(*events, "event", "events"))
            }
        }
    }
}

fn counted_sessions(sessions: usize) -> String {
    counted(sessions, "session", "sessions")
}

fn rules_moved(priority: u32, before: &[String]) -> String {
    match before {
        [] => format!("policy rules moved back to priority {priority}"),
        before => {
            let before = before.join("`, `");
            format!("policy rules moved to priority {priority}, before `{before}`")
        }
    }
}

fn reloaded(changed: &[String], sessions_ended: usize) -> String {
    match changed {
        [] => "configuration reloaded: nothing changed".to_owned(),
        changed => {
            let (changed, sessions) = (changed.join(", "), counted_sessions(sessions_ended));
            format!("configuration reloaded: changed {changed}; {sessions} ended")
        }
    }
}

fn sessions_killed(filter: &str, sessions: u64) -> String {
    let sessions = counted(sessions, "session", "sessions");
    format!("{sessions} ended by request (filter `{filter}`)")
}

fn address_changed(uplink: &str, address: Option<Ipv4Addr>, sessions_ended: usize) -> String {
    let sessions = counted_sessions(sessions_ended);
    match address {
        Some(address) => format!("uplink {uplink}: address is now {address}; {sessions} ended"),
        None => format!("uplink {uplink}: no address; {sessions} ended"),
    }
}

fn reload_pending(seconds: u64) -> String {
    format!(
        "natbox goes back to the configuration before in {seconds} s, unless `natbox confirm` \
         follows"
    )
}

fn reload_reverted(reason: RevertReason, changed: &[String], sessions_ended: usize) -> String {
    let (reason, changed) = (reason.sentence(), changed.join(", "));
    let sessions = counted_sessions(sessions_ended);
    format!("went back from the reload, {reason}: {changed}; {sessions} ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_json_object_and_reads_back() {
        let kind =
            EventKind::UplinkFailed { uplink: "1".to_owned(), reason: "no answer".to_owned() };
        let event = Event { at: "2026-11-25T15:00:00.000Z".to_owned(), kind };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"at":"2026-11-25T15:00:00.000Z","event":"uplink-failed","uplink":"1","reason":"no answer"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        assert_eq!(event.kind.to_string(), "uplink 1 failed: no answer");
    }
}

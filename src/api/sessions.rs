//! The sessions of a running instance, page by page.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::config::counted;

/// Start of a page: a pool of the table and a record in it. The default is the start of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCursor {
    /// Pool of the table.
    pub pool: usize,
    /// Record in the pool.
    pub record: u32,
}

/// Some of the sessions. A session that begins or ends while pages are read may be missing. No
/// session is listed twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// Sessions in no particular order; a page can be empty.
    pub sessions: Vec<SessionView>,
    /// Start of the next page; None: this page is the last.
    pub next: Option<SessionCursor>,
}

/// Number of the sessions in a part of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Sessions that match.
    pub sessions: u64,
    /// The sessions of each value of the property by which they are grouped. Sessions without a
    /// value count under the empty text.
    pub groups: BTreeMap<String, GroupTotals>,
    /// Start of the next part; None: this part is the last.
    pub next: Option<SessionCursor>,
}

/// Sums over the sessions of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTotals {
    /// Sessions.
    pub sessions: u64,
    /// Bytes of both sides since the start of each session; 0 without `limits.accounting`.
    pub bytes: u64,
}

impl AddAssign for GroupTotals {
    fn add_assign(&mut self, Self { sessions, bytes }: Self) {
        self.sessions += sessions;
        self.bytes += bytes;
    }
}

/// Property by which sessions are grouped.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum SessionGroup {
    /// Address of the endpoint that opened the session.
    Client,
    /// Address and port of the endpoint that answers.
    Server,
    /// Address of the inside host: that of the client if both ends are inside.
    Host,
    /// Uplink.
    Uplink,
    /// Forward.
    Forward,
    /// State.
    State,
}

/// Progress of the end of sessions by request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilledSessions {
    /// Sessions ended so far.
    pub ended: u64,
    /// True in the last line.
    pub complete: bool,
}

/// A change of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChanged {
    /// Time in UTC (RFC 3339).
    pub at: String,
    /// The change.
    #[serde(flatten)]
    pub change: SessionChangeKind,
}

/// Kinds of changes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SessionChangeKind {
    /// The session began.
    Opened {
        /// The session.
        session: SessionView,
    },
    /// Both ends have taken part: the TCP handshake is complete.
    Established {
        /// The session.
        session: SessionView,
    },
    /// The session ended.
    Ended {
        /// Reason, such as `expired`.
        reason: String,
        /// The session before its end.
        session: SessionView,
    },
    /// The reader was slow, and changes are missing at this place.
    Lost {
        /// Number of missing changes, of all sessions.
        events: u64,
    },
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionView {
    /// Identifier. It names no other session for a long time after the end of this one.
    pub id: u64,
    /// `tcp`, `udp`, `icmp`, or `ip-` and a number.
    pub protocol: String,
    /// State, such as `established`.
    pub state: String,
    /// Kind of the session: `forward`, `outbound`, `forward-outbound`, `inbound`, `hairpin` or
    /// `hairpin-forward`.
    pub origin: String,
    /// Name of the uplink that carries the session.
    pub uplink: String,
    /// Name of the forward that the session uses, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Endpoint that opened the session, as its own packets name it.
    pub client: String,
    /// External endpoint of the inside end: that of the server if both ends are inside.
    pub published: String,
    /// Endpoint that answers, as its own packets name it.
    pub server: String,
    /// Packets of the side that opened the session, as they arrive.
    pub original: TupleView,
    /// Packets of the other side, as they arrive.
    pub reply: TupleView,
    /// Seconds since the last packet that refreshed the session.
    pub idle_seconds: u32,
    /// Seconds until the session ends if no packet arrives.
    pub expires_in_seconds: u32,
    /// Seconds, packets and bytes since the start. None without `limits.accounting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<SessionTraffic>,
}

/// What a session has carried since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionTraffic {
    /// Seconds since the start; wrong after 24 days.
    pub age_seconds: u32,
    /// Packets of the side that opened the session. A packet that the kernel has joined from
    /// several counts as one.
    pub packets: u64,
    /// Bytes of the side that opened the session, with IP headers.
    pub bytes: u64,
    /// Packets of the other side.
    pub reply_packets: u64,
    /// Bytes of the other side.
    pub reply_bytes: u64,
}

/// Source and destination of a packet, each as `address:port`. For ICMP the port is the query's
/// identifier, at the end that sends the query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TupleView {
    /// Source.
    pub source: String,
    /// Destination.
    pub destination: String,
}

/// One line: client, external endpoint, server, uplink, forward and state.
impl fmt::Display for SessionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, client, published, server, uplink, forward, state, .. } = self;
        match self.origin.as_str() {
            "outbound" | "forward-outbound" => {
                write!(f, "{protocol} {client} -> {server} as {published} uplink {uplink}")?;
            }
            _ => write!(f, "{protocol} {client} -> {published} to {server} uplink {uplink}")?,
        }
        if let Some(forward) = forward {
            write!(f, " forward {forward}")?;
        }
        write!(f, " state {state}")
    }
}

impl fmt::Display for SessionChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = &self.at;
        match &self.change {
            SessionChangeKind::Opened { session } => write!(f, "{at} opened       {session}"),
            SessionChangeKind::Established { session } => {
                write!(f, "{at} established  {session}")
            }
            SessionChangeKind::Ended { reason, session } => {
                write!(f, "{at} ended        {session}: {reason}")
            }
            SessionChangeKind::Lost { events } => {
                write!(f, "{at} {} lost: slow reader", counted(*events, "change", "changes"))
            }
        }
    }
}

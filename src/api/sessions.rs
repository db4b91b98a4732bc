//! The sessions of a running instance, page by page.

use serde::{Deserialize, Serialize};

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

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionView {
    /// `tcp`, `udp`, `icmp`, or `ip-` and a number.
    pub protocol: String,
    /// State, such as `established`.
    pub state: String,
    /// Kind of the session: `forward`, `outbound`, `forward-outbound`, `inbound`, `hairpin` or
    /// `hairpin-forward`.
    pub origin: String,
    /// Name of the uplink that carries the session.
    pub uplink: String,
    /// Packets of the side that opened the session, as they arrive.
    pub original: TupleView,
    /// Packets of the other side, as they arrive.
    pub reply: TupleView,
    /// Seconds until the session ends if no packet arrives.
    pub expires_in_seconds: u32,
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

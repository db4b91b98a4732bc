//! The sessions of a running box, page by page: what `natbox sessions` shows and the admin socket answers.

use serde::{Deserialize, Serialize};

use crate::nat::{SessionInfo, Translator};
use crate::packet::Tuple;
use crate::time::Tick;

/// Where a page begins: a pool of the table and a record in it. The first page begins at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCursor {
    pool: usize,
    record: u32,
}

/// Some of the sessions. Those that come or go while pages are read may or may not be seen; none is seen twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// They, in no particular order; may be none.
    pub sessions: Vec<SessionView>,
    /// Where the next page begins; None: this was the last.
    pub next: Option<SessionCursor>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionView {
    /// `tcp`, `udp`, `icmp`, or `ip-` and a number.
    pub protocol: String,
    /// Where it stands, such as `established`.
    pub state: String,
    /// How it came to be: `forward`, `outbound`, `published`, `inbound`, `hairpin` or `hairpin-forward`.
    pub origin: String,
    /// The uplink it goes over.
    pub uplink: String,
    /// Packets of the side that opened it, as they arrive.
    pub original: Ends,
    /// Packets of the other side, as they arrive.
    pub reply: Ends,
    /// Seconds until it ends if nothing more comes.
    pub expires_in_seconds: u32,
}

/// Both ends of a packet, as `address:port`; for ICMP the port is the query's identifier, at the end that asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ends {
    /// Where it comes from.
    pub source: String,
    /// Where it goes.
    pub destination: String,
}

/// The page that begins at a place.
pub(super) fn page(nat: &Translator, from: SessionCursor, now: Tick) -> SessionPage {
    let mut sessions = Vec::new();
    let mut next = Some((from.pool, from.record));
    for _ in 0..MAX_SLICES {
        let Some(place) = next.filter(|_| sessions.len() < PAGE) else { break };
        next = nat.table().list(place, SLICE, |listed| sessions.push(view(nat, &listed, now)));
    }
    SessionPage { sessions, next: next.map(|(pool, record)| SessionCursor { pool, record }) }
}

fn view(nat: &Translator, listed: &SessionInfo, now: Tick) -> SessionView {
    let ends = |tuple: &Tuple| Ends {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    let uplink = nat.policy().uplinks.get(usize::from(listed.uplink));
    SessionView {
        protocol: listed.original.protocol.to_string(),
        state: listed.state.name().to_owned(),
        origin: listed.origin.name().to_owned(),
        uplink: uplink.map(|uplink| uplink.name.clone()).unwrap_or_default(),
        original: ends(&listed.original),
        reply: ends(&listed.reply),
        expires_in_seconds: listed.deadline.since(now).0.div_ceil(1000),
    }
}

/// Sessions of a page, give or take a slice.
const PAGE: usize = 512;
/// Records looked at under one lock.
const SLICE: u32 = 1024;
/// In a large and empty table a page ends without any session, so that the control thread has time for others.
const MAX_SLICES: usize = 256;

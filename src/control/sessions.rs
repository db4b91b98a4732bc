//! The sessions of a running box, page by page: what `natbox sessions` shows and the admin socket answers.

use crate::api::{SessionCursor, SessionPage, SessionView, TupleView};
use crate::nat::{SessionInfo, Translator};
use crate::packet::Tuple;
use crate::time::Tick;

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
    let ends = |tuple: &Tuple| TupleView {
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

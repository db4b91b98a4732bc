//! Pages of sessions as the admin socket sends them and `natbox sessions` shows them.

use crate::api::{SessionCursor, SessionPage, SessionView, TupleView};
use crate::engine::Handle;
use crate::nat::{Filter, SessionInfo, TableCursor};
use crate::packet::Tuple;
use crate::time::Tick;

/// Returns the page that begins at `from`.
pub(super) fn page(engine: &Handle, from: SessionCursor) -> SessionPage {
    let (now, uplinks) = (Tick::now(), engine.uplink_names());
    let from = TableCursor { pool: from.pool, record: from.record };
    let page = engine.sessions(from, &Filter::default());
    let next = page.next.map(|TableCursor { pool, record }| SessionCursor { pool, record });
    let sessions = page.items.iter().map(|session| view(session, &uplinks, now)).collect();
    SessionPage { sessions, next }
}

pub(super) fn view(session: &SessionInfo, uplinks: &[String], now: Tick) -> SessionView {
    let tuple = |tuple: &Tuple| TupleView {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    SessionView {
        protocol: session.original.protocol.to_string(),
        state: session.state.name().to_owned(),
        origin: session.origin.name().to_owned(),
        uplink: uplinks.get(usize::from(session.uplink)).cloned().unwrap_or_default(),
        original: tuple(&session.original),
        reply: tuple(&session.reply),
        expires_in_seconds: session.deadline.since(now).0.div_ceil(1000),
    }
}

//! Pages of sessions as the admin socket sends them and `natbox sessions` shows them.

use crate::api::{SessionCursor, SessionPage, SessionView, TupleView};
use crate::nat::{Filter, SessionInfo, TableCursor, Translator};
use crate::packet::Tuple;
use crate::time::Tick;

/// Returns the page that begins at `from`.
pub(super) fn page(nat: &Translator, from: SessionCursor, now: Tick) -> SessionPage {
    let from = TableCursor { pool: from.pool, record: from.record };
    let page = nat.sessions(from, &Filter::default());
    let next = page.next.map(|TableCursor { pool, record }| SessionCursor { pool, record });
    SessionPage { sessions: page.items.iter().map(|info| view(nat, info, now)).collect(), next }
}

fn view(nat: &Translator, session: &SessionInfo, now: Tick) -> SessionView {
    let ends = |tuple: &Tuple| TupleView {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    let uplink = nat.policy().uplinks.get(usize::from(session.uplink));
    SessionView {
        protocol: session.original.protocol.to_string(),
        state: session.state.name().to_owned(),
        origin: session.origin.name().to_owned(),
        uplink: uplink.map(|uplink| uplink.name.clone()).unwrap_or_default(),
        original: ends(&session.original),
        reply: ends(&session.reply),
        expires_in_seconds: session.deadline.since(now).0.div_ceil(1000),
    }
}

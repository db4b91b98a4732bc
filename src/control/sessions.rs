//! The sessions of a running instance, page by page.

use crate::api::{SessionCursor, SessionPage, SessionView, TupleView};
use crate::engine::{Handle, ListCursor};
use crate::nat::SessionInfo;
use crate::packet::Tuple;
use crate::time::Tick;

/// Returns the page that begins at `from`. The control thread does other work between two slices of the table.
pub(super) async fn page(engine: &Handle, from: SessionCursor) -> SessionPage {
    let now = Tick::now();
    let mut sessions = Vec::new();
    let mut next = Some(ListCursor { pool: from.pool, record: from.record });
    for _ in 0..MAX_SLICES {
        let Some(from) = next.filter(|_| sessions.len() < PAGE) else { break };
        next = engine.list_sessions(from, |session, uplink| {
            sessions.push(view(session, uplink, now));
        });
        tokio::task::yield_now().await;
    }
    let next = next.map(|ListCursor { pool, record }| SessionCursor { pool, record });
    SessionPage { sessions, next }
}

fn view(session: &SessionInfo, uplink: &str, now: Tick) -> SessionView {
    let tuple = |tuple: &Tuple| TupleView {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    SessionView {
        protocol: session.original.protocol.to_string(),
        state: session.state.name().to_owned(),
        origin: session.origin.name().to_owned(),
        uplink: uplink.to_owned(),
        original: tuple(&session.original),
        reply: tuple(&session.reply),
        expires_in_seconds: session.deadline.since(now).0.div_ceil(1000),
    }
}

/// Sessions of a page. A page ends with the slice that reaches this number.
const PAGE: usize = 512;
/// Slices of a page. In a large and empty table, a page ends without any session.
const MAX_SLICES: usize = 256;

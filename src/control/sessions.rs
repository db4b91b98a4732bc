//! Sessions by request: pages of them, their number, and the end of those that match a filter.
//!
//! The functions of this module walk large parts of the table, so they run on threads of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{
    GroupTotals, SessionCount, SessionCursor, SessionGroup, SessionPage, SessionTraffic,
    SessionView, TupleView,
};
use crate::engine::{Handle, Listing};
use crate::filter::{FilterExpression, KnownNames, Subject};
use crate::nat::{Accounting, EndReason, SessionInfo, SessionKind, State, TableCursor};
use crate::packet::Tuple;
use crate::time::{Span, Tick};

/// Reads a filter and checks that what it names exists.
///
/// # Errors
/// What is wrong, for the user.
pub(super) fn read_filter(engine: &Handle, text: &str) -> Result<FilterExpression, String> {
    let filter: FilterExpression = text.parse().map_err(|error| format!("{error}"))?;
    let listing = engine.listing();
    let known = KnownNames {
        // A number without an uplink has an empty name.
        uplinks: listing.uplinks().into_iter().filter(|name| !name.is_empty()).collect(),
        forwards: listing.forwards(),
        states: State::NAMES,
        origins: SessionKind::NAMES,
        has_ages: listing.has_accounting(),
    };
    known.check(&filter).map_err(|error| error.to_string())?;
    Ok(filter)
}

/// Returns the page of matching sessions that begins at `from`.
pub(super) fn page(engine: &Handle, from: SessionCursor, filter: &FilterExpression) -> SessionPage {
    let mut sessions = Vec::new();
    let next = walk(engine, from, filter, |session, described| {
        sessions.push(described.view(session));
        sessions.len() < PAGE
    });
    SessionPage { sessions, next }
}

/// Counts the matching sessions in the part of the table that begins at `from`.
pub(super) fn count(
    engine: &Handle,
    from: SessionCursor,
    filter: &FilterExpression,
    group_by: Option<SessionGroup>,
) -> SessionCount {
    let (mut sessions, mut groups) = (0, BTreeMap::new());
    let next = walk(engine, from, filter, |session, described| {
        sessions += 1;
        if let Some(group) = group_by {
            let bytes = session.accounting.map_or(0, |traffic| traffic.bytes.iter().sum());
            *groups.entry(described.group(session, group)).or_default() +=
                GroupTotals { sessions: 1, bytes };
        }
        true
    });
    SessionCount { sessions, groups, next }
}

/// Outcome of a part of [`end`].
pub(super) struct EndedPart {
    /// Sessions that ended.
    pub ended: u64,
    /// Where to continue. None: the walk is complete, or `max` sessions have ended.
    pub next: Option<SessionCursor>,
}

/// Ends at most `max` of the matching sessions in the part of the table that begins at `from`. The
/// part ends early when many notifications wait for a worker.
pub(super) fn end(
    engine: &Handle,
    from: SessionCursor,
    filter: &FilterExpression,
    max: u64,
    reason: EndReason,
) -> EndedPart {
    let mut ended = 0;
    let next = walk(engine, from, filter, |session, described| {
        if ended < max && described.listing.end(session, reason) {
            ended += 1;
        }
        ended < max && described.listing.pending_notifications() < MAX_QUEUED_NOTIFICATIONS
    });
    EndedPart { ended, next: next.filter(|_| ended < max) }
}

/// Calls `take` for the matching sessions of a part of the table, and returns where the next part
/// begins. The part ends after the slice in which `take` returns false.
fn walk(
    engine: &Handle,
    from: SessionCursor,
    filter: &FilterExpression,
    mut take: impl FnMut(&SessionInfo, &Described<'_>) -> bool,
) -> Option<SessionCursor> {
    let listing = engine.listing();
    let described = Described::new(&listing);
    let (mut slice, mut goes_on) = (Vec::new(), true);
    let mut next = Some(TableCursor { pool: from.pool, record: from.record });
    for _ in 0..MAX_SLICES {
        let Some(cursor) = next.filter(|_| goes_on) else { break };
        slice.clear();
        next = listing.slice(cursor, &mut slice);
        for session in &slice {
            if filter.is_empty() || filter.matches(&described.subject(session)) {
                goes_on &= take(session, &described);
            }
        }
    }
    next.map(|TableCursor { pool, record }| SessionCursor { pool, record })
}

/// Sessions in the words of the configuration, as of one moment.
pub(super) struct Described<'l> {
    listing: &'l Listing,
    uplinks: Vec<&'l str>,
    now: Tick,
}

impl<'l> Described<'l> {
    pub(super) fn new(listing: &'l Listing) -> Self {
        Self { uplinks: listing.uplinks(), listing, now: Tick::now() }
    }

    /// The moment.
    pub(super) fn now(&self) -> Tick {
        self.now
    }

    fn uplink(&self, session: &SessionInfo) -> Option<&str> {
        self.uplinks.get(usize::from(session.uplink)).copied()
    }

    pub(super) fn subject(&self, session: &SessionInfo) -> Subject<'_> {
        subject(session, self.uplink(session), self.listing.forward_of(session), self.now)
    }

    pub(super) fn view(&self, session: &SessionInfo) -> SessionView {
        let uplink = self.uplink(session).unwrap_or_default();
        view(session, uplink, self.listing.forward_of(session), self.now)
    }

    fn group(&self, session: &SessionInfo, group: SessionGroup) -> String {
        match group {
            SessionGroup::Client => session.client().address.to_string(),
            SessionGroup::Server => session.server().to_string(),
            SessionGroup::Host => {
                let [of_client, of_server] = session.inside_endpoints();
                of_client.or(of_server).map_or_else(String::new, |end| end.address.to_string())
            }
            SessionGroup::Uplink => self.uplink(session).unwrap_or_default().to_owned(),
            SessionGroup::Forward => {
                self.listing.forward_of(session).unwrap_or_default().to_owned()
            }
            SessionGroup::State => session.state.name().to_owned(),
        }
    }
}

/// Returns a session as a filter sees it. `uplink` and `forward` are the names.
pub(super) fn subject<'n>(
    session: &SessionInfo,
    uplink: Option<&'n str>,
    forward: Option<&'n str>,
    now: Tick,
) -> Subject<'n> {
    let duration = |Span(milliseconds)| Duration::from_millis(milliseconds.into());
    Subject {
        original: session.original,
        reply: Some(session.reply),
        opened_from_inside: session.origin.initiator.is_inside(),
        answered_from_inside: session.origin.responder.is_inside(),
        uplink,
        forward,
        state: Some(session.state.name()),
        origin: Some(session.origin.name()),
        idle: Some(duration(now.since(session.last_seen))),
        age: session.accounting.map(|Accounting { start, .. }| duration(now.since(start))),
        expires: Some(duration(session.deadline.since(now))),
    }
}

/// Returns a session as clients of the admin socket see it. `uplink` and `forward` are the names.
pub(super) fn view(
    session: &SessionInfo,
    uplink: &str,
    forward: Option<&str>,
    now: Tick,
) -> SessionView {
    let tuple = |tuple: &Tuple| TupleView {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    let [of_client, of_server] = session.external_endpoints();
    SessionView {
        id: session.id.to_bits(),
        protocol: session.original.protocol.to_string(),
        state: session.state.name().to_owned(),
        origin: session.origin.name().to_owned(),
        uplink: uplink.to_owned(),
        forward: forward.map(str::to_owned),
        client: session.client().to_string(),
        published: of_server.or(of_client).map_or_else(String::new, |end| end.to_string()),
        server: session.server().to_string(),
        original: tuple(&session.original),
        reply: tuple(&session.reply),
        idle_seconds: now.since(session.last_seen).0 / 1000,
        expires_in_seconds: session.deadline.since(now).0.div_ceil(1000),
        traffic: session.accounting.map(|accounting| traffic(&accounting, now)),
    }
}

fn traffic(accounting: &Accounting, now: Tick) -> SessionTraffic {
    let ([packets, reply_packets], [bytes, reply_bytes]) = (accounting.packets, accounting.bytes);
    let age_seconds = now.since(accounting.start).0 / 1000;
    SessionTraffic { age_seconds, packets, bytes, reply_packets, reply_bytes }
}

/// Sessions of a page, give or take a slice.
const PAGE: usize = 512;
/// Slices of a part. A part of a large and empty table ends without any session, so that the caller
/// can show progress.
const MAX_SLICES: usize = 256;
/// Notifications that may wait before the end of further sessions pauses.
pub(super) const MAX_QUEUED_NOTIFICATIONS: usize = 4096;

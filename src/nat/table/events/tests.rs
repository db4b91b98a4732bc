use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::nat::policy::limits::Limits;
use crate::nat::table::key::Key;
use crate::nat::table::listing::TableCursor;
use crate::nat::table::session::{NewSession, SessionId, SessionKind};
use crate::nat::table::session_table::{FirstPacket, Table};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::Segment;
use crate::packet::{Protocol, TcpFlags, builder};
use crate::time::Span;

fn table(capacity: u32, workers: usize) -> Table {
    let limits = Limits::new("10.0.0.0/24".parse().expect("a prefix"));
    let idle_timeouts = IdleTimeouts::new(&limits.timeouts);
    Table::new(capacity, workers, idle_timeouts, [1, 2, 3, 4], Tick(0)).expect("memory")
}

fn session(number: u16) -> NewSession {
    let tuple = builder::tuple(Protocol::TCP, ([10, 0, 0, 1], number), ([192, 0, 2, 1], 80));
    NewSession {
        original: Key::of(tuple),
        reply: Key::of(tuple.reversed()),
        origin: SessionKind::FORWARD,
        uplink: 0,
        state: State::Tcp(TcpState::SynOriginal),
        idle: Span(0),
    }
}

fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Segment {
    let flags = TcpFlags(flags);
    Segment { flags, sequence, acknowledgement, window: 1000, payload: 0, scale: None }
}

/// A packet that opens a session.
fn first(segment: &Segment) -> FirstPacket<'_> {
    FirstPacket { segment: Some(segment), direction: Direction::Original, bytes: 0 }
}

/// Completes the handshake of a session.
fn handshake(table: &Table, new: &NewSession, now: Tick) -> SessionId {
    let id = table.insert(0, new, Some(first(&segment(0x02, 1000, 0))), now).expect("space");
    for (key, flags, sequence, acknowledgement) in
        [(new.reply, 0x12, 3000, 1001), (new.original, 0x10, 1001, 3001)]
    {
        let segment = segment(flags, sequence, acknowledgement);
        table.lookup_and_update(key, table.hash(key), Some(&segment), 0, now);
    }
    id
}

/// The changes that have come.
fn received(events: &SessionEvents) -> Vec<(SessionId, SessionChange)> {
    std::iter::from_fn(|| events.next_within(Duration::ZERO))
        .map(|event| (event.session.id, event.change))
        .collect()
}

#[test]
fn a_subscriber_learns_of_beginning_handshake_and_end_once_each() {
    use SessionChange::{Ended, Established, Opened};
    let table = table(16, 1);
    let early = session(1);
    handshake(&table, &early, Tick(0));
    let events = table.subscribe(100);
    let new = session(2);
    let id = handshake(&table, &new, Tick(5));
    assert_eq!(received(&events), [(id, Opened), (id, Established)]);
    // More data makes no event, nor does a session that is not added.
    let data = segment(0x18, 1001, 3001);
    table.lookup_and_update(new.original, table.hash(new.original), Some(&data), 0, Tick(6));
    assert!(table.insert(0, &new, None, Tick(6)).is_err());
    assert_eq!(received(&events), []);
    table.end(id, EndReason::Requested, Tick(7));
    let event = events.next().expect("the end");
    assert_eq!((event.change, event.at), (Ended(EndReason::Requested), Tick(7)));
    assert_eq!(event.session.original, new.original.tuple());
    assert_eq!(event.session.state, State::Tcp(TcpState::Established));
    let mut ended = Vec::new();
    while !table.expire(0, Tick(0).after(Span::seconds(8000)), 100, &mut ended) {}
    assert_eq!(ended.len(), 1);
    let event = events.next().expect("the end");
    assert_eq!(event.change, Ended(EndReason::Expired));
    assert_eq!(event.session.original, early.original.tuple());
}

#[test]
fn a_slow_subscriber_loses_events_and_knows_how_many() {
    let table = table(16, 1);
    let (slow, quick) = (table.subscribe(3), table.subscribe(100));
    for number in 0..10 {
        table.insert(0, &session(number), None, Tick(0)).expect("space");
    }
    assert_eq!((received(&slow).len(), slow.lost()), (3, 7));
    assert_eq!((received(&quick).len(), quick.lost()), (10, 0));
    // A subscriber that is gone costs the others nothing.
    drop(slow);
    table.insert(0, &session(10), None, Tick(0)).expect("space");
    table.insert(0, &session(11), None, Tick(0)).expect("space");
    assert_eq!((received(&quick).len(), quick.lost()), (2, 0));
    drop(quick);
    table.insert(0, &session(12), None, Tick(0)).expect("space");
    assert!(!table.subscribers.any());
}

/// A session of one of the two pools.
fn random_session(table: &Table, random: &mut StdRng) -> Option<SessionId> {
    let from = TableCursor { pool: random.random_range(0..2), record: random.random_range(0..3) };
    let mut found = None;
    table.list(from, 1, |session| found = Some(session.id));
    found
}

/// Two workers open, answer and end the same few sessions. Each session's events come in order.
#[test]
fn events_of_a_session_keep_their_order_while_workers_race() {
    const TUPLES: u16 = 8;
    let table = table(6, 2);
    let events = table.subscribe(1_000_000);
    std::thread::scope(|scope| {
        for worker in 0..2usize {
            let table = &table;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(worker as u64);
                for step in 0..40_000u32 {
                    let new = session(random.random_range(0..TUPLES));
                    let now = Tick(step);
                    match random.random_range(0..10) {
                        0..4 => {
                            let syn = segment(0x02, 1000, 0);
                            let _ = table.insert(worker, &new, Some(first(&syn)), now);
                        }
                        4..8 => {
                            for (key, segment) in [
                                (new.reply, segment(0x12, 3000, 1001)),
                                (new.original, segment(0x10, 1001, 3001)),
                            ] {
                                let hash = table.hash(key);
                                table.lookup_and_update(key, hash, Some(&segment), 0, now);
                            }
                        }
                        8 => drop(table.evict(worker, now)),
                        _ => {
                            if let Some(found) = random_session(table, &mut random) {
                                table.end(found, EndReason::Requested, now);
                            }
                        }
                    }
                }
            });
        }
    });
    assert_eq!(events.lost(), 0);
    let mut alive: HashMap<_, (SessionId, SessionChange)> = HashMap::new();
    let mut established = 0;
    for event in std::iter::from_fn(|| events.next_within(Duration::ZERO)) {
        let (tuple, id) = (event.session.original, event.session.id);
        let before = alive.get(&tuple).copied();
        match event.change {
            SessionChange::Opened => assert_eq!(before, None, "{tuple} is still open"),
            SessionChange::Established => {
                assert_eq!(before, Some((id, SessionChange::Opened)));
                established += 1;
            }
            SessionChange::Ended(_) => assert_eq!(before.map(|(id, _)| id), Some(id)),
        }
        match event.change {
            SessionChange::Ended(_) => alive.remove(&tuple),
            change @ (SessionChange::Opened | SessionChange::Established) => {
                alive.insert(tuple, (id, change))
            }
        };
    }
    assert!(established > 0, "no handshake was completed");
    assert_eq!(alive.len(), table.len() as usize);
    for (tuple, (id, _)) in alive {
        let found = table.lookup(Key::of(tuple), Tick(40_000)).expect("it is open");
        assert_eq!(found.direction, Direction::Original);
        assert!(table.session(id).is_some());
    }
}

//! The session table at its limits; below, against its model, under an aimed attack and under two
//! threads.

mod against_model;
mod aimed;
mod threads;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::nat::policy::limits::Limits;
use crate::nat::table::key::Key;
use crate::nat::table::session::{EndpointKind, NewSession, SessionId, SessionKind};
use crate::nat::table::{
    Accounting, EndReason, FirstPacket, InsertError, Lookup, Table, TableCursor,
};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::TcpState;
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::{Span, Tick};

#[test]
fn a_hundred_thousand_sessions_fill_a_table_for_a_hundred_thousand() {
    const CAPACITY: u32 = 100_000;
    for (workers, seed) in [(1, 1), (7, 2)] {
        let mut random = StdRng::seed_from_u64(seed);
        let now = Tick(0);
        let secret = std::array::from_fn(|_| random.random());
        let table = Table::new(CAPACITY, workers, idle_timeouts(), secret, now).expect("memory");
        // Three rounds: the second and third reuse records in another order.
        for round in 0..3 {
            let now = now.after(Span::seconds(1000 * round));
            let sessions: Vec<_> = (0..CAPACITY).map(|_| random_session(&mut random)).collect();
            for new in &sessions {
                assert!(table.insert(random.random_range(0..workers), new, None, now).is_ok());
            }
            assert_eq!(table.len(), CAPACITY);
            assert_eq!(
                table.insert(0, &random_session(&mut random), None, now),
                Err(InsertError::Full)
            );
            for new in &sessions {
                for (key, other) in [(new.original, new.reply), (new.reply, new.original)] {
                    let hit =
                        table.lookup(key, now).expect("every session can be found by both tuples");
                    assert_eq!(Key::of(hit.to.reversed()), other);
                }
            }
            for _ in 0..1000 {
                let stranger = random_session(&mut random).original;
                assert!(matches!(
                    table.lookup_and_update(stranger, table.hash(stranger), None, 0, now),
                    Lookup::Miss
                ));
            }
            assert_eq!(keys_of(&table).len(), 2 * CAPACITY as usize);
            let mut ended = Vec::new();
            for worker in 0..workers {
                while !table.expire(worker, now.after(Span::seconds(302)), 1000, &mut ended) {}
            }
            assert_eq!((ended.len(), table.len()), (CAPACITY as usize, 0));
        }
    }
}

/// The addresses and ports of an attacker's keys by their number.
type Attack = Box<dyn Fn(u32) -> (u64, u32)>;

/// An attacker who knows the hash function and not its secret chooses keys that differ in few bits,
/// at places that a weak hash would not mix. The keys must spread like random ones: the table takes
/// them to the last session, finds every one, and does not become slow.
#[test]
fn keys_chosen_by_an_attacker_fill_a_table_as_random_ones_do() {
    const CAPACITY: u32 = 60_000;
    let spread = |number: u32, bits: &[u32]| {
        bits.iter()
            .enumerate()
            .fold(0, |value, (index, bit)| value | u64::from(number >> index & 1) << bit)
    };
    let attacks: [(&str, Attack); 6] = [
        ("consecutive source ports and addresses", Box::new(|n| (u64::from(n >> 15), n << 17))),
        (
            "consecutive destination ports and addresses",
            Box::new(|n| (u64::from(n >> 15) << 32, n & 0x7fff)),
        ),
        ("both addresses alike", Box::new(|n| (u64::from(n) << 32 | u64::from(n), 80))),
        (
            "high bits only",
            Box::new(move |n| {
                (spread(n, &[63, 62, 61, 60, 31, 30, 29, 28, 59, 27, 58, 26, 57, 25, 56, 24]), 80)
            }),
        ),
        ("multiples of a large power of two", Box::new(|n| (u64::from(n) << 40, 0))),
        (
            "two halves that cancel in a sum",
            Box::new(|n| (u64::from(n) << 32 | u64::from(u32::MAX - n), 80)),
        ),
    ];
    for (name, key) in attacks {
        let mut random = StdRng::seed_from_u64(7);
        let secret = std::array::from_fn(|_| random.random());
        let table = Table::new(CAPACITY, 2, idle_timeouts(), secret, Tick(0)).expect("memory");
        let sessions: Vec<_> = (0..CAPACITY)
            .map(|number| {
                let (addresses, ports) = key(number);
                let original = Key { addresses, ports, protocol: Protocol::UDP.0 };
                NewSession {
                    original,
                    reply: Key { addresses: !addresses, ..original },
                    ..random_session(&mut random)
                }
            })
            .collect();
        for new in &sessions {
            assert!(table.insert(0, new, None, Tick(0)).is_ok(), "{name}");
        }
        assert_eq!(
            table.insert(0, &random_session(&mut random), None, Tick(0)),
            Err(InsertError::Full)
        );
        for new in &sessions {
            assert!(table.lookup(new.original, Tick(0)).is_some(), "{name}");
            assert!(table.lookup(new.reply, Tick(0)).is_some(), "{name}");
        }
        // Half of the slots are taken, so nearly every entry lies in its home bucket.
        let displaced = table.displaced();
        assert!(
            displaced < CAPACITY / 10,
            "{name}: {displaced} entries of {} are not in their home bucket",
            2 * CAPACITY
        );
    }
}

#[test]
fn accounting_counts_packets_and_bytes_of_each_direction() {
    let plain = Table::new(2, 1, idle_timeouts(), [1, 2, 3, 4], Tick(0)).expect("memory");
    let new = random_session(&mut StdRng::seed_from_u64(1));
    let id = plain.insert(0, &new, None, Tick(5)).expect("space");
    assert_eq!(plain.session(id).expect("it is there").accounting, None);

    let table = Table::new(2, 1, idle_timeouts(), [1, 2, 3, 4], Tick(0)).expect("memory");
    let table = table.with_accounting().expect("memory");
    for round in 0..3u32 {
        let start = Tick(1000 * round);
        let opener = FirstPacket { segment: None, direction: Direction::Original, bytes: 60 };
        let id = table.insert(0, &new, Some(opener), start).expect("space");
        for (key, bytes) in [(new.reply, 1500), (new.original, 52), (new.reply, 40)] {
            let later = start.after(Span(7));
            table.lookup_and_update(key, table.hash(key), None, bytes, later);
        }
        assert!(
            table.lookup(new.reply, start).is_some(),
            "a lookup without a packet does not count"
        );
        let expected = Accounting { start, packets: [2, 2], bytes: [112, 1540] };
        assert_eq!(table.session(id).expect("it is there").accounting, Some(expected));
        table.end(id, EndReason::Requested, start);
    }
}

/// An administrator's "end this session" may come after the session has ended and another one has
/// its record. That other session must live on.
#[test]
fn a_stale_identifier_names_no_session() {
    let table = Table::new(2, 1, idle_timeouts(), [1, 2, 3, 4], Tick(0)).expect("memory");
    let mut random = StdRng::seed_from_u64(1);
    let mut insert = || {
        let new = random_session(&mut random);
        (table.insert(0, &new, None, Tick(0)).expect("space"), new)
    };
    let mut stale = Vec::new();
    for _ in 0..1000 {
        let (id, new) = insert();
        assert!(!stale.contains(&id));
        assert_eq!(SessionId::from_bits(id.to_bits()), Some(id));
        assert!(
            stale.iter().all(|stale| table.end(*stale, EndReason::Requested, Tick(0)).is_none())
        );
        assert_eq!(
            table.end(id, EndReason::Requested, Tick(0)).map(|ended| ended.original),
            Some(new.original)
        );
        assert_eq!(table.end(id, EndReason::Requested, Tick(0)), None);
        stale.push(id);
    }
    let (_, survivor) = insert();
    for id in stale {
        table.reschedule(id, Tick(0));
        assert_eq!(table.reap_if_expired(id, Tick(1 << 30)), None);
    }
    assert!(table.lookup(survivor.original, Tick(0)).is_some());
    for bits in [0, 7, 1 << 48, u64::MAX] {
        assert_eq!(SessionId::from_bits(bits), None, "no table makes {bits}");
    }
    let foreign = SessionId::from_bits(1 << 32 | 1_000_000).expect("a well-formed number");
    assert_eq!(table.end(foreign, EndReason::Requested, Tick(0)), None);
}

/// Both tuples of every session that the table lists.
fn keys_of(table: &Table) -> HashSet<Key> {
    let mut keys = HashSet::new();
    let mut next = Some(TableCursor::default());
    while let Some(from) = next {
        next = table.list(from, 64, |session| {
            for tuple in [session.original, session.reply] {
                assert!(keys.insert(Key::of(tuple)), "{tuple} is listed twice");
            }
        });
    }
    keys
}

fn tuple(number: u32) -> Key {
    // Neighbours in number differ in one part; port 53 is one of the ports.
    let protocol = [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol(47)];
    let endpoint = |number: u32| {
        let address = Ipv4Addr::from_bits(0x0a00_0001 + number / 4);
        Endpoint::new(address, [53, 80, 1000, 1001][(number % 4) as usize])
    };
    Key::of(Tuple {
        protocol: protocol[(number % 4) as usize],
        source: endpoint(number / 4 % 5),
        destination: endpoint(number / 20),
    })
}

/// A session of the tuples of these numbers; the reply gets the protocol of the original.
fn session(original: u32, reply: u32, midstream: bool) -> NewSession {
    let (original, reply) = (tuple(original), tuple(reply));
    let state = match Protocol(original.protocol) {
        Protocol::TCP if midstream => State::Tcp(TcpState::Midstream),
        Protocol::TCP => State::Tcp(TcpState::SynOriginal),
        Protocol::UDP if midstream => State::Tentative,
        Protocol::UDP => State::Udp,
        Protocol::ICMP => State::Icmp,
        _ => State::Other,
    };
    let reply = Key { protocol: original.protocol, ..reply };
    NewSession {
        original,
        reply,
        origin: if state == State::Tentative { FROM_SERVER } else { SessionKind::FORWARD },
        uplink: (original.ports % 5) as u8,
        state,
        idle: Span(0),
    }
}

/// A session that a published server opens.
const FROM_SERVER: SessionKind =
    SessionKind { initiator: EndpointKind::Forward, responder: EndpointKind::Outside };

pub(super) fn random_session(random: &mut StdRng) -> NewSession {
    let mut key =
        || Key { addresses: random.random(), ports: random.random(), protocol: Protocol::UDP.0 };
    NewSession {
        original: key(),
        reply: key(),
        origin: SessionKind::OUTBOUND,
        uplink: 1,
        state: State::Udp,
        idle: Span(0),
    }
}

/// The default timeouts.
pub(super) fn idle_timeouts() -> IdleTimeouts {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    IdleTimeouts::new(&Limits::new(inside).timeouts)
}

/// Distinct tuples, so few that conflicts of tuples are frequent.
const TUPLES: u32 = 160;

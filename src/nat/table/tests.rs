//! The session table against its model, at its limits, and under two threads.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proptest::prelude::*;
use proptest::sample::Index;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::nat::policy::limits::Limits;
use crate::nat::table::key::Key;
use crate::nat::table::model::{Expected, Known, Model};
use crate::nat::table::session::{EndpointKind, NewSession, SessionId, SessionKind};
use crate::nat::table::{
    Accounting, EndReason, EndedSession, FirstPacket, InsertError, Lookup, Table, TableCursor,
};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::Segment;
use crate::packet::{Endpoint, Protocol, TcpFlags, Tuple};
use crate::time::{Span, Tick};

/// An operation on table and model alike. Tuples are numbers of [`tuple`].
#[derive(Clone, Debug)]
enum Operation {
    Insert {
        original: u32,
        reply: u32,
        midstream: bool,
    },
    Track {
        target: Target,
        segment: Segment,
    },
    Peek {
        target: Target,
    },
    Sleep(Span),
    /// A slice of expiry work, which may be much too small.
    Expire {
        budget: u32,
    },
    /// Expiry until nothing is due.
    CatchUp,
    Evict,
    List {
        limit: u32,
    },
}

#[derive(Clone, Debug)]
enum Target {
    Tuple(u32),
    /// A tuple of a live session.
    Session(Index, bool),
}

/// An operation, its worker, and the age of the worker's time in milliseconds: the worker reads the
/// clock once per batch.
type Step = (Operation, usize, u32);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let target = prop_oneof![
        1 => (0..TUPLES).prop_map(Target::Tuple),
        4 => any::<(Index, bool)>().prop_map(|(session, reply)| Target::Session(session, reply)),
    ];
    let sequence = prop::sample::select(vec![1000u32, 1001, 1101, 60_000, 1 << 30]);
    // SYN, SYN-ACK, ACK, FIN, RST.
    let segment = (
        prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x11, 0x04]),
        sequence.clone(),
        sequence,
        0..2u32,
    )
        .prop_map(|(flags, sequence, acknowledgement, hundreds)| Segment {
            flags: TcpFlags(flags),
            sequence,
            acknowledgement,
            window: 1000,
            payload: hundreds * 100,
            scale: None,
        });
    let sleep = prop_oneof![
        4 => (0..3000u32).prop_map(Span),
        4 => prop::sample::select(vec![5, 9, 11, 29, 61, 239, 262, 301, 7500]).prop_map(Span::seconds),
    ];
    let operation = prop_oneof![
        8 => (0..TUPLES, 0..TUPLES, any::<bool>())
            .prop_map(|(original, reply, midstream)| Operation::Insert { original, reply, midstream }),
        8 => (target.clone(), segment).prop_map(|(target, segment)| Operation::Track { target, segment }),
        2 => target.prop_map(|target| Operation::Peek { target }),
        3 => sleep.prop_map(Operation::Sleep),
        2 => (0..20u32).prop_map(|budget| Operation::Expire { budget }),
        2 => Just(Operation::CatchUp),
        1 => Just(Operation::Evict),
        1 => (1..10u32).prop_map(|limit| Operation::List { limit }),
    ];
    let delay = prop_oneof![4 => Just(0), 1 => 0..=LAG.0];
    prop::collection::vec((operation, 0..3usize, delay), 1..400)
}

/// Table and model side by side.
struct Pair {
    table: Table,
    model: Model,
    workers: usize,
    now: Tick,
}

impl Pair {
    fn new(capacity: u32, workers: usize, secret: [u64; 4], now: Tick) -> Self {
        let table = Table::new(capacity, workers, idle_timeouts(), secret, now).expect("memory");
        Self { table, model: Model::new(capacity as usize, idle_timeouts()), workers, now }
    }

    fn key(&self, target: &Target) -> Key {
        match target {
            Target::Session(index, reply) if !self.model.sessions.is_empty() => {
                let session = index.get(&self.model.sessions).new;
                if *reply { session.reply } else { session.original }
            }
            Target::Session(..) => tuple(0),
            Target::Tuple(number) => tuple(*number),
        }
    }

    fn step(&mut self, (operation, worker, delay): &Step) -> Result<(), TestCaseError> {
        let (worker, now) = (*worker, Tick(self.now.0.wrapping_sub(*delay)));
        match operation {
            Operation::Insert { original, reply, midstream } => {
                let new = session(*original, *reply, *midstream);
                let inserted = self.table.insert(worker, &new, None, now).map(|_| ());
                prop_assert_eq!(inserted, self.model.insert(&new, None, now));
            }
            Operation::Track { target, segment } => self.track(self.key(target), segment, now)?,
            Operation::Peek { target } => {
                let key = self.key(target);
                let found = self.table.lookup(key, now).map(|hit| Expected::of(&hit));
                let expected = match self.model.peek(key, now) {
                    Known::Hit(expected) => Some(expected),
                    Known::Miss | Known::Expired(_) => None,
                };
                prop_assert_eq!(found, expected);
            }
            Operation::Sleep(span) => self.now = self.now.after(*span),
            Operation::Expire { budget } => {
                let mut ended = Vec::new();
                self.table.expire(worker, now, *budget, &mut ended);
                self.remove_ended(&ended, now)?;
            }
            Operation::CatchUp => self.catch_up()?,
            Operation::Evict => match self.table.evict(worker, now) {
                Some(ended) => {
                    let session = self.model.remove(&ended);
                    // With several pools another pool may have the better victim.
                    let fair = self.workers > 1 || self.model.is_right_victim(&session, now);
                    prop_assert!(fair, "{:?} was evicted", session.state);
                }
                None => prop_assert!(self.workers > 1 || !self.model.has_victim(now)),
            },
            Operation::List { limit } => self.list(*limit)?,
        }
        prop_assert_eq!(self.table.len() as usize, self.model.sessions.len());
        Ok(())
    }

    fn track(&mut self, key: Key, segment: &Segment, now: Tick) -> Result<(), TestCaseError> {
        let segment = (key.protocol == Protocol::TCP.0).then_some(segment);
        let expected = self.model.track(key, segment, now);
        match self.table.lookup_and_update(key, self.table.hash(key), segment, 0, now) {
            Lookup::Miss => prop_assert_eq!(Known::Miss, expected),
            Lookup::Hit(hit) => {
                prop_assert_eq!(Known::Hit(Expected::of(&hit)), expected);
                if let Some(id) = hit.reschedule {
                    self.table.reschedule(id, now);
                }
            }
            Lookup::Expired(id) => {
                let ended = self.table.reap_if_expired(id, now);
                prop_assert_eq!(ended.map(|ended| Known::Expired(ended.original)), Some(expected));
                self.remove_ended(ended.as_slice(), now)?;
                prop_assert_eq!(
                    self.table.reap_if_expired(id, now),
                    None,
                    "nothing is ended twice"
                );
            }
        }
        Ok(())
    }

    /// Removes sessions that the table has ended from the model; each must have been due.
    fn remove_ended(&mut self, ended: &[EndedSession], now: Tick) -> Result<(), TestCaseError> {
        for ended in ended {
            let session = self.model.remove(ended);
            prop_assert!(
                now.reached(session.deadline(&self.model.idle_timeouts)),
                "{:?} was not due",
                session.state
            );
        }
        Ok(())
    }

    fn catch_up(&mut self) -> Result<(), TestCaseError> {
        for worker in 0..self.workers {
            let mut ended = Vec::new();
            while !self.table.expire(worker, self.now, 7, &mut ended) {}
            self.remove_ended(&ended, self.now)?;
        }
        prop_assert_eq!(self.model.overdue(self.now, SLACK), 0);
        Ok(())
    }

    fn list(&self, limit: u32) -> Result<(), TestCaseError> {
        let mut listed = HashMap::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            let mut count = 0;
            next = self.table.list(from, limit, |session| {
                count += 1;
                let value = (
                    session.reply,
                    session.origin,
                    session.uplink,
                    session.state,
                    session.deadline,
                );
                assert!(
                    listed.insert(session.original, value).is_none(),
                    "{} is listed twice",
                    session.original
                );
            });
            prop_assert!(count <= limit);
        }
        let idle_timeouts = &self.model.idle_timeouts;
        let expected: HashMap<_, _> = self
            .model
            .sessions
            .iter()
            .map(|session| {
                let NewSession { original, reply, origin, uplink, .. } = session.new;
                let value =
                    (reply.tuple(), origin, uplink, session.state, session.deadline(idle_timeouts));
                (original.tuple(), value)
            })
            .collect();
        prop_assert_eq!(listed, expected);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_table_does_what_its_model_does(
        capacity in prop_oneof![1..=8u32, 1..=64u32],
        workers in 1..=3usize,
        secret in any::<[u64; 4]>(),
        start in prop_oneof![Just(0), Just(u32::MAX - 5000), Just(u32::MAX / 2 - 5000), any::<u32>()],
        steps in steps(),
    ) {
        let mut pair = Pair::new(capacity, workers, secret, Tick(start));
        for step in &steps {
            pair.step(step)?;
        }
        pair.list(1)?;
        pair.list(u32::MAX)?;
        // No record has leaked: after all sessions have ended, the table takes its capacity again
        // and not one session more.
        pair.now = pair.now.after(Span::seconds(7500));
        pair.catch_up()?;
        prop_assert!(pair.table.is_empty());
        let mut random = StdRng::seed_from_u64(secret[0]);
        for number in 0..capacity {
            let new = random_session(&mut random);
            prop_assert!(pair.table.insert(number as usize, &new, None, pair.now).is_ok());
        }
        let one_more = random_session(&mut random);
        prop_assert_eq!(pair.table.insert(0, &one_more, None, pair.now), Err(InsertError::Full));
    }
}

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
    let id = plain.insert(0, &new, None, Tick(5)).expect("room");
    assert_eq!(plain.session(id).expect("it is there").accounting, None);

    let table = Table::new(2, 1, idle_timeouts(), [1, 2, 3, 4], Tick(0)).expect("memory");
    let table = table.with_accounting().expect("memory");
    for round in 0..3u32 {
        let start = Tick(1000 * round);
        let opener = FirstPacket { segment: None, direction: Direction::Original, bytes: 60 };
        let id = table.insert(0, &new, Some(opener), start).expect("room");
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
        (table.insert(0, &new, None, Tick(0)).expect("room"), new)
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

/// Threads insert, track and expire few tuples in a small table while the clock runs fast. The test
/// counts the insertions less the ends of each tuple; the counts must equal the sessions that the
/// table lists.
#[test]
fn threads_neither_lose_nor_duplicate_a_session() {
    const CAPACITY: u32 = 300;
    const ROUNDS: u32 = 60_000;
    for seed in 0..4 {
        let clock = AtomicU32::new(u32::MAX - 100_000);
        let table =
            Table::new(CAPACITY, 2, idle_timeouts(), [seed, 2, 3, 4], Tick(clock.load(Relaxed)))
                .expect("memory");
        // By number of the original tuple: beginnings of its sessions less ends.
        let alive: Vec<AtomicU32> = (0..TUPLES).map(|_| AtomicU32::new(0)).collect();
        let number_of: HashMap<Key, usize> =
            (0..TUPLES).map(|number| (tuple(number), number as usize)).collect();
        let note_end = |ended: &EndedSession| {
            assert_eq!(partner(number_of[&ended.original] as u32), ended.reply);
            alive[number_of[&ended.original]].fetch_sub(1, Relaxed);
        };
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2usize {
                let (clock, table, alive, start, note_end) =
                    (&clock, &table, &alive, &start, &note_end);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed * 2 + worker as u64);
                    let mut ended = Vec::new();
                    start.wait();
                    for _ in 0..ROUNDS {
                        let now = Tick(clock.load(Relaxed));
                        let number = random.random_range(0..TUPLES);
                        match random.random_range(0..100) {
                            0..40 => {
                                let new = NewSession {
                                    reply: partner(number),
                                    ..session(number, 0, false)
                                };
                                // Counted first, because the other thread may end the session at
                                // once.
                                alive[number as usize].fetch_add(1, Relaxed);
                                if table.insert(worker, &new, None, now).is_err() {
                                    alive[number as usize].fetch_sub(1, Relaxed);
                                }
                            }
                            40..80 => {
                                let (key, other) = (tuple(number), partner(number));
                                match table.lookup_and_update(key, table.hash(key), None, 0, now) {
                                    Lookup::Hit(hit) => {
                                        let to = Key::of(hit.to.reversed());
                                        match hit.direction {
                                            Direction::Original => assert_eq!(to, other),
                                            Direction::Reply => {
                                                let original = tuple_number(to);
                                                assert_eq!(partner(original), key);
                                            }
                                        }
                                        if let Some(id) = hit.reschedule {
                                            table.reschedule(id, now);
                                        }
                                    }
                                    Lookup::Expired(id) => {
                                        table.reap_if_expired(id, now).iter().for_each(note_end);
                                    }
                                    Lookup::Miss => {}
                                }
                            }
                            80..95 => {
                                table.expire(worker, now, 50, &mut ended);
                                ended.drain(..).for_each(|ended| note_end(&ended));
                            }
                            95..98 => table.evict(worker, now).iter().for_each(note_end),
                            _ => {
                                clock.fetch_add(random.random_range(0..4000), Relaxed);
                            }
                        }
                        assert!(table.len() <= CAPACITY);
                    }
                });
            }
        });
        let left: Vec<u32> = alive.iter().map(|count| count.load(Relaxed)).collect();
        assert!(left.iter().all(|count| *count <= 1), "a tuple opened two sessions at one time");
        assert_eq!(left.iter().sum::<u32>(), table.len());
        let keys = keys_of(&table);
        assert_eq!(keys.len(), 2 * table.len() as usize, "no tuple belongs to two sessions");
        assert!(
            (0..TUPLES).all(|number| left[number as usize] == 0 || keys.contains(&tuple(number)))
        );
        let mut ended = Vec::new();
        for worker in 0..2 {
            let end = Tick(clock.load(Relaxed)).after(Span::seconds(7500));
            while !table.expire(worker, end, 100, &mut ended) {}
        }
        assert_eq!((table.len(), ended.len() as u32), (0, left.iter().sum::<u32>()));
        let now = Tick(clock.load(Relaxed)).after(Span::seconds(7500));
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..CAPACITY {
            assert!(table.insert(0, &random_session(&mut random), None, now).is_ok());
        }
        assert_eq!(
            table.insert(0, &random_session(&mut random), None, now),
            Err(InsertError::Full)
        );
    }
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

/// The fixed reply tuple of the session that a tuple opens; some tuples share one.
fn partner(number: u32) -> Key {
    Key { protocol: tuple(number).protocol, ..tuple((number * 7 + 1) % (TUPLES / 2)) }
}

fn tuple_number(key: Key) -> u32 {
    (0..TUPLES).find(|number| tuple(*number) == key).expect("one of ours")
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

fn random_session(random: &mut StdRng) -> NewSession {
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
fn idle_timeouts() -> IdleTimeouts {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    IdleTimeouts::new(&Limits::new(inside).timeouts)
}

/// Distinct tuples, so few that conflicts of tuples are frequent.
const TUPLES: u32 = 160;
/// Greatest age of a worker's time.
const LAG: Span = Span(1000);
/// A session ends at most this long after its deadline: a few slots of the wheel and the lag.
const SLACK: Span = Span(4 * 128 + LAG.0);

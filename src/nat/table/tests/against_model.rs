//! Random operations on a table and on its model side by side.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{TUPLES, idle_timeouts, random_session, session, tuple};
use crate::nat::table::key::Key;
use crate::nat::table::model::{Expected, ExpectedLookup, Model};
use crate::nat::table::session::NewSession;
use crate::nat::table::{EndedSession, InsertError, Lookup, Table, TableCursor};
use crate::nat::tracking::tcp_window::Segment;
use crate::packet::{Protocol, TcpFlags};
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
            Operation::Track { target, segment } => {
                self.lookup_and_update(self.key(target), segment, now)?
            }
            Operation::Peek { target } => {
                let key = self.key(target);
                let found = self.table.lookup(key, now).map(|hit| Expected::of(&hit));
                let expected = match self.model.lookup(key, now) {
                    ExpectedLookup::Hit(expected) => Some(expected),
                    ExpectedLookup::Miss | ExpectedLookup::Expired(_) => None,
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

    fn lookup_and_update(
        &mut self,
        key: Key,
        segment: &Segment,
        now: Tick,
    ) -> Result<(), TestCaseError> {
        let segment = (key.protocol == Protocol::TCP.0).then_some(segment);
        let expected = self.model.lookup_and_update(key, segment, now);
        match self.table.lookup_and_update(key, self.table.hash(key), segment, 0, now) {
            Lookup::Miss => prop_assert_eq!(ExpectedLookup::Miss, expected),
            Lookup::Hit(hit) => {
                prop_assert_eq!(ExpectedLookup::Hit(Expected::of(&hit)), expected);
                if let Some(id) = hit.reschedule {
                    self.table.reschedule(id, now);
                }
            }
            Lookup::Expired(id) => {
                let ended = self.table.reap_if_expired(id, now);
                prop_assert_eq!(
                    ended.map(|ended| ExpectedLookup::Expired(ended.original)),
                    Some(expected)
                );
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

/// Greatest age of a worker's time.
const LAG: Span = Span(1000);
/// A session ends at most this long after its deadline: a few slots of the wheel and the lag.
const SLACK: Span = Span(4 * 128 + LAG.0);

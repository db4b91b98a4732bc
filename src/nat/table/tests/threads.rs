//! Two threads on one table.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{TUPLES, idle_timeouts, keys_of, random_session, session, tuple};
use crate::nat::table::key::Key;
use crate::nat::table::session::NewSession;
use crate::nat::table::{EndedSession, InsertError, Lookup, Table};
use crate::nat::tracking::direction::Direction;
use crate::time::{Span, Tick};

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

/// The fixed reply tuple of the session that a tuple opens; some tuples share one.
fn partner(number: u32) -> Key {
    Key { protocol: tuple(number).protocol, ..tuple((number * 7 + 1) % (TUPLES / 2)) }
}

fn tuple_number(key: Key) -> u32 {
    (0..TUPLES).find(|number| tuple(*number) == key).expect("one of ours")
}

//! An attacker who knows the secret key of the hash aims at one bucket or at one shard. No remote
//! host knows the key: the tests show how far the damage would reach.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{idle_timeouts, random_session};
use crate::nat::table::hash::KeyHash;
use crate::nat::table::session::NewSession;
use crate::nat::table::{InsertError, Table};
use crate::time::Tick;

const NOW: Tick = Tick(0);
const CAPACITY: u32 = 60_000;
/// Buckets that a look-up of a random key reads at most in a table that is not more than half full.
const MAX_PROBES: usize = 8;
/// Entries of a bucket.
const SLOTS: usize = 8;

fn table() -> Table {
    Table::new(CAPACITY, 1, idle_timeouts(), [1, 2, 3, 4], NOW).expect("memory")
}

/// Returns random sessions for whose original tuple `is_aimed` accepts the hash.
fn aimed<'a>(
    table: &'a Table,
    seed: u64,
    is_aimed: impl Fn(KeyHash) -> bool + 'a,
) -> impl Iterator<Item = NewSession> + 'a {
    let mut random = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || random_session(&mut random))
        .filter(move |new| is_aimed(table.hash(new.original)))
}

/// Inserts sessions that no attacker has chosen.
fn established(table: &Table, count: usize) -> Vec<NewSession> {
    let sessions: Vec<_> = aimed(table, 1, |_| true).take(count).collect();
    for new in &sessions {
        table.insert(0, new, None, NOW).expect("a free record");
    }
    sessions
}

/// Returns the number of buckets that a look-up of each tuple reads at most.
fn longest_look_up<'a>(table: &Table, sessions: impl IntoIterator<Item = &'a NewSession>) -> usize {
    let keys = sessions.into_iter().flat_map(|new| [new.original, new.reply]);
    keys.map(|key| {
        assert!(table.lookup(key, NOW).is_some(), "every session is found");
        table.index.buckets_read(table.hash(key))
    })
    .max()
    .unwrap_or(0)
}

#[test]
fn keys_aimed_at_one_bucket_lengthen_only_the_look_ups_around_it() {
    const AIMED: usize = 96;
    let table = table();
    let others = established(&table, 20_000);
    assert!(longest_look_up(&table, &others) <= MAX_PROBES);
    let target = table.index.home_of(table.hash(others[0].original));
    let attack: Vec<_> =
        aimed(&table, 2, |hash| table.index.home_of(hash) == target).take(AIMED).collect();
    for new in &attack {
        table.insert(0, new, None, NOW).expect("a free record");
    }
    let longest = longest_look_up(&table, &attack);
    assert!(longest > AIMED / SLOTS, "the attack works: {longest} buckets");
    assert!(longest <= 2 * AIMED / SLOTS, "{longest} buckets");
    // The entries that the attack has pushed out of their buckets lie close to them.
    let is_far = |new: &&NewSession| {
        [new.original, new.reply].iter().all(|key| {
            let home = table.index.home_of(table.hash(*key));
            !(target..target + longest).contains(&home)
        })
    };
    assert!(longest_look_up(&table, others.iter().filter(is_far)) <= MAX_PROBES);
    assert!(longest_look_up(&table, &others) <= 2 * longest);
}

#[test]
fn keys_aimed_at_one_shard_fill_that_shard_and_leave_the_others_as_they_were() {
    let table = table();
    let others = established(&table, 10_000);
    let target = table.index.shard_of_key(table.hash(others[0].original));
    let shard = |new: &NewSession| {
        [new.original, new.reply].map(|key| table.index.shard_of_key(table.hash(key)))
    };
    let mut attack = Vec::new();
    for new in aimed(&table, 2, |hash| table.index.shard_of_key(hash) == target) {
        match table.insert(0, &new, None, NOW) {
            Ok(_) => attack.push(new),
            Err(error) => {
                assert_eq!(error, InsertError::Full);
                break;
            }
        }
        assert!(attack.len() < CAPACITY as usize, "the shard becomes full before the table");
    }
    assert!(table.len() < CAPACITY / 2);
    // A look-up reads the whole shard at most, and finds every session.
    let buckets = table.index.shard_buckets();
    assert!(longest_look_up(&table, others.iter().chain(&attack)) <= buckets);
    // The other shards take new sessions, and a look-up in them reads few buckets.
    let elsewhere = |new: &NewSession| !shard(new).contains(&target);
    let more: Vec<_> = aimed(&table, 3, |_| true).filter(elsewhere).take(5000).collect();
    for new in &more {
        assert!(table.insert(0, new, None, NOW).is_ok());
    }
    let untouched = others.iter().filter(|new| elsewhere(new));
    assert!(longest_look_up(&table, untouched.chain(&more)) <= MAX_PROBES);
}

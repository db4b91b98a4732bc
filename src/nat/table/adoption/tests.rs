//! Sessions that outlive their table, also when their process dies between any two stores.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::nat::table::adoption::{AdoptionOutcome, Attempt};
use crate::nat::table::atomic::death;
use crate::nat::table::files::SessionFiles;
use crate::nat::table::session::{EndReason, NewSession, SessionId};
use crate::nat::table::session_table::TableContents;
use crate::nat::table::tests::{idle_timeouts, random_session};
use crate::nat::table::{Adopted, InsertError, Table, TableCursor};
use crate::time::{Span, Tick};

const SECRET: [u64; 4] = [1, 2, 3, 4];
const NOW: Tick = Tick(1_000_000);

fn table(capacity: u32, workers: usize, files: &SessionFiles, inherits: bool) -> Table {
    let content = match inherits {
        true => TableContents::Inherited(Box::new(|_| true)),
        false => TableContents::Empty,
    };
    Table::in_files(capacity, workers, idle_timeouts(), SECRET, NOW, files, content)
        .and_then(|table| table.with_accounts_in(Some(&files.accounts)))
        .expect("memory")
}

fn adopt_all(table: &Table) -> Adopted {
    let mut sum = Adopted::default();
    while table.inherits() {
        sum += table.adopt(0, 7, NOW, |_, _| AdoptionOutcome::Keep);
    }
    sum
}

fn is_found(table: &Table, session: &NewSession) -> [bool; 2] {
    [session.original, session.reply].map(|key| table.lookup(key, NOW).is_some())
}

#[test]
fn sessions_are_found_before_their_adoption_and_expire_after_it() {
    let files = SessionFiles::temporary(1000);
    let mut random = StdRng::seed_from_u64(1);
    let sessions: Vec<_> = (0..600).map(|_| random_session(&mut random)).collect();
    let first = table(1000, 3, &files, false);
    let ids: Vec<SessionId> = sessions
        .iter()
        .map(|new| first.insert(random.random_range(0..3), new, None, NOW).expect("space"))
        .collect();
    drop(first);
    // Another number of workers has other pools.
    let second = table(1000, 2, &files, true);
    assert!(sessions.iter().all(|session| is_found(&second, session) == [true; 2]));
    // A session that ends before its adoption releases nothing.
    let ended = second.end(ids[0], EndReason::Requested, NOW).expect("a session");
    assert!(!ended.adopted && is_found(&second, &sessions[0]) == [false; 2]);
    assert_eq!(adopt_all(&second), Adopted { kept: 599, ..Adopted::default() });
    assert_eq!(second.len(), 599);
    let ended = second.end(ids[1], EndReason::Requested, NOW).expect("a session");
    assert!(ended.adopted);
    let mut expired = Vec::new();
    for worker in 0..2 {
        while !second.expire(worker, NOW.after(Span::seconds(8000)), 1000, &mut expired) {}
    }
    assert_eq!((expired.len(), second.len()), (598, 0));
    // Every record is free.
    for _ in 0..1000 {
        second.insert(0, &random_session(&mut random), None, NOW).expect("space");
    }
}

/// The checks of the packets and those of the adoption run at the same time.
#[test]
fn sessions_are_found_while_other_threads_adopt_and_insert() {
    for seed in 0..20 {
        let files = SessionFiles::temporary(8000);
        let mut random = StdRng::seed_from_u64(seed);
        let sessions: Vec<_> = (0..2000).map(|_| random_session(&mut random)).collect();
        let first = table(8000, 2, &files, false);
        for (number, new) in sessions.iter().enumerate() {
            first.insert(number % 2, new, None, NOW).expect("space");
        }
        drop(first);
        let second = table(8000, 2, &files, true);
        std::thread::scope(|scope| {
            for part in sessions.chunks(1000) {
                scope.spawn(|| {
                    let lost = part.iter().find(|session| is_found(&second, session) != [true; 2]);
                    assert_eq!(lost, None);
                });
            }
            let inserter = scope.spawn(|| {
                let mut random = StdRng::seed_from_u64(1000 + seed);
                let mut inserted = 0;
                while second.inherits() {
                    inserted += u32::from(
                        second.insert(1, &random_session(&mut random), None, NOW).is_ok(),
                    );
                }
                inserted
            });
            let adopted = adopt_all(&second);
            assert_eq!(adopted, Adopted { kept: 2000, ..Adopted::default() });
            let inserted: u32 = inserter.join().expect("it ends");
            assert_eq!(second.len(), 2000 + inserted);
        });
    }
}

#[test]
fn a_new_session_gets_a_record_while_others_wait_for_their_adoption() {
    let files = SessionFiles::temporary(100);
    let mut random = StdRng::seed_from_u64(2);
    let first = table(100, 1, &files, false);
    let fill = |table: &Table, count: usize, random: &mut StdRng| {
        let new = (0..count).map(|_| random_session(random));
        new.map(|new| table.insert(0, &new, None, NOW).expect("space")).collect::<Vec<_>>()
    };
    let ids = fill(&first, 97, &mut random);
    first.end(ids[3], EndReason::Requested, NOW).expect("a session");
    drop(first);
    let second = table(100, 1, &files, true);
    // Three records were never used. The fourth free one comes to light with the adoption.
    let new = fill(&second, 3, &mut random);
    let another = random_session(&mut random);
    assert_eq!(second.insert(0, &another, None, NOW), Err(InsertError::Full));
    let ended = second.end(new[0], EndReason::Requested, NOW).expect("a session");
    assert!(ended.adopted, "a new session is one of this table");
    let adopted = second.adopt(0, 97, NOW, |_, _| AdoptionOutcome::Keep);
    assert_eq!(adopted, Adopted { kept: 96, ..Adopted::default() });
    fill(&second, 2, &mut random);
    assert_eq!((second.len(), adopt_all(&second)), (100, Adopted::default()));
    assert_eq!(second.insert(0, &another, None, NOW), Err(InsertError::Full));
}

#[test]
fn sessions_that_are_not_allowed_end_with_their_adoption() {
    let files = SessionFiles::temporary(100);
    let mut random = StdRng::seed_from_u64(3);
    let sessions: Vec<_> = (0..100).map(|_| random_session(&mut random)).collect();
    let first = table(100, 1, &files, false);
    for new in &sessions {
        first.insert(0, new, None, NOW).expect("space");
    }
    drop(first);
    let second = table(100, 1, &files, true);
    let is_allowed = |id: SessionId| id.to_bits().is_multiple_of(3);
    let Adopted { kept, dropped, .. } = second.adopt(0, 1000, NOW, |session, _| match session.id {
        id if is_allowed(id) => AdoptionOutcome::Keep,
        _ => AdoptionOutcome::End,
    });
    assert_eq!((kept + dropped, second.len()), (100, kept));
    let found = sessions.iter().filter(|session| is_found(&second, session)[0]).count();
    assert_eq!(found as u32, kept);
}

/// Operations on a small, crowded table. Each one is cut off after every possible number of stores.
/// The next table has every session that was complete before, none that had ended, and of the
/// operation that was cut off all or nothing.
#[test]
fn a_process_may_die_between_any_two_stores() {
    const CAPACITY: u32 = 24;
    let mut deaths = 0;
    for seed in 0..20 {
        for stores in 0.. {
            let files = SessionFiles::temporary(CAPACITY);
            let mut random = StdRng::seed_from_u64(seed);
            let first = table(CAPACITY, 2, &files, false);
            let mut live: Vec<(SessionId, NewSession)> = Vec::new();
            for _ in 0..60 {
                step(&first, &mut random, &mut live);
            }
            let before = live.clone();
            let survived = death::after(stores, || step(&first, &mut random, &mut live));
            drop(first);
            let second = table(CAPACITY, 2, &files, true);
            adopt_all(&second);
            check(&second, &before, CAPACITY, seed, stores);
            if survived {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 300, "{deaths}");
}

/// Inserts or ends a session.
fn step(table: &Table, random: &mut StdRng, live: &mut Vec<(SessionId, NewSession)>) {
    let is_full = live.len() as u32 == table.capacity();
    if is_full || !live.is_empty() && random.random_bool(0.4) {
        let (id, _) = live.swap_remove(random.random_range(0..live.len()));
        table.end(id, EndReason::Requested, NOW).expect("a live session");
    } else {
        let new = random_session(random);
        if let Ok(id) = table.insert(random.random_range(0..2), &new, None, NOW) {
            live.push((id, new));
        }
    }
}

/// Checks a table against the sessions before one operation, which may or may not have happened.
fn check(table: &Table, before: &[(SessionId, NewSession)], capacity: u32, seed: u64, stores: i64) {
    let context = format!("seed {seed}, death after {stores} stores");
    let missing = before
        .iter()
        .filter(|(_, session)| {
            let [original, reply] = is_found(table, session);
            assert_eq!(original, reply, "{context}: one direction only");
            !original
        })
        .count();
    assert!(missing <= 1, "{context}: {missing} sessions are lost");
    let count = table.len() as usize;
    assert!(count >= before.len() - 1 && count <= before.len() + 1, "{context}: {count}");
    let mut listed = Vec::new();
    let mut next = Some(TableCursor::default());
    while let Some(from) = next {
        next = table.list(from, 1000, |session| listed.push(session.id));
    }
    assert_eq!(listed.len(), count, "{context}");
    assert!(listed.iter().all(|id| table.session(*id).is_some()), "{context}");
    // All records and index entries that are not in use are free again.
    let mut random = StdRng::seed_from_u64(seed ^ 0xffff);
    for _ in count..capacity as usize {
        let result = table.insert(0, &random_session(&mut random), None, NOW);
        assert!(result.is_ok(), "{context}: {result:?}");
    }
    let result = table.insert(0, &random_session(&mut random), None, NOW);
    assert_eq!(result, Err(InsertError::Full), "{context}");
}

/// A session that waits for others continues after them, ends before its turn, or is not allowed.
/// Meanwhile its record is no victim and goes to no other session.
#[test]
fn a_session_that_was_put_off_is_adopted_after_all_others() {
    let files = SessionFiles::temporary(90);
    let mut random = StdRng::seed_from_u64(4);
    let sessions: Vec<_> = (0..90).map(|_| random_session(&mut random)).collect();
    let first = table(90, 2, &files, false);
    let ids: Vec<SessionId> =
        sessions.iter().map(|new| first.insert(0, new, None, NOW).expect("space")).collect();
    drop(first);
    let second = table(90, 2, &files, true);
    let kind = |id: SessionId| ids.iter().position(|other| *other == id).expect("a session") % 3;
    let mut attempts = Vec::new();
    let mut reserve = |id: SessionId, attempt| {
        attempts.push((kind(id), attempt));
        match (kind(id), attempt) {
            (0, _) | (1, Attempt::Last) => AdoptionOutcome::Keep,
            (_, Attempt::First) => AdoptionOutcome::PutOff,
            (_, Attempt::Last | Attempt::Ended) => AdoptionOutcome::End,
        }
    };
    let adopted = second.adopt(0, 95, NOW, |session, attempt| reserve(session.id, attempt));
    assert_eq!(adopted, Adopted { kept: 30, ..Adopted::default() });
    assert!(second.inherits() && sessions.iter().all(|new| is_found(&second, new) == [true; 2]));
    // Their time is over, and still no other session gets their records.
    let later = NOW.after(Span::seconds(8000));
    let mut expired = Vec::new();
    for worker in 0..2 {
        while !second.expire(worker, later, 1000, &mut expired) {}
        while let Some(ended) = second.evict(worker, later) {
            expired.push(ended);
        }
    }
    assert_eq!((expired.len(), second.len()), (30, 0));
    // Some end before their turn: one that would continue, and one that would not.
    for id in [ids[1], ids[2]] {
        let ended = second.end(id, EndReason::Requested, NOW).expect("a session");
        assert!(!ended.adopted);
        second.reschedule(id, NOW);
    }
    let mut sum = Adopted::default();
    while second.inherits() {
        sum += second.adopt(1, 7, NOW, |session, attempt| reserve(session.id, attempt));
    }
    assert_eq!(sum, Adopted { kept: 29, dropped: 29, damaged: 0 });
    assert_eq!(second.len(), 29);
    let count = |wanted: Attempt| attempts.iter().filter(|(_, made)| *made == wanted).count();
    let [first, last, ended] = [Attempt::First, Attempt::Last, Attempt::Ended].map(count);
    assert_eq!((first, last, ended), (90, 58, 2));
    assert_eq!(attempts.iter().filter(|made| **made == (0, Attempt::First)).count(), 30);
    for _ in 29..90 {
        second.insert(0, &random_session(&mut random), None, NOW).expect("space");
    }
}

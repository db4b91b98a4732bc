//! Measures figures that a mean over many rounds does not show: memory, the longest batch, the gain
//! from a second worker. Prints a table, or JSON with `--json`.
//!
//! * `memory`: resident bytes for each session of capacity, with 16,777,216 sessions open, at full
//!   capacity;
//! * `workers`: packets a second of two workers against one, first on distinct connections, then on
//!   the two directions of one connection, then on identical packets;
//! * `uplinks`: cost of a packet in an instance with two, three and four uplinks that publish one
//!   server, against one;
//! * `restart`: time before the first packet of a process that inherits or imports a million kept
//!   sessions, and the time of their adoption behind the traffic;
//! * `longest batch`: one worker, while a million sessions expire and 100,000 open.
//!
//! `cargo bench --bench limits -- [memory|workers|uplinks|restart|batch] [--json]`

use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use natbox::nat::{
    Contents, FileFormat, Limits, OldSessions, Seed, SessionFiles, Translator, import_sessions,
    layout,
};
use natbox::packet::BATCH;
use natbox::packet::TcpFlags;
use natbox::time::Span;
use serde_json::{Value, json};

use support::fixtures::{
    PUBLIC, SERVER, SHORT, START, Small, Worker, client, established, established_over,
    new_instance, new_instance_with, segment, session_files, settings,
};
use support::replay::Replay;

mod support;

/// A name, and the measurement under that name.
type Part = (&'static str, fn() -> Value);

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let names: Vec<&String> = arguments.iter().filter(|argument| *argument != "--json").collect();
    let parts: [Part; 5] = [
        ("memory", memory),
        ("workers", workers),
        ("uplinks", uplinks),
        ("restart", restart),
        ("batch", longest_batch),
    ];
    let mut report = serde_json::Map::new();
    for (name, measure) in parts {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            report.insert(name.to_owned(), measure());
        }
    }
    if as_json {
        print(&serde_json::to_string_pretty(&report).expect("plain values"));
    } else {
        for (part, values) in &report {
            for (name, value) in values.as_object().expect("each part is a list of figures") {
                print(&format!("{part:8} {name:55} {value}"));
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the report is the output of this program")]
fn print(line: &str) {
    println!("{line}");
}

/// Returns the resident bytes of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has this line");
    let kibibytes: u64 =
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kibibytes * 1024
}

fn memory() -> Value {
    let sessions = 16 << 20;
    let before = resident();
    let (_batches, nat) = new_instance(sessions, 0, 1);
    let taken = resident() - before;
    assert_eq!(nat.table().len(), sessions);
    json!({
        "sessions": sessions,
        "resident bytes a session": (taken as f64 / f64::from(sessions) * 10.0).round() / 10.0,
    })
}

/// Returns the packets a second of all workers together.
fn rate(workers: &mut [Worker], packets: &[Vec<Small>]) -> f64 {
    let (stop, begin) = (AtomicBool::new(false), Barrier::new(workers.len() + 1));
    std::thread::scope(|scope| {
        let working: Vec<_> = workers
            .iter_mut()
            .zip(packets)
            .map(|(worker, packets)| {
                let (stop, begin, mut frames) = (&stop, &begin, Replay::new(packets.clone()));
                scope.spawn(move || {
                    begin.wait();
                    let (started, mut count) = (Instant::now(), 0_u64);
                    while !stop.load(Relaxed) {
                        worker.run(&mut frames, START);
                        count += BATCH as u64;
                    }
                    count as f64 / started.elapsed().as_secs_f64()
                })
            })
            .collect();
        begin.wait();
        std::thread::sleep(Duration::from_millis(700));
        stop.store(true, Relaxed);
        working.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}

fn workers() -> Value {
    let size = 1_000_000;
    let (mut batches, _nat) = new_instance(size, 0, 2);
    let all = established(size);
    let (one, other) = all.split_at(all.len() / 2);
    let distinct = [one.to_vec(), other.to_vec()];
    let there = segment(TcpFlags::ACK, client(0), (PUBLIC, 80), 125, 525);
    let back = segment(TcpFlags::ACK, (SERVER, 80), client(0), 525, 125);
    let directions = [vec![there], vec![back]];
    let same = [vec![there], vec![there]];
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    let mut rates = Vec::new();
    for _ in 0..7 {
        for (ratios, packets) in ratios.iter_mut().zip([&distinct, &directions, &same]) {
            let alone = rate(&mut batches[..1], &packets[..1]);
            let both = rate(&mut batches, packets);
            ratios.push(both / alone);
            if std::ptr::eq(packets, &raw const distinct) {
                rates.push(alone);
            }
        }
    }
    let [distinct, directions, same] = ratios.map(|list| spread(list, 100.0));
    json!({
        "one worker, million packets a second": spread(rates.iter().map(|rate| rate / 1e6).collect(), 100.0),
        "two workers / one, distinct connections": distinct,
        "two workers / one, both directions of one connection": directions,
        "two workers / one, one direction of one connection": same,
    })
}

fn uplinks() -> Value {
    let mut report = serde_json::Map::new();
    for size in [10_000, 1_000_000] {
        let mut instances = [1, 2, 3, 4].map(|uplinks| {
            let (batches, _nat) = new_instance_with(uplinks, size, 0, 1);
            (batches, [established_over(uplinks, size)])
        });
        let mut costs = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..9 {
            for (costs, (batches, packets)) in costs.iter_mut().zip(&mut instances) {
                costs.push(1e9 / rate(batches, packets));
            }
        }
        // Compares values of the same round, as the speed of a machine drifts.
        let [one, more @ ..] = costs;
        for (uplinks, costs) in (2..).zip(more) {
            let ratios = costs.iter().zip(&one).map(|(cost, one)| cost / one).collect();
            report.insert(
                format!("{uplinks} uplinks / one, {size} sessions"),
                spread(ratios, 1000.0),
            );
        }
        report.insert(format!("one uplink, {size} sessions, ns a packet"), spread(one, 10.0));
    }
    report.into()
}

/// Returns median, minimum and maximum.
fn spread(mut list: Vec<f64>, precision: f64) -> Value {
    list.sort_by(f64::total_cmp);
    let at = |place: usize| (list[place] * precision).round() / precision;
    json!({ "median": at(list.len() / 2), "least": at(0), "most": at(list.len() - 1) })
}

/// A file system in memory.
const SHARED_MEMORY: &str = "/dev/shm";

fn restart() -> Value {
    let sessions = 1_000_000_u32;
    let seed = Seed::from(1);
    let (mut inherited, mut imported, mut smaller) = (Vec::new(), Vec::new(), Vec::new());
    let mut adopted = Vec::new();
    for _ in 0..5 {
        let (limits, policy) = settings(sessions);
        let files = session_files(&limits, SHARED_MEMORY);
        let open = |limits: &Limits, files: &SessionFiles, contents| {
            let (limits, policy) = (limits.clone(), policy.clone());
            Translator::in_files(limits, policy, 1, seed, START, files, contents).expect("memory")
        };
        let nat = Arc::new(open(&limits, &files, Contents::Empty));
        let mut worker = Worker::new(&nat, 0);
        let syn = |index| segment(TcpFlags::SYN, client(index), (PUBLIC, 80), 1, 0);
        let mut frames = Replay::new((0..sessions).map(syn).collect());
        for _ in 0..sessions / BATCH as u32 {
            worker.run(&mut frames, START);
        }
        drop((worker, nat));
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        let nat = open(&limits, &files, Contents::Inherited);
        inherited.push(milliseconds(started));
        let started = Instant::now();
        let mut kept = 0;
        while nat.inherits() {
            kept += nat.adopt(0, 64, START).kept;
        }
        adopted.push(milliseconds(started));
        assert_eq!(kept, sessions);
        drop(nat);
        let old = OldSessions {
            files,
            format: FileFormat::of(&layout()).expect("the present layout"),
            capacity: sessions,
            accounting: false,
            uplinks: policy.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
            other_mappings: false,
            seed,
        };
        for (capacity, times) in [(2 * sessions, &mut imported), (sessions / 2, &mut smaller)] {
            let limits = Limits { sessions: capacity, ..limits.clone() };
            let files = session_files(&limits, SHARED_MEMORY);
            let started = Instant::now();
            let import = import_sessions(&old, &files, &limits, &policy, 1, seed, START);
            let contents = Contents::Imported(import.expect("memory"));
            let nat = open(&limits, &files, contents);
            times.push(milliseconds(started));
            assert!(nat.inherits());
        }
    }
    json!({
        "inherited, ms before the first packet": spread(inherited, 10.0),
        "imported into a larger table, ms before the first packet": spread(imported, 10.0),
        "imported into half the table, ms before the first packet": spread(smaller, 10.0),
        "adopted behind the traffic, ms": spread(adopted, 10.0),
    })
}

fn longest_batch() -> Value {
    let (ending, beginning) = (1_000_000_u32, 100_000_u32);
    let mut worst = Vec::new();
    let mut means = Vec::new();
    for _ in 0..5 {
        let (limits, policy) = settings(ending + beginning);
        let nat =
            Arc::new(Translator::new(limits, policy, 1, Seed::from(1), START).expect("memory"));
        let mut worker = Worker::new(&nat, 0);
        let syn = |index| segment(TcpFlags::SYN, client(index), (PUBLIC, 80), 1, 0);
        let count = ending.next_multiple_of(BATCH as u32);
        let mut frames = Replay::new((0..count).map(syn).collect());
        for _ in 0..count / BATCH as u32 {
            worker.run(&mut frames, START);
        }
        let later = START.after(Span(2 * SHORT.0));
        let count = beginning.next_multiple_of(BATCH as u32);
        let mut frames = Replay::new((0..count).map(|index| syn(ending * 2 + index)).collect());
        let (mut longest, started) = (Duration::ZERO, Instant::now());
        let mut rounds = 0;
        let mut caught_up = false;
        // Like a worker: a batch, then a slice of the expired sessions, until both are done.
        while rounds < count / BATCH as u32 || !caught_up {
            let batch_started = Instant::now();
            if rounds < count / BATCH as u32 {
                worker.run(&mut frames, later);
            }
            caught_up = black_box(worker.expire(&mut frames, later));
            longest = longest.max(batch_started.elapsed());
            rounds += 1;
        }
        assert_eq!(nat.table().len(), count);
        worst.push(longest.as_secs_f64() * 1e6);
        means.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    }
    json!({
        "longest of all, microseconds": spread(worst, 1.0),
        "mean, microseconds": spread(means, 10.0),
    })
}

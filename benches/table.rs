//! Measures the session table alone, with one worker: `table/<operation>/<variant>/<sessions>`.
//! Throughput counts sessions.
//!
//! * `lookup_and_update` finds sessions in random order, like the packets of many clients.
//!   `batched` runs the two prefetch stages of the translator, `single` none. `dashmap` is a
//!   baseline with the same hash and records of the same size behind a DashMap, for the ratio.
//! * `insert` adds sessions to a table that already holds the given number.
//! * `expire/ended` ends the given number at once. `expire/alive` is one turn of the wheel over the
//!   given number of sessions that stay.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use natbox::nat::{
    IdleTimeouts, Key, KeyHash, Lookup, NewSession, SessionKind, State, Table, TcpState, Timeouts,
};
use natbox::time::{Span, Tick};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use support::dashmap_baseline::DashmapBaseline;

mod support;

/// A table in the level-2 cache, and one far larger than the level-3 cache.
const SIZES: [u32; 2] = [10_000, 1_000_000];
/// Number of packets looked up together: the engine's batch.
const BATCH: usize = natbox::packet::BATCH;
/// Number of sessions inserted between two readings of the clock.
const CHUNK: usize = 4096;
const START: Tick = Tick(0);
const SHORT: Span = Span::seconds(1);

/// Returns timeouts with a long lifetime for sessions that stay, and a short one for the others.
fn idle_timeouts() -> IdleTimeouts {
    IdleTimeouts::new(&Timeouts {
        tcp_established: Span::MAX,
        tcp_transitory: SHORT,
        tcp_syn: SHORT,
        udp: Span::MAX,
        udp_dns: SHORT,
        icmp: SHORT,
        fragment: SHORT,
        port_reuse_delay: None,
    })
}

fn table(capacity: u32) -> Table {
    Table::new(capacity, 1, idle_timeouts(), [1, 2, 3, 4], START).expect("memory")
}

fn sessions(seed: u64, count: usize, state: TcpState) -> Vec<NewSession> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut key = || Key { addresses: random.random(), ports: random.random(), protocol: 6 };
    let session = |original, reply| NewSession {
        original,
        reply,
        origin: SessionKind::FORWARD,
        uplink: 0,
        state: State::Tcp(state),
        idle: Span(0),
    };
    (0..count).map(|_| session(key(), key())).collect()
}

fn fill(table: &Table, sessions: &[NewSession], now: Tick) {
    for new in sessions {
        table
            .insert(0, new, None, now)
            .expect("random keys do not collide and the table is not full");
    }
}

fn refresh(table: &Table, sessions: &[NewSession], now: Tick) {
    for new in sessions {
        let found = table.lookup_and_update(new.original, table.hash(new.original), None, 64, now);
        assert!(matches!(found, Lookup::Hit(_)));
    }
}

fn lookup_and_update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/lookup_and_update");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(30);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let sessions = sessions(1, size as usize, TcpState::Established);
        let table = table(size);
        fill(&table, &sessions, START);
        let mut keys: Vec<Key> =
            sessions.iter().flat_map(|new| [new.original, new.reply]).collect();
        keys.shuffle(&mut StdRng::seed_from_u64(2));
        let mut batches = keys.chunks_exact(BATCH).cycle();

        group.bench_function(BenchmarkId::new("batched", size), |bencher| {
            bencher.iter(|| {
                // Opaque, so that the compiler cannot know the order.
                let batch = black_box(batches.next().expect("the iterator is endless"));
                let mut hashes = [KeyHash(0); BATCH];
                for (hash, key) in hashes.iter_mut().zip(batch) {
                    *hash = table.hash(*key);
                    table.prefetch_index(*hash);
                }
                for hash in hashes {
                    table.prefetch_record(hash);
                }
                for (hash, key) in hashes.iter().zip(batch) {
                    let found = table.lookup_and_update(*key, *hash, None, 64, START);
                    assert!(matches!(black_box(found), Lookup::Hit(_)));
                }
            });
        });
        group.bench_function(BenchmarkId::new("single", size), |bencher| {
            bencher.iter(|| {
                for key in black_box(batches.next().expect("the iterator is endless")) {
                    let found = table.lookup_and_update(*key, table.hash(*key), None, 64, START);
                    assert!(matches!(black_box(found), Lookup::Hit(_)));
                }
            });
        });
        let baseline =
            DashmapBaseline::new(&table, sessions.iter().map(|new| [new.original, new.reply]));
        group.bench_function(BenchmarkId::new("dashmap", size), |bencher| {
            bencher.iter(|| {
                for key in black_box(batches.next().expect("the iterator is endless")) {
                    assert!(
                        black_box(baseline.lookup_and_update(*key, table.hash(*key), START))
                            .is_some()
                    );
                }
            });
        });
    }
    group.finish();
}

fn insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/insert");
    group.throughput(Throughput::Elements(CHUNK as u64)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for size in SIZES {
        let table = table(size + CHUNK as u32);
        fill(&table, &sessions(1, size as usize, TcpState::Established), START);
        let new = sessions(3, 16 * CHUNK, TcpState::SynOriginal);
        let mut chunks = new.chunks_exact(CHUNK).cycle();
        let mut now = START;
        let mut ended = Vec::with_capacity(CHUNK);
        group.bench_function(BenchmarkId::new("new", size), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let chunk = black_box(chunks.next().expect("the iterator is endless"));
                    let started = Instant::now();
                    fill(&table, chunk, now);
                    total += started.elapsed();
                    // Freeing the table for the next round is not measured.
                    now = now.after(Span(2 * SHORT.0));
                    while !table.expire(0, now, u32::MAX, &mut ended) {}
                    assert_eq!(ended.len(), CHUNK);
                    ended.clear();
                }
                total
            });
        });
    }
    group.finish();
}

fn expire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/expire");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for size in SIZES {
        group.throughput(Throughput::Elements(u64::from(size)));
        let opening = sessions(1, size as usize, TcpState::SynOriginal);
        let mut ended = Vec::with_capacity(size as usize);
        let ending = table(size);
        let mut now = START;
        group.bench_function(BenchmarkId::new("ended", size), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    fill(&ending, &opening, now);
                    now = now.after(Span(2 * SHORT.0));
                    let started = Instant::now();
                    while !ending.expire(0, now, 256, &mut ended) {}
                    total += started.elapsed();
                    assert_eq!(ended.len(), size as usize);
                    ended.clear();
                }
                total
            });
        });
        let lasting = table(size);
        let established = sessions(1, size as usize, TcpState::Established);
        fill(&lasting, &established, START);
        let mut now = START;
        group.bench_function(BenchmarkId::new("alive", size), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for round in 0..rounds {
                    if round % 1000 == 0 {
                        // Otherwise the longest lifetime would end before the bench.
                        refresh(&lasting, &established, now);
                    }
                    now = now.after(TURN);
                    let started = Instant::now();
                    while !lasting.expire(0, now, 256, &mut ended) {}
                    total += started.elapsed();
                }
                total
            });
        });
        assert!(ended.is_empty());
    }
    group.finish();
}

/// A little more than one turn of the wheel.
const TURN: Span = Span::seconds(263);

criterion_group!(benches, lookup_and_update, insert, expire);
criterion_main!(benches);

//! Measures whole batches through the translator, with one worker and no device:
//! `engine/<operation>/<variant>/<sessions>`.
//!
//! The figures cover all work between receiving and sending: parse, hash, look up, track, rewrite,
//! count. The frames copy each packet into its buffer, as a device would. Throughput counts
//! packets of 64 bytes.
//!
//! * `established` are packets of open TCP connections through a forward, both directions, in
//!   random order.
//!   * `natbox` is the translator.
//!   * `dashmap` is a baseline that parses and rewrites with the same code, one packet after the
//!     other, and finds sessions in a DashMap. The baseline tracks no TCP state and has no timers.
//!   * `memory_baseline` copies the packets, fetches two independent cache lines for each packet
//!     from memory of the same size, and writes the headers.
//! * `new-forward` and `new-outbound` are SYNs. Each opens a session beside the existing ones.
//!
//! `NATBOX_BENCH_SESSIONS=10000,1000000` chooses the sizes; 16,777,216 needs 6 GiB.
//! `NATBOX_BENCH_KEEP=DIRECTORY` keeps the sessions in files of the directory, as with
//! `state.keep`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use natbox::nat::{Key, Translator};
use natbox::packet::{BATCH, ChecksumMode, Frames, Offload, TcpFlags, Ttl, parse};
use natbox::time::Span;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use support::dashmap_baseline::DashmapBaseline;
use support::fixtures::{
    CHUNK, PUBLIC, REMOTE, SHORT, START, Worker, client, established, inside, new_instance,
    segment, tuples,
};
use support::memory_baseline::MemoryBaseline;
use support::replay::Replay;

mod support;

/// A table in the level-2 cache, one far larger than the level-3 cache, and one of a large
/// provider.
const SIZES: [u32; 3] = [10_000, 1_000_000, 16 << 20];

fn sizes() -> Vec<u32> {
    match std::env::var("NATBOX_BENCH_SESSIONS") {
        Ok(list) => list
            .split(',')
            .map(|size| size.parse().expect("numbers, separated by commas"))
            .collect(),
        Err(_) => SIZES.to_vec(),
    }
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    for size in sizes() {
        let (workers, nat) = new_instance(size, CHUNK as u32, 1);
        let mut worker = workers.into_iter().next().expect("one worker");
        established_packets(&mut group, &mut worker, &nat, size);
        new_sessions(&mut group, &mut worker, &nat, size);
        let counters = worker.counters();
        assert_eq!(
            counters.packets_in,
            worker.sent(),
            "a packet was dropped: {:?}",
            counters.drops
        );
        assert_eq!(counters.forwarded_stateless, 0, "a packet was forwarded without a session");
    }
    group.finish();
}

fn established_packets(
    group: &mut BenchmarkGroup<'_, WallTime>,
    worker: &mut Worker,
    nat: &Translator,
    size: u32,
) {
    let mut frames = Replay::new(established(size));
    group.throughput(Throughput::Elements(BATCH as u64));
    memory_baseline(group, &mut frames, size);
    group.bench_function(BenchmarkId::new("established/natbox", size), |bencher| {
        bencher.iter(|| {
            worker.run(&mut frames, START);
            worker.expire(&mut frames, START)
        });
    });
    let baseline =
        DashmapBaseline::new(nat.table(), (0..size).map(|index| tuples(index).map(Key::of)));
    group.bench_function(BenchmarkId::new("established/dashmap", size), |bencher| {
        bencher.iter(|| translate_by_dashmap(&baseline, nat.table(), &mut frames));
    });
}

fn new_sessions(
    group: &mut BenchmarkGroup<'_, WallTime>,
    worker: &mut Worker,
    nat: &Translator,
    size: u32,
) {
    group.throughput(Throughput::Elements(CHUNK as u64));
    let mut now = START;
    let clients = size..size + 16 * CHUNK as u32;
    let inbound = clients.map(|index| segment(TcpFlags::SYN, client(index), (PUBLIC, 80), 1, 0));
    let endpoints = 0..16 * CHUNK as u32;
    let outbound =
        endpoints.map(|index| segment(TcpFlags::SYN, inside(index), (REMOTE, 443), 1, 0));
    let kinds = [("forward", inbound.collect::<Vec<_>>()), ("outbound", outbound.collect())];
    for (kind, mut packets) in kinds {
        packets.shuffle(&mut StdRng::seed_from_u64(3));
        let mut frames = Replay::new(packets);
        group.bench_function(BenchmarkId::new(format!("new-{kind}/natbox"), size), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let started = Instant::now();
                    for _ in 0..CHUNK / BATCH {
                        worker.run(&mut frames, now);
                    }
                    total += started.elapsed();
                    assert_eq!(nat.table().len(), size + CHUNK as u32);
                    // Freeing the table for the next round is not measured.
                    now = now.after(Span(2 * SHORT.0));
                    while !worker.expire(&mut frames, now) {}
                    assert_eq!(nat.table().len(), size);
                }
                total
            });
        });
    }
}

/// Measures the least work of any translator of this kind.
fn memory_baseline(group: &mut BenchmarkGroup<'_, WallTime>, frames: &mut Replay, size: u32) {
    let mut lines = MemoryBaseline::new(size as usize);
    group.bench_function(BenchmarkId::new("established/memory_baseline", size), |bencher| {
        bencher.iter(|| {
            let count = frames.receive();
            let places: [_; BATCH] = lines.fetch();
            for (index, place) in places.into_iter().enumerate().take(count) {
                let value = lines.touch(place);
                // Opaque, so that the compiler cannot leave out the writes.
                let frame = black_box(frames.frame(index));
                frame.buffer[8..28].fill(value);
                let length = frame.length;
                frames.submit(index, length, Offload::default());
            }
            frames.flush()
        });
    });
}

/// Translates one batch with the baseline.
fn translate_by_dashmap(
    baseline: &DashmapBaseline,
    table: &natbox::nat::Table,
    frames: &mut Replay,
) {
    let count = frames.receive();
    let mut translated = 0;
    for index in 0..count {
        let frame = frames.frame(index);
        let parsed =
            parse(&frame.buffer[..frame.length], ChecksumMode::Complete).expect("a valid packet");
        let key = Key::of(parsed.tuple().expect("the packet has ports"));
        let partner =
            baseline.lookup_and_update(key, table.hash(key), START).expect("an open connection");
        parsed.rewrite(frame.buffer, partner.tuple().reversed(), Ttl::Increment);
        translated += 1;
        frames.submit(index, parsed.length(), Offload::default());
    }
    assert_eq!(frames.flush(), translated);
}

criterion_group!(benches, engine);
criterion_main!(benches);

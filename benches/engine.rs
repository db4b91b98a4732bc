//! Whole batches through the engine, one worker, no device: `engine/<operation>/<variant>/<sessions>`.
//!
//! What is measured is everything between receiving and sending: parse, hash, look up, track, rewrite, count. The
//! queue copies a packet's headers into its buffer, which a device would do too. Throughput counts packets of 64 bytes.
//!
//! * `established` are packets of open TCP connections through a forward, both directions, in random order. `natbox` is
//!   the engine; `dashmap` a twin that parses and rewrites with the same code, one packet after the other, and finds
//!   sessions in a DashMap (it tracks no TCP state and has no timers); `floor` copies the packets, fetches two cache
//!   lines for each from memory of the same size, which do not depend on each other, and writes the headers.
//! * `new-forward` and `new-outbound` are SYNs, each opening a session beside those that are there already.
//!
//! `NATBOX_BENCH_SESSIONS=10000,1000000` chooses the sizes; 16,777,216 needs 6 GiB.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use natbox::io::{PacketIo, ReplayIo};
use natbox::nat::Key;
use natbox::packet::{BATCH, ChecksumMode, Frames, Offload, TcpFlags, Ttl, parse};
use natbox::time::Span;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use support::floor::Floor;
use support::scene::{
    CHUNK, PUBLIC, REMOTE, SHORT, START, client, established, inside, open_box, replay, run,
    segment, tuples,
};
use support::twin::Twin;

mod support;

/// In the second-level cache; far beyond the third; a table of a large provider.
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
        let (batches, nat) = open_box(size, CHUNK as u32, 1);
        let mut batch = batches.into_iter().next().expect("one worker");
        let mut io = replay(established(size));
        group.throughput(Throughput::Elements(BATCH as u64));
        floor(&mut group, &mut io, size);
        group.bench_function(BenchmarkId::new("established/natbox", size), |bencher| {
            bencher.iter(|| {
                run(&mut batch, &mut io, START);
                batch.expire(&mut io, START).expect("memory does not fail")
            });
        });
        let twin = Twin::new(nat.table(), (0..size).map(|index| tuples(index).map(Key::of)));
        group.bench_function(BenchmarkId::new("established/dashmap", size), |bencher| {
            bencher.iter(|| through_twin(&twin, nat.table(), &mut io));
        });
        drop(twin);

        group.throughput(Throughput::Elements(CHUNK as u64));
        let mut now = START;
        let clients = size..size + 16 * CHUNK as u32;
        let inbound =
            clients.map(|index| segment(TcpFlags::SYN, client(index), (PUBLIC, 80), 1, 0));
        let endpoints = 0..16 * CHUNK as u32;
        let outbound =
            endpoints.map(|index| segment(TcpFlags::SYN, inside(index), (REMOTE, 443), 1, 0));
        let kinds = [("forward", inbound.collect::<Vec<_>>()), ("outbound", outbound.collect())];
        for (kind, mut packets) in kinds {
            packets.shuffle(&mut StdRng::seed_from_u64(3));
            let mut io = replay(packets);
            group.bench_function(BenchmarkId::new(format!("new-{kind}/natbox"), size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        let started = Instant::now();
                        for _ in 0..CHUNK / BATCH {
                            run(&mut batch, &mut io, now);
                        }
                        total += started.elapsed();
                        assert_eq!(nat.table().len(), size + CHUNK as u32);
                        // The room for the next round is not on the bill.
                        now = now.after(Span(2 * SHORT.0));
                        while !batch.expire(&mut io, now).expect("memory does not fail") {}
                        assert_eq!(nat.table().len(), size);
                    }
                    total
                });
            });
        }
        let counters = batch.counters();
        assert_eq!(
            counters.packets_in, counters.packets_out,
            "a packet was dropped: {:?}",
            counters.drops
        );
        assert_eq!(counters.forwarded_stateless, 0, "a packet went without a session");
    }
    group.finish();
}

/// The least that a translator of this kind can do.
fn floor(group: &mut BenchmarkGroup<'_, WallTime>, io: &mut ReplayIo, size: u32) {
    let mut lines = Floor::new(size as usize);
    group.bench_function(BenchmarkId::new("established/floor", size), |bencher| {
        bencher.iter(|| {
            let frames = io.receive(Duration::ZERO).expect("memory does not fail");
            let places: [_; BATCH] = lines.fetch();
            for (index, place) in places.into_iter().enumerate().take(frames) {
                let value = lines.touch(place);
                // Opaque, or nobody would have to write the packet.
                let frame = black_box(io.frame(index));
                frame.buffer[8..28].fill(value);
                let length = frame.length;
                io.submit(index, length, Offload::default());
            }
            io.flush().expect("memory does not fail")
        });
    });
}

/// One batch by the twin.
fn through_twin(twin: &Twin, table: &natbox::nat::Table, io: &mut ReplayIo) {
    let frames = io.receive(Duration::ZERO).expect("memory does not fail");
    let mut translated = 0;
    for index in 0..frames {
        let frame = io.frame(index);
        let parsed =
            parse(&frame.buffer[..frame.length], ChecksumMode::Complete).expect("a good packet");
        let key = Key::of(parsed.tuple().expect("it has ports"));
        let partner = twin.track(key, table.hash(key), START).expect("an open connection");
        parsed.rewrite(frame.buffer, partner.tuple().reversed(), Ttl::Increment);
        translated += 1;
        io.submit(index, parsed.length(), Offload::default());
    }
    assert_eq!(io.flush().expect("memory does not fail").sent, translated);
}

criterion_group!(benches, engine);
criterion_main!(benches);

//! Whole batches through the engine, one worker, no device: `engine/<operation>/<protocol>/<bytes>/<sessions>`.
//!
//! What is measured is everything between receiving and sending: parse, hash, look up, track, rewrite, count. The
//! queue copies a packet's headers into its buffer, which a device would do too; `engine/floor` is what that costs.
//! Throughput counts packets.
//!
//! * `established` are packets of open connections through a forward, both directions, in random order;
//! * `new-forward` and `new-outbound` are SYNs, each opening a session beside those that are there already.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use natbox::engine::Batch;
use natbox::io::{BATCH, Offload, PacketIo, ReplayIo};
use natbox::nat::{
    Dependence, ExternalAddress, Forward, ForwardProtocol, MssClamp, Nat, OutboundRule, Settings, Timeouts,
    Uplink,
};
use natbox::packet::{Protocol, TcpFlags, craft};
use natbox::time::{Span, Tick};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// In the second-level cache; far beyond the third.
const SIZES: [u32; 2] = [10_000, 1_000_000];
/// Sessions opened between two looks at the clock; a multiple of [`BATCH`].
const CHUNK: usize = 4096;
const START: Tick = Tick(0);
const SHORT: Span = Span::seconds(1);

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// A packet with room for headers and a little payload.
type Small = [u8; SMALL];
const SMALL: usize = 64;

/// Open connections stay for good, those that come and go for [`SHORT`].
fn settings(sessions: u32) -> Settings {
    Settings {
        inside: vec!["10.0.0.0/8".parse().expect("a prefix")],
        inside_address: None,
        inside_routers: Vec::new(),
        inside_mtu: 1500,
        tun_address: None,
        uplinks: vec![Uplink {
            name: "isp1".into(),
            mtu: 1500,
            weight: 1,
            addresses: vec![ExternalAddress { address: PUBLIC, owned: false, reserved: Vec::new() }],
        }],
        forwards: vec![Forward {
            name: "web".into(),
            uplink: 0,
            protocol: ForwardProtocol::Tcp,
            address: PUBLIC,
            ports: (80, 80),
            to_address: SERVER,
            to_port: 80,
        }],
        outbound: vec![OutboundRule { from: "10.0.0.0/8".parse().expect("a prefix"), uplinks: vec![0] }],
        exempt: Vec::new(),
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressAndPortDependent,
        hairpin: true,
        ports: (1024, 65535),
        mss_clamp: MssClamp::Auto,
        soft_pooling: false,
        port_parity: true,
        port_overlapping: false,
        inbound_refresh: true,
        refusal: None,
        late_syn_error: false,
        timeouts: Timeouts {
            tcp_established: Span::MAX,
            tcp_transitory: Span::MAX,
            tcp_syn: SHORT,
            udp: SHORT,
            udp_dns: SHORT,
            icmp: SHORT,
            fragment: SHORT,
            port_rest: Span::seconds(0),
        },
        sessions,
        sessions_per_host: 64 << 10,
        new_sessions_per_host: 0,
        fragments: 16,
        resting_ports: 0,
        icmp_errors_per_host: 0,
    }
}

/// The `index`-th client.
fn client(index: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0xc612_0000 + index / 50_000), (index % 50_000) as u16 + 10_000)
}

/// The `index`-th endpoint of the inside's own outbound traffic, 64 to a host.
fn inside(index: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0a01_0000 + index / 64), (index % 64) as u16 + 20_000)
}

fn segment(flags: TcpFlags, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), sequence: u32, ack: u32) -> Small {
    let tuple = craft::tuple(Protocol::TCP, from, to);
    let mut packet = craft::tcp(tuple, flags, sequence, ack, &[], &[0x5a; SMALL - 40]);
    // As TCP sends it; without DF it would get a new identification on its way out.
    craft::set_dont_fragment(&mut packet, true);
    packet.try_into().expect("headers and payload are as long as they were asked to be")
}

/// A queue that delivers `packets` in order, over and over.
fn replay(packets: Vec<Small>) -> ReplayIo {
    let mut index = 0;
    ReplayIo::generate(move |buffer| {
        buffer[..SMALL].copy_from_slice(&packets[index]);
        index = if index + 1 == packets.len() { 0 } else { index + 1 };
        (SMALL, Offload::default())
    })
}

fn run(batch: &mut Batch, io: &mut ReplayIo, now: Tick) {
    let frames = io.receive(Duration::ZERO).expect("memory does not fail");
    batch.process(io, frames, now).expect("memory does not fail");
}

/// A box with `size` open connections through the forward.
fn open_box(size: u32) -> (Batch, Arc<Nat>) {
    let nat = Arc::new(Nat::new(settings(size + CHUNK as u32), 1, START).expect("memory"));
    let lane = nat.lane_with(0, StdRng::seed_from_u64(1));
    let mut batch = Batch::new(Arc::new(ArcSwap::new(Arc::clone(&nat))), lane);
    let mut flights = (0..size).flat_map(|index| {
        let (there, back) = ((client(index), (PUBLIC, 80)), ((SERVER, 80), client(index)));
        [
            segment(TcpFlags::SYN, there.0, there.1, 100, 0),
            segment(SYN_ACK, back.0, back.1, 500, 125),
            segment(TcpFlags::ACK, there.0, there.1, 125, 525),
        ]
    });
    loop {
        let packets: Vec<_> = flights.by_ref().take(BATCH).collect();
        if packets.is_empty() {
            break;
        }
        let count = packets.len();
        run(&mut batch, &mut replay(packets).with_limit(count), START);
    }
    assert_eq!(nat.table().len(), size);
    (batch, nat)
}

fn established(size: u32) -> Vec<Small> {
    let mut random = StdRng::seed_from_u64(2);
    let mut packets: Vec<_> = (0..size)
        .map(|index| {
            if random.random() {
                segment(TcpFlags::ACK, client(index), (PUBLIC, 80), 125, 525)
            } else {
                segment(TcpFlags::ACK, (SERVER, 80), client(index), 525, 125)
            }
        })
        .collect();
    packets.shuffle(&mut random);
    packets
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1)).sample_size(20);

    group.throughput(Throughput::Elements(BATCH as u64));
    let mut io = replay(established(SIZES[0]));
    group.bench_function("floor", |bencher| {
        bencher.iter(|| {
            let frames = io.receive(Duration::ZERO).expect("memory does not fail");
            for index in 0..frames {
                // Opaque, or nobody would have to write the packet.
                let length = black_box(io.frame(index)).length;
                io.submit(index, length, Offload::default());
            }
            io.flush().expect("memory does not fail")
        });
    });

    for size in SIZES {
        let (mut batch, nat) = open_box(size);
        let mut io = replay(established(size));
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(BenchmarkId::new("established/tcp/64", size), |bencher| {
            bencher.iter(|| {
                run(&mut batch, &mut io, START);
                batch.expire(&mut io, START).expect("memory does not fail")
            });
        });

        group.throughput(Throughput::Elements(CHUNK as u64));
        let mut now = START;
        let clients = size..size + 16 * CHUNK as u32;
        let inbound = clients.map(|index| segment(TcpFlags::SYN, client(index), (PUBLIC, 80), 1, 0));
        let endpoints = 0..16 * CHUNK as u32;
        let outbound = endpoints.map(|index| segment(TcpFlags::SYN, inside(index), (REMOTE, 443), 1, 0));
        let kinds = [("forward", inbound.collect::<Vec<_>>()), ("outbound", outbound.collect())];
        for (kind, mut packets) in kinds {
            packets.shuffle(&mut StdRng::seed_from_u64(3));
            let mut io = replay(packets);
            group.bench_function(BenchmarkId::new(format!("new-{kind}/tcp/64"), size), |bencher| {
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
        assert_eq!(counters.packets_in, counters.packets_out, "a packet was dropped: {:?}", counters.drops);
        assert_eq!(counters.stateless, 0, "a packet went without a session");
    }
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);

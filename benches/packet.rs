//! Measures parse and rewrite of one packet: `packet/parse_rewrite/<payload>/<bytes>/<checksum
//! mode>`.
//!
//! Each iteration parses and rewrites a batch of packets, as on the hit path. Throughput counts
//! packets. Every rewrite changes every field, and the next round restores them. The headers are in
//! the level-1 cache: the figures are the cost of the work, not of memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natbox::packet::{ChecksumMode, Payload, Protocol, TcpFlags, Ttl, Tuple, builder, parse};
use std::hint::black_box;
use std::net::Ipv4Addr;

/// Number of packets in an iteration. With a single packet, each parse would wait for the bytes of
/// the last rewrite (narrow stores, wide loads). Packets from a device never cause this wait.
const BATCH: usize = 32;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn tuples(protocol: Protocol) -> [Tuple; 2] {
    [
        builder::tuple(protocol, (CLIENT, 40_000), (SERVER, 80)),
        builder::tuple(protocol, (CLIENT, 40_000), (PUBLIC, 8080)),
    ]
}

/// Builds an ICMP error of `size` bytes about a TCP segment.
fn error(size: usize) -> Vec<u8> {
    let quoted =
        builder::tcp(tuples(Protocol::TCP)[1].reversed(), TcpFlags::ACK, 1, 2, &[], &[0x5a; 1500]);
    builder::icmp_error(3, 1, ROUTER, PUBLIC, &quoted[..size - 28])
}

fn parse_rewrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet/parse_rewrite");
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in [64, 1500] {
        let tcp = builder::tcp(
            tuples(Protocol::TCP)[1],
            TcpFlags::ACK,
            1,
            2,
            &[1; 12],
            &vec![0x5a; size - 52],
        );
        let udp = builder::udp(tuples(Protocol::UDP)[1], &vec![0x5a; size - 28]);
        for (name, packet) in [("tcp", tcp), ("udp", udp), ("icmp-error", error(size))] {
            for (mode, mode_name) in
                [(ChecksumMode::Complete, "complete"), (ChecksumMode::Partial, "partial")]
            {
                let mut bytes = packet.clone();
                if mode == ChecksumMode::Partial {
                    builder::make_partial(&mut bytes);
                }
                let tuples = tuples(Protocol(bytes[9]));
                let mut batch = vec![bytes; BATCH];
                let mut turn = 0;
                group.bench_function(format!("{name}/{size}/{mode_name}"), |bencher| {
                    bencher.iter(|| {
                        turn ^= 1;
                        for bytes in &mut batch {
                            // Opaque, so that the compiler knows nothing of packets and tuples.
                            round(black_box(bytes), mode, black_box(tuples[turn]));
                        }
                    });
                });
                for bytes in &batch {
                    builder::verify(bytes, mode).expect("every rewrite leaves a valid packet");
                }
            }
        }
    }
    group.finish();
}

fn round(bytes: &mut [u8], mode: ChecksumMode, to: Tuple) {
    match parse(bytes, mode) {
        Ok(parsed) if matches!(parsed.payload(), Payload::IcmpError(_)) => {
            parsed.rewrite_error(bytes, ROUTER, to.destination.address, to.reversed(), Ttl::Keep);
        }
        Ok(parsed) => parsed.rewrite(bytes, to, Ttl::Keep),
        Err(cause) => panic!("every rewrite leaves a valid packet: {cause}"),
    }
}

criterion_group!(benches, parse_rewrite);
criterion_main!(benches);

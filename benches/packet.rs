//! Parse and rewrite of one packet: `packet/parse_rewrite/<content>/<bytes>/<checksum mode>`.
//!
//! Each iteration takes a batch of packets through the packet work of the hit path; throughput counts packets. Every
//! rewrite changes every field, there in one round and back in the next. The headers are warm in the first-level
//! cache: what is measured is the work, not the memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natbox::packet::{ChecksumMode, Payload, Protocol, TcpFlags, Ttl, Tuple, builder, parse};
use std::hint::black_box;
use std::net::Ipv4Addr;

/// Packets of one iteration. With one packet alone, each parse would wait for the bytes that the last rewrite wrote
/// (narrow stores, wide loads), which never happens to packets that come from a device.
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

/// An ICMP error of `size` bytes about a TCP segment.
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
                            // Opaque, or the compiler would keep what it knows of the packets and tuples.
                            round(black_box(bytes), mode, black_box(tuples[turn]));
                        }
                    });
                });
                for bytes in &batch {
                    builder::verify(bytes, mode).expect("every rewrite leaves a right packet");
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
        Err(cause) => panic!("every rewrite leaves a right packet: {cause}"),
    }
}

criterion_group!(benches, parse_rewrite);
criterion_main!(benches);

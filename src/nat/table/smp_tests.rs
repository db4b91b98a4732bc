//! Several workers at once on one translator: two packets need the same new mapping or session.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::nat::context::WorkerContext;
use crate::nat::mapping::allocator::PortRequest;
use crate::nat::mapping::mappings::Mappings;
use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::initiator::Initiator;
use crate::nat::policy::limits::{Limits, Timeouts};
use crate::nat::policy::rules::Policy;
use crate::nat::seed::{HashKey, Seed};
use crate::nat::table::key::Key;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::Verdict;
use crate::packet::{ChecksumMode, Endpoint, Protocol, Tuple, builder, parse};
use crate::time::{Span, Tick};
use crate::values::nat::{EndpointDependence, MssClamp};

const G: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// A translator with few ports, so that a port that is not released is missed soon.
pub(crate) fn settings(
    ports: RangeInclusive<u16>,
    filtering: EndpointDependence,
) -> (Limits, Policy) {
    let timeout = Span::seconds(10);
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let limits = Limits {
        filtering,
        ports: ports.into(),
        timeouts: Timeouts {
            tcp_established: timeout,
            tcp_transitory: timeout,
            tcp_syn: timeout,
            udp: timeout,
            udp_dns: timeout,
            icmp: timeout,
            fragment: timeout,
            port_reuse_delay: None,
        },
        sessions: 64,
        sessions_per_host: NonZeroU32::new(16),
        ..Limits::new(inside)
    };
    let policy =
        Policy { hairpin: false, mss_clamp: MssClamp::Off, ..Policy::one_uplink(inside, G) };
    (limits, policy)
}

/// Translates one datagram. Returns its new tuple, or the verdict that stopped the datagram.
pub(in crate::nat) fn send(
    nat: &Translator,
    context: &mut WorkerContext,
    tuple: Tuple,
    now: Tick,
) -> Result<Tuple, Verdict> {
    let mut buffer = builder::udp(tuple, b"payload");
    let length = buffer.len();
    let parsed = parse(&buffer, ChecksumMode::Complete).expect("well-formed");
    buffer.resize(2048, 0);
    let packet = Packet { parsed: &parsed, buffer: &mut buffer, wire_length: length };
    let key = Key::of(tuple);
    match nat.translate(context, packet, key, nat.table().hash(key), now) {
        Verdict::Translated => {
            builder::verify(&buffer[..length], ChecksumMode::Complete)
                .expect("every checksum is right");
            let parsed = parse(&buffer[..length], ChecksumMode::Complete).expect("well-formed");
            Ok(parsed.tuple().expect("udp has a tuple"))
        }
        verdict @ (Verdict::PassToHost | Verdict::Held | Verdict::Reply(..) | Verdict::Drop(_)) => {
            Err(verdict)
        }
    }
}

/// SMP-2: packets of one inside endpoint that arrive on several queues at the same moment share one
/// mapping.
#[test]
fn first_packets_of_one_endpoint_on_several_workers_make_one_mapping() {
    const WORKERS: usize = 3;
    let (limits, policy) = settings(40_000..=40_003, EndpointDependence::AddressAndPortDependent);
    let nat = Translator::new(limits, policy, WORKERS, Seed::from(1), Tick(0)).expect("memory");
    let barrier = Barrier::new(WORKERS);
    let round = |context: &mut WorkerContext, worker: usize, number: u32| {
        let now = Tick(0).after(Span::seconds(60 * number));
        // Each worker to a remote of its own, or all to one: then they share one session.
        let apart = number.is_multiple_of(2);
        let remote = if apart { 1000 + worker as u16 } else { 1000 };
        let source = (HOST, 5000 + (number % 7) as u16);
        let tuple = builder::tuple(Protocol::UDP, source, ([192, 0, 2, 1], remote));
        barrier.wait();
        let sent = send(&nat, context, tuple, now).expect("ports and records are free");
        barrier.wait();
        assert_eq!(nat.mappings(), 1);
        let sessions = if apart { WORKERS as u32 } else { 1 };
        assert_eq!(nat.table().len(), sessions);
        let answer = builder::tuple(Protocol::UDP, ([192, 0, 2, 1], remote), (G, sent.source.port));
        let back = send(&nat, context, answer, now).expect("the answer to a session");
        assert_eq!(back, tuple.reversed());
        barrier.wait();
        while !nat.expire(context, now.after(Span::seconds(20))) {}
        barrier.wait();
        assert_eq!((nat.mappings(), nat.table().len()), (0, 0));
        sent.source
    };
    let ports: Vec<Vec<Endpoint>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (nat, round) = (&nat, &round);
                scope.spawn(move || {
                    let mut context = nat.worker(worker);
                    (1..1500).map(|number| round(&mut context, worker, number)).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(
        ports.iter().all(|seen| *seen == ports[0]),
        "all workers saw the same external endpoint"
    );
}

/// An inbound session used its mapping while the mapping ended and began again on another port. The
/// session then held the new mapping for ever, because its end looked for the old port.
#[test]
fn a_mapping_borrowed_while_its_port_changes_is_released() {
    let (limits, policy) = settings(40_000..=40_003, EndpointDependence::EndpointIndependent);
    let mappings =
        Mappings::new(&limits, &policy, &Forwards::new(&policy.forwards), HashKey::of(1));
    let inside = Endpoint::new(HOST, 5000);
    let remote = Endpoint::new(Ipv4Addr::new(192, 0, 2, 1), 1);
    let key = mappings.key(Protocol::UDP, 0, inside, remote);
    let request = PortRequest { keeps_port: false, initiator: Initiator::InsideHost };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(1);
            for _ in 0..200_000 {
                mappings
                    .acquire(key, request, [G], &mut random, Tick(0))
                    .expect("four ports for one mapping");
                mappings.release(key, Tick(0));
            }
            over.store(true, Relaxed);
        });
        scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(2);
            while !over.load(Relaxed) {
                let external = Endpoint::new(G, random.random_range(40_000..=40_003));
                if let Some(borrowed) = mappings.borrow(Protocol::UDP, external, remote) {
                    assert_eq!((borrowed.mapping, borrowed.inside), (key, inside));
                    // As the end of an inbound session does it.
                    mappings.release_external(Protocol::UDP, external, remote, Tick(0));
                }
            }
        });
    });
    assert_eq!(mappings.len(), 0, "the mapping is still held");
}

/// Sessions from both sides over few mappings that end all the time. Afterwards no mapping, no port
/// and no place in the host's limit is held.
#[test]
fn workers_that_race_over_mappings_release_everything() {
    const WORKERS: usize = 2;
    let plain = |filtering| settings(40_000..=40_007, filtering);
    let delayed = {
        let (mut limits, policy) = plain(EndpointDependence::EndpointIndependent);
        limits.timeouts.port_reuse_delay = Some(Span(500));
        limits.delayed_ports = 5;
        (limits, policy)
    };
    let overlapping = {
        let (mut limits, policy) = plain(EndpointDependence::AddressAndPortDependent);
        limits.mapping = EndpointDependence::AddressAndPortDependent;
        limits.port_overlapping = true;
        (limits, policy)
    };
    let cases = [
        plain(EndpointDependence::EndpointIndependent),
        plain(EndpointDependence::AddressDependent),
        delayed,
        overlapping,
    ];
    for (seed, (limits, policy)) in (1..).zip(cases) {
        let nat =
            Translator::new(limits, policy, WORKERS, Seed::from(seed), Tick(0)).expect("memory");
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let nat = &nat;
                scope.spawn(move || {
                    let mut context = nat.worker(worker);
                    let mut random = StdRng::seed_from_u64(seed + 10 + worker as u64);
                    for step in 0..30_000u32 {
                        let now = Tick(step);
                        let (host_port, remote_port) =
                            (random.random_range(5000..5006), random.random_range(1..4));
                        let remote = ([192, 0, 2, 1], remote_port);
                        let tuple = if random.random_bool(0.5) {
                            builder::tuple(Protocol::UDP, (HOST, host_port), remote)
                        } else {
                            builder::tuple(
                                Protocol::UDP,
                                remote,
                                (G, random.random_range(40_000..=40_007)),
                            )
                        };
                        let _ = send(nat, &mut context, tuple, now);
                        nat.expire(&mut context, now);
                    }
                });
            }
        });
        let mut contexts = [0, 1].map(|worker| nat.worker(worker));
        let now = Tick(60_000);
        for context in &mut contexts {
            while !nat.expire(context, now) {}
        }
        assert_eq!((nat.mappings(), nat.table().len()), (0, 0));
        // After the reuse delay every port and every place in the host's limit is free again.
        let now = Tick(61_000);
        for port in 0..8 {
            let tuple = builder::tuple(Protocol::UDP, (HOST, 6000 + port), ([192, 0, 2, 1], 1));
            for remote in 0..2 {
                let tuple = Tuple {
                    destination: Endpoint::new(tuple.destination.address, 1 + remote),
                    ..tuple
                };
                send(&nat, &mut contexts[0], tuple, now).expect("everything was released");
            }
        }
    }
}

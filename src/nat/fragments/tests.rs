//! FRAG-3: fragments of one datagram on several workers at once.

use std::collections::HashMap;
use std::sync::{Arc, Barrier};

use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::{Forward, Policy};
use crate::nat::seed::Seed;
use crate::nat::table::smp_tests::settings;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::Verdict;
use crate::packet::{ChecksumMode, Payload, Protocol, builder, parse};
use crate::time::Tick;
use crate::values::nat::{EndpointDependence, ForwardProtocol, PortRange};

const WORKERS: usize = 4;
/// Datagrams whose fragments all workers have at one time: fewer than a source's share of the
/// store.
const BATCH_SIZE: u16 = 100;
const ROUNDS: u16 = 60;
const NOW: Tick = Tick(1000);

#[test]
fn fragments_of_one_datagram_meet_on_any_workers() {
    let published = [203, 0, 113, 10];
    let (limits, policy) = settings(1024..=65535, EndpointDependence::AddressAndPortDependent);
    let limits = Limits { fragments: 4096, ..limits };
    let policy = Policy {
        forwards: vec![Forward {
            name: "test".into(),
            uplink: 0,
            protocol: ForwardProtocol::Udp,
            address: published.into(),
            ports: PortRange::single(53),
            to_address: [10, 0, 0, 5].into(),
            to_port: 53,
        }],
        ..policy
    };
    let nat =
        Arc::new(Translator::new(limits, policy, WORKERS, Seed::from(1), NOW).expect("memory"));
    let barrier = Arc::new(Barrier::new(WORKERS));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (nat, barrier) = (Arc::clone(&nat), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let mut context = nat.worker(worker);
                let mut passed = Vec::new();
                for round in 0..ROUNDS {
                    barrier.wait();
                    for number in 0..BATCH_SIZE {
                        // The first fragments take turns on the workers, and so do the others.
                        let index = (worker + usize::from(number)) % WORKERS;
                        let mut fragment =
                            datagram(round * BATCH_SIZE + number, published).swap_remove(index);
                        let parsed = parse(&fragment, ChecksumMode::Complete).expect("well-formed");
                        let length = fragment.len();
                        fragment.resize(2048, 0);
                        let packet =
                            Packet { parsed: &parsed, buffer: &mut fragment, wire_length: length };
                        match nat.translate_fragment(&mut context, packet, NOW) {
                            Verdict::Translated => passed.push(fragment[..length].to_vec()),
                            Verdict::Held => {}
                            other @ (Verdict::PassToHost
                            | Verdict::Reply(..)
                            | Verdict::Drop(_)) => {
                                panic!("{other:?}")
                            }
                        }
                        passed.extend(context.outbox.drain(..).map(Vec::from));
                    }
                }
                passed
            })
        })
        .collect();
    let mut payloads: HashMap<u16, Vec<(u16, Vec<u8>)>> = HashMap::new();
    for fragment in workers.into_iter().flat_map(|worker| worker.join().expect("no panic")) {
        let parsed = parse(&fragment, ChecksumMode::Complete).expect("well-formed");
        let Payload::Fragment { offset, identification, .. } = parsed.payload() else {
            panic!("a fragment")
        };
        payloads.entry(identification).or_default().push((offset, fragment[20..].to_vec()));
    }
    assert_eq!(payloads.len(), usize::from(ROUNDS * BATCH_SIZE), "datagrams");
    for mut fragments in payloads.into_values() {
        fragments.sort();
        let number = u16::from_be_bytes([fragments[0].1[8], fragments[0].1[9]]);
        let offsets: Vec<u16> = fragments.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [0, 16, 32, 48]);
        let payload: Vec<u8> = fragments.into_iter().flat_map(|(_, payload)| payload).collect();
        assert_eq!(payload[8..], number.to_be_bytes().repeat(28));
    }
}

/// A datagram in as many fragments as there are workers; its number fills it.
fn datagram(number: u16, to: [u8; 4]) -> Vec<Vec<u8>> {
    let tuple = builder::tuple(Protocol::UDP, ([192, 0, 2, 1], 4444), (to, 53));
    let mut packet = builder::udp(tuple, &number.to_be_bytes().repeat(28));
    builder::set_identification(&mut packet, number);
    builder::fragments(&packet, 16)
}

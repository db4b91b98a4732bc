//! Several workers: the translation must not depend on the worker that reads a packet.

use std::collections::{HashMap, HashSet};

use natbox::packet::{Protocol, QueryKind, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{E1, E2, F, F_TARGET, G, Probe, S1, S2, Setup, assert_carried, at, spray};

#[test]
fn translation_does_not_depend_on_the_worker() {
    let _proof = proves(&["SMP-1"]);
    for workers in [2, 4, 8] {
        let probe = Probe::start(Setup::new().workers(workers).timeouts("tcp_syn: 5s"));
        spray(probe.status().pid);
        for round in 0..40 {
            let mut out = probe.connect_out(at(S1, 5000 + round), at(E1, 80));
            let mut inward = probe.connect_in(at(E1, 5000 + round), F);
            for _ in 0..5 {
                probe.assert_open(&mut out);
                probe.assert_open(&mut inward);
            }
            let external = probe.open_udp(at(S2, 5000 + round), at(E1, 53));
            assert_eq!(probe.open_udp(at(S2, 5000 + round), at(E2, 53)), external);
            probe.assert_udp_in(at(E1, 53), external, at(S2, 5000 + round));
            probe.assert_udp_refused_at_once(at(E2, 54), external);
            let identifier = probe.open_ping(at(S1, round), E1);
            let reply = builder::echo(E1, G, QueryKind::EchoReply, identifier.port, 1, b"ping");
            probe.outside.send(&reply);
            assert_carried(&reply, &probe.inside.expect("a reply"), at(E1, 0), at(S1, round));
            let sent =
                builder::udp(builder::tuple(Protocol::UDP, (G, external.port), (E1, 53)), b"hello");
            probe.outside.send(&builder::icmp_error(3, 3, E1, G, &sent));
            assert_eq!(
                probe.inside.expect("an error").quote().unwrap().source(),
                at(S2, 5000 + round)
            );
            // Hairpin.
            let question = builder::udp(
                builder::tuple(Protocol::UDP, (S2, 5000 + round), (G, 8080)),
                b"question",
            );
            probe.inside.send(&question);
            assert_carried(&question, &probe.inside.expect("hairpin"), external, F_TARGET);
        }
        let read: Vec<u64> =
            probe.status().workers.iter().map(|worker| worker.counters["packets_in"]).collect();
        assert!(
            read.len() == usize::from(workers) && read.iter().all(|packets| *packets > 50),
            "{read:?}"
        );
    }
}

/// The kernel remembers the worker that writes a flow and gives it the replies, so that two workers
/// seldom share cache lines. The kernel remembers 4,096 flows and spreads further ones by hash; the
/// tests above cover that.
#[test]
fn both_directions_of_a_connection_meet_on_one_worker() {
    let probe = Probe::start(Setup::new().workers(2));
    let read = || -> Vec<u64> {
        probe.status().workers.iter().map(|worker| worker.counters["packets_in"]).collect()
    };
    // A worker publishes its counters after it has sent the packets.
    let mut sent = 0;
    let counted = |sent: u64| {
        wait_until("all packets are counted", || read().iter().sum::<u64>() == sent);
        read()
    };
    let mut at_work = HashSet::new();
    for port in 0..40 {
        let connections = [
            probe.connect_in(at(E1, 5000 + port), F),
            probe.connect_out(at(S1, 5000 + port), at(E1, 80)),
        ];
        sent += 6;
        for mut connection in connections {
            let before = counted(sent);
            for _ in 0..5 {
                probe.assert_open(&mut connection);
            }
            sent += 10;
            let packets: Vec<u64> =
                counted(sent).iter().zip(before).map(|(now, before)| now - before).collect();
            assert!(packets.contains(&10) && packets.contains(&0), "{packets:?}");
            at_work.insert(packets[0] == 10);
        }
    }
    assert_eq!(at_work.len(), 2, "both workers have connections");
}

#[test]
fn racing_first_packets_make_one_mapping() {
    let _proof = proves(&["SMP-2"]);
    let probe = Probe::start(Setup::new().workers(4).timeouts("udp: 1s"));
    spray(probe.status().pid);
    for round in 0..300_u16 {
        let packets: Vec<_> = (0..24)
            .map(|number| {
                let to = if number % 2 == 0 { E1 } else { E2 };
                builder::udp(
                    builder::tuple(Protocol::UDP, (S1, 5000 + round), (to, 100 + number / 4)),
                    b"race",
                )
            })
            .collect();
        for packet in &packets {
            probe.inside.send(packet);
        }
        let seen = probe.outside.expect_all(packets.len(), "datagrams");
        let sources: HashSet<_> = seen.iter().map(natbox_source).collect();
        assert_eq!(sources.len(), 1, "round {round}: {sources:?}");
    }
    let status = probe.status();
    assert!(status.mappings <= 300, "{} mappings", status.mappings);
    wait_until("nothing is left", || {
        let status = probe.status();
        (status.sessions.now, status.mappings) == (0, 0)
    });
}

fn natbox_source(seen: &crate::probe::Seen) -> (std::net::Ipv4Addr, u16) {
    (seen.source().address, seen.source().port)
}

/// Asserts that each datagram of a flow has a higher number than the one before.
fn assert_in_order(last: &mut HashMap<u16, u32>, seen: &crate::probe::Seen) {
    let number = u32::from_be_bytes(seen.payload().try_into().unwrap());
    let before = last.insert(seen.source().port, number);
    assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
}

#[test]
fn packet_order_is_kept_and_counters_add_up() {
    let _proof = proves(&["SMP-3"]);
    let probe = Probe::start(Setup::new().workers(4));
    let flows = 16_u16;
    let mut next = HashMap::new();
    let (mut sent, mut received) = (0_u32, 0_u32);
    for _ in 0..400 {
        for flow in 0..flows {
            for _ in 0..3 {
                let packet = builder::udp(
                    builder::tuple(Protocol::UDP, (E1, 1000 + flow), (G, 8080)),
                    &sent.to_be_bytes(),
                );
                probe.outside.send(&packet);
                sent += 1;
            }
        }
        // No more packets in flight than the device's queue holds, however late the workers run.
        let may_be_under_way = 4 * 3 * u32::from(flows);
        loop {
            let must_wait = sent - received > may_be_under_way;
            let seen = if must_wait {
                Some(probe.inside.expect("a datagram"))
            } else {
                probe.inside.poll()
            };
            let Some(seen) = seen else { break };
            received += 1;
            assert_in_order(&mut next, &seen);
        }
    }
    while received < sent {
        assert_in_order(&mut next, &probe.inside.expect("the last datagrams"));
        received += 1;
    }
    let status = probe.status();
    let sum = |name: &str| status.workers.iter().map(|worker| worker.counters[name]).sum::<u64>();
    for name in ["packets_in", "packets_out", "translated_inbound", "sessions_created"] {
        assert_eq!(sum(name), status.totals[name]);
    }
    let dropped: u64 = status.drops.values().sum();
    assert_eq!(status.totals["packets_in"], status.totals["packets_out"] + dropped);
    assert_eq!(status.totals["translated_inbound"], u64::from(sent));
}

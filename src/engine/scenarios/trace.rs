//! Traces of live packets.

use super::*;
use crate::engine::trace::{Trace, TraceOutcome, TracedPacket};
use crate::packet::PacketHead;

impl Harness {
    fn trace(&self, filter: impl Fn(&TracedPacket) -> bool + Send + Sync + 'static) -> Trace {
        self.observation.trace(Box::new(filter)).expect("a trace")
    }
}

fn head(packet: &[u8]) -> Option<PacketHead> {
    Some(PacketHead::of(packet))
}

/// Takes the only packet of a trace.
fn take_one(trace: &mut Trace) -> TracedPacket {
    let found = trace.take(10);
    assert_eq!((found.packets.len(), found.lost), (1, 0));
    found.packets.into_iter().next().expect("one packet")
}

#[test]
fn a_trace_shows_packets_before_and_after_with_their_session() {
    let mut harness = Harness::new(settings());
    let mut trace = harness.trace(|_| true);
    let request = udp((E1, 1000), (G, 8080));
    for (number, opened) in [true, false].into_iter().enumerate() {
        let sent = harness.send(&request).expect("translated");
        let traced = take_one(&mut trace);
        assert_eq!((traced.before, traced.after), (head(&request), head(&sent)), "{number}");
        assert_eq!((traced.outcome, traced.opened), (TraceOutcome::Translated, opened));
        let origin = traced.origin.expect("well-formed");
        assert_eq!(origin.session.expect("a session").original, origin.tuple);
        assert_eq!(origin.ends.forward.as_deref(), Some("test"));
        assert_eq!(origin.ends.uplink, Some(settings().policy.uplinks[0].name.clone()));
    }
    let reply = udp((S1, 80), (E1, 1000));
    let sent = harness.send(&reply).expect("translated");
    let traced = take_one(&mut trace);
    assert_eq!((traced.before, traced.after), (head(&reply), head(&sent)));
    let origin = traced.origin.expect("well-formed");
    assert_eq!(origin.session.expect("a session").original, parsed(&request).tuple().unwrap());
    assert!(origin.ends.from_inside);
}

#[test]
fn a_trace_shows_why_packets_are_dropped_and_what_replaces_them() {
    let setup = settings().with(|setup| setup.policy.reject_with = Some(13));
    let mut harness = Harness::new(setup.with(|setup| setup.policy.outbound.clear()));
    let mut trace = harness.trace(|_| true);
    let unwanted = udp((E1, 1000), (G, 81));
    assert_eq!(harness.send(&unwanted), None);
    let traced = take_one(&mut trace);
    assert_eq!(traced.outcome, TraceOutcome::Dropped(DropReason::NoMapping));
    assert_eq!((traced.before, traced.after), (head(&unwanted), None));
    assert!(traced.origin.expect("well-formed").session.is_none());

    let malformed = vec![0x45; 19];
    assert_eq!(harness.send(&malformed), None);
    let traced = take_one(&mut trace);
    assert_eq!(traced.outcome, TraceOutcome::Dropped(DropReason::NotIpv4));
    assert_eq!((traced.before, traced.origin), (head(&malformed), None));

    let outbound = udp((S2, 9), (E1, 53));
    let error = harness.send(&outbound).expect("an ICMP error");
    let traced = take_one(&mut trace);
    assert_eq!(traced.outcome, TraceOutcome::Rejected(DropReason::NoOutboundRule));
    assert_eq!((traced.before, traced.after), (head(&outbound), head(&error)));
}

#[test]
fn a_trace_shows_fragments_that_wait_and_their_release() {
    let mut harness = Harness::new(settings());
    let mut trace = harness.trace(|_| true);
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[1; 1500]);
    let fragments = builder::fragments(&datagram, 1000);
    let sent = harness.run(&frames(&[fragments[1].clone(), fragments[0].clone()]));
    let traced = trace.take(10).packets;
    let outcomes: Vec<_> = traced.iter().map(|traced| traced.outcome).collect();
    let expected = [TraceOutcome::Held, TraceOutcome::Translated, TraceOutcome::Released];
    assert_eq!(outcomes, expected);
    assert_eq!(traced[0].after, None);
    assert_eq!((traced[1].after, traced[2].after), (head(&sent[0].0), head(&sent[1].0)));
}

/// An ICMP error belongs to the session of the packet that it quotes.
#[test]
fn an_icmp_error_is_traced_with_the_session_of_its_quote() {
    let mut harness = Harness::new(settings());
    let out = harness.send(&udp((E1, 1000), (G, 8080))).expect("translated");
    let mut trace = harness.trace(|_| true);
    harness.send(&builder::icmp_error(3, 3, S1, E1, &out)).expect("translated");
    let origin = take_one(&mut trace).origin.expect("well-formed");
    assert_eq!(origin.session.expect("a session").original.source.port, 1000);
}

/// Packets are translated alike, whether a trace is on or not, and whether it is read or not.
#[test]
fn a_trace_that_nothing_reads_changes_no_packet_and_counts_what_it_loses() {
    let (mut traced, mut plain) = (Harness::new(settings()), Harness::new(settings()));
    let mut trace = traced.trace(|traced| traced.origin.is_some());
    let packets: Vec<_> = (1..=3000).map(|port| udp((E1, port), (G, 8080))).collect();
    assert_eq!(traced.run(&frames(&packets)), plain.run(&frames(&packets)));
    assert_eq!(traced.counters(), plain.counters());
    let found = trace.take(10_000);
    assert_eq!((found.packets.len(), found.lost), (2048, 952));
    for (packet, traced) in packets.iter().zip(&found.packets) {
        assert_eq!(traced.before, head(packet));
    }
    drop(trace);
    assert!(!traced.observation.tracers.are_active());
}

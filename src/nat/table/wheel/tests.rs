use crate::packet::{Protocol, builder};

use super::*;
use crate::nat::policy::limits::Timeouts;
use crate::nat::table::key::Key;
use crate::nat::table::record::{Record, SessionRecord};
use crate::nat::table::session::{NewSession, SessionKind};
use crate::nat::table::slab::Slab;
use crate::nat::tracking::state::State;

/// A worker whose batch began before the pool's own worker turned the wheel scheduled its session
/// almost a whole turn away: record and port were held for minutes after the end.
#[test]
fn a_session_that_comes_with_an_old_time_ends_in_time() {
    let second = Span::seconds(1);
    let idle_timeouts = IdleTimeouts::new(&Timeouts {
        tcp_established: second,
        tcp_transitory: second,
        tcp_syn: second,
        udp: second,
        udp_dns: second,
        icmp: second,
        fragment: second,
        port_reuse_delay: None,
    });
    let records: Region<Record> = Region::map(1).expect("memory");
    let start = Tick(u32::MAX - 500);
    let (mut slab, mut wheel) = (Slab::new(0, 1), Wheel::new(start));
    while !matches!(wheel.step(&records, start.after(second), &idle_timeouts), Due::Nothing) {}

    let id = slab.take(&records).expect("the only record");
    let tuple = builder::tuple(Protocol::UDP, ([10, 0, 0, 1], 1), ([192, 0, 2, 1], 2));
    let (original, reply) = (Key::of(tuple), Key::of(tuple.reversed()));
    let new = NewSession {
        original,
        reply,
        origin: SessionKind::OUTBOUND,
        uplink: 0,
        state: State::Udp,
        idle: Span(0),
    };
    records[id as usize].fill(&new, start);
    wheel.schedule(&records, id, start.after(second), start);

    let late = start.after(Span::seconds(3));
    let ended = std::iter::repeat_with(|| wheel.step(&records, late, &idle_timeouts))
        .take(100)
        .any(|due| matches!(due, Due::Ended(0)));
    assert!(ended, "the session was scheduled too far away");
}

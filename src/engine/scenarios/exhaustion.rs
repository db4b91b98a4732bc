//! Inside hosts take all sessions or all ports: some of both are kept for the box itself.

use crate::nat::{Filter, HashBy, OutboundRule, SessionInfo, TableCursor};

use super::*;

/// The probe address of the uplink.
const PROBE: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 1);
/// The host address.
const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 0);

fn setup(change: impl FnOnce(&mut Setup)) -> Setup {
    settings().with(|setup| {
        setup.policy.uplinks[0].probe_address = Some(PROBE);
        setup.policy.host_address = Some(HOST);
        setup.policy.outbound.push(OutboundRule {
            from: HOST.into(),
            to: Vec::new(),
            uplinks: vec![0],
            hash_by: HashBy::SourcePort,
        });
        change(setup);
    })
}

/// Opens sessions of S2 until natbox refuses one. Returns their number and the reason.
fn exhaust(harness: &mut Harness) -> (u16, DropReason) {
    let mut opened = 0;
    while harness.send(&udp((S2, 1024 + opened), (E1, 9))).is_some() {
        opened += 1;
    }
    (opened, harness.drop_reason(&udp((S2, 1024 + opened), (E1, 9))))
}

/// Sends a probe, which E1 answers, and which resets the connection then. Returns whether it got a
/// session.
fn probe_by_tcp(harness: &mut Harness, port: u16) -> bool {
    let Some(sent) = harness.send(&tcp(SYN, (PROBE, port), (E1, 80), 100, 0)) else { return false };
    let external = parsed(&sent).tuple().expect("a tuple").source;
    let external = (external.address, external.port);
    assert_eq!(external.0, G);
    let answered = harness.pass(&tcp(SYN_ACK, (E1, 80), external, 500, 101));
    assert_eq!(answered, tuple(Protocol::TCP, (E1, 80), (PROBE, port)));
    for flags in [ACK, RST] {
        harness.pass(&tcp(flags, (PROBE, port), (E1, 80), 101, 501));
    }
    true
}

/// Returns the number of sessions that an inside address has opened, from the listing.
fn listed(harness: &Harness, inside: Ipv4Addr) -> usize {
    let (mut count, mut next) = (0, Some(TableCursor::default()));
    while let Some(from) = next {
        let page = harness.nat.sessions(from, &Filter::default());
        let is_its = |session: &&SessionInfo| session.original.source.address == inside;
        count += page.items.iter().filter(is_its).count();
        next = page.next;
    }
    count
}

#[test]
fn full_table_has_room_for_probes_and_some_for_the_host() {
    let mut harness = Harness::new(setup(|setup| setup.limits.sessions = 16));
    assert!(probe_by_tcp(&mut harness, 1), "a probe takes no session from the inside hosts");
    assert_eq!(exhaust(&mut harness), (16, DropReason::TableFull));
    // Closed connections of earlier probes yield their records.
    assert!((1000..4000).all(|port| probe_by_tcp(&mut harness, port)));
    harness.wait(Span::seconds(299));
    assert_eq!(harness.sessions(), 16, "expired probes");
    let mut of_host = 0;
    while harness.send(&udp((HOST, 1024 + of_host), (E1, 9))).is_some() {
        of_host += 1;
    }
    assert_eq!(of_host, 512, "half of the records that are kept");
    assert!((1000..4000).all(|port| probe_by_tcp(&mut harness, port)));
    assert_eq!(listed(&harness, PROBE), 512);
    harness.wait(Span::seconds(400));
    assert_eq!((harness.sessions(), harness.nat.mappings()), (0, 0));
}

#[test]
fn small_range_keeps_ports_for_probes() {
    for (last, kept) in [(40_999, 16), (40_127, 16), (40_031, 4), (40_007, 1)] {
        let mut harness = Harness::new(setup(|setup| setup.limits.ports = (40_000..=last).into()));
        // The same number of ports for each protocol.
        let mut opened = 0;
        while harness.send(&tcp(SYN, (S2, 1024 + opened), (E1, 9), 1, 0)).is_some() {
            opened += 1;
        }
        assert_eq!(opened, last - 40_000 + 1 - kept);
        let refused = harness.drop_reason(&tcp(SYN, (S2, 1024 + opened), (E1, 9), 1, 0));
        assert_eq!(refused, DropReason::PortsExhausted);
        for port in 1000..1500 {
            assert!(probe_by_tcp(&mut harness, port), "{kept} ports, probe {port}");
        }
    }
}

/// Probes without an answer, and those whose connection the server does not close.
#[test]
fn probes_that_are_over_give_their_ports_to_later_ones() {
    let mut harness = Harness::new(setup(|setup| setup.limits.ports = (40_000..=40_031).into()));
    let syn = |port| tcp(SYN, (PROBE, port), (E1, 80), 100, 0);
    let mut opened = 0;
    while harness.send(&tcp(SYN, (S2, 1024 + opened), (E1, 9), 1, 0)).is_some() {
        opened += 1;
    }
    for port in 1000..1004 {
        let external = harness.pass(&syn(port)).source;
        if port < 1002 {
            let external = (external.address, external.port);
            harness.pass(&tcp(SYN_ACK, (E1, 80), external, 500, 101));
            harness.pass(&tcp(FIN_ACK, (PROBE, port), (E1, 80), 101, 501));
        }
    }
    assert_eq!(harness.drop_reason(&syn(1004)), DropReason::PortsExhausted);
    harness.wait(Span::seconds(10));
    assert!((1005..1009).all(|port| probe_by_tcp(&mut harness, port)));
}

#[test]
fn ports_kept_for_the_box_leave_half_to_the_probes() {
    let mut harness = Harness::new(setup(|setup| {
        setup.limits.ports = (10_000..=12_047).into();
        setup.limits.sessions = 8192;
    }));
    assert_eq!(exhaust(&mut harness), (2032, DropReason::PortsExhausted));
    let mut of_host = 0;
    while harness.send(&udp((HOST, 1024 + of_host), (E1, 9))).is_some() {
        of_host += 1;
    }
    assert_eq!(of_host, 8);
    for port in 7..15 {
        assert_eq!(harness.pass(&udp((PROBE, port), (E1, 53))).source.address, G);
    }
}

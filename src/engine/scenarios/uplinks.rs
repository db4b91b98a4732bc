//! Several lines: which one something new takes, and what becomes of the old when one fails.

use crate::nat::{AdmitNew, EndReason, Filter, TableCursor};

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 1);
const OWN2: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 2);

/// Two lines over which the inside may go out, each with an endpoint of the box's own.
fn both_ways() -> Setup {
    let mut settings = two_uplinks();
    settings.policy.outbound[0].uplinks = vec![0, 1];
    for (uplink, own) in settings.policy.uplinks.iter_mut().zip([OWN, OWN2]) {
        uplink.probe_address = Some(own);
    }
    settings
}

/// The line by which an inside port's packets leave.
fn line(stage: &mut Stage, port: u16) -> u8 {
    let source = stage.pass(&udp((S2, port), (E1, 53))).source.address;
    [G, G2].iter().position(|external| *external == source).expect("an external address") as u8
}

/// An inside port whose choice is this line.
fn port_on(stage: &mut Stage, wanted: u8) -> u16 {
    (20_000..).find(|port| line(stage, *port) == wanted).expect("one of many")
}

/// Ends the sessions that match a filter. Returns their number and the notifications to the inside.
fn sweep(stage: &mut Stage, (filter, reason): (Filter, EndReason)) -> (usize, Vec<Vec<u8>>) {
    let ended = stage.end_all(&filter, reason);
    (ended, stage.notifications())
}

/// The sessions that end when an uplink fails.
fn failed(uplink: u8) -> (Filter, EndReason) {
    (Filter::movable_from(uplink), EndReason::UplinkFailed)
}

/// The sessions that end when an uplink has recovered.
fn recovered(uplink: u8) -> (Filter, EndReason) {
    (Filter::preferring(uplink), EndReason::Failback)
}

impl Stage {
    /// Ends all sessions that match a filter, slice by slice. Returns their number.
    fn end_all(&self, filter: &Filter, reason: EndReason) -> usize {
        let (mut ended, mut next) = (0, Some(TableCursor::default()));
        while let Some(from) = next {
            let slice = self.nat.end_matching(filter, reason, from, self.now);
            (ended, next) = (ended + slice.ended, slice.next);
        }
        ended
    }

    /// The notifications to the inside.
    fn notifications(&mut self) -> Vec<Vec<u8>> {
        assert!(
            !self.nat.is_idle() || self.nat.notifications() == 0,
            "a worker must not sleep over them"
        );
        self.wait(Span(1));
        assert_eq!(self.nat.notifications(), 0);
        self.run(&[]).into_iter().map(|(packet, _)| packet).collect()
    }
}

/// An outbound connection from S2 over a line; after it the numbers are 1001 and 3001.
fn connect_out(stage: &mut Stage, wanted: u8) -> u16 {
    let port = (30_000..).find(|port| {
        let syn = tcp(SYN, (S2, *port), (E1, 443), 1000, 0);
        stage.pass(&syn).source.address == [G, G2][usize::from(wanted)]
    });
    let port = port.expect("one of many");
    let outside = stage.pass(&tcp(SYN, (S2, port), (E1, 443), 1000, 0)).source;
    stage.pass(&tcp(SYN_ACK, (E1, 443), (outside.address, outside.port), 3000, 1001));
    stage.pass(&tcp(ACK, (S2, port), (E1, 443), 1001, 3001));
    port
}

/// A line whose only address is published whole was chosen as often as the others, and had no port.
#[test]
fn a_line_whose_address_is_published_whole_takes_no_mappings() {
    let mut settings = both_ways();
    let whole = forward(ForwardProtocol::Any, 0..=65535, S1, 0);
    settings.policy.forwards = vec![Forward { address: G2, uplink: 1, ..whole }];
    let mut stage = Stage::new(settings);
    for port in 5000..5020 {
        assert_eq!(line(&mut stage, port), 0);
    }
}

#[test]
fn the_inside_of_a_failed_line_is_told_and_nobody_else_is() {
    let mut stage = Stage::new(both_ways());
    let (kept, lost) = (connect_out(&mut stage, 0), connect_out(&mut stage, 1));
    let lost_udp = port_on(&mut stage, 1);
    stage.nat.set_admission(1, AdmitNew::None);
    let sessions = stage.sessions();
    let (ended, told) = sweep(&mut stage, failed(1));
    assert_eq!(stage.sessions() as usize, sessions as usize - ended);
    let tuples: Vec<Tuple> = told.iter().filter_map(|packet| parsed(packet).tuple()).collect();
    assert!(tuples.contains(&tuple(Protocol::TCP, (E1, 443), (S2, lost))), "{tuples:?}");
    assert!(!tuples.contains(&tuple(Protocol::TCP, (E1, 443), (S2, kept))));
    let reset = told
        .iter()
        .find(|packet| parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E1, 443), (S2, lost))));
    let Payload::Tcp(header) = parsed(reset.expect("it was found above")).payload() else {
        panic!("TCP")
    };
    assert!(header.flags.rst());
    assert_eq!(sequences(&told, lost), [3001], "the very number that is expected");
    let quotes = told.iter().filter_map(|packet| {
        let Payload::IcmpError(error) = parsed(packet).payload() else { return None };
        Some((error.kind, error.code, error.quoted))
    });
    let wanted = (3, 13, tuple(Protocol::UDP, (S2, lost_udp), (E1, 53)));
    assert!(quotes.into_iter().any(|quote| quote == wanted));
    // The other line's sessions go on, and what was lost begins again over it.
    assert_eq!(stage.pass(&tcp(ACK, (S2, kept), (E1, 443), 1001, 3001)).source.address, G);
    assert_eq!(
        stage.refuse(&tcp(ACK, (S2, lost), (E1, 443), 1001, 3001)),
        DropReason::TcpWithoutSession
    );
    assert_eq!(stage.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address, G);
    assert_eq!(line(&mut stage, lost_udp), 0);
}

/// Sequence numbers of the resets to a port of S2.
fn sequences(told: &[Vec<u8>], port: u16) -> Vec<u32> {
    let resets = told.iter().filter(|packet| {
        parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E1, 443), (S2, port)))
    });
    resets.filter_map(|packet| parsed(packet).tcp(packet).map(|tcp| tcp.sequence)).collect()
}

/// What the other end sent may have been lost on its last stretch: then the receiver expects
/// another number.
#[test]
fn a_reset_is_sent_with_either_number_that_the_receiver_may_expect() {
    let mut stage = Stage::new(both_ways());
    let port = connect_out(&mut stage, 1);
    let outside = stage.pass(&tcp(ACK, (S2, port), (E1, 443), 1001, 3001)).source;
    let to = builder::tuple(Protocol::TCP, (E1, 443), (outside.address, outside.port));
    stage.pass(&builder::tcp(to, ACK, 3001, 1001, &[], &[7; 500]));
    stage.nat.set_admission(1, AdmitNew::None);
    let (_, told) = sweep(&mut stage, failed(1));
    assert_eq!(sequences(&told, port), [3501, 3001]);
}

#[test]
fn a_published_servers_sessions_end_with_their_line_only() {
    let mut stage = Stage::new(both_ways());
    connect(&mut stage);
    stage.pass(&tcp(SYN, (E2, 5555), (G2, 8080), 100, 0));
    stage.pass(&tcp(SYN_ACK, (S1, 80), (E2, 5555), 500, 101));
    stage.nat.set_admission(1, AdmitNew::None);
    let (ended, told) = sweep(&mut stage, failed(1));
    assert_eq!((ended, told.len()), (1, 1));
    assert_eq!(parsed(&told[0]).tuple(), Some(tuple(Protocol::TCP, (E2, 5555), (S1, 80))));
    assert_eq!(stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
}

#[test]
fn nothing_ends_that_has_nowhere_to_go() {
    let mut settings = both_ways();
    settings.policy.outbound[0].uplinks = vec![1];
    let mut stage = Stage::new(settings);
    stage.pass(&udp((S2, 5000), (E1, 53)));
    stage.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut stage, failed(1)), (0, vec![]), "its rule knows no other line");
    let mut both_down = Stage::new(both_ways());
    let _ = connect_out(&mut both_down, 1);
    both_down.nat.set_admission(0, AdmitNew::None);
    both_down.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut both_down, failed(1)), (0, vec![]));
}

#[test]
fn what_is_held_stays_and_what_is_closed_drains() {
    let mut stage = Stage::new(both_ways());
    let port = port_on(&mut stage, 1);
    stage.nat.set_admission(1, AdmitNew::KnownEndpoints);
    assert_eq!(
        stage.pass(&udp((S2, port), (E2, 53))).source.address,
        G2,
        "its endpoint has a mapping there"
    );
    let other = (40_000..40_050).map(|port| line(&mut stage, port)).max();
    assert_eq!(other, Some(0));
    stage.nat.set_admission(1, AdmitNew::None);
    assert_eq!(
        stage.pass(&udp((S2, port), (E1, 53))).source.address,
        G2,
        "what is under way goes on"
    );
    assert_eq!(stage.pass(&udp((S2, port), (E1, 5353))).source.address, G, "what begins does not");
}

#[test]
fn a_line_that_is_back_takes_new_endpoints_and_gets_the_old_ones_back_if_asked() {
    let mut stage = Stage::new(both_ways());
    let (own, moved) = (port_on(&mut stage, 0), port_on(&mut stage, 1));
    stage.nat.set_admission(1, AdmitNew::None);
    sweep(&mut stage, failed(1));
    assert_eq!(line(&mut stage, moved), 0);
    stage.nat.set_admission(1, AdmitNew::All);
    assert_eq!(
        stage.pass(&udp((S2, moved), (E2, 53))).source.address,
        G,
        "its mapping is here now"
    );
    let (_, told) = sweep(&mut stage, recovered(1));
    assert!(!told.is_empty());
    assert_eq!(line(&mut stage, moved), 1);
    let before = stage.sessions();
    assert_eq!(line(&mut stage, own), 0);
    assert_eq!(stage.sessions(), before, "who is where it belongs was not touched");
    assert_eq!(sweep(&mut stage, recovered(1)).0, 0);
    // Both failed and the second is back first: nobody belongs on it because the first is not back
    // yet.
    stage.nat.set_admission(0, AdmitNew::None);
    assert_eq!(sweep(&mut stage, recovered(1)).0, 0);
}

#[test]
fn the_boxs_own_endpoint_speaks_over_its_line_whatever_its_state() {
    let mut stage = Stage::new(both_ways());
    for (uplink, own, external) in [(0, OWN, G), (1, OWN2, G2)] {
        stage.nat.set_admission(uplink, AdmitNew::None);
        let outside = stage.pass(&udp((own, 7), (E1, 53))).source;
        assert_eq!(outside.address, external);
        let answer =
            builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (external, outside.port)), b"");
        assert_eq!(stage.pass(&answer).destination.address, own);
        stage.nat.set_admission(uplink, AdmitNew::All);
    }
    stage.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut stage, failed(1)).0, 0, "its probes go on");
    let stranger = Ipv4Addr::new(169, 254, 72, 3);
    assert_eq!(stage.refuse(&udp((stranger, 7), (E1, 53))), DropReason::Martian);
}

#[test]
fn a_service_of_the_box_is_published_like_a_servers() {
    let mut settings = both_ways();
    settings.policy.forwards.push(Forward {
        uplink: 1,
        address: G2,
        ..forward(ForwardProtocol::Udp, 53..=53, OWN2, 53)
    });
    let mut stage = Stage::new(settings);
    assert_eq!(stage.pass(&udp((E1, 999), (G2, 53))).destination.address, OWN2);
    let answer = stage.pass(&udp((OWN2, 53), (E1, 999)));
    assert_eq!((answer.source.address, answer.source.port), (G2, 53));
    // Also when the box began again in between.
    let answer = stage.pass(&udp((OWN2, 53), (E2, 999)));
    assert_eq!((answer.source.address, answer.source.port), (G2, 53));
}

/// A line whose address follows its interface.
#[test]
fn only_sessions_over_an_address_that_is_gone_end_and_the_inside_is_told() {
    const NEW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
    let moved = || {
        let mut settings = both_ways();
        settings.policy.uplinks[1].addresses[0].address = NEW;
        settings.policy.forwards[3].address = NEW;
        settings
    };
    let mut stage = Stage::new(both_ways());
    connect(&mut stage);
    let (kept, lost) = (connect_out(&mut stage, 0), connect_out(&mut stage, 1));
    stage.pass(&tcp(SYN, (E2, 5555), (G2, 8080), 100, 0));
    stage.pass(&tcp(SYN_ACK, (S1, 80), (E2, 5555), 500, 101));
    stage.pass(&udp((OWN2, 7), (E1, 53)));
    stage.reload(moved());
    let told = stage.notifications();
    assert_eq!(sequences(&told, lost), [3001]);
    assert!(
        told.iter().any(
            |packet| parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E2, 5555), (S1, 80)))
        )
    );
    assert_eq!(stage.pass(&tcp(ACK, (S2, kept), (E1, 443), 1001, 3001)).source.address, G);
    assert_eq!(stage.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
    assert_eq!(stage.refuse(&tcp(SYN, (E1, 7), (G2, 8080), 1, 0)), DropReason::SourceNotAllowed);
    // Everything begins anew at the new one.
    assert_eq!(stage.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address, NEW);
    assert_eq!(stage.pass(&udp((OWN2, 7), (E1, 53))).source.address, NEW);
    assert_eq!(stage.pass(&tcp(SYN, (E1, 7), (NEW, 8080), 1, 0)).destination.address, S1);
    let mut without = moved();
    without.policy.uplinks[1].addresses.clear();
    without.policy.forwards.pop();
    stage.reload(without.clone());
    assert_eq!(
        stage.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address,
        G,
        "no address, no line"
    );
    assert_eq!(stage.refuse(&udp((OWN2, 7), (E1, 53))), DropReason::NoOutboundRule);
    without.policy.outbound[0].uplinks = vec![1];
    stage.reload(without);
    assert_eq!(stage.refuse(&tcp(SYN, (S2, 7), (E1, 443), 9, 0)), DropReason::NoOutboundRule);
    stage.reload(moved());
    assert_eq!(stage.pass(&udp((OWN2, 7), (E1, 53))).source.address, NEW);
}

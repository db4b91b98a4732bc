//! Two uplinks: the uplink that a new session gets, and the sessions of an uplink that fails or
//! recovers.

use crate::nat::{AdmitNew, EndReason, Filter, OutboundRule, TableCursor};

use super::*;

/// The probe address of the first uplink.
const PROBE: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 1);
/// The probe address of the second uplink.
const PROBE2: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 2);

/// Returns a setup with two uplinks, each with a probe address. The outbound rule allows both.
pub(super) fn two_outbound_uplinks() -> Setup {
    let mut settings = two_uplinks();
    settings.policy.outbound[0].uplinks = vec![0, 1];
    for (uplink, probe_address) in settings.policy.uplinks.iter_mut().zip([PROBE, PROBE2]) {
        uplink.probe_address = Some(probe_address);
    }
    settings
}

/// Returns the uplink over which the packets of a port of S2 leave.
fn uplink_of(harness: &mut Harness, port: u16) -> u8 {
    let source = harness.pass(&udp((S2, port), (E1, 53))).source.address;
    [G, G2].iter().position(|external| *external == source).expect("an external address") as u8
}

/// Returns a port of S2 for which the translator selects the uplink `wanted`.
fn port_on(harness: &mut Harness, wanted: u8) -> u16 {
    (20_000..).find(|port| uplink_of(harness, *port) == wanted).expect("one port of many")
}

/// Ends the sessions that match a filter. Returns their number and the notifications to the inside
/// hosts.
pub(super) fn sweep(
    harness: &mut Harness,
    (filter, reason): (Filter, EndReason),
) -> (usize, Vec<Vec<u8>>) {
    let ended = harness.end_all(&filter, reason);
    (ended, harness.notifications())
}

/// Returns the filter and the reason with which sessions end when an uplink fails.
fn failed(uplink: u8) -> (Filter, EndReason) {
    (Filter::movable_from(uplink), EndReason::UplinkFailed)
}

/// Returns the filter and the reason with which sessions end when an uplink has recovered.
pub(super) fn recovered(uplink: u8) -> (Filter, EndReason) {
    (Filter::preferring(uplink), EndReason::Failback)
}

impl Harness {
    /// Ends all sessions that match a filter, slice by slice. Returns the number of sessions ended.
    pub(super) fn end_all(&self, filter: &Filter, reason: EndReason) -> usize {
        let (mut ended, mut next) = (0, Some(TableCursor::default()));
        while let Some(from) = next {
            let slice = self.nat.end_matching(filter, reason, from, self.now);
            (ended, next) = (ended + slice.ended, slice.next);
        }
        ended
    }

    /// Sends the queued notifications. Returns the packets.
    fn notifications(&mut self) -> Vec<Vec<u8>> {
        assert!(
            !self.nat.is_idle() || self.nat.notifications() == 0,
            "a worker with queued notifications is not idle"
        );
        self.wait(Span(1));
        assert_eq!(self.nat.notifications(), 0);
        self.run(&[]).into_iter().map(|(packet, _)| packet).collect()
    }
}

/// Opens a connection from S2 to E1 over the uplink `wanted`. Returns its port. The next sequence
/// numbers are 1001 (S2) and 3001 (E1).
fn connect_out(harness: &mut Harness, wanted: u8) -> u16 {
    let port = (30_000..).find(|port| {
        let syn = tcp(SYN, (S2, *port), (E1, 443), 1000, 0);
        harness.pass(&syn).source.address == [G, G2][usize::from(wanted)]
    });
    let port = port.expect("one port of many");
    let mapped = harness.pass(&tcp(SYN, (S2, port), (E1, 443), 1000, 0)).source;
    harness.pass(&tcp(SYN_ACK, (E1, 443), (mapped.address, mapped.port), 3000, 1001));
    harness.pass(&tcp(ACK, (S2, port), (E1, 443), 1001, 3001));
    port
}

#[test]
fn an_address_published_whole_gets_mappings_only_if_its_uplink_has_no_other() {
    const G3: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
    let mut settings = two_outbound_uplinks();
    let whole = forward(ForwardProtocol::Any, 0..=65535, S1, 0);
    settings.policy.forwards = vec![Forward { address: G2, uplink: 1, ..whole }];
    let mut harness = Harness::new(settings.clone());
    let uplinks: Vec<u8> = (5000..5040).map(|port| uplink_of(&mut harness, port)).collect();
    assert!(uplinks.contains(&0) && uplinks.contains(&1), "{uplinks:?}");
    let mut another = settings.policy.uplinks[1].addresses[0].clone();
    another.address = G3;
    settings.policy.uplinks[1].addresses.push(another);
    let mut harness = Harness::new(settings);
    for port in 5000..5040 {
        let source = harness.pass(&udp((S2, port), (E1, 53))).source.address;
        assert!([G, G3].contains(&source), "{source}");
    }
}

#[test]
fn only_inside_hosts_with_sessions_over_a_failed_uplink_get_resets_and_icmp_errors() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let (kept, lost) = (connect_out(&mut harness, 0), connect_out(&mut harness, 1));
    let lost_udp = port_on(&mut harness, 1);
    harness.nat.set_admission(1, AdmitNew::None);
    let sessions = harness.sessions();
    let (ended, notifications) = sweep(&mut harness, failed(1));
    assert_eq!(harness.sessions() as usize, sessions as usize - ended);
    let tuples: Vec<Tuple> =
        notifications.iter().filter_map(|packet| parsed(packet).tuple()).collect();
    assert!(tuples.contains(&tuple(Protocol::TCP, (E1, 443), (S2, lost))), "{tuples:?}");
    assert!(!tuples.contains(&tuple(Protocol::TCP, (E1, 443), (S2, kept))));
    let reset = notifications
        .iter()
        .find(|packet| parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E1, 443), (S2, lost))));
    let Payload::Tcp(header) = parsed(reset.expect("a reset among the notifications")).payload()
    else {
        panic!("TCP")
    };
    assert!(header.flags.rst());
    assert_eq!(sequences(&notifications, lost), [3001], "the sequence number that S2 expects next");
    let quotes = notifications.iter().filter_map(|packet| {
        let Payload::IcmpError(error) = parsed(packet).payload() else { return None };
        Some((error.kind, error.code, error.quoted))
    });
    let wanted = (3, 13, tuple(Protocol::UDP, (S2, lost_udp), (E1, 53)));
    assert!(quotes.into_iter().any(|quote| quote == wanted));
    // Sessions over the first uplink continue. The ended connection and the ended UDP session start
    // again over that uplink.
    assert_eq!(harness.pass(&tcp(ACK, (S2, kept), (E1, 443), 1001, 3001)).source.address, G);
    assert_eq!(
        harness.drop_reason(&tcp(ACK, (S2, lost), (E1, 443), 1001, 3001)),
        DropReason::TcpWithoutSession
    );
    assert_eq!(harness.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address, G);
    assert_eq!(uplink_of(&mut harness, lost_udp), 0);
}

/// Returns the sequence numbers of the resets from port 443 of E1 to a port of S2.
fn sequences(notifications: &[Vec<u8>], port: u16) -> Vec<u32> {
    let resets = notifications.iter().filter(|packet| {
        parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E1, 443), (S2, port)))
    });
    resets.filter_map(|packet| parsed(packet).tcp(packet).map(|tcp| tcp.sequence)).collect()
}

/// The last segment of the remote end may have been lost between the box and the inside host. In
/// that case the inside host expects an earlier sequence number.
#[test]
fn an_inside_host_gets_a_reset_for_each_sequence_number_that_it_may_expect() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let port = connect_out(&mut harness, 1);
    let mapped = harness.pass(&tcp(ACK, (S2, port), (E1, 443), 1001, 3001)).source;
    let to = builder::tuple(Protocol::TCP, (E1, 443), (mapped.address, mapped.port));
    harness.pass(&builder::tcp(to, ACK, 3001, 1001, &[], &[7; 500]));
    harness.nat.set_admission(1, AdmitNew::None);
    let (_, notifications) = sweep(&mut harness, failed(1));
    assert_eq!(sequences(&notifications, port), [3501, 3001]);
}

#[test]
fn sessions_of_a_published_server_end_only_over_the_failed_uplink() {
    let mut harness = Harness::new(two_outbound_uplinks());
    connect(&mut harness);
    harness.pass(&tcp(SYN, (E2, 5555), (G2, 8080), 100, 0));
    harness.pass(&tcp(SYN_ACK, (S1, 80), (E2, 5555), 500, 101));
    harness.nat.set_admission(1, AdmitNew::None);
    let (ended, notifications) = sweep(&mut harness, failed(1));
    assert_eq!((ended, notifications.len()), (1, 1));
    assert_eq!(parsed(&notifications[0]).tuple(), Some(tuple(Protocol::TCP, (E2, 5555), (S1, 80))));
    assert_eq!(harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
}

#[test]
fn sessions_without_an_alternative_uplink_survive_the_failure_of_their_uplink() {
    let mut settings = two_outbound_uplinks();
    settings.policy.outbound[0].uplinks = vec![1];
    let mut harness = Harness::new(settings);
    harness.pass(&udp((S2, 5000), (E1, 53)));
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(
        sweep(&mut harness, failed(1)),
        (0, vec![]),
        "the outbound rule allows no other uplink"
    );
    let mut both_down = Harness::new(two_outbound_uplinks());
    let _ = connect_out(&mut both_down, 1);
    both_down.nat.set_admission(0, AdmitNew::None);
    both_down.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut both_down, failed(1)), (0, vec![]));
}

#[test]
fn admit_known_endpoints_keeps_mapped_endpoints_and_admit_none_only_established_sessions() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let port = port_on(&mut harness, 1);
    harness.nat.set_admission(1, AdmitNew::KnownEndpoints);
    assert_eq!(
        harness.pass(&udp((S2, port), (E2, 53))).source.address,
        G2,
        "the inside endpoint has a mapping on the second uplink"
    );
    let other = (40_000..40_050).map(|port| uplink_of(&mut harness, port)).max();
    assert_eq!(other, Some(0));
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(
        harness.pass(&udp((S2, port), (E1, 53))).source.address,
        G2,
        "an established session continues"
    );
    assert_eq!(
        harness.pass(&udp((S2, port), (E1, 5353))).source.address,
        G,
        "a new session uses the other uplink"
    );
    harness.nat.set_admission(1, AdmitNew::KnownEndpoints);
    assert_eq!(
        harness.pass(&udp((S2, port), (E1, 5354))).source.address,
        G,
        "of two uplinks with a mapping, the healthy one is used"
    );
}

#[test]
fn a_recovered_uplink_gets_new_endpoints_and_failback_returns_the_old_ones() {
    let mut harness = Harness::new(two_outbound_uplinks());
    let (first_choice, second_choice) = (port_on(&mut harness, 0), port_on(&mut harness, 1));
    harness.nat.set_admission(1, AdmitNew::None);
    sweep(&mut harness, failed(1));
    assert_eq!(uplink_of(&mut harness, second_choice), 0);
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(
        harness.pass(&udp((S2, second_choice), (E2, 53))).source.address,
        G,
        "the endpoint has its mapping on the first uplink now"
    );
    let (_, notifications) = sweep(&mut harness, recovered(1));
    assert!(!notifications.is_empty());
    assert_eq!(uplink_of(&mut harness, second_choice), 1);
    let before = harness.sessions();
    assert_eq!(uplink_of(&mut harness, first_choice), 0);
    assert_eq!(
        harness.sessions(),
        before,
        "failback ends no session that is on its preferred uplink"
    );
    assert_eq!(sweep(&mut harness, recovered(1)).0, 0);
    // Both uplinks failed and the second recovered first. No session prefers the second uplink only
    // because the first is still down.
    harness.nat.set_admission(0, AdmitNew::None);
    assert_eq!(sweep(&mut harness, recovered(1)).0, 0);
}

#[test]
fn probes_leave_over_their_own_uplink_in_every_admission_state() {
    let mut harness = Harness::new(two_outbound_uplinks());
    for (uplink, probe_address, external) in [(0, PROBE, G), (1, PROBE2, G2)] {
        harness.nat.set_admission(uplink, AdmitNew::None);
        let mapped = harness.pass(&udp((probe_address, 7), (E1, 53))).source;
        assert_eq!(mapped.address, external);
        let reply =
            builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (external, mapped.port)), b"");
        assert_eq!(harness.pass(&reply).destination.address, probe_address);
        harness.nat.set_admission(uplink, AdmitNew::All);
    }
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut harness, failed(1)).0, 0, "probe sessions continue");
    let unknown_address = Ipv4Addr::new(169, 254, 72, 3);
    assert_eq!(harness.drop_reason(&udp((unknown_address, 7), (E1, 53))), DropReason::Martian);
}

#[test]
fn the_hosts_own_packets_leave_over_any_uplink_and_move_with_their_sessions() {
    const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 72, 0);
    let mut settings = two_outbound_uplinks();
    settings.policy.host_address = Some(HOST);
    let from = HOST.into();
    settings.policy.outbound.push(OutboundRule { from, ..settings.policy.outbound[0].clone() });
    let mut harness = Harness::new(settings);
    let over = |harness: &mut Harness, port: u16, remote: Ipv4Addr| {
        harness.pass(&udp((HOST, port), (remote, 53))).source
    };
    let port = (40_000..).find(|port| over(&mut harness, *port, E1).address == G2);
    let port = port.expect("one port of many");
    let mapped = over(&mut harness, port, E1);
    let reply = builder::udp(builder::tuple(Protocol::UDP, (E1, 53), (G2, mapped.port)), b"");
    assert_eq!(harness.pass(&reply).destination.address, HOST);
    // An inside host with a mapping there would keep to the failed uplink.
    harness.nat.set_admission(1, AdmitNew::KnownEndpoints);
    assert_eq!(over(&mut harness, port, E2).address, G);
    assert_eq!(over(&mut harness, port, E1).address, G2, "the session has not ended yet");
    let (movable, reason) = failed(1);
    let ended = harness.end_all(&Filter { inside_host: Some(HOST), ..movable }, reason);
    assert!(ended >= 1);
    assert_eq!(over(&mut harness, port, E1).address, G);
    harness.nat.set_admission(1, AdmitNew::All);
    let (preferring, reason) = recovered(1);
    let filter = Filter { inside_host: Some(HOST), protocol: Some(Protocol::UDP), ..preferring };
    assert_eq!(harness.end_all(&filter, reason), 2, "to E1 and to E2");
    assert_eq!(over(&mut harness, port, E1).address, G2);
}

/// The backup uplink got a new session of each endpoint that it had served.
#[test]
fn an_endpoint_with_a_mapping_on_a_backup_uplink_returns_to_the_lower_tier() {
    let mut settings = two_outbound_uplinks();
    settings.policy.uplinks[0].tier = 2;
    let mut harness = Harness::new(settings);
    let over = |harness: &mut Harness, remote: Ipv4Addr| {
        harness.pass(&udp((S2, 5000), (remote, 53))).source.address
    };
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(over(&mut harness, E1), G);
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(over(&mut harness, E1), G, "the session stays");
    assert_eq!(over(&mut harness, E2), G2, "a new one does not");
    // A lower tier whose uplink has failed keeps the endpoints that have a mapping only there.
    assert_eq!(harness.pass(&udp((S2, 5002), (E1, 53))).source.address, G2);
    harness.nat.set_admission(1, AdmitNew::KnownEndpoints);
    assert_eq!(harness.pass(&udp((S2, 5002), (E2, 54))).source.address, G2);
    assert_eq!(harness.pass(&udp((S2, 5001), (E2, 54))).source.address, G);
    assert_eq!(harness.pass(&udp((S2, 5000), (E2, 54))).source.address, G);
    // Failback ends the sessions on the backup uplink.
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(sweep(&mut harness, recovered(1)).0, 3);
    assert_eq!(sweep(&mut harness, recovered(0)).0, 0);
    assert_eq!(over(&mut harness, E1), G2);
}

/// A VPN over UDP kept a backup uplink busy for ever.
#[test]
fn sessions_without_a_connection_return_from_a_backup_uplink_and_the_others_stay() {
    let mut settings = two_outbound_uplinks();
    settings.policy.uplinks[0].tier = 2;
    let mut harness = Harness::new(settings);
    harness.nat.set_admission(1, AdmitNew::None);
    let gre = builder::other(Protocol(47), S2, E1, b"gre");
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source.address, G);
    assert_eq!(harness.pass(&gre).source.address, G);
    let port = connect_out(&mut harness, 0);
    connect(&mut harness);
    harness.pass(&udp((PROBE, 7), (E1, 53)));
    let returning = |uplink| (Filter::returning_from_backup(uplink), EndReason::TierRecovered);
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(sweep(&mut harness, returning(0)), (0, vec![]), "a lower tier, not a higher one");
    assert_eq!(sweep(&mut harness, returning(1)), (2, vec![]), "no host gets an error");
    assert_eq!(harness.pass(&udp((S2, 5000), (E1, 53))).source.address, G2);
    assert_eq!(harness.pass(&gre).source.address, G2);
    assert_eq!(harness.pass(&tcp(ACK, (S2, port), (E1, 443), 1001, 3001)).source.address, G);
    assert_eq!(harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
    assert_eq!(sweep(&mut harness, recovered(1)).0, 1, "with `failback: reset` TCP as well");
    // Of two uplinks of one tier, none is the backup of the other.
    let mut harness = Harness::new(two_outbound_uplinks());
    harness.nat.set_admission(1, AdmitNew::None);
    (20_000..20_050).for_each(|port| assert_eq!(uplink_of(&mut harness, port), 0));
    harness.nat.set_admission(1, AdmitNew::All);
    assert_eq!(sweep(&mut harness, returning(1)).0, 0);
}

/// The rule of S2 names none of the uplinks that are open.
#[test]
fn sessions_leave_a_dead_uplink_for_the_last_resort_of_their_rule() {
    let mut settings = two_outbound_uplinks();
    let mut third = settings.policy.uplinks[1].clone();
    third.addresses[0].address = Ipv4Addr::new(198, 51, 100, 99);
    third.probe_address = None;
    settings.policy.uplinks.push(third);
    let mut harness = Harness::new(settings);
    let port = port_on(&mut harness, 1);
    harness.nat.set_admission(0, AdmitNew::None);
    harness.nat.set_admission(1, AdmitNew::None);
    assert_eq!(sweep(&mut harness, failed(1)).0, 0, "both are alike");
    harness.nat.set_last_resort(0, true);
    assert_eq!(uplink_of(&mut harness, port), 1, "the session goes on");
    assert!(sweep(&mut harness, failed(1)).0 > 0);
    assert_eq!(sweep(&mut harness, failed(0)).0, 0);
    assert_eq!(uplink_of(&mut harness, port), 0);
}

#[test]
fn a_forward_can_publish_a_service_on_the_probe_address() {
    let mut settings = two_outbound_uplinks();
    settings.policy.forwards.push(Forward {
        uplink: 1,
        address: G2,
        ..forward(ForwardProtocol::Udp, 53..=53, PROBE2, 53)
    });
    let mut harness = Harness::new(settings);
    assert_eq!(harness.pass(&udp((E1, 999), (G2, 53))).destination.address, PROBE2);
    let reply = harness.pass(&udp((PROBE2, 53), (E1, 999)));
    assert_eq!((reply.source.address, reply.source.port), (G2, 53));
    // The same holds without a session, as after a restart.
    let reply = harness.pass(&udp((PROBE2, 53), (E2, 999)));
    assert_eq!((reply.source.address, reply.source.port), (G2, 53));
}

/// The address of the second uplink follows its interface, and the interface gets a new address.
#[test]
fn only_sessions_over_a_removed_address_end_and_their_inside_hosts_are_notified() {
    const NEW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
    let with_new_address = || {
        let mut settings = two_outbound_uplinks();
        settings.policy.uplinks[1].addresses[0].address = NEW;
        settings.policy.forwards[3].address = NEW;
        settings
    };
    let mut harness = Harness::new(two_outbound_uplinks());
    connect(&mut harness);
    let (kept, lost) = (connect_out(&mut harness, 0), connect_out(&mut harness, 1));
    harness.pass(&tcp(SYN, (E2, 5555), (G2, 8080), 100, 0));
    harness.pass(&tcp(SYN_ACK, (S1, 80), (E2, 5555), 500, 101));
    harness.pass(&udp((PROBE2, 7), (E1, 53)));
    harness.reload(with_new_address());
    let notifications = harness.notifications();
    assert_eq!(sequences(&notifications, lost), [3001]);
    assert!(
        notifications.iter().any(
            |packet| parsed(packet).tuple() == Some(tuple(Protocol::TCP, (E2, 5555), (S1, 80)))
        )
    );
    assert_eq!(harness.pass(&tcp(ACK, (S2, kept), (E1, 443), 1001, 3001)).source.address, G);
    assert_eq!(harness.pass(&tcp(ACK, (E1, 4444), (G, 8080), 101, 501)).destination.address, S1);
    assert_eq!(
        harness.drop_reason(&tcp(SYN, (E1, 7), (G2, 8080), 1, 0)),
        DropReason::SourceNotAllowed
    );
    // New sessions use the new address.
    assert_eq!(harness.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address, NEW);
    assert_eq!(harness.pass(&udp((PROBE2, 7), (E1, 53))).source.address, NEW);
    assert_eq!(harness.pass(&tcp(SYN, (E1, 7), (NEW, 8080), 1, 0)).destination.address, S1);
    let mut without_address = with_new_address();
    without_address.policy.uplinks[1].addresses.clear();
    without_address.policy.forwards.pop();
    harness.reload(without_address.clone());
    assert_eq!(
        harness.pass(&tcp(SYN, (S2, lost), (E1, 443), 9, 0)).source.address,
        G,
        "an uplink without an address gets no session"
    );
    assert_eq!(harness.drop_reason(&udp((PROBE2, 7), (E1, 53))), DropReason::NoOutboundRule);
    without_address.policy.outbound[0].uplinks = vec![1];
    harness.reload(without_address);
    assert_eq!(
        harness.drop_reason(&tcp(SYN, (S2, 7), (E1, 443), 9, 0)),
        DropReason::NoOutboundRule
    );
    harness.reload(with_new_address());
    assert_eq!(harness.pass(&udp((PROBE2, 7), (E1, 53))).source.address, NEW);
}

/// The name server of the box: each answer leaves by the uplink of its question, from the published
/// port, and a flood of questions takes no record.
#[test]
fn datagrams_to_a_service_at_a_probe_address_open_no_session() {
    let mut settings = two_outbound_uplinks();
    for (uplink, address, to_address) in [(0, G, PROBE), (1, G2, PROBE2)] {
        let service = forward(ForwardProtocol::TcpUdp, 53..=53, to_address, 5353);
        settings.policy.forwards.push(Forward { uplink, address, ..service });
    }
    let mut harness = Harness::new(settings);
    for (external, service) in [(G, PROBE), (G2, PROBE2)] {
        for port in 1024..1124 {
            let question = harness.pass(&udp((E1, port), (external, 53)));
            assert_eq!(question, tuple(Protocol::UDP, (E1, port), (service, 5353)));
        }
        let answer = harness.pass(&udp((service, 5353), (E1, 1024)));
        assert_eq!(answer, tuple(Protocol::UDP, (external, 53), (E1, 1024)));
    }
    assert_eq!(harness.sessions(), 0);
    harness.pass(&tcp(SYN, (E1, 1024), (G, 53), 1, 0));
    assert_eq!(harness.sessions(), 1, "TCP has a session");
    harness.pass(&udp((PROBE2, 40_000), (E1, 53)));
    assert_eq!(harness.sessions(), 2, "so has a question of the host itself");
}

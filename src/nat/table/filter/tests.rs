use super::*;
use crate::nat::table::session::{EndpointKind, SessionId};
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::TcpSnapshot;
use crate::packet::Tuple;
use crate::time::Tick;

const INSIDE: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 5), 5000);
const OTHER_INSIDE: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 6), 80);
const EXTERNAL: Endpoint = Endpoint::new(Ipv4Addr::new(203, 0, 113, 10), 40_000);
const OTHER_EXTERNAL: Endpoint = Endpoint::new(Ipv4Addr::new(203, 0, 113, 11), 443);
const REMOTE: Endpoint = Endpoint::new(Ipv4Addr::new(192, 0, 2, 1), 53);

fn session(kind: SessionKind, original: [Endpoint; 2], reply: [Endpoint; 2]) -> SessionInfo {
    let tuple = |[source, destination]: [Endpoint; 2]| Tuple {
        protocol: Protocol::TCP,
        source,
        destination,
    };
    SessionInfo {
        id: SessionId::new(7, 1),
        original: tuple(original),
        reply: tuple(reply),
        origin: kind,
        uplink: 1,
        state: State::Tcp(TcpState::SynOriginal),
        tcp: TcpSnapshot::default(),
        last_seen: Tick(0),
        deadline: Tick(0),
        accounting: None,
    }
}

fn outbound() -> SessionInfo {
    session(SessionKind::OUTBOUND, [INSIDE, REMOTE], [REMOTE, EXTERNAL])
}

fn inbound() -> SessionInfo {
    session(SessionKind::FORWARD, [REMOTE, OTHER_EXTERNAL], [OTHER_INSIDE, REMOTE])
}

fn hairpin() -> SessionInfo {
    let kind = SessionKind { initiator: EndpointKind::Mapping, responder: EndpointKind::Forward };
    session(kind, [INSIDE, OTHER_EXTERNAL], [OTHER_INSIDE, EXTERNAL])
}

/// Which of outbound, inbound and hairpin a filter matches.
fn matched(filter: &Filter) -> [bool; 3] {
    [outbound(), inbound(), hairpin()].map(|session| filter.matches_values(&session))
}

#[test]
fn a_filter_without_conditions_matches_every_session() {
    assert_eq!(matched(&Filter::default()), [true; 3]);
}

#[test]
fn inside_hosts_external_and_remote_endpoints_match_on_the_side_where_they_are() {
    let host = |address| Filter { inside_host: Some(address), ..Filter::default() };
    assert_eq!(matched(&host(INSIDE.address)), [true, false, true]);
    assert_eq!(matched(&host(OTHER_INSIDE.address)), [false, true, true]);
    assert_eq!(matched(&host(REMOTE.address)), [false; 3]);
    let at = |end: Endpoint| EndpointFilter { address: Some(end.address), port: Some(end.port) };
    let external = |end| Filter { external: Some(at(end)), ..Filter::default() };
    assert_eq!(matched(&external(EXTERNAL)), [true, false, true]);
    assert_eq!(matched(&external(OTHER_EXTERNAL)), [false, true, true]);
    let remote = |end| Filter { remote: Some(end), ..Filter::default() };
    assert_eq!(matched(&remote(at(REMOTE))), [true, true, false]);
    assert_eq!(matched(&remote(at(OTHER_EXTERNAL))), [false; 3]);
    assert_eq!(
        matched(&remote(EndpointFilter { address: None, port: Some(53) })),
        [true, true, false]
    );
    assert_eq!(matched(&remote(EndpointFilter { address: None, port: Some(54) })), [false; 3]);
}

#[test]
fn every_condition_must_be_met() {
    let filter = Filter { uplink: Some(1), protocol: Some(Protocol::TCP), ..Filter::default() };
    assert_eq!(matched(&filter), [true; 3]);
    assert_eq!(matched(&Filter { uplink: Some(0), ..filter.clone() }), [false; 3]);
    assert_eq!(matched(&Filter { protocol: Some(Protocol::UDP), ..filter.clone() }), [false; 3]);
    let kind = Some(SessionKind::OUTBOUND);
    assert_eq!(matched(&Filter { kind, ..filter.clone() }), [true, false, false]);
    // Listings call both states of an unanswered SYN "syn".
    let state = Some(State::Tcp(TcpState::SynReply));
    assert_eq!(matched(&Filter { state, ..filter.clone() }), [true; 3]);
    assert_eq!(matched(&Filter { state: Some(State::Udp), ..filter }), [false; 3]);
}

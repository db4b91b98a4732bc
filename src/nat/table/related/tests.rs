//! Related sessions against a naive model.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::nat::policy::limits::Limits;
use crate::nat::table::lookup::{Lookup, Match};
use crate::nat::table::session::{EndReason, EndpointKind, NewSession, SessionId};

use crate::nat::table::session_table::FirstPacket;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::Segment;
use crate::packet::{Protocol, TcpFlags};
use crate::time::Span;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PUBLISHED: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(198, 51, 100, 1)];

fn table(capacity: u32) -> Table {
    let inside = ipnet::Ipv4Net::new_assert(SERVER, 32);
    let idle_timeouts = IdleTimeouts::new(&Limits::new(inside).timeouts);
    let table = Table::new(capacity, 2, idle_timeouts, [1, 2, 3, 4], Tick(0)).expect("memory");
    table.with_related().expect("memory")
}

/// A session that a client opens to a server over an uplink.
fn inbound(client: Endpoint, server: Ipv4Addr, uplink: u8, state: State) -> NewSession {
    let protocol = if matches!(state, State::Tcp(_)) { Protocol::TCP } else { Protocol::UDP };
    let published = Endpoint::new(PUBLISHED[usize::from(uplink)], 69);
    let server = Endpoint::new(server, 69);
    NewSession {
        original: Key::of(Tuple { protocol, source: client, destination: published }),
        reply: Key::of(Tuple { protocol, source: server, destination: client }),
        origin: SessionKind::FORWARD,
        uplink,
        state,
        idle: Span(0),
    }
}

fn from_server(protocol: Protocol, client: Endpoint) -> Tuple {
    Tuple { protocol, source: Endpoint::new(SERVER, 5000), destination: client }
}

fn uplink_of(table: &Table, protocol: Protocol, client: Endpoint, now: Tick) -> Option<u8> {
    let place = table.related(from_server(protocol, client), now, |_| true)?;
    assert_eq!(place.address, PUBLISHED[usize::from(place.uplink)]);
    Some(place.uplink)
}

fn open(table: &Table, port: u16, uplink: u8) -> SessionId {
    let client = Endpoint::new(CLIENT, port);
    let new = inbound(client, SERVER, uplink, State::Udp);
    table.insert(0, &new, None, Tick(0)).expect("space")
}

#[test]
fn the_session_of_the_same_remote_endpoint_comes_before_the_latest_one() {
    let table = table(16);
    let (first, latest) = (open(&table, 1000, 0), open(&table, 2000, 1));
    let uplink = |port| uplink_of(&table, Protocol::UDP, Endpoint::new(CLIENT, port), Tick(0));
    assert_eq!((uplink(1000), uplink(2000), uplink(3000)), (Some(0), Some(1), Some(1)));
    table.end(latest, EndReason::Requested, Tick(0)).expect("live");
    assert_eq!((uplink(2000), uplink(3000)), (Some(0), Some(0)));
    table.end(first, EndReason::Requested, Tick(0)).expect("live");
    assert_eq!(uplink(1000), None);
}

#[test]
fn a_session_of_another_protocol_is_related_by_its_addresses_alone() {
    let table = table(16);
    open(&table, 1000, 0);
    open(&table, 2000, 1);
    let gre = uplink_of(&table, Protocol(47), Endpoint::new(CLIENT, 0), Tick(0));
    let tcp = uplink_of(&table, Protocol::TCP, Endpoint::new(CLIENT, 1000), Tick(0));
    assert_eq!((gre, tcp), (Some(1), Some(1)));
}

#[test]
fn sessions_that_are_over_and_uplinks_that_are_refused_do_not_count() {
    let table = table(16);
    open(&table, 1000, 0);
    let client = Endpoint::new(CLIENT, 1000);
    let closed = inbound(client, SERVER, 1, State::Tcp(TcpState::FinBoth));
    table.insert(0, &closed, None, Tick(0)).expect("space");
    assert_eq!(uplink_of(&table, Protocol::TCP, client, Tick(0)), Some(0));
    let tuple = from_server(Protocol::UDP, client);
    assert_eq!(table.related(tuple, Tick(0), |place| place.uplink != 0), None);
    let expired = Tick(0).after(Span::seconds(301));
    assert_eq!(uplink_of(&table, Protocol::UDP, client, expired), None);
}

/// A client closed many connections after the one that is open.
#[test]
fn connections_that_are_closing_hide_no_open_one() {
    let table = table(1024);
    open(&table, 1000, 0);
    let segment = |flags, sequence, acknowledgement| Segment {
        flags,
        sequence,
        acknowledgement,
        window: 1000,
        payload: 0,
        scale: None,
    };
    let (ack, reset) = (segment(TcpFlags::ACK, 1000, 5000), segment(TcpFlags::RST, 5000, 0));
    let first = FirstPacket { segment: Some(&ack), direction: Direction::Original, bytes: 40 };
    for port in 2000..2500 {
        let client = Endpoint::new(CLIENT, port);
        let new = inbound(client, SERVER, 1, State::Tcp(TcpState::Established));
        table.insert(0, &new, Some(first), Tick(0)).expect("a free record");
        let hash = table.hash(new.reply);
        let hit = table.lookup_and_update(new.reply, hash, Some(&reset), 40, Tick(1));
        let Lookup::Hit(Match { reschedule: Some(id), .. }) = hit else { panic!("{hit:?}") };
        table.reschedule(id, Tick(1));
        assert_eq!(uplink_of(&table, Protocol::UDP, client, Tick(1)), Some(0));
    }
}

#[test]
fn sessions_from_inside_are_in_no_list() {
    let table = table(16);
    let client = Endpoint::new(CLIENT, 1000);
    for initiator in [EndpointKind::Mapping, EndpointKind::Forward, EndpointKind::Address] {
        let inbound = inbound(client, SERVER, 0, State::Udp);
        let origin = SessionKind { initiator, responder: EndpointKind::Outside };
        let outbound =
            NewSession { origin, original: inbound.reply, reply: inbound.original, ..inbound };
        let id = table.insert(0, &outbound, None, Tick(0)).expect("space");
        assert_eq!(uplink_of(&table, Protocol::UDP, client, Tick(0)), None);
        table.end(id, EndReason::Requested, Tick(0)).expect("live");
    }
}

/// Few hosts and a small table, so that lists are long, shared, and cut at every place.
#[test]
fn the_lists_agree_with_a_naive_model() {
    const CAPACITY: u32 = 64;
    let mut random = StdRng::seed_from_u64(1);
    let table = table(CAPACITY);
    let mut model: Vec<(SessionId, NewSession)> = Vec::new();
    for _ in 0..20_000 {
        let client = Endpoint::new(
            Ipv4Addr::from_bits(CLIENT.to_bits() + random.random_range(0..12)),
            random.random_range(1..20),
        );
        let server = Ipv4Addr::from_bits(SERVER.to_bits() + random.random_range(0..3));
        if random.random_bool(0.55) {
            let is_closing = random.random_bool(0.3);
            let state = if is_closing { State::Tcp(TcpState::FinBoth) } else { State::Udp };
            let new = inbound(client, server, random.random_range(0..2), state);
            let worker = random.random_range(0..2);
            model.extend(table.insert(worker, &new, None, Tick(0)).ok().map(|id| (id, new)));
        } else if !model.is_empty() {
            let (id, _) = model.remove(random.random_range(0..model.len()));
            table.end(id, EndReason::Requested, Tick(0)).expect("live");
        }
        if !model.is_empty() {
            let (id, _) = model[random.random_range(0..model.len())];
            table.close_in_list(id.slot());
        }
        let between = |new: &NewSession| {
            let reply = new.reply.tuple();
            let is_open = new.state == State::Udp;
            is_open && (reply.source.address, reply.destination.address) == (SERVER, client.address)
        };
        let candidates = || model.iter().rev().filter(|(_, new)| between(new));
        let exact = candidates().find(|(_, new)| new.reply.tuple().destination == client);
        let expected = exact.or_else(|| candidates().next()).map(|(_, new)| new.uplink);
        assert_eq!(uplink_of(&table, Protocol::UDP, client, Tick(0)), expected);
    }
}

/// Two workers open and end sessions of one pair of hosts while a third one looks them up.
#[test]
fn lists_survive_workers_that_open_and_end_sessions_of_the_same_hosts() {
    let table = table(256);
    std::thread::scope(|scope| {
        for worker in 0..2u16 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..4000u16 {
                    let client = Endpoint::new(CLIENT, 1 + worker * 8000 + round % 100);
                    let new = inbound(client, SERVER, worker as u8, State::Udp);
                    if let Ok(id) = table.insert(usize::from(worker), &new, None, Tick(0)) {
                        table.end(id, EndReason::Requested, Tick(0)).expect("live");
                    }
                }
            });
        }
        for _ in 0..4000 {
            uplink_of(&table, Protocol::UDP, Endpoint::new(CLIENT, 1), Tick(0));
        }
    });
    assert_eq!(uplink_of(&table, Protocol::UDP, Endpoint::new(CLIENT, 1), Tick(0)), None);
}

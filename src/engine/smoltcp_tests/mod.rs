//! Whole conversations through the engine: two hosts with a TCP/IP stack that knows nothing of natbox (smoltcp), the
//! box between them on memory queues, virtual time, and links that lose, double and reorder packets.
//!
//! Every packet that leaves the box is verified in full by [`Stage::run`](super::scenarios::Stage::run); the hosts'
//! stack verifies it once more.

mod network;

use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, IpEndpoint};

use crate::nat::{DropReason, State, TcpState};
use crate::time::Span;

use super::scenarios::{E1, E2, G, S1, S2, settings, udp as datagram};
use network::{Faults, Network, Place};

/// The ways in which links misbehave.
const WEATHER: [Faults; 5] = [
    Faults::NONE,
    Faults { loss: 0.03, ..Faults::NONE },
    Faults { duplication: 0.2, ..Faults::NONE },
    Faults { reordering: 0.3, ..Faults::NONE },
    Faults { loss: 0.03, duplication: 0.1, reordering: 0.2 },
];

/// One end of a connection. The hasty one sends all it has, closes its half, and goes on receiving; the other one holds
/// half of its bytes back until it has seen that.
///
/// A FIN waits until all before it is acknowledged: after three duplicate acknowledgements smoltcp 0.14 never again
/// sends a FIN that has nothing before it in the buffer.
struct End {
    place: Place,
    hasty: bool,
    socket: SocketHandle,
    sending: Vec<u8>,
    sent: usize,
    closed: bool,
    received: Vec<u8>,
    /// The other end closed in good order: nothing is missing.
    finished: bool,
    peer: Option<IpEndpoint>,
}

impl End {
    fn new(network: &mut Network, place: Place, hasty: bool, seed: u64, bytes: usize) -> Self {
        let mut sending = vec![0; bytes];
        StdRng::seed_from_u64(seed).fill(&mut sending[..]);
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let socket = network.host(place).sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self {
            place,
            hasty,
            socket,
            sending,
            sent: 0,
            closed: false,
            received: Vec::new(),
            finished: false,
            peer: None,
        }
    }

    fn listen(self, network: &mut Network, port: u16) -> Self {
        network
            .host(self.place)
            .socket::<tcp::Socket<'_>>(self.socket)
            .listen(port)
            .expect("a free port");
        self
    }

    fn connect(self, network: &mut Network, to: (Ipv4Addr, u16), from: u16) -> Self {
        let host = network.host(self.place);
        let socket = host.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        socket.connect(host.interface.context(), to, from).expect("a fresh socket and a route");
        self
    }

    /// Moves bytes between the application and its socket; false when there was nothing to do.
    fn work(&mut self, network: &mut Network) -> bool {
        let before = (self.sent, self.closed, self.received.len(), self.finished);
        let socket: &mut tcp::Socket<'_> = network.host(self.place).socket(self.socket);
        self.peer = self.peer.or(socket.remote_endpoint());
        let ready =
            if self.hasty || self.finished { self.sending.len() } else { self.sending.len() / 2 };
        if socket.can_send() && self.sent < ready {
            self.sent += socket.send_slice(&self.sending[self.sent..ready]).expect("it can send");
        }
        let told = self.sent == self.sending.len() && socket.send_queue() == 0;
        if told && !self.closed && socket.may_send() && (self.hasty || self.finished) {
            socket.close();
            self.closed = true;
        }
        let mut buffer = [0; 4096];
        loop {
            match socket.recv_slice(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) => {
                    self.finished |= error == tcp::RecvError::Finished;
                    break;
                }
            }
        }
        before != (self.sent, self.closed, self.received.len(), self.finished)
    }

    fn state(&self, network: &mut Network) -> tcp::State {
        network.host(self.place).socket::<tcp::Socket<'_>>(self.socket).state()
    }
}

/// Runs the network until both ends are closed and nothing is on the way any more; `meddle` is called at every step.
fn converse(network: &mut Network, ends: &mut [End], mut meddle: impl FnMut(&mut Network, &[End])) {
    loop {
        let mut busy = network.step();
        for end in ends.iter_mut() {
            busy |= end.work(network);
        }
        meddle(network, ends);
        let states: Vec<_> = ends.iter().map(|end| end.state(network)).collect();
        let over = states.iter().all(|state| *state == tcp::State::Closed);
        if over && !busy {
            break;
        }
        assert!(busy, "{}: stuck at {states:?}", network.name);
        assert!(network.elapsed() < PATIENCE, "{}: still {states:?}", network.name);
    }
}

/// Both ends got every byte of the other, in order, and then its FIN.
fn assert_whole(network: &Network, one: &End, other: &End) {
    for (sender, receiver) in [(one, other), (other, one)] {
        assert!(
            receiver.received == sender.sending,
            "{}: {:?} got something else",
            network.name,
            receiver.place
        );
        assert!(
            receiver.finished,
            "{}: {:?} was not closed in good order",
            network.name, receiver.place
        );
    }
}

/// What is left of a connection that was closed is one session, which goes after the transitory timeout.
fn assert_fades(network: &mut Network) {
    assert_eq!(network.states(), [State::Tcp(TcpState::FinBoth)], "{}", network.name);
    let transitory = network.stage.nat.limits().timeouts.tcp_transitory;
    network.stage.wait(Span(transitory.0 + Span::seconds(1).0));
    assert_eq!(
        (network.stage.sessions(), network.stage.nat.mappings()),
        (0, 0),
        "{}",
        network.name
    );
}

fn through_the_forward(network: &mut Network, seed: u64, hasty_server: bool) -> [End; 2] {
    [
        End::new(network, Place::Inside, hasty_server, seed, BYTES).listen(network, 80),
        End::new(network, Place::Outside, !hasty_server, seed + 1, BYTES).connect(
            network,
            (G, 8080),
            CLIENT_PORT,
        ),
    ]
}

#[test]
fn a_connection_through_a_forward_is_whole_in_any_weather() {
    for faults in WEATHER {
        for seed in 0..SEEDS {
            let mut network = Network::new(settings(), faults, seed);
            let mut ends = through_the_forward(&mut network, seed, seed % 2 == 0);
            converse(&mut network, &mut ends, |_, _| {});
            let [server, client] = ends;
            assert_whole(&network, &server, &client);
            assert_eq!(
                server.peer,
                Some(IpEndpoint::from((E1, CLIENT_PORT))),
                "the server sees its client"
            );
            assert_fades(&mut network);
        }
    }
}

#[test]
fn a_connection_to_the_outside_is_whole_in_any_weather() {
    for faults in WEATHER {
        for seed in 0..SEEDS {
            let mut network = Network::new(settings(), faults, seed);
            let hasty_server = seed % 2 == 0;
            let mut ends = [
                End::new(&mut network, Place::Outside, hasty_server, seed, BYTES)
                    .listen(&mut network, 443),
                End::new(&mut network, Place::Inside, !hasty_server, seed + 1, BYTES).connect(
                    &mut network,
                    (E1, 443),
                    CLIENT_PORT,
                ),
            ];
            converse(&mut network, &mut ends, |_, _| {});
            let [server, client] = ends;
            assert_whole(&network, &server, &client);
            let seen = server.peer.expect("it was connected");
            assert_eq!(seen.addr, IpAddress::Ipv4(G), "the outside sees the external address");
            assert!(
                seen.port >= 1024
                    && ![8080].contains(&seen.port)
                    && !(9000..=9015).contains(&seen.port)
            );
            assert_fades(&mut network);
        }
    }
}

#[test]
fn many_connections_at_once_do_not_mix() {
    let faults = Faults { loss: 0.02, duplication: 0.1, reordering: 0.2 };
    let mut network = Network::new(settings(), faults, 99);
    let mut ends = Vec::new();
    for number in 0..30u16 {
        let seed = u64::from(number) * 2;
        ends.push(
            End::new(&mut network, Place::Inside, false, seed, 8 * 1024).listen(&mut network, 80),
        );
        let client = End::new(&mut network, Place::Outside, true, seed + 1, 8 * 1024);
        ends.push(client.connect(&mut network, (G, 8080), CLIENT_PORT + number));
    }
    for number in 0..30u16 {
        let seed = 1000 + u64::from(number) * 2;
        ends.push(
            End::new(&mut network, Place::Outside, false, seed, 8 * 1024).listen(&mut network, 443),
        );
        let client = End::new(&mut network, Place::Inside, true, seed + 1, 8 * 1024);
        ends.push(client.connect(&mut network, (E1, 443), CLIENT_PORT + number));
    }
    converse(&mut network, &mut ends, |_, _| {});
    // Which listener took which client is the stack's affair: pair them by what they said.
    let (clients, servers): (Vec<_>, Vec<_>) = ends.iter().partition(|end| end.hasty);
    assert_eq!((clients.len(), servers.len()), (60, 60));
    for client in clients {
        let partner = servers
            .iter()
            .find(|server| server.sending == client.received)
            .expect("a server's bytes");
        assert_whole(&network, client, partner);
    }
    assert_eq!(network.stage.sessions(), 60);
    assert_eq!(network.stage.nat.mappings(), 30);
    network.stage.wait(Span::seconds(241));
    assert_eq!((network.stage.sessions(), network.stage.nat.mappings()), (0, 0));
}

#[test]
fn a_connection_through_a_forward_outlives_the_box() {
    for seed in 0..SEEDS {
        let faults = Faults { loss: 0.01, duplication: 0.05, reordering: 0.1 };
        let mut network = Network::new(settings(), faults, seed);
        // The box is never restarted between two FINs: a new one cannot know of the first.
        let mut ends = through_the_forward(&mut network, seed, false);
        let mut restarts = 0;
        converse(&mut network, &mut ends, |network, ends| {
            if ends[0].received.len() > (restarts + 1) * BYTES / 4 {
                network.restart_box(settings());
                restarts += 1;
            }
        });
        assert_eq!(restarts, 3);
        let [server, client] = ends;
        assert_whole(&network, &server, &client);
        assert_eq!(server.peer, Some(IpEndpoint::from((E1, CLIENT_PORT))));
        assert_fades(&mut network);
    }
}

#[test]
fn a_full_table_does_not_part_a_published_server_from_its_clients() {
    let faults = Faults { loss: 0.01, duplication: 0.05, reordering: 0.1 };
    let mut network = Network::new(settings().with(|setup| setup.limits.sessions = 1), faults, 5);
    network.stage.send(&datagram((S2, 5000), (E2, 53))).expect("the first session is free");
    let mut ends = through_the_forward(&mut network, 5, true);
    converse(&mut network, &mut ends, |_, _| {});
    assert_whole(&network, &ends[0], &ends[1]);
    assert_eq!(network.states(), [State::Udp]);
    assert_eq!(network.stage.counters().forwarded_stateless, network.passed);
}

#[test]
fn a_reset_crosses_the_box_and_the_session_fades() {
    for faults in WEATHER {
        for resetting in 0..2 {
            let mut network = Network::new(settings(), Faults { loss: 0.0, ..faults }, 3);
            let mut ends = through_the_forward(&mut network, 3, true);
            let mut done = false;
            converse(&mut network, &mut ends, |network, ends| {
                let end = &ends[resetting];
                if end.received.len() > BYTES / 4 && !done {
                    network.host(end.place).socket::<tcp::Socket<'_>>(end.socket).abort();
                    done = true;
                }
            });
            assert!(!ends[1 - resetting].finished, "{}: the other end learns of it", network.name);
            if faults.reordering == 0.0 {
                assert_eq!(network.states(), [State::Tcp(TcpState::Reset)], "{}", network.name);
                network.stage.wait(Span::seconds(241));
                assert_eq!(network.stage.sessions(), 0);
            }
        }
    }
}

#[test]
fn datagrams_and_their_answers_cross_in_both_directions() {
    for (asking, answering, to, port) in [
        (Place::Outside, Place::Inside, (G, 8080), 80),
        (Place::Inside, Place::Outside, (E1, 7), 7),
    ] {
        let mut network = Network::new(settings(), Faults { duplication: 0.2, ..Faults::NONE }, 1);
        let socket = || {
            let buffer =
                || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65536]);
            udp::Socket::new(buffer(), buffer())
        };
        let asker = network.host(asking).sockets.add(socket());
        let answerer = network.host(answering).sockets.add(socket());
        network
            .host(asking)
            .socket::<udp::Socket<'_>>(asker)
            .bind(CLIENT_PORT)
            .expect("a free port");
        network
            .host(answering)
            .socket::<udp::Socket<'_>>(answerer)
            .bind(port)
            .expect("a free port");
        for length in (0..1472).step_by(64) {
            let question = vec![length as u8; length];
            let socket: &mut udp::Socket<'_> = network.host(asking).socket(asker);
            socket.send_slice(&question, to).expect("room in the buffer");
            let mut answered = false;
            let mut busy = true;
            while busy {
                busy = network.step();
                let socket: &mut udp::Socket<'_> = network.host(answering).socket(answerer);
                while let Ok((bytes, from)) = socket.recv() {
                    let (bytes, from) = (bytes.to_vec(), from.endpoint);
                    let expected = if asking == Place::Outside { E1 } else { G };
                    assert_eq!(from.addr, IpAddress::Ipv4(expected));
                    assert_eq!(bytes, question);
                    socket.send_slice(&bytes, from).expect("room in the buffer");
                    busy = true;
                }
                let socket: &mut udp::Socket<'_> = network.host(asking).socket(asker);
                while let Ok((bytes, from)) = socket.recv() {
                    assert_eq!((bytes, from.endpoint), (&question[..], IpEndpoint::from(to)));
                    answered = true;
                }
            }
            assert!(answered, "{length} bytes were answered");
        }
        assert_eq!(network.states(), [State::Udp]);
        network.stage.wait(Span::seconds(301));
        assert_eq!((network.stage.sessions(), network.stage.nat.mappings()), (0, 0));
    }
}

#[test]
fn a_ping_is_answered_in_both_directions() {
    for (asking, to, identifier) in [(Place::Outside, G, 77), (Place::Inside, E1, 78)] {
        let mut network = Network::new(settings(), Faults { duplication: 0.2, ..Faults::NONE }, 2);
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 8192]);
        let socket = network.host(asking).sockets.add(icmp::Socket::new(buffer(), buffer()));
        let pinger: &mut icmp::Socket<'_> = network.host(asking).socket(socket);
        pinger.bind(icmp::Endpoint::Ident(identifier)).expect("a free identifier");
        let checksums = ChecksumCapabilities::default();
        for number in 0..20 {
            let request = Icmpv4Repr::EchoRequest {
                ident: identifier,
                seq_no: number,
                data: b"are you there?",
            };
            let pinger: &mut icmp::Socket<'_> = network.host(asking).socket(socket);
            let bytes =
                pinger.send(request.buffer_len(), IpAddress::Ipv4(to)).expect("room in the buffer");
            request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
            let mut answered = false;
            let mut busy = true;
            while busy {
                busy = network.step();
                let pinger: &mut icmp::Socket<'_> = network.host(asking).socket(socket);
                while let Ok((bytes, from)) = pinger.recv() {
                    let reply = Icmpv4Packet::new_checked(bytes).expect("a whole message");
                    let reply = Icmpv4Repr::parse(&reply, &checksums).expect("a right checksum");
                    let expected = Icmpv4Repr::EchoReply {
                        ident: identifier,
                        seq_no: number,
                        data: b"are you there?",
                    };
                    assert_eq!((reply, from), (expected, IpAddress::Ipv4(to)));
                    answered = true;
                }
            }
            assert!(answered, "ping {number}");
        }
        assert_eq!(network.states(), [State::Icmp]);
        network.stage.wait(Span::seconds(61));
        assert_eq!((network.stage.sessions(), network.stage.nat.mappings()), (0, 0));
    }
}

#[test]
fn a_closed_port_is_told_by_the_host_that_was_asked() {
    let mut network = Network::new(settings(), Faults::NONE, 4);
    let mut ends = [End::new(&mut network, Place::Outside, true, 1, 0).connect(
        &mut network,
        (G, 8080),
        CLIENT_PORT,
    )];
    converse(&mut network, &mut ends, |_, _| {});
    assert!(ends[0].received.is_empty() && !ends[0].finished, "refused by S1's reset");
    assert_eq!(network.stage.refuse(&datagram((E2, 1), (G, 1))), DropReason::NoMapping);
    assert_eq!(network.inside.interface.ipv4_addr(), Some(S1));
}

const CLIENT_PORT: u16 = 40_000;
/// Buffers of a socket; beyond 64 KiB, so that windows are scaled.
const WINDOW: usize = 128 * 1024;
const BYTES: usize = 256 * 1024;
const SEEDS: u64 = 4;
/// Virtual milliseconds until a conversation must be over.
const PATIENCE: u64 = 3_600_000;

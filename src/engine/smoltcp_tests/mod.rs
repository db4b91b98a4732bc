//! Whole connections through the engine. Two hosts run smoltcp, a TCP/IP stack that is independent
//! of natbox. The box is between them on memory queues. Time is virtual, and links lose, duplicate
//! and reorder packets.
//!
//! [`Harness::run`](super::scenarios::Harness::run) verifies in full every packet that the box
//! sends. The stacks of the hosts verify each packet again.

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
use network::{Faults, Network, Node};

/// The port of the first client.
const CLIENT_PORT: u16 = 40_000;
/// Bytes in each buffer of a socket: more than 64 KiB, so that window scaling is in use.
const WINDOW: usize = 128 * 1024;
/// Bytes that each end of a connection sends.
const TRANSFER_BYTES: usize = 256 * 1024;
/// Runs of each test with each of [`FAULT_PROFILES`].
const SEED_COUNT: u64 = 4;
/// Virtual milliseconds after which a connection that is not closed fails its test.
const TIMEOUT_MILLIS: u64 = 3_600_000;

/// The faults of links under which each test with faults runs.
const FAULT_PROFILES: [Faults; 5] = [
    Faults::NONE,
    Faults { loss: 0.03, ..Faults::NONE },
    Faults { duplication: 0.2, ..Faults::NONE },
    Faults { reordering: 0.3, ..Faults::NONE },
    Faults { loss: 0.03, duplication: 0.1, reordering: 0.2 },
];

/// One end of a TCP connection.
///
/// An end with `closes_first` sends all bytes, closes its direction, and continues to receive.
/// The other end keeps half of its bytes until it has received the FIN.
///
/// An end closes only after the acknowledgement of all its bytes. After three duplicate
/// acknowledgements, smoltcp 0.14 never again sends a FIN that has no bytes before it in the
/// buffer.
struct ConnectionEnd {
    node: Node,
    closes_first: bool,
    socket: SocketHandle,
    sending: Vec<u8>,
    sent: usize,
    closed: bool,
    received: Vec<u8>,
    /// True after the FIN of the other end. No byte is missing.
    finished: bool,
    peer: Option<IpEndpoint>,
}

impl ConnectionEnd {
    fn new(network: &mut Network, node: Node, closes_first: bool, seed: u64, bytes: usize) -> Self {
        let mut sending = vec![0; bytes];
        StdRng::seed_from_u64(seed).fill(&mut sending[..]);
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let socket = network.host(node).sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self {
            node,
            closes_first,
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
            .host(self.node)
            .socket::<tcp::Socket<'_>>(self.socket)
            .listen(port)
            .expect("a free port");
        self
    }

    fn connect(self, network: &mut Network, to: (Ipv4Addr, u16), from: u16) -> Self {
        let host = network.host(self.node);
        let socket = host.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        socket.connect(host.interface.context(), to, from).expect("a fresh socket and a route");
        self
    }

    /// Moves bytes between the application and its socket. Returns false if nothing changed.
    fn transfer(&mut self, network: &mut Network) -> bool {
        let before = (self.sent, self.closed, self.received.len(), self.finished);
        let socket: &mut tcp::Socket<'_> = network.host(self.node).socket(self.socket);
        self.peer = self.peer.or(socket.remote_endpoint());
        let ready = if self.closes_first || self.finished {
            self.sending.len()
        } else {
            self.sending.len() / 2
        };
        if socket.can_send() && self.sent < ready {
            self.sent += socket
                .send_slice(&self.sending[self.sent..ready])
                .expect("space in the send buffer");
        }
        let all_acknowledged = self.sent == self.sending.len() && socket.send_queue() == 0;
        if all_acknowledged
            && !self.closed
            && socket.may_send()
            && (self.closes_first || self.finished)
        {
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
        network.host(self.node).socket::<tcp::Socket<'_>>(self.socket).state()
    }
}

/// Runs the network until both ends are closed and no packet is in flight. Calls `on_step` after
/// each step.
fn run_until_closed(
    network: &mut Network,
    ends: &mut [ConnectionEnd],
    mut on_step: impl FnMut(&mut Network, &[ConnectionEnd]),
) {
    loop {
        let mut busy = network.step();
        for end in ends.iter_mut() {
            busy |= end.transfer(network);
        }
        on_step(network, ends);
        let states: Vec<_> = ends.iter().map(|end| end.state(network)).collect();
        let all_closed = states.iter().all(|state| *state == tcp::State::Closed);
        if all_closed && !busy {
            break;
        }
        assert!(busy, "{}: stuck at {states:?}", network.name);
        assert!(network.elapsed() < TIMEOUT_MILLIS, "{}: still {states:?}", network.name);
    }
}

/// Asserts that each end received every byte of the other end in order, and then its FIN.
fn assert_all_bytes_received(network: &Network, one: &ConnectionEnd, other: &ConnectionEnd) {
    for (sender, receiver) in [(one, other), (other, one)] {
        assert!(
            receiver.received == sender.sending,
            "{}: {:?} received other bytes",
            network.name,
            receiver.node
        );
        assert!(receiver.finished, "{}: {:?} received no FIN", network.name, receiver.node);
    }
}

/// Asserts that one closed session remains and expires after the transitory timeout.
fn assert_session_expires(network: &mut Network) {
    assert_eq!(network.states(), [State::Tcp(TcpState::FinBoth)], "{}", network.name);
    let transitory = network.harness.nat.limits().timeouts.tcp_transitory;
    network.harness.wait(Span(transitory.0 + Span::seconds(1).0));
    assert_eq!(
        (network.harness.sessions(), network.harness.nat.mappings()),
        (0, 0),
        "{}",
        network.name
    );
}

/// Returns the server and the client of a connection through the forward of port 8080.
fn ends_through_forward(
    network: &mut Network,
    seed: u64,
    server_closes_first: bool,
) -> [ConnectionEnd; 2] {
    [
        ConnectionEnd::new(network, Node::Inside, server_closes_first, seed, TRANSFER_BYTES)
            .listen(network, 80),
        ConnectionEnd::new(network, Node::Outside, !server_closes_first, seed + 1, TRANSFER_BYTES)
            .connect(network, (G, 8080), CLIENT_PORT),
    ]
}

#[test]
fn a_connection_through_a_forward_loses_no_byte_when_links_lose_duplicate_and_reorder_packets() {
    for faults in FAULT_PROFILES {
        for seed in 0..SEED_COUNT {
            let mut network = Network::new(settings(), faults, seed);
            let mut ends = ends_through_forward(&mut network, seed, seed % 2 == 0);
            run_until_closed(&mut network, &mut ends, |_, _| {});
            let [server, client] = ends;
            assert_all_bytes_received(&network, &server, &client);
            assert_eq!(
                server.peer,
                Some(IpEndpoint::from((E1, CLIENT_PORT))),
                "the server sees the address of the client"
            );
            assert_session_expires(&mut network);
        }
    }
}

#[test]
fn an_outbound_connection_loses_no_byte_when_links_lose_duplicate_and_reorder_packets() {
    for faults in FAULT_PROFILES {
        for seed in 0..SEED_COUNT {
            let mut network = Network::new(settings(), faults, seed);
            let server_closes_first = seed % 2 == 0;
            let mut ends = [
                ConnectionEnd::new(
                    &mut network,
                    Node::Outside,
                    server_closes_first,
                    seed,
                    TRANSFER_BYTES,
                )
                .listen(&mut network, 443),
                ConnectionEnd::new(
                    &mut network,
                    Node::Inside,
                    !server_closes_first,
                    seed + 1,
                    TRANSFER_BYTES,
                )
                .connect(&mut network, (E1, 443), CLIENT_PORT),
            ];
            run_until_closed(&mut network, &mut ends, |_, _| {});
            let [server, client] = ends;
            assert_all_bytes_received(&network, &server, &client);
            let client_address = server.peer.expect("an established connection");
            assert_eq!(
                client_address.addr,
                IpAddress::Ipv4(G),
                "the server sees the external address"
            );
            assert!(
                client_address.port >= 1024
                    && ![8080].contains(&client_address.port)
                    && !(9000..=9015).contains(&client_address.port)
            );
            assert_session_expires(&mut network);
        }
    }
}

#[test]
fn sixty_concurrent_connections_receive_only_their_own_bytes() {
    let faults = Faults { loss: 0.02, duplication: 0.1, reordering: 0.2 };
    let mut network = Network::new(settings(), faults, 99);
    let mut ends = Vec::new();
    for number in 0..30u16 {
        let seed = u64::from(number) * 2;
        ends.push(
            ConnectionEnd::new(&mut network, Node::Inside, false, seed, 8 * 1024)
                .listen(&mut network, 80),
        );
        let client = ConnectionEnd::new(&mut network, Node::Outside, true, seed + 1, 8 * 1024);
        ends.push(client.connect(&mut network, (G, 8080), CLIENT_PORT + number));
    }
    for number in 0..30u16 {
        let seed = 1000 + u64::from(number) * 2;
        ends.push(
            ConnectionEnd::new(&mut network, Node::Outside, false, seed, 8 * 1024)
                .listen(&mut network, 443),
        );
        let client = ConnectionEnd::new(&mut network, Node::Inside, true, seed + 1, 8 * 1024);
        ends.push(client.connect(&mut network, (E1, 443), CLIENT_PORT + number));
    }
    run_until_closed(&mut network, &mut ends, |_, _| {});
    // The stack chooses a listener for each client. The bytes received identify the pairs.
    let (clients, servers): (Vec<_>, Vec<_>) = ends.iter().partition(|end| end.closes_first);
    assert_eq!((clients.len(), servers.len()), (60, 60));
    for client in clients {
        let server = servers
            .iter()
            .find(|server| server.sending == client.received)
            .expect("the bytes of one server");
        assert_all_bytes_received(&network, client, server);
    }
    assert_eq!(network.harness.sessions(), 60);
    assert_eq!(network.harness.nat.mappings(), 30);
    network.harness.wait(Span::seconds(241));
    assert_eq!((network.harness.sessions(), network.harness.nat.mappings()), (0, 0));
}

#[test]
fn a_connection_through_a_forward_survives_three_restarts_of_natbox() {
    for seed in 0..SEED_COUNT {
        let faults = Faults { loss: 0.01, duplication: 0.05, reordering: 0.1 };
        let mut network = Network::new(settings(), faults, seed);
        // The box does not restart between two FINs, because a new one cannot know the first FIN.
        let mut ends = ends_through_forward(&mut network, seed, false);
        let mut restarts = 0;
        run_until_closed(&mut network, &mut ends, |network, ends| {
            if ends[0].received.len() > (restarts + 1) * TRANSFER_BYTES / 4 {
                network.restart_box(settings());
                restarts += 1;
            }
        });
        assert_eq!(restarts, 3);
        let [server, client] = ends;
        assert_all_bytes_received(&network, &server, &client);
        assert_eq!(server.peer, Some(IpEndpoint::from((E1, CLIENT_PORT))));
        assert_session_expires(&mut network);
    }
}

#[test]
fn a_connection_through_a_forward_works_statelessly_while_the_session_table_is_full() {
    let faults = Faults { loss: 0.01, duplication: 0.05, reordering: 0.1 };
    let mut network = Network::new(settings().with(|setup| setup.limits.sessions = 1), faults, 5);
    network.harness.send(&datagram((S2, 5000), (E2, 53))).expect("the first session is free");
    let mut ends = ends_through_forward(&mut network, 5, true);
    run_until_closed(&mut network, &mut ends, |_, _| {});
    assert_all_bytes_received(&network, &ends[0], &ends[1]);
    assert_eq!(network.states(), [State::Udp]);
    assert_eq!(network.harness.counters().forwarded_stateless, network.forwarded);
}

#[test]
fn a_reset_of_either_end_passes_the_box_and_the_session_expires() {
    for faults in FAULT_PROFILES {
        for resetting_end in 0..2 {
            let mut network = Network::new(settings(), Faults { loss: 0.0, ..faults }, 3);
            let mut ends = ends_through_forward(&mut network, 3, true);
            let mut done = false;
            run_until_closed(&mut network, &mut ends, |network, ends| {
                let end = &ends[resetting_end];
                if end.received.len() > TRANSFER_BYTES / 4 && !done {
                    network.host(end.node).socket::<tcp::Socket<'_>>(end.socket).abort();
                    done = true;
                }
            });
            assert!(
                !ends[1 - resetting_end].finished,
                "{}: the other end received no FIN",
                network.name
            );
            if faults.reordering == 0.0 {
                assert_eq!(network.states(), [State::Tcp(TcpState::Reset)], "{}", network.name);
                network.harness.wait(Span::seconds(241));
                assert_eq!(network.harness.sessions(), 0);
            }
        }
    }
}

#[test]
fn udp_requests_and_replies_of_every_length_pass_in_both_directions() {
    for (client_side, server_side, to, port) in
        [(Node::Outside, Node::Inside, (G, 8080), 80), (Node::Inside, Node::Outside, (E1, 7), 7)]
    {
        let mut network = Network::new(settings(), Faults { duplication: 0.2, ..Faults::NONE }, 1);
        let socket = || {
            let buffer =
                || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65536]);
            udp::Socket::new(buffer(), buffer())
        };
        let client = network.host(client_side).sockets.add(socket());
        let server = network.host(server_side).sockets.add(socket());
        network
            .host(client_side)
            .socket::<udp::Socket<'_>>(client)
            .bind(CLIENT_PORT)
            .expect("a free port");
        network
            .host(server_side)
            .socket::<udp::Socket<'_>>(server)
            .bind(port)
            .expect("a free port");
        for length in (0..1472).step_by(64) {
            let request = vec![length as u8; length];
            let socket: &mut udp::Socket<'_> = network.host(client_side).socket(client);
            socket.send_slice(&request, to).expect("space in the buffer");
            let mut replied = false;
            let mut busy = true;
            while busy {
                busy = network.step();
                let socket: &mut udp::Socket<'_> = network.host(server_side).socket(server);
                while let Ok((bytes, from)) = socket.recv() {
                    let (bytes, from) = (bytes.to_vec(), from.endpoint);
                    let expected = if client_side == Node::Outside { E1 } else { G };
                    assert_eq!(from.addr, IpAddress::Ipv4(expected));
                    assert_eq!(bytes, request);
                    socket.send_slice(&bytes, from).expect("space in the buffer");
                    busy = true;
                }
                let socket: &mut udp::Socket<'_> = network.host(client_side).socket(client);
                while let Ok((bytes, from)) = socket.recv() {
                    assert_eq!((bytes, from.endpoint), (&request[..], IpEndpoint::from(to)));
                    replied = true;
                }
            }
            assert!(replied, "a reply to {length} bytes");
        }
        assert_eq!(network.states(), [State::Udp]);
        network.harness.wait(Span::seconds(301));
        assert_eq!((network.harness.sessions(), network.harness.nat.mappings()), (0, 0));
    }
}

#[test]
fn pings_from_both_sides_get_their_replies() {
    for (client_side, to, identifier) in [(Node::Outside, G, 77), (Node::Inside, E1, 78)] {
        let mut network = Network::new(settings(), Faults { duplication: 0.2, ..Faults::NONE }, 2);
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 8192]);
        let socket = network.host(client_side).sockets.add(icmp::Socket::new(buffer(), buffer()));
        let client: &mut icmp::Socket<'_> = network.host(client_side).socket(socket);
        client.bind(icmp::Endpoint::Ident(identifier)).expect("a free identifier");
        let checksums = ChecksumCapabilities::default();
        for number in 0..20 {
            let request = Icmpv4Repr::EchoRequest {
                ident: identifier,
                seq_no: number,
                data: b"are you there?",
            };
            let client: &mut icmp::Socket<'_> = network.host(client_side).socket(socket);
            let bytes = client
                .send(request.buffer_len(), IpAddress::Ipv4(to))
                .expect("space in the buffer");
            request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
            let mut replied = false;
            let mut busy = true;
            while busy {
                busy = network.step();
                let client: &mut icmp::Socket<'_> = network.host(client_side).socket(socket);
                while let Ok((bytes, from)) = client.recv() {
                    let reply = Icmpv4Packet::new_checked(bytes).expect("a complete message");
                    let reply = Icmpv4Repr::parse(&reply, &checksums).expect("a correct checksum");
                    let expected = Icmpv4Repr::EchoReply {
                        ident: identifier,
                        seq_no: number,
                        data: b"are you there?",
                    };
                    assert_eq!((reply, from), (expected, IpAddress::Ipv4(to)));
                    replied = true;
                }
            }
            assert!(replied, "a reply to ping {number}");
        }
        assert_eq!(network.states(), [State::Icmp]);
        network.harness.wait(Span::seconds(61));
        assert_eq!((network.harness.sessions(), network.harness.nat.mappings()), (0, 0));
    }
}

#[test]
fn a_connection_to_a_closed_port_behind_a_forward_is_reset_by_the_server() {
    let mut network = Network::new(settings(), Faults::NONE, 4);
    let mut ends = [ConnectionEnd::new(&mut network, Node::Outside, true, 1, 0).connect(
        &mut network,
        (G, 8080),
        CLIENT_PORT,
    )];
    run_until_closed(&mut network, &mut ends, |_, _| {});
    assert!(ends[0].received.is_empty() && !ends[0].finished, "S1 sent a reset");
    assert_eq!(network.harness.drop_reason(&datagram((E2, 1), (G, 1))), DropReason::NoMapping);
    assert_eq!(network.inside.interface.ipv4_addr(), Some(S1));
}

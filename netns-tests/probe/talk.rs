//! The exchanges over the wires with which most tests begin.

use natbox::packet::{Endpoint, Protocol, QueryKind, TcpFlags, builder};

use super::{Probe, Seen, at, tuple};

/// SYN and ACK.
pub(crate) const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// Returns the options of an ordinary SYN: MSS 1460.
fn syn_options() -> [u8; 4] {
    [2, 4, 5, 180]
}

/// A connection through the box, as each end sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// Inside end.
    pub inside: Endpoint,
    /// Peer of the inside end.
    pub inside_peer: Endpoint,
    /// Outside end.
    pub outside: Endpoint,
    /// Peer of the outside end.
    pub external: Endpoint,
    /// Next sequence number of the inside end.
    pub inside_next: u32,
    /// Next sequence number of the outside end.
    pub outside_next: u32,
}

impl Connection {
    /// Makes a segment of the inside end with the expected numbers.
    pub(crate) fn by_inside(&self, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        let to = tuple(Protocol::TCP, self.inside, self.inside_peer);
        builder::tcp(to, flags, self.inside_next, self.outside_next, &[], payload)
    }

    /// Makes a segment of the outside end with the expected numbers.
    pub(crate) fn by_outside(&self, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        let to = tuple(Protocol::TCP, self.outside, self.external);
        builder::tcp(to, flags, self.outside_next, self.inside_next, &[], payload)
    }
}

impl Probe {
    /// Sends a datagram from inside and returns the packet that arrives outside.
    #[track_caller]
    pub(crate) fn udp_out(&self, from: Endpoint, to: Endpoint, payload: &[u8]) -> Seen {
        self.inside.send(&builder::udp(tuple(Protocol::UDP, from, to), payload));
        let seen = self.outside.expect("a datagram from inside");
        assert_eq!((seen.destination(), seen.payload()), (to, payload), "{seen:?}");
        seen
    }

    /// Opens a UDP mapping and returns its external endpoint.
    #[track_caller]
    pub(crate) fn open_udp(&self, from: Endpoint, to: Endpoint) -> Endpoint {
        self.udp_out(from, to, b"hello").source()
    }

    /// Sends a datagram from outside.
    pub(crate) fn udp_in(&self, from: Endpoint, to: Endpoint) {
        self.outside.send(&builder::udp(tuple(Protocol::UDP, from, to), b"answer"));
    }

    /// Asserts that a datagram from outside reaches an inside endpoint.
    #[track_caller]
    pub(crate) fn assert_udp_in(&self, from: Endpoint, to: Endpoint, inside: Endpoint) {
        self.udp_in(from, to);
        let seen = self.inside.expect("a datagram from outside");
        assert_eq!((seen.source(), seen.destination()), (from, inside), "{seen:?}");
    }

    /// Asserts that a datagram from outside is dropped: the heartbeat that follows arrives first.
    #[track_caller]
    pub(crate) fn assert_udp_refused_at_once(&self, from: Endpoint, to: Endpoint) {
        self.udp_in(from, to);
        self.assert_alive();
    }

    /// Asserts that a datagram from outside is dropped.
    #[track_caller]
    pub(crate) fn assert_udp_refused(&self, from: Endpoint, to: Endpoint) {
        self.udp_in(from, to);
        self.silence();
    }

    /// Sends a segment from inside and returns the packet that arrives outside.
    #[track_caller]
    pub(crate) fn tcp_out(&self, segment: &[u8]) -> Seen {
        self.inside.send(segment);
        self.outside.expect("a segment from inside")
    }

    /// Sends a segment from outside and returns the packet that arrives inside.
    #[track_caller]
    pub(crate) fn tcp_in(&self, segment: &[u8]) -> Seen {
        self.outside.send(segment);
        self.inside.expect("a segment from outside")
    }

    /// Sends a SYN from inside and returns the packet that arrives outside.
    #[track_caller]
    pub(crate) fn syn_out(&self, from: Endpoint, to: Endpoint) -> Seen {
        self.tcp_out(&builder::tcp(
            tuple(Protocol::TCP, from, to),
            TcpFlags::SYN,
            1000,
            0,
            &syn_options(),
            b"",
        ))
    }

    /// Sends a SYN from outside.
    pub(crate) fn syn_in(&self, from: Endpoint, to: Endpoint) {
        let syn = builder::tcp(
            tuple(Protocol::TCP, from, to),
            TcpFlags::SYN,
            7000,
            0,
            &syn_options(),
            b"",
        );
        self.outside.send(&syn);
    }

    /// Opens a connection from inside by the three-way handshake.
    #[track_caller]
    pub(crate) fn connect_out(&self, from: Endpoint, to: Endpoint) -> Connection {
        let external = self.syn_out(from, to).source();
        let mut connection = Connection {
            inside: from,
            inside_peer: to,
            outside: to,
            external,
            inside_next: 1001,
            outside_next: 7000,
        };
        let answer = builder::tcp(
            tuple(Protocol::TCP, to, external),
            SYN_ACK,
            7000,
            1001,
            &syn_options(),
            b"",
        );
        assert_eq!(self.tcp_in(&answer).destination(), from);
        connection.outside_next = 7001;
        assert_eq!(self.tcp_out(&connection.by_inside(TcpFlags::ACK, b"")).source(), external);
        connection
    }

    /// Opens a connection from outside to a published endpoint.
    #[track_caller]
    pub(crate) fn connect_in(&self, from: Endpoint, published: Endpoint) -> Connection {
        self.syn_in(from, published);
        let seen = self.inside.expect("a SYN from outside");
        let (server, client) = (seen.destination(), seen.source());
        let mut connection = Connection {
            inside: server,
            inside_peer: client,
            outside: from,
            external: published,
            inside_next: 1000,
            outside_next: 7001,
        };
        let answer = builder::tcp(
            tuple(Protocol::TCP, server, client),
            SYN_ACK,
            1000,
            7001,
            &syn_options(),
            b"",
        );
        let seen = self.tcp_out(&answer);
        assert_eq!((seen.source(), seen.destination()), (published, from));
        connection.inside_next = 1001;
        assert_eq!(self.tcp_in(&connection.by_outside(TcpFlags::ACK, b"")).destination(), server);
        connection
    }

    /// Asserts that data passes both ways, and advances the sequence numbers.
    #[track_caller]
    pub(crate) fn assert_open(&self, connection: &mut Connection) {
        let data = TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0);
        let seen = self.tcp_out(&connection.by_inside(data, b"from inside"));
        assert_eq!(
            (seen.source(), seen.destination()),
            (connection.external, connection.outside),
            "{seen:?}"
        );
        assert_eq!(seen.payload(), b"from inside");
        connection.inside_next = connection.inside_next.wrapping_add(11);
        let seen = self.tcp_in(&connection.by_outside(data, b"from outside"));
        assert_eq!(
            (seen.source(), seen.destination()),
            (connection.inside_peer, connection.inside),
            "{seen:?}"
        );
        assert_eq!(seen.payload(), b"from outside");
        connection.outside_next = connection.outside_next.wrapping_add(12);
    }

    /// Sends an echo request from inside and returns the packet that arrives outside.
    #[track_caller]
    pub(crate) fn ping_out(&self, from: Endpoint, to: std::net::Ipv4Addr) -> Seen {
        self.inside.send(&builder::echo(
            from.address,
            to,
            QueryKind::EchoRequest,
            from.port,
            1,
            b"ping",
        ));
        let seen = self.outside.expect("an echo request from inside");
        assert_eq!((seen.icmp(), seen.destination().address), (Some((8, 0)), to), "{seen:?}");
        seen
    }

    /// Opens an echo session and returns its external address and identifier.
    #[track_caller]
    pub(crate) fn open_ping(&self, from: Endpoint, to: std::net::Ipv4Addr) -> Endpoint {
        let seen = self.ping_out(from, to);
        at(seen.source().address, seen.identifier())
    }

    /// Sends an echo reply from outside.
    pub(crate) fn pong_in(&self, from: std::net::Ipv4Addr, to: Endpoint) {
        self.outside.send(&builder::echo(
            from,
            to.address,
            QueryKind::EchoReply,
            to.port,
            1,
            b"ping",
        ));
    }
}

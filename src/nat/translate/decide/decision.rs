//! The values of a decision: the question about a packet, and the answer.

use std::net::Ipv4Addr;

use crate::nat::fragments::datagram::DatagramId;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, IcmpError, Parsed, Payload, Protocol, TcpFlags, Tuple};

/// A packet that a translator decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Tuple of the packet, as it arrives.
    pub tuple: Tuple,
    /// Properties of the packet that its tuple does not show.
    pub content: Content,
}

/// Properties beside the tuple that decide whether a packet opens a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A TCP segment with these flags, or its first fragment if that holds the whole header.
    Tcp(TcpFlags),
    /// UDP.
    Udp,
    /// An ICMP query.
    IcmpRequest,
    /// The reply to an ICMP query.
    IcmpReply,
    /// Another protocol.
    Other,
    /// The first fragment of a datagram other than a TCP segment with its whole header.
    FirstFragment,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A session has the packet's tuple.
    Session(Rewrite),
    /// The packet opens a session.
    Open(Opening),
    /// The packet of a forward is translated without a session.
    Stateless(Rewrite),
    /// The packet with this tuple is forwarded without translation, by a rule of
    /// [`Policy::no_nat`](crate::nat::Policy::no_nat).
    Bypass(Tuple),
    /// The ICMP error is translated for the sender of the packet that the error quotes.
    Error(ErrorRewrite),
    /// The ICMP error is about an untranslated packet and is forwarded.
    BypassError(ErrorRewrite),
    /// The later fragment is translated like the first fragment of its datagram.
    Fragment(FragmentRewrite),
    /// The fragment waits for the first fragment of its datagram.
    Hold,
    /// The host gets the packet.
    PassToHost,
    /// The packet is dropped.
    Drop(DropReason),
}

/// A rewrite of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Tuple of the packet when it leaves.
    pub to: Tuple,
    /// True: the packet leaves towards the inside.
    pub inside: bool,
    /// Index of the uplink.
    pub uplink: u8,
}

/// A rewrite of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRewrite {
    /// The error as it arrived.
    pub error: IcmpError,
    /// New source address.
    pub source: Ipv4Addr,
    /// New destination address.
    pub destination: Ipv4Addr,
    /// New tuple of the quoted packet: the tuple with which its sender sent it.
    pub quoted: Tuple,
    /// True: the error leaves towards the inside.
    pub inside: bool,
}

/// A rewrite of a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentRewrite {
    pub(crate) to: DatagramId,
    /// True: the fragment leaves towards the inside.
    pub inside: bool,
}

/// A session that a packet opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Tuple of the packet, as it arrives.
    pub tuple: Tuple,
    /// Index of the uplink. For a hairpin: the uplink of the external address.
    pub uplink: u8,
    /// First state of the session.
    pub state: State,
    /// How the packet is translated.
    pub path: Path,
}

/// How the packet that opens a session is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From inside to outside: the source becomes the external endpoint.
    Outbound {
        /// New source.
        external: ExternalEndpoint,
        /// New destination: that of the packet, unless the packet's session is related to an
        /// inbound one whose client has another port than the server sees.
        remote: Endpoint,
    },
    /// From inside to inside over an external address: source and destination change.
    Hairpin {
        /// New source.
        external: ExternalEndpoint,
        /// New destination: the server of a forward. None: the inside endpoint of the mapping at
        /// the destination.
        ///
        /// If another session has the resulting tuple, the new source gets another port.
        server: Option<Server>,
    },
    /// From outside through a forward: the destination becomes the server.
    ///
    /// If another session has the resulting tuple, the source port of the client becomes a random
    /// one.
    Forward {
        /// New destination.
        server: Server,
    },
    /// From outside over a dynamic mapping: the destination becomes the mapping's inside endpoint.
    Mapping {
        /// New destination.
        inside: Endpoint,
    },
    /// From the server of a forward, midstream in a TCP connection: the source becomes the
    /// published endpoint.
    Midstream {
        /// New source.
        published: Endpoint,
    },
}

/// The server of a forward as the destination of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The server's endpoint.
    pub endpoint: Endpoint,
    /// True: the session holds the published port, so that no mapping gets the port meanwhile.
    /// Other forwards own their ports, or yield them to mappings.
    pub holds_port: bool,
}

/// The receiver of a packet to an external endpoint without a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// The server of a forward.
    Server(Server),
    /// The inside endpoint of the mapping there, if there is one.
    Mapping,
    /// The host.
    Host,
}

/// External endpoint of an inside endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalEndpoint {
    /// The published endpoint of a forward.
    Published(Endpoint),
    /// The published endpoint of a forward that shares its ports with mappings. The session holds
    /// the port.
    Port(Endpoint),
    /// An external address; the protocol has no ports.
    Address(Ipv4Addr),
    /// The external endpoint of a dynamic mapping: of the present one, or of a new one that the
    /// commit makes. The commit tries this address first.
    Mapping(Ipv4Addr),
}

impl Query {
    /// Describes a parsed packet in its buffer. None: the packet has no tuple (an ICMP error, a
    /// later fragment, an unsupported ICMP message).
    pub fn of(parsed: &Parsed, buffer: &[u8]) -> Option<Self> {
        let tuple = match parsed.payload() {
            Payload::Fragment { first_tuple, .. } => first_tuple?,
            Payload::Tcp(_)
            | Payload::Udp
            | Payload::IcmpQuery(_)
            | Payload::IcmpError(_)
            | Payload::IcmpOther { .. }
            | Payload::Other => parsed.tuple()?,
        };
        let flags = parsed.tcp(buffer).map(|tcp| tcp.flags);
        let content = Content::of(parsed.payload(), flags)?;
        Some(Self { tuple, content })
    }

    /// Returns the first state of the session that the packet may open, or the reason why it may
    /// open none.
    pub(super) fn opening_state(&self) -> Result<State, DropReason> {
        match self.content {
            Content::Tcp(flags) => {
                TcpState::opening(flags).map(State::Tcp).ok_or(DropReason::TcpWithoutSession)
            }
            Content::Udp => Ok(State::Udp),
            Content::IcmpRequest => Ok(State::Icmp),
            Content::IcmpReply => Err(DropReason::IcmpUnsolicitedReply),
            Content::Other => Ok(State::Other),
            // A first fragment has the ports. A TCP fragment without the whole header opens no
            // session.
            Content::FirstFragment => match self.tuple.protocol {
                Protocol::TCP => Err(DropReason::TcpWithoutSession),
                Protocol::UDP => Ok(State::Udp),
                Protocol::ICMP if self.tuple.destination.port == 0 => Ok(State::Icmp),
                Protocol::ICMP => Err(DropReason::IcmpUnsolicitedReply),
                _ => Ok(State::Other),
            },
        }
    }

    /// Returns the state of a connection that is adopted midstream, if the packet proves that a
    /// connection exists.
    pub(super) fn midstream_state(&self) -> Option<State> {
        match self.content {
            Content::Tcp(flags) => TcpState::midstream(flags).map(State::Tcp),
            Content::Udp
            | Content::IcmpRequest
            | Content::IcmpReply
            | Content::Other
            | Content::FirstFragment => None,
        }
    }
}

impl Content {
    /// Returns the content of a packet with this payload and these TCP flags. A first fragment of
    /// TCP has flags if it holds the whole header.
    pub(crate) fn of(payload: Payload, flags: Option<TcpFlags>) -> Option<Self> {
        if let Some(flags) = flags {
            return Some(Self::Tcp(flags));
        }
        match payload {
            Payload::Tcp(_) => None,
            Payload::Udp => Some(Self::Udp),
            Payload::IcmpQuery(kind) if kind.is_request() => Some(Self::IcmpRequest),
            Payload::IcmpQuery(_) => Some(Self::IcmpReply),
            Payload::Other => Some(Self::Other),
            Payload::Fragment { .. } => Some(Self::FirstFragment),
            Payload::IcmpError(_) | Payload::IcmpOther { .. } => None,
        }
    }
}

impl ExternalEndpoint {
    /// Returns the kind of an inside endpoint with this external endpoint.
    pub(crate) fn kind(self) -> EndpointKind {
        match self {
            Self::Published(_) => EndpointKind::Forward,
            Self::Port(_) => EndpointKind::Port,
            Self::Address(_) => EndpointKind::Address,
            Self::Mapping(_) => EndpointKind::Mapping,
        }
    }
}

impl Server {
    /// Returns the kind of the server's endpoint.
    #[inline(always)]
    pub(crate) fn kind(self) -> EndpointKind {
        if self.holds_port { EndpointKind::Port } else { EndpointKind::Forward }
    }
}

impl Opening {
    /// Returns the kinds of the session's endpoints.
    pub fn kind(&self) -> SessionKind {
        match self.path {
            Path::Outbound { external, .. } => {
                SessionKind { initiator: external.kind(), responder: EndpointKind::Outside }
            }
            Path::Hairpin { external, server } => {
                let responder = server.map_or(EndpointKind::Mapping, Server::kind);
                SessionKind { initiator: external.kind(), responder }
            }
            Path::Forward { server } => {
                SessionKind { initiator: EndpointKind::Outside, responder: server.kind() }
            }
            Path::Midstream { .. } => SessionKind::FORWARD,
            Path::Mapping { .. } => SessionKind::INBOUND,
        }
    }
}

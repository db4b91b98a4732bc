//! Decides what happens to a packet. Nothing here changes any state.
//!
//! ```text
//!                      destination is external                destination is not
//!   source inside      hairpin                                outbound
//!   source outside     forward, mapping, or the host          dropped
//! ```
//!
//! [`Translator::decide`] decides about a packet that might arrive. The miss path decides by the
//! same rules about a packet that has arrived, and then commits the decision (see
//! [`crate::nat::translate::slow_path`]). The commit reserves ports and records, which another
//! worker may take first.
//!
//! The functions of the miss path are inlined into one: a `Decision` that passes through memory costs
//! 5 ns a new session (`cargo bench --bench engine new-forward`).

mod foresight;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use crate::nat::fragments::datagram::DatagramId;
use crate::nat::table::key::Key;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::translator::{External, Translator};
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, IcmpError, Parsed, Payload, Protocol, TcpFlags, Tuple};
use crate::time::Tick;

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
    },
    /// From inside to inside over an external address: source and destination change.
    Hairpin {
        /// New source.
        external: ExternalEndpoint,
        /// New destination: the server of a forward. None: the inside endpoint of the mapping at
        /// the destination.
        server: Option<Endpoint>,
    },
    /// From outside through a forward: the destination becomes the server.
    ///
    /// If another session has the resulting tuple, the source port of the client becomes a random
    /// one.
    Forward {
        /// New destination.
        server: Endpoint,
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

/// External endpoint of an inside endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalEndpoint {
    /// The published endpoint of a forward.
    Published(Endpoint),
    /// An external address; the protocol has no ports.
    Address(Ipv4Addr),
    /// The external endpoint of a dynamic mapping: of the present one, or of a new one that the
    /// commit makes.
    Mapping,
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
    fn opening_state(&self) -> Result<State, DropReason> {
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
    fn midstream_state(&self) -> Option<State> {
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
            Self::Address(_) => EndpointKind::Address,
            Self::Mapping => EndpointKind::Mapping,
        }
    }
}

impl Opening {
    /// Returns the kinds of the session's endpoints.
    pub fn kind(&self) -> SessionKind {
        match self.path {
            Path::Outbound { external } => {
                SessionKind { initiator: external.kind(), responder: EndpointKind::Outside }
            }
            Path::Hairpin { external, server } => {
                let responder =
                    if server.is_some() { EndpointKind::Forward } else { EndpointKind::Mapping };
                SessionKind { initiator: external.kind(), responder }
            }
            Path::Forward { .. } | Path::Midstream { .. } => SessionKind::FORWARD,
            Path::Mapping { .. } => SessionKind::INBOUND,
        }
    }
}

impl Translator {
    /// Decides about a packet without a session.
    #[inline(always)]
    pub(crate) fn decide_unmatched(&self, query: &Query, now: Tick) -> Decision {
        let Tuple { source, destination, .. } = query.tuple;
        let (source, destination) = (source.address, destination.address);
        let is_probe = self.uplink_of_probe_address(source).is_some();
        if is_martian(source) && !is_probe || is_martian(destination) || source == destination {
            return Decision::Drop(DropReason::Martian);
        }
        if self.inside_end_of_bypass(query.tuple).is_some() {
            return Decision::Bypass(query.tuple);
        }
        let decision = match (self.is_inside(source) || is_probe, self.external(destination)) {
            (true, None) => self.decide_outbound(query),
            (true, Some(external)) => self.decide_hairpin(query, external),
            (false, Some(external)) => self.decide_inbound(query, external, now),
            (false, None) => Err(DropReason::SourceNotAllowed),
        };
        decision.unwrap_or_else(|reason| self.decide_dropped(destination, reason))
    }

    /// Decides about a packet that is dropped for `reason` unless the host has the destination
    /// address.
    fn decide_dropped(&self, destination: Ipv4Addr, reason: DropReason) -> Decision {
        let may_be_hosts = matches!(reason, DropReason::NoMapping | DropReason::Filtered);
        if may_be_hosts && self.is_assigned(destination) {
            Decision::PassToHost
        } else {
            Decision::Drop(reason)
        }
    }

    #[inline(always)]
    fn decide_outbound(&self, query: &Query) -> Result<Decision, DropReason> {
        let tuple = query.tuple;
        let chosen = self.select_uplink(&tuple);
        let published = self.forwards.published(tuple.protocol, tuple.source, chosen);
        let uplink =
            published.map(|(uplink, _)| uplink).or(chosen).ok_or(DropReason::NoOutboundRule)?;
        let state = match (query.opening_state(), published) {
            // The packet may open a session, or reply to a request whose session is lost.
            (Ok(State::Udp), Some(_)) if self.is_published_more_than_once(tuple) => {
                State::Tentative
            }
            (Ok(state), _) => state,
            // After a restart, the server of a forward continues a connection midstream.
            (
                Err(DropReason::TcpWithoutSession | DropReason::IcmpUnsolicitedReply),
                Some((_, endpoint)),
            ) => return self.decide_midstream(query, uplink, endpoint),
            (Err(reason), _) => return Err(reason),
        };
        let external = match published {
            Some((_, endpoint)) => ExternalEndpoint::Published(endpoint),
            None => self.dynamic_endpoint(tuple, uplink)?,
        };
        Ok(Decision::Open(Opening { tuple, uplink, state, path: Path::Outbound { external } }))
    }

    /// Decides about a midstream packet of a published server that has no session.
    ///
    /// If the server has several published endpoints, only the client's next packet shows which one
    /// the connection uses. Until then the server's packets are dropped, because they could leave
    /// from a wrong address.
    fn decide_midstream(
        &self,
        query: &Query,
        uplink: u8,
        published: Endpoint,
    ) -> Result<Decision, DropReason> {
        if self.is_published_more_than_once(query.tuple) {
            return Err(DropReason::UplinkUnknown);
        }
        Ok(match query.midstream_state() {
            Some(state) => Decision::Open(Opening {
                tuple: query.tuple,
                uplink,
                state,
                path: Path::Midstream { published },
            }),
            None => Decision::Stateless(Rewrite {
                to: Tuple { source: published, ..query.tuple },
                inside: false,
                uplink,
            }),
        })
    }

    fn decide_hairpin(&self, query: &Query, external: External) -> Result<Decision, DropReason> {
        let tuple = query.tuple;
        let server = self.forwards.target(tuple.protocol, tuple.destination);
        // A packet from inside to an address of the host is for the host itself, even midstream:
        // the host's replies do not pass the translator.
        if external.owned
            && server.is_none()
            && !self.mappings.exists(tuple.protocol, tuple.destination)
        {
            return Ok(Decision::PassToHost);
        }
        if !self.policy.hairpin {
            return Err(DropReason::HairpinDisabled);
        }
        let state = query.opening_state()?;
        let uplink = external.uplink;
        let external = match self.forwards.published(tuple.protocol, tuple.source, Some(uplink)) {
            Some((published, endpoint)) if published == uplink => {
                ExternalEndpoint::Published(endpoint)
            }
            Some(_) | None => self.dynamic_endpoint(tuple, uplink)?,
        };
        Ok(Decision::Open(Opening {
            tuple,
            uplink,
            state,
            path: Path::Hairpin { external, server },
        }))
    }

    #[inline(always)]
    fn decide_inbound(
        &self,
        query: &Query,
        external: External,
        now: Tick,
    ) -> Result<Decision, DropReason> {
        let Tuple { protocol, source, destination } = query.tuple;
        if self.external(source.address).is_some() {
            return Err(DropReason::Martian);
        }
        if let Some(server) = self.forwards.target(protocol, destination) {
            return self.decide_forward(query, external.uplink, server, now);
        }
        let state = query.opening_state().map_err(|reason| {
            match self.mappings.exists(protocol, destination) {
                true => reason,
                false => DropReason::NoMapping,
            }
        })?;
        let mapping = self
            .mappings
            .at_external(protocol, destination, source)
            .ok_or(DropReason::NoMapping)?;
        let refreshed = self.refreshed(protocol, mapping.refreshed, now);
        self.admit(protocol, destination, source, refreshed, now)?;
        let path = Path::Mapping { inside: mapping.key.inside };
        Ok(Decision::Open(Opening { tuple: query.tuple, uplink: external.uplink, state, path }))
    }

    #[inline(always)]
    fn decide_forward(
        &self,
        query: &Query,
        uplink: u8,
        server: Endpoint,
        now: Tick,
    ) -> Result<Decision, DropReason> {
        match (query.opening_state(), query.midstream_state()) {
            (Ok(state), _) | (Err(DropReason::TcpWithoutSession), Some(state)) => {
                Ok(Decision::Open(Opening {
                    tuple: query.tuple,
                    uplink,
                    state,
                    path: Path::Forward { server },
                }))
            }
            // An RST or FIN of a connection whose session is lost. The server still has the
            // connection.
            (Err(reason @ DropReason::TcpWithoutSession), None) => {
                let to = Tuple { destination: server, ..query.tuple };
                self.stateless_request(to, uplink, reason, now).map(Decision::Stateless)
            }
            (Err(reason), _) => Err(reason),
        }
    }

    /// Decides about a client's packet that cannot have a session: the packet is forwarded to the
    /// server as `to`.
    ///
    /// If a session over another published endpoint has this tuple, the packet is dropped for
    /// `reason`: the server would reply over that session.
    pub(crate) fn stateless_request(
        &self,
        to: Tuple,
        uplink: u8,
        reason: DropReason,
        now: Tick,
    ) -> Result<Rewrite, DropReason> {
        match self.table.lookup(Key::of(to.reversed()), now) {
            Some(_) => Err(reason),
            None => Ok(Rewrite { to, inside: true, uplink }),
        }
    }

    fn dynamic_endpoint(&self, tuple: Tuple, uplink: u8) -> Result<ExternalEndpoint, DropReason> {
        let address = self.external_address(uplink, tuple.source.address);
        let address = address.ok_or(DropReason::PortsExhausted)?;
        Ok(match has_ports(tuple.protocol) {
            true => ExternalEndpoint::Mapping,
            false => ExternalEndpoint::Address(address),
        })
    }

    /// Reports whether the source of a tuple is a server with more than one published endpoint.
    pub(crate) fn is_published_more_than_once(&self, tuple: Tuple) -> bool {
        self.forwards.published_more_than_once(tuple.protocol, tuple.source)
    }
}

/// Reports whether the sessions of a protocol have ports or identifiers.
pub(crate) fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP)
}

/// Reports whether an address is never translated: an address of no single host (RFC 1812 section
/// 5.3.7), or a link-local address (RFC 3927 section 7).
pub(crate) fn is_martian(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}

//! Sessions as values: two tuples, the kinds of their endpoints, an uplink and a state.

use std::num::NonZeroU64;
use std::ops::AddAssign;

use crate::nat::table::accounting::Accounting;
use crate::nat::table::key::Key;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_window::TcpSnapshot;
use crate::packet::{Endpoint, Tuple};
use crate::time::{Span, Tick};

/// Side of one endpoint of a session, and how the other side addresses an inside endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointKind {
    /// Outside.
    Outside = 0,
    /// Inside, by a dynamic mapping, which the session holds.
    Mapping = 1,
    /// Inside, by a static forward.
    Forward = 2,
    /// Inside, by an external address alone: the protocol has no ports.
    Address = 3,
    /// Inside, by an external port that the session holds without a mapping: the endpoint of an
    /// exposed host, or a second port of a host whose first one is in use towards the same server.
    Port = 4,
}

impl EndpointKind {
    /// Returns the kind with this number, at most 7.
    #[inline]
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Outside,
            1 => Self::Mapping,
            2 => Self::Forward,
            3 => Self::Address,
            _ => Self::Port,
        }
    }

    /// Reports whether the endpoint is inside.
    #[inline]
    pub fn is_inside(self) -> bool {
        self != Self::Outside
    }
}

/// Kinds of a session's two endpoints; decide what the end of the session releases. If both are
/// inside, the session is a hairpin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKind {
    /// The endpoint that sent the first packet. If it is inside, the session counts for its host.
    pub initiator: EndpointKind,
    /// The other endpoint.
    pub responder: EndpointKind,
}

impl SessionKind {
    /// From outside through a static forward.
    pub const FORWARD: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Forward };
    /// From outside over a dynamic mapping, where filtering allows it.
    pub const INBOUND: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Mapping };
    /// To outside over a dynamic mapping.
    pub const OUTBOUND: Self =
        Self { initiator: EndpointKind::Mapping, responder: EndpointKind::Outside };

    #[inline]
    pub(crate) fn from_number(number: u8) -> Self {
        Self {
            initiator: EndpointKind::from_number(number >> 3 & 7),
            responder: EndpointKind::from_number(number & 7),
        }
    }

    pub(crate) fn number(self) -> u8 {
        (self.initiator as u8) << 3 | self.responder as u8
    }

    /// Every word that [`Self::name`] returns.
    pub const NAMES: &'static [&'static str] =
        &["forward", "outbound", "forward-outbound", "inbound", "hairpin", "hairpin-forward"];

    /// Word for listings.
    pub fn name(self) -> &'static str {
        match (self.initiator, self.responder) {
            (EndpointKind::Outside, EndpointKind::Mapping) => "inbound",
            (EndpointKind::Outside, _) => "forward",
            (EndpointKind::Mapping | EndpointKind::Address, EndpointKind::Outside) => "outbound",
            (EndpointKind::Forward | EndpointKind::Port, EndpointKind::Outside) => {
                "forward-outbound"
            }
            (EndpointKind::Mapping | EndpointKind::Address | EndpointKind::Port, _) => "hairpin",
            (EndpointKind::Forward, _) => "hairpin-forward",
        }
    }

    /// Reports whether a client outside opened the session through a forward.
    pub(crate) fn is_from_client(self) -> bool {
        self.initiator == EndpointKind::Outside
            && matches!(self.responder, EndpointKind::Forward | EndpointKind::Port)
    }

    /// Reports whether both endpoints are inside.
    #[inline]
    pub fn is_hairpin(self) -> bool {
        self.initiator.is_inside() && self.responder.is_inside()
    }

    /// Reports whether packets of this direction leave towards the inside.
    #[inline]
    pub fn is_inbound(self, direction: Direction) -> bool {
        match direction {
            Direction::Original => self.responder.is_inside(),
            Direction::Reply => self.initiator.is_inside(),
        }
    }

    /// Reports whether packets of this direction come from outside over a dynamic mapping.
    #[inline]
    pub fn is_inbound_over_mapping(self, direction: Direction) -> bool {
        let (sender, receiver) = match direction {
            Direction::Original => (self.initiator, self.responder),
            Direction::Reply => (self.responder, self.initiator),
        };
        sender == EndpointKind::Outside && receiver == EndpointKind::Mapping
    }
}

/// Content of a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSession<K = Key> {
    /// Tuple of the first packet, as it arrived.
    pub original: K,
    /// Tuple of the replies, as they will arrive.
    pub reply: K,
    /// Kinds of the two endpoints.
    pub origin: SessionKind,
    /// Index of the uplink; for hairpin the uplink of the external address that the initiator sent
    /// to.
    pub uplink: u8,
    /// Initial state.
    pub state: State,
    /// Time for which the session has been idle already: zero, unless its first packet does not
    /// count.
    pub idle: Span,
}

/// Identifies one session of a table: the slot of its record and the record's generation.
///
/// When the session ends, the identifier becomes stale: the next session in the same record has
/// another generation. A stale identifier names no session until 65,535 more sessions had the
/// record.
///
/// The identifier is one word, so that one store writes it and one load reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// Identifier of the session in `slot`; `generation` is 1 or more in every record that was
    /// used.
    #[inline]
    pub(crate) fn new(slot: u32, generation: u16) -> Self {
        let bits = u64::from(generation.max(1)) << 32 | u64::from(slot);
        Self(NonZeroU64::new(bits).expect("the generation is 1 or more, one line above"))
    }

    /// Slot of the session's record.
    #[inline]
    pub(crate) fn slot(self) -> u32 {
        self.0.get() as u32
    }

    /// The identifier as one number, for output; see [`Self::from_bits`].
    pub fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The identifier of a number that [`Self::to_bits`] made; None for any other number.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let generation = u16::try_from(bits >> 32).ok().filter(|generation| *generation != 0)?;
        Some(Self::new(bits as u32, generation))
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// No packet came within the idle timeout.
    Expired,
    /// The table was full, and a new session took the record.
    Evicted,
    /// The session was [`State::Tentative`], and a packet from outside showed another uplink.
    Superseded,
    /// The session's uplink failed.
    UplinkFailed,
    /// The session belongs on an uplink that has recovered.
    Failback,
    /// An uplink of a lower tier has recovered, and the next packet of the session begins another
    /// one there.
    TierRecovered,
    /// An external address of the session is no longer configured.
    AddressRemoved,
    /// A new policy does not allow the session.
    PolicyChanged,
    /// An administrator or a program requested the end.
    Requested,
    /// As [`Self::Requested`], and the inside host is not notified.
    RequestedSilently,
}

impl EndReason {
    /// Word for output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Superseded => "superseded",
            Self::UplinkFailed => "uplink-failed",
            Self::Failback => "failback",
            Self::TierRecovered => "tier-recovered",
            Self::AddressRemoved => "address-removed",
            Self::PolicyChanged => "policy-changed",
            Self::Requested => "requested",
            Self::RequestedSilently => "requested-silently",
        }
    }

    /// Reports whether the translator notifies the inside host, so that the host can begin again at
    /// once.
    pub(crate) fn notifies_inside(self) -> bool {
        match self {
            Self::UplinkFailed | Self::Failback | Self::AddressRemoved | Self::Requested => true,
            Self::Expired
            | Self::Evicted
            | Self::Superseded
            | Self::TierRecovered
            | Self::PolicyChanged
            | Self::RequestedSilently => false,
        }
    }
}

/// A session that has ended, with all that is needed to release its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSession<K = Key> {
    /// Tuple of the packets of the initiator, on arrival.
    pub original: K,
    /// Tuple of the packets of the responder, on arrival.
    pub reply: K,
    /// Kinds of the two endpoints.
    pub origin: SessionKind,
    /// Index of the uplink.
    pub uplink: u8,
    /// Reason for the end.
    pub reason: EndReason,
    /// False for a session of a process before this one that ended before its adoption: the
    /// translator has not reserved its resources.
    pub adopted: bool,
}

/// Outcome of a slice of the adoption. The first slice counts what the check of the files has
/// found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Sessions that continue.
    pub kept: u32,
    /// Sessions that are not allowed, and records that were not whole.
    pub dropped: u32,
    /// Records with impossible values, and damaged parts of the index.
    pub damaged: u32,
}

impl AddAssign for Adopted {
    fn add_assign(&mut self, Self { kept, dropped, damaged }: Self) {
        self.kept += kept;
        self.dropped += dropped;
        self.damaged += damaged;
    }
}

/// A session in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo<T = Tuple> {
    /// Identifier.
    pub id: SessionId,
    /// Tuple of the packets of the initiator, on arrival.
    pub original: T,
    /// Tuple of the packets of the responder, on arrival.
    pub reply: T,
    /// Kinds of the two endpoints.
    pub origin: SessionKind,
    /// Index of the uplink.
    pub uplink: u8,
    /// State.
    pub state: State,
    /// Sequence numbers and windows; meaningful for TCP only.
    pub tcp: TcpSnapshot,
    /// Time of the last packet that refreshed the session.
    pub last_seen: Tick,
    /// Moment at which the session ends if no further packet comes.
    pub deadline: Tick,
    /// Packets and bytes; None in a table without accounting.
    pub accounting: Option<Accounting>,
}

impl SessionInfo {
    /// Endpoint that opened the session, as its own packets name it.
    pub fn client(&self) -> Endpoint {
        self.original.source
    }

    /// Endpoint that answers, as its own packets name it.
    pub fn server(&self) -> Endpoint {
        self.reply.source
    }

    /// Inside endpoints: that of the initiator, that of the responder.
    pub fn inside_endpoints(&self) -> [Option<Endpoint>; 2] {
        let SessionKind { initiator, responder } = self.origin;
        [
            initiator.is_inside().then_some(self.original.source),
            responder.is_inside().then_some(self.reply.source),
        ]
    }

    /// External endpoints of the inside endpoints: that of the initiator, that of the responder.
    pub fn external_endpoints(&self) -> [Option<Endpoint>; 2] {
        let SessionKind { initiator, responder } = self.origin;
        [
            initiator.is_inside().then_some(self.reply.destination),
            responder.is_inside().then_some(self.original.destination),
        ]
    }

    /// Remote endpoint in packets outside. None for a hairpin session.
    pub fn remote_endpoint(&self) -> Option<Endpoint> {
        let SessionKind { initiator, responder } = self.origin;
        match (initiator.is_inside(), responder.is_inside()) {
            (true, true) => None,
            (true, false) => Some(self.reply.source),
            (false, _) => Some(self.original.source),
        }
    }

    /// Reports whether both endpoints are inside.
    pub fn is_hairpin(&self) -> bool {
        self.origin.is_hairpin()
    }
}

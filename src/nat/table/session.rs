//! What a session is: two tuples, the kinds of its ends, an uplink and a state.

use crate::nat::table::key::Key;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::State;
use crate::time::Span;

/// Where one end of a session is, and by what it is known outside.
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
}

impl EndpointKind {
    const ALL: [Self; 4] = [Self::Outside, Self::Mapping, Self::Forward, Self::Address];

    /// Whether it is inside.
    #[inline]
    pub fn is_inside(self) -> bool {
        self != Self::Outside
    }
}

/// Between what ends a session came to be; decides what its end releases. Both inside: hairpin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKind {
    /// The end that sent the first packet. Counts for its host if it is inside.
    pub initiator: EndpointKind,
    /// The other.
    pub responder: EndpointKind,
}

impl SessionKind {
    /// From outside through a static forward.
    pub const FORWARD: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Forward };
    /// From outside over a dynamic mapping, where filtering lets it.
    pub const INBOUND: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Mapping };
    /// To outside over a dynamic mapping.
    pub const OUTBOUND: Self =
        Self { initiator: EndpointKind::Mapping, responder: EndpointKind::Outside };

    pub(crate) fn from_number(number: u8) -> Self {
        Self {
            initiator: EndpointKind::ALL[usize::from(number >> 2 & 3)],
            responder: EndpointKind::ALL[usize::from(number & 3)],
        }
    }

    pub(crate) fn number(self) -> u8 {
        (self.initiator as u8) << 2 | self.responder as u8
    }

    /// Word for listings.
    pub fn name(self) -> &'static str {
        match (self.initiator, self.responder) {
            (EndpointKind::Outside, EndpointKind::Mapping) => "inbound",
            (EndpointKind::Outside, _) => "forward",
            (EndpointKind::Mapping | EndpointKind::Address, EndpointKind::Outside) => "outbound",
            (EndpointKind::Forward, EndpointKind::Outside) => "forward-outbound",
            (EndpointKind::Mapping | EndpointKind::Address, _) => "hairpin",
            (EndpointKind::Forward, _) => "hairpin-forward",
        }
    }

    /// Whether packets of this direction leave towards the inside.
    #[inline]
    pub fn is_inbound(self, direction: Direction) -> bool {
        match direction {
            Direction::Original => self.responder.is_inside(),
            Direction::Reply => self.initiator.is_inside(),
        }
    }

    /// Whether packets of this direction come from outside over a dynamic mapping.
    #[inline]
    pub fn is_inbound_over_mapping(self, direction: Direction) -> bool {
        let (sender, receiver) = match direction {
            Direction::Original => (self.initiator, self.responder),
            Direction::Reply => (self.responder, self.initiator),
        };
        sender == EndpointKind::Outside && receiver == EndpointKind::Mapping
    }
}

/// What a new session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Tuple of the first packet, as it arrived.
    pub original: Key,
    /// Tuple of the packets that will answer, as they will arrive.
    pub reply: Key,
    /// How it came to be.
    pub origin: SessionKind,
    /// The uplink it goes over; for hairpin the one whose address was spoken to.
    pub uplink: u8,
    /// First state.
    pub state: State,
    /// How long it has been idle already: zero, unless its first packet does not count.
    pub idle: Span,
}

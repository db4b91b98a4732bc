//! What a session holds at its two ends (see [`crate::nat::translate::binding`]).

use crate::nat::mapping::key::MappingKey;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::packet::Endpoint;

/// The external endpoint of a session from inside, and what the session holds at both ends.
pub(crate) struct Binding {
    /// The external endpoint.
    pub(crate) external: Endpoint,
    /// What the sender holds.
    pub(crate) initiator: Holding,
    /// What the session holds at its destination, if a hairpin session goes to an inside host.
    pub(crate) responder: Holding,
}

/// What a session holds at one end.
#[derive(Clone, Copy)]
pub(crate) enum Holding {
    /// Nothing: the endpoint is of this kind.
    Nothing(EndpointKind),
    /// A mapping.
    Mapping(MappingKey),
    /// An external port without a mapping.
    Port,
}

impl Holding {
    /// Reports whether the session holds a port.
    pub(crate) fn is_port(self) -> bool {
        matches!(self, Self::Port)
    }

    /// Returns the kind of the endpoint.
    pub(crate) fn kind(self) -> EndpointKind {
        match self {
            Self::Nothing(kind) => kind,
            Self::Mapping(_) => EndpointKind::Mapping,
            Self::Port => EndpointKind::Port,
        }
    }
}

impl Binding {
    pub(crate) fn new(external: Endpoint, initiator: Holding) -> Self {
        Self { external, initiator, responder: Holding::Nothing(EndpointKind::Outside) }
    }

    /// Returns the kinds of the endpoints of a session with this binding.
    pub(crate) fn kind(&self) -> SessionKind {
        SessionKind { initiator: self.initiator.kind(), responder: self.responder.kind() }
    }
}

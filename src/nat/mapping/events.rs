//! Beginnings and ends of dynamic mappings, for a log that can say who had an external endpoint at
//! a time (RFC 6888 section 4). The events do not contain remote endpoints (RFC 6888 REQ-12).

use crate::nat::event_channel::{EventReceiver, EventSender};
use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

/// A mapping has begun or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingEvent {
    /// Beginning or end.
    pub change: MappingChange,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// Inside endpoint; for ICMP its port is the identifier of the query.
    pub inside: Endpoint,
    /// External endpoint; for ICMP its port is the identifier of the query outside.
    pub external: Endpoint,
    /// Time of the change.
    pub at: Tick,
}

/// Change of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingChange {
    /// The first session of the mapping has begun.
    Begins,
    /// The last session of the mapping has ended.
    Ends,
}

/// Reading end of the mapping log. The end of one mapping at an external endpoint comes before the
/// beginning of the next.
pub type MappingEvents = EventReceiver<MappingEvent>;

/// Writing end of the mapping log.
pub(crate) type MappingLog = EventSender<MappingEvent>;

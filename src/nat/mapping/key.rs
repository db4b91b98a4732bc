//! The key of a mapping, and a mapping that a session holds.

use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

/// Identifies a mapping from the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MappingKey {
    pub(crate) protocol: Protocol,
    pub(crate) uplink: u8,
    pub(crate) inside: Endpoint,
    /// The part of the remote endpoint that the mapping depends on; zero where it does not.
    pub(crate) remote: Endpoint,
}

/// A mapping as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingValue {
    /// Key.
    pub(crate) key: MappingKey,
    /// External endpoint.
    pub(crate) external: Endpoint,
    /// Time of the last packet from inside that counts as a refresh of the mapping.
    pub(crate) refreshed: Tick,
}

/// A mapping held for a session that comes in by it.
pub(crate) struct BorrowedMapping {
    /// What is held.
    pub(crate) mapping: MappingKey,
    /// The inside endpoint behind it.
    pub(crate) inside: Endpoint,
    /// When the session counts as last refreshed.
    pub(crate) refreshed: Tick,
}

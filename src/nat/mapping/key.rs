//! Keys of mappings, and mappings as values.

use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

/// Key of a mapping, by its inside endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MappingKey {
    pub(crate) protocol: Protocol,
    pub(crate) uplink: u8,
    pub(crate) inside: Endpoint,
    /// Part of the remote endpoint that the mapping depends on; zero where it depends on none.
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

/// A mapping that an inbound session holds.
pub(crate) struct BorrowedMapping {
    /// Key of the mapping.
    pub(crate) mapping: MappingKey,
    /// Inside endpoint of the mapping.
    pub(crate) inside: Endpoint,
    /// Time of the last packet that counts as a refresh of the session.
    pub(crate) refreshed: Tick,
}

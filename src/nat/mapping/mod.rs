//! What a session from inside holds beside its record: a mapping, a port, a share of its host's limits.

pub(crate) mod events;
pub(crate) mod host_limits;
pub(crate) mod key;
pub(crate) mod mappings;
pub(crate) mod ports;
pub(crate) mod reuse_delay;

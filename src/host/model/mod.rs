//! Plain values: what the host has, what natbox needs there, and the steps from one to the other.

pub(crate) mod facts;
pub(crate) mod routing_ids;
pub(crate) mod snapshot;
pub(crate) mod steps;

//! State that the workers share besides sessions, mappings and fragments.

pub(crate) mod delayed_rejects;
pub(crate) mod icmp_limit;
pub(crate) mod notifications;
pub(crate) mod traffic;
pub(crate) mod uplink_states;

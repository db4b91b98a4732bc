//! Evaluates the rules of nftables for a packet.

pub(crate) mod filters;
pub(crate) mod rules;

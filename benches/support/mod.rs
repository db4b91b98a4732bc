//! Shared by the benches: an instance with open connections, packets for it, and baselines for
//! ratios.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod dashmap_baseline;
pub(crate) mod fixtures;
pub(crate) mod memory_baseline;
pub(crate) mod replay;

//! Shared by the benches: an instance with open connections, packets for it, and baselines for
//! ratios.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod dashmap_baseline;
pub mod fixtures;
pub mod memory_baseline;

//! What the benches share: a box with open connections, packets for it, and a twin of its table with a DashMap.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod floor;
pub mod scene;
pub mod twin;

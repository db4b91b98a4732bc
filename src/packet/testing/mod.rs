//! Packets built for tests and benches, and the verification of every checksum.

pub mod builder;
#[cfg(test)]
mod properties;
mod verify;

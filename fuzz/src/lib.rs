//! The bodies of the fuzz targets. `tests/fuzz_targets` runs them on stable Rust, without a fuzzer.
//!
//! Each `run` takes any bytes and panics if an invariant of natbox does not hold. Most targets read
//! their bytes as choices, see [`input::Input`]: so few bytes are a long scenario, and a fuzzer
//! that changes one byte changes one choice.

pub mod admin;
pub mod config;
pub mod dns;
pub mod dns_update;
pub mod engine;
pub mod fragments;
pub mod icmp_errors;
pub mod input;
pub mod instance;
pub mod kept_sessions;
pub mod packets;
pub mod parse;
pub mod translate;
pub mod virtio;
pub mod world;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name: that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]),
}

/// All targets.
pub static TARGETS: [Target; 11] = [
    Target { name: "admin", run: admin::run },
    Target { name: "config", run: config::run },
    Target { name: "dns", run: dns::run },
    Target { name: "dns_update", run: dns_update::run },
    Target { name: "engine", run: engine::run },
    Target { name: "fragments", run: fragments::run },
    Target { name: "icmp_errors", run: icmp_errors::run },
    Target { name: "kept_sessions", run: kept_sessions::run },
    Target { name: "parse", run: parse::run },
    Target { name: "translate", run: translate::run },
    Target { name: "virtio", run: virtio::run },
];

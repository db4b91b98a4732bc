//! Configuration, lifecycle, logging and the admin socket: everything that runs beside the packets.
//!
//! One thread runs all of it (a tokio current-thread runtime); workers are heard through the engine's events and
//! read through their published counters, and never wait for anything here.

pub mod admin;
mod dns;
mod events;
mod exhaustion;
mod failover;
mod health;
pub mod lifecycle;
pub mod logging;
mod mapping_log;
mod reload;
mod sandbox;
mod sessions;
mod settings;
mod status;

pub use reload::ReloadError;

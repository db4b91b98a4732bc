//! natbox: a NAT box in user space.
//!
//! `ARCHITECTURE.md` has the map of these modules, the life of a packet, the glossary and the
//! invariants. In the order of a packet: [`io`] receives a batch from a TUN queue, [`packet`]
//! parses it, [`nat`] translates it, and [`engine`] joins the three, one worker a queue.
//! [`config`], [`host`], [`api`], [`control`] and [`cli`] are the control side. Nothing on the
//! packet side imports them.
//!
//! Programs that embed the translator start at [`nat`].

pub mod api;

#[doc(hidden)]
pub mod cli;
mod config;
mod control;
mod dns;
mod engine;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod io;
#[doc(hidden)]
pub mod lab;
pub mod nat;
mod nearest;
pub mod packet;
mod packet_words;
mod state;
pub mod time;
mod timer;
mod uplinks;
mod values;

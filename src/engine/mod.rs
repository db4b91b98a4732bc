//! The engine: one worker per queue, batch by batch.
//!
//! This module joins `io`, `packet` and `nat`. A worker owns its queue and its
//! [`crate::nat::WorkerContext`]. Workers share only the translator.
//!
//! ```text
//!   workers ── SharedCounters, once a batch ──▶ Handle ◀── control: status, sessions, policy
//!           ── WorkerFailure, bounded channel ▶ control
//! ```
//!
//! The control plane reaches the translator through [`Handle`] alone.

mod counters;
mod explain;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod pipeline;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod smoltcp_tests;
mod start;
mod worker;
#[cfg(test)]
mod worker_tests;

pub(crate) use explain::FreshTranslator;
pub(crate) use handle::Handle;
pub(crate) use start::{Builder, Engine, KeptSessions, Options, WORKER_THREAD};
pub(crate) use worker::WorkerFailure;

#[cfg(test)]
use handle::swap_policy;

//! The engine: one worker per queue, batch by batch.
//!
//! Here io, packet and nat are joined. A worker owns its queue and its
//! [`crate::nat::WorkerContext`]. Workers share only the translator.
//!
//! ```text
//!   workers ── SharedCounters, once a batch ──▶ Handle ◀── control: status, sessions, policy
//!           ── WorkerFailure, bounded channel ▶ control
//! ```
//!
//! [`Handle`] is the only door from the control plane to the translator.

mod counters;
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

pub(crate) use handle::Handle;
pub(crate) use start::{Builder, Engine, Options, WORKER_THREAD};
pub(crate) use worker::WorkerFailure;

#[cfg(test)]
use handle::swap_policy;

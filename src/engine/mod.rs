//! The engine: one worker per queue, batch by batch.
//!
//! This module joins `io`, `packet` and `nat`. A worker owns its queue and its
//! [`crate::nat::WorkerContext`]. Workers share only the translator.
//!
//! ```text
//!   workers ── SharedCounters, once a batch ──▶ Handle ◀── control: status, sessions, policy
//!           ── DropExamples, once a batch with drops ▶ Handle
//!           ── TracedPacket, a ring for each worker ──▶ Trace, while a trace is on
//!           ── WorkerFailure, bounded channel ▶ control
//! ```
//!
//! The control plane reaches the translator through [`Handle`] alone.

mod batch_times;
mod counters;
mod explain;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod listing;
mod observe;
mod pipeline;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod smoltcp_tests;
mod start;
mod trace;
mod worker;
#[cfg(test)]
mod worker_tests;

pub(crate) use batch_times::BatchTimes;
pub(crate) use explain::FreshTranslator;
pub(crate) use handle::Handle;
pub(crate) use listing::Listing;
pub(crate) use observe::{DropExample, DropRecord};
pub(crate) use start::{Builder, Engine, KeptSessions, Options, WORKER_THREAD};
pub(crate) use trace::{Trace, TraceOutcome, TracedPacket, TracedPackets};
pub(crate) use worker::WorkerFailure;

#[cfg(test)]
use handle::swap_policy;

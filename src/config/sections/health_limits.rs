//! `uplinks[].health.loss`, `latency` and `hold`: when an uplink that answers counts as failed, and
//! for how long.

use std::time::Duration;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueType, ValueTypeExt as _, absent, section};
use crate::config::types::{duration, percent};

section! {
    /// Loss at which an uplink fails and at which it may return: the lost share of the probes in
    /// the window. The target with the least loss counts, or with `quorum: N` the N-th best one.
    /// Probes of the outage by which the uplink failed do not count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct LossLimits {
        /// Lost share of the window at which the uplink fails. With `100%` only `fall` decides.
        pub fail: u32 = percent(1..=100).default(40),
        /// Lost share of the window up to which a failed uplink may return. It must be smaller than
        /// `fail`.
        pub r#return: u32 = percent(0..=99).default(10),
    }
}

impl Default for LossLimits {
    fn default() -> Self {
        absent()
    }
}

/// Latency at which an uplink fails and at which it may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatencyLimits {
    /// Latency at which the uplink fails.
    pub fail: Duration,
    /// Latency up to which a failed uplink may return; shorter than `fail`.
    pub back: Duration,
}

section! {
    /// Latency at which an uplink fails and at which it may return. The latency of a round is the
    /// time of the answer that made it good. The limits apply to the median of the window.
    #[derive(Debug)]
    pub(in crate::config) struct FileLatencyLimits {
        /// Latency at which the uplink fails.
        pub fail: Required<Duration> = latency(2)
            .required("the latency at which the uplink fails", "add `fail: 500ms`")
            .example("500ms"),
        /// Latency up to which a failed uplink may return. It must be shorter than `fail`.
        pub r#return: Unresolved<Duration> = latency(1)
            .optional("half of `fail`")
            .example("250ms"),
    }
}

fn latency(least: u64) -> impl ValueType<Value = Duration> {
    duration(Duration::from_millis(least)..=Duration::from_secs(10))
}

impl From<&LatencyLimits> for FileLatencyLimits {
    fn from(limits: &LatencyLimits) -> Self {
        Self {
            fail: Some(Located::without_location(limits.fail)),
            r#return: Unresolved::from_option(Some(limits.back)),
        }
    }
}

section! {
    /// Time that a failed uplink must answer before it is healthy again, in addition to `rise`. It
    /// grows with each failure and shrinks while the uplink is healthy, so that an unsteady uplink
    /// stays out (RFC 2439). An outage of `fall` intervals restarts the time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct HoldTimes {
        /// Time after a failure without an earlier one.
        pub first: Duration = duration(Duration::ZERO..=DAY).default(Duration::ZERO),
        /// Time after the second failure. Each further failure doubles it.
        pub step: Duration = duration(Duration::ZERO..=DAY).default(Duration::from_secs(10)),
        /// Longest time. It must not be shorter than `first`. With `0` only `rise` decides.
        pub max: Duration = duration(Duration::ZERO..=DAY).default(Duration::from_secs(300)),
        /// Healthy time after which an earlier failure counts only half.
        pub half_life: Duration = duration(Duration::from_secs(1)..=DAY)
            .default(Duration::from_secs(600)),
    }
}

impl Default for HoldTimes {
    fn default() -> Self {
        absent()
    }
}

const DAY: Duration = Duration::from_secs(86_400);

//! The time that a failed uplink must answer before it is healthy again (RFC 2439's idea).
//!
//! ```text
//!   penalty   +1 at each failure, half after each `half_life` of health
//!   hold      first, step, 2 step, 4 step, ... max      for a penalty of 0, 1, 2, 3, ...
//! ```

use std::time::{Duration, Instant};

use crate::config::HoldTimes;

/// The failures of one uplink, weighted by their age.
#[derive(Clone, Debug)]
pub(super) struct Damping {
    times: HoldTimes,
    penalty: f64,
    /// Hold after the last failure.
    hold: Duration,
}

impl Damping {
    pub(super) fn new(times: HoldTimes) -> Self {
        Self { times, penalty: 0.0, hold: Duration::ZERO }
    }

    /// Records a failure after a time of health.
    pub(super) fn failed(&mut self, healthy_since: Instant, now: Instant) {
        let healthy = now.saturating_duration_since(healthy_since).as_secs_f64();
        self.penalty *= 0.5_f64.powf(healthy / self.times.half_life.as_secs_f64());
        self.hold = self.times_for(self.penalty);
        self.penalty += 1.0;
    }

    /// Returns the hold after the last failure.
    pub(super) fn hold(&self) -> Duration {
        self.hold
    }

    fn times_for(&self, penalty: f64) -> Duration {
        let HoldTimes { first, step, max, .. } = self.times;
        if penalty < FORGOTTEN {
            return first.min(max);
        }
        let seconds = step.as_secs_f64() * (penalty - 1.0).exp2();
        // The bound applies first: the conversion from seconds panics beyond the range of a
        // duration.
        Duration::from_secs_f64(seconds.min(max.as_secs_f64())).max(first).min(max)
    }
}

/// Penalty below which an uplink counts as one that has never failed.
const FORGOTTEN: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Returns the holds in seconds of failures that each follow `healthy`.
    fn holds(times: HoldTimes, healthy: Duration, failures: usize) -> Vec<u64> {
        let (mut damping, start) = (Damping::new(times), Instant::now());
        (0..failures)
            .map(|_| {
                damping.failed(start, start + healthy);
                damping.hold().as_secs()
            })
            .collect()
    }

    #[test]
    fn the_hold_doubles_from_the_second_failure_on_up_to_its_maximum() {
        let times = HoldTimes::default();
        assert_eq!(holds(times, Duration::ZERO, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(holds(times, Duration::ZERO, 5000)[4999], 300, "no number overflows");
        let strict = HoldTimes { first: 15 * MINUTE, max: 15 * MINUTE, ..times };
        assert_eq!(holds(strict, Duration::ZERO, 3), [900, 900, 900]);
        let off = HoldTimes { max: Duration::ZERO, ..times };
        assert_eq!(holds(off, Duration::ZERO, 3), [0, 0, 0]);
    }

    #[test]
    fn health_makes_failures_count_less() {
        let times = HoldTimes::default();
        assert_eq!(holds(times, 60 * MINUTE, 4), [0, 0, 0, 0], "once an hour is forgotten");
        let each_ten_minutes = holds(times, 10 * MINUTE, 20);
        assert_eq!(each_ten_minutes[..2], [0, 7]);
        assert!(each_ten_minutes[19] <= 10, "{each_ten_minutes:?}");
        let each_minute = holds(times, MINUTE, 20);
        assert_eq!(each_minute[19], 300, "{each_minute:?}");
    }
}

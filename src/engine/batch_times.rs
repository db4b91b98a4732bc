//! How long the batches of a worker take, as a histogram.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Numbers of batches by duration, of one worker or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchTimes {
    /// Batches of at most 1, 2, 4 ... microseconds, and last those that took longer than
    /// [`BatchTimes::bound`] of the place before.
    pub(crate) batches: [u64; BUCKETS],
    /// Sum of the durations, in nanoseconds.
    pub(crate) sum: u64,
    /// The longest duration, in nanoseconds.
    pub(crate) longest: u64,
}

impl BatchTimes {
    /// Returns the longest duration that counts at a place. None: the last place has no bound.
    pub(crate) fn bound(place: usize) -> Option<Duration> {
        (place + 1 < BUCKETS).then(|| Duration::from_micros(1 << place))
    }

    /// Adds the batches of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        self.batches.iter_mut().zip(other.batches).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
        self.longest = self.longest.max(other.longest);
    }
}

/// The histogram of one worker, shared with the control plane. Relaxed: only the worker writes, and
/// a reader may see a batch in part.
#[derive(Default)]
pub(super) struct SharedBatchTimes {
    batches: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    longest: AtomicU64,
}

impl SharedBatchTimes {
    /// Counts a batch.
    #[inline]
    pub(super) fn count(&self, duration: Duration) {
        let nanoseconds = duration.as_nanos() as u64;
        let cell = &self.batches[place(nanoseconds)];
        cell.store(cell.load(Relaxed) + 1, Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(nanoseconds), Relaxed);
        if nanoseconds > self.longest.load(Relaxed) {
            self.longest.store(nanoseconds, Relaxed);
        }
    }

    pub(super) fn read(&self) -> BatchTimes {
        BatchTimes {
            batches: std::array::from_fn(|place| self.batches[place].load(Relaxed)),
            sum: self.sum.load(Relaxed),
            longest: self.longest.load(Relaxed),
        }
    }
}

/// The place of a duration.
fn place(nanoseconds: u64) -> usize {
    let microseconds = nanoseconds.div_ceil(1000).max(1);
    (microseconds.next_power_of_two().ilog2() as usize).min(BUCKETS - 1)
}

/// Places of the histogram: up to 524 ms, and longer.
const BUCKETS: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_at_the_first_place_whose_bound_it_keeps() {
        let shared = SharedBatchTimes::default();
        let durations = [0, 1, 1000, 1001, 2000, 2001, 4_000_000, 600_000_000, 9_000_000_000]
            .map(Duration::from_nanos);
        for duration in durations {
            shared.count(duration);
            let bounds = (0..BUCKETS).map(BatchTimes::bound);
            let wanted = bounds.take_while(|bound| bound.is_some_and(|bound| bound < duration));
            assert_eq!(place(duration.as_nanos() as u64), wanted.count(), "{duration:?}");
        }
        let mut times = shared.read();
        assert_eq!(times.batches.iter().sum::<u64>(), durations.len() as u64);
        assert_eq!(times.longest, 9_000_000_000);
        times.add(&shared.read());
        assert_eq!(times.batches[0], 6);
        assert_eq!(times.sum, 2 * durations.iter().sum::<Duration>().as_nanos() as u64);
    }
}

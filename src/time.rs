//! Time as the data plane sees it: [`Tick`]s of one millisecond, read once per batch and passed
//! down as `now`.

use std::time::Duration;

/// A moment, in milliseconds of `CLOCK_BOOTTIME`, modulo 2^32 (49.7 days).
///
/// Ticks are compared by their wrapping difference, so two ticks must be less than 24 days apart to
/// be ordered rightly. The longest configurable timeout is far below that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Reads the clock. Called once per batch, never inside `nat`.
    pub fn now() -> Self {
        let moment = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let milliseconds = moment.tv_sec as u64 * 1000 + moment.tv_nsec as u64 / 1_000_000;
        Self(milliseconds as u32)
    }

    /// The moment `span` after this one.
    pub fn after(self, span: Span) -> Self {
        Self(self.0.wrapping_add(span.0))
    }

    /// Time passed since `earlier`; zero when `earlier` lies in the future.
    pub fn since(self, earlier: Self) -> Span {
        let difference = self.0.wrapping_sub(earlier.0);
        Span(if difference > u32::MAX / 2 { 0 } else { difference })
    }

    /// Whether this moment is at or past `deadline`.
    pub fn reached(self, deadline: Self) -> bool {
        self.0.wrapping_sub(deadline.0) <= u32::MAX / 2
    }
}

/// A length of time in milliseconds, at most [`Span::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u32);

impl Span {
    /// The longest span that [`Tick`]s can order: 24 days.
    pub const MAX: Self = Self(24 * 24 * 3600 * 1000);

    /// A span of whole seconds, for constants.
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds * 1000)
    }
}

impl From<Duration> for Span {
    /// Rounds down to milliseconds; longer than [`Span::MAX`] becomes [`Span::MAX`].
    fn from(duration: Duration) -> Self {
        Self(duration.as_millis().min(u128::from(Self::MAX.0)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_ordered_across_the_wrap() {
        let before = Tick(u32::MAX - 10);
        let after = before.after(Span(20));
        assert_eq!(after, Tick(9));
        assert!(after.reached(before) && !before.reached(after));
        assert_eq!(after.since(before), Span(20));
        assert_eq!(before.since(after), Span(0));
    }

    #[test]
    fn durations_are_capped_at_what_ticks_can_order() {
        assert_eq!(Span::from(Duration::from_secs(u64::MAX)), Span::MAX);
        assert_eq!(Span::from(Duration::from_millis(1500)), Span(1500));
    }
}

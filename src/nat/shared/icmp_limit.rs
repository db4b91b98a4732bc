//! Rate limit of the ICMP errors that natbox itself sends.
//!
//! Every receiver has a token bucket (RFC 1812 section 4.3.2.8): the configured number of errors a
//! second, and as many at once. A keyed hash of the receiver picks the bucket, and each error costs
//! a little more or less by chance. So a host cannot infer from its own budget which errors another
//! host got (the concern of RFC 6056; CVE-2020-25705).

use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::nat::seed::HashKey;
use crate::time::Tick;

/// The token buckets.
pub(crate) struct IcmpErrorLimiter {
    key: HashKey,
    /// Time of the last error in the upper half, tokens left at that time in the lower. Relaxed: no
    /// other data depends on a bucket.
    buckets: Box<[AtomicU64]>,
    /// Errors a second, and errors at once; None: no limit.
    rate: Option<NonZeroU32>,
}

impl IcmpErrorLimiter {
    pub(crate) fn new(rate: Option<NonZeroU32>, key: HashKey, now: Tick) -> Self {
        let full = rate.map(|rate| pack(now, capacity(rate.get())));
        let buckets = full
            .map_or_else(Box::default, |full| (0..BUCKETS).map(|_| AtomicU64::new(full)).collect());
        Self { key, buckets, rate }
    }

    /// Makes a limiter of another rate, with full buckets.
    pub(crate) fn with_rate(&self, rate: Option<NonZeroU32>, now: Tick) -> Self {
        Self::new(rate, self.key, now)
    }

    /// Whether `receiver` may get an error now; takes the cost of the error.
    pub(crate) fn admit(&self, receiver: Ipv4Addr, random: &mut StdRng, now: Tick) -> bool {
        self.admit_at(receiver, cost(random), now)
    }

    /// Whether [`Self::admit`] would admit an error. Takes nothing.
    pub(crate) fn would_admit(&self, receiver: Ipv4Addr, random: &mut StdRng, now: Tick) -> bool {
        let cost = cost(random);
        let Some(rate) = self.rate.map(NonZeroU32::get) else { return true };
        spend(self.bucket(receiver).load(Relaxed), rate, cost, now).is_some()
    }

    fn admit_at(&self, receiver: Ipv4Addr, cost: u32, now: Tick) -> bool {
        let Some(rate) = self.rate.map(NonZeroU32::get) else { return true };
        let spend = |packed| spend(packed, rate, cost, now);
        self.bucket(receiver).fetch_update(Relaxed, Relaxed, spend).is_ok()
    }

    fn bucket(&self, receiver: Ipv4Addr) -> &AtomicU64 {
        &self.buckets[self.key.hash_one(receiver) as usize % BUCKETS]
    }
}

/// Draws the cost of an error.
fn cost(random: &mut StdRng) -> u32 {
    MEAN_COST - COST_SPREAD / 2 + random.random_range(0..=COST_SPREAD)
}

/// Returns a bucket after an error of this cost. None: it has too few tokens.
fn spend(packed: u64, rate: u32, cost: u32, now: Tick) -> Option<u64> {
    let (last, left) = ((packed >> 32) as u32, packed as u32);
    // A worker's clock may be behind another's by a batch.
    let passed = if now.reached(Tick(last)) { now.since(Tick(last)).0 } else { 0 };
    // One error a second is a thousandth of an error a millisecond.
    let grown = u64::from(left) + u64::from(passed) * u64::from(rate);
    let tokens = grown.min(u64::from(capacity(rate))) as u32;
    tokens.checked_sub(cost).map(|rest| pack(now, rest))
}

/// Tokens of a full bucket: a second's worth, and enough for the last error at the highest cost.
fn capacity(rate: u32) -> u32 {
    rate * MEAN_COST + COST_SPREAD / 2
}

fn pack(time: Tick, tokens: u32) -> u64 {
    u64::from(time.0) << 32 | u64::from(tokens)
}

/// Average cost of an error.
const MEAN_COST: u32 = 1000;
/// Difference between the lowest and the highest cost.
const COST_SPREAD: u32 = 500;
/// Buckets, 8 bytes each.
const BUCKETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);

    fn admitted(limits: &IcmpErrorLimiter, host: Ipv4Addr, now: Tick) -> usize {
        (0..1000).filter(|_| limits.admit_at(host, MEAN_COST, now)).count()
    }

    #[test]
    fn a_host_gets_a_seconds_worth_of_errors_at_once_and_then_the_rate() {
        let start = Tick(u32::MAX - 1500);
        let limits = IcmpErrorLimiter::new(NonZeroU32::new(20), HashKey::of(1), start);
        assert_eq!(admitted(&limits, HOST, start), 20);
        assert_eq!(admitted(&limits, HOST, start.after(crate::time::Span(100))), 2);
        assert_eq!(admitted(&limits, OTHER, start), 20, "each host has its own");
        assert_eq!(
            admitted(&limits, HOST, start.after(crate::time::Span(3000))),
            20,
            "also when the clock wraps"
        );
    }

    #[test]
    fn a_clock_that_is_behind_adds_nothing() {
        let limits = IcmpErrorLimiter::new(NonZeroU32::new(5), HashKey::of(1), Tick(1000));
        assert_eq!(admitted(&limits, HOST, Tick(1000)), 5);
        assert_eq!(admitted(&limits, HOST, Tick(990)), 0);
    }

    /// With a rate of one error a second, half of the first errors were refused for their cost.
    #[test]
    fn the_first_error_passes_at_any_cost() {
        let highest = MEAN_COST + COST_SPREAD / 2;
        assert!(IcmpErrorLimiter::new(NonZeroU32::new(1), HashKey::of(1), Tick(0)).admit_at(
            HOST,
            highest,
            Tick(0)
        ));
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(
            admitted(
                &IcmpErrorLimiter::new(NonZeroU32::new(0), HashKey::of(1), Tick(0)),
                HOST,
                Tick(0)
            ),
            1000
        );
    }
}

//! The limit of answers by UDP: a token bucket for each /24 of clients.
//!
//! The source of a datagram may be forged, so answers without a limit are a weapon against the
//! forged source. Above the limit, every second answer is the query alone, marked as truncated. A
//! real client then queries by TCP, whose source cannot be forged. The victim of a forged source
//! gets no more bytes than the attacker sent. The other answers are dropped.
//!
//! The table has a fixed size. A new source takes the bucket of the source in its set that has been
//! silent longest. That source has a full bucket again later. A source that queries often keeps its
//! bucket.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What the server does with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateLimitAction {
    /// Sends the answer.
    Answer,
    /// Sends the query back, marked as truncated.
    Truncate,
    /// Sends nothing.
    Drop,
}

/// Token buckets by source.
pub(super) struct Limiter<S> {
    buckets: Box<[[Bucket; WAYS]]>,
    /// Tokens that a bucket gains in a second, and most tokens that a bucket holds.
    rate: u32,
    hasher: S,
    start: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    source: u64,
    /// Tokens, in billionths.
    tokens: u64,
    /// Time of the last query in nanoseconds since the start; 0: none yet. A coarser clock has
    /// ties, and a flood could win a tie against a source that queries often.
    last_query: u64,
    /// Whether the last answer above the limit was truncated.
    truncated: bool,
}

impl<S: BuildHasher> Limiter<S> {
    /// Makes a limiter of `rate` answers a second for each source. The hasher needs a secret key,
    /// so that an attacker cannot choose sources that take the bucket of another one.
    pub(super) fn new(rate: u32, hasher: S, start: Instant) -> Self {
        let never = Bucket { source: u64::MAX, tokens: 0, last_query: 0, truncated: false };
        Self { buckets: vec![[never; WAYS]; SETS].into_boxed_slice(), rate, hasher, start }
    }

    /// Decides about the next answer to a client.
    pub(super) fn check(&mut self, client: IpAddr, now: Instant) -> RateLimitAction {
        let now = now.saturating_duration_since(self.start) + Duration::from_nanos(1);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let full = u64::from(self.rate) * REPLY_COST;
        let source = network(client);
        let set = &mut self.buckets[self.hasher.hash_one(source) as usize % SETS];
        let known = set.iter().position(|bucket| bucket.source == source);
        let bucket = match known {
            Some(index) => &mut set[index],
            None => {
                let oldest = set
                    .iter_mut()
                    .min_by_key(|bucket| bucket.last_query)
                    .expect("a set has several buckets");
                *oldest = Bucket { source, tokens: full, last_query: now, truncated: false };
                oldest
            }
        };
        // One token a second is one billionth of a token a nanosecond.
        let gained = now.saturating_sub(bucket.last_query).saturating_mul(u64::from(self.rate));
        bucket.tokens = bucket.tokens.saturating_add(gained).min(full);
        bucket.last_query = now;
        if let Some(left) = bucket.tokens.checked_sub(REPLY_COST) {
            bucket.tokens = left;
            return RateLimitAction::Answer;
        }
        bucket.truncated = !bucket.truncated;
        if bucket.truncated { RateLimitAction::Truncate } else { RateLimitAction::Drop }
    }
}

/// Returns the network of a client, whose members share a bucket: a /24, or a /56 of IPv6.
pub(super) fn network(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => u64::from(u32::from(address) >> 8),
        // The high bit keeps IPv6 apart from IPv4, whose networks have 24 bits.
        IpAddr::V6(address) => (u128::from(address) >> 72) as u64 | 1 << 63,
    }
}

/// One token, in billionths.
const REPLY_COST: u64 = 1_000_000_000;
const WAYS: usize = 4;
const SETS: usize = 1024;
/// The table is small enough to be allocated at once.
const _: () = assert!(WAYS * SETS * size_of::<Bucket>() <= 128 << 10);

#[cfg(test)]
mod tests {
    use std::hash::{Hasher, RandomState};
    use std::net::Ipv4Addr;

    use super::*;

    const VICTIM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn count(
        limiter: &mut Limiter<RandomState>,
        client: IpAddr,
        times: u32,
        now: Instant,
    ) -> [u32; 3] {
        let mut found = [0; 3];
        for _ in 0..times {
            found[limiter.check(client, now) as usize] += 1;
        }
        found
    }

    #[test]
    fn above_the_limit_every_second_answer_is_truncated_and_the_others_dropped() {
        let start = Instant::now();
        let mut limiter = Limiter::new(20, RandomState::new(), start);
        assert_eq!(count(&mut limiter, VICTIM, 120, start), [20, 50, 50]);
        // The whole /24 has one bucket, its neighbours have their own.
        let neighbour = |last_but_one, last| IpAddr::V4(Ipv4Addr::new(192, 0, last_but_one, last));
        assert_eq!(count(&mut limiter, neighbour(2, 200), 2, start), [0, 1, 1]);
        assert_eq!(count(&mut limiter, neighbour(3, 1), 5, start), [5, 0, 0]);
    }

    #[test]
    fn tokens_return_with_time_and_a_bucket_holds_those_of_one_second() {
        let start = Instant::now();
        let mut limiter = Limiter::new(20, RandomState::new(), start);
        count(&mut limiter, VICTIM, 100, start);
        assert_eq!(count(&mut limiter, VICTIM, 10, start + Duration::from_millis(250))[0], 5);
        assert_eq!(count(&mut limiter, VICTIM, 100, start + Duration::from_secs(3600))[0], 20);
        // Many small steps gain as much as one large one.
        let later = start + Duration::from_secs(3601);
        count(&mut limiter, VICTIM, 100, later);
        let answered: u32 = (1..=1000u64)
            .map(|step| count(&mut limiter, VICTIM, 1, later + Duration::from_millis(step))[0])
            .sum();
        assert_eq!(answered, 20);
    }

    #[test]
    fn a_flood_from_all_sources_does_not_raise_the_limit_of_one() {
        let start = Instant::now();
        let mut limiter = Limiter::new(20, RandomState::new(), start);
        let mut answered = 0;
        for number in 0..200_000u32 {
            // Every second query has the victim as its source, the others have random sources.
            let now = start + Duration::from_micros(u64::from(number) * 5);
            limiter.check(IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1))), now);
            answered += u32::from(limiter.check(VICTIM, now) == RateLimitAction::Answer);
        }
        assert!(answered <= 41, "{answered} answers in a second");
    }

    /// Puts all sources into one set: the worst case of a hash.
    #[derive(Clone, Copy, Default)]
    struct OneSet;

    impl BuildHasher for OneSet {
        type Hasher = Self;
        fn build_hasher(&self) -> Self {
            Self
        }
    }

    impl Hasher for OneSet {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, _: &[u8]) {}
    }

    #[test]
    fn a_source_that_queries_most_often_keeps_its_bucket_even_if_all_hashes_collide() {
        let start = Instant::now();
        let mut limiter = Limiter::new(20, OneSet, start);
        let mut answered = 0;
        for number in 0..1000u32 {
            // All of them within a millisecond, and more other sources than the set has buckets.
            let now = |step: u32| start + Duration::from_nanos(u64::from(number * 4 + step) * 200);
            answered += u32::from(limiter.check(VICTIM, now(0)) == RateLimitAction::Answer);
            for other in 1..4 {
                limiter.check(IpAddr::V4(Ipv4Addr::from((number * 4 + other) << 8)), now(other));
            }
        }
        assert_eq!(answered, 20);
    }

    #[test]
    fn networks_of_ipv4_and_ipv6_differ() {
        let mapped = network("2001:db8:0:100::1".parse().unwrap());
        assert_eq!(mapped, network("2001:db8:0:1ff::2".parse().unwrap()));
        assert_ne!(mapped, network("2001:db8:0:200::1".parse().unwrap()));
        assert_ne!(network("::".parse().unwrap()), network("0.0.0.0".parse().unwrap()));
    }
}

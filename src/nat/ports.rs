//! External ports: which are free, and a random one of them.
//!
//! One bitmap per external address and protocol; setting a bit that was clear *is* the reservation, so two workers
//! cannot win the same port. Ports that a forward owns are set from the start and never handed out. Choice is
//! random (RFC 6056 section 3.3.2 in spirit): a few random probes, then, in a crowded range, a random free bit of the
//! first word with any, walking from a random place; so the work is bounded at any fill.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::RngExt;
use rand::rngs::StdRng;

/// Ports of one protocol on one external address.
pub(super) struct PortPool {
    /// A set bit is a port that cannot be had.
    taken: Box<[AtomicU64; WORDS]>,
    free: AtomicU32,
    first: u16,
    last: u16,
    /// What the host itself uses; never given away.
    hosts: Option<(u16, u16)>,
}

/// Which ports a request accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    /// Any.
    Any,
    /// Only those with the lowest bit of this port (RFC 4787 REQ-4).
    Like(u16),
}

impl PortPool {
    /// A pool of `first..=last`, less the host's own ports and what `is_reserved` claims.
    pub(super) fn new(
        first: u16,
        last: u16,
        hosts: Option<(u16, u16)>,
        is_reserved: impl Fn(u16) -> bool,
    ) -> Self {
        let taken: Box<[AtomicU64; WORDS]> = Box::new([const { AtomicU64::new(u64::MAX) }; WORDS]);
        let mut free = 0;
        for port in (first..=last).filter(|port| !is_within(hosts, *port) && !is_reserved(*port)) {
            let word = &taken[usize::from(port / 64)];
            word.store(word.load(Relaxed) & !(1 << (port % 64)), Relaxed);
            free += 1;
        }
        Self { taken, free: AtomicU32::new(free), first, last, hosts }
    }

    /// How many ports are free.
    pub(super) fn free(&self) -> u32 {
        self.free.load(Relaxed)
    }

    /// Takes a random free port; a port of the wished parity where one is free, else any. None when the pool is
    /// empty.
    pub(super) fn take(&self, parity: Parity, random: &mut StdRng) -> Option<u16> {
        if self.free() == 0 {
            return None;
        }
        self.take_like(parity, random).or_else(|| match parity {
            Parity::Any => None,
            Parity::Like(_) => self.take_like(Parity::Any, random),
        })
    }

    fn take_like(&self, parity: Parity, random: &mut StdRng) -> Option<u16> {
        for _ in 0..RANDOM_PROBES {
            let any = random.random_range(self.first..=self.last);
            let port = match parity {
                Parity::Any => any,
                Parity::Like(model) => any & !1 | model & 1,
            };
            if self.reserve(port) {
                return Some(port);
            }
        }
        let mask = match parity {
            Parity::Any => u64::MAX,
            Parity::Like(model) if model & 1 == 0 => 0x5555_5555_5555_5555,
            Parity::Like(_) => 0xaaaa_aaaa_aaaa_aaaa,
        };
        let start = random.random_range(0..WORDS);
        for step in 0..WORDS {
            let number = (start + step) % WORDS;
            loop {
                let open = !self.taken[number].load(Relaxed) & mask;
                if open == 0 {
                    break;
                }
                let port = (number * 64) as u16 + random_bit(open, random);
                if self.reserve(port) {
                    return Some(port);
                }
            }
        }
        None
    }

    fn reserve(&self, port: u16) -> bool {
        let bit = 1 << (port % 64);
        // Relaxed: the bit is the whole reservation; what belongs to the port is published by the tables' locks.
        let won = self.taken[usize::from(port / 64)].fetch_or(bit, Relaxed) & bit == 0;
        if won {
            self.free.fetch_sub(1, Relaxed);
        }
        won
    }

    /// Takes a port out of the pool for a forward; false while a mapping has it. A port that the pool does not have is out
    /// of it already.
    pub(super) fn keep(&self, port: u16) -> bool {
        !self.has(port) || self.reserve(port)
    }

    /// Takes a port in that a forward had.
    pub(super) fn give(&self, port: u16) {
        if self.has(port) {
            self.release(port);
        }
    }

    /// Whether a port is the pool's to hand out, now or later.
    fn has(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port) && !is_within(self.hosts, port)
    }

    /// Gives a taken port back.
    pub(super) fn release(&self, port: u16) {
        let bit = 1 << (port % 64);
        let before = self.taken[usize::from(port / 64)].fetch_and(!bit, Relaxed);
        debug_assert!(before & bit != 0, "port {port} was released twice");
        self.free.fetch_add(1, Relaxed);
    }
}

fn is_within(range: Option<(u16, u16)>, port: u16) -> bool {
    range.is_some_and(|(first, last)| (first..=last).contains(&port))
}

/// The position of a random set bit; `bits` is not zero.
fn random_bit(bits: u64, random: &mut StdRng) -> u16 {
    let mut rest = bits;
    for _ in 0..random.random_range(0..bits.count_ones()) {
        rest &= rest - 1;
    }
    rest.trailing_zeros() as u16
}

const WORDS: usize = 65536 / 64;
const RANDOM_PROBES: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_pool_is_handed_out_to_the_last_port_without_repeats_and_without_the_reserved_ones() {
        let mut random = StdRng::seed_from_u64(1);
        let pool = PortPool::new(1000, 1999, None, |port| (1500..1600).contains(&port));
        let mut seen = HashSet::new();
        while let Some(port) = pool.take(Parity::Any, &mut random) {
            assert!((1000..2000).contains(&port) && !(1500..1600).contains(&port));
            assert!(seen.insert(port), "port {port} was handed out twice");
        }
        assert_eq!(seen.len(), 900);
        pool.release(1999);
        assert_eq!(
            pool.take(Parity::Like(2), &mut random),
            Some(1999),
            "parity yields when nothing else is left"
        );
        assert_eq!(pool.take(Parity::Any, &mut random), None);
    }

    #[test]
    fn the_edges_of_the_port_space_can_be_had() {
        let mut random = StdRng::seed_from_u64(2);
        for (first, last) in [(1, 1), (65535, 65535), (1, 65535), (63, 64)] {
            let pool = PortPool::new(first, last, None, |_| false);
            let mut seen = HashSet::new();
            while let Some(port) = pool.take(Parity::Any, &mut random) {
                seen.insert(port);
            }
            assert_eq!(seen, (first..=last).collect());
        }
    }

    #[test]
    fn parity_is_kept_while_it_can_be() {
        let mut random = StdRng::seed_from_u64(3);
        let pool = PortPool::new(1024, 65535, None, |_| false);
        for model in 0..2000 {
            let port = pool.take(Parity::Like(model), &mut random).expect("free ports");
            assert_eq!(port % 2, model % 2);
        }
    }

    #[test]
    fn ports_show_no_step_and_cover_the_range() {
        let mut random = StdRng::seed_from_u64(4);
        let pool = PortPool::new(1024, 65535, None, |_| false);
        let ports: Vec<i32> =
            (0..2000).map(|_| i32::from(pool.take(Parity::Any, &mut random).expect("free ports"))).collect();
        let steps: HashSet<i32> = ports.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 1900, "differences between successive ports repeat");
        assert!((800..1200).contains(&ports.iter().filter(|port| **port < 33280).count()));
    }

    #[test]
    fn two_threads_never_get_the_same_port() {
        let pool = PortPool::new(1, 60_000, None, |_| false);
        let taken: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let mut random = StdRng::seed_from_u64(seed);
                        std::iter::from_fn(|| pool.take(Parity::Any, &mut random)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(taken.len(), 60_000);
        assert_eq!(taken.into_iter().collect::<HashSet<_>>().len(), 60_000);
    }
}

//! External ports: which are free, and a random one of them.
//!
//! One bitmap per external address and protocol; setting a bit that was clear *is* the reservation, so two workers
//! cannot win the same port. Ports that a forward owns are set from the start and never handed out. Choice is
//! random (RFC 6056 section 3.3.2 in spirit): a few random probes, then, in a crowded range, a random free bit of the
//! first word with any, walking from a random place; so the work is bounded at any fill.
//!
//! Ports below 1024 are a class of their own (RFC 4787 REQ-3a): an inside port from there gets one from there while one
//! is free, and one from 1024 up never does, unless the range has no others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::nat::policy::port_range::PortRange;

/// Ports of one protocol on one external address.
pub(crate) struct PortPool {
    /// A set bit is a port that cannot be had.
    taken: Box<[AtomicU64; WORDS]>,
    free: AtomicU32,
    first: u16,
    last: u16,
    /// What the host itself uses; never given away.
    hosts: Box<[PortRange]>,
    /// Where programs of the host wait at the moment; None if the address is not the host's own.
    excluded: Option<Box<[AtomicU64; WORDS]>>,
}

/// What an external port should have in common with the inside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortPreference {
    /// Nothing: the identifiers of queries.
    None,
    /// The class of this port (RFC 4787 REQ-3a).
    Class(u16),
    /// Its class and, while one is free, its lowest bit (RFC 4787 REQ-4).
    ClassAndParity(u16),
}

/// Ports to choose from: a range, and which bits of a word of the bitmap.
#[derive(Clone, Copy)]
struct Candidates {
    first: u16,
    last: u16,
    mask: u64,
}

impl PortPool {
    /// A pool of `range`, less the host's own ports and what `is_reserved` claims.
    pub(crate) fn new(
        range: PortRange,
        hosts: &[PortRange],
        is_reserved: impl Fn(u16) -> bool,
    ) -> Self {
        let taken: Box<[AtomicU64; WORDS]> = Box::new([const { AtomicU64::new(u64::MAX) }; WORDS]);
        let mut free = 0;
        for port in range.iter().filter(|port| !is_within(hosts, *port) && !is_reserved(*port)) {
            let word = &taken[usize::from(port / 64)];
            word.store(word.load(Relaxed) & !(1 << (port % 64)), Relaxed);
            free += 1;
        }
        let excluded = (!hosts.is_empty()).then(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        let PortRange { first, last } = range;
        Self { taken, free: AtomicU32::new(free), first, last, hosts: hosts.into(), excluded }
    }

    /// Gives none of these ports away from now on, and again those that were barred before. A mapping that has one keeps it.
    pub(crate) fn bar(&self, ports: &[u16]) {
        let Some(excluded) = &self.excluded else { return };
        let mut words = [0; WORDS];
        ports.iter().for_each(|port| words[usize::from(port / 64)] |= 1 << (port % 64));
        for (excluded, word) in excluded.iter().zip(words) {
            excluded.store(word, Relaxed);
        }
    }

    /// Whether a program of the host waits at a port.
    pub(crate) fn is_excluded(&self, port: u16) -> bool {
        self.excluded_in(usize::from(port / 64)) & 1 << (port % 64) != 0
    }

    fn excluded_in(&self, word: usize) -> u64 {
        self.excluded.as_ref().map_or(0, |excluded| excluded[word].load(Relaxed))
    }

    /// How many ports are free.
    pub(crate) fn free(&self) -> u32 {
        self.free.load(Relaxed)
    }

    /// Takes a random free port that is like the inside one. None when there is none.
    pub(crate) fn take(&self, likeness: PortPreference, random: &mut StdRng) -> Option<u16> {
        if self.free() == 0 {
            return None;
        }
        self.choices(likeness)
            .into_iter()
            .flatten()
            .find_map(|choice| self.take_from(choice, random))
    }

    /// Ports in use of the right class, from a random one on: those that mappings towards different destinations may
    /// share. At most [`SHARED_TRIES`].
    pub(crate) fn candidates(
        &self,
        likeness: PortPreference,
        random: &mut StdRng,
    ) -> impl Iterator<Item = u16> {
        let [.., last_choice] = self.choices(likeness);
        let Candidates { first, last, .. } = last_choice.expect("the last choice is always there");
        let count = u32::from(last - first) + 1;
        let start = random.random_range(0..count);
        (0..count.min(SHARED_TRIES)).map(move |step| first + ((start + step) % count) as u16)
    }

    /// Where to look, best first; the last is always there.
    fn choices(&self, likeness: PortPreference) -> [Option<Candidates>; 3] {
        let any = |(first, last)| Candidates { first, last, mask: u64::MAX };
        let all = (self.first, self.last);
        let (model, keeps_parity) = match likeness {
            PortPreference::None => return [None, None, Some(any(all))],
            PortPreference::Class(model) => (model, false),
            PortPreference::ClassAndParity(model) => (model, true),
        };
        let has_class = if model < UNPRIVILEGED {
            self.first < UNPRIVILEGED
        } else {
            self.last >= UNPRIVILEGED
        };
        let (class, fallback) = match (model < UNPRIVILEGED, has_class) {
            (_, false) => (all, None),
            (true, true) => ((self.first, self.last.min(UNPRIVILEGED - 1)), Some(all)),
            (false, true) => ((self.first.max(UNPRIVILEGED), self.last), None),
        };
        let mask = if model & 1 == 0 { EVEN } else { !EVEN };
        let parity = keeps_parity.then_some(Candidates { mask, ..any(class) });
        match fallback {
            Some(fallback) => [parity, Some(any(class)), Some(any(fallback))],
            None => [None, parity, Some(any(class))],
        }
    }

    fn take_from(
        &self,
        Candidates { first, last, mask }: Candidates,
        random: &mut StdRng,
    ) -> Option<u16> {
        for _ in 0..RANDOM_PROBES {
            let any = random.random_range(first..=last);
            let port = match mask {
                u64::MAX => any,
                EVEN => any & !1,
                _ => any | 1,
            };
            if !self.is_excluded(port) && self.reserve(port) {
                return Some(port);
            }
        }
        // Bits of ports outside the pool's range are set for ever, and classes meet between two words.
        let (from, to) = (usize::from(first / 64), usize::from(last / 64));
        let start = random.random_range(from..=to);
        for number in (start..=to).chain(from..start) {
            loop {
                let open = !self.taken[number].load(Relaxed) & !self.excluded_in(number) & mask;
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
    pub(crate) fn claim(&self, port: u16) -> bool {
        !self.has(port) || self.reserve(port)
    }

    /// Takes a port in that a forward had.
    pub(crate) fn give_back(&self, port: u16) {
        if self.has(port) {
            self.release(port);
        }
    }

    /// Whether a port is the pool's to hand out, now or later.
    fn has(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port) && !is_within(&self.hosts, port)
    }

    /// Gives a taken port back.
    pub(crate) fn release(&self, port: u16) {
        let bit = 1 << (port % 64);
        let before = self.taken[usize::from(port / 64)].fetch_and(!bit, Relaxed);
        debug_assert!(before & bit != 0, "port {port} was released twice");
        self.free.fetch_add(1, Relaxed);
    }
}

fn is_within(ranges: &[PortRange], port: u16) -> bool {
    ranges.iter().any(|range| range.contains(port))
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
/// Ports looked at for one that can be shared.
const SHARED_TRIES: u32 = 64;
/// The first port that needs no privilege.
const UNPRIVILEGED: u16 = 1024;
/// The even ports of a word.
const EVEN: u64 = 0x5555_5555_5555_5555;

const _: () = assert!(UNPRIVILEGED.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn where_the_host_waits_nobody_else_gets_a_port() {
        let pool = PortPool::new((1000..=1003).into(), &[(40_000..=50_000).into()], |_| false);
        let mut random = StdRng::seed_from_u64(1);
        let mut take = || pool.take(PortPreference::None, &mut random);
        pool.bar(&[1001, 1002, 7]);
        let taken = [take(), take(), take()];
        assert!(
            taken.contains(&Some(1000)) && taken.contains(&Some(1003)) && taken[2].is_none(),
            "{taken:?}"
        );
        pool.bar(&[1002]);
        assert_eq!([take(), take()], [Some(1001), None]);
        // Nothing was lost.
        for port in [1000, 1001, 1003] {
            pool.release(port);
        }
        pool.bar(&[]);
        assert_eq!((0..5).filter_map(|_| take()).count(), 4);
    }

    #[test]
    fn a_pool_is_handed_out_to_the_last_port_without_repeats_and_without_the_reserved_ones() {
        let mut random = StdRng::seed_from_u64(1);
        let pool = PortPool::new((1000..=1999).into(), &[], |port| (1500..1600).contains(&port));
        let mut seen = HashSet::new();
        while let Some(port) = pool.take(PortPreference::None, &mut random) {
            assert!((1000..2000).contains(&port) && !(1500..1600).contains(&port));
            assert!(seen.insert(port), "port {port} was handed out twice");
        }
        assert_eq!(seen.len(), 900);
        pool.release(1999);
        assert_eq!(
            pool.take(PortPreference::ClassAndParity(2000), &mut random),
            Some(1999),
            "parity yields when nothing else is left"
        );
        assert_eq!(pool.take(PortPreference::None, &mut random), None);
    }

    #[test]
    fn the_edges_of_the_port_space_can_be_had() {
        let mut random = StdRng::seed_from_u64(2);
        for (first, last) in [(1, 1), (65535, 65535), (1, 65535), (63, 64)] {
            let pool = PortPool::new((first..=last).into(), &[], |_| false);
            let mut seen = HashSet::new();
            while let Some(port) = pool.take(PortPreference::None, &mut random) {
                seen.insert(port);
            }
            assert_eq!(seen, (first..=last).collect());
        }
    }

    #[test]
    fn parity_is_kept_while_it_can_be() {
        let mut random = StdRng::seed_from_u64(3);
        let pool = PortPool::new((1024..=65535).into(), &[], |_| false);
        for model in 0..2000 {
            let port =
                pool.take(PortPreference::ClassAndParity(model), &mut random).expect("free ports");
            assert_eq!(port % 2, model % 2);
        }
    }

    #[test]
    fn high_ports_never_go_low_and_low_ones_go_high_only_when_no_low_one_is_left() {
        let mut random = StdRng::seed_from_u64(5);
        let pool = PortPool::new((1000..=1099).into(), &[], |_| false);
        let mut take = |likeness| pool.take(likeness, &mut random);
        let low: Vec<u16> =
            (0..24).map_while(|port| take(PortPreference::ClassAndParity(port))).collect();
        assert!(low.len() == 24 && low.iter().all(|port| *port < 1024), "{low:?}");
        assert!(take(PortPreference::Class(53)).is_some_and(|port| port >= 1024));
        assert_eq!(
            (0..75)
                .filter_map(|_| take(PortPreference::Class(5000)))
                .filter(|port| *port >= 1024)
                .count(),
            75
        );
        pool.release(1000);
        assert_eq!(take(PortPreference::ClassAndParity(5000)), None);
        assert_eq!(take(PortPreference::ClassAndParity(7)), Some(1000), "parity yields");
    }

    #[test]
    fn a_range_without_the_class_serves_all() {
        let mut random = StdRng::seed_from_u64(6);
        for (only, model) in [(80, 5000), (5000, 80)] {
            let pool = PortPool::new((only..=only).into(), &[], |_| false);
            assert_eq!(pool.take(PortPreference::Class(model), &mut random), Some(only));
        }
    }

    #[test]
    fn what_may_be_shared_is_of_the_right_class_and_bounded() {
        let mut random = StdRng::seed_from_u64(7);
        let pool = PortPool::new((1000..=65_535).into(), &[], |_| false);
        let high: Vec<u16> = pool.candidates(PortPreference::Class(5000), &mut random).collect();
        assert!(high.len() == SHARED_TRIES as usize && high.iter().all(|port| *port >= 1024));
        let pool = PortPool::new((2000..=2002).into(), &[], |_| false);
        let mut all: Vec<u16> = pool.candidates(PortPreference::Class(5000), &mut random).collect();
        all.sort_unstable();
        assert_eq!(all, [2000, 2001, 2002]);
    }

    #[test]
    fn ports_show_no_step_and_cover_the_range() {
        let mut random = StdRng::seed_from_u64(4);
        let pool = PortPool::new((1024..=65535).into(), &[], |_| false);
        let ports: Vec<i32> = (0..2000)
            .map(|_| i32::from(pool.take(PortPreference::None, &mut random).expect("free ports")))
            .collect();
        let steps: HashSet<i32> = ports.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 1900, "differences between successive ports repeat");
        assert!((800..1200).contains(&ports.iter().filter(|port| **port < 33280).count()));
    }

    #[test]
    fn two_threads_never_get_the_same_port() {
        let pool = PortPool::new((1..=60_000).into(), &[], |_| false);
        let taken: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let mut random = StdRng::seed_from_u64(seed);
                        std::iter::from_fn(|| pool.take(PortPreference::None, &mut random))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(taken.len(), 60_000);
        assert_eq!(taken.into_iter().collect::<HashSet<_>>().len(), 60_000);
    }
}

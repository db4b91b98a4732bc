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

/// Ports of one protocol on one external address.
pub(crate) struct PortPool {
    /// A set bit is a port that cannot be had.
    taken: Box<[AtomicU64; WORDS]>,
    free: AtomicU32,
    first: u16,
    last: u16,
    /// What the host itself uses; never given away.
    hosts: Box<[(u16, u16)]>,
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
    /// A pool of `first..=last`, less the host's own ports and what `is_reserved` claims.
    pub(crate) fn new(
        first: u16,
        last: u16,
        hosts: &[(u16, u16)],
        is_reserved: impl Fn(u16) -> bool,
    ) -> Self {
        let taken: Box<[AtomicU64; WORDS]> = Box::new([const { AtomicU64::new(u64::MAX) }; WORDS]);
        let mut free = 0;
        for port in (first..=last).filter(|port| !is_within(hosts, *port) && !is_reserved(*port)) {
            let word = &taken[usize::from(port / 64)];
            word.store(word.load(Relaxed) & !(1 << (port % 64)), Relaxed);
            free += 1;
        }
        let excluded = (!hosts.is_empty()).then(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
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

fn is_within(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
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
mod tests;

//! External ports: which are free, and the choice of a random one.
//!
//! There is one bitmap per external address and protocol. Setting a bit that was clear *is* the
//! reservation, so two workers cannot win the same port. The bits of ports that a forward owns are
//! set from the start. The choice never leaves the range of dynamic ports. A mapping that keeps its
//! inside port may take any port (see [`PortPool::take_kept`]).
//!
//! The choice is random (RFC 6056 section 3.3.2 in spirit): a few random probes first. In a crowded
//! range the pool then walks the words from a random one on and takes a random free bit of the
//! first word that has any. So the work is bounded at any fill.
//!
//! Forwards of whole addresses and of very wide ranges share their ports with mappings: see
//! [`PortPool::share`]. A mapping gets a shared port only when no other is free, and never one that
//! a session of such a forward holds. The pool keeps the last quarter of its range back for
//! mappings (by default from 49408, about the dynamic ports of RFC 6335): clients outside cannot
//! hold these ports, so no flood of theirs takes them all.
//!
//! On an address that the host has as well, the host may at any moment pick a port of a range of
//! its own for a new connection. The random choice keeps off this range. A mapping that keeps its
//! inside port may have a port of this range, unless a program of the host uses the port.
//!
//! Ports below 1024 are a class of their own (RFC 4787 REQ-3a). An inside port of that class gets
//! an external port of that class while one is free. An inside port from 1024 up never gets one,
//! unless the range has no others.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::nat::mapping::port_set::{PortSet, WORDS, is_set, no_ports, set_all, word_mask};
use crate::values::nat::PortRange;

/// Ports of one protocol on one external address.
pub(crate) struct PortPool {
    /// A set bit is a port that is not free.
    taken: Box<[AtomicU64; WORDS]>,
    /// Number of free ports of the range.
    free: AtomicU32,
    /// The range of dynamic ports: its first port in the upper half, its last one in the lower.
    range: AtomicU32,
    /// True once the range has changed: a worker may have taken a port meanwhile, so that the
    /// number of free ports is off by some.
    has_changed: AtomicBool,
    /// The host's ports; None if the address is not assigned to the host.
    hosts: Option<HostsPorts>,
    /// Ports that a forward shares with mappings, without those kept back. Unset: none was ever
    /// shared.
    shared: OnceLock<PortSet>,
}

/// Ports of the host on an address that it shares with mappings.
struct HostsPorts {
    /// Ports that the host may pick for its own connections at any moment.
    ephemeral: PortSet,
    /// True: the random choice keeps off the ephemeral ports. False: the range of dynamic ports has
    /// no others.
    avoids_ephemeral: AtomicBool,
    /// Ports at which programs of the host listen at the moment.
    listening: PortSet,
    /// Ports that programs of the host use at the moment, those of connections included.
    used: PortSet,
}

/// Property of the inside port that the external port should share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortPreference {
    /// No property: the identifiers of queries.
    None,
    /// The class of this port (RFC 4787 REQ-3a).
    Class(u16),
    /// Its class and, while one is free, its lowest bit (RFC 4787 REQ-4).
    ClassAndParity(u16),
}

/// Ports that a search may take.
#[derive(Clone, Copy)]
enum Search<'p> {
    /// All.
    All,
    /// All without these.
    Without(&'p PortSet),
}

/// Ports to choose from: a range, and which bits of a word of the bitmap.
#[derive(Clone, Copy)]
struct Candidates {
    first: u16,
    last: u16,
    mask: u64,
}

/// What the choice of a port reads and takes: the pool itself, or a pool as it would be.
pub(crate) trait Ports {
    /// Number of free ports of the range.
    fn free(&self) -> u32;
    /// The taken ports of a word, as bits.
    fn taken_in(&self, word: usize) -> u64;
    /// Takes a port, if it is free.
    fn reserve(&mut self, port: u16) -> bool;
    /// Frees a taken port.
    fn release(&mut self, port: u16);
}

impl Ports for &PortPool {
    fn free(&self) -> u32 {
        PortPool::free(self)
    }

    fn taken_in(&self, word: usize) -> u64 {
        PortPool::taken_in(self, word)
    }

    fn reserve(&mut self, port: u16) -> bool {
        PortPool::reserve(self, port)
    }

    fn release(&mut self, port: u16) {
        PortPool::release(self, port);
    }
}

impl PortPool {
    /// Makes a pool of `range`, less the `reserved` ports. `ephemeral` holds the host's own ranges,
    /// if the address is assigned to the host.
    pub(crate) fn new(
        range: PortRange,
        ephemeral: &[PortRange],
        reserved: impl Iterator<Item = PortRange>,
    ) -> Self {
        let hosts = (!ephemeral.is_empty()).then(|| HostsPorts::new(range, ephemeral));
        let taken = no_ports();
        let port_0 = (range.first != 0).then_some(PortRange::single(0));
        set_all(&taken, reserved.chain(port_0));
        let pool = Self {
            taken,
            free: AtomicU32::new(0),
            range: AtomicU32::new(packed(range)),
            has_changed: AtomicBool::new(false),
            hosts,
            shared: OnceLock::new(),
        };
        pool.free.store(pool.count_free(), Relaxed);
        pool
    }

    /// Changes the range while mappings live. Mappings with a port outside keep their port. Call
    /// [`Self::share`] afterwards.
    pub(crate) fn set_range(&self, range: PortRange) {
        if self.range.swap(packed(range), Relaxed) == packed(range) {
            return;
        }
        if let Some(hosts) = &self.hosts {
            hosts.avoids_ephemeral.store(hosts.has_others(range), Relaxed);
        }
        self.has_changed.store(true, Relaxed);
        self.free.store(self.count_free(), Relaxed);
    }

    fn first(&self) -> u16 {
        (self.range.load(Relaxed) >> 16) as u16
    }

    fn last(&self) -> u16 {
        self.range.load(Relaxed) as u16
    }

    /// Counts the free ports of the range that the random choice may take.
    fn count_free(&self) -> u32 {
        let free_in = |word: usize| {
            let ephemeral = self.hosts.as_ref().map_or(0, |hosts| hosts.avoided_ephemeral_in(word));
            let closed = self.taken[word].load(Relaxed) | ephemeral;
            (!closed & word_mask(word, self.first(), self.last())).count_ones()
        };
        (usize::from(self.first() / 64)..=usize::from(self.last() / 64)).map(free_in).sum()
    }

    /// Sets the ports that forwards share with mappings.
    pub(crate) fn share(&self, ranges: impl Iterator<Item = PortRange>) {
        // A range before the ports kept back, and a range behind them.
        let kept = (u32::from(self.last() - self.first()) + 1) / KEPT_BACK;
        let (start, end) = (u32::from(self.last()) + 1 - kept, u32::from(self.last()) + 1);
        let without = |PortRange { first, last }: PortRange| {
            let before = (u32::from(first), (u32::from(last) + 1).min(start));
            let behind = (u32::from(first).max(end), u32::from(last) + 1);
            let parts = [before, behind].into_iter().filter(|(first, end)| first < end);
            parts.map(|(first, end)| PortRange { first: first as u16, last: (end - 1) as u16 })
        };
        let mut ranges = ranges.flat_map(without).peekable();
        if self.shared.get().is_some() || ranges.peek().is_some() {
            set_all(self.shared.get_or_init(no_ports), ranges);
        }
    }

    /// Reports whether the pool keeps a port back for mappings.
    pub(crate) fn is_kept_back(&self, port: u16) -> bool {
        let kept = (u32::from(self.last() - self.first()) + 1) / KEPT_BACK;
        (self.first()..=self.last()).contains(&port) && u32::from(self.last() - port) < kept
    }

    /// Reports whether a port belongs to the host: a program uses it, or the host may pick it for
    /// its own connections.
    pub(crate) fn is_hosts(&self, port: u16) -> bool {
        self.is_used(port)
            || self.hosts.as_ref().is_some_and(|hosts| is_set(&hosts.ephemeral, port))
    }

    /// Hands out none of these ports from now on, and again those that were excluded before: ports
    /// at which programs of the host listen, and ports of their connections. A mapping that has an
    /// excluded port keeps the port.
    pub(crate) fn exclude(&self, listening: &[u16], connected: &[u16]) {
        let Some(hosts) = &self.hosts else { return };
        let single = |port: &u16| PortRange::single(*port);
        set_all(&hosts.listening, listening.iter().map(single));
        set_all(&hosts.used, listening.iter().chain(connected).map(single));
    }

    /// Reports whether a program of the host listens at a port.
    pub(crate) fn has_listener(&self, port: u16) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| is_set(&hosts.listening, port))
    }

    /// Reports whether a program of the host uses a port.
    pub(crate) fn is_used(&self, port: u16) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| is_set(&hosts.used, port))
    }

    /// The ports of a word that the random choice keeps off, as bits.
    fn avoided_in(&self, word: usize) -> u64 {
        let Some(hosts) = &self.hosts else { return 0 };
        hosts.used[word].load(Relaxed) | hosts.avoided_ephemeral_in(word)
    }

    /// Takes the inside port of a mapping as its external port, if that port is free and no program
    /// of the host uses it. The port may lie outside the range of dynamic ports.
    pub(crate) fn take_kept(&self, port: u16, ports: &mut impl Ports) -> bool {
        !self.is_used(port) && ports.reserve(port)
    }

    /// Number of free ports of the range.
    pub(crate) fn free(&self) -> u32 {
        self.free.load(Relaxed)
    }

    /// The taken ports of a word, as bits.
    pub(crate) fn taken_in(&self, word: usize) -> u64 {
        self.taken[word].load(Relaxed)
    }

    /// Takes a random free port by preference. None when no port is free.
    pub(crate) fn take(&self, preference: PortPreference, random: &mut StdRng) -> Option<u16> {
        self.choose(preference, &mut &*self, random)
    }

    /// Does the work of [`Self::take`]. `ports` says which ports are free, and takes the port.
    pub(crate) fn choose(
        &self,
        preference: PortPreference,
        ports: &mut impl Ports,
        random: &mut StdRng,
    ) -> Option<u16> {
        if ports.free() == 0 {
            if !self.has_changed.load(Relaxed) {
                return None;
            }
            self.free.store(self.count_free(), Relaxed);
            if ports.free() == 0 {
                return None;
            }
        }
        let choices = self.choices(preference);
        let mut search = |among| {
            let mut choices = choices.iter().flatten();
            choices.find_map(|choice| self.take_from(*choice, among, ports, random))
        };
        match self.shared.get() {
            None => search(Search::All),
            Some(shared) => search(Search::Without(shared)).or_else(|| search(Search::All)),
        }
    }

    /// Ports in use of the right class, from a random one on, which mappings towards different
    /// destinations may share. At most [`SHARED_TRIES`].
    pub(crate) fn candidates(
        &self,
        preference: PortPreference,
        random: &mut StdRng,
    ) -> impl Iterator<Item = u16> {
        let [.., last_choice] = self.choices(preference);
        let Candidates { first, last, .. } = last_choice.expect("the last choice is always there");
        let count = u32::from(last - first) + 1;
        let start = random.random_range(0..count);
        (0..count.min(SHARED_TRIES))
            .map(move |step| first + ((start + step) % count) as u16)
            .filter(|port| self.is_dynamic(*port))
    }

    /// Candidates, best first; the last is always there.
    fn choices(&self, preference: PortPreference) -> [Option<Candidates>; 3] {
        let any = |(first, last)| Candidates { first, last, mask: u64::MAX };
        let all = (self.first(), self.last());
        let (model, keeps_parity) = match preference {
            PortPreference::None => return [None, None, Some(any(all))],
            PortPreference::Class(model) => (model, false),
            PortPreference::ClassAndParity(model) => (model, true),
        };
        let has_class = if model < UNPRIVILEGED {
            self.first() < UNPRIVILEGED
        } else {
            self.last() >= UNPRIVILEGED
        };
        let (class, fallback) = match (model < UNPRIVILEGED, has_class) {
            (_, false) => (all, None),
            (true, true) => ((self.first(), self.last().min(UNPRIVILEGED - 1)), Some(all)),
            (false, true) => ((self.first().max(UNPRIVILEGED), self.last()), None),
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
        among: Search<'_>,
        ports: &mut impl Ports,
        random: &mut StdRng,
    ) -> Option<u16> {
        for _ in 0..among.random_probes() {
            let any = random.random_range(first..=last);
            let port = match mask {
                u64::MAX => any,
                EVEN => any & !1,
                _ => any | 1,
            };
            // Parity may lead out of the range by one.
            let is_candidate = (first..=last).contains(&port) && among.has(port);
            let is_avoided = self.avoided_in(usize::from(port / 64)) & 1 << (port % 64) != 0;
            if is_candidate && !is_avoided && ports.reserve(port) {
                return Some(port);
            }
        }
        let (from, to) = (usize::from(first / 64), usize::from(last / 64));
        let start = random.random_range(from..=to);
        for number in (start..=to).chain(from..start) {
            loop {
                let candidates = mask & word_mask(number, first, last);
                let closed = self.avoided_in(number) | among.skipped_in(number);
                let open = !ports.taken_in(number) & !closed & candidates;
                if open == 0 {
                    break;
                }
                let port = (number * 64) as u16 + random_bit(open, random);
                if ports.reserve(port) {
                    return Some(port);
                }
            }
        }
        None
    }

    /// Takes this very port, if it is free.
    pub(crate) fn reserve(&self, port: u16) -> bool {
        let bit = 1 << (port % 64);
        // Relaxed: the bit is the whole reservation; the locks of the maps publish the rest.
        let won = self.taken[usize::from(port / 64)].fetch_or(bit, Relaxed) & bit == 0;
        if won && self.is_dynamic(port) {
            self.free.fetch_sub(1, Relaxed);
        }
        won
    }

    /// Takes a port out of the pool for a forward; false while a mapping has the port. A port that
    /// the pool does not hand out needs no claim: true.
    pub(crate) fn claim(&self, port: u16) -> bool {
        !self.has(port) || self.reserve(port)
    }

    /// Returns a port that a forward had to the pool.
    pub(crate) fn give_back(&self, port: u16) {
        if self.has(port) {
            self.release(port);
        }
    }

    /// Reports whether a port is free.
    pub(crate) fn is_free(&self, port: u16) -> bool {
        self.taken[usize::from(port / 64)].load(Relaxed) & 1 << (port % 64) == 0
    }

    /// Reports whether a mapping may get a port, now or later.
    pub(crate) fn has(&self, port: u16) -> bool {
        port != 0 || self.first() == 0
    }

    /// Reports whether the random choice may take a port: it lies in the range of dynamic ports,
    /// and is not one that the host may pick.
    pub(crate) fn is_dynamic(&self, port: u16) -> bool {
        let is_ephemeral = |hosts: &HostsPorts| {
            hosts.avoided_ephemeral_in(usize::from(port / 64)) & 1 << (port % 64) != 0
        };
        (self.first()..=self.last()).contains(&port)
            && !self.hosts.as_ref().is_some_and(is_ephemeral)
    }

    /// Frees a taken port.
    pub(crate) fn release(&self, port: u16) {
        let bit = 1 << (port % 64);
        let before = self.taken[usize::from(port / 64)].fetch_and(!bit, Relaxed);
        debug_assert!(before & bit != 0, "port {port} was released twice");
        if self.is_dynamic(port) {
            self.free.fetch_add(1, Relaxed);
        }
    }
}

impl HostsPorts {
    fn new(range: PortRange, ephemeral: &[PortRange]) -> Self {
        let ports = no_ports();
        set_all(&ports, ephemeral.iter().copied());
        let hosts = Self {
            avoids_ephemeral: AtomicBool::new(false),
            ephemeral: ports,
            listening: no_ports(),
            used: no_ports(),
        };
        hosts.avoids_ephemeral.store(hosts.has_others(range), Relaxed);
        hosts
    }

    /// Reports whether a range has ports that are not ephemeral.
    fn has_others(&self, range: PortRange) -> bool {
        range.iter().any(|port| !is_set(&self.ephemeral, port))
    }

    /// The ephemeral ports of a word that the random choice keeps off, as bits.
    fn avoided_ephemeral_in(&self, word: usize) -> u64 {
        if self.avoids_ephemeral.load(Relaxed) { self.ephemeral[word].load(Relaxed) } else { 0 }
    }
}

impl Search<'_> {
    fn has(self, port: u16) -> bool {
        self.skipped_in(usize::from(port / 64)) & 1 << (port % 64) == 0
    }

    /// The ports of a word that the search skips, as bits.
    fn skipped_in(self, word: usize) -> u64 {
        match self {
            Self::All => 0,
            Self::Without(ports) => ports[word].load(Relaxed),
        }
    }

    /// Number of random ports to try. If only the ports kept back remain, one port in four is one
    /// of them. The walk from a random port on would prefer the first of these.
    fn random_probes(self) -> u32 {
        match self {
            Self::All => RANDOM_PROBES,
            Self::Without(_) => KEPT_BACK * RANDOM_PROBES,
        }
    }
}

fn packed(PortRange { first, last }: PortRange) -> u32 {
    u32::from(first) << 16 | u32::from(last)
}

/// The position of a random set bit; `bits` is not zero.
fn random_bit(bits: u64, random: &mut StdRng) -> u16 {
    let mut remaining = bits;
    for _ in 0..random.random_range(0..bits.count_ones()) {
        remaining &= remaining - 1;
    }
    remaining.trailing_zeros() as u16
}

const RANDOM_PROBES: u32 = 8;
/// One port in this many is kept back for mappings.
const KEPT_BACK: u32 = 4;
/// Ports examined for one that can be shared.
const SHARED_TRIES: u32 = 64;
/// First port that needs no privilege.
const UNPRIVILEGED: u16 = 1024;
/// The even ports of a word.
const EVEN: u64 = 0x5555_5555_5555_5555;

const _: () = assert!(UNPRIVILEGED.is_multiple_of(64));

#[cfg(test)]
mod tests;

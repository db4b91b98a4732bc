//! Fragments: every fragment of a datagram goes where the first fragment went (RFC 4787 REQ-14).
//!
//! Only the first fragment has ports. So the ordinary paths determine the *disposition* of a
//! datagram when its first fragment comes. Later fragments get its addresses and its new
//! identification. Fragments that come before the first one are held until it comes. Nothing is
//! reassembled.
//!
//! ```text
//!   fragment ─▶ overlaps another? ─ yes ─▶ the whole datagram is refused (RFC 1858; RFC 5722 for the reason)
//!                 │ no
//!                 ├─ first fragment ───────▶ ordinary path ─▶ disposition ─▶ resolve: held fragments are released
//!                 ├─ disposition known ────▶ the same addresses
//!                 └─ disposition unknown ──▶ held
//! ```
//!
//! When all fragments of a datagram have passed, the store removes the datagram, so that the next
//! one may have the same identification. For ICMP errors the store keeps the original
//! identification ([`Fragments::original`]).
//!
//! Two workers may have fragments of one datagram at once. A fragment enters the store either
//! before the disposition is stored, or after. Before, the worker with the first fragment releases
//! the fragment; after, the fragment's own worker sends it. No fragment is lost in between.
//!
//! Bounds:
//! * `limits.fragments` datagrams and [`MAX_HELD_BYTES`] of held fragments at one time;
//! * one [`SHARE`]th of each for one source;
//! * [`MAX_FRAGMENTS`] fragments a datagram;
//! * `timeouts.fragment` for each datagram, from its first arrival.
//!
//! When a bound is reached, the store admits the new datagram and evicts another: one of the same
//! source if the source has its share, else one of all if the store is full. Datagrams whose first
//! fragment was not sent on go first, then the others, each kind by age. So a source harms itself
//! alone. Many spoofed sources together evict another host's datagram only if its fragments lie
//! further apart than the flood needs to fill the store. A datagram that comes in order suffers
//! only from a flood of first fragments that pass.
//!
//! One lock guards the store. Packets that are no fragments never take the lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use parking_lot::Mutex;

use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::original_ids::OriginalIds;
use crate::nat::seed::HashKey;
use crate::nat::verdict::DropReason;
use crate::packet::PacketHead;
use crate::time::{Span, Tick};

/// What happened to the first fragment of a datagram, and so happens to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Sent on as this datagram.
    Translated { to: DatagramId, inside: bool },
    /// Passed to the host.
    PassedToHost,
    /// Dropped.
    Dropped(DropReason),
}

/// What the worker must do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Determine the disposition of this first fragment, then call [`Fragments::resolve`].
    First,
    /// Do the same as with the first fragment.
    Resolved(Disposition),
    /// Nothing: the store holds the fragment until the first one comes.
    Held,
    /// Drop the fragment.
    Refused(DropReason),
}

/// Held fragments that were lost, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostFragments {
    /// The first fragment did not come in time.
    pub(crate) expired: Lost,
    /// The store evicted the fragments for others.
    pub(crate) evicted: Lost,
    /// Another fragment of the datagram overlapped one of them.
    pub(crate) refused: Lost,
}

/// Fragments that were lost for one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Number of the fragments.
    pub(crate) count: u64,
    /// The last [`LOST_HEADS`] of them, in order.
    pub(crate) heads: Vec<PacketHead>,
}

impl Lost {
    fn add(&mut self, fragments: &[Box<[u8]>]) {
        self.count += fragments.len() as u64;
        let last = &fragments[fragments.len().saturating_sub(LOST_HEADS)..];
        let excess = (self.heads.len() + last.len()).saturating_sub(LOST_HEADS);
        self.heads.drain(..excess);
        self.heads.extend(last.iter().map(|fragment| PacketHead::of(fragment)));
    }
}

/// The store.
pub(crate) struct Fragments(Mutex<Store>);

struct Store {
    datagrams: HashMap<DatagramId, Datagram, HashKey>,
    /// Every datagram, in the order of eviction.
    by_eviction: BTreeMap<EvictionOrder, DatagramId>,
    /// The same by source.
    by_source: BTreeSet<(Ipv4Addr, EvictionOrder)>,
    usage: HashMap<Ipv4Addr, SourceUsage, HashKey>,
    originals: OriginalIds,
    arrivals: u64,
    held_bytes: usize,
    capacity: usize,
    lifetime: Span,
    lost: LostFragments,
}

/// Position of a datagram in the order of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EvictionOrder {
    /// Whether its first fragment was sent on.
    sent_on: bool,
    /// Number of its first arrival.
    number: u64,
}

/// Usage of the store by one source.
#[derive(Clone, Copy, Debug, Default)]
struct SourceUsage {
    datagrams: usize,
    held_bytes: usize,
}

struct Datagram {
    order: EvictionOrder,
    since: Tick,
    fragments: Vec<FragmentRange>,
    disposition: Option<Disposition>,
    refused: bool,
    held: Vec<Box<[u8]>>,
}

impl Fragments {
    /// Makes a store for `capacity` datagrams, each for at most `lifetime`.
    pub(crate) fn new(capacity: u32, lifetime: Span, key: HashKey) -> Self {
        let capacity = capacity.max(1) as usize;
        Self(Mutex::new(Store {
            datagrams: HashMap::with_hasher(key),
            by_eviction: BTreeMap::new(),
            by_source: BTreeSet::new(),
            usage: HashMap::with_hasher(key),
            originals: OriginalIds::new(capacity, lifetime, key),
            arrivals: 0,
            held_bytes: 0,
            capacity,
            lifetime,
            lost: LostFragments::default(),
        }))
    }

    /// Changes the number of datagrams and their lifetime. Datagrams beyond the number leave when
    /// the next one comes.
    pub(crate) fn set(&self, capacity: u32, lifetime: Span) {
        let mut store = self.0.lock();
        (store.capacity, store.lifetime) = (capacity.max(1) as usize, lifetime);
        let capacity = store.capacity;
        store.originals.set(capacity, lifetime);
    }

    /// Enters a fragment; `bytes` is the packet, which the store keeps if the fragment must wait.
    pub(crate) fn admit(
        &self,
        id: DatagramId,
        fragment: FragmentRange,
        bytes: &[u8],
        now: Tick,
    ) -> Admit {
        let mut store = self.0.lock();
        store.remove_expired(now);
        if !store.datagrams.contains_key(&id) {
            store.make_space(id.source);
            store.enter(id, now);
        }
        let datagram = store.datagrams.get_mut(&id).expect("it was found or entered just above");
        let admit = datagram.judge(fragment);
        match admit {
            Admit::Refused(DropReason::FragmentOverlap) if !datagram.refused => {
                datagram.refused = true;
                let held = store.take_held(id);
                store.lost.refused.add(&held);
            }
            Admit::Refused(_) => {}
            Admit::First => datagram.fragments.push(fragment),
            Admit::Resolved(_) => {
                datagram.fragments.push(fragment);
                if datagram.is_complete() {
                    store.remove(id);
                }
            }
            Admit::Held => {
                datagram.fragments.push(fragment);
                store.hold(id, bytes.into());
            }
        }
        admit
    }

    /// Returns what [`Self::admit`] would return, and changes nothing.
    pub(crate) fn would_admit(&self, id: DatagramId, fragment: FragmentRange, now: Tick) -> Admit {
        let store = self.0.lock();
        match store.living(id, now) {
            Some(datagram) => datagram.judge(fragment),
            None if fragment.start == 0 => Admit::First,
            None => Admit::Held,
        }
    }

    /// Returns copies of the fragments that wait for the first one of their datagram.
    pub(crate) fn waiting(&self, id: DatagramId, now: Tick) -> Vec<Box<[u8]>> {
        let store = self.0.lock();
        store.living(id, now).map_or_else(Vec::new, |datagram| datagram.held.clone())
    }

    /// Stores the disposition of a datagram and returns the fragments that waited for it.
    pub(crate) fn resolve(
        &self,
        id: DatagramId,
        disposition: Disposition,
        now: Tick,
    ) -> Vec<Box<[u8]>> {
        let mut store = self.0.lock();
        if let Disposition::Translated { to, .. } = disposition {
            store.originals.note(to, id.identification, now);
        }
        let Some(datagram) = store.datagrams.get_mut(&id) else { return Vec::new() };
        datagram.disposition = Some(disposition);
        let (complete, order) = (datagram.is_complete(), datagram.order);
        datagram.order.sent_on = !matches!(disposition, Disposition::Dropped(_));
        let later = datagram.order;
        store.by_eviction.remove(&order);
        store.by_eviction.insert(later, id);
        store.by_source.remove(&(id.source, order));
        store.by_source.insert((id.source, later));
        let held = store.take_held(id);
        if complete {
            store.remove(id);
        }
        held
    }

    /// Original identification of a datagram that was sent on as `id`, if the store still has it.
    pub(crate) fn original(&self, id: DatagramId) -> Option<u16> {
        self.0.lock().originals.of(id)
    }

    /// Removes datagrams whose time is over. Returns the held fragments that were lost
    /// since the last call.
    pub(crate) fn expire(&self, now: Tick) -> LostFragments {
        let mut store = self.0.lock();
        store.remove_expired(now);
        std::mem::take(&mut store.lost)
    }

    /// Reports whether there is nothing for [`expire`](Self::expire) to do, now or later.
    pub(crate) fn is_empty(&self) -> bool {
        let store = self.0.lock();
        store.datagrams.is_empty() && store.lost == LostFragments::default()
    }
}

impl Store {
    /// A datagram whose time is not over.
    fn living(&self, id: DatagramId, now: Tick) -> Option<&Datagram> {
        let lives = |datagram: &&Datagram| !now.reached(datagram.since.after(self.lifetime));
        self.datagrams.get(&id).filter(lives)
    }

    fn enter(&mut self, id: DatagramId, now: Tick) {
        self.arrivals += 1;
        let order = EvictionOrder { sent_on: false, number: self.arrivals };
        let datagram = Datagram {
            order,
            since: now,
            fragments: Vec::new(),
            disposition: None,
            refused: false,
            held: Vec::new(),
        };
        self.datagrams.insert(id, datagram);
        self.by_eviction.insert(order, id);
        self.by_source.insert((id.source, order));
        self.usage.entry(id.source).or_default().datagrams += 1;
    }

    fn remove_expired(&mut self, now: Tick) {
        for sent_on in [false, true] {
            while let Some((_, id)) =
                self.by_eviction.range(EvictionOrder { sent_on, number: 0 }..).next()
            {
                let (id, datagram) = (*id, &self.datagrams[id]);
                if datagram.order.sent_on != sent_on
                    || !now.reached(datagram.since.after(self.lifetime))
                {
                    break;
                }
                let held = self.remove(id).held;
                self.lost.expired.add(&held);
            }
        }
    }

    /// Evicts until the store can take one more datagram of `source`.
    fn make_space(&mut self, source: Ipv4Addr) {
        let share = (self.capacity / SHARE).max(MIN_SOURCE_SHARE);
        if self.usage.get(&source).is_some_and(|used| used.datagrams >= share) {
            let (_, order) = self
                .by_source
                .range((source, FIRST_EVICTION_ORDER)..)
                .next()
                .expect("it has its share");
            self.evict(*order);
        }
        while self.datagrams.len() >= self.capacity {
            let (order, _) =
                self.by_eviction.first_key_value().expect("each datagram has its order");
            self.evict(*order);
        }
    }

    /// Holds a fragment until the disposition of its datagram is known. Evicts other held fragments
    /// if the bytes do not fit.
    fn hold(&mut self, id: DatagramId, bytes: Box<[u8]>) {
        let own = self.datagrams[&id].order;
        let length = bytes.len();
        while self.usage[&id.source].held_bytes + length > MAX_HELD_BYTES / SHARE {
            let mut others =
                self.by_source.range((id.source, FIRST_EVICTION_ORDER)..).map(|(_, order)| *order);
            self.evict(
                others.find(|order| *order != own).expect("one datagram has less than a share"),
            );
        }
        while self.held_bytes + length > MAX_HELD_BYTES {
            let mut others = self.by_eviction.keys().copied();
            self.evict(others.find(|order| *order != own).expect("one datagram has less than all"));
        }
        self.held_bytes += length;
        self.usage.entry(id.source).or_default().held_bytes += length;
        self.datagrams.get_mut(&id).expect("its own order has not come").held.push(bytes);
    }

    fn evict(&mut self, order: EvictionOrder) {
        let id = self.by_eviction[&order];
        let held = self.remove(id).held;
        self.lost.evicted.add(&held);
    }

    fn remove(&mut self, id: DatagramId) -> Datagram {
        let held = self.take_held(id);
        let mut datagram = self.datagrams.remove(&id).expect("the caller found it");
        self.by_eviction.remove(&datagram.order);
        self.by_source.remove(&(id.source, datagram.order));
        let used = self.usage.get_mut(&id.source).expect("it held this datagram");
        used.datagrams -= 1;
        if used.datagrams == 0 {
            self.usage.remove(&id.source);
        }
        datagram.held = held;
        datagram
    }

    fn take_held(&mut self, id: DatagramId) -> Vec<Box<[u8]>> {
        let datagram = self.datagrams.get_mut(&id).expect("the caller found it");
        let held = std::mem::take(&mut datagram.held);
        let bytes: usize = held.iter().map(|fragment| fragment.len()).sum();
        self.held_bytes -= bytes;
        self.usage.get_mut(&id.source).expect("it holds this datagram").held_bytes -= bytes;
        held
    }
}

impl Datagram {
    /// What the worker must do with a further fragment.
    fn judge(&self, fragment: FragmentRange) -> Admit {
        if self.refused {
            return Admit::Refused(DropReason::FragmentOverlap);
        }
        if self.fragments.contains(&fragment) {
            // A repeated fragment does no harm, and once is enough.
            return Admit::Refused(DropReason::FragmentDuplicate);
        }
        if self.fragments.len() == MAX_FRAGMENTS || self.contradicts(fragment) {
            return Admit::Refused(DropReason::FragmentOverlap);
        }
        match self.disposition {
            _ if fragment.start == 0 => Admit::First,
            Some(disposition) => Admit::Resolved(disposition),
            None => Admit::Held,
        }
    }

    /// Whether a fragment overlaps another, or contradicts another about the end of the datagram.
    fn contradicts(&self, fragment: FragmentRange) -> bool {
        self.fragments.iter().any(|other| {
            let overlaps = fragment.start < other.end && other.start < fragment.end;
            let beyond = |last: &FragmentRange, any: &FragmentRange| {
                !last.more && (any.end > last.end || !any.more)
            };
            overlaps || beyond(other, &fragment) || beyond(&fragment, other)
        })
    }

    /// Whether every byte has come. Fragments never overlap, so the sum of their lengths decides.
    fn is_complete(&self) -> bool {
        let last = self.fragments.iter().find(|fragment| !fragment.more);
        last.is_some_and(|last| {
            self.fragments.iter().map(|fragment| fragment.end - fragment.start).sum::<u32>()
                == last.end
        })
    }
}

/// Bytes of fragments that wait for their first one, over all datagrams.
const MAX_HELD_BYTES: usize = 4 << 20;
/// Fragments of one datagram: 64 KiB in fragments of 512 bytes.
const MAX_FRAGMENTS: usize = 128;
/// Lost fragments of which the store keeps the heads, for each cause.
const LOST_HEADS: usize = 16;
/// One source has at most one part in this many of the datagrams and of the held bytes.
const SHARE: usize = 8;
/// Datagrams that a source may have however small the store is, if the store is not full.
const MIN_SOURCE_SHARE: usize = 16;
const FIRST_EVICTION_ORDER: EvictionOrder = EvictionOrder { sent_on: false, number: 0 };

// The fragments of one datagram do not overlap and end by 65,535; each comes with a header of at
// most 60 bytes. With one more, of any length, they still fit.
const _: () = assert!(2 * 65_535 + MAX_FRAGMENTS * 60 <= MAX_HELD_BYTES / SHARE);

#[cfg(test)]
mod tests;

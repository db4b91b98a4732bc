//! Fragments: every piece of a datagram goes where its first piece went (RFC 4787 REQ-14).
//!
//! Only the first piece has ports. So a datagram's *fate* is decided when the first piece comes, by the ordinary
//! paths; later pieces get its addresses and its new identification, and pieces that come before it are held until it
//! does. Nothing is reassembled.
//!
//! ```text
//!   piece ─▶ overlaps another? ─ yes ─▶ the whole datagram is refused (RFC 1858; RFC 5722 for the reason)
//!              │ no
//!              ├─ first piece ─▶ ordinary path ─▶ fate ─▶ settle: held pieces are released
//!              ├─ fate known ──▶ the same addresses
//!              └─ fate unknown ─▶ held
//! ```
//!
//! A datagram is forgotten once all its pieces have passed, so that its name is free for the next one; what is kept
//! for ICMP errors about it is the number that it had come with ([`Fragments::original`]).
//!
//! Two workers may have pieces of one datagram at once. A piece is either entered before the fate is written down, and
//! then released by the worker with the first piece, or after that, and then goes on by itself: none is lost between.
//!
//! Bounds: `limits.fragments` datagrams and [`MAX_HELD_BYTES`] of held pieces at one time, one [`SHARE`]th of each for
//! one source, [`MAX_FRAGMENTS`] pieces a datagram, `timeouts.fragment` for each from its first arrival. Where room is
//! short, the newcomer is let in and another goes: of the source that has its share, or of all when the store is full.
//! Datagrams whose first piece was not sent on go first, then the others, each kind by age. So a source hurts itself
//! alone; spoofed ones together cost another's datagram only if its pieces lie further apart than the flood needs to
//! fill the store, and one that comes in order not even then unless the flood is of first pieces that pass. All of it
//! sits behind one lock that packets in one piece never touch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use parking_lot::Mutex;

use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::original_ids::OriginalIds;
use crate::nat::seed::HashKey;
use crate::nat::verdict::DropReason;
use crate::time::{Span, Tick};

/// What became of a datagram's first piece, and so becomes of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Sent on under this name.
    Translated { to: DatagramId, inside: bool },
    /// Handed back to the host.
    PassedToHost,
    /// Dropped.
    Dropped(DropReason),
}

/// What to do with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// It is the first piece: find out its fate, then [`Fragments::resolve`].
    First,
    /// The same as with the first piece.
    Known(Disposition),
    /// It is held until the first piece comes.
    Held,
    /// Drop it.
    Refused(DropReason),
}

/// Held pieces that were given up, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostFragments {
    /// Their first piece did not come in time.
    pub(crate) expired: u64,
    /// They had to make room.
    pub(crate) evicted: u64,
    /// Another piece of their datagram contradicted one of them.
    pub(crate) refused: u64,
}

/// The store.
pub(crate) struct Fragments(Mutex<Store>);

struct Store {
    datagrams: HashMap<DatagramId, Datagram, HashKey>,
    /// Every datagram, in the order in which they go when room is needed.
    turns: BTreeMap<EvictionOrder, DatagramId>,
    /// The same by source.
    turns_of: BTreeSet<(Ipv4Addr, EvictionOrder)>,
    holdings: HashMap<Ipv4Addr, SourceUsage, HashKey>,
    originals: OriginalIds,
    arrivals: u64,
    held_bytes: usize,
    capacity: usize,
    lifetime: Span,
    lost: LostFragments,
}

/// When it is a datagram's turn to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EvictionOrder {
    /// Its first piece was sent on.
    sent_on: bool,
    /// Number of its first arrival.
    number: u64,
}

/// What one source has in the store.
#[derive(Clone, Copy, Debug, Default)]
struct SourceUsage {
    datagrams: usize,
    held_bytes: usize,
}

struct Datagram {
    turn: EvictionOrder,
    since: Tick,
    pieces: Vec<FragmentRange>,
    fate: Option<Disposition>,
    refused: bool,
    held: Vec<Box<[u8]>>,
}

impl Fragments {
    /// Room for `capacity` datagrams, each for at most `lifetime`.
    pub(crate) fn new(capacity: u32, lifetime: Span, key: HashKey) -> Self {
        let capacity = capacity.max(1) as usize;
        Self(Mutex::new(Store {
            datagrams: HashMap::with_hasher(key),
            turns: BTreeMap::new(),
            turns_of: BTreeSet::new(),
            holdings: HashMap::with_hasher(key),
            originals: OriginalIds::new(capacity, lifetime, key),
            arrivals: 0,
            held_bytes: 0,
            capacity,
            lifetime,
            lost: LostFragments::default(),
        }))
    }

    /// Takes note of a piece; `bytes` is the packet, kept if it must wait.
    pub(crate) fn admit(
        &self,
        name: DatagramId,
        piece: FragmentRange,
        bytes: &[u8],
        now: Tick,
    ) -> Admit {
        let mut store = self.0.lock();
        store.forget_expired(now);
        if !store.datagrams.contains_key(&name) {
            store.make_room(name.source);
            store.enter(name, now);
        }
        let datagram = store.datagrams.get_mut(&name).expect("it was found or entered just above");
        if datagram.refused {
            return Admit::Refused(DropReason::FragmentOverlap);
        }
        if datagram.pieces.contains(&piece) {
            // The same piece twice does no harm, and once is enough.
            return Admit::Refused(DropReason::FragmentDuplicate);
        }
        if datagram.pieces.len() == MAX_FRAGMENTS || datagram.contradicts(piece) {
            datagram.refused = true;
            store.lost.refused += store.take_held(name).len() as u64;
            return Admit::Refused(DropReason::FragmentOverlap);
        }
        datagram.pieces.push(piece);
        if piece.start == 0 {
            return Admit::First;
        }
        if let Some(fate) = datagram.fate {
            if datagram.is_complete() {
                store.remove(name);
            }
            return Admit::Known(fate);
        }
        store.hold(name, bytes.into());
        Admit::Held
    }

    /// Writes down a datagram's fate; returns the pieces that waited for it.
    pub(crate) fn resolve(&self, name: DatagramId, fate: Disposition, now: Tick) -> Vec<Box<[u8]>> {
        let mut store = self.0.lock();
        if let Disposition::Translated { to, .. } = fate {
            store.originals.note(to, name.identification, now);
        }
        let Some(datagram) = store.datagrams.get_mut(&name) else { return Vec::new() };
        datagram.fate = Some(fate);
        let (complete, turn) = (datagram.is_complete(), datagram.turn);
        datagram.turn.sent_on = !matches!(fate, Disposition::Dropped(_));
        let later = datagram.turn;
        store.turns.remove(&turn);
        store.turns.insert(later, name);
        store.turns_of.remove(&(name.source, turn));
        store.turns_of.insert((name.source, later));
        let held = store.take_held(name);
        if complete {
            store.remove(name);
        }
        held
    }

    /// The identification that a datagram had come with which was sent on under this name, if that is still known.
    pub(crate) fn original(&self, name: DatagramId) -> Option<u16> {
        self.0.lock().originals.of(name)
    }

    /// Forgets what is too old, and tells which held pieces were lost since the last call.
    pub(crate) fn expire(&self, now: Tick) -> LostFragments {
        let mut store = self.0.lock();
        store.forget_expired(now);
        std::mem::take(&mut store.lost)
    }
}

impl Store {
    fn enter(&mut self, name: DatagramId, now: Tick) {
        self.arrivals += 1;
        let turn = EvictionOrder { sent_on: false, number: self.arrivals };
        let datagram = Datagram {
            turn,
            since: now,
            pieces: Vec::new(),
            fate: None,
            refused: false,
            held: Vec::new(),
        };
        self.datagrams.insert(name, datagram);
        self.turns.insert(turn, name);
        self.turns_of.insert((name.source, turn));
        self.holdings.entry(name.source).or_default().datagrams += 1;
    }

    fn forget_expired(&mut self, now: Tick) {
        for sent_on in [false, true] {
            while let Some((_, name)) =
                self.turns.range(EvictionOrder { sent_on, number: 0 }..).next()
            {
                let (name, datagram) = (*name, &self.datagrams[name]);
                if datagram.turn.sent_on != sent_on
                    || !now.reached(datagram.since.after(self.lifetime))
                {
                    break;
                }
                self.lost.expired += self.remove(name).held.len() as u64;
            }
        }
    }

    /// Makes room for one more datagram of `source`.
    fn make_room(&mut self, source: Ipv4Addr) {
        let share = (self.capacity / SHARE).max(MIN_SOURCE_SHARE);
        if self.holdings.get(&source).is_some_and(|holding| holding.datagrams >= share) {
            let (_, turn) = self
                .turns_of
                .range((source, FIRST_EVICTION_ORDER)..)
                .next()
                .expect("it has its share");
            self.evict(*turn);
        }
        while self.datagrams.len() >= self.capacity {
            let (turn, _) = self.turns.first_key_value().expect("as many as there are datagrams");
            self.evict(*turn);
        }
    }

    /// Keeps a piece until its datagram's fate is known; others that wait make room for it.
    fn hold(&mut self, name: DatagramId, bytes: Box<[u8]>) {
        let own = self.datagrams[&name].turn;
        let length = bytes.len();
        while self.holdings[&name.source].held_bytes + length > MAX_HELD_BYTES / SHARE {
            let mut others =
                self.turns_of.range((name.source, FIRST_EVICTION_ORDER)..).map(|(_, turn)| *turn);
            self.evict(
                others.find(|turn| *turn != own).expect("one datagram has less than a share"),
            );
        }
        while self.held_bytes + length > MAX_HELD_BYTES {
            let mut others = self.turns.keys().copied();
            self.evict(others.find(|turn| *turn != own).expect("one datagram has less than all"));
        }
        self.held_bytes += length;
        self.holdings.entry(name.source).or_default().held_bytes += length;
        self.datagrams.get_mut(&name).expect("its own turn has not come").held.push(bytes);
    }

    fn evict(&mut self, turn: EvictionOrder) {
        let name = self.turns[&turn];
        self.lost.evicted += self.remove(name).held.len() as u64;
    }

    fn remove(&mut self, name: DatagramId) -> Datagram {
        let held = self.take_held(name);
        let mut datagram = self.datagrams.remove(&name).expect("the caller found it");
        self.turns.remove(&datagram.turn);
        self.turns_of.remove(&(name.source, datagram.turn));
        let holding = self.holdings.get_mut(&name.source).expect("it held this datagram");
        holding.datagrams -= 1;
        if holding.datagrams == 0 {
            self.holdings.remove(&name.source);
        }
        datagram.held = held;
        datagram
    }

    fn take_held(&mut self, name: DatagramId) -> Vec<Box<[u8]>> {
        let datagram = self.datagrams.get_mut(&name).expect("the caller found it");
        let held = std::mem::take(&mut datagram.held);
        let bytes: usize = held.iter().map(|piece| piece.len()).sum();
        self.held_bytes -= bytes;
        self.holdings.get_mut(&name.source).expect("it holds this datagram").held_bytes -= bytes;
        held
    }
}

impl Datagram {
    /// Whether a piece overlaps another, or disagrees about where the datagram ends.
    fn contradicts(&self, piece: FragmentRange) -> bool {
        self.pieces.iter().any(|other| {
            let overlaps = piece.start < other.end && other.start < piece.end;
            let beyond = |last: &FragmentRange, any: &FragmentRange| {
                !last.more && (any.end > last.end || !any.more)
            };
            overlaps || beyond(other, &piece) || beyond(&piece, other)
        })
    }

    /// Whether every byte has been seen; pieces never overlap, so lengths tell.
    fn is_complete(&self) -> bool {
        let last = self.pieces.iter().find(|piece| !piece.more);
        last.is_some_and(|last| {
            self.pieces.iter().map(|piece| piece.end - piece.start).sum::<u32>() == last.end
        })
    }
}

/// Bytes of pieces that wait for their first one, over all datagrams.
const MAX_HELD_BYTES: usize = 4 << 20;
/// Pieces of one datagram: 64 KiB in pieces of 512 bytes.
const MAX_FRAGMENTS: usize = 128;
/// One source has at most this part of the datagrams and of the held bytes.
const SHARE: usize = 8;
/// Datagrams that a source may have however small the store is, if there is room.
const MIN_SOURCE_SHARE: usize = 16;
const FIRST_EVICTION_ORDER: EvictionOrder = EvictionOrder { sent_on: false, number: 0 };

/// The pieces of one datagram do not overlap and end by 65,535; each comes with a header of at most 60 bytes. With one
/// more, of any length, they still fit.
const _: () = assert!(2 * 65_535 + MAX_FRAGMENTS * 60 <= MAX_HELD_BYTES / SHARE);

#[cfg(test)]
mod tests;

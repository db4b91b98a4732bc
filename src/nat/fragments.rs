//! Fragments: every piece of a datagram goes where its first piece went (RFC 4787 REQ-14).
//!
//! Only the first piece has ports. So a datagram's *fate* is decided when the first piece comes, by the ordinary
//! paths; later pieces get its addresses, and pieces that come before it are held until it does. Nothing is
//! reassembled.
//!
//! ```text
//!   piece ─▶ overlaps another? ─ yes ─▶ the whole datagram is refused (RFC 1858; RFC 5722 for the reason)
//!              │ no
//!              ├─ first piece ─▶ ordinary path ─▶ fate ─▶ settle: held pieces are released
//!              ├─ fate known ──▶ the same addresses
//!              └─ fate unknown ─▶ held
//! ```
//!
//! Bounds: `limits.fragments` datagrams and [`MAX_HELD_BYTES`] of held pieces at one time, [`MAX_PIECES`] pieces a
//! datagram, `timeouts.fragment` for each from its first arrival. When the store is full the oldest datagram goes: a
//! flood of incomplete ones then costs a real datagram only if its pieces lie further apart than the flood fills
//! the store. All of it sits behind one lock that packets in one piece never touch.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::net::Ipv4Addr;

use parking_lot::Mutex;

use crate::packet::Protocol;
use crate::time::{Span, Tick};

use super::verdict::DropReason;

/// What the pieces of one datagram share (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DatagramName {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) identification: u16,
}

/// Where a piece lies in its datagram: bytes `start..end`, and whether more follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) more: bool,
}

/// What became of a datagram's first piece, and so becomes of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Translated to these addresses.
    Translated { source: Ipv4Addr, destination: Ipv4Addr, inside: bool },
    /// Handed back to the host.
    HandedBack,
    /// Dropped.
    Dropped(DropReason),
}

/// What to do with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is the first piece: find out its fate, then [`Fragments::settle`].
    First,
    /// The same as with the first piece.
    Known(Fate),
    /// It is held until the first piece comes.
    Held,
    /// Drop it.
    Refused(DropReason),
}

/// The store.
pub(super) struct Fragments(Mutex<Store>);

struct Store {
    datagrams: HashMap<DatagramName, Datagram, RandomState>,
    /// In order of arrival; an entry whose number no longer fits its datagram is void.
    order: VecDeque<(u64, DatagramName)>,
    arrivals: u64,
    held_bytes: usize,
    capacity: usize,
    lifetime: Span,
    lost: u64,
}

struct Datagram {
    number: u64,
    since: Tick,
    pieces: Vec<Piece>,
    fate: Option<Fate>,
    refused: bool,
    held: Vec<Box<[u8]>>,
}

impl Fragments {
    /// Room for `capacity` datagrams, each for at most `lifetime`.
    pub(super) fn new(capacity: u32, lifetime: Span) -> Self {
        let capacity = capacity.max(1) as usize;
        Self(Mutex::new(Store {
            datagrams: HashMap::default(),
            order: VecDeque::new(),
            arrivals: 0,
            held_bytes: 0,
            capacity,
            lifetime,
            lost: 0,
        }))
    }

    /// Takes note of a piece; `bytes` is the packet, kept if it must wait.
    pub(super) fn admit(&self, name: DatagramName, piece: Piece, bytes: &[u8], now: Tick) -> Admission {
        let mut store = self.0.lock();
        store.forget_old(now);
        if !store.datagrams.contains_key(&name) {
            store.make_room();
            store.enter(name, now);
        }
        let held_bytes = store.held_bytes;
        let datagram = store.datagrams.get_mut(&name).expect("it was found or entered just above");
        if datagram.refused {
            return Admission::Refused(DropReason::FragmentRefused);
        }
        if datagram.pieces.contains(&piece) {
            // The same piece twice does no harm, and once is enough.
            return Admission::Refused(DropReason::FragmentDuplicate);
        }
        if datagram.pieces.len() == MAX_PIECES || datagram.contradicts(piece) {
            datagram.refused = true;
            let held = std::mem::take(&mut datagram.held);
            store.drop_held(&held);
            return Admission::Refused(DropReason::FragmentRefused);
        }
        datagram.pieces.push(piece);
        if piece.start == 0 {
            return Admission::First;
        }
        if let Some(fate) = datagram.fate {
            if datagram.is_complete() {
                store.datagrams.remove(&name);
            }
            return Admission::Known(fate);
        }
        if held_bytes + bytes.len() > MAX_HELD_BYTES {
            datagram.pieces.pop();
            return Admission::Refused(DropReason::FragmentsFull);
        }
        datagram.held.push(bytes.into());
        store.held_bytes += bytes.len();
        Admission::Held
    }

    /// Writes down a datagram's fate; returns the pieces that waited for it.
    pub(super) fn settle(&self, name: DatagramName, fate: Fate) -> Vec<Box<[u8]>> {
        let mut store = self.0.lock();
        let Some(datagram) = store.datagrams.get_mut(&name) else { return Vec::new() };
        datagram.fate = Some(fate);
        let held = std::mem::take(&mut datagram.held);
        if datagram.is_complete() {
            store.datagrams.remove(&name);
        }
        store.held_bytes -= held.iter().map(|piece| piece.len()).sum::<usize>();
        held
    }

    /// Forgets what is too old, and tells how many held pieces were lost since the last call.
    pub(super) fn expire(&self, now: Tick) -> u64 {
        let mut store = self.0.lock();
        store.forget_old(now);
        std::mem::take(&mut store.lost)
    }
}

impl Store {
    fn enter(&mut self, name: DatagramName, now: Tick) {
        self.arrivals += 1;
        let datagram = Datagram {
            number: self.arrivals,
            since: now,
            pieces: Vec::new(),
            fate: None,
            refused: false,
            held: Vec::new(),
        };
        self.datagrams.insert(name, datagram);
        self.order.push_back((self.arrivals, name));
    }

    fn forget_old(&mut self, now: Tick) {
        while let Some((number, name)) = self.order.front().copied() {
            let current = self.datagrams.get(&name).filter(|datagram| datagram.number == number);
            if current.is_some_and(|datagram| !now.reached(datagram.since.after(self.lifetime))) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn make_room(&mut self) {
        while self.datagrams.len() >= self.capacity {
            self.forget_oldest();
        }
        // Completed datagrams leave void entries behind; they go once they outnumber the others.
        if self.order.len() > 2 * self.capacity + 16 {
            let datagrams = &self.datagrams;
            self.order
                .retain(|(number, name)| datagrams.get(name).is_some_and(|live| live.number == *number));
        }
    }

    fn forget_oldest(&mut self) {
        let Some((number, name)) = self.order.pop_front() else { return };
        if self.datagrams.get(&name).is_some_and(|datagram| datagram.number == number)
            && let Some(datagram) = self.datagrams.remove(&name)
        {
            self.drop_held(&datagram.held);
        }
    }

    fn drop_held(&mut self, held: &[Box<[u8]>]) {
        self.held_bytes -= held.iter().map(|piece| piece.len()).sum::<usize>();
        self.lost += held.len() as u64;
    }
}

impl Datagram {
    /// Whether a piece overlaps another, or disagrees about where the datagram ends.
    fn contradicts(&self, piece: Piece) -> bool {
        self.pieces.iter().any(|other| {
            let overlaps = piece.start < other.end && other.start < piece.end;
            let beyond = |last: &Piece, any: &Piece| !last.more && (any.end > last.end || !any.more);
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
const MAX_PIECES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1000);
    const FATE: Fate = Fate::HandedBack;

    fn name(identification: u16) -> DatagramName {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        DatagramName { source: address, destination: address, protocol: Protocol::UDP, identification }
    }

    fn store(capacity: u32) -> Fragments {
        Fragments::new(capacity, Span::seconds(15))
    }

    fn piece(start: u32, end: u32, more: bool) -> Piece {
        Piece { start, end, more }
    }

    const PIECES: [(u32, u32, bool); 3] = [(0, 8, true), (8, 16, true), (16, 20, false)];

    #[test]
    fn pieces_in_any_order_share_the_fate_of_the_first_and_leave_nothing_behind() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let store = store(10);
            let mut passed = 0;
            for index in order {
                let (start, end, more) = PIECES[index];
                match store.admit(name(1), piece(start, end, more), &[index as u8], NOW) {
                    Admission::First => passed += 1 + store.settle(name(1), FATE).len(),
                    Admission::Known(FATE) => passed += 1,
                    Admission::Held => {}
                    other @ (Admission::Known(_) | Admission::Refused(_)) => panic!("{other:?}"),
                }
            }
            assert_eq!(passed, 3, "{order:?}");
            let inner = store.0.lock();
            assert_eq!((inner.datagrams.len(), inner.held_bytes, inner.lost), (0, 0, 0));
        }
    }

    #[test]
    fn an_overlap_refuses_the_whole_datagram_and_a_repeat_only_itself() {
        for bad in [piece(12, 24, true), piece(0, 16, true), piece(8, 12, true), piece(24, 32, false)] {
            let store = store(10);
            store.admit(name(1), piece(8, 16, true), b"a", NOW);
            store.admit(name(1), piece(16, 20, false), b"b", NOW);
            assert_eq!(
                store.admit(name(1), piece(8, 16, true), b"a", NOW),
                Admission::Refused(DropReason::FragmentDuplicate)
            );
            assert_eq!(
                store.admit(name(1), bad, b"c", NOW),
                Admission::Refused(DropReason::FragmentRefused),
                "{bad:?}"
            );
            assert_eq!(
                store.admit(name(1), piece(0, 8, true), b"d", NOW),
                Admission::Refused(DropReason::FragmentRefused)
            );
            assert_eq!(store.0.lock().held_bytes, 0);
            assert_eq!(store.expire(NOW), 2);
        }
    }

    #[test]
    fn incomplete_datagrams_end_with_their_time_and_their_name_is_free_again() {
        let store = store(10);
        store.admit(name(1), piece(8, 16, true), b"a", NOW);
        assert_eq!(store.expire(NOW.after(Span(14_999))), 0);
        assert_eq!(store.expire(NOW.after(Span(15_000))), 1);
        assert_eq!(store.admit(name(1), piece(0, 12, true), b"b", NOW.after(Span(15_001))), Admission::First);
    }

    #[test]
    fn a_flood_costs_only_its_own_bound() {
        let store = store(100);
        for round in 0..1000u16 {
            for number in 0..50 {
                let flood = name(1000 + (round % 50) * 50 + number);
                store.admit(flood, piece(8, 1448, true), &[0; 1460], NOW.after(Span(u32::from(round))));
            }
            assert_eq!(store.admit(name(1), piece(0, 8, true), b"a", NOW), Admission::First);
            store.settle(name(1), FATE);
            assert_eq!(store.admit(name(1), piece(8, 9, false), b"a", NOW), Admission::Known(FATE));
            let inner = store.0.lock();
            assert!(
                inner.datagrams.len() <= 100
                    && inner.order.len() <= 300
                    && inner.held_bytes <= MAX_HELD_BYTES
            );
        }
    }

    #[test]
    fn a_datagram_in_too_many_pieces_is_refused() {
        let store = store(10);
        store.admit(name(1), piece(0, 8, true), b"a", NOW);
        for number in 1..MAX_PIECES as u32 {
            store.admit(name(1), piece(number * 8, number * 8 + 8, true), b"a", NOW);
        }
        let more = piece(MAX_PIECES as u32 * 8, MAX_PIECES as u32 * 8 + 8, true);
        assert_eq!(store.admit(name(1), more, b"a", NOW), Admission::Refused(DropReason::FragmentRefused));
    }
}

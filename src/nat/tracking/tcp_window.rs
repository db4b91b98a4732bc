//! Window tracking: the position of a segment relative to the sequence numbers of both sides.
//!
//! For each direction D a record holds the sequence number after the last byte that D sent, the
//! highest acknowledgement that D sent, and the largest window that D advertised. With these
//! numbers:
//! * A segment of D is the *next expected* one when its sequence number is the other side's last
//!   acknowledgement, or the number that D would send next.
//! * A segment is *in the window* when it lies at most one window before or after the other side's
//!   acknowledgement.
//! * A segment other than SYN and RST must acknowledge what the other side sent, give or take a
//!   window (RFC 5961 section 5). The first acknowledgement and that of a FIN must not be less.
//! * A FIN must come after all that D has sent.
//!
//! natbox drops no segment for its position (see [`crate::nat::tracking::tcp_state`]), so the
//! window may be generous. The window must keep out guesses from off the path.
//!
//! The record remembers a SYN outside the window. If the other side acknowledges that very SYN,
//! both sides begin again, and the segment *reopens* the connection. A host that still has the old
//! connection sends a plain ACK (RFC 5961 section 4.2).
//!
//! The window word of a record holds for each direction:
//!
//! * a nibble of scale; 15: no segment of that direction received yet;
//! * a nibble for the logarithm of the largest window;
//! * a bit that says whether the direction has acknowledged anything.
//!
//! The rest describes the last SYN outside the window: its direction, and the low 13 bits of the
//! sequence number after it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::tcp_state::SequenceCheck;
use crate::packet::TcpFlags;

/// TCP fields of a record, indexed by [`Direction::number`].
#[repr(C)]
pub(crate) struct TcpFields {
    /// Sequence number after the last byte that the direction sent.
    pub(crate) next_sequence: [AtomicU32; 2],
    /// Highest acknowledgement that the direction sent.
    pub(crate) acknowledged: [AtomicU32; 2],
    /// Window word; see [`crate::nat::tracking::tcp_window`].
    pub(crate) window: AtomicU32,
}

/// Fields of a TCP segment that tracking uses.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Flags.
    pub flags: TcpFlags,
    /// First sequence number.
    pub sequence: u32,
    /// Acknowledgement number; meaningful when the ACK flag is set.
    pub acknowledgement: u32,
    /// Window as written in the header, unscaled.
    pub window: u16,
    /// Bytes of payload.
    pub payload: u32,
    /// Window scale option of a SYN.
    pub scale: Option<u8>,
}

impl Segment {
    /// Sequence number after the segment; SYN and FIN take one each.
    fn end(&self) -> u32 {
        let controls = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        self.sequence.wrapping_add(self.payload).wrapping_add(controls)
    }
}

/// TCP fields of a session as plain values, indexed by [`Direction::number`]. The values restore
/// the fields exactly; [`Self::sequences`] interprets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpSnapshot {
    /// Sequence number after the last byte that the direction sent; 0 before its first segment.
    pub next_sequence: [u32; 2],
    /// Highest acknowledgement that the direction sent, or the least that it may send first.
    pub acknowledged: [u32; 2],
    /// Window word: scales, largest windows, and the last SYN outside the window.
    pub window: u32,
}

/// Sequence numbers of a connection, indexed by [`Direction::number`]; None: no segment yet.
#[derive(Clone, Copy, Debug)]
pub struct TcpSequences {
    /// Sequence number after the last byte that the direction sent.
    pub next: [Option<u32>; 2],
    /// Highest acknowledgement that the direction sent.
    pub acknowledged: [Option<u32>; 2],
}

impl TcpSnapshot {
    /// Sequence numbers of the received segments.
    pub fn sequences(&self) -> TcpSequences {
        let next = |own| (scale(self.window, own) != UNSEEN).then_some(self.next_sequence[own]);
        let acknowledged =
            |own| has_acknowledged(self.window, own).then_some(self.acknowledged[own]);
        TcpSequences { next: [next(0), next(1)], acknowledged: [acknowledged(0), acknowledged(1)] }
    }
}

impl TcpFields {
    /// Copies the fields.
    pub(crate) fn snapshot(&self) -> TcpSnapshot {
        let load = |fields: &[AtomicU32; 2]| [fields[0].load(Relaxed), fields[1].load(Relaxed)];
        TcpSnapshot {
            next_sequence: load(&self.next_sequence),
            acknowledged: load(&self.acknowledged),
            window: self.window.load(Relaxed),
        }
    }

    /// Sets the fields to those of a snapshot.
    pub(crate) fn restore(&self, snapshot: &TcpSnapshot) {
        for number in 0..2 {
            self.next_sequence[number].store(snapshot.next_sequence[number], Relaxed);
            self.acknowledged[number].store(snapshot.acknowledged[number], Relaxed);
        }
        self.window.store(snapshot.window, Relaxed);
    }

    /// Resets both directions: no segment received.
    pub(crate) fn reset(&self) {
        for number in 0..2 {
            self.next_sequence[number].store(0, Relaxed);
            self.acknowledged[number].store(0, Relaxed);
        }
        self.window.store(UNSEEN | UNSEEN << 4, Relaxed);
    }

    /// Resets a direction that begins again: no segment received, and nothing of it acknowledged.
    pub(crate) fn reset_direction(&self, direction: Direction) {
        let (own, other) = (direction.number(), direction.opposite().number());
        let window = self.window.load(Relaxed) & !(1 << (16 + other));
        self.window.store(window | UNSEEN << (4 * own), Relaxed);
    }

    /// Determines the position of a segment of `direction`.
    #[inline]
    pub(crate) fn check(&self, direction: Direction, segment: &Segment) -> SequenceCheck {
        let window = self.window.load(Relaxed);
        let (own, other) = (direction.number(), direction.opposite().number());
        let own_seen = scale(window, own) != UNSEEN;
        let own_next = self.next_sequence[own].load(Relaxed);
        if !segment.flags.syn() && !segment.flags.rst() {
            let is_late_fin = segment.flags.fin() && own_seen && later(own_next, segment.end());
            if is_late_fin || !self.is_acknowledgement(window, direction, segment) {
                return SequenceCheck::OutOfWindow;
            }
        }
        let other_acknowledged = has_acknowledged(window, other);
        let acknowledged = self.acknowledged[other].load(Relaxed);
        if own_seen && segment.sequence == own_next
            || other_acknowledged && segment.sequence == acknowledged
        {
            return SequenceCheck::NextExpected;
        }
        let (edge, reach) = match (other_acknowledged, own_seen) {
            (true, _) => (acknowledged, largest_window(window, other)),
            (false, true) => (own_next, MIN_WINDOW),
            (false, false) => return SequenceCheck::InWindow,
        };
        let distance = segment.sequence.wrapping_sub(edge) as i32;
        if distance.unsigned_abs() <= reach {
            SequenceCheck::InWindow
        } else if segment.flags.syn()
            && segment.flags.ack()
            && window >> SYN_MARK == mark(direction.opposite(), segment.acknowledgement)
        {
            SequenceCheck::Reopened
        } else {
            SequenceCheck::OutOfWindow
        }
    }

    /// Whether a segment acknowledges what the other side may have sent. Segments with old
    /// acknowledgements arrive late now and then, but not the first one and not a FIN.
    fn is_acknowledgement(&self, window: u32, direction: Direction, segment: &Segment) -> bool {
        let (own, other) = (direction.number(), direction.opposite().number());
        if !segment.flags.ack() || scale(window, other) == UNSEEN {
            return segment.flags.ack();
        }
        let reach = largest_window(window, own);
        let old = if segment.flags.fin() || !has_acknowledged(window, own) { 0 } else { reach };
        let least = self.acknowledged[own].load(Relaxed).wrapping_sub(old);
        let most = self.next_sequence[other].load(Relaxed).wrapping_add(reach);
        !later(least, segment.acknowledgement) && !later(segment.acknowledgement, most)
    }

    /// Updates the fields by a segment of `direction`. Outside the window, only a SYN has an
    /// effect.
    #[inline]
    pub(crate) fn advance(&self, direction: Direction, segment: &Segment, check: SequenceCheck) {
        if segment.flags.rst() {
            return;
        }
        let window = self.window.load(Relaxed);
        if check == SequenceCheck::OutOfWindow {
            if segment.flags.syn() && !segment.flags.ack() {
                let others = window & ((1 << SYN_MARK) - 1);
                self.window.store(others | mark(direction, segment.end()) << SYN_MARK, Relaxed);
            }
            return;
        }
        let own = direction.number();
        let seen = scale(window, own) != UNSEEN;
        let end = segment.end();
        let next = &self.next_sequence[own];
        if !seen || later(end, next.load(Relaxed)) {
            next.store(end, Relaxed);
        }
        let other = direction.opposite().number();
        if !seen && !has_acknowledged(window, other) {
            // The least that the other side will acknowledge; in mid-stream a window less.
            let unseen = if segment.flags.syn() { 0 } else { MIN_WINDOW };
            let first = segment.sequence.wrapping_add(u32::from(segment.flags.syn()));
            self.acknowledged[other].store(first.wrapping_sub(unseen), Relaxed);
        }
        let acknowledged = &self.acknowledged[own];
        let known = has_acknowledged(window, own);
        if segment.flags.ack()
            && (!known || later(segment.acknowledgement, acknowledged.load(Relaxed)))
        {
            acknowledged.store(segment.acknowledgement, Relaxed);
        }
        let updated = updated_window(window, own, seen, segment);
        if updated != window {
            self.window.store(updated, Relaxed);
        }
    }
}

fn later(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) > 0
}

#[inline]
fn scale(window: u32, number: usize) -> u32 {
    window >> (4 * number) & 15
}

#[inline]
fn has_acknowledged(window: u32, number: usize) -> bool {
    window >> (16 + number) & 1 != 0
}

/// Largest window that a direction advertised, rounded up to a power of two, at least
/// [`MIN_WINDOW`].
#[inline]
fn largest_window(window: u32, number: usize) -> u32 {
    MIN_WINDOW << (window >> (8 + 4 * number) & 15)
}

fn updated_window(window: u32, number: usize, seen: bool, segment: &Segment) -> u32 {
    let known = scale(window, number);
    let shift = if segment.flags.syn() {
        u32::from(segment.scale.unwrap_or(0).min(14))
    } else if seen {
        known
    } else {
        // Adopted in mid-stream: the SYN with the option was not seen. 14 is the most generous
        // value.
        14
    };
    // The window of a SYN is never scaled (RFC 7323 section 2.2).
    let applied = if segment.flags.syn() { 0 } else { shift };
    let bytes = u32::from(segment.window) << applied;
    let magnitude =
        (bytes.div_ceil(MIN_WINDOW).max(1).next_power_of_two().trailing_zeros()).min(15);
    let largest = (window >> (8 + 4 * number) & 15).max(magnitude);
    let cleared = window & !(15 << (4 * number)) & !(15 << (8 + 4 * number));
    let acknowledged = u32::from(segment.flags.ack()) << (16 + number);
    cleared | shift << (4 * number) | largest << (8 + 4 * number) | acknowledged
}

/// Mark of a SYN of `direction` whose next sequence number is `next`.
fn mark(direction: Direction, next: u32) -> u32 {
    (direction.number() as u32) << 13 | next & 0x1fff
}

/// First bit of the remembered SYN in the window word.
const SYN_MARK: u32 = 18;
/// Scale of a direction without a segment so far; shifts end at 14 (RFC 7323 section 2.3).
const UNSEEN: u32 = 15;
/// Least window, in bytes, so that retransmissions and probes around a closed window pass.
const MIN_WINDOW: u32 = 1 << 16;

#[cfg(test)]
mod tests;

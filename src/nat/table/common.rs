//! The part of a session record that does not depend on the address family.
//!
//! [`crate::nat::table::record`] says who may touch what.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::atomic::{AtomicU8, AtomicU16, AtomicU32};
use crate::nat::table::region::plain;
use crate::nat::table::session::{SessionId, SessionKind};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::{SequenceCheck, TcpState};
use crate::nat::tracking::tcp_window::{Segment, TcpFields};
use crate::time::{Span, Tick};

plain! {
    /// Everything of a session but its addresses and ports.
    #[repr(C)]
    pub struct RecordCommon {
        protocol: AtomicU8,
        origin: AtomicU8,
        uplink: AtomicU8,
        state: AtomicU8,
        last_seen: AtomicU32,
        /// Sequence numbers and windows of each direction; see
        /// [`crate::nat::tracking::tcp_window`].
        pub(crate) tcp: TcpFields,
        /// Next and previous record in the list of a slot of the wheel, or of the free records.
        pub(crate) next: AtomicU32,
        pub(crate) previous: AtomicU32,
        /// Slot of the wheel that the record is linked into; [`FREE`] when the record is free,
        /// [`WAITING`] when its adoption waits.
        pub(crate) wheel_slot: AtomicU16,
        /// Number of the sessions that had the record so far, modulo 65,535; 0: none.
        generation: AtomicU16,
    }
}

const _: () = assert!(size_of::<RecordCommon>() == 40);

/// Effect of a packet on its session.
pub(crate) struct RecordChange {
    /// The new state allows less time than the state before, so the record's slot of the wheel is
    /// too late; or the session is closing from now on.
    pub(crate) ends_sooner: bool,
    /// Both ends have taken part from now on; see [`SessionChange::Established`].
    ///
    /// [`SessionChange::Established`]: crate::nat::table::events::SessionChange::Established
    pub(crate) established: bool,
}

impl RecordCommon {
    /// Fills the record of a new session that has been idle for `idle`.
    pub(crate) fn fill(
        &self,
        protocol: u8,
        origin: SessionKind,
        uplink: u8,
        state: State,
        idle: Span,
        now: Tick,
    ) {
        self.protocol.store(protocol, Relaxed);
        self.origin.store(origin.number(), Relaxed);
        self.uplink.store(uplink, Relaxed);
        self.state.store(state.number(), Relaxed);
        self.last_seen.store(now.0.wrapping_sub(idle.0), Relaxed);
        self.tcp.reset();
    }

    /// Starts the next generation. The caller holds the pool's lock, and the record is free.
    pub(crate) fn renew(&self) {
        let next = self.generation.load(Relaxed).checked_add(1).unwrap_or(1);
        self.generation.store(next, Relaxed);
    }

    /// Reports whether the record has a session. The caller holds the pool's lock.
    pub(crate) fn is_live(&self) -> bool {
        self.wheel_slot.load(Relaxed) != FREE && self.generation.load(Relaxed) != 0
    }

    /// Reports whether the adoption of the session waits. The caller holds the pool's lock.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wheel_slot.load(Relaxed) == WAITING
    }

    /// Reports whether a session has the record or had it.
    pub(crate) fn was_used(&self) -> bool {
        self.generation.load(Relaxed) != 0
    }

    /// Reports whether every field has a value that some session has. No packet comes from the
    /// future.
    pub(crate) fn has_possible_values(&self, now: Tick) -> bool {
        self.state().number() == self.state.load(Relaxed)
            && self.origin().number() == self.origin.load(Relaxed)
            && now.reached(self.last_seen())
    }

    /// Identifier of the session that has the record in `slot`. The caller holds the pool's lock or
    /// the shard of one of the record's keys.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> SessionId {
        SessionId::new(slot, self.generation.load(Relaxed))
    }

    #[inline]
    pub(crate) fn protocol(&self) -> u8 {
        self.protocol.load(Relaxed)
    }

    #[inline]
    pub(crate) fn origin(&self) -> SessionKind {
        SessionKind::from_number(self.origin.load(Relaxed))
    }

    #[inline]
    pub(crate) fn uplink(&self) -> u8 {
        self.uplink.load(Relaxed)
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        State::from_number(self.state.load(Relaxed))
    }

    /// Time of the last packet that refreshed the session.
    pub(crate) fn last_seen(&self) -> Tick {
        Tick(self.last_seen.load(Relaxed))
    }

    /// Moment at which the session ends if no further packet comes.
    #[inline]
    pub(crate) fn deadline(&self, idle_timeouts: &IdleTimeouts) -> Tick {
        Tick(self.last_seen.load(Relaxed)).after(idle_timeouts.of(self.state()))
    }

    /// Refreshes the session with a packet and moves the session's state. `is_dns`: whether the
    /// packets of the initiator go to port 53.
    #[inline]
    pub(crate) fn update(
        &self,
        direction: Direction,
        segment: Option<&Segment>,
        now: Tick,
        idle_timeouts: &IdleTimeouts,
        is_dns: impl FnOnce() -> bool,
    ) -> RecordChange {
        let before = self.state();
        let mut refreshes = true;
        let after = match (before, segment) {
            (State::Tcp(state), Some(segment)) => {
                let check = self.tcp.check(direction, segment);
                let next = state.after(direction, segment.flags, check);
                let reopens = check == SequenceCheck::Reopened
                    || matches!(next, TcpState::SynOriginal | TcpState::SynReply);
                let accepted = if segment.flags.syn() && state.is_opening() {
                    // Another attempt has other numbers, and a reply to an old SYN had wrong ones.
                    self.tcp.reset_direction(direction);
                    SequenceCheck::InWindow
                } else if next != state && reopens {
                    self.tcp.reset();
                    SequenceCheck::InWindow
                } else {
                    check
                };
                self.tcp.advance(direction, segment, accepted);
                // A reset that changes nothing is a guess, or replies to a stray segment (RFC 7857
                // section 7.1).
                refreshes = !segment.flags.rst() || next != state;
                State::Tcp(next)
            }
            (State::Udp | State::DnsReplied | State::Tentative, _) => {
                refreshes = idle_timeouts.inbound_refresh()
                    || !self.origin().is_inbound_over_mapping(direction);
                match direction {
                    Direction::Reply if is_dns() => State::DnsReplied,
                    Direction::Original if before == State::Tentative => State::Tentative,
                    Direction::Original | Direction::Reply => State::Udp,
                }
            }
            (state @ (State::Tcp(_) | State::Icmp | State::Other), _) => state,
        };
        if refreshes {
            self.last_seen.store(now.0, Relaxed);
        }
        if after == before {
            return RecordChange { ends_sooner: false, established: false };
        }
        self.state.store(after.number(), Relaxed);
        RecordChange {
            ends_sooner: idle_timeouts.of(after) < idle_timeouts.of(before)
                || after.is_closing() && !before.is_closing(),
            established: before == State::Tentative
                || after == State::Tcp(TcpState::Established)
                    && before != State::Tcp(TcpState::Reset),
        }
    }
}

/// End of a list.
pub(crate) const NONE: u32 = u32::MAX;
/// Wheel slot of a record that is free.
pub(crate) const FREE: u16 = u16::MAX;
/// Wheel slot of a session whose adoption waits for that of others; see
/// [`crate::nat::table::adoption`].
pub(crate) const WAITING: u16 = u16::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_origins_survive_their_numbers() {
        for number in 0..State::COUNT as u8 {
            assert_eq!(State::from_number(number).number(), number);
        }
        for number in (0..5).flat_map(|initiator| (0..5).map(move |other| initiator << 3 | other)) {
            assert_eq!(SessionKind::from_number(number).number(), number);
        }
    }
}

//! The session record: 64 bytes of plain data, one cache line.
//!
//! A session is a pair of tuples, *original* and *reply*, each as its packets look on arrival. natbox
//! rewrites a packet that matches one tuple to the reverse of the other. Forwards, outbound sessions
//! and hairpin differ only in the tuples.
//!
//! Who may touch what:
//! * Tuples, protocol, kind and uplink are written before the record's keys enter the index and never
//!   while the keys are in the index. A worker that holds the shard of either key reads them freely.
//! * State, last-seen and TCP fields are written by the worker that holds the shard of the packet's own
//!   key. The two directions may run on two workers at once. Then the later write of a field wins, which
//!   costs at most a refresh or a window edge, never a wrong translation.
//! * The links and the wheel slot belong to the record's pool; the pool's lock guards them.
//! * The generation changes under the pool's lock while the record is free and not in the index. A worker
//!   that holds the pool or the shard of either key reads it freely.
//!
//! All accesses are relaxed: the locks of shard and pool order them.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::nat::table::key::Key;
use crate::nat::table::region::plain;
use crate::nat::table::session::{NewSession, SessionId, SessionKind};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::{SequenceCheck, TcpState};
use crate::nat::tracking::tcp_window::{Segment, TcpFields};
use crate::time::Tick;

plain! {
    /// One session. See the module doc.
    #[repr(C, align(64))]
    pub(crate) struct Record {
        original_addresses: AtomicU64,
        reply_addresses: AtomicU64,
        original_ports: AtomicU32,
        reply_ports: AtomicU32,
        protocol: AtomicU8,
        origin: AtomicU8,
        uplink: AtomicU8,
        state: AtomicU8,
        last_seen: AtomicU32,
        /// Sequence numbers and windows of each direction; see [`crate::nat::tracking::tcp_window`].
        pub(crate) tcp: TcpFields,
        /// Next and previous record in the list of a slot of the wheel, or of the free records.
        pub(crate) next: AtomicU32,
        pub(crate) previous: AtomicU32,
        /// Slot of the wheel that the record is linked into; [`FREE`] when the record is free.
        pub(crate) wheel_slot: AtomicU16,
        /// Number of the sessions that had the record so far, modulo 65,535; 0: none.
        generation: AtomicU16,
    }
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);

/// Effect of a packet on its session.
pub(crate) struct Tracked {
    /// The new state allows less time than the state before, so the record's slot of the wheel is too
    /// late.
    pub(crate) ends_sooner: bool,
    /// Both ends have taken part from now on; see [`SessionChange::Established`].
    ///
    /// [`SessionChange::Established`]: crate::nat::table::events::SessionChange::Established
    pub(crate) established: bool,
}

impl Record {
    /// Fills a free record. The caller holds the pool's lock and has not yet entered the record into
    /// the index.
    pub(crate) fn fill(&self, new: &NewSession, now: Tick) {
        self.original_addresses.store(new.original.addresses, Relaxed);
        self.original_ports.store(new.original.ports, Relaxed);
        self.reply_addresses.store(new.reply.addresses, Relaxed);
        self.reply_ports.store(new.reply.ports, Relaxed);
        self.protocol.store(new.original.protocol, Relaxed);
        self.origin.store(new.origin.number(), Relaxed);
        self.uplink.store(new.uplink, Relaxed);
        self.state.store(new.state.number(), Relaxed);
        self.last_seen.store(now.0.wrapping_sub(new.idle.0), Relaxed);
        self.tcp.reset();
    }

    /// Starts the next generation. The caller holds the pool's lock, and the record is free.
    pub(crate) fn renew(&self) {
        let next = self.generation.load(Relaxed).checked_add(1).unwrap_or(1);
        self.generation.store(next, Relaxed);
    }

    /// Identifier of the session that has the record in `slot`. The caller holds the pool's lock or
    /// the shard of one of the record's keys.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> SessionId {
        SessionId::new(slot, self.generation.load(Relaxed))
    }

    /// Tuple of a direction, as its packets arrive.
    #[inline]
    pub(crate) fn key(&self, direction: Direction) -> Key {
        let (addresses, ports) = match direction {
            Direction::Original => (&self.original_addresses, &self.original_ports),
            Direction::Reply => (&self.reply_addresses, &self.reply_ports),
        };
        Key {
            addresses: addresses.load(Relaxed),
            ports: ports.load(Relaxed),
            protocol: self.protocol.load(Relaxed),
        }
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

    /// Refreshes the session with a packet and moves the session's state.
    #[inline]
    pub(crate) fn track(
        &self,
        direction: Direction,
        segment: Option<&Segment>,
        now: Tick,
        idle_timeouts: &IdleTimeouts,
    ) -> Tracked {
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
                refreshes = idle_timeouts.inbound_refresh
                    || !self.origin().is_inbound_over_mapping(direction);
                match direction {
                    Direction::Reply if self.original_ports.load(Relaxed) & 0xffff == DNS_PORT => {
                        State::DnsReplied
                    }
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
            return Tracked { ends_sooner: false, established: false };
        }
        self.state.store(after.number(), Relaxed);
        Tracked {
            ends_sooner: idle_timeouts.of(after) < idle_timeouts.of(before),
            established: match before {
                State::Tentative => true,
                State::Tcp(TcpState::Reset) => false,
                _ => after == State::Tcp(TcpState::Established),
            },
        }
    }
}

const DNS_PORT: u32 = 53;
/// End of a list.
pub(crate) const NONE: u32 = u32::MAX;
/// Wheel slot of a record that is free.
pub(crate) const FREE: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_origins_survive_their_numbers() {
        for number in 0..State::COUNT as u8 {
            assert_eq!(State::from_number(number).number(), number);
        }
        for number in 0..16 {
            assert_eq!(SessionKind::from_number(number).number(), number);
        }
    }
}

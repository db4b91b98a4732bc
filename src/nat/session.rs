//! The session record: 64 bytes of plain data, one cache line.
//!
//! A session is a pair of tuples, *original* and *reply*, each as its packets look on arrival. A packet that matches
//! one is rewritten to the mirror image of the other. Forwards, outbound sessions and hairpin differ only in the
//! tuples.
//!
//! Who may touch what:
//! * tuples, protocol, origin and uplink are written before the record's keys enter the index and never while they
//!   are in it, so whoever holds the shard of either key reads them freely;
//! * state, last-seen and TCP fields are written by whoever holds the shard of the packet's own key. The two
//!   directions may run on two workers at once: each field is then simply the later writer's, which costs at most a
//!   refresh or a window edge, never a wrong translation;
//! * the links and the slot belong to the record's pool and are guarded by its lock.
//!
//! All accesses are relaxed: the shard's and the pool's locks order them.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::time::{Span, Tick};

use super::key::Key;
use super::tcp_state::{SequenceCheck, TcpState};
use super::tcp_window::Segment;

/// Which of a session's two tuples a packet matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// That of the packet that opened the session.
    Original,
    /// The other.
    Reply,
}

impl Direction {
    /// 0 or 1.
    #[inline]
    pub fn number(self) -> usize {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }

    /// The opposite direction.
    #[inline]
    pub fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// Where one end of a session is, and by what it is known outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointKind {
    /// Outside.
    Outside = 0,
    /// Inside, by a dynamic mapping, which the session holds.
    Mapping = 1,
    /// Inside, by a static forward.
    Forward = 2,
    /// Inside, by an external address alone: the protocol has no ports.
    Address = 3,
}

impl EndpointKind {
    const ALL: [Self; 4] = [Self::Outside, Self::Mapping, Self::Forward, Self::Address];

    /// Whether it is inside.
    #[inline]
    pub fn is_inside(self) -> bool {
        self != Self::Outside
    }
}

/// Between what ends a session came to be; decides what its end releases. Both inside: hairpin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKind {
    /// The end that sent the first packet. Counts for its host if it is inside.
    pub initiator: EndpointKind,
    /// The other.
    pub responder: EndpointKind,
}

impl SessionKind {
    /// From outside through a static forward.
    pub const FORWARD: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Forward };
    /// From outside over a dynamic mapping, where filtering lets it.
    pub const INBOUND: Self =
        Self { initiator: EndpointKind::Outside, responder: EndpointKind::Mapping };
    /// To outside over a dynamic mapping.
    pub const OUTBOUND: Self =
        Self { initiator: EndpointKind::Mapping, responder: EndpointKind::Outside };

    fn from_number(number: u8) -> Self {
        Self {
            initiator: EndpointKind::ALL[usize::from(number >> 2 & 3)],
            responder: EndpointKind::ALL[usize::from(number & 3)],
        }
    }

    fn number(self) -> u8 {
        (self.initiator as u8) << 2 | self.responder as u8
    }

    /// Word for listings.
    pub fn name(self) -> &'static str {
        match (self.initiator, self.responder) {
            (EndpointKind::Outside, EndpointKind::Mapping) => "inbound",
            (EndpointKind::Outside, _) => "forward",
            (EndpointKind::Mapping | EndpointKind::Address, EndpointKind::Outside) => "outbound",
            (EndpointKind::Forward, EndpointKind::Outside) => "forward-outbound",
            (EndpointKind::Mapping | EndpointKind::Address, _) => "hairpin",
            (EndpointKind::Forward, _) => "hairpin-forward",
        }
    }

    /// Whether packets of this direction leave towards the inside.
    #[inline]
    pub fn is_inbound(self, direction: Direction) -> bool {
        match direction {
            Direction::Original => self.responder.is_inside(),
            Direction::Reply => self.initiator.is_inside(),
        }
    }

    /// Whether packets of this direction come from outside over a dynamic mapping.
    #[inline]
    pub fn is_inbound_over_mapping(self, direction: Direction) -> bool {
        let (sender, receiver) = match direction {
            Direction::Original => (self.initiator, self.responder),
            Direction::Reply => (self.responder, self.initiator),
        };
        sender == EndpointKind::Outside && receiver == EndpointKind::Mapping
    }
}

/// State of a session of any protocol; indexes [`IdleTimeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP.
    Tcp(TcpState),
    /// UDP.
    Udp,
    /// UDP to port 53 whose last packet was an answer.
    DnsReplied,
    /// ICMP query.
    Icmp,
    /// Any other protocol, tracked by addresses.
    Other,
    /// UDP from a server that is published in several places, until somebody answers: where it belongs is a guess.
    Tentative,
}

impl State {
    /// Number of distinct states.
    pub const COUNT: usize = TcpState::ALL.len() + 5;

    #[inline]
    fn number(self) -> u8 {
        let base = TcpState::ALL.len() as u8;
        match self {
            Self::Tcp(state) => state as u8,
            Self::Udp => base,
            Self::DnsReplied => base + 1,
            Self::Icmp => base + 2,
            Self::Other => base + 3,
            Self::Tentative => base + 4,
        }
    }

    #[inline]
    fn from_number(number: u8) -> Self {
        match number.checked_sub(TcpState::ALL.len() as u8) {
            None => Self::Tcp(TcpState::ALL[number as usize]),
            Some(0) => Self::Udp,
            Some(1) => Self::DnsReplied,
            Some(2) => Self::Icmp,
            Some(3) => Self::Other,
            Some(_) => Self::Tentative,
        }
    }

    /// Word for listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp(TcpState::SynOriginal | TcpState::SynReply) => "syn",
            Self::Tcp(TcpState::SynBoth) => "syn-recv",
            Self::Tcp(TcpState::Midstream | TcpState::MidstreamFin) => "midstream",
            Self::Tcp(TcpState::Established) => "established",
            Self::Tcp(TcpState::FinOriginal | TcpState::FinReply) => "half-closed",
            Self::Tcp(TcpState::FinBoth) => "closed",
            Self::Tcp(TcpState::Reset) => "reset",
            Self::Udp => "udp",
            Self::DnsReplied => "dns-replied",
            Self::Icmp => "icmp",
            Self::Other => "other",
            Self::Tentative => "tentative",
        }
    }
}

/// Idle timeout of every state.
#[derive(Clone, Copy, Debug)]
pub struct IdleTimeouts {
    spans: [Span; State::COUNT],
    inbound_refresh: bool,
}

impl IdleTimeouts {
    /// The timeouts of the configuration, spread over the states.
    pub fn new(timeouts: &super::settings::Timeouts) -> Self {
        let mut spans = [timeouts.udp; State::COUNT];
        for state in TcpState::ALL {
            spans[state as usize] = match state {
                TcpState::SynOriginal | TcpState::SynReply => timeouts.tcp_syn,
                TcpState::SynBoth
                | TcpState::Midstream
                | TcpState::MidstreamFin
                | TcpState::FinBoth
                | TcpState::Reset => timeouts.tcp_transitory,
                TcpState::Established | TcpState::FinOriginal | TcpState::FinReply => {
                    timeouts.tcp_established
                }
            };
        }
        spans[State::DnsReplied.number() as usize] = timeouts.udp_dns;
        spans[State::Icmp.number() as usize] = timeouts.icmp;
        spans[State::Other.number() as usize] = timeouts.udp;
        Self { spans, inbound_refresh: true }
    }

    /// Whether packets from outside keep dynamic UDP sessions alive (RFC 4787 REQ-6a).
    pub fn with_inbound_refresh(self, inbound_refresh: bool) -> Self {
        Self { inbound_refresh, ..self }
    }

    /// How long a session in `state` may idle.
    #[inline]
    pub fn of(&self, state: State) -> Span {
        self.spans[usize::from(state.number())]
    }
}

/// What a new session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Tuple of the first packet, as it arrived.
    pub original: Key,
    /// Tuple of the packets that will answer, as they will arrive.
    pub reply: Key,
    /// How it came to be.
    pub origin: SessionKind,
    /// The uplink it goes over; for hairpin the one whose address was spoken to.
    pub uplink: u8,
    /// First state.
    pub state: State,
    /// How long it has been idle already: zero, unless its first packet does not count.
    pub idle: Span,
}

/// One session. See the module doc.
#[repr(C, align(64))]
pub(super) struct Record {
    original_addresses: AtomicU64,
    reply_addresses: AtomicU64,
    original_ports: AtomicU32,
    reply_ports: AtomicU32,
    protocol: AtomicU8,
    origin: AtomicU8,
    uplink: AtomicU8,
    state: AtomicU8,
    last_seen: AtomicU32,
    /// Window of each direction; see [`super::tcp_window`].
    pub(super) tcp: TcpFields,
    /// Next and previous record in the pool's list.
    pub(super) next: AtomicU32,
    pub(super) previous: AtomicU32,
    /// Slot of the wheel that the record hangs in.
    pub(super) slot: AtomicU16,
}

/// TCP fields of a record, indexed by [`Direction::number`].
#[repr(C)]
pub(super) struct TcpFields {
    /// Sequence number after the last byte that the direction sent.
    pub(super) next_sequence: [AtomicU32; 2],
    /// Highest acknowledgement that the direction sent.
    pub(super) acknowledged: [AtomicU32; 2],
    /// Scale shifts, largest windows, and who has acknowledged; see [`super::tcp_window`].
    pub(super) window: AtomicU32,
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);

impl Record {
    /// Fills a free record. The caller holds the pool's lock and has not yet entered it into the index.
    pub(super) fn fill(&self, new: &NewSession, now: Tick) {
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

    /// The tuple of a direction, as its packets arrive.
    #[inline]
    pub(super) fn key(&self, direction: Direction) -> Key {
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
    pub(super) fn origin(&self) -> SessionKind {
        SessionKind::from_number(self.origin.load(Relaxed))
    }

    #[inline]
    pub(super) fn uplink(&self) -> u8 {
        self.uplink.load(Relaxed)
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        State::from_number(self.state.load(Relaxed))
    }

    /// The moment at which the session ends if nothing more comes.
    #[inline]
    pub(super) fn deadline(&self, idle_timeouts: &IdleTimeouts) -> Tick {
        Tick(self.last_seen.load(Relaxed)).after(idle_timeouts.of(self.state()))
    }

    /// Counts a packet in: refreshes the session and moves its state. True when the session now ends earlier than
    /// its state before allowed, so that its place in the wheel is too late.
    #[inline]
    pub(super) fn track(
        &self,
        direction: Direction,
        segment: Option<&Segment>,
        now: Tick,
        idle_timeouts: &IdleTimeouts,
    ) -> bool {
        let before = self.state();
        let mut refreshes = true;
        let after = match (before, segment) {
            (State::Tcp(state), Some(segment)) => {
                let placement = self.tcp.check(direction, segment);
                let next = state.after(direction, segment.flags, placement);
                let anew = placement == SequenceCheck::Reopened
                    || matches!(next, TcpState::SynOriginal | TcpState::SynReply);
                let believed = if segment.flags.syn() && state.is_opening() {
                    // Another attempt has other numbers, and an answer to an old one had wrong ones.
                    self.tcp.reset_direction(direction);
                    SequenceCheck::InWindow
                } else if next != state && anew {
                    self.tcp.reset();
                    SequenceCheck::InWindow
                } else {
                    placement
                };
                self.tcp.advance(direction, segment, believed);
                // A reset that changes nothing is a guess, or an answer to a stray segment (RFC 7857 section 7.1).
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
            return false;
        }
        self.state.store(after.number(), Relaxed);
        idle_timeouts.of(after) < idle_timeouts.of(before)
    }
}

const DNS_PORT: u32 = 53;

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

//! The state of a session of any protocol, and the idle timeout of each state.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::nat::policy::limits::Timeouts;
use crate::nat::tracking::tcp_state::TcpState;
use crate::time::Span;

/// State of a session of any protocol; indexes [`IdleTimeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP.
    Tcp(TcpState),
    /// UDP.
    Udp,
    /// UDP to port 53 whose last packet was a reply.
    DnsReplied,
    /// ICMP query.
    Icmp,
    /// Any other protocol, tracked by addresses.
    Other,
    /// UDP from a server that several forwards publish, until a reply comes: the uplink is a guess.
    Tentative,
}

impl State {
    /// Number of distinct states.
    pub const COUNT: usize = TcpState::ALL.len() + 5;

    /// Whether both ends of a TCP connection have closed it, or one has reset it.
    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        matches!(self, Self::Tcp(TcpState::FinBoth | TcpState::Reset))
    }

    #[inline]
    pub(crate) fn number(self) -> u8 {
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
    pub(crate) fn from_number(number: u8) -> Self {
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

/// Idle timeout of every state. They may change while packets flow. Relaxed: a packet or two that
/// see an old value do no harm.
#[derive(Debug)]
pub struct IdleTimeouts {
    spans: [AtomicU32; State::COUNT],
    inbound_refresh: AtomicBool,
}

impl IdleTimeouts {
    /// Assigns the timeouts of the configuration to the states.
    pub fn new(timeouts: &Timeouts) -> Self {
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
        Self {
            spans: spans.map(|span| AtomicU32::new(span.0)),
            inbound_refresh: AtomicBool::new(true),
        }
    }

    /// Sets whether packets from outside refresh dynamic UDP sessions (RFC 4787 REQ-6a).
    pub fn with_inbound_refresh(self, inbound_refresh: bool) -> Self {
        self.inbound_refresh.store(inbound_refresh, Relaxed);
        self
    }

    /// Takes the values of other timeouts.
    pub(crate) fn set(&self, other: &Self) {
        for (span, new) in self.spans.iter().zip(&other.spans) {
            span.store(new.load(Relaxed), Relaxed);
        }
        self.inbound_refresh.store(other.inbound_refresh(), Relaxed);
    }

    /// Whether packets from outside refresh dynamic UDP sessions.
    #[inline]
    pub(crate) fn inbound_refresh(&self) -> bool {
        self.inbound_refresh.load(Relaxed)
    }

    /// Idle timeout of a session in `state`.
    #[inline]
    pub fn of(&self, state: State) -> Span {
        Span(self.spans[usize::from(state.number())].load(Relaxed))
    }
}

impl Clone for IdleTimeouts {
    fn clone(&self) -> Self {
        let spans = std::array::from_fn(|state| AtomicU32::new(self.spans[state].load(Relaxed)));
        Self { spans, inbound_refresh: AtomicBool::new(self.inbound_refresh()) }
    }
}

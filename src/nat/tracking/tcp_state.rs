//! TCP tracking: a pure function of (state, direction, flags, what the window says).
//!
//! After the state machine of RFC 6146 section 3.5.2 with the corrections of RFC 7857 section 2. "Original" is the
//! direction of the packet that opened the session, "reply" the other.
//!
//! ```text
//!   SynOriginal --SYN from reply--> SynBoth --ACK--> Established
//!   SynReply ---SYN from original-> SynBoth
//!   Midstream --any but SYN, FIN, RST from reply--> Established
//!   Midstream --FIN from reply--------------------> FinReply
//!   Midstream --FIN from original-----------------> MidstreamFin --the same from reply--> FinOriginal or FinBoth
//!   Established --FIN from original--> FinOriginal --FIN from reply----> FinBoth
//!   Established --FIN from reply-----> FinReply ---FIN from original--> FinBoth
//!   Established, FinOriginal, FinReply --RST--> Reset --anything in window but RST, SYN, FIN--> Established
//!   FinBoth, Reset --SYN--> SynOriginal or SynReply, by its direction: the tuple is used again
//!   all from Midstream on --SYN-ACK to a SYN from outside the window--> SynBoth: both ends have lost the old connection
//! ```
//!
//! Whatever is not drawn leaves the state as it is. RST counts only with the exact next sequence number, FIN only
//! inside the window (RFC 5961 section 3: an off-path segment with a guessed tuple must end nothing). A segment
//! outside the window is still translated: the end hosts judge it, and they know more.

use crate::nat::tracking::direction::Direction;
use crate::packet::TcpFlags;

/// State of a TCP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// SYN seen from the original side.
    SynOriginal = 0,
    /// SYN seen from the reply side only: a closed tuple opened again the other way round.
    SynReply,
    /// SYN seen from both sides.
    SynBoth,
    /// BorrowedMapping in mid-stream by a static forward; only the original side was heard.
    Midstream,
    /// The same, and the original side has sent FIN.
    MidstreamFin,
    /// Open.
    Established,
    /// FIN seen from the original side.
    FinOriginal,
    /// FIN seen from the reply side.
    FinReply,
    /// FIN seen from both sides.
    FinBoth,
    /// RST seen; kept for the transitory timeout in case something follows (RFC 7857 section 2.2).
    Reset,
}

/// What window tracking says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Sequence number exactly the next one expected: good enough for RST.
    NextExpected,
    /// Inside the window: good enough for FIN.
    InWindow,
    /// Outside.
    OutOfWindow,
    /// Outside, but it answers a SYN that was outside as well.
    Reopened,
}

impl TcpState {
    /// All states, in order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::SynOriginal,
        Self::SynReply,
        Self::SynBoth,
        Self::Midstream,
        Self::MidstreamFin,
        Self::Established,
        Self::FinOriginal,
        Self::FinReply,
        Self::FinBoth,
        Self::Reset,
    ];

    /// The state of a new session whose first packet has these flags, if such a packet may open one: a SYN alone
    /// (data and ECN bits do not matter). SYN with ACK, FIN or RST never does.
    pub fn opening(flags: TcpFlags) -> Option<Self> {
        (flags.syn() && !flags.ack() && !flags.fin() && !flags.rst()).then_some(Self::SynOriginal)
    }

    /// The state of a session adopted in mid-stream: plain ACKs, with or without data. RST and FIN end
    /// connections, they do not reveal any.
    pub fn midstream(flags: TcpFlags) -> Option<Self> {
        (flags.ack() && !flags.syn() && !flags.fin() && !flags.rst()).then_some(Self::Midstream)
    }

    /// Whether nobody has acknowledged the handshake yet.
    pub fn is_opening(self) -> bool {
        matches!(self, Self::SynOriginal | Self::SynReply | Self::SynBoth)
    }

    /// The state after a segment.
    pub fn after(self, direction: Direction, flags: TcpFlags, placement: SequenceCheck) -> Self {
        let inside = placement != SequenceCheck::OutOfWindow;
        if flags.rst() {
            // Not FinBoth: it is over already, and from Reset a late duplicate would bring it back to life.
            let ends = matches!(self, Self::Established | Self::FinOriginal | Self::FinReply);
            return if ends && placement == SequenceCheck::NextExpected {
                Self::Reset
            } else {
                self
            };
        }
        if flags.syn() {
            return match (self, direction) {
                (Self::SynOriginal, Direction::Reply) | (Self::SynReply, Direction::Original) => {
                    Self::SynBoth
                }
                (Self::FinBoth | Self::Reset, Direction::Original) if !flags.ack() => {
                    Self::SynOriginal
                }
                (Self::FinBoth | Self::Reset, Direction::Reply) if !flags.ack() => Self::SynReply,
                (
                    Self::Midstream
                    | Self::MidstreamFin
                    | Self::Established
                    | Self::FinOriginal
                    | Self::FinReply
                    | Self::FinBoth
                    | Self::Reset,
                    _,
                ) if placement == SequenceCheck::Reopened => Self::SynBoth,
                _ => self,
            };
        }
        if flags.fin() {
            return match (self, direction) {
                _ if !inside => self,
                (Self::SynBoth | Self::Established, Direction::Original) => Self::FinOriginal,
                (Self::SynBoth | Self::Established | Self::Midstream, Direction::Reply) => {
                    Self::FinReply
                }
                (Self::Midstream, Direction::Original) => Self::MidstreamFin,
                (Self::FinOriginal | Self::MidstreamFin, Direction::Reply)
                | (Self::FinReply, Direction::Original) => Self::FinBoth,
                _ => self,
            };
        }
        match (self, direction) {
            (Self::SynBoth, _) if flags.ack() && inside => Self::Established,
            (Self::Midstream, Direction::Reply) => Self::Established,
            (Self::MidstreamFin, Direction::Reply) => Self::FinOriginal,
            (Self::Reset, _) if inside => Self::Established,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests;

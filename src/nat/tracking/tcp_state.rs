//! TCP tracking: a pure function of (state, direction, flags, sequence check).
//!
//! The function follows the state machine of RFC 6146 section 3.5.2 with the corrections of
//! RFC 7857 section 2. "Original" is the direction of the initiator, "reply" that of the responder.
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
//! A segment that is not drawn leaves the state as it is. RST counts only with the exact next
//! sequence number, FIN only inside the window (RFC 5961 section 3: an off-path segment with a
//! guessed tuple must end nothing). natbox translates a segment outside the window nevertheless:
//! the end hosts know more and decide.

use crate::nat::tracking::direction::Direction;
use crate::packet::TcpFlags;

/// State of a TCP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// SYN from the original side.
    SynOriginal = 0,
    /// SYN from the reply side only: a closed tuple was opened again in the opposite
    /// direction.
    SynReply,
    /// SYN from both sides.
    SynBoth,
    /// Adopted in mid-stream over a static forward; only the original side has sent packets.
    Midstream,
    /// Like [`Self::Midstream`], and the original side has sent FIN.
    MidstreamFin,
    /// Handshake complete.
    Established,
    /// FIN from the original side.
    FinOriginal,
    /// FIN from the reply side.
    FinReply,
    /// FIN from both sides.
    FinBoth,
    /// A RST; kept for the transitory timeout in case a segment follows (RFC 7857 section 2.2).
    Reset,
}

/// Position of a segment relative to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The sequence number is exactly the next one expected, as RST requires.
    NextExpected,
    /// The segment is inside the window, as FIN requires.
    InWindow,
    /// The segment is outside the window.
    OutOfWindow,
    /// The segment is outside the window, and acknowledges a SYN that was outside the window.
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

    /// State of a new session whose first packet has these flags. None if such a packet opens no
    /// session: only a SYN without ACK, FIN and RST does; data and ECN bits do not matter.
    pub fn opening(flags: TcpFlags) -> Option<Self> {
        (flags.syn() && !flags.ack() && !flags.fin() && !flags.rst()).then_some(Self::SynOriginal)
    }

    /// State of a session that is adopted in mid-stream. None unless the packet is a plain ACK,
    /// with or without data: RST and FIN end a connection and do not prove one.
    pub fn midstream(flags: TcpFlags) -> Option<Self> {
        (flags.ack() && !flags.syn() && !flags.fin() && !flags.rst()).then_some(Self::Midstream)
    }

    /// Whether the handshake is not acknowledged yet.
    pub fn is_opening(self) -> bool {
        matches!(self, Self::SynOriginal | Self::SynReply | Self::SynBoth)
    }

    /// Returns the state after a segment.
    pub fn after(self, direction: Direction, flags: TcpFlags, check: SequenceCheck) -> Self {
        let in_window = check != SequenceCheck::OutOfWindow;
        if flags.rst() {
            // Not FinBoth: that connection is over, and from Reset a late duplicate would revive
            // it.
            let ends = matches!(self, Self::Established | Self::FinOriginal | Self::FinReply);
            return if ends && check == SequenceCheck::NextExpected { Self::Reset } else { self };
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
                ) if check == SequenceCheck::Reopened => Self::SynBoth,
                _ => self,
            };
        }
        if flags.fin() {
            return match (self, direction) {
                _ if !in_window => self,
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
            (Self::SynBoth, _) if flags.ack() && in_window => Self::Established,
            (Self::Midstream, Direction::Reply) => Self::Established,
            (Self::MidstreamFin, Direction::Reply) => Self::FinOriginal,
            (Self::Reset, _) if in_window => Self::Established,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests;

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
mod tests {
    use super::Direction::{Original, Reply};
    use super::SequenceCheck::{InWindow, NextExpected, OutOfWindow, Reopened};
    use super::TcpState::*;
    use super::*;

    const SYN: TcpFlags = TcpFlags(0x02);
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const ACK: TcpFlags = TcpFlags(0x10);
    const FIN: TcpFlags = TcpFlags(0x11);
    const RST: TcpFlags = TcpFlags(0x04);

    fn walk(steps: &[(Direction, TcpFlags)]) -> TcpState {
        steps.iter().fold(SynOriginal, |state, (direction, flags)| {
            state.after(*direction, *flags, NextExpected)
        })
    }

    #[test]
    fn every_opening_establishes() {
        assert_eq!(walk(&[(Reply, SYN_ACK), (Original, ACK)]), Established);
        assert_eq!(
            walk(&[(Reply, SYN), (Original, SYN_ACK), (Reply, SYN_ACK), (Original, ACK)]),
            Established
        );
        assert_eq!(
            walk(&[(Original, SYN), (Reply, SYN_ACK), (Reply, SYN_ACK), (Original, ACK)]),
            Established
        );
        assert_eq!(walk(&[(Reply, ACK)]), SynOriginal, "a challenge ACK to a SYN changes nothing");
    }

    #[test]
    fn closing_needs_a_fin_from_each_side() {
        let open = [(Reply, SYN_ACK), (Original, ACK)];
        let after = |more: &[(Direction, TcpFlags)]| walk(&[&open[..], more].concat());
        assert_eq!(after(&[(Original, FIN), (Original, FIN), (Reply, ACK)]), FinOriginal);
        assert_eq!(after(&[(Original, FIN), (Reply, FIN), (Original, ACK)]), FinBoth);
        assert_eq!(after(&[(Reply, FIN), (Original, FIN), (Reply, ACK)]), FinBoth);
    }

    /// A host that has closed answers a late duplicate with RST; the next duplicate then made the session established
    /// again, for two hours instead of four minutes.
    #[test]
    fn a_reset_after_both_fins_does_not_let_duplicates_revive_the_session() {
        for direction in [Original, Reply] {
            assert_eq!(FinBoth.after(direction, RST, NextExpected), FinBoth);
            assert_eq!(
                FinBoth.after(direction, RST, NextExpected).after(direction, ACK, InWindow),
                FinBoth
            );
        }
    }

    /// After a restart of the box, the FIN with which a server ends its answer may be the first that is heard of it; it was
    /// overheard, and the session then lived on as established.
    #[test]
    fn a_fin_is_not_overheard_because_it_comes_first_from_a_server() {
        assert_eq!(Midstream.after(Reply, FIN, InWindow).after(Original, FIN, InWindow), FinBoth);
    }

    /// The same from the client: anyone can say this from off the path, so it lives no longer for it; but it was overheard,
    /// and after the server's FIN the session stayed half-closed for two hours.
    #[test]
    fn a_clients_fin_is_kept_in_mind_until_its_server_is_heard() {
        assert_eq!(Midstream.after(Original, FIN, InWindow), MidstreamFin);
        assert_eq!(MidstreamFin.after(Original, ACK, InWindow), MidstreamFin);
        assert_eq!(MidstreamFin.after(Reply, ACK, InWindow), FinOriginal);
        assert_eq!(MidstreamFin.after(Reply, FIN, InWindow), FinBoth);
    }

    #[test]
    fn both_ends_may_begin_anew_from_wherever_they_were() {
        for state in TcpState::ALL {
            let opening = matches!(state, SynOriginal | SynReply | SynBoth);
            let expected = if opening { state.after(Reply, SYN_ACK, OutOfWindow) } else { SynBoth };
            assert_eq!(state.after(Reply, SYN_ACK, Reopened), expected, "{state:?}");
        }
    }

    #[test]
    fn a_closed_tuple_opens_again_by_syn_from_either_side_and_not_by_one_alone() {
        for closed in [FinBoth, Reset] {
            assert_eq!(closed.after(Original, SYN, OutOfWindow), SynOriginal);
            assert_eq!(closed.after(Reply, SYN, OutOfWindow), SynReply);
            assert_eq!(
                closed.after(Original, SYN, OutOfWindow).after(Original, ACK, NextExpected),
                SynOriginal
            );
            assert_eq!(
                closed.after(Reply, SYN, OutOfWindow).after(Original, SYN_ACK, NextExpected),
                SynBoth
            );
        }
    }

    /// The whole input space, against a table written down apart from the code.
    #[test]
    fn the_automaton_equals_its_table() {
        // For each state: what (SYN, SYN-ACK, ACK, FIN, RST) lead to, from the original and from the reply side,
        // with exact placement.
        let table = [
            (
                SynOriginal,
                [SynOriginal, SynOriginal, SynOriginal, SynOriginal, SynOriginal],
                [SynBoth, SynBoth, SynOriginal, SynOriginal, SynOriginal],
            ),
            (
                SynReply,
                [SynBoth, SynBoth, SynReply, SynReply, SynReply],
                [SynReply, SynReply, SynReply, SynReply, SynReply],
            ),
            (
                SynBoth,
                [SynBoth, SynBoth, Established, FinOriginal, SynBoth],
                [SynBoth, SynBoth, Established, FinReply, SynBoth],
            ),
            (
                Midstream,
                [Midstream, Midstream, Midstream, MidstreamFin, Midstream],
                [Midstream, Midstream, Established, FinReply, Midstream],
            ),
            (
                MidstreamFin,
                [MidstreamFin, MidstreamFin, MidstreamFin, MidstreamFin, MidstreamFin],
                [MidstreamFin, MidstreamFin, FinOriginal, FinBoth, MidstreamFin],
            ),
            (
                Established,
                [Established, Established, Established, FinOriginal, Reset],
                [Established, Established, Established, FinReply, Reset],
            ),
            (
                FinOriginal,
                [FinOriginal, FinOriginal, FinOriginal, FinOriginal, Reset],
                [FinOriginal, FinOriginal, FinOriginal, FinBoth, Reset],
            ),
            (
                FinReply,
                [FinReply, FinReply, FinReply, FinBoth, Reset],
                [FinReply, FinReply, FinReply, FinReply, Reset],
            ),
            (
                FinBoth,
                [SynOriginal, FinBoth, FinBoth, FinBoth, FinBoth],
                [SynReply, FinBoth, FinBoth, FinBoth, FinBoth],
            ),
            (
                Reset,
                [SynOriginal, Reset, Established, Reset, Reset],
                [SynReply, Reset, Established, Reset, Reset],
            ),
        ];
        assert_eq!(table.map(|row| row.0), TcpState::ALL);
        for (state, original, reply) in table {
            for (number, flags) in [SYN, SYN_ACK, ACK, FIN, RST].into_iter().enumerate() {
                for (direction, expected) in [(Original, original[number]), (Reply, reply[number])]
                {
                    assert_eq!(
                        state.after(direction, flags, NextExpected),
                        expected,
                        "{state:?} {direction:?} {flags:?}"
                    );
                    let blunt = if flags == RST { state } else { expected };
                    assert_eq!(
                        state.after(direction, flags, InWindow),
                        blunt,
                        "{state:?} {direction:?} {flags:?}"
                    );
                    let wary = matches!(state, SynBoth | Reset);
                    let far = if [FIN, RST].contains(&flags) || wary && flags == ACK {
                        state
                    } else {
                        expected
                    };
                    assert_eq!(
                        state.after(direction, flags, OutOfWindow),
                        far,
                        "{state:?} {direction:?} {flags:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_a_plain_syn_opens_and_only_a_plain_ack_is_picked_up() {
        for bits in 0..=63u8 {
            let flags = TcpFlags(bits);
            let plain = bits & 0x17;
            assert_eq!(TcpState::opening(flags).is_some(), plain == 0x02, "{bits:#x}");
            assert_eq!(TcpState::midstream(flags).is_some(), plain == 0x10, "{bits:#x}");
        }
    }
}

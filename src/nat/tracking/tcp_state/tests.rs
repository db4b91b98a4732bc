use std::collections::BTreeSet;

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
fn the_diagram_of_the_module_has_every_state_and_no_other() {
    let source = include_str!("../tcp_state.rs");
    let diagram = source.split("```").nth(1).expect("the diagram");
    let words = diagram.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_state = |word: &&str| {
        word.starts_with(|letter: char| letter.is_ascii_uppercase())
            && word.contains(|letter: char| letter.is_ascii_lowercase())
    };
    let drawn: BTreeSet<String> = words.filter(is_state).map(str::to_owned).collect();
    let states = TcpState::ALL.map(|state| format!("{state:?}"));
    assert_eq!(drawn, states.into());
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

/// A host that has closed sends RST in reply to a late duplicate. The next duplicate made the
/// session established again, for two hours instead of four minutes.
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

/// After a restart of natbox, the FIN at the end of a server's response may be the first segment
/// from the server. The FIN had no effect, and the session stayed established.
#[test]
fn a_fin_counts_though_it_is_the_first_segment_from_a_server() {
    assert_eq!(Midstream.after(Reply, FIN, InWindow).after(Original, FIN, InWindow), FinBoth);
}

/// An off-path attacker can send a client's FIN, so the FIN must not prolong the session. But it
/// had no effect at all, and after the server's FIN the session stayed half-closed for two hours.
#[test]
fn a_clients_fin_is_remembered_until_its_server_sends() {
    assert_eq!(Midstream.after(Original, FIN, InWindow), MidstreamFin);
    assert_eq!(MidstreamFin.after(Original, ACK, InWindow), MidstreamFin);
    assert_eq!(MidstreamFin.after(Reply, ACK, InWindow), FinOriginal);
    assert_eq!(MidstreamFin.after(Reply, FIN, InWindow), FinBoth);
}

#[test]
fn both_ends_may_begin_again_from_any_state() {
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

/// The whole input space, against a table that is written apart from the code.
#[test]
fn the_automaton_equals_its_table() {
    // For each state: the states after (SYN, SYN-ACK, ACK, FIN, RST) from the original and from the
    // reply side, each the next expected segment.
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
            for (direction, expected) in [(Original, original[number]), (Reply, reply[number])] {
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
fn only_a_plain_syn_opens_and_only_a_plain_ack_is_adopted() {
    for bits in 0..=63u8 {
        let flags = TcpFlags(bits);
        let plain = bits & 0x17;
        assert_eq!(TcpState::opening(flags).is_some(), plain == 0x02, "{bits:#x}");
        assert_eq!(TcpState::midstream(flags).is_some(), plain == 0x10, "{bits:#x}");
    }
}

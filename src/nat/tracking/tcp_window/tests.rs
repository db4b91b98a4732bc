use std::sync::atomic::AtomicU32;

use super::Direction::{Original, Reply};
use super::*;

fn fields() -> TcpFields {
    let fields = TcpFields {
        next_sequence: [AtomicU32::new(7), AtomicU32::new(7)],
        acknowledged: [AtomicU32::new(7), AtomicU32::new(7)],
        window: AtomicU32::new(7),
    };
    fields.reset();
    fields
}

fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> Segment {
    let scale = (flags & 2 != 0).then_some(7);
    Segment { flags: TcpFlags(flags), sequence, acknowledgement, window: 500, payload, scale }
}

/// Checks a segment and updates the fields, as the packet path does.
fn advance(fields: &TcpFields, direction: Direction, segment: &Segment) {
    fields.advance(direction, segment, fields.check(direction, segment));
}

/// A connection after its handshake, with sequence numbers that wrap soon.
fn open(client: u32, server: u32) -> TcpFields {
    let fields = fields();
    advance(&fields, Original, &segment(0x02, client, 0, 0));
    advance(&fields, Reply, &segment(0x12, server, client.wrapping_add(1), 0));
    advance(&fields, Original, &segment(0x10, client.wrapping_add(1), server.wrapping_add(1), 0));
    fields
}

#[test]
fn the_next_byte_is_expected_across_the_wrap() {
    let (client, server) = (u32::MAX - 1000, u32::MAX);
    let fields = open(client, server);
    let mut sequence = client.wrapping_add(1);
    for _ in 0..100 {
        let data = segment(0x18, sequence, server.wrapping_add(1), 1448);
        assert_eq!(fields.check(Original, &data), SequenceCheck::NextExpected);
        advance(&fields, Original, &data);
        sequence = sequence.wrapping_add(1448);
    }
    assert_eq!(fields.check(Original, &segment(0x04, sequence, 0, 0)), SequenceCheck::NextExpected);
    // The last acknowledgement of the receiver is expected as well: a reset after lost data carries
    // it.
    assert_eq!(
        fields.check(Original, &segment(0x04, client.wrapping_add(1), 0, 0)),
        SequenceCheck::NextExpected
    );
}

#[test]
fn guesses_from_off_the_path_are_rarely_in_the_window_and_never_expected() {
    let fields = open(1_000_000, 2_000_000);
    let mut inside = 0;
    for step in 0..64u32 {
        let guess = segment(0x04, step.wrapping_mul(1 << 26).wrapping_add(12_345), 0, 0);
        match fields.check(Original, &guess) {
            SequenceCheck::NextExpected => panic!("a blind guess is expected"),
            SequenceCheck::InWindow => inside += 1,
            SequenceCheck::OutOfWindow | SequenceCheck::Reopened => {}
        }
    }
    assert!(inside <= 1);
}

/// An off-path attacker may know the tuple and guess a sequence number in the window, but not both
/// numbers.
#[test]
fn a_segment_that_acknowledges_nothing_that_was_sent_is_outside() {
    let fields = open(1_000_000, 2_000_000);
    for flags in [0x10, 0x11] {
        assert_eq!(
            fields.check(Original, &segment(flags, 1_000_001, 2_000_001, 0)),
            SequenceCheck::NextExpected
        );
        for guess in [0, 500_000, 2_100_001, u32::MAX] {
            assert_eq!(
                fields.check(Original, &segment(flags, 1_000_001, guess, 0)),
                SequenceCheck::OutOfWindow,
                "{guess}"
            );
        }
    }
    for flags in [0x00, 0x01, 0x08] {
        assert_eq!(
            fields.check(Original, &segment(flags, 1_000_001, 2_000_001, 0)),
            SequenceCheck::OutOfWindow
        );
    }
    // A FIN before data that was sent is no end of the stream; the same FIN after it is.
    advance(&fields, Original, &segment(0x18, 1_000_001, 2_000_001, 5000));
    assert_eq!(
        fields.check(Original, &segment(0x11, 1_002_001, 2_000_001, 0)),
        SequenceCheck::OutOfWindow
    );
    let fin = segment(0x11, 1_005_001, 2_000_001, 0);
    for _ in 0..2 {
        assert_ne!(fields.check(Original, &fin), SequenceCheck::OutOfWindow);
        advance(&fields, Original, &fin);
    }
}

#[test]
fn keep_alives_window_probes_and_old_retransmissions_are_inside() {
    let fields = open(1_000_000, 2_000_000);
    advance(&fields, Original, &segment(0x18, 1_000_001, 2_000_001, 30_000));
    advance(&fields, Reply, &segment(0x10, 2_000_001, 1_030_001, 0));
    for sequence in [1_030_000, 1_000_001, 1_030_001] {
        assert_ne!(
            fields.check(Original, &segment(0x10, sequence, 2_000_001, 1)),
            SequenceCheck::OutOfWindow
        );
    }
}

#[test]
fn a_segment_outside_the_window_does_not_move_it() {
    let fields = open(1_000_000, 2_000_000);
    advance(&fields, Original, &segment(0x18, 1_000_000 + (1 << 30), 2_000_001 + (1 << 30), 1000));
    assert_eq!(
        fields.check(Original, &segment(0x04, 1_000_001, 0, 0)),
        SequenceCheck::NextExpected
    );
}

#[test]
fn a_syn_outside_the_window_reopens_once_the_other_side_acknowledges_it() {
    let fields = open(1_000_000, 2_000_000);
    let (syn, syn_ack) = (0x02, 0x12);
    let answer = |acknowledgement| segment(syn_ack, 3_500_000_000, acknowledgement, 0);
    assert_eq!(
        fields.check(Reply, &answer(3_000_000_001)),
        SequenceCheck::OutOfWindow,
        "no SYN was seen"
    );
    advance(&fields, Original, &segment(syn, 3_000_000_000, 0, 0));
    assert_eq!(fields.check(Reply, &answer(3_000_000_002)), SequenceCheck::OutOfWindow);
    assert_eq!(
        fields.check(Original, &answer(3_000_000_001)),
        SequenceCheck::OutOfWindow,
        "its own side"
    );
    assert_eq!(fields.check(Reply, &answer(3_000_000_001)), SequenceCheck::Reopened);
    // Until then the old connection continues.
    assert_eq!(
        fields.check(Original, &segment(0x10, 1_000_001, 2_000_001, 0)),
        SequenceCheck::NextExpected
    );
    assert_eq!(
        fields.check(Reply, &segment(0x10, 2_000_001, 1_000_001, 0)),
        SequenceCheck::NextExpected
    );
}

#[test]
fn a_scaled_window_reaches_as_far_as_it_was_advertised() {
    let fields = open(1_000_000, 2_000_000);
    // 65535 << 7 is 8 MiB less a little.
    advance(&fields, Reply, &Segment { window: 65535, ..segment(0x10, 2_000_001, 1_000_001, 0) });
    assert_eq!(
        fields.check(Original, &segment(0x11, 1_000_001 + 8_000_000, 2_000_001, 0)),
        SequenceCheck::InWindow
    );
    assert_eq!(
        fields.check(Original, &segment(0x11, 1_000_001 + 9_000_000, 2_000_001, 0)),
        SequenceCheck::OutOfWindow
    );
}

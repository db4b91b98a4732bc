use super::*;
use crate::packet::{PacketHead, Protocol};

const NOW: Tick = Tick(1000);
const PASSED: Disposition = Disposition::PassedToHost;

fn id(identification: u16) -> DatagramId {
    let address = Ipv4Addr::new(192, 0, 2, 1);
    DatagramId { source: address, destination: address, protocol: Protocol::UDP, identification }
}

fn store(capacity: u32) -> Fragments {
    Fragments::new(capacity, Span::seconds(15), HashKey::of(1))
}

fn fragment(start: u32, end: u32, more: bool) -> FragmentRange {
    FragmentRange { start, end, more }
}

const FRAGMENTS: [(u32, u32, bool); 3] = [(0, 8, true), (8, 16, true), (16, 20, false)];

#[test]
fn fragments_in_any_order_share_the_disposition_of_the_first_and_leave_nothing_behind() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let store = store(10);
        let mut passed = 0;
        for index in order {
            let (start, end, more) = FRAGMENTS[index];
            match store.admit(id(1), fragment(start, end, more), &[index as u8], NOW) {
                Admit::First => passed += 1 + store.resolve(id(1), PASSED, NOW).len(),
                Admit::Resolved(PASSED) => passed += 1,
                Admit::Held => {}
                other @ (Admit::Resolved(_) | Admit::Refused(_)) => panic!("{other:?}"),
            }
        }
        assert_eq!(passed, 3, "{order:?}");
        let inner = store.0.lock();
        assert_eq!(
            (inner.datagrams.len(), inner.held_bytes, inner.lost.clone()),
            (0, 0, LostFragments::default())
        );
        assert!(
            inner.by_eviction.is_empty() && inner.by_source.is_empty() && inner.usage.is_empty()
        );
    }
}

#[test]
fn an_overlap_refuses_the_whole_datagram_and_a_repeat_only_itself() {
    for bad in [
        fragment(12, 24, true),
        fragment(0, 16, true),
        fragment(8, 12, true),
        fragment(24, 32, false),
    ] {
        let store = store(10);
        store.admit(id(1), fragment(8, 16, true), b"a", NOW);
        store.admit(id(1), fragment(16, 20, false), b"b", NOW);
        assert_eq!(
            store.admit(id(1), fragment(8, 16, true), b"a", NOW),
            Admit::Refused(DropReason::FragmentDuplicate)
        );
        assert_eq!(
            store.admit(id(1), bad, b"c", NOW),
            Admit::Refused(DropReason::FragmentOverlap),
            "{bad:?}"
        );
        assert_eq!(
            store.admit(id(1), fragment(0, 8, true), b"d", NOW),
            Admit::Refused(DropReason::FragmentOverlap)
        );
        assert_eq!(store.0.lock().held_bytes, 0);
        assert_eq!(
            store.expire(NOW),
            LostFragments { refused: lost(&[b"a", b"b"]), ..LostFragments::default() }
        );
    }
}

#[test]
fn incomplete_datagrams_end_with_their_time_and_their_identification_is_free_again() {
    let store = store(10);
    store.admit(id(1), fragment(8, 16, true), b"a", NOW);
    assert_eq!(store.expire(NOW.after(Span(14_999))), LostFragments::default());
    assert_eq!(
        store.expire(NOW.after(Span(15_000))),
        LostFragments { expired: lost(&[b"a"]), ..LostFragments::default() }
    );
    assert_eq!(
        store.admit(id(1), fragment(0, 12, true), b"b", NOW.after(Span(15_001))),
        Admit::First
    );
}

#[test]
fn a_late_fragment_does_not_join_a_datagram_whose_time_is_over() {
    let store = store(10);
    store.admit(id(1), fragment(0, 8, true), b"a", NOW);
    store.resolve(id(1), PASSED, NOW);
    assert_eq!(store.admit(id(1), fragment(8, 16, true), b"b", NOW), Admit::Resolved(PASSED));
    let later = NOW.after(Span(15_000));
    assert_eq!(store.admit(id(1), fragment(16, 20, false), b"c", later), Admit::Held);
}

#[test]
fn an_identification_is_free_for_the_next_datagram_once_all_fragments_have_passed() {
    let store = store(10);
    for _ in 0..3 {
        assert_eq!(store.admit(id(1), fragment(0, 8, true), b"a", NOW), Admit::First);
        store.resolve(id(1), PASSED, NOW);
        assert_eq!(store.admit(id(1), fragment(8, 9, false), b"b", NOW), Admit::Resolved(PASSED));
    }
}

fn of_source(number: u32, identification: u16) -> DatagramId {
    DatagramId { source: Ipv4Addr::from_bits(0xc633_6400 + number), ..id(identification) }
}

fn assert_consistent(store: &Fragments) {
    let inner = store.0.lock();
    let (count, bytes) = inner
        .usage
        .values()
        .fold((0, 0), |sum, used| (sum.0 + used.datagrams, sum.1 + used.held_bytes));
    let live = inner.datagrams.len();
    assert!(live <= inner.capacity && inner.held_bytes <= MAX_HELD_BYTES);
    assert_eq!((count, inner.by_eviction.len(), inner.by_source.len()), (live, live, live));
    assert_eq!(bytes, inner.held_bytes);
    for (id, datagram) in &inner.datagrams {
        assert_eq!(inner.by_eviction.get(&datagram.order), Some(id));
    }
}

/// UDP-14a: later fragments, first fragments that pass, and first fragments that are dropped, of
/// one source.
#[test]
fn a_source_that_never_completes_its_datagrams_harms_itself_alone() {
    for kind in 0..3 {
        let store = store(1000);
        // Datagrams of another host: one in order, one whose later fragment came first.
        assert_eq!(store.admit(id(1), fragment(0, 8, true), b"a", NOW), Admit::First);
        store.resolve(id(1), PASSED, NOW);
        assert_eq!(store.admit(id(2), fragment(8, 9, false), b"b", NOW), Admit::Held);
        for number in 0..10_000 {
            let flood = of_source(1, number);
            if kind == 0 {
                assert_eq!(
                    store.admit(flood, fragment(8, 1448, true), &[0; 1460], NOW),
                    Admit::Held
                );
            } else {
                store.admit(flood, fragment(0, 1440, true), &[0; 1460], NOW);
                let disposition =
                    if kind == 1 { PASSED } else { Disposition::Dropped(DropReason::NoMapping) };
                store.resolve(flood, disposition, NOW);
            }
        }
        assert_consistent(&store);
        assert!(store.0.lock().datagrams.len() <= 2 + 125);
        assert_eq!(store.admit(id(1), fragment(8, 9, false), b"b", NOW), Admit::Resolved(PASSED));
        assert_eq!(store.admit(id(2), fragment(0, 8, true), b"a", NOW), Admit::First);
        assert_eq!(store.resolve(id(2), PASSED, NOW).len(), 1);
    }
}

#[test]
fn spoofed_sources_take_no_room_from_datagrams_that_come_in_order() {
    let store = store(100);
    for round in 0..1000u16 {
        store.admit(id(round), fragment(0, 8, true), b"a", NOW);
        store.resolve(id(round), PASSED, NOW);
        for number in 0..50 {
            let flood = of_source(u32::from(round) * 50 + number, 7);
            store.admit(flood, fragment(8, 65_448, true), &[0; 65_460], NOW);
            store.admit(of_source(1_000_000 + number, round), fragment(0, 8, true), b"a", NOW);
        }
        assert_eq!(
            store.admit(id(round), fragment(8, 9, false), b"b", NOW),
            Admit::Resolved(PASSED)
        );
    }
    assert_consistent(&store);
    assert!(store.expire(NOW).evicted.count > 40_000);
}

#[test]
fn held_bytes_are_bounded_by_source() {
    let store = store(4096);
    store.admit(id(1), fragment(8, 9, false), b"b", NOW);
    for number in 0..200 {
        store.admit(of_source(1, number), fragment(8, 65_448, true), &[0; 65_460], NOW);
        assert!(store.0.lock().held_bytes <= MAX_HELD_BYTES / SHARE + 1);
    }
    assert_consistent(&store);
    assert_eq!(store.admit(id(1), fragment(0, 8, true), b"a", NOW), Admit::First);
    assert_eq!(store.resolve(id(1), PASSED, NOW).len(), 1);
}

#[test]
fn a_datagram_in_too_many_fragments_is_refused() {
    let store = store(10);
    store.admit(id(1), fragment(0, 8, true), b"a", NOW);
    for number in 1..MAX_FRAGMENTS as u32 {
        store.admit(id(1), fragment(number * 8, number * 8 + 8, true), b"a", NOW);
    }
    let more = fragment(MAX_FRAGMENTS as u32 * 8, MAX_FRAGMENTS as u32 * 8 + 8, true);
    assert_eq!(store.admit(id(1), more, b"a", NOW), Admit::Refused(DropReason::FragmentOverlap));
}

use proptest::prelude::*;

proptest! {
    /// Usage stays right for any input, and no fragment is both held and lost.
    #[test]
    fn any_sequence_of_fragments_leaves_the_usage_right(
        arrivals in proptest::collection::vec((0..4u32, 0..6u16, 0..6u32, 1..4u32, any::<bool>(), 0..4000u32), 0..300),
    ) {
        let store = store(20);
        let mut now = NOW;
        let (mut held, mut released) = (0, 0);
        for (source, identification, start, units, more, wait) in arrivals {
            now = now.after(Span(wait));
            let id = of_source(source, identification);
            match store.admit(id, fragment(start * 8, (start + units) * 8, more), &[0; 20_000], now) {
                Admit::First => {
                    let disposition = if source == 3 { Disposition::Dropped(DropReason::NoMapping) } else { PASSED };
                    released += store.resolve(id, disposition, now).len() as u64;
                }
                Admit::Held => held += 1,
                Admit::Resolved(_) | Admit::Refused(_) => {}
            }
            assert_consistent(&store);
        }
        let lost = store.expire(now.after(Span(15_000)));
        prop_assert_eq!(held, released + lost.expired.count + lost.evicted.count + lost.refused.count);
        let inner = store.0.lock();
        prop_assert!(inner.datagrams.is_empty() && inner.usage.is_empty() && inner.held_bytes == 0);
    }
}

fn lost(fragments: &[&[u8]]) -> Lost {
    let heads = fragments.iter().map(|fragment| PacketHead::of(fragment)).collect();
    Lost { count: fragments.len() as u64, heads }
}

#[test]
fn the_heads_of_the_last_lost_fragments_are_kept() {
    let mut lost = Lost::default();
    let fragment = |number: u8| -> Box<[u8]> { Box::new([number; 3]) };
    lost.add(&[fragment(1), fragment(2)]);
    lost.add(&(3..=40).map(fragment).collect::<Vec<_>>());
    lost.add(&[fragment(41)]);
    let kept: Vec<u8> = lost.heads.iter().map(|head| head.bytes()[0]).collect();
    assert_eq!((lost.count, kept), (41, (26..=41).collect()));
}

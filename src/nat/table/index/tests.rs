use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn equal_lanes_finds_exactly_the_equal_ones() {
    let samples = [0u16, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
    for tag in samples {
        for mask in 0..4096usize {
            let lanes = [0, 1, 2, 3].map(|lane| samples[mask >> (3 * lane) & 7]);
            let word = lanes.iter().rev().fold(0u64, |word, lane| word << 16 | u64::from(*lane));
            let expected =
                (0..4).filter(|lane| lanes[*lane] == tag).fold(0, |bits, lane| bits | 1 << lane);
            assert_eq!(equal_lanes(word, tag), expected, "{lanes:x?} {tag:x}");
        }
    }
}

#[test]
fn a_small_index_takes_every_slot_even_when_all_keys_want_one_bucket() {
    let index = Index::new(100, None).expect("memory");
    let slots = index.buckets.len() * SLOTS;
    let hash = KeyHash(0x1234);
    let locked = index.lock(hash);
    for id in 0..slots as u32 {
        locked.insert(hash, IndexEntry(id)).expect("a free bucket");
    }
    assert_eq!(locked.insert(hash, IndexEntry(0)), Err(ShardFull));
    for id in 0..slots as u32 {
        assert_eq!(locked.find(hash, |entry| entry.0 == id), Some(IndexEntry(id)));
    }
    for id in (0..slots as u32).rev() {
        assert!(locked.remove(hash, IndexEntry(id)));
        assert!(!locked.remove(hash, IndexEntry(id)));
    }
    assert!(index.buckets.iter().all(|bucket| bucket.overflow.load(Relaxed) == 0));
}

proptest! {
    #[test]
    fn behaves_like_a_set_of_pairs(
        entries in 1usize..200,
        operations in prop::collection::vec((0u64..40, 0u32..6, prop::bool::weighted(0.6)), 1..600),
    ) {
        let index = Index::new(entries, None).expect("memory");
        let room = index.buckets.len() * SLOTS;
        let mut model = HashSet::new();
        for (number, id, add) in operations {
            // Few buckets and few tags, so that chains and equal tags are the rule; every entry has
            // one hash.
            let hash = KeyHash(((number % 7) << 61) | ((number % 3) << 40) | (number % 4));
            let entry = IndexEntry(number as u32 * 8 + id);
            let locked = index.lock(hash);
            prop_assert_eq!(locked.find(hash, |other| other == entry).is_some(), model.contains(&entry.0));
            let present = model.contains(&entry.0);
            if add && !present && locked.insert(hash, entry).is_ok() {
                model.insert(entry.0);
            } else if add && !present {
                prop_assert!(index.shards.len() > 1 || model.len() == room);
            } else if !add {
                prop_assert_eq!(locked.remove(hash, entry), present);
                model.remove(&entry.0);
            }
        }
    }
}

use std::net::Ipv4Addr;

use super::*;
use crate::nat::table::key::{Key, SessionKey};
use crate::packet::{Endpoint, Protocol, Tuple};

fn hash(hasher: &KeyHasher, key: Key) -> KeyHash {
    key.hash_with(hasher)
}

fn tuple(index: u32) -> Tuple {
    Tuple {
        protocol: Protocol::TCP,
        source: Endpoint::new(
            Ipv4Addr::from_bits(0xc633_6400 + index / 60_000),
            (index % 60_000) as u16,
        ),
        destination: Endpoint::new(Ipv4Addr::new(203, 0, 113, 10), 80),
    }
}

#[test]
fn every_field_of_the_key_moves_the_hash() {
    let hasher = KeyHasher::new([1, 2, 3, 4]);
    let key = Key::of(tuple(7));
    let expected = hash(&hasher, key);
    for bit in 0..64 {
        assert_ne!(
            expected,
            hash(&hasher, Key { addresses: key.addresses ^ 1 << bit, ..key }),
            "address bit {bit}"
        );
    }
    for bit in 0..32 {
        assert_ne!(
            expected,
            hash(&hasher, Key { ports: key.ports ^ 1 << bit, ..key }),
            "port bit {bit}"
        );
    }
    assert_ne!(expected, hash(&hasher, Key { protocol: 17, ..key }));
}

#[test]
fn neighbouring_tuples_spread_evenly_over_buckets_and_tags() {
    let hasher = KeyHasher::new([0x1234_5678, 0x9abc, 0xdef0_1111, 0x2222_3333]);
    let mut buckets = vec![0u32; 1024];
    let mut tags = vec![0u32; 1024];
    let count = 256 * 1024;
    for index in 0..count {
        let KeyHash(value) = hash(&hasher, Key::of(tuple(index)));
        buckets[(value >> 54) as usize] += 1;
        tags[(value & 1023) as usize] += 1;
    }
    // Mean 256, standard deviation 16: eight of them is far beyond chance.
    for filled in buckets.into_iter().chain(tags) {
        assert!((128..=384).contains(&filled), "one of 1024 cells holds {filled} of {count}");
    }
}

#[test]
fn two_processes_place_the_same_flow_differently() {
    let (one, other) = (KeyHasher::new([1, 2, 3, 4]), KeyHasher::new([5, 6, 7, 8]));
    let same = (0..1000)
        .filter(|index| {
            hash(&one, Key::of(tuple(*index))).0 >> 54
                == hash(&other, Key::of(tuple(*index))).0 >> 54
        })
        .count();
    assert!(same < 20, "{same} of 1000 flows share one of 1024 buckets under both keys");
}

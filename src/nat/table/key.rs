//! Keys of the index: tuples packed for comparison, and the keyed hash over them.

use std::net::Ipv4Addr;

use crate::packet::{Endpoint, Protocol, Tuple};

/// A tuple packed into two words and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source address in the upper half, destination in the lower.
    pub addresses: u64,
    /// Source port in the upper half, destination in the lower.
    pub ports: u32,
    /// IP protocol.
    pub protocol: u8,
}

impl Key {
    /// Packs a tuple.
    #[inline]
    pub fn of(tuple: Tuple) -> Self {
        Self {
            addresses: u64::from(tuple.source.address.to_bits()) << 32
                | u64::from(tuple.destination.address.to_bits()),
            ports: u32::from(tuple.source.port) << 16 | u32::from(tuple.destination.port),
            protocol: tuple.protocol.0,
        }
    }

    /// Unpacks the tuple.
    #[inline]
    pub fn tuple(self) -> Tuple {
        Tuple {
            protocol: Protocol(self.protocol),
            source: Endpoint::new(
                Ipv4Addr::from_bits((self.addresses >> 32) as u32),
                (self.ports >> 16) as u16,
            ),
            destination: Endpoint::new(
                Ipv4Addr::from_bits(self.addresses as u32),
                self.ports as u16,
            ),
        }
    }
}

/// Hash of a [`Key`]: the upper half names the bucket, the lowest 16 bits are the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// The keyed hash.
///
/// Outsiders choose their ports, so the hash depends on a key drawn at start: two rounds of a 64 x 64 -> 128 bit
/// multiplication folded by exclusive or, each round mixing in secret words. Not a cryptographic MAC; what it must
/// resist is filling one bucket without seeing any output, and its outputs are never shown.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    secret: [u64; 4],
}

impl KeyHasher {
    /// A hasher with this secret. The words should come from the system's random source.
    pub fn new(secret: [u64; 4]) -> Self {
        Self { secret: secret.map(|word| word | 1 << 63 | 1) }
    }

    /// Hashes a key.
    #[inline]
    pub fn hash(&self, key: Key) -> KeyHash {
        let [a, b, c, d] = self.secret;
        let second = u64::from(key.ports) << 8 | u64::from(key.protocol);
        let round = folded_multiply(key.addresses ^ a, second ^ b);
        KeyHash(folded_multiply(round ^ c, d.wrapping_add(key.addresses.rotate_left(23))))
    }
}

#[inline]
fn folded_multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_key_unpacks_to_its_tuple() {
        for index in [0, 1, 59_999, 60_000, 1_000_000] {
            assert_eq!(Key::of(tuple(index)).tuple(), tuple(index));
        }
    }

    #[test]
    fn every_field_of_the_key_moves_the_hash() {
        let hasher = KeyHasher::new([1, 2, 3, 4]);
        let key = Key::of(tuple(7));
        let hash = hasher.hash(key);
        for bit in 0..64 {
            assert_ne!(
                hash,
                hasher.hash(Key { addresses: key.addresses ^ 1 << bit, ..key }),
                "address bit {bit}"
            );
        }
        for bit in 0..32 {
            assert_ne!(
                hash,
                hasher.hash(Key { ports: key.ports ^ 1 << bit, ..key }),
                "port bit {bit}"
            );
        }
        assert_ne!(hash, hasher.hash(Key { protocol: 17, ..key }));
    }

    #[test]
    fn neighbouring_tuples_spread_evenly_over_buckets_and_tags() {
        let hasher = KeyHasher::new([0x1234_5678, 0x9abc, 0xdef0_1111, 0x2222_3333]);
        let mut buckets = vec![0u32; 1024];
        let mut tags = vec![0u32; 1024];
        let count = 256 * 1024;
        for index in 0..count {
            let KeyHash(hash) = hasher.hash(Key::of(tuple(index)));
            buckets[(hash >> 54) as usize] += 1;
            tags[(hash & 1023) as usize] += 1;
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
                one.hash(Key::of(tuple(*index))).0 >> 54
                    == other.hash(Key::of(tuple(*index))).0 >> 54
            })
            .count();
        assert!(same < 20, "{same} of 1000 flows share one of 1024 buckets under both keys");
    }
}

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
mod tests;

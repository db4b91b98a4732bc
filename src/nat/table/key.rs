//! Keys of the index: tuples packed for comparison.

use std::fmt;
use std::hash::Hash;
use std::net::Ipv4Addr;

use crate::nat::table::hash::{KeyHash, KeyHasher};
use crate::packet::{Endpoint, Protocol, Tuple};

/// A tuple packed for comparison, of any address family.
pub trait SessionKey: Copy + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// The tuple, unpacked.
    type Tuple: Copy + Eq + fmt::Debug + Send + Sync + 'static;

    /// Unpacks the tuple.
    fn tuple(self) -> Self::Tuple;

    /// Unpacks the tuple of the opposite direction.
    fn reversed_tuple(self) -> Self::Tuple;

    /// Hashes the key.
    fn hash_with(self, hasher: &KeyHasher) -> KeyHash;

    /// Hashes the two addresses alone.
    fn hash_hosts_with(self, hasher: &KeyHasher) -> KeyHash;
}

/// An IPv4 tuple packed into two words and a protocol.
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

impl SessionKey for Key {
    type Tuple = Tuple;

    #[inline]
    fn tuple(self) -> Tuple {
        Self::tuple(self)
    }

    #[inline]
    fn reversed_tuple(self) -> Tuple {
        Self::tuple(self).reversed()
    }

    #[inline]
    fn hash_with(self, hasher: &KeyHasher) -> KeyHash {
        hasher.hash(self.addresses, u64::from(self.ports) << 8 | u64::from(self.protocol))
    }

    #[inline]
    fn hash_hosts_with(self, hasher: &KeyHasher) -> KeyHash {
        hasher.hash(self.addresses, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_unpacks_to_its_tuple() {
        for index in [0, 1, 59_999, 60_000] {
            let tuple = Tuple {
                protocol: Protocol::TCP,
                source: Endpoint::new(Ipv4Addr::from_bits(0xc633_6400 + index), index as u16),
                destination: Endpoint::new(Ipv4Addr::new(203, 0, 113, 10), 80),
            };
            assert_eq!(Key::of(tuple).tuple(), tuple);
        }
    }
}

//! The seed of a translator: the source of every secret and every random choice.
//!
//! ```text
//!   Seed ─▶ table hash · host hash · keys of the maps · key of the identifications · key of the ICMP error limits
//!        └▶ a generator for each worker: external ports, costs of ICMP errors
//! ```
//!
//! Two translators with one seed, the same limits and the same policy give the same output for the
//! same packets.

use std::fmt;
use std::hash::BuildHasher;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use siphasher::sip::SipHasher13;

/// The source of all randomness of one translator, 256 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Draws a seed from a generator that the operating system has seeded.
    ///
    /// Remote hosts must not predict ports and hash buckets (RFC 6056), so a translator on a
    /// network uses this one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// Replays a run: tests, benches, captures.
impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }
}

impl From<[u8; 32]> for Seed {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Shows no byte of the seed: it is a secret.
impl fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seed(..)")
    }
}

/// What a translator derives from its seed at the start.
pub(crate) struct Secrets {
    /// Key of the hash over session keys.
    pub(crate) table: [u64; 4],
    /// Key of the hash that spreads inside hosts over uplinks and external addresses.
    pub(crate) hosts: u64,
    /// Key of the maps beside the session table.
    pub(crate) maps: HashKey,
    /// Key of the IP identifications.
    pub(crate) identifications: HashKey,
    /// Key of the buckets of the ICMP error limits.
    pub(crate) icmp_errors: HashKey,
    /// Seed of the workers' generators.
    pub(crate) workers: WorkerSeed,
}

impl Secrets {
    /// Derives the secrets of a seed.
    pub(crate) fn of(seed: Seed) -> Self {
        let mut random = StdRng::from_seed(seed.0);
        Self {
            table: random.random(),
            hosts: random.random(),
            maps: HashKey::draw(&mut random),
            identifications: HashKey::draw(&mut random),
            icmp_errors: HashKey::draw(&mut random),
            workers: WorkerSeed(random.random()),
        }
    }
}

/// Seed of the workers' generators.
#[derive(Clone, Copy)]
pub(crate) struct WorkerSeed([u8; 32]);

impl WorkerSeed {
    /// Draws a seed.
    pub(crate) fn draw(random: &mut StdRng) -> Self {
        Self(random.random())
    }

    /// The generator of a worker; the same one for each call with the same number.
    pub(crate) fn rng(self, worker: usize) -> StdRng {
        let Self(mut seed) = self;
        for (byte, number) in seed.iter_mut().zip((worker as u64).to_le_bytes()) {
            *byte ^= number;
        }
        StdRng::from_seed(seed)
    }
}

/// Key of a SipHash: the hash values do not reveal it.
#[derive(Clone, Copy)]
pub(crate) struct HashKey(u64, u64);

impl HashKey {
    /// Draws a key.
    pub(crate) fn draw(random: &mut StdRng) -> Self {
        Self(random.random(), random.random())
    }
}

impl BuildHasher for HashKey {
    type Hasher = SipHasher13;

    #[inline]
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

#[cfg(test)]
impl HashKey {
    /// A key for a test of one part.
    pub(crate) fn of(number: u64) -> Self {
        Self(number, !number)
    }
}

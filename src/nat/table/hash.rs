//! The keyed hash over the keys of the index.

/// Hash of a key: the upper half names the bucket, the lowest 16 bits are the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// Hashes the words of keys under a secret.
///
/// Outsiders choose their ports, so the hash depends on a secret drawn at start: two rounds of a
/// 64 x 64 -> 128 bit multiplication folded by exclusive or, each round mixing in secret words. The
/// hash is not a cryptographic MAC. It must resist an attacker who fills one bucket without seeing
/// any output, and natbox never shows an output.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    secret: [u64; 4],
}

impl KeyHasher {
    /// Makes a hasher with this secret, which should be random.
    pub fn new(secret: [u64; 4]) -> Self {
        Self { secret: secret.map(|word| word | 1 << 63 | 1) }
    }

    /// Hashes the two words of a key.
    #[inline]
    pub fn hash(&self, first: u64, second: u64) -> KeyHash {
        let [a, b, c, d] = self.secret;
        let round = folded_multiply(first ^ a, second ^ b);
        KeyHash(folded_multiply(round ^ c, d.wrapping_add(first.rotate_left(23))))
    }
}

#[inline]
fn folded_multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;

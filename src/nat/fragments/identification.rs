//! IP identifications of packets that leave under an external address (RFC 6864 section 5.3.1).
//!
//! Hosts that share an external address number their packets independently. So fragments of two
//! datagrams could meet at the receiver under one identification. natbox therefore gives every
//! packet that is or may become fragments an identification of its own: no two of the last 65,536
//! from one source to one destination by one protocol are equal.
//!
//! A fixed table of counters is shared by all pairs of addresses; a keyed hash picks the counter of
//! a pair. The value of a counter passes through a permutation that belongs to the pair. So a host
//! that sees the identifications of its own pair can infer neither those of another pair nor how
//! many others use the counter (RFC 4963 and RFC 7739 say why that matters):
//!
//! ```text
//!   counter   │ block, 10 bits │ place, 6 bits │
//!                    │ four Feistel rounds │ affine map of the block; the identity in a run
//!   number    │ block, 10 bits │ place, 6 bits │
//! ```
//!
//! The kernel or the network card numbers the segments of a super-packet upwards from the
//! super-packet's own identification. Such a *run* gets blocks to itself. With any usual MSS a run
//! has at most [`BLOCK`] segments; a longer one would use identifications of the blocks after its
//! own.

use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::nat::seed::HashKey;
use crate::packet::Protocol;

/// Allocates identifications; shared by the workers.
pub(crate) struct Identifications {
    /// SipHash under a key from the translator's seed: its values do not reveal the key.
    key: HashKey,
    /// All accesses are relaxed: one atomic step takes an identification, and nothing else depends
    /// on it.
    counters: Box<[AtomicU16]>,
}

impl Identifications {
    /// Makes counters whose permutations depend on `key`.
    pub(crate) fn new(key: HashKey) -> Self {
        Self { key, counters: (0..COUNTERS).map(|_| AtomicU16::new(0)).collect() }
    }

    /// Takes the identification of a packet, or the first of `segments` consecutive ones.
    pub(crate) fn take(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        segments: u16,
    ) -> u16 {
        let key = self.key.hash_one((source, destination, protocol));
        let counter = &self.counters[key as usize % COUNTERS];
        if segments <= 1 {
            return of_packet(counter.fetch_add(1, Relaxed), key);
        }
        let after_run = |count| Some(next_block(next_block(count).wrapping_add(segments)));
        let (Ok(count) | Err(count)) = counter.fetch_update(Relaxed, Relaxed, after_run);
        of_run(count, key)
    }

    /// Returns what [`Self::take`] would return, and takes nothing.
    pub(crate) fn next(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        segments: u16,
    ) -> u16 {
        let key = self.key.hash_one((source, destination, protocol));
        let count = self.counters[key as usize % COUNTERS].load(Relaxed);
        if segments <= 1 { of_packet(count, key) } else { of_run(count, key) }
    }
}

/// The identification of one packet.
fn of_packet(count: u16, key: u64) -> u16 {
    let block = scrambled(count / BLOCK, key);
    let spread = mixed(key, block);
    let place = (count % BLOCK).wrapping_mul(spread | 1).wrapping_add(spread >> 8) % BLOCK;
    block * BLOCK + place
}

/// The first identification of a run.
fn of_run(count: u16, key: u64) -> u16 {
    scrambled(next_block(count) / BLOCK, key) * BLOCK
}

fn next_block(count: u16) -> u16 {
    count.wrapping_add(BLOCK - 1) / BLOCK * BLOCK
}

/// Permutes the blocks: a Feistel network over two halves of five bits.
fn scrambled(block: u16, key: u64) -> u16 {
    let (mut left, mut right) = (block / HALF, block % HALF);
    for round in 0..ROUNDS {
        (left, right) = (right, left ^ (mixed(key.rotate_left(16 * round), right) % HALF));
    }
    left * HALF + right
}

/// Sixteen bits that depend on all of the key.
fn mixed(key: u64, value: u16) -> u16 {
    ((key ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

/// Counters, 2 bytes each; a power of two. Pairs that share a counter leave gaps in each other's
/// identifications, and no repeats.
const COUNTERS: usize = 1 << 14;
/// Identifications of a block.
const BLOCK: u16 = 64;
/// Values of half of a block's number.
const HALF: u16 = 32;
const ROUNDS: u32 = 4;

const _: () = assert!(HALF as u32 * HALF as u32 * BLOCK as u32 == 1 << 16);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn destination(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, number)
    }

    #[test]
    fn any_65536_successive_identifications_differ() {
        let identifications = Identifications::new(HashKey::of(1));
        let take = |number| identifications.take(SOURCE, destination(number), Protocol::UDP, 1);
        for skipped in [0, 1, 1000] {
            for _ in 0..skipped {
                take(1);
            }
            let numbers: HashSet<u16> = (0..1 << 16).map(|_| take(1)).collect();
            assert_eq!(numbers.len(), 1 << 16);
        }
    }

    #[test]
    fn a_run_is_consecutive_and_apart_from_all_other_numbers() {
        let identifications = Identifications::new(HashKey::of(1));
        let mut taken = HashSet::new();
        for round in 0..300u16 {
            for _ in 0..round % 5 {
                assert!(taken.insert(identifications.take(
                    SOURCE,
                    destination(1),
                    Protocol::TCP,
                    1
                )));
            }
            let segments = 2 + round % 63;
            let first = identifications.take(SOURCE, destination(1), Protocol::TCP, segments);
            for offset in 0..segments {
                assert!(taken.insert(first + offset), "segment {offset} of round {round}");
            }
        }
    }

    /// SEC-4: steps, another pair's identifications and another instance's identifications reveal
    /// nothing.
    #[test]
    fn identifications_cannot_be_inferred_from_earlier_ones_or_from_others() {
        let sequence = |identifications: &Identifications, number| {
            (0..2000)
                .map(|_| identifications.take(SOURCE, destination(number), Protocol::UDP, 1))
                .collect::<Vec<_>>()
        };
        let one = Identifications::new(HashKey::of(1));
        let (first, second, third) = (
            sequence(&one, 1),
            sequence(&one, 2),
            sequence(&Identifications::new(HashKey::of(2)), 1),
        );
        for (left, right) in [(&first, &second), (&first, &third)] {
            let equal = left.iter().zip(right).filter(|(left, right)| left == right).count();
            assert!(equal < 200, "{equal} of 2000 numbers agree");
        }
        let steps: HashSet<u16> =
            first.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 20, "{} kinds of steps", steps.len());
        let upper_half = first.iter().filter(|number| **number >= 1 << 15).count();
        assert!((200..1800).contains(&upper_half), "{upper_half} of 2000 in the upper half");
    }

    #[test]
    fn workers_never_take_the_same_identification() {
        let identifications = Identifications::new(HashKey::of(1));
        let taken: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let take = || {
                scope.spawn(|| {
                    (0..4000)
                        .map(|_| identifications.take(SOURCE, destination(1), Protocol::UDP, 1))
                        .collect()
                })
            };
            let threads: Vec<_> = (0..4).map(|_| take()).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let distinct: HashSet<u16> = taken.iter().flatten().copied().collect();
        assert_eq!(distinct.len(), 16_000);
    }
}

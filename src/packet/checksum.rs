//! The Internet checksum, and its update after a change of a few words.
//!
//! # The sum
//! RFC 1071: split the bytes into 16-bit words, add them in ones' complement arithmetic (a carry
//! out of the top is added at the bottom), store the complement. A receiver adds all words, the
//! stored field included, and finds `0xffff`. This module relies on two properties:
//!
//! * The sum is arithmetic modulo `0xffff`, so words may be added in any order and any grouping.
//!   [`sum`] adds 32-bit words and folds at the end. A `u64` holds every sum that a packet can
//!   have.
//! * Any byte order gives the same sum, as swapping the bytes of every word swaps the bytes of the
//!   sum. [`sum`] adds in the machine's order and swaps once at the end. By the same property a
//!   16-bit value at an odd offset counts with its bytes swapped (MSS options may start at odd
//!   offsets).
//!
//! # The change
//! The update formula of RFC 1141 is wrong for one value. RFC 1624 corrects it (its equation 3).
//! With `HC` the stored field, `m` the old word and `m'` the new one:
//!
//! ```text
//!   HC' = ~(~HC + ~m + m')
//! ```
//!
//! A [`ChecksumDelta`] is the `~m + m'` part for any number of words. It is added to the stored
//! field; the field is never computed from the packet. So a wrong checksum stays wrong by the same
//! amount, and the receiver notices. A translator that "repairs" checksums would hide damage that
//! happened on the way to it.
//!
//! # The two zeros
//! Ones' complement has two zeros, `0x0000` and `0xffff`. A sum of words that are not all zero
//! folds to `1..=0xffff`, never to 0. Its complement, the stored field, is therefore in
//! `0..=0xfffe`. Equation 3 keeps to that range (RFC 1141 does not). There are four exceptions:
//!
//! * UDP uses a field of `0x0000` for "no checksum" (RFC 768). The field then stays as it is, while
//!   the ports are rewritten. A *computed* `0x0000` is sent as `0xffff`. For TCP and ICMP `0x0000`
//!   is a value like any other.
//! * UDP-Lite allows no field of `0x0000` (RFC 3828 section 3.1). natbox treats the field like that
//!   of UDP: an illegal zero stays, and the receiver drops the packet.
//! * An ICMP message of zeros only (an echo reply with identifier 0, sequence 0 and zeros for data)
//!   is the only sum in natbox that can be 0. Its field is `0xffff`, as receivers would refuse
//!   `0x0000`. TCP and UDP never sum to 0, because the pseudo header holds a protocol number. An IP
//!   header never does, because it holds a version.
//! * A sender may write `0xffff` for a TCP checksum of zero. For receivers the two are equal, and
//!   natbox may send `0x0000` instead.
//!
//! # Complete and partial
//! Inside one machine a packet may have an unfinished TCP or UDP checksum (virtio's NEEDS_CSUM,
//! Linux' CHECKSUM_PARTIAL). The field then holds the folded sum over the pseudo header alone, *not
//! complemented*. The last kernel or network card adds the segment and complements. The
//! consequences:
//!
//! * The pseudo header has the addresses. A change of address is added to the field without
//!   complementing, which is the opposite sign of the complete case.
//! * The pseudo header has no ports and no options. A change of a port or of the MSS leaves the
//!   field alone.
//! * A field of zero is a sum, not "no checksum".
//!
//! None of this applies to the IP header, to ICMP, or to the packet inside an ICMP error.

/// The sum of a valid IP header or ICMP message, its checksum field included.
pub(super) const VALID: u16 = 0xffff;

/// A change of checksummed words, which is added to a checksum field.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChecksumDelta(u64);

impl ChecksumDelta {
    /// Adds the replacement of one 16-bit word at an even offset.
    #[inline]
    #[must_use]
    pub(super) fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Adds the replacement of two words at an even offset.
    #[inline]
    #[must_use]
    pub(super) fn two_words(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Returns the new value of a field that holds a complemented sum: IP, TCP, ICMP.
    #[inline]
    pub(super) fn apply(self, field: u16) -> u16 {
        !fold(self.0 + u64::from(!field))
    }

    /// Updates the field at offset `at` of `bytes`, which holds a complemented sum.
    #[inline]
    pub(super) fn update(self, bytes: &mut [u8], at: usize) {
        let field = self.apply(word(bytes, at));
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }

    /// Returns the new value of a UDP checksum. 0 stays 0, and no other value becomes 0.
    #[inline]
    pub(super) fn apply_to_udp(self, field: u16) -> u16 {
        if field == 0 { 0 } else { udp_nonzero(self.apply(field)) }
    }

    /// Returns the new value of a field that holds a plain sum over the pseudo header.
    #[inline]
    pub(super) fn apply_to_partial(self, field: u16) -> u16 {
        fold(self.0 + u64::from(field))
    }
}

/// Returns the 16-bit word at offset `at`.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Returns a computed UDP checksum as it is sent (RFC 768).
#[inline]
pub(super) fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Folds a sum of 16-bit or 32-bit words to 16 bits. Returns 0 only if all words were zero.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    // The sum after each line: below 2^33, below 2^18, at most 2^16 + 2, at most 2^16 - 1.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Returns the folded sum of `bytes`, not complemented. A zero follows an odd last byte (RFC 1071).
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        total += u64::from(u32::from_ne_bytes(last));
    }
    u16::from_be(fold(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CORNERS: [u16; 6] = [0x0000, 0x0001, 0x7fff, 0x8000, 0xfffe, 0xffff];

    /// The same sum, slow and obvious: one word at a time, one carry at a time.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    fn words(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    #[test]
    fn corner_words_change_like_a_new_sum() {
        // The constant word stands for the rest of the packet. Like a pseudo header, it makes the
        // sum non-zero.
        for constant in [0x0001, 0x1234, 0xfffe, 0xffff] {
            for old in CORNERS {
                for new in CORNERS {
                    for (old_second, new_second) in
                        CORNERS.iter().flat_map(|a| CORNERS.map(|b| (*a, b)))
                    {
                        let before = !reference(&words(&[constant, old, old_second]));
                        let after = !reference(&words(&[constant, new, new_second]));
                        let change =
                            ChecksumDelta::default().word(old, new).word(old_second, new_second);
                        assert_eq!(
                            change.apply(before),
                            after,
                            "{constant:04x} {old:04x}>{new:04x}"
                        );
                        assert_eq!(change.apply_to_partial(!before), !after);
                    }
                }
            }
        }
    }

    #[test]
    fn udp_zero_stays_and_never_results() {
        for old in CORNERS {
            for new in CORNERS {
                let change = ChecksumDelta::default().word(old, new);
                assert_eq!(change.apply_to_udp(0), 0);
                for field in 1..=u16::MAX {
                    let after = change.apply_to_udp(field);
                    assert_ne!(after, 0);
                    assert_eq!(u32::from(after) % 0xffff, u32::from(change.apply(field)) % 0xffff);
                }
            }
        }
    }

    #[test]
    fn a_fold_is_the_remainder_and_zero_only_for_zero() {
        let mut edges: Vec<u64> =
            (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).collect();
        edges.extend([
            u64::MAX,
            u64::MAX - 1,
            0xffff_0000_0000,
            0xffff_0001,
            0xffff_ffff_0000_0001,
        ]);
        for first in &edges {
            for second in &edges {
                let sum = first.wrapping_add(*second);
                assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:x}");
                assert_eq!(fold(sum) == 0, sum == 0, "{sum:x}");
            }
        }
    }

    #[test]
    fn rfc_1624_example_gives_zero() {
        // RFC 1624 §4: RFC 1141 would give 0xffff here.
        assert_eq!(ChecksumDelta::default().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_equals_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(sum(&bytes), reference(&bytes));
        }

        #[test]
        fn change_equals_a_new_sum(
            rest in 1u16.., old in any::<(u32, u32, u16, u16)>(), new in any::<(u32, u32, u16, u16)>(),
        ) {
            let bytes = |(a, b, c, d): (u32, u32, u16, u16)| {
                let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
                [&rest.to_be_bytes()[..], &a, &b, &c.to_be_bytes(), &d.to_be_bytes()].concat()
            };
            let change = ChecksumDelta::default()
                .two_words(old.0, new.0).two_words(old.1, new.1).word(old.2, new.2).word(old.3, new.3);
            prop_assert_eq!(change.apply(!reference(&bytes(old))), !reference(&bytes(new)));
        }

        #[test]
        fn a_value_at_an_odd_offset_counts_with_its_bytes_swapped(bytes: [u8; 6], new: [u8; 2]) {
            prop_assume!(bytes[0] != 0);
            let mut changed = bytes;
            changed[3..5].copy_from_slice(&new);
            let old = u16::from_be_bytes([bytes[3], bytes[4]]);
            let change = ChecksumDelta::default().word(old.swap_bytes(), u16::from_be_bytes(new).swap_bytes());
            prop_assert_eq!(change.apply(!reference(&bytes)), !reference(&changed));
        }
    }
}

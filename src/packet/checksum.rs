//! The Internet checksum, and how to change a packet without reading all of it.
//!
//! # The sum
//! RFC 1071: split the bytes into 16-bit words, add them in ones' complement arithmetic (a carry out of the top comes
//! back in at the bottom), store the complement. A receiver adds everything up, the stored field included, and finds
//! `0xffff`. Two properties carry this module:
//!
//! * The sum is arithmetic modulo `0xffff`, so words may be added in any order and any grouping. [`sum`] adds 32-bit
//!   words and folds at the end; a `u64` holds every sum that a packet can have.
//! * Byte order does not matter as long as it is one order: swapping the bytes of every word swaps the bytes of the sum.
//!   [`sum`] adds in the machine's order and swaps once at the end. The same property says what a 16-bit
//!   value at an odd offset contributes: its bytes swapped (MSS options may stand at odd offsets).
//!
//! # The change
//! RFC 1141 gave an update formula that is wrong for one value; RFC 1624 mends it (its equation 3). With `HC` the stored
//! field, `m` the old word and `m'` the new one:
//!
//! ```text
//!   HC' = ~(~HC + ~m + m')
//! ```
//!
//! A [`ChecksumDelta`] is the `~m + m'` part for any number of words. It is added to whatever stands in the field; the field
//! is never computed anew. So a wrong checksum stays wrong by the same amount, and the receiver notices: a
//! translator that "repairs" checksums hides the damage of the line before it.
//!
//! # The two zeros
//! Ones' complement has two of them, `0x0000` and `0xffff`. A sum of words that are not all zero folds to `1..=0xffff`,
//! never to 0, so its complement, the stored field, is in `0..=0xfffe`. Equation 3 keeps to that range (RFC 1141 did
//! not). Three exceptions:
//!
//! * UDP uses a field of `0x0000` to say "no checksum" (RFC 768). It stays as it is, while the ports are still
//!   rewritten; a *computed* `0x0000` is sent as `0xffff`. For TCP and ICMP `0x0000` is a value like any other.
//! * An ICMP message of nothing but zeros (an echo reply with identifier 0, sequence 0 and zeros for data) is the one
//!   sum in this program that can be 0: its field is `0xffff`, and `0x0000` would be refused by receivers. TCP and
//!   UDP cannot get there, the pseudo header holds a protocol number; nor can an IP header, it holds a version.
//! * A field of `0xffff` that someone wrote for a TCP checksum of zero is equal to `0x0000` for every receiver, and
//!   may leave as `0x0000`.
//!
//! # Complete and partial
//! Inside one machine a packet may travel with its TCP or UDP checksum unfinished (virtio's NEEDS_CSUM, Linux'
//! CHECKSUM_PARTIAL). The field then holds the folded sum over the pseudo header alone, *not complemented*, and
//! whoever puts the packet on a wire adds the segment and complements. Hence:
//!
//! * the pseudo header has the addresses: a change of address is added to the field as it stands, without
//!   complementing, which is the opposite sign of the complete case;
//! * it has no ports and no options: a change of port or of the MSS leaves the field alone;
//! * a field of zero is a sum, not "no checksum".
//!
//! This never applies to the IP header, to ICMP, or to the packet inside an ICMP error.

/// What a valid IP header, or a valid ICMP message, sums to, its checksum field included.
pub(super) const VALID: u16 = 0xffff;

/// A change to checksummed words, to be added to a checksum field.
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

    /// The new value of a field that holds a complemented sum: IP, TCP, ICMP.
    #[inline]
    pub(super) fn apply(self, field: u16) -> u16 {
        !fold(self.0 + u64::from(!field))
    }

    /// The new value of a UDP checksum: 0 stays, and is never made.
    #[inline]
    pub(super) fn applied_to_udp(self, field: u16) -> u16 {
        if field == 0 { 0 } else { udp_nonzero(self.apply(field)) }
    }

    /// The new value of a field that holds a plain sum over the pseudo header.
    #[inline]
    pub(super) fn applied_to_partial(self, field: u16) -> u16 {
        fold(self.0 + u64::from(field))
    }
}

/// A computed UDP checksum as it is sent (RFC 768).
#[inline]
pub(super) fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Brings a sum of 16-bit or 32-bit words down to 16 bits. 0 only for a sum of nothing but zeros.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    // Left after each line: below 2^33, below 2^18, at most 2^16 + 2, at most 2^16 - 1.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The folded sum of `bytes`, not complemented; an odd last byte is followed by a zero (RFC 1071).
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

    /// Slow and obvious: one word at a time, one carry at a time.
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
    fn corner_words_change_as_if_summed_anew() {
        // The constant word stands for the rest of the packet; it makes the sum non-zero as a pseudo header does.
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
                        assert_eq!(change.applied_to_partial(!before), !after);
                    }
                }
            }
        }
    }

    #[test]
    fn udp_zero_stays_and_is_never_made() {
        for old in CORNERS {
            for new in CORNERS {
                let change = ChecksumDelta::default().word(old, new);
                assert_eq!(change.applied_to_udp(0), 0);
                for field in 1..=u16::MAX {
                    let after = change.applied_to_udp(field);
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
        fn value_at_an_odd_offset_counts_with_its_bytes_swapped(bytes: [u8; 6], new: [u8; 2]) {
            prop_assume!(bytes[0] != 0);
            let mut changed = bytes;
            changed[3..5].copy_from_slice(&new);
            let old = u16::from_be_bytes([bytes[3], bytes[4]]);
            let change = ChecksumDelta::default().word(old.swap_bytes(), u16::from_be_bytes(new).swap_bytes());
            prop_assert_eq!(change.apply(!reference(&bytes)), !reference(&changed));
        }
    }
}

//! The options of a SYN: clamps the maximum segment size and reads the window scale.

use super::checksum::{ChecksumDelta, word};
use super::ipv4::options;
use super::parse::{ChecksumMode, Parsed};
use super::tcp::{CHECKSUM, HEADER, data_offset};
use std::ops::Range;

const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
/// RFC 7323 §2.3: a larger shift counts as this one.
const LARGEST_SHIFT: u8 = 14;

impl Parsed {
    /// Lowers the maximum segment size option of a SYN or SYN-ACK to `maximum`, and returns whether
    /// it did.
    ///
    /// A lower value stays, and no option is inserted (RFC 4459 §3.2). Segments without SYN and
    /// other protocols are left alone. So are bytes that are shorter than [`Parsed::length`].
    /// Updates the checksum, which in [`ChecksumMode::Partial`] does not cover options.
    pub(crate) fn clamp_mss(&self, bytes: &mut [u8], maximum: u16) -> bool {
        let Some(range) = self.syn_options(bytes) else { return false };
        let mut clamped = false;
        let mut at = 0;
        while let Ok(Some(option)) = options::next(&bytes[range.clone()], at) {
            at = option.start + option.length;
            if option.kind != MAXIMUM_SEGMENT_SIZE || option.length != 4 {
                continue;
            }
            let value = range.start + option.start + 2;
            let old = word(bytes, value);
            if old <= maximum {
                continue;
            }
            bytes[value..value + 2].copy_from_slice(&maximum.to_be_bytes());
            clamped = true;
            if self.checksum_mode() == ChecksumMode::Complete {
                let change = if option.start % 2 == 0 {
                    ChecksumDelta::default().word(old, maximum)
                } else {
                    ChecksumDelta::default().word(old.swap_bytes(), maximum.swap_bytes())
                };
                change.update(bytes, self.header_length() + CHECKSUM);
            }
        }
        clamped
    }

    /// Returns the window scale of a SYN or SYN-ACK: a shift, at most 14 (RFC 7323 §2.3). `None`
    /// without the option, and for every other packet.
    pub(crate) fn window_scale(&self, bytes: &[u8]) -> Option<u8> {
        let list = bytes.get(self.syn_options(bytes)?)?;
        let mut at = 0;
        while let Ok(Some(option)) = options::next(list, at) {
            if option.kind == WINDOW_SCALE && option.length == 3 {
                return list.get(option.start + 2).map(|shift| LARGEST_SHIFT.min(*shift));
            }
            at = option.start + option.length;
        }
        None
    }

    /// Returns the position of the options of a SYN, checked against `bytes`, which may have
    /// changed since the parse.
    fn syn_options(&self, bytes: &[u8]) -> Option<Range<usize>> {
        if !self.tcp(bytes)?.flags.syn() {
            return None;
        }
        let packet = bytes.get(..self.length())?;
        let start = self.header_length();
        let range = start + HEADER..start + data_offset(*packet.get(start + 12)?);
        packet.get(range.clone()).map(|_| range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tcp::tests::segment;
    use crate::packet::{TcpFlags, builder, parse};

    fn clamp(bytes: &mut [u8], mode: ChecksumMode, maximum: u16) -> bool {
        parse(bytes, mode).unwrap().clamp_mss(bytes, maximum)
    }

    #[test]
    fn mss_is_lowered_at_even_and_odd_offsets_in_both_modes() {
        for options in
            [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 0, 0, 0], &[3, 3, 7, 2, 4, 5, 180, 1]]
        {
            for flags in [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK] {
                let mut bytes = segment(flags, options);
                assert!(clamp(&mut bytes, ChecksumMode::Complete, 1000));
                builder::verify(&bytes, ChecksumMode::Complete).unwrap();
                assert!(bytes.windows(4).any(|option| option == [2, 4, 3, 232]));

                let mut bytes = segment(flags, options);
                builder::make_partial(&mut bytes);
                assert!(clamp(&mut bytes, ChecksumMode::Partial, 1000));
                builder::verify(&bytes, ChecksumMode::Partial).unwrap();
                assert!(bytes.windows(4).any(|option| option == [2, 4, 3, 232]));
            }
        }
    }

    #[test]
    fn mss_is_never_raised_inserted_or_touched_outside_a_syn() {
        for (flags, options) in [
            (TcpFlags::SYN, &[2, 4, 3, 232][..]),
            (TcpFlags::SYN, &[2, 4, 3, 0]),
            (TcpFlags::SYN, &[]),
            (TcpFlags::SYN, &[0, 2, 4, 255]),
            (TcpFlags::SYN, &[2, 3, 255, 0]),
            (TcpFlags::SYN, &[2, 0, 255, 255]),
            (TcpFlags::SYN, &[8, 200, 255, 255, 2, 4, 255, 255]),
            (TcpFlags::ACK, &[2, 4, 255, 255]),
        ] {
            let before = segment(flags, options);
            let mut bytes = before.clone();
            assert!(!clamp(&mut bytes, ChecksumMode::Complete, 1000), "{options:?}");
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn short_bytes_are_not_clamped() {
        let mut bytes = segment(TcpFlags::SYN, &[2, 4, 5, 180]);
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        for length in 0..bytes.len() {
            assert!(!parsed.clamp_mss(&mut bytes[..length], 1));
            assert_eq!(parsed.window_scale(&bytes[..length]), None);
        }
    }

    #[test]
    fn window_scale_is_read_from_a_syn_and_at_most_14() {
        let scale = |flags, options: &[u8]| {
            let bytes = segment(flags, options);
            parse(&bytes, ChecksumMode::Complete).unwrap().window_scale(&bytes)
        };
        assert_eq!(scale(TcpFlags::SYN, &[2, 4, 5, 180, 1, 3, 3, 7]), Some(7));
        assert_eq!(scale(TcpFlags::SYN | TcpFlags::ACK, &[3, 3, 200, 0]), Some(14));
        assert_eq!(scale(TcpFlags::SYN, &[3, 3, 0, 0]), Some(0));
        assert_eq!(scale(TcpFlags::SYN, &[2, 4, 5, 180]), None);
        assert_eq!(scale(TcpFlags::ACK, &[3, 3, 7, 0]), None);
    }
}

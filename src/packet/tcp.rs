//! TCP: the header fields that session tracking needs, and the options of a SYN.

use super::checksum::ChecksumDelta;
use super::ipv4::options;
use super::malformed::Malformed;
use super::parse::{ChecksumMode, Parsed, Payload};
use super::tuple::Protocol;
use std::ops::{BitOr, Range};

/// Bytes of a header without options.
pub(super) const HEADER: usize = 20;
/// Offset of the flags.
pub(super) const FLAGS: usize = 13;
/// Offset of the checksum.
pub(super) const CHECKSUM: usize = 16;

const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
/// RFC 7323 §2.3: a larger shift is used as if it were this one.
const LARGEST_SHIFT: u8 = 14;

/// The flags of a TCP segment: the eight bits of byte 13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// FIN is set.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN.0 != 0
    }

    /// SYN is set.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN.0 != 0
    }

    /// RST is set.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST.0 != 0
    }

    /// PSH is set.
    pub const fn psh(self) -> bool {
        self.0 & Self::PSH.0 != 0
    }

    /// ACK is set.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK.0 != 0
    }

    /// URG is set.
    pub const fn urg(self) -> bool {
        self.0 & Self::URG.0 != 0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of the first byte (of the SYN itself where that is set).
    pub sequence: u32,
    /// Acknowledgement number; means something only if [`TcpFlags::ack`].
    pub acknowledgement: u32,
    /// Window as it stands in the header, unscaled.
    pub window: u16,
    /// Bytes of data, headers not counted. At most 65,495.
    pub payload_length: u16,
    /// Flags.
    pub flags: TcpFlags,
}

/// Reads and checks the TCP header at the front of an IP payload; also returns the two ports.
#[inline]
pub(super) fn read(payload: &[u8]) -> Result<(Tcp, u16, u16), Malformed> {
    let header = payload.first_chunk::<HEADER>().ok_or(Malformed::TcpTruncated)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let two_words = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let header_length = data_offset(header[12]);
    if header_length < HEADER || header_length > payload.len() {
        return Err(Malformed::TcpOffset);
    }
    let tcp = Tcp {
        sequence: two_words(4),
        acknowledgement: two_words(8),
        window: word(14),
        payload_length: (payload.len() - header_length) as u16,
        flags: TcpFlags(header[FLAGS]),
    };
    Ok((tcp, word(0), word(2)))
}

/// Bytes of the header, from the byte that holds the data offset.
#[inline]
pub(super) fn data_offset(byte: u8) -> usize {
    usize::from(byte >> 4) * 4
}

impl Parsed {
    /// The TCP header of a segment or of the first piece of one, whose length is then that of the piece; none of any other
    /// packet.
    #[inline]
    pub fn tcp(&self, bytes: &[u8]) -> Option<Tcp> {
        match self.payload() {
            Payload::Tcp(tcp) => Some(tcp),
            Payload::Fragment { offset: 0, .. } if self.protocol() == Protocol::TCP => {
                read(bytes.get(self.header_length()..self.length())?).ok().map(|(tcp, _, _)| tcp)
            }
            Payload::Fragment { .. }
            | Payload::Udp
            | Payload::IcmpQuery(_)
            | Payload::IcmpError(_)
            | Payload::IcmpOther { .. }
            | Payload::Other => None,
        }
    }

    /// Lowers the maximum segment size option of a SYN or SYN-ACK to `maximum`, and returns whether it did.
    ///
    /// A lower value stays, and where there is no option none is put in (RFC 4459 §3.2). Segments without SYN and other protocols are left alone, as are bytes that are
    /// shorter than [`Parsed::length`]. The checksum follows; in [`ChecksumMode::Partial`] it does not cover options.
    pub fn clamp_mss(&self, bytes: &mut [u8], maximum: u16) -> bool {
        let Some(range) = self.syn_options(bytes) else { return false };
        let mut clamped = false;
        let mut at = 0;
        while let Ok(Some(option)) = options::next(&bytes[range.clone()], at) {
            at = option.start + option.length;
            if option.kind != MAXIMUM_SEGMENT_SIZE || option.length != 4 {
                continue;
            }
            let value = range.start + option.start + 2;
            let old = u16::from_be_bytes([bytes[value], bytes[value + 1]]);
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
                let field = self.header_length() + CHECKSUM;
                let checksum = change.apply(u16::from_be_bytes([bytes[field], bytes[field + 1]]));
                bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        clamped
    }

    /// The window scale that a SYN or SYN-ACK offers: a shift, at most 14 (RFC 7323 §2.3). `None` without the option,
    /// and for every other packet.
    pub fn window_scale(&self, bytes: &[u8]) -> Option<u8> {
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

    /// Where the options of a SYN stand; checked against `bytes`, which may have been written to since the parse.
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
    use crate::packet::{Protocol, Tuple, builder, parse};

    fn tuple() -> Tuple {
        builder::tuple(Protocol::TCP, ([10, 0, 0, 1], 40_000), ([192, 0, 2, 1], 80))
    }

    fn segment(flags: TcpFlags, options: &[u8]) -> Vec<u8> {
        builder::tcp(tuple(), flags, 1000, 2000, options, b"data")
    }

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

    #[test]
    fn fields_are_read() {
        let bytes = segment(TcpFlags::ACK | TcpFlags::PSH, &[1, 1, 1, 1]);
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        let expected = Tcp {
            sequence: 1000,
            acknowledgement: 2000,
            window: builder::WINDOW,
            payload_length: 4,
            flags: TcpFlags::ACK | TcpFlags::PSH,
        };
        assert_eq!(parsed.payload(), Payload::Tcp(expected));
        assert_eq!(parsed.tuple(), Some(tuple()));
    }

    #[test]
    fn wrong_data_offsets_are_refused() {
        for offset in 0..=15u8 {
            let mut bytes = segment(TcpFlags::ACK, &[]);
            bytes[32] = offset << 4;
            let refused = !(5..=6).contains(&offset);
            assert_eq!(
                parse(&bytes, ChecksumMode::Complete).err(),
                refused.then_some(Malformed::TcpOffset)
            );
        }
        let short =
            builder::other(Protocol::TCP, [10, 0, 0, 1].into(), [192, 0, 2, 1].into(), &[0; 19]);
        assert_eq!(parse(&short, ChecksumMode::Complete).err(), Some(Malformed::TcpTruncated));
    }
}

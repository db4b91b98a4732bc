//! The TCP header fields that session tracking needs.

use super::malformed::Malformed;
use std::ops::BitOr;

/// Bytes of a header without options.
pub(super) const HEADER: usize = 20;
/// Offset of the flags.
pub(super) const FLAGS: usize = 13;
/// Offset of the checksum.
pub(super) const CHECKSUM: usize = 16;

/// The flags of a TCP segment: the eight bits of byte 13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender sends no more data.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Returns whether FIN is set.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN.0 != 0
    }

    /// Returns whether SYN is set.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN.0 != 0
    }

    /// Returns whether RST is set.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST.0 != 0
    }

    /// Returns whether PSH is set.
    pub const fn psh(self) -> bool {
        self.0 & Self::PSH.0 != 0
    }

    /// Returns whether ACK is set.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK.0 != 0
    }

    /// Returns whether URG is set.
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
    /// Sequence number of the first byte, or of the SYN if that is set.
    pub sequence: u32,
    /// Acknowledgement number, valid only if [`TcpFlags::ack`].
    pub acknowledgement: u32,
    /// Window of the header, unscaled.
    pub window: u16,
    /// Length of the data in bytes, headers excluded: at most 65,495.
    pub payload_length: u16,
    /// Flags.
    pub flags: TcpFlags,
}

/// Reads and checks the TCP header at the front of an IP payload. Returns the two ports with it.
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

/// Returns the length of the header in bytes, from the byte that holds the data offset.
#[inline]
pub(super) fn data_offset(byte: u8) -> usize {
    usize::from(byte >> 4) * 4
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::packet::{ChecksumMode, Payload, Protocol, Tuple, builder, parse};

    fn tuple() -> Tuple {
        builder::tuple(Protocol::TCP, ([10, 0, 0, 1], 40_000), ([192, 0, 2, 1], 80))
    }

    pub(in crate::packet) fn segment(flags: TcpFlags, options: &[u8]) -> Vec<u8> {
        builder::tcp(tuple(), flags, 1000, 2000, options, b"data")
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
    fn wrong_data_offsets_are_malformed() {
        for offset in 0..=15u8 {
            let mut bytes = segment(TcpFlags::ACK, &[]);
            bytes[32] = offset << 4;
            let malformed = !(5..=6).contains(&offset);
            assert_eq!(
                parse(&bytes, ChecksumMode::Complete).err(),
                malformed.then_some(Malformed::TcpOffset)
            );
        }
        let short =
            builder::other(Protocol::TCP, [10, 0, 0, 1].into(), [192, 0, 2, 1].into(), &[0; 19]);
        assert_eq!(parse(&short, ChecksumMode::Complete).err(), Some(Malformed::TcpTruncated));
    }
}

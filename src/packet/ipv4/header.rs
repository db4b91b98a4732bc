//! The IPv4 header.

use crate::packet::checksum;
use crate::packet::ipv4::options;
use crate::packet::malformed::Malformed;
use crate::packet::tuple::{Endpoint, Protocol, Tuple};
use std::net::Ipv4Addr;

/// Bytes of a header without options.
pub(crate) const HEADER: usize = 20;
/// Offset of the total length.
pub(crate) const TOTAL_LENGTH: usize = 2;
/// Offset of the header checksum.
pub(crate) const CHECKSUM: usize = 10;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// The fields of a header, in host order. Functions off the hot path take the header by value, so
/// that on the hot path its fields stay in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) version: u8,
    /// In bytes, options included.
    pub(crate) header_length: usize,
    /// In bytes, header included.
    pub(crate) total_length: usize,
    pub(crate) identification: u16,
    flags_and_offset: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: Protocol,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Header {
    /// Reads the fields without any check.
    #[inline]
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Self {
            version: bytes[0] >> 4,
            header_length: usize::from(bytes[0] & 0x0f) * 4,
            total_length: usize::from(word(TOTAL_LENGTH)),
            identification: word(4),
            flags_and_offset: word(6),
            ttl: bytes[8],
            protocol: Protocol(bytes[9]),
            source: Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]),
            destination: Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]),
        }
    }

    /// Reads and checks the header of the packet at the front of `bytes`. Guarantees
    /// `HEADER <= header_length <= total_length <= bytes.len()`.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(fixed) = bytes.first_chunk::<HEADER>() else { return Err(too_short(bytes)) };
        let header = Self::read(fixed);
        if header.version != 4 {
            return Err(too_short(bytes));
        }
        if header.header_length == HEADER {
            if checksum::sum(fixed) != checksum::VALID {
                return Err(header.cause(bytes));
            }
        } else {
            header.check_options(bytes)?;
        }
        if header.total_length < header.header_length || header.total_length > bytes.len() {
            return Err(header.cause(bytes));
        }
        Ok(header)
    }

    /// Returns the addresses with these ports.
    #[inline]
    pub(crate) fn tuple(&self, source: u16, destination: u16) -> Tuple {
        Tuple {
            protocol: self.protocol,
            source: Endpoint::new(self.source, source),
            destination: Endpoint::new(self.destination, destination),
        }
    }

    /// Returns whether the packet is a fragment: MF is set or the offset is not 0.
    #[inline]
    pub(crate) fn is_fragment(&self) -> bool {
        self.flags_and_offset & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    #[inline]
    pub(crate) fn dont_fragment(&self) -> bool {
        self.flags_and_offset & DONT_FRAGMENT != 0
    }

    pub(crate) fn more_fragments(&self) -> bool {
        self.flags_and_offset & MORE_FRAGMENTS != 0
    }

    /// Returns the fragment offset in bytes, a multiple of 8.
    pub(crate) fn fragment_offset(&self) -> u16 {
        (self.flags_and_offset & FRAGMENT_OFFSET) * 8
    }

    /// Checks a header whose length is not 20 bytes.
    #[cold]
    fn check_options(self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.header_length < HEADER {
            return Err(Malformed::HeaderLength);
        }
        let whole = bytes.get(..self.header_length).ok_or(Malformed::HeaderLength)?;
        if self.total_length < self.header_length
            || self.total_length > bytes.len()
            || checksum::sum(whole) != checksum::VALID
        {
            return Err(self.cause(bytes));
        }
        let list = &whole[HEADER..];
        let mut at = 0;
        while let Some(option) = options::next(list, at).map_err(|_| Malformed::OptionLength)? {
            if matches!(option.kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE) {
                return Err(Malformed::SourceRoute);
            }
            at = option.start + option.length;
        }
        Ok(())
    }

    /// Returns the cause for a header that failed a check: lengths before the checksum.
    #[cold]
    fn cause(self, bytes: &[u8]) -> Malformed {
        if self.total_length < self.header_length {
            Malformed::TotalLength
        } else if self.total_length > bytes.len() {
            Malformed::BeyondBuffer
        } else {
            Malformed::HeaderChecksum
        }
    }
}

/// Returns the cause for bytes without the start of an IPv4 header.
#[cold]
fn too_short(bytes: &[u8]) -> Malformed {
    match bytes.first().map(|first| first >> 4) {
        None | Some(4) => Malformed::Truncated,
        Some(6) => Malformed::Ipv6,
        Some(_) => Malformed::Version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ChecksumMode, Ttl, builder, parse};

    fn packet() -> Vec<u8> {
        builder::udp(
            builder::tuple(Protocol::UDP, ([10, 0, 0, 1], 5000), ([192, 0, 2, 1], 53)),
            b"query",
        )
    }

    fn cause(bytes: &[u8]) -> Option<Malformed> {
        parse(bytes, ChecksumMode::Complete).err()
    }

    /// The packet with one header byte set, and the correct header checksum.
    fn with(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = packet();
        bytes[at] = value;
        builder::refresh_header_checksum(&mut bytes);
        bytes
    }

    #[test]
    fn each_malformed_header_has_its_own_cause() {
        assert_eq!(cause(&[]), Some(Malformed::Truncated));
        assert_eq!(cause(&[0x45]), Some(Malformed::Truncated));
        assert_eq!(cause(&[0x60]), Some(Malformed::Ipv6));
        assert_eq!(cause(&[0x60; 40]), Some(Malformed::Ipv6));
        assert_eq!(cause(&[0x50; 40]), Some(Malformed::Version));
        assert_eq!(cause(&with(0, 0x44)), Some(Malformed::HeaderLength));
        assert_eq!(cause(&with(0, 0x4f)), Some(Malformed::HeaderLength));
        assert_eq!(cause(&with(3, 19)), Some(Malformed::TotalLength));
        assert_eq!(cause(&with(3, 34)), Some(Malformed::BeyondBuffer));
        assert_eq!(cause(&with(2, 1)), Some(Malformed::BeyondBuffer));
        let mut bytes = packet();
        bytes[10] ^= 1;
        assert_eq!(cause(&bytes), Some(Malformed::HeaderChecksum));
        assert_eq!(cause(&packet()), None);
    }

    #[test]
    fn every_truncated_packet_is_malformed() {
        let bytes = packet();
        for length in 0..bytes.len() {
            let expected =
                if length < HEADER { Malformed::Truncated } else { Malformed::BeyondBuffer };
            assert_eq!(cause(&bytes[..length]), Some(expected), "{length}");
        }
    }

    #[test]
    fn bytes_beyond_the_total_length_are_ignored() {
        let mut bytes = packet();
        bytes.extend_from_slice(&[0xaa; 10]);
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        assert_eq!(parsed.length(), bytes.len() - 10);
        let to = builder::tuple(Protocol::UDP, ([10, 9, 9, 9], 1), ([192, 0, 2, 9], 2));
        parsed.rewrite(&mut bytes, to, Ttl::Keep);
        assert_eq!(bytes[bytes.len() - 10..], [0xaa; 10]);
        builder::verify(&bytes, ChecksumMode::Complete).unwrap();
    }

    #[test]
    fn ordinary_options_are_accepted_and_the_ports_found_behind_them() {
        let lists: [&[u8]; 7] = [
            &[1, 1, 1, 1],                           // no operation
            &[0, 0, 0, 0],                           // end of list
            &[148, 4, 0, 0],                         // router alert
            &[7, 7, 4, 0, 0, 0, 0, 0],               // record route
            &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], // timestamp
            &[130, 4, 0, 0],                         // unknown here
            &[0, 131, 3, 4], // a source route after the end of the list is no option
        ];
        for list in lists.into_iter().chain([&[1; 40][..]]) {
            let bytes = builder::with_ip_options(&packet(), list);
            let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
            assert_eq!(parsed.header_length(), HEADER + list.len());
            assert_eq!(parsed.tuple().unwrap().destination.port, 53);
        }
    }

    #[test]
    fn source_routes_and_broken_options_are_malformed() {
        for (list, expected) in [
            (&[131, 3, 4, 0][..], Malformed::SourceRoute),
            (&[1, 137, 3, 4], Malformed::SourceRoute),
            (&[7, 0, 0, 0], Malformed::OptionLength),
            (&[7, 1, 0, 0], Malformed::OptionLength),
            (&[7, 5, 4, 0], Malformed::OptionLength),
            (&[1, 1, 1, 7], Malformed::OptionLength),
        ] {
            assert_eq!(
                cause(&builder::with_ip_options(&packet(), list)),
                Some(expected),
                "{list:?}"
            );
        }
    }
}

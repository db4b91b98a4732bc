//! The UDP header: ports and length.

use super::malformed::Malformed;

/// Bytes of the header.
pub(super) const HEADER: usize = 8;
/// Offset of the length.
pub(super) const LENGTH: usize = 4;
/// Offset of the checksum.
pub(super) const CHECKSUM: usize = 6;

/// Reads and checks the UDP header at the front of an IP payload, or of its first fragment if
/// `fragment`. Returns the two ports.
#[inline]
pub(super) fn read(payload: &[u8], fragment: bool) -> Result<(u16, u16), Malformed> {
    let header = payload.first_chunk::<HEADER>().ok_or(Malformed::UdpTruncated)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let length = usize::from(word(LENGTH));
    if length < HEADER || (length > payload.len() && !fragment) {
        return Err(Malformed::UdpLength);
    }
    Ok((word(0), word(2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ChecksumMode, Protocol, builder, parse};

    #[test]
    fn wrong_lengths_are_malformed() {
        let tuple = builder::tuple(Protocol::UDP, ([10, 0, 0, 1], 5000), ([192, 0, 2, 1], 53));
        for length in 0..=40u16 {
            let mut bytes = builder::udp(tuple, b"four");
            bytes[24..26].copy_from_slice(&length.to_be_bytes());
            let malformed = !(8..=12).contains(&length);
            assert_eq!(
                parse(&bytes, ChecksumMode::Complete).err(),
                malformed.then_some(Malformed::UdpLength)
            );
        }
        let short =
            builder::other(Protocol::UDP, tuple.source.address, tuple.destination.address, &[0; 7]);
        assert_eq!(parse(&short, ChecksumMode::Complete).err(), Some(Malformed::UdpTruncated));
    }
}

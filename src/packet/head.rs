//! The start of a packet, kept apart from its buffer.

use std::fmt;

/// The first bytes of a packet, and the length of the whole packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PacketHead {
    length: u32,
    kept: u16,
    bytes: [u8; Self::MAX],
}

impl PacketHead {
    /// Number of bytes that are kept of a longer packet: an IPv4 header and a TCP header of any
    /// length, and some bytes more.
    pub const MAX: usize = 128;
    /// The head of a packet without bytes.
    pub const EMPTY: Self = Self { length: 0, kept: 0, bytes: [0; Self::MAX] };

    /// Copies the head of a packet.
    #[inline]
    pub fn of(packet: &[u8]) -> Self {
        let mut head = Self { length: packet.len() as u32, ..Self::EMPTY };
        let kept = packet.len().min(Self::MAX);
        head.bytes[..kept].copy_from_slice(&packet[..kept]);
        head.kept = kept as u16;
        head
    }

    /// Returns the length of the whole packet, in bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Returns the bytes that are kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.kept)]
    }
}

impl fmt::Debug for PacketHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PacketHead({} bytes: {:02x?})", self.length, self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_keeps_the_first_bytes_and_the_length() {
        for length in [0, 1, PacketHead::MAX - 1, PacketHead::MAX, PacketHead::MAX + 1, 65_535] {
            let packet: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let head = PacketHead::of(&packet);
            assert_eq!(head.length() as usize, length);
            assert_eq!(head.bytes(), &packet[..length.min(PacketHead::MAX)]);
        }
        assert_eq!(PacketHead::of(&[]), PacketHead::EMPTY);
    }
}

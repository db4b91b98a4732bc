//! The offload header in front of every packet of a TUN queue.
//!
//! It is the kernel's `struct virtio_net_hdr` (`linux/virtio_net.h`): version 1 without
//! `num_buffers`, ten bytes, little-endian. `tun::open` sets both with `TUNSETVNETHDRSZ` and
//! `TUNSETVNETLE`.
//!
//! ```text
//!   0 flags   1 gso_type   2..4 hdr_len   4..6 gso_size   6..8 csum_start   8..10 csum_offset
//! ```

use crate::packet::{Offload, PartialChecksum, Segmentation, SegmentationKind};

/// Length of the header, in bytes.
pub(crate) const HEADER_SIZE: usize = 10;

/// The reason why a received header is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidVnetHeader {
    /// A flag that changes the meaning of other fields, and that natbox has not enabled.
    Flags,
    /// The checksum field lies outside the packet.
    Checksum,
    /// A segmentation type that natbox has not enabled.
    SegmentationKind,
    /// Segments of no bytes, or headers longer than the packet.
    Segmentation,
}

/// Writes the header.
pub(crate) fn encode(offload: &Offload) -> [u8; HEADER_SIZE] {
    let mut header = [0; HEADER_SIZE];
    if let Some(checksum) = offload.checksum {
        header[0] |= FLAG_NEEDS_CSUM;
        header[6..8].copy_from_slice(&checksum.start.to_le_bytes());
        header[8..10].copy_from_slice(&checksum.offset.to_le_bytes());
    }
    if offload.valid {
        header[0] |= FLAG_DATA_VALID;
    }
    if let Some(segmentation) = offload.segmentation {
        header[1] = match segmentation.kind {
            SegmentationKind::Tcp4 => GSO_TCPV4,
            SegmentationKind::Tcp4Ecn => GSO_TCPV4 | GSO_ECN,
            SegmentationKind::Udp4 => GSO_UDP_L4,
        };
        header[2..4].copy_from_slice(&segmentation.header_length.to_le_bytes());
        header[4..6].copy_from_slice(&segmentation.size.to_le_bytes());
    }
    header
}

/// Reads the header of a packet of `length` bytes.
///
/// # Errors
/// An offset points outside the packet, or the header uses a feature that natbox has not enabled
/// with `TUNSETOFFLOAD`. Such a packet must be dropped, as its state is unknown.
pub(crate) fn decode(
    header: &[u8; HEADER_SIZE],
    length: usize,
) -> Result<Offload, InvalidVnetHeader> {
    let [flags, kind, ..] = *header;
    let field = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);

    if flags & !(FLAG_NEEDS_CSUM | FLAG_DATA_VALID) != 0 {
        return Err(InvalidVnetHeader::Flags);
    }
    let mut offload = Offload { valid: flags & FLAG_DATA_VALID != 0, ..Offload::default() };
    if flags & FLAG_NEEDS_CSUM != 0 {
        let checksum = PartialChecksum { start: field(6), offset: field(8) };
        if usize::from(checksum.start) + usize::from(checksum.offset) + CHECKSUM_SIZE > length {
            return Err(InvalidVnetHeader::Checksum);
        }
        offload.checksum = Some(checksum);
    }
    if kind != GSO_NONE {
        let kind = match kind {
            GSO_TCPV4 => SegmentationKind::Tcp4,
            GSO_TCPV4_ECN => SegmentationKind::Tcp4Ecn,
            GSO_UDP_L4 => SegmentationKind::Udp4,
            _ => return Err(InvalidVnetHeader::SegmentationKind),
        };
        let segmentation = Segmentation { kind, header_length: field(2), size: field(4) };
        if segmentation.size == 0 || usize::from(segmentation.header_length) > length {
            return Err(InvalidVnetHeader::Segmentation);
        }
        offload.segmentation = Some(segmentation);
    }
    Ok(offload)
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const FLAG_NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`
const FLAG_DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_NONE`
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_UDP_L4` (Linux 6.2)
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`, a bit beside the TCP types
const GSO_ECN: u8 = 0x80;
/// `VIRTIO_NET_HDR_GSO_TCPV4` with its ECN bit
const GSO_TCPV4_ECN: u8 = GSO_TCPV4 | GSO_ECN;
/// Bytes of an Internet checksum.
const CHECKSUM_SIZE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written by Linux 6.18 in front of a TCP super-packet (52 bytes of headers, 1388-byte
    /// segments).
    const CAPTURED_TSO: [u8; HEADER_SIZE] = [1, 1, 52, 0, 0x6c, 0x05, 20, 0, 16, 0];

    #[test]
    fn tso_header_of_the_kernel_is_understood() {
        let offload = decode(&CAPTURED_TSO, 6_992).expect("a real header");
        assert_eq!(
            offload,
            Offload {
                checksum: Some(PartialChecksum { start: 20, offset: 16 }),
                segmentation: Some(Segmentation {
                    kind: SegmentationKind::Tcp4,
                    size: 1388,
                    header_length: 52
                }),
                valid: false,
            }
        );
        assert_eq!(encode(&offload), CAPTURED_TSO);
    }

    #[test]
    fn zeros_are_a_complete_packet() {
        assert_eq!(decode(&[0; HEADER_SIZE], 0), Ok(Offload::default()));
        assert_eq!(encode(&Offload::default()), [0; HEADER_SIZE]);
    }

    #[test]
    fn checksum_field_must_lie_inside_the_packet() {
        let header = [1, 0, 0, 0, 0, 0, 20, 0, 16, 0];
        assert!(decode(&header, 38).is_ok());
        assert_eq!(decode(&header, 37), Err(InvalidVnetHeader::Checksum));
        assert_eq!(
            decode(&[1, 0, 0, 0, 0, 0, 255, 255, 255, 255], 65_535),
            Err(InvalidVnetHeader::Checksum)
        );
    }

    #[test]
    fn features_that_were_not_enabled_are_invalid() {
        for flags in [4, 8, 0x80] {
            assert_eq!(
                decode(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100),
                Err(InvalidVnetHeader::Flags)
            );
        }
        // UFO, TCPv6, ECN without TCP, ECN with UDP, unassigned.
        for kind in [3, 4, 0x84, 0x80, 0x85, 2, 6, 0x7f] {
            let header = [0, kind, 40, 0, 100, 0, 0, 0, 0, 0];
            assert_eq!(
                decode(&header, 100),
                Err(InvalidVnetHeader::SegmentationKind),
                "type {kind:#x}"
            );
        }
    }

    #[test]
    fn segments_have_bytes_and_headers_end_inside_the_packet() {
        assert_eq!(
            decode(&[0, 1, 40, 0, 0, 0, 0, 0, 0, 0], 100),
            Err(InvalidVnetHeader::Segmentation)
        );
        assert_eq!(
            decode(&[0, 1, 101, 0, 1, 0, 0, 0, 0, 0], 100),
            Err(InvalidVnetHeader::Segmentation)
        );
        assert!(decode(&[0, 1, 100, 0, 1, 0, 0, 0, 0, 0], 100).is_ok());
    }

    proptest! {
        #[test]
        fn any_header_is_invalid_or_safe_and_survives_a_round_trip(
            header: [u8; HEADER_SIZE],
            likely_flags in 0u8..4,
            likely_kind in prop::sample::select(vec![0u8, 1, 0x81, 5]),
            likely: bool,
            length in 0usize..=65_535,
        ) {
            let mut header = header;
            if likely {
                header[0] = likely_flags;
                header[1] = likely_kind;
            }
            if let Ok(offload) = decode(&header, length) {
                if let Some(checksum) = offload.checksum {
                    prop_assert!(usize::from(checksum.start) + usize::from(checksum.offset) + 2 <= length);
                }
                if let Some(segmentation) = offload.segmentation {
                    prop_assert!(segmentation.size > 0);
                    prop_assert!(usize::from(segmentation.header_length) <= length);
                }
                prop_assert_eq!(decode(&encode(&offload), length), Ok(offload));
            }
        }
    }
}

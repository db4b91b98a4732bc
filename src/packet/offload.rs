//! What is left to be done for a packet by the kernel or the network card.

/// What is left to be done for a packet, or has been done already.
///
/// The default is a finished packet: in one segment, its checksum complete, its validity unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// The L4 checksum is yet to be completed. None: it is complete.
    pub checksum: Option<PartialChecksum>,
    /// The packet is a super-packet. The last kernel or card that handles the packet cuts it into segments.
    pub segmentation: Option<Segmentation>,
    /// True: the kernel has verified the L4 checksum (`VIRTIO_NET_HDR_F_DATA_VALID`). The kernel ignores the flag in
    /// packets that it receives.
    pub valid: bool,
}

/// Where a checksum is to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
///
/// The field at `start + offset` holds the plain sum over the pseudo header, not complemented. The field lies inside
/// the packet in every header that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum starts, in bytes from the start of the packet (`csum_start`).
    pub start: u16,
    /// Where the checksum goes, in bytes from `start` (`csum_offset`).
    pub offset: u16,
}

/// How a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The protocol whose rules apply.
    pub kind: SegmentationKind,
    /// Payload of each segment but the last, in bytes (`gso_size`), never 0.
    pub size: u16,
    /// The kernel's hint how many bytes to keep in one piece (`hdr_len`), at most the length of the packet. The hint is
    /// often more than the headers: it is not their length.
    pub header_length: u16,
}

/// The protocol by whose rules a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv4 where only the first segment carries CWR (RFC 3168).
    Tcp4Ecn,
    /// UDP datagrams of one flow. The header does not tell IPv4 from IPv6; the packet does.
    Udp4,
}

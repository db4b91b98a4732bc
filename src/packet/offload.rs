//! The work that is left to the kernel or the network card for a packet.

/// The work that the sender of a packet left undone: its checksum, its segmentation.
///
/// The default stands for a complete packet: no super-packet, checksum in place, validity unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// The L4 checksum must still be completed.
    pub checksum: Option<PartialChecksum>,
    /// The packet is a super-packet. The last kernel or network card that handles it cuts it into
    /// segments.
    pub segmentation: Option<Segmentation>,
    /// The L4 checksum was verified already (`VIRTIO_NET_HDR_F_DATA_VALID`). This is a hint from
    /// the kernel, which ignores it in packets that it reads.
    pub valid: bool,
}

/// The position of a checksum that must be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
///
/// The field at `start + offset` holds the plain sum over the pseudo header, not complemented. In
/// every received header the field lies inside the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Start of the summed bytes, counted from the start of the packet (`csum_start`).
    pub start: u16,
    /// Position of the field, in bytes from `start` (`csum_offset`).
    pub offset: u16,
}

/// The way in which a super-packet must be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Protocol whose rules apply.
    pub kind: SegmentationKind,
    /// Payload of each segment except the last, in bytes (`gso_size`), never 0.
    pub size: u16,
    /// The kernel's hint how many bytes to keep contiguous (`hdr_len`), at most the length of the
    /// packet. The value is often larger than the headers, so it is not their length.
    pub header_length: u16,
}

/// The protocol whose rules apply to the segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv4, with CWR in the first segment only (RFC 3168).
    Tcp4Ecn,
    /// UDP datagrams of one flow, over IPv4 or IPv6: only the packet shows which.
    Udp4,
}

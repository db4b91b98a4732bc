//! The packets that tests send most.

use natbox::packet::{Endpoint, Protocol, TcpFlags, Tuple, builder};

/// Makes a tuple of two endpoints.
pub(crate) fn tuple(protocol: Protocol, source: Endpoint, destination: Endpoint) -> Tuple {
    Tuple { protocol, source, destination }
}

/// Makes a datagram.
pub(crate) fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    builder::udp(tuple(Protocol::UDP, source, destination), payload)
}

/// Makes a segment without options and payload.
pub(crate) fn segment(
    source: Endpoint,
    destination: Endpoint,
    flags: TcpFlags,
    sequence: u32,
    acknowledgement: u32,
) -> Vec<u8> {
    builder::tcp(
        tuple(Protocol::TCP, source, destination),
        flags,
        sequence,
        acknowledgement,
        &[],
        b"",
    )
}

/// Makes a SYN without options.
pub(crate) fn syn(source: Endpoint, destination: Endpoint) -> Vec<u8> {
    segment(source, destination, TcpFlags::SYN, 1000, 0)
}

/// Sets some bytes of a packet and corrects the IP header checksum.
pub(crate) fn with(mut packet: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        packet[*at] = *byte;
    }
    builder::refresh_header_checksum(&mut packet);
    packet
}

/// Cuts a packet off, with a matching total length. At most 255 bytes remain.
pub(crate) fn cut(mut packet: Vec<u8>, length: usize) -> Vec<u8> {
    packet.truncate(length);
    with(packet, &[(2, 0), (3, length as u8)])
}

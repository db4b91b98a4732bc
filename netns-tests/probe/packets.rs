//! Packets that tests send most, by their endpoints.

use natbox::packet::{Endpoint, Protocol, TcpFlags, Tuple, builder};

/// A tuple of two endpoints.
pub fn tuple(protocol: Protocol, source: Endpoint, destination: Endpoint) -> Tuple {
    Tuple { protocol, source, destination }
}

/// A datagram.
pub fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    builder::udp(tuple(Protocol::UDP, source, destination), payload)
}

/// A segment without options and payload.
pub fn segment(
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

/// A SYN without options.
pub fn syn(source: Endpoint, destination: Endpoint) -> Vec<u8> {
    segment(source, destination, TcpFlags::SYN, 1000, 0)
}

/// The packet with some bytes set and the IP header checksum right.
pub fn with(mut packet: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        packet[*at] = *byte;
    }
    builder::refresh_header_checksum(&mut packet);
    packet
}

/// The packet cut off, with a total length that agrees; at most 255 bytes.
pub fn cut(mut packet: Vec<u8>, length: usize) -> Vec<u8> {
    packet.truncate(length);
    with(packet, &[(2, 0), (3, length as u8)])
}

//! Builds packets for tests and benches, and the few that natbox itself originates. The code
//! allocates, is slow and obvious, and is not for the hot path.
//!
//! Each function returns a whole IPv4 packet with correct checksums, TTL 64, DF clear,
//! identification 0. The setters change one header field and update the header checksum. [`verify`]
//! checks a packet after a rewrite.
//!
//! ```
//! use natbox::packet::{ChecksumMode, Protocol, TcpFlags, Ttl, builder, parse};
//!
//! let tuple = builder::tuple(Protocol::TCP, ([192, 0, 2, 1], 40_000), ([203, 0, 113, 10], 80));
//! let to = builder::tuple(Protocol::TCP, ([192, 0, 2, 1], 40_000), ([10, 0, 0, 101], 80));
//! let mut bytes = builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], b"");
//! parse(&bytes, ChecksumMode::Complete).unwrap().rewrite(&mut bytes, to, Ttl::Increment);
//! builder::verify(&bytes, ChecksumMode::Complete).unwrap();
//! ```

use crate::packet::icmp::QueryKind;
use crate::packet::tcp::TcpFlags;
use crate::packet::tuple::{Endpoint, Protocol, Tuple};
use std::net::Ipv4Addr;

pub use super::verify::verify;

/// Window of a built TCP segment.
pub const WINDOW: u16 = 0xfaf0;

/// Makes a tuple of two pairs of address and port.
pub fn tuple(
    protocol: Protocol,
    source: (impl Into<Ipv4Addr>, u16),
    destination: (impl Into<Ipv4Addr>, u16),
) -> Tuple {
    Tuple {
        protocol,
        source: Endpoint::new(source.0.into(), source.1),
        destination: Endpoint::new(destination.0.into(), destination.1),
    }
}

/// Builds a TCP segment. Pads `options` with zeros to a multiple of 4 bytes, and ignores the
/// protocol of `tuple`.
///
/// # Panics
/// If there are more than 40 bytes of options, or the packet would exceed 65,535 bytes.
pub fn tcp(
    tuple: Tuple,
    flags: TcpFlags,
    sequence: u32,
    acknowledgement: u32,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    assert!(options.len() <= 40, "a TCP header has at most 40 bytes of options");
    let header_length = 20 + options.len().next_multiple_of(4);
    let mut segment = Vec::with_capacity(header_length + payload.len());
    segment.extend(tuple.source.port.to_be_bytes());
    segment.extend(tuple.destination.port.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    segment.extend([(header_length as u8 / 4) << 4, flags.0]);
    segment.extend(WINDOW.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.resize(header_length, 0);
    segment.extend(payload);
    let (source, destination) = (tuple.source.address, tuple.destination.address);
    let pseudo_header = pseudo_header(source.octets(), destination.octets(), 6, segment.len());
    let checksum = !ones_complement_sum(&[&pseudo_header[..], &segment].concat());
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    other(Protocol::TCP, source, destination, &segment)
}

/// Builds a UDP datagram. Ignores the protocol of `tuple`.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn udp(tuple: Tuple, payload: &[u8]) -> Vec<u8> {
    let mut bytes = udp_without_checksum(tuple, payload);
    let (source, destination) = (tuple.source.address, tuple.destination.address);
    let pseudo_header = pseudo_header(source.octets(), destination.octets(), 17, bytes.len() - 20);
    let checksum = match !ones_complement_sum(&[&pseudo_header[..], &bytes[20..]].concat()) {
        0 => 0xffff,
        checksum => checksum,
    };
    bytes[26..28].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Builds a UDP datagram without checksum: the field is 0.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn udp_without_checksum(tuple: Tuple, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(tuple.source.port.to_be_bytes());
    datagram.extend(tuple.destination.port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);
    other(Protocol::UDP, tuple.source.address, tuple.destination.address, &datagram)
}

/// Builds a UDP-Lite datagram (RFC 3828). The checksum covers the first `coverage` bytes of the
/// datagram, at least 8, or all of it if `coverage` is 0. Ignores the protocol of `tuple`.
///
/// # Panics
/// If the packet would exceed 65,535 bytes, or `coverage` the datagram.
pub fn udp_lite(tuple: Tuple, coverage: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = coverage.to_be_bytes();
    let mut datagram = ports(tuple);
    datagram.extend([high, low, 0, 0]);
    datagram.extend(payload);
    let covered = if coverage == 0 { datagram.len() } else { usize::from(coverage) };
    let checksum = match covering_checksum(Protocol::UDP_LITE, tuple, &datagram, covered) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    other(Protocol::UDP_LITE, tuple.source.address, tuple.destination.address, &datagram)
}

/// Builds a DCCP-Data packet (RFC 4340 section 5). The checksum covers the header and a part of the
/// payload: all of it if `coverage` is 0, otherwise 4 bytes for each step above 1. Ignores the
/// protocol of `tuple`.
///
/// # Panics
/// If the packet would exceed 65,535 bytes, or the coverage the payload.
pub fn dccp(tuple: Tuple, coverage: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports(tuple);
    // Data offset in words, coverage, checksum, type DCCP-Data without extended sequence numbers,
    // sequence number.
    segment.extend([3, coverage & 15, 0, 0, 2 << 1, 0, 0, 1]);
    segment.extend(payload);
    let covered = match usize::from(coverage & 15) {
        0 => segment.len(),
        steps => 12 + 4 * (steps - 1),
    };
    let checksum = covering_checksum(Protocol::DCCP, tuple, &segment, covered);
    segment[6..8].copy_from_slice(&checksum.to_be_bytes());
    other(Protocol::DCCP, tuple.source.address, tuple.destination.address, &segment)
}

fn ports(tuple: Tuple) -> Vec<u8> {
    [tuple.source.port.to_be_bytes(), tuple.destination.port.to_be_bytes()].concat()
}

/// Computes a checksum over the pseudo header and the first `covered` bytes of a payload.
fn covering_checksum(protocol: Protocol, tuple: Tuple, payload: &[u8], covered: usize) -> u16 {
    let (source, destination) = (tuple.source.address, tuple.destination.address);
    let pseudo_header =
        pseudo_header(source.octets(), destination.octets(), protocol.0, payload.len());
    !ones_complement_sum(&[&pseudo_header[..], &payload[..covered]].concat())
}

/// Builds an ICMP request or reply.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn echo(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    kind: QueryKind,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Vec<u8> {
    let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    icmp(source, destination, kind.kind(), 0, [a, b, c, d], payload)
}

/// Builds an ICMP error with a quote, and with zeros between checksum and quote. [`icmp`] can put
/// an MTU there.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn icmp_error(
    kind: u8,
    code: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    quoted: &[u8],
) -> Vec<u8> {
    icmp(source, destination, kind, code, [0; 4], quoted)
}

/// Builds any ICMP message. `rest` are the four bytes behind the checksum.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn icmp(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, body].concat();
    let checksum = !ones_complement_sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    other(Protocol::ICMP, source, destination, &message)
}

/// Builds a packet of any protocol, with `payload` behind an IP header without options.
///
/// # Panics
/// If the packet would exceed 65,535 bytes.
pub fn other(
    protocol: Protocol,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &[u8],
) -> Vec<u8> {
    let length =
        u16::try_from(20 + payload.len()).expect("an IPv4 packet has at most 65,535 bytes");
    let [high, low] = length.to_be_bytes();
    let mut bytes = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol.0, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    refresh_header_checksum(&mut bytes);
    bytes
}

/// Sets the TTL.
pub fn set_ttl(packet: &mut [u8], ttl: u8) {
    packet[8] = ttl;
    refresh_header_checksum(packet);
}

/// Sets DSCP and ECN, the whole byte.
pub fn set_type_of_service(packet: &mut [u8], value: u8) {
    packet[1] = value;
    refresh_header_checksum(packet);
}

/// Sets or clears DF.
pub fn set_dont_fragment(packet: &mut [u8], set: bool) {
    packet[6] = packet[6] & !0x40 | u8::from(set) << 6;
    refresh_header_checksum(packet);
}

/// Sets the IP identification.
pub fn set_identification(packet: &mut [u8], identification: u16) {
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    refresh_header_checksum(packet);
}

/// Inserts IP options, padded with zeros to a multiple of 4 bytes. `packet` has none yet.
///
/// # Panics
/// If there are more than 40 bytes of options, or the packet would exceed 65,535 bytes.
pub fn with_ip_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    assert!(options.len() <= 40, "an IP header has at most 40 bytes of options");
    assert_eq!(packet[0], 0x45, "a packet without options");
    let mut bytes = packet[..20].to_vec();
    bytes.extend(options);
    bytes.resize(20 + options.len().next_multiple_of(4), 0);
    bytes[0] = 0x40 | (bytes.len() / 4) as u8;
    bytes.extend(&packet[20..]);
    let length = u16::try_from(bytes.len()).expect("an IPv4 packet has at most 65,535 bytes");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    refresh_header_checksum(&mut bytes);
    bytes
}

/// Cuts a packet into fragments, in order, with at most `payload` bytes each, a multiple of 8.
/// Copies IP options into every fragment.
///
/// # Panics
/// If `payload` is 0 or not a multiple of 8.
pub fn fragments(packet: &[u8], payload: usize) -> Vec<Vec<u8>> {
    assert!(payload > 0 && payload.is_multiple_of(8), "fragments are multiples of 8 bytes");
    let header_length = usize::from(packet[0] & 15) * 4;
    let (header, body) = packet.split_at(header_length);
    let fragments = body.chunks(payload).enumerate().map(|(index, chunk)| {
        let mut bytes = [header, chunk].concat();
        let length = bytes.len() as u16;
        let start = index * payload;
        let more = u16::from(start + chunk.len() < body.len()) << 13;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[6..8].copy_from_slice(&(more | (start / 8) as u16).to_be_bytes());
        refresh_header_checksum(&mut bytes);
        bytes
    });
    fragments.collect()
}

/// Turns the checksum of a complete TCP or UDP packet into the plain sum over the pseudo header:
/// [`crate::packet::ChecksumMode::Partial`]. Leaves other packets and fragments alone.
pub fn make_partial(packet: &mut [u8]) {
    let header_length = usize::from(packet[0] & 15) * 4;
    let (header, payload) = packet.split_at_mut(header_length);
    let is_fragment = header[6] & 0x3f != 0 || header[7] != 0;
    let at = match header[9] {
        6 if !is_fragment => 16,
        17 | 33 | 136 if !is_fragment => 6,
        _ => return,
    };
    let source = [header[12], header[13], header[14], header[15]];
    let destination = [header[16], header[17], header[18], header[19]];
    let sum = ones_complement_sum(&pseudo_header(source, destination, header[9], payload.len()));
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Computes the IP header checksum, after a header field was set by hand. An IHL below 5 counts as
/// 5, one beyond the end as the end.
pub fn refresh_header_checksum(packet: &mut [u8]) {
    let header_length = (usize::from(packet[0] & 15) * 4).max(20).min(packet.len());
    packet[10..12].fill(0);
    let checksum = !ones_complement_sum(&packet[..header_length]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Returns the pseudo header (RFC 793 §3.1, RFC 768): source, destination, zero, protocol, length
/// of header and data.
pub(super) fn pseudo_header(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    length: usize,
) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    [&source[..], &destination, &[0, protocol, high, low]].concat()
}

/// Returns the sum of RFC 1071 §4.1, a word at a time. Independent of `checksum.rs`, which tests
/// check against it.
pub(super) fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u32::from(*low));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    #[test]
    fn built_packets_equal_those_of_etherparse() {
        let tuple = tuple(Protocol::TCP, ([10, 0, 0, 1], 40_000), ([192, 0, 2, 1], 80));
        let (source, destination) = ([10, 0, 0, 1], [192, 0, 2, 1]);
        // etherparse sets DF.
        let with_df = |mut bytes: Vec<u8>| {
            set_dont_fragment(&mut bytes, true);
            bytes
        };

        let mut built = Vec::new();
        PacketBuilder::ipv4(source, destination, 64)
            .tcp(40_000, 80, 7, WINDOW)
            .syn()
            .ack(9)
            .options_raw(&[2, 4, 5, 180])
            .unwrap()
            .write(&mut built, b"data")
            .unwrap();
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        assert_eq!(with_df(tcp(tuple, flags, 7, 9, &[2, 4, 5, 180], b"data")), built);

        let mut built = Vec::new();
        PacketBuilder::ipv4(source, destination, 64)
            .udp(40_000, 80)
            .write(&mut built, b"dat")
            .unwrap();
        assert_eq!(with_df(udp(tuple, b"dat")), built);

        let mut built = Vec::new();
        PacketBuilder::ipv4(source, destination, 64)
            .icmpv4_echo_request(7, 9)
            .write(&mut built, b"dat")
            .unwrap();
        let echo = echo(source.into(), destination.into(), QueryKind::EchoRequest, 7, 9, b"dat");
        assert_eq!(with_df(echo), built);
    }
}

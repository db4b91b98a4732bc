//! ICMP errors that natbox sends about packets that it cannot forward.

use crate::packet::checksum::{self, ChecksumDelta, udp_nonzero, word};
use crate::packet::icmp;
use crate::packet::ipv4;
use crate::packet::parse::{ChecksumMode, Parsed, Payload};
use crate::packet::tcp::{self, TcpFlags};
use crate::packet::tuple::Protocol;
use crate::packet::udp;
use etherparse::{Icmpv4Header, Icmpv4Type, IpDscp, IpNumber, Ipv4Header};
use std::net::Ipv4Addr;

/// RFC 1812 §4.3.2.3: an ICMP error has at most this many bytes, its IP header included.
const MAX_ERROR: usize = 576;
/// Bytes of the headers in front of the quote.
const BEFORE_QUOTE: usize = ipv4::HEADER + icmp::HEADER;
/// TTL of an error, in hops.
const TTL: u8 = 64;
const FRAGMENTATION_NEEDED: u8 = 4;

/// The kind of an ICMP error to the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// Destination unreachable, code 4, with the MTU of the next hop in bytes (RFC 1191).
    FragmentationNeeded {
        /// Length of the longest IP packet that can be forwarded, in bytes.
        mtu: u16,
    },
    /// Destination unreachable with another code.
    Unreachable {
        /// ICMP code.
        code: u8,
    },
    /// Time exceeded.
    TimeExceeded {
        /// ICMP code: 0 in transit, 1 in reassembly.
        code: u8,
    },
}

/// Replaces the packet at the front of `buffer` by an ICMP error about it, from `source` to its
/// sender. Returns the length of the error: at most 576 bytes.
///
/// `parsed` describes the packet, which must not have been rewritten. `wire_length` is the IP
/// length of the packet on the sender's wire, in bytes: [`Parsed::length`], or for a super-packet
/// the length of its first segment (longer values count as [`Parsed::length`]).
///
/// The error quotes the packet as the sender put it on the wire. A super-packet is quoted as its
/// first segment. In [`ChecksumMode::Partial`] the quoted transport checksum is completed. The TTL
/// in the quote is the one in the buffer.
///
/// Returns `None`, and leaves the buffer alone, if RFC 1812 §4.3.2.7 forbids an error:
/// * about an ICMP error,
/// * about a fragment that is not the first,
/// * about a packet to a broadcast or multicast address (other than the broadcast address of a
///   single network, which is not known here),
/// * about a packet from an address that is not that of one host.
///
/// # Panics
/// If `buffer` is shorter than the packet or than 576 bytes.
#[cold]
pub fn icmp_error(
    parsed: &Parsed,
    buffer: &mut [u8],
    wire_length: usize,
    kind: IcmpErrorKind,
    source: Ipv4Addr,
) -> Option<usize> {
    if !may_be_reported(parsed, buffer) {
        return None;
    }
    let wire_length = wire_length.clamp(parsed.header_length(), parsed.length());
    restore_first_segment(parsed, buffer, wire_length);
    complete_checksum(parsed, buffer, wire_length);

    let quote = wire_length.min(MAX_ERROR - BEFORE_QUOTE);
    let length = BEFORE_QUOTE + quote;
    let (type_of_service, identification) = (buffer[1], u16::from_be_bytes([buffer[4], buffer[5]]));
    buffer.copy_within(..quote, BEFORE_QUOTE);

    let icmp = Icmpv4Header::with_checksum(message(kind), &buffer[BEFORE_QUOTE..length]);
    let mut ip = Ipv4Header {
        // RFC 1812 §4.3.2.5. The ECN bits are not copied: an error is not ECN-capable (RFC 3168
        // §5.2 is for transports).
        dscp: IpDscp::try_new(type_of_service >> 2).unwrap_or_default(),
        total_len: length as u16,
        // As unique as that of the reported packet. No error of this size is fragmented on the way.
        identification,
        dont_fragment: false,
        time_to_live: TTL,
        protocol: IpNumber::ICMP,
        source: source.octets(),
        destination: parsed.source().octets(),
        ..Ipv4Header::default()
    };
    ip.header_checksum = ip.calc_header_checksum();
    buffer[..ipv4::HEADER].copy_from_slice(&ip.to_bytes());
    buffer[ipv4::HEADER..BEFORE_QUOTE].copy_from_slice(&icmp.to_bytes());
    Some(length)
}

/// Returns whether an error may be sent about the packet (RFC 1812 §4.3.2.7, RFC 1122 §3.2.2).
fn may_be_reported(parsed: &Parsed, buffer: &[u8]) -> bool {
    let is_first = match parsed.payload() {
        Payload::Fragment { offset, .. } => offset == 0,
        Payload::Tcp(_)
        | Payload::Udp
        | Payload::IcmpQuery(_)
        | Payload::IcmpError(_)
        | Payload::IcmpOther { .. }
        | Payload::Other => true,
    };
    // parse has checked the length of the ICMP header, in a first fragment as well.
    let is_error = || {
        parsed.protocol() == Protocol::ICMP && icmp::may_be_error(buffer[parsed.header_length()])
    };
    let [from, ..] = parsed.source().octets();
    let from_one_host = !matches!(from, 0 | 127 | 224..=255);
    let destination = parsed.destination();
    is_first
        && !is_error()
        && from_one_host
        && !destination.is_multicast()
        && !destination.is_broadcast()
}

/// Returns type, code and the four bytes behind the checksum.
fn message(kind: IcmpErrorKind) -> Icmpv4Type {
    let (type_u8, code_u8, mtu) = match kind {
        IcmpErrorKind::FragmentationNeeded { mtu } => {
            (icmp::DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, mtu)
        }
        IcmpErrorKind::Unreachable { code } => (icmp::DESTINATION_UNREACHABLE, code, 0),
        IcmpErrorKind::TimeExceeded { code } => (icmp::TIME_EXCEEDED, code, 0),
    };
    let [high, low] = mtu.to_be_bytes();
    Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: [0, 0, high, low] }
}

/// Turns the headers of a super-packet into those of its first segment, `wire_length` bytes long.
fn restore_first_segment(parsed: &Parsed, buffer: &mut [u8], wire_length: usize) {
    if wire_length == parsed.length() {
        return;
    }
    let (header, transport) = buffer[..wire_length].split_at_mut(parsed.header_length());
    let change =
        ChecksumDelta::default().word(word(header, ipv4::TOTAL_LENGTH), wire_length as u16);
    header[ipv4::TOTAL_LENGTH..][..2].copy_from_slice(&(wire_length as u16).to_be_bytes());
    change.update(header, ipv4::CHECKSUM);
    match parsed.payload() {
        Payload::Tcp(_) => {
            // Segmentation sets these two flags in the last segment only.
            if let Some(flags) = transport.get_mut(tcp::FLAGS) {
                *flags &= !(TcpFlags::FIN | TcpFlags::PSH).0;
            }
        }
        Payload::Udp => {
            let length = transport.len() as u16;
            if transport.len() >= udp::HEADER {
                transport[udp::LENGTH..][..2].copy_from_slice(&length.to_be_bytes());
            }
        }
        Payload::IcmpQuery(_)
        | Payload::IcmpError(_)
        | Payload::IcmpOther { .. }
        | Payload::Fragment { .. }
        | Payload::Other => {}
    }
}

/// Computes the checksum of a TCP or UDP packet as on the sender's wire, if the buffer does not
/// have it.
fn complete_checksum(parsed: &Parsed, buffer: &mut [u8], wire_length: usize) {
    let complete = parsed.checksum_mode() == ChecksumMode::Complete;
    if complete && wire_length == parsed.length() {
        return;
    }
    let transport = &mut buffer[parsed.header_length()..wire_length];
    let (at, length) = match parsed.payload() {
        Payload::Tcp(_) => (tcp::CHECKSUM, transport.len()),
        Payload::Udp if transport.len() >= udp::HEADER => {
            let length = usize::from(word(transport, udp::LENGTH)).min(transport.len());
            if complete && word(transport, udp::CHECKSUM) == 0 {
                return;
            }
            (udp::CHECKSUM, length)
        }
        Payload::Udp
        | Payload::IcmpQuery(_)
        | Payload::IcmpError(_)
        | Payload::IcmpOther { .. }
        | Payload::Fragment { .. }
        | Payload::Other => return,
    };
    let transport = &mut transport[..length];
    let Some(field) = transport.get_mut(at..at + 2) else { return };
    field.fill(0);
    let sum = u64::from(parsed.source().to_bits())
        + u64::from(parsed.destination().to_bits())
        + u64::from(parsed.protocol().0)
        + length as u64
        + u64::from(checksum::sum(transport));
    let value = !checksum::fold(sum);
    let value = if at == udp::CHECKSUM { udp_nonzero(value) } else { value };
    transport[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{QueryKind, Tuple, builder, parse};

    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const BOX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const TOO_BIG: IcmpErrorKind = IcmpErrorKind::FragmentationNeeded { mtu: 1400 };

    fn tuple(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (SENDER, 5000), (FAR, 53))
    }

    /// The error about `packet`, verified in full.
    fn report(
        packet: &[u8],
        mode: ChecksumMode,
        wire_length: usize,
        kind: IcmpErrorKind,
    ) -> Option<Vec<u8>> {
        let parsed = parse(packet, mode).unwrap();
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len().max(2048), 0xee);
        let Some(length) = icmp_error(&parsed, &mut buffer, wire_length, kind, BOX) else {
            assert_eq!(buffer[..packet.len()], *packet);
            return None;
        };
        assert!(length <= MAX_ERROR);
        buffer.truncate(length);
        builder::verify(&buffer, ChecksumMode::Complete).unwrap();
        let error = etherparse::Ipv4HeaderSlice::from_slice(&buffer).unwrap();
        assert_eq!((error.source_addr(), error.destination_addr()), (BOX, parsed.source()));
        assert_eq!(
            (usize::from(error.total_len()), error.ttl(), error.dont_fragment()),
            (length, 64, false)
        );
        Some(buffer)
    }

    fn reported(packet: &[u8]) -> bool {
        report(
            packet,
            ChecksumMode::Complete,
            packet.len(),
            IcmpErrorKind::TimeExceeded { code: 0 },
        )
        .is_some()
    }

    #[test]
    fn a_short_packet_is_quoted_whole() {
        let mut packet = builder::udp(tuple(Protocol::UDP), b"payload");
        builder::set_type_of_service(&mut packet, 0xb9);
        builder::set_ttl(&mut packet, 1);
        for (kind, expected) in [
            (TOO_BIG, [3, 4, 0x05, 0x78]),
            (IcmpErrorKind::Unreachable { code: 13 }, [3, 13, 0, 0]),
            (IcmpErrorKind::TimeExceeded { code: 0 }, [11, 0, 0, 0]),
        ] {
            let error = report(&packet, ChecksumMode::Complete, packet.len(), kind).unwrap();
            assert_eq!(error[1], 0xb8, "DSCP without ECN");
            assert_eq!([error[20], error[21], error[26], error[27]], expected);
            assert_eq!(error[24..26], [0, 0]);
            assert_eq!(error[28..], packet);
        }
    }

    #[test]
    fn a_long_packet_is_quoted_up_to_576_bytes() {
        let packet = builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &[7; 1460]);
        let error = report(&packet, ChecksumMode::Complete, packet.len(), TOO_BIG).unwrap();
        assert_eq!(error.len(), 576);
        assert_eq!(error[28..], packet[..548]);
    }

    #[test]
    fn the_quote_of_a_super_packet_is_its_first_segment() {
        let payload: Vec<u8> = (0..40_000u32).map(|index| index as u8).collect();
        let last = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN;
        let mut packet = builder::tcp(tuple(Protocol::TCP), last, 1, 2, &[1; 12], &payload);
        builder::make_partial(&mut packet);
        for size in [1, 100, 501, 1448] {
            let segment =
                builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[1; 12], &payload[..size]);
            let error = report(&packet, ChecksumMode::Partial, segment.len(), TOO_BIG).unwrap();
            assert_eq!(error[28..], segment[..segment.len().min(548)]);
        }
        let mut packet = builder::udp(tuple(Protocol::UDP), &payload);
        builder::make_partial(&mut packet);
        for size in [1, 100, 501, 1448] {
            let datagram = builder::udp(tuple(Protocol::UDP), &payload[..size]);
            let error = report(&packet, ChecksumMode::Partial, datagram.len(), TOO_BIG).unwrap();
            assert_eq!(error[28..], datagram[..datagram.len().min(548)]);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed_in_the_quote() {
        for complete in [
            builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK | TcpFlags::PSH, 1, 2, &[], &[7; 333]),
            builder::udp(tuple(Protocol::UDP), &[7; 333]),
        ] {
            let mut partial = complete.clone();
            builder::make_partial(&mut partial);
            let error = report(&partial, ChecksumMode::Partial, partial.len(), TOO_BIG).unwrap();
            assert_eq!(error[28..], complete);
        }
    }

    #[test]
    fn udp_without_checksum_is_quoted_without() {
        let packet = builder::udp_without_checksum(tuple(Protocol::UDP), b"payload");
        let error = report(&packet, ChecksumMode::Complete, packet.len(), TOO_BIG).unwrap();
        assert_eq!(error[28..], packet);
    }

    #[test]
    fn a_wire_length_out_of_range_is_clamped() {
        let mut packet = builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &[7; 333]);
        builder::make_partial(&mut packet);
        let parsed = parse(&packet, ChecksumMode::Partial).unwrap();
        for wire_length in (0..400).chain([65_535, usize::MAX]) {
            let mut buffer = packet.clone();
            buffer.resize(2048, 0);
            let length = icmp_error(&parsed, &mut buffer, wire_length, TOO_BIG, BOX).unwrap();
            assert_eq!(length, 28 + wire_length.clamp(20, packet.len()));
        }
    }

    /// RTR-NO.
    #[test]
    fn no_error_is_sent_if_rfc_1812_forbids_it() {
        let quoted = builder::udp(tuple(Protocol::UDP), &[1; 40]);
        for kind in 0..=255u8 {
            let error = matches!(kind, 3..=5 | 11 | 12);
            let packet = builder::icmp(SENDER, FAR, kind, 0, [0; 4], &quoted);
            let assigned_query = matches!(kind, 0 | 8 | 9 | 10 | 13..=18);
            assert_eq!(reported(&packet), assigned_query && !error, "type {kind}");
            let first = &builder::fragments(&packet, 40)[0];
            assert_eq!(reported(first), assigned_query && !error, "first fragment of type {kind}");
        }
        let fragments = builder::fragments(&quoted, 16);
        assert!(reported(&fragments[0]));
        assert!(!reported(&fragments[1]));
        let between = |source: [u8; 4], destination: [u8; 4]| {
            reported(&builder::udp(
                builder::tuple(Protocol::UDP, (source, 1), (destination, 2)),
                b"x",
            ))
        };
        assert!(between([10, 0, 0, 1], [192, 0, 2, 1]));
        assert!(between([223, 255, 255, 255], [126, 0, 0, 1]));
        for destination in [[224, 0, 0, 1], [239, 255, 255, 255], [255; 4]] {
            assert!(!between([10, 0, 0, 1], destination));
        }
        for source in
            [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255; 4]]
        {
            assert!(!between(source, [192, 0, 2, 1]));
        }
        assert!(reported(&builder::echo(SENDER, FAR, QueryKind::EchoRequest, 1, 2, b"ping")));
    }
}

//! ICMP queries, and ICMP errors with the packet that they quote.

use crate::packet::checksum;
use crate::packet::ipv4;
use crate::packet::malformed::Malformed;
use crate::packet::tuple::{PortFields, Protocol, Tuple};

/// Bytes of the header, in front of a quote.
pub(crate) const HEADER: usize = 8;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 2;
/// Offset of a query's identifier.
pub(crate) const IDENTIFIER: usize = 4;
/// Offset of the length of the quote in 32-bit words, 0 if not given (RFC 4884 §4).
const QUOTE_LENGTH: usize = 5;

const ECHO_REPLY: u8 = 0;
pub(crate) const DESTINATION_UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
pub(crate) const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const TIMESTAMP_REQUEST: u8 = 13;
const TIMESTAMP_REPLY: u8 = 14;

/// An ICMP message with an identifier that links a request with its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryKind {
    /// Type 8.
    EchoRequest,
    /// Type 0.
    EchoReply,
    /// Type 13.
    TimestampRequest,
    /// Type 14.
    TimestampReply,
}

impl QueryKind {
    /// Returns the query of an ICMP type. `None` for types that are no translated query.
    #[inline]
    pub(crate) const fn of(kind: u8) -> Option<Self> {
        match kind {
            ECHO_REQUEST => Some(Self::EchoRequest),
            ECHO_REPLY => Some(Self::EchoReply),
            TIMESTAMP_REQUEST => Some(Self::TimestampRequest),
            TIMESTAMP_REPLY => Some(Self::TimestampReply),
            _ => None,
        }
    }

    /// Returns the ICMP type.
    pub const fn kind(self) -> u8 {
        match self {
            Self::EchoRequest => ECHO_REQUEST,
            Self::EchoReply => ECHO_REPLY,
            Self::TimestampRequest => TIMESTAMP_REQUEST,
            Self::TimestampReply => TIMESTAMP_REPLY,
        }
    }

    /// Returns true for a request, false for a reply.
    #[inline]
    pub const fn is_request(self) -> bool {
        match self {
            Self::EchoRequest | Self::TimestampRequest => true,
            Self::EchoReply | Self::TimestampReply => false,
        }
    }

    /// Returns the transport fields of this query.
    pub(crate) const fn port_fields(self) -> PortFields {
        if self.is_request() { PortFields::Request } else { PortFields::Reply }
    }

    /// Returns source and destination port. [`crate::packet::Endpoint`] says which of them is the
    /// identifier.
    #[inline]
    pub(crate) fn ports(self, identifier: u16) -> (u16, u16) {
        if self.is_request() { (identifier, 0) } else { (0, identifier) }
    }
}

/// An ICMP error that can be translated: destination unreachable (3), time exceeded (11), parameter
/// problem (12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Tuple of the quoted packet. Its source is the host that the error is for.
    pub quoted: Tuple,
}

/// The position of the rewritable parts of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// Length of the quoted IP header, in bytes.
    pub(crate) header_length: u8,
    /// Number of quoted bytes of the transport header, at most [`Quote::ENOUGH`].
    pub(crate) transport_length: u8,
    /// The transport fields among them.
    pub(crate) port_fields: PortFields,
}

impl Quote {
    /// The value for a packet that is no ICMP error.
    pub(crate) const NONE: Self =
        Self { header_length: 0, transport_length: 0, port_fields: PortFields::None };
    /// No protocol has a rewritable field beyond this number of bytes.
    const ENOUGH: usize = 20;
}

/// Returns the identifier of the query at the front of `icmp`, which has at least [`HEADER`] bytes.
#[inline]
pub(crate) fn identifier(icmp: &[u8]) -> u16 {
    u16::from_be_bytes([icmp[IDENTIFIER], icmp[IDENTIFIER + 1]])
}

/// Returns whether errors of this type are translated. Source quench and redirect are errors, but
/// never forwarded.
#[inline]
pub(crate) const fn is_translatable_error(kind: u8) -> bool {
    matches!(kind, DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// Returns whether a type may be an error, so that no error may be sent about it (RFC 1122 §3.2.2).
/// As in Linux, types that IANA has not assigned count as errors.
pub(crate) const fn may_be_error(kind: u8) -> bool {
    !matches!(kind, 0 | 8 | 9 | 10 | 13..=18)
}

/// Reads the packet inside an ICMP error. `icmp` is the whole message, at least [`HEADER`] bytes.
pub(crate) fn read_quote(icmp: &[u8]) -> Result<(Tuple, Quote), Malformed> {
    if checksum::sum(icmp) != checksum::VALID {
        return Err(Malformed::IcmpChecksum);
    }
    let quote = &icmp[HEADER..];
    let fixed = quote.first_chunk::<{ ipv4::HEADER }>().ok_or(Malformed::QuoteTruncated)?;
    let header = ipv4::Header::read(fixed);
    if header.version != 4
        || header.header_length < ipv4::HEADER
        || header.total_length < header.header_length
    {
        return Err(Malformed::QuoteHeader);
    }
    // RFC 5508 REQ-3b: all options are skipped.
    let whole_header = quote.get(..header.header_length).ok_or(Malformed::QuoteTruncated)?;
    if checksum::sum(whole_header) != checksum::VALID {
        return Err(Malformed::QuoteChecksum);
    }
    if header.fragment_offset() != 0 {
        return Err(Malformed::QuoteFragment);
    }
    // Padding of the quote (RFC 4884 §4.6) and extensions behind the quote are no transport header.
    let transport = &quote[header.header_length..quote_end(icmp, &header)?];
    let word = |at: usize| match transport.get(at..at + 2) {
        Some(bytes) => Ok(u16::from_be_bytes([bytes[0], bytes[1]])),
        None => Err(Malformed::QuoteTruncated),
    };
    let (ports, port_fields) = match header.protocol {
        Protocol::TCP => ((word(0)?, word(2)?), PortFields::Tcp),
        Protocol::UDP => ((word(0)?, word(2)?), PortFields::Udp),
        Protocol::ICMP => {
            let kind = *transport.first().ok_or(Malformed::QuoteTruncated)?;
            match (QueryKind::of(kind), kind) {
                (Some(query), _) => (query.ports(word(IDENTIFIER)?), query.port_fields()),
                (None, SOURCE_QUENCH | REDIRECT) => return Err(Malformed::QuoteIcmpError),
                (None, kind) if is_translatable_error(kind) => {
                    return Err(Malformed::QuoteIcmpError);
                }
                (None, _) => return Err(Malformed::QuoteIcmpOther),
            }
        }
        other => ((0, 0), PortFields::without_ports(other)),
    };
    let quote = Quote {
        header_length: header.header_length as u8,
        transport_length: transport.len().min(Quote::ENOUGH) as u8,
        port_fields,
    };
    Ok((header.tuple(ports.0, ports.1), quote))
}

/// Returns the end of the quoted packet, counted from its start: at least its header.
fn quote_end(icmp: &[u8], header: &ipv4::Header) -> Result<usize, Malformed> {
    let present = icmp.len() - HEADER;
    let stated = usize::from(icmp[QUOTE_LENGTH]) * 4;
    if stated > present {
        return Err(Malformed::QuoteLength);
    }
    // RFC 792 promises eight bytes of transport: a length that leaves fewer is ignored.
    let present = if stated >= header.header_length + 8 { stated } else { present };
    Ok(present.min(header.total_length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ChecksumMode, Parsed, Payload, TcpFlags, Ttl, builder, parse};
    use std::net::Ipv4Addr;

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn parsed(bytes: &[u8]) -> Result<Parsed, Malformed> {
        parse(bytes, ChecksumMode::Complete)
    }

    fn tuple(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (PUBLIC, 5000), (OUTSIDE, 53))
    }

    fn about(quoted: &[u8]) -> Vec<u8> {
        builder::icmp_error(3, 3, ROUTER, PUBLIC, quoted)
    }

    fn tcp() -> Vec<u8> {
        builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], b"some payload")
    }

    fn udp() -> Vec<u8> {
        builder::udp(tuple(Protocol::UDP), b"some payload")
    }

    fn echo(kind: QueryKind) -> Vec<u8> {
        builder::echo(PUBLIC, OUTSIDE, kind, 77, 3, b"some payload")
    }

    #[test]
    fn a_reply_has_the_reversed_tuple_of_its_request() {
        for (request, reply) in [
            (QueryKind::EchoRequest, QueryKind::EchoReply),
            (QueryKind::TimestampRequest, QueryKind::TimestampReply),
        ] {
            let request = builder::echo(INSIDE, OUTSIDE, request, 77, 1, &[0; 12]);
            let reply = builder::echo(OUTSIDE, INSIDE, reply, 77, 1, &[0; 12]);
            let request = parsed(&request).unwrap().tuple().unwrap();
            assert_eq!(request.source.port, 77);
            assert_eq!(request.destination.port, 0);
            assert_eq!(parsed(&reply).unwrap().tuple(), Some(request.reversed()));
        }
    }

    #[test]
    fn all_types_are_query_error_or_other() {
        for kind in 0..=255u8 {
            let bytes = builder::icmp(INSIDE, OUTSIDE, kind, 0, [0; 4], &udp());
            match parsed(&bytes).unwrap().payload() {
                Payload::IcmpQuery(query) => assert_eq!(query.kind(), kind),
                Payload::IcmpError(error) => assert!(matches!(error.kind, 3 | 11 | 12)),
                Payload::IcmpOther { kind: other, .. } => assert_eq!(other, kind),
                other @ (Payload::Tcp(_)
                | Payload::Udp
                | Payload::Fragment { .. }
                | Payload::Other) => {
                    panic!("{other:?}")
                }
            }
        }
        let short = builder::other(Protocol::ICMP, INSIDE, OUTSIDE, &[8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parsed(&short).err(), Some(Malformed::IcmpTruncated));
    }

    /// ERR-TRUNC: every length of a quote, with the shortest one that holds the ports or the
    /// identifier.
    #[test]
    fn a_truncated_quote_is_accepted_if_it_holds_the_ports() {
        let gre = builder::other(Protocol(47), PUBLIC, OUTSIDE, &[0; 20]);
        let request = builder::tuple(Protocol::ICMP, (PUBLIC, 77), (OUTSIDE, 0));
        let reply = builder::tuple(Protocol::ICMP, (PUBLIC, 0), (OUTSIDE, 77));
        for (quoted, shortest, expected) in [
            (tcp(), 24, tuple(Protocol::TCP)),
            (udp(), 24, tuple(Protocol::UDP)),
            (echo(QueryKind::EchoRequest), 26, request),
            (echo(QueryKind::EchoReply), 26, reply),
            (gre, 20, builder::tuple(Protocol(47), (PUBLIC, 0), (OUTSIDE, 0))),
        ] {
            for length in 0..=quoted.len() {
                let mut bytes = about(&quoted[..length]);
                let result = parsed(&bytes);
                if length < shortest {
                    assert_eq!(result.err(), Some(Malformed::QuoteTruncated), "{length}");
                    continue;
                }
                let parsed = result.unwrap();
                let Payload::IcmpError(error) = parsed.payload() else { panic!() };
                assert_eq!(error, IcmpError { kind: 3, code: 3, quoted: expected });
                let before = bytes.clone();
                let to = builder::tuple(expected.protocol, (INSIDE, 6000), (OUTSIDE, 54));
                parsed.rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
                builder::verify(&bytes, ChecksumMode::Complete).unwrap();
                parsed.rewrite_error(&mut bytes, ROUTER, PUBLIC, expected, Ttl::Keep);
                assert_eq!(bytes, before);
            }
        }
    }

    #[test]
    fn wrong_checksums_of_error_and_quoted_header_are_malformed() {
        let mut bytes = about(&udp());
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(parsed(&bytes).err(), Some(Malformed::IcmpChecksum));
        let mut quoted = udp();
        quoted[10] ^= 1;
        assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteChecksum));
    }

    /// RFC 5508 REQ-3c: the quoted transport checksum is not checked, and keeps its error.
    #[test]
    fn a_wrong_quoted_transport_checksum_stays_equally_wrong() {
        let mut quoted = udp();
        quoted[27] ^= 0x10;
        let mut bytes = about(&quoted);
        let to = builder::tuple(Protocol::UDP, (INSIDE, 6000), (OUTSIDE, 53));
        parsed(&bytes).unwrap().rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
        let mut expected = builder::udp(to, b"some payload");
        let right = u16::from_be_bytes([expected[26], expected[27]]);
        expected[26..28].copy_from_slice(&bytes[54..56]);
        assert_eq!(bytes[28..], expected);
        let wrong = u16::from_be_bytes([bytes[54], bytes[55]]);
        let difference = (u32::from(wrong) + 0xffff - u32::from(right)) % 0xffff;
        let original = udp();
        let original_difference = (u32::from(u16::from_be_bytes([quoted[26], quoted[27]]))
            + 0xffff
            - u32::from(u16::from_be_bytes([original[26], original[27]])))
            % 0xffff;
        assert_eq!(difference, original_difference);
    }

    #[test]
    fn quoted_udp_without_checksum_stays_without() {
        let mut bytes = about(&builder::udp_without_checksum(tuple(Protocol::UDP), b"payload"));
        let to = builder::tuple(Protocol::UDP, (INSIDE, 6000), (OUTSIDE, 53));
        parsed(&bytes).unwrap().rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
        assert_eq!(bytes[28..], builder::udp_without_checksum(to, b"payload"));
        builder::verify(&bytes, ChecksumMode::Complete).unwrap();
    }

    #[test]
    fn quoted_options_are_skipped_and_a_wrong_header_length_is_malformed() {
        for words in 1..=10 {
            let quoted = builder::with_ip_options(&tcp(), &vec![1; words * 4]);
            let mut bytes = about(&quoted);
            let parsed = parsed(&bytes).unwrap();
            let to = builder::tuple(Protocol::TCP, (INSIDE, 6000), (OUTSIDE, 53));
            parsed.rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
            builder::verify(&bytes, ChecksumMode::Complete).unwrap();
            assert_eq!(bytes[28 + 20 + words * 4..][..2], 6000u16.to_be_bytes());
        }
        let mut quoted = udp()[..28].to_vec();
        quoted[0] = 0x4f;
        quoted[2..4].copy_from_slice(&100u16.to_be_bytes());
        assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteTruncated));
        quoted[0] = 0x44;
        assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteHeader));
        quoted[0] = 0x65;
        assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteHeader));
        let mut quoted = udp();
        quoted[2..4].copy_from_slice(&19u16.to_be_bytes());
        assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteHeader));
    }

    /// ERR-NEST.
    #[test]
    fn errors_about_errors_and_later_fragments_are_malformed() {
        for kind in [3, 4, 5, 11, 12] {
            let quoted = builder::icmp(PUBLIC, OUTSIDE, kind, 0, [0; 4], &udp());
            assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteIcmpError));
        }
        for kind in [9, 15, 17, 42] {
            let quoted = builder::icmp(PUBLIC, OUTSIDE, kind, 0, [0; 4], &[]);
            assert_eq!(parsed(&about(&quoted)).err(), Some(Malformed::QuoteIcmpOther));
        }
        let fragments = builder::fragments(&udp(), 16);
        assert!(matches!(parsed(&about(&fragments[0])).unwrap().payload(), Payload::IcmpError(_)));
        assert_eq!(parsed(&about(&fragments[1])).err(), Some(Malformed::QuoteFragment));
    }

    /// RFC 4884: a quote of 128 bytes, then an MPLS label stack extension.
    #[test]
    fn extensions_behind_a_quote_stay_as_they_are() {
        let extension = [0x20, 0, 0x9e, 0x31, 0, 8, 1, 1, 0x03, 0xe8, 0x01, 0x01];
        let long = builder::udp(tuple(Protocol::UDP), &[0x33; 400]);
        let mut short = udp();
        short.resize(128, 0);
        for (quoted, words) in
            [(&long[..128], 32), (&short[..], 32), (&long[..124], 31), (&long[..128], 0)]
        {
            let body = [quoted, &extension].concat();
            let mut bytes = builder::icmp(ROUTER, PUBLIC, 11, 0, [0, words, 0, 0], &body);
            let to = builder::tuple(Protocol::UDP, (INSIDE, 6000), (OUTSIDE, 53));
            parsed(&bytes).unwrap().rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
            assert_eq!(bytes[bytes.len() - extension.len()..], extension);
            assert_eq!(bytes[25], words);
            builder::verify(&bytes, ChecksumMode::Complete).unwrap();
        }
    }

    #[test]
    fn an_extension_is_not_taken_for_a_quoted_checksum() {
        // 28 bytes of quote (TCP without its checksum field) as RFC 4884 forbids but RFC 792
        // allows.
        let body =
            [&tcp()[..28], &[0x20, 0, 0x9e, 0x31, 0, 8, 1, 1, 0x03, 0xe8, 0x01, 0x01]].concat();
        let mut bytes = builder::icmp(ROUTER, PUBLIC, 11, 0, [0, 7, 0, 0], &body);
        let to = builder::tuple(Protocol::TCP, (INSIDE, 6000), (OUTSIDE, 53));
        parsed(&bytes).unwrap().rewrite_error(&mut bytes, ROUTER, INSIDE, to, Ttl::Keep);
        assert_eq!(bytes[56..], body[28..]);
    }

    /// ICMP-3d.
    #[test]
    fn a_quote_length_below_the_ports_is_ignored_and_one_beyond_the_packet_malformed() {
        let about_with = |words: u8| builder::icmp(ROUTER, PUBLIC, 3, 1, [0, words, 0, 0], &udp());
        assert_eq!(udp().len(), 40);
        for words in 0..=10 {
            let Payload::IcmpError(error) = parsed(&about_with(words)).unwrap().payload() else {
                panic!()
            };
            assert_eq!(error.quoted, tuple(Protocol::UDP));
        }
        for words in 11..=255 {
            assert_eq!(parsed(&about_with(words)).err(), Some(Malformed::QuoteLength));
        }
    }
}

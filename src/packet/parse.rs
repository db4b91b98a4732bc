//! From bytes to a [`Parsed`].

use super::icmp::{self, IcmpError, QueryKind, Quote};
use super::ipv4::Header;
use super::malformed::Malformed;
use super::tcp::{self, Tcp};
use super::tuple::{PortFields, Protocol, Tuple};
use super::udp;
use std::net::Ipv4Addr;

/// Who finishes the TCP or UDP checksum of a packet. It says nothing about ICMP, the IP header, or the packet inside
/// an ICMP error: those are always complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumMode {
    /// The field holds the checksum.
    Complete,
    /// The field holds the folded sum over the pseudo header, not complemented (virtio's NEEDS_CSUM), and whoever puts
    /// the packet on a wire adds the rest.
    Partial,
}

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp,
    /// An ICMP message that asks or answers, and has an identifier.
    IcmpQuery(QueryKind),
    /// An ICMP message that reports on another packet.
    IcmpError(IcmpError),
    /// Every other ICMP message: source quench and redirect too.
    IcmpOther {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// A piece of a datagram: MF is set or the offset is not 0. Its ends are consistent (RFC 791), and neither a first
    /// piece nor one behind it cuts into a TCP, UDP or ICMP header (RFC 1858, RFC 3128).
    Fragment {
        /// Where the piece starts in the datagram's payload: bytes, a multiple of 8.
        offset: u16,
        /// More pieces follow this one.
        more: bool,
        /// IP identification, which the pieces of one datagram share.
        identification: u16,
        /// The tuple of the datagram, in its first piece; `None` there too for ICMP other than queries.
        first_tuple: Option<Tuple>,
    },
    /// Another IP protocol.
    Other,
}

/// A well-formed IPv4 packet: a copy of its header fields, and where the rewritable ones stand.
///
/// It describes the bytes it was parsed from and is only of use together with them. It stays true under its own
/// methods except that addresses, ports, TTL and MSS are those of the time of the parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    content: Payload,
    /// Ports are 0 where there are none, and in fragments.
    tuple: Tuple,
    length: u16,
    header_length: u8,
    ttl: u8,
    dont_fragment: bool,
    checksum: ChecksumMode,
    /// What of the IP payload a rewrite changes.
    pub(super) fields: PortFields,
    /// The packet inside, where the content is an ICMP error.
    pub(super) quote: Quote,
}

const _: () = assert!(size_of::<Parsed>() <= 48, "Parsed is copied per packet and per batch");

/// Parses the IPv4 packet at the front of `bytes`. What lies behind its total length is ignored: links pad.
///
/// # Errors
/// The first thing that is wrong with it. Transport checksums are not checked (the receiver does that), except on ICMP
/// errors, which change the state of connections (RFC 5508 REQ-3).
#[inline]
pub fn parse(bytes: &[u8], checksum: ChecksumMode) -> Result<Parsed, Malformed> {
    let header = Header::parse(bytes)?;
    let payload = &bytes[header.header_length..header.total_length];
    if header.is_fragment() {
        return parse_fragment(header, payload, checksum);
    }
    match header.protocol {
        Protocol::TCP => {
            let (tcp, source, destination) = tcp::read(payload)?;
            Ok(Parsed::new(
                &header,
                checksum,
                Payload::Tcp(tcp),
                PortFields::Tcp,
                (source, destination),
            ))
        }
        Protocol::UDP => {
            let ports = udp::read(payload, false)?;
            Ok(Parsed::new(&header, checksum, Payload::Udp, PortFields::Udp, ports))
        }
        Protocol::ICMP => parse_icmp(header, payload, checksum),
        _ => Ok(Parsed::new(&header, checksum, Payload::Other, PortFields::None, (0, 0))),
    }
}

#[inline(never)]
fn parse_icmp(header: Header, payload: &[u8], checksum: ChecksumMode) -> Result<Parsed, Malformed> {
    let icmp = payload.first_chunk::<{ icmp::HEADER }>().ok_or(Malformed::IcmpTruncated)?;
    let (kind, code) = (icmp[0], icmp[1]);
    if let Some(query) = QueryKind::of(kind) {
        let ports = query.ports(icmp::identifier(icmp));
        return Ok(Parsed::new(
            &header,
            checksum,
            Payload::IcmpQuery(query),
            query.port_fields(),
            ports,
        ));
    }
    if icmp::is_translatable_error(kind) {
        let (quoted, quote) = icmp::read_quote(payload)?;
        let content = Payload::IcmpError(IcmpError { kind, code, quoted });
        return Ok(Parsed {
            quote,
            ..Parsed::new(&header, checksum, content, PortFields::None, (0, 0))
        });
    }
    Ok(Parsed::new(&header, checksum, Payload::IcmpOther { kind, code }, PortFields::None, (0, 0)))
}

/// Pieces are checked so that no order of arrival can make one cover another's header, whoever reassembles them.
#[inline(never)]
fn parse_fragment(
    header: Header,
    payload: &[u8],
    checksum: ChecksumMode,
) -> Result<Parsed, Malformed> {
    let offset = header.fragment_offset();
    let more = header.more_fragments();
    if payload.is_empty() || (more && !payload.len().is_multiple_of(8)) {
        return Err(Malformed::FragmentLength);
    }
    if header.total_length + usize::from(offset) > usize::from(u16::MAX) {
        return Err(Malformed::FragmentBeyondLimit);
    }
    let whole_header = match header.protocol {
        Protocol::TCP => tcp::HEADER,
        Protocol::UDP => udp::HEADER,
        Protocol::ICMP => icmp::HEADER,
        _ => 0,
    };
    // A first piece has the whole header, so a later one that starts within it overlaps (RFC 3128 §2).
    let tiny =
        if offset == 0 { payload.len() < whole_header } else { usize::from(offset) < whole_header };
    if tiny {
        return Err(Malformed::FragmentTiny);
    }
    let (fields, ports) =
        if offset == 0 { first_piece(&header, payload)? } else { (PortFields::None, None) };
    let first_tuple = ports.map(|(source, destination)| header.tuple(source, destination));
    let content =
        Payload::Fragment { offset, more, identification: header.identification, first_tuple };
    Ok(Parsed::new(&header, checksum, content, fields, (0, 0)))
}

/// What a rewrite changes in a first piece, which has a whole transport header, and the ports in it.
fn first_piece(
    header: &Header,
    payload: &[u8],
) -> Result<(PortFields, Option<(u16, u16)>), Malformed> {
    match header.protocol {
        Protocol::TCP if tcp::data_offset(payload[12]) < tcp::HEADER => Err(Malformed::TcpOffset),
        Protocol::TCP => {
            let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            Ok((PortFields::Tcp, Some((word(0), word(2)))))
        }
        Protocol::UDP => Ok((PortFields::Udp, Some(udp::read(payload, true)?))),
        Protocol::ICMP => Ok(match QueryKind::of(payload[0]) {
            Some(query) => (query.port_fields(), Some(query.ports(icmp::identifier(payload)))),
            None => (PortFields::None, None),
        }),
        _ => Ok((PortFields::None, Some((0, 0)))),
    }
}

impl Parsed {
    /// In one piece, so that it is written to where the caller wants it, once.
    #[inline(always)]
    fn new(
        header: &Header,
        checksum: ChecksumMode,
        content: Payload,
        fields: PortFields,
        (source, destination): (u16, u16),
    ) -> Self {
        Self {
            content,
            tuple: header.tuple(source, destination),
            length: header.total_length as u16,
            header_length: header.header_length as u8,
            ttl: header.ttl,
            dont_fragment: header.dont_fragment(),
            checksum,
            fields,
            quote: Quote::NONE,
        }
    }

    /// IP total length: bytes, header included.
    #[inline]
    pub fn length(&self) -> usize {
        usize::from(self.length)
    }

    /// Length of the IP header with its options: 20 to 60 bytes.
    #[inline]
    pub fn header_length(&self) -> usize {
        usize::from(self.header_length)
    }

    /// IP protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.tuple.protocol
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.tuple.source.address
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.tuple.destination.address
    }

    /// Time to live, in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The DF bit.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.dont_fragment
    }

    /// Who finishes the TCP or UDP checksum: as it was given to [`parse`].
    #[inline]
    pub fn checksum_mode(&self) -> ChecksumMode {
        self.checksum
    }

    /// What the packet carries.
    #[inline]
    pub fn payload(&self) -> Payload {
        self.content
    }

    /// What a session of this packet is looked up by: with ports for TCP and UDP, with the identifier for ICMP queries
    /// (see [`super::Endpoint`]), with ports 0 for other protocols. `None` for ICMP errors, other ICMP messages and fragments.
    #[inline]
    pub fn tuple(&self) -> Option<Tuple> {
        match self.content {
            Payload::Tcp(_) | Payload::Udp | Payload::IcmpQuery(_) | Payload::Other => {
                Some(self.tuple)
            }
            Payload::IcmpError(_) | Payload::IcmpOther { .. } | Payload::Fragment { .. } => None,
        }
    }

    /// The TCP header of a segment or of the first piece of one, whose length is then that of the piece; none of any other
    /// packet.
    #[inline]
    pub fn tcp(&self, bytes: &[u8]) -> Option<Tcp> {
        match self.payload() {
            Payload::Tcp(tcp) => Some(tcp),
            Payload::Fragment { offset: 0, .. } if self.protocol() == Protocol::TCP => {
                tcp::read(bytes.get(self.header_length()..self.length())?)
                    .ok()
                    .map(|(tcp, _, _)| tcp)
            }
            Payload::Fragment { .. }
            | Payload::Udp
            | Payload::IcmpQuery(_)
            | Payload::IcmpError(_)
            | Payload::IcmpOther { .. }
            | Payload::Other => None,
        }
    }

    /// The addresses, with ports 0 in every packet that has no [`Parsed::tuple`].
    #[inline]
    pub(super) fn outer_tuple(&self) -> Tuple {
        self.tuple
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlags;
    use crate::packet::builder;

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn parsed(bytes: &[u8]) -> Result<Parsed, Malformed> {
        parse(bytes, ChecksumMode::Complete)
    }

    fn tuple(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (INSIDE, 5000), (OUTSIDE, 53))
    }

    fn udp_pieces() -> Vec<Vec<u8>> {
        let mut bytes = builder::udp(tuple(Protocol::UDP), &[7; 40]);
        builder::set_identification(&mut bytes, 77);
        builder::fragments(&bytes, 16)
    }

    #[test]
    fn pieces_of_a_datagram_are_fragments_and_the_first_has_the_tuple() {
        let contents: Vec<_> = udp_pieces().iter().map(|piece| parsed(piece).unwrap()).collect();
        let piece = |offset, more, first_tuple| Payload::Fragment {
            offset,
            more,
            identification: 77,
            first_tuple,
        };
        assert_eq!(contents[0].payload(), piece(0, true, Some(tuple(Protocol::UDP))));
        assert_eq!(contents[1].payload(), piece(16, true, None));
        assert_eq!(contents[2].payload(), piece(32, false, None));
        assert!(contents.iter().all(|piece| piece.tuple().is_none()));
    }

    #[test]
    fn first_pieces_of_every_protocol_have_their_tuple() {
        let echo = |kind| builder::echo(INSIDE, OUTSIDE, kind, 9, 1, &[0; 40]);
        let first = |bytes: &[u8]| {
            let content = parsed(&builder::fragments(bytes, 24)[0]).unwrap().payload();
            let Payload::Fragment { first_tuple, .. } = content else { panic!("{content:?}") };
            first_tuple
        };
        let icmp = |source, destination| {
            builder::tuple(Protocol::ICMP, (INSIDE, source), (OUTSIDE, destination))
        };
        assert_eq!(first(&echo(QueryKind::EchoRequest)), Some(icmp(9, 0)));
        assert_eq!(first(&echo(QueryKind::EchoReply)), Some(icmp(0, 9)));
        let segment = builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &[0; 40]);
        assert_eq!(first(&segment), Some(tuple(Protocol::TCP)));
        let gre = builder::other(Protocol(47), INSIDE, OUTSIDE, &[0; 40]);
        assert_eq!(first(&gre), Some(builder::tuple(Protocol(47), (INSIDE, 0), (OUTSIDE, 0))));
        let error = builder::icmp_error(3, 3, INSIDE, OUTSIDE, &segment);
        assert_eq!(first(&error), None);
    }

    #[test]
    fn hostile_fragments_are_refused() {
        // (protocol, offset in units of 8 bytes with the MF bit, payload bytes)
        const MORE: u16 = 0x2000;
        for (protocol, word, payload, expected) in [
            (Protocol::UDP, MORE, 0, Malformed::FragmentLength),
            (Protocol::UDP, 5, 0, Malformed::FragmentLength),
            (Protocol::UDP, MORE | 5, 12, Malformed::FragmentLength),
            (Protocol::UDP, 8191, 8, Malformed::FragmentBeyondLimit),
            (Protocol::TCP, MORE, 8, Malformed::FragmentTiny),
            (Protocol::TCP, MORE, 16, Malformed::FragmentTiny),
            (Protocol::TCP, 1, 100, Malformed::FragmentTiny),
            (Protocol::TCP, MORE | 2, 8, Malformed::FragmentTiny),
            (Protocol::TCP, MORE, 24, Malformed::TcpOffset),
            (Protocol::UDP, MORE, 8, Malformed::UdpLength),
        ] {
            let mut bytes = builder::other(protocol, INSIDE, OUTSIDE, &vec![0; payload]);
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            builder::refresh_header_checksum(&mut bytes);
            assert_eq!(parsed(&bytes).err(), Some(expected), "{protocol} {word:04x} {payload}");
        }
    }

    #[test]
    fn a_last_piece_of_one_byte_is_legal() {
        let mut bytes = builder::other(Protocol::UDP, INSIDE, OUTSIDE, &[1]);
        bytes[6..8].copy_from_slice(&1u16.to_be_bytes());
        builder::refresh_header_checksum(&mut bytes);
        assert!(parsed(&bytes).is_ok());
    }

    #[test]
    fn other_protocols_have_a_tuple_without_ports() {
        for protocol in [0, 2, 41, 47, 50, 132, 253, 255] {
            let bytes = builder::other(Protocol(protocol), INSIDE, OUTSIDE, &[0xff; 8]);
            let parsed = parsed(&bytes).unwrap();
            assert_eq!(parsed.payload(), Payload::Other);
            assert_eq!(
                parsed.tuple(),
                Some(builder::tuple(Protocol(protocol), (INSIDE, 0), (OUTSIDE, 0)))
            );
        }
    }

    #[test]
    fn a_super_packet_of_the_largest_size_is_one_packet() {
        let mut bytes =
            builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &vec![0x5a; 65_495]);
        builder::make_partial(&mut bytes);
        let parsed = parse(&bytes, ChecksumMode::Partial).unwrap();
        assert_eq!(parsed.length(), 65_535);
        let Payload::Tcp(tcp) = parsed.payload() else { panic!() };
        assert_eq!(tcp.payload_length, 65_495);
        parsed.rewrite(&mut bytes, builder::tuple(Protocol::TCP, (OUTSIDE, 1), (INSIDE, 2)), true);
        builder::verify(&bytes, ChecksumMode::Partial).unwrap();
    }
}

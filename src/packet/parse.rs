//! Parses bytes to a [`Parsed`].

use super::icmp::{self, IcmpError, QueryKind, Quote};
use super::ipv4::Header;
use super::malformed::Malformed;
use super::tcp::{self, Tcp};
use super::tuple::{PortFields, Protocol, Tuple};
use super::udp;
use std::net::Ipv4Addr;

/// The state of the TCP or UDP checksum of a packet. The checksums of ICMP, of the IP header and of
/// the packet inside an ICMP error are always complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumMode {
    /// The field holds the checksum.
    Complete,
    /// The field holds the folded sum over the pseudo header, not complemented (virtio's
    /// NEEDS_CSUM). The last kernel or network card adds the rest.
    Partial,
}

/// The payload of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp,
    /// An ICMP request or reply with an identifier.
    IcmpQuery(QueryKind),
    /// An ICMP message that reports on another packet.
    IcmpError(IcmpError),
    /// Every other ICMP message, source quench and redirect included.
    IcmpOther {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// A fragment of a datagram: MF is set or the offset is not 0. Its ends are consistent (RFC
    /// 791). Neither a first fragment nor a later one cuts into a TCP, UDP or ICMP header (RFC
    /// 1858, RFC 3128).
    Fragment {
        /// Start of the fragment in the datagram's payload, in bytes, a multiple of 8.
        offset: u16,
        /// MF: more fragments follow this one.
        more: bool,
        /// IP identification, which the fragments of one datagram share.
        identification: u16,
        /// Tuple of the datagram, in its first fragment. `None` in later fragments, and for ICMP
        /// other than queries.
        first_tuple: Option<Tuple>,
    },
    /// Another IP protocol.
    Other,
}

/// A well-formed IPv4 packet: a copy of its header fields, and the positions of the rewritable
/// ones.
///
/// A `Parsed` describes the bytes from which it was parsed and is useful only together with them.
/// Its own methods keep it valid, but addresses, ports, TTL and MSS remain those of the time of the
/// parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    payload: Payload,
    /// Ports are 0 in fragments and in packets without ports.
    tuple: Tuple,
    length: u16,
    header_length: u8,
    ttl: u8,
    dont_fragment: bool,
    checksum: ChecksumMode,
    /// Transport fields that a rewrite changes.
    pub(super) port_fields: PortFields,
    /// The quoted packet, if the payload is an ICMP error.
    pub(super) quote: Quote,
}

const _: () = assert!(size_of::<Parsed>() <= 48, "Parsed is copied per packet and per batch");

/// Parses the IPv4 packet at the front of `bytes`. Ignores the bytes beyond its total length, as
/// links pad.
///
/// # Errors
/// The first cause for which the packet is malformed. Transport checksums are left to the receiver,
/// except those of ICMP errors, which change the state of connections (RFC 5508 REQ-3).
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
        other => {
            let fields = PortFields::without_ports(other);
            Ok(Parsed::new(&header, checksum, Payload::Other, fields, (0, 0)))
        }
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
        let error = Payload::IcmpError(IcmpError { kind, code, quoted });
        return Ok(Parsed {
            quote,
            ..Parsed::new(&header, checksum, error, PortFields::None, (0, 0))
        });
    }
    Ok(Parsed::new(&header, checksum, Payload::IcmpOther { kind, code }, PortFields::None, (0, 0)))
}

/// Checks a fragment so that, in any order of arrival, no fragment can overwrite the header in
/// another one.
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
    // A first fragment has the whole header, so a later one that starts within it overlaps (RFC
    // 3128 §2).
    let tiny =
        if offset == 0 { payload.len() < whole_header } else { usize::from(offset) < whole_header };
    if tiny {
        return Err(Malformed::FragmentTiny);
    }
    let (fields, ports) =
        if offset == 0 { first_fragment(&header, payload)? } else { (PortFields::None, None) };
    let first_tuple = ports.map(|(source, destination)| header.tuple(source, destination));
    let fragment =
        Payload::Fragment { offset, more, identification: header.identification, first_tuple };
    Ok(Parsed::new(&header, checksum, fragment, fields, (0, 0)))
}

/// Returns the transport fields of a first fragment, and the ports in them. The fragment has a
/// whole transport header.
fn first_fragment(
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
        other => Ok((PortFields::without_ports(other), Some((0, 0)))),
    }
}

impl Parsed {
    /// Inlined, so that the value is written once, to the caller's destination.
    #[inline(always)]
    fn new(
        header: &Header,
        checksum: ChecksumMode,
        payload: Payload,
        port_fields: PortFields,
        (source, destination): (u16, u16),
    ) -> Self {
        Self {
            payload,
            tuple: header.tuple(source, destination),
            length: header.total_length as u16,
            header_length: header.header_length as u8,
            ttl: header.ttl,
            dont_fragment: header.dont_fragment(),
            checksum,
            port_fields,
            quote: Quote::NONE,
        }
    }

    /// Returns the IP total length in bytes, header included.
    #[inline]
    pub fn length(&self) -> usize {
        usize::from(self.length)
    }

    /// Returns the length of the IP header with its options: 20 to 60 bytes.
    #[inline]
    pub fn header_length(&self) -> usize {
        usize::from(self.header_length)
    }

    /// Returns the IP protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.tuple.protocol
    }

    /// Returns the source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.tuple.source.address
    }

    /// Returns the destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.tuple.destination.address
    }

    /// Returns the time to live, in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Returns the DF bit.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.dont_fragment
    }

    /// Returns the checksum mode that was given to [`parse`].
    #[inline]
    pub fn checksum_mode(&self) -> ChecksumMode {
        self.checksum
    }

    /// Returns the payload.
    #[inline]
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// Returns the tuple by which the session of this packet is looked up.
    ///
    /// TCP and UDP have their ports, ICMP queries their identifier (see [`super::Endpoint`]), other
    /// protocols ports 0. `None` for ICMP errors, other ICMP messages and fragments.
    #[inline]
    pub fn tuple(&self) -> Option<Tuple> {
        match self.payload {
            Payload::Tcp(_) | Payload::Udp | Payload::IcmpQuery(_) | Payload::Other => {
                Some(self.tuple)
            }
            Payload::IcmpError(_) | Payload::IcmpOther { .. } | Payload::Fragment { .. } => None,
        }
    }

    /// Returns the TCP header of a segment, or of the first fragment of a segment. `payload_length`
    /// is then that of the fragment. `None` for any other packet.
    #[inline]
    pub(crate) fn tcp(&self, bytes: &[u8]) -> Option<Tcp> {
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

    /// Returns the addresses, with ports 0 in every packet that has no [`Parsed::tuple`].
    #[inline]
    pub(super) fn outer_tuple(&self) -> Tuple {
        self.tuple
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::builder;
    use crate::packet::{TcpFlags, Ttl};

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn parsed(bytes: &[u8]) -> Result<Parsed, Malformed> {
        parse(bytes, ChecksumMode::Complete)
    }

    fn tuple(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (INSIDE, 5000), (OUTSIDE, 53))
    }

    fn udp_fragments() -> Vec<Vec<u8>> {
        let mut bytes = builder::udp(tuple(Protocol::UDP), &[7; 40]);
        builder::set_identification(&mut bytes, 77);
        builder::fragments(&bytes, 16)
    }

    #[test]
    fn the_first_fragment_of_a_datagram_has_the_tuple() {
        let fragments: Vec<_> =
            udp_fragments().iter().map(|bytes| parsed(bytes).unwrap()).collect();
        let fragment = |offset, more, first_tuple| Payload::Fragment {
            offset,
            more,
            identification: 77,
            first_tuple,
        };
        assert_eq!(fragments[0].payload(), fragment(0, true, Some(tuple(Protocol::UDP))));
        assert_eq!(fragments[1].payload(), fragment(16, true, None));
        assert_eq!(fragments[2].payload(), fragment(32, false, None));
        assert!(fragments.iter().all(|fragment| fragment.tuple().is_none()));
    }

    #[test]
    fn first_fragments_of_every_protocol_have_their_tuple() {
        let echo = |kind| builder::echo(INSIDE, OUTSIDE, kind, 9, 1, &[0; 40]);
        let first = |bytes: &[u8]| {
            let payload = parsed(&builder::fragments(bytes, 24)[0]).unwrap().payload();
            let Payload::Fragment { first_tuple, .. } = payload else { panic!("{payload:?}") };
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
    fn hostile_fragments_are_malformed() {
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
    fn a_last_fragment_of_one_byte_is_legal() {
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
        parsed.rewrite(
            &mut bytes,
            builder::tuple(Protocol::TCP, (OUTSIDE, 1), (INSIDE, 2)),
            Ttl::Increment,
        );
        builder::verify(&bytes, ChecksumMode::Partial).unwrap();
    }
}

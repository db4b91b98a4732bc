//! Rewrites addresses, ports and TTL in place. Every checksum is updated by the difference.

use super::checksum::{self, ChecksumDelta};
use super::icmp::{self, Quote};
use super::ipv4;
use super::parse::{ChecksumMode, Parsed, Payload};
use super::tcp;
use super::tuple::{PortFields, Tuple};
use super::udp;
use std::net::Ipv4Addr;

/// Offset of the checksum of DCCP and of UDP-Lite.
const COVERING_CHECKSUM: usize = 6;
const TTL: usize = 8;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// The change of a packet's TTL in a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ttl {
    /// The TTL stays.
    Keep = 0,
    /// Adds 1, unless the TTL is 255. The kernel forwards a packet twice, into the TUN device and
    /// out of it, and subtracts 1 each time. natbox counts as one hop.
    Increment = 1,
}

impl Parsed {
    /// Rewrites the packet to the addresses of `to`, and to its ports or query identifier if the
    /// packet has them. Ignores the protocol of `to`.
    ///
    /// A first fragment has ports, later ones have none. In an ICMP error only the outer addresses
    /// are rewritten. Only header fields and checksums change. The packet may be rewritten again.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    #[inline]
    pub fn rewrite(&self, bytes: &mut [u8], to: Tuple, ttl: Ttl) {
        let (header, transport) = bytes[..self.length()].split_at_mut(self.header_length());
        let addresses = rewrite_header(header, to.source.address, to.destination.address, ttl);
        rewrite_transport(transport, self.port_fields, to, addresses, self.checksum_mode());
    }

    /// Rewrites an ICMP error: the outer addresses to `source` and `destination`, the quoted packet
    /// to `quoted`, and every checksum that covers them. The TTL changes as in [`Parsed::rewrite`].
    ///
    /// The quoted TTL stays, and so do the padding and the extensions behind the quote (RFC 4884).
    /// In a packet that is no ICMP error only the addresses are rewritten.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub fn rewrite_error(
        &self,
        bytes: &mut [u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
        quoted: Tuple,
        ttl: Ttl,
    ) {
        let mut outer = self.outer_tuple();
        (outer.source.address, outer.destination.address) = (source, destination);
        self.rewrite(bytes, outer, ttl);
        if matches!(self.payload(), Payload::IcmpError(_)) {
            rewrite_quote(&mut bytes[self.header_length()..self.length()], self.quote, quoted);
        }
    }
}

/// Rewrites the IP header and its checksum. Returns the change of the addresses.
#[inline]
fn rewrite_header(
    header: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: Ttl,
) -> ChecksumDelta {
    let Some(header) = header.first_chunk_mut::<{ ipv4::HEADER }>() else {
        unreachable!("Header::parse saw this many bytes");
    };
    let two_words = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let addresses = ChecksumDelta::default()
        .two_words(two_words(SOURCE), source.to_bits())
        .two_words(two_words(DESTINATION), destination.to_bits());
    let ttl = header[TTL].saturating_add(ttl as u8);
    let old = word(TTL);
    let new = u16::from_be_bytes([ttl, header[TTL + 1]]);
    let checksum = addresses.word(old, new).apply(word(ipv4::CHECKSUM));
    header[TTL] = ttl;
    header[ipv4::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
    header[SOURCE..][..4].copy_from_slice(&source.octets());
    header[DESTINATION..][..4].copy_from_slice(&destination.octets());
    addresses
}

/// Rewrites ports or identifier, and the checksum if `transport` includes it. A quote may end
/// before.
#[inline]
fn rewrite_transport(
    transport: &mut [u8],
    fields: PortFields,
    to: Tuple,
    addresses: ChecksumDelta,
    mode: ChecksumMode,
) {
    match fields {
        PortFields::None => {}
        PortFields::Tcp => {
            let change = rewrite_ports(transport, to, addresses);
            update(transport, tcp::CHECKSUM, |field| match mode {
                ChecksumMode::Complete => change.apply(field),
                ChecksumMode::Partial => addresses.apply_to_partial(field),
            });
        }
        PortFields::Udp => {
            let change = rewrite_ports(transport, to, addresses);
            update(transport, udp::CHECKSUM, |field| match mode {
                ChecksumMode::Complete => change.apply_to_udp(field),
                ChecksumMode::Partial => addresses.apply_to_partial(field),
            });
        }
        PortFields::Dccp | PortFields::UdpLite => {
            update(transport, COVERING_CHECKSUM, |field| match (mode, fields) {
                (ChecksumMode::Partial, _) => addresses.apply_to_partial(field),
                (ChecksumMode::Complete, PortFields::UdpLite) => addresses.apply_to_udp(field),
                (ChecksumMode::Complete, _) => addresses.apply(field),
            });
        }
        PortFields::Request => rewrite_identifier(transport, to.source.port),
        PortFields::Reply => rewrite_identifier(transport, to.destination.port),
    }
}

/// Rewrites the two ports, which TCP and UDP have at the same offset. Returns the change,
/// `addresses` included.
#[inline]
fn rewrite_ports(transport: &mut [u8], to: Tuple, addresses: ChecksumDelta) -> ChecksumDelta {
    let Some(ports) = transport.first_chunk_mut::<4>() else {
        unreachable!("parse read the ports");
    };
    let new = u32::from(to.source.port) << 16 | u32::from(to.destination.port);
    let old = u32::from_be_bytes(*ports);
    *ports = new.to_be_bytes();
    addresses.two_words(old, new)
}

/// Rewrites the identifier of an ICMP query, and its checksum, which does not cover the addresses.
fn rewrite_identifier(icmp: &mut [u8], identifier: u16) {
    let old = icmp::identifier(icmp);
    icmp[icmp::IDENTIFIER..][..2].copy_from_slice(&identifier.to_be_bytes());
    let change = ChecksumDelta::default().word(old, identifier);
    update(icmp, icmp::CHECKSUM, |field| change.apply(field));
    // The only message that can be all zeros (see the module `checksum`): its checksum is the other
    // zero.
    if identifier == 0 && icmp.iter().all(|byte| *byte == 0) {
        update(icmp, icmp::CHECKSUM, |_| 0xffff);
    }
}

/// Replaces the checksum field at `at` if `transport` includes it.
#[inline]
fn update(transport: &mut [u8], at: usize, new: impl FnOnce(u16) -> u16) {
    if let Some(field) = transport.get_mut(at..at + 2) {
        let value = new(u16::from_be_bytes([field[0], field[1]]));
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Rewrites the packet that an ICMP error quotes, and the error's own checksum.
fn rewrite_quote(icmp: &mut [u8], quote: Quote, to: Tuple) {
    let header_length = usize::from(quote.header_length);
    let (header, body) = icmp.split_at_mut(icmp::HEADER);
    let quoted = &mut body[..header_length + usize::from(quote.transport_length)];
    // At most 80 bytes: two sums cost less than the bookkeeping for five fields that may be
    // missing. An odd last byte is padded alike in both sums, and does not change.
    let before = checksum::sum(quoted);
    let (quoted_header, transport) = quoted.split_at_mut(header_length);
    let addresses =
        rewrite_header(quoted_header, to.source.address, to.destination.address, Ttl::Keep);
    rewrite_transport(transport, quote.port_fields, to, addresses, ChecksumMode::Complete);
    let change = ChecksumDelta::default().word(before, checksum::sum(quoted));
    update(header, icmp::CHECKSUM, |field| change.apply(field));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Protocol, QueryKind, TcpFlags, builder, parse};

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn from(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (INSIDE, 5000), (OUTSIDE, 53))
    }

    fn to(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (PUBLIC, 61_234), (OUTSIDE, 53))
    }

    fn rewritten(mut bytes: Vec<u8>, mode: ChecksumMode, to: Tuple) -> Vec<u8> {
        parse(&bytes, mode).unwrap().rewrite(&mut bytes, to, Ttl::Keep);
        bytes
    }

    #[test]
    fn a_rewritten_packet_equals_one_built_with_the_new_tuple() {
        use ChecksumMode::Complete;
        let tcp = |tuple| builder::tcp(tuple, TcpFlags::ACK, 1, 2, &[1, 1, 1, 1], b"odd");
        assert_eq!(
            rewritten(tcp(from(Protocol::TCP)), Complete, to(Protocol::TCP)),
            tcp(to(Protocol::TCP))
        );
        let udp = |tuple| builder::udp(tuple, b"odd");
        assert_eq!(
            rewritten(udp(from(Protocol::UDP)), Complete, to(Protocol::UDP)),
            udp(to(Protocol::UDP))
        );
        let echo = |address, identifier| {
            builder::echo(address, OUTSIDE, QueryKind::EchoRequest, identifier, 3, b"odd")
        };
        assert_eq!(
            rewritten(echo(INSIDE, 5000), Complete, to(Protocol::ICMP)),
            echo(PUBLIC, 61_234)
        );
        let gre = |address| builder::other(Protocol(47), address, OUTSIDE, b"gre");
        assert_eq!(rewritten(gre(INSIDE), Complete, to(Protocol(47))), gre(PUBLIC));
    }

    /// CSUM-6. The ports stay, as the sessions of these protocols have none.
    #[test]
    fn a_checksum_over_the_pseudo_header_follows_the_addresses_whatever_it_covers() {
        let moved = |protocol| builder::tuple(protocol, (PUBLIC, 5000), (OUTSIDE, 53));
        for coverage in [0, 8, 10, 11] {
            let lite = |tuple| builder::udp_lite(tuple, coverage, b"odd");
            let rewritten = rewritten(
                lite(from(Protocol::UDP_LITE)),
                ChecksumMode::Complete,
                to(Protocol::UDP),
            );
            assert_eq!(rewritten, lite(moved(Protocol::UDP_LITE)), "coverage {coverage}");
        }
        for coverage in [0, 1, 2] {
            let dccp = |tuple| builder::dccp(tuple, coverage, b"more");
            let rewritten =
                rewritten(dccp(from(Protocol::DCCP)), ChecksumMode::Complete, to(Protocol::UDP));
            assert_eq!(rewritten, dccp(moved(Protocol::DCCP)), "coverage {coverage}");
        }
    }

    /// CSUM-6. A UDP-Lite field of 0 is illegal, so the receiver must still see it.
    #[test]
    fn a_udp_lite_checksum_is_never_made_zero_and_an_illegal_zero_stays() {
        let lite = |tuple, payload: &[u8]| builder::udp_lite(tuple, 0, payload);
        let moved = builder::tuple(Protocol::UDP_LITE, (PUBLIC, 5000), (OUTSIDE, 53));
        let probe = lite(moved, &[0, 0]);
        let payload = [probe[26], probe[27]];
        assert_eq!(lite(moved, &payload)[26..28], [0xff, 0xff], "the sum is zero");
        let before = lite(from(Protocol::UDP_LITE), &payload);
        let after = rewritten(before.clone(), ChecksumMode::Complete, to(Protocol::UDP));
        assert_eq!(after, lite(moved, &payload));
        let mut illegal = before;
        illegal[26..28].fill(0);
        assert_eq!(rewritten(illegal, ChecksumMode::Complete, to(Protocol::UDP))[26..28], [0, 0]);
    }

    #[test]
    fn partial_checksums_follow_addresses_and_ignore_ports() {
        for make in [
            |tuple| builder::tcp(tuple, TcpFlags::ACK, 1, 2, &[], b"x"),
            |tuple| builder::udp(tuple, b"x"),
        ] {
            let partial = |tuple| {
                let mut bytes = make(tuple);
                builder::make_partial(&mut bytes);
                bytes
            };
            let protocol = Protocol(make(from(Protocol(0)))[9]);
            let (from, to) = (from(protocol), to(protocol));
            assert_eq!(rewritten(partial(from), ChecksumMode::Partial, to), partial(to));
        }
    }

    #[test]
    fn udp_without_checksum_stays_without_and_has_its_ports_rewritten() {
        let bytes = builder::udp_without_checksum(from(Protocol::UDP), b"x");
        let expected = builder::udp_without_checksum(to(Protocol::UDP), b"x");
        assert_eq!(rewritten(bytes, ChecksumMode::Complete, to(Protocol::UDP)), expected);
    }

    #[test]
    fn udp_field_of_zero_is_a_sum_in_partial_mode() {
        let bytes = builder::udp_without_checksum(from(Protocol::UDP), b"x");
        let after = rewritten(bytes, ChecksumMode::Partial, to(Protocol::UDP));
        assert_ne!(after[26..28], [0, 0]);
    }

    /// CSUM-3: payloads for which the checksum is 0 before or after the rewrite.
    #[test]
    fn a_computed_zero_is_ffff_for_udp_and_zero_for_tcp() {
        for aimed in [from(Protocol::UDP), to(Protocol::UDP)] {
            let probe = builder::udp(aimed, &[0, 0]);
            let payload = [probe[26], probe[27]];
            assert_eq!(builder::udp(aimed, &payload)[26..28], [0xff, 0xff]);
            let there = rewritten(
                builder::udp(from(Protocol::UDP), &payload),
                ChecksumMode::Complete,
                to(Protocol::UDP),
            );
            assert_eq!(there, builder::udp(to(Protocol::UDP), &payload));
            let back = rewritten(there, ChecksumMode::Complete, from(Protocol::UDP));
            assert_eq!(back, builder::udp(from(Protocol::UDP), &payload));
        }
        let tcp = |tuple, payload: &[u8]| builder::tcp(tuple, TcpFlags::ACK, 1, 2, &[], payload);
        for aimed in [from(Protocol::TCP), to(Protocol::TCP)] {
            let probe = tcp(aimed, &[0, 0]);
            let payload = [probe[36], probe[37]];
            assert_eq!(tcp(aimed, &payload)[36..38], [0, 0]);
            let there = rewritten(
                tcp(from(Protocol::TCP), &payload),
                ChecksumMode::Complete,
                to(Protocol::TCP),
            );
            assert_eq!(there, tcp(to(Protocol::TCP), &payload));
            let back = rewritten(there, ChecksumMode::Complete, from(Protocol::TCP));
            assert_eq!(back, tcp(from(Protocol::TCP), &payload));
        }
    }

    /// CSUM-3.
    #[test]
    fn an_icmp_checksum_of_zero_is_a_value_like_any_other() {
        let echo = |address, identifier, payload: &[u8]| {
            builder::echo(address, OUTSIDE, QueryKind::EchoRequest, identifier, 3, payload)
        };
        for aimed in [5000, 61_234] {
            let probe = echo(INSIDE, aimed, &[0, 0]);
            let payload = [probe[22], probe[23]];
            assert_eq!(echo(INSIDE, aimed, &payload)[22..24], [0, 0]);
            let there =
                rewritten(echo(INSIDE, 5000, &payload), ChecksumMode::Complete, to(Protocol::ICMP));
            assert_eq!(there, echo(PUBLIC, 61_234, &payload));
            let back = rewritten(there, ChecksumMode::Complete, from(Protocol::ICMP));
            assert_eq!(back, echo(INSIDE, 5000, &payload));
        }
    }

    #[test]
    fn an_echo_reply_of_nothing_but_zeros_keeps_a_checksum_that_receivers_accept() {
        let reply = |identifier| {
            builder::echo(OUTSIDE, INSIDE, QueryKind::EchoReply, identifier, 0, &[0; 9])
        };
        assert_eq!(reply(0)[22..24], [0xff, 0xff]);
        for (before, after) in [(0, 0), (0, 9), (9, 0), (0xffff, 0), (0, 0xffff)] {
            let to = builder::tuple(Protocol::ICMP, (OUTSIDE, 0), (INSIDE, after));
            assert_eq!(
                rewritten(reply(before), ChecksumMode::Complete, to),
                reply(after),
                "{before} > {after}"
            );
        }
    }

    /// CSUM-4.
    #[test]
    fn a_wrong_checksum_stays_equally_wrong() {
        let tcp = |tuple| builder::tcp(tuple, TcpFlags::ACK, 1, 2, &[], b"payload");
        let value = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[36], bytes[37]]));
        let (right, right_after) = (tcp(from(Protocol::TCP)), tcp(to(Protocol::TCP)));
        for error in 0..=u16::MAX {
            let mut bytes = right.clone();
            let field = u16::from_be_bytes([bytes[36], bytes[37]]).wrapping_add(error);
            bytes[36..38].copy_from_slice(&field.to_be_bytes());
            let before = (value(&bytes) + 0xffff - value(&right)) % 0xffff;
            let bytes = rewritten(bytes, ChecksumMode::Complete, to(Protocol::TCP));
            assert_eq!((value(&bytes) + 0xffff - value(&right_after)) % 0xffff, before);
        }
    }

    #[test]
    fn ttl_is_incremented_once_and_never_beyond_255() {
        for (ttl, expected) in [(1, 2), (64, 65), (254, 255), (255, 255)] {
            let mut bytes = builder::udp(from(Protocol::UDP), b"x");
            builder::set_ttl(&mut bytes, ttl);
            let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
            assert_eq!(parsed.ttl(), ttl);
            parsed.rewrite(&mut bytes, to(Protocol::UDP), Ttl::Increment);
            assert_eq!(bytes[8], expected);
            builder::verify(&bytes, ChecksumMode::Complete).unwrap();
        }
    }

    #[test]
    fn fragments_reassembled_after_the_rewrite_are_the_rewritten_datagram() {
        let payload: Vec<u8> = (0..100).collect();
        for (bytes, expected) in [
            (
                builder::udp(from(Protocol::UDP), &payload),
                builder::udp(to(Protocol::UDP), &payload),
            ),
            (
                builder::tcp(from(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &payload),
                builder::tcp(to(Protocol::TCP), TcpFlags::ACK, 1, 2, &[], &payload),
            ),
            (
                builder::echo(INSIDE, OUTSIDE, QueryKind::EchoRequest, 5000, 1, &payload),
                builder::echo(PUBLIC, OUTSIDE, QueryKind::EchoRequest, 61_234, 1, &payload),
            ),
        ] {
            let mut whole = Vec::new();
            for fragment in builder::fragments(&bytes, 24) {
                let fragment = rewritten(fragment, ChecksumMode::Complete, to(Protocol(bytes[9])));
                builder::verify(&fragment, ChecksumMode::Complete).unwrap();
                whole.extend_from_slice(&fragment[20..]);
            }
            assert_eq!(whole, expected[20..]);
        }
    }

    #[test]
    fn rewrite_of_an_error_keeps_its_quote() {
        let mut bytes =
            builder::icmp_error(3, 3, OUTSIDE, PUBLIC, &builder::udp(to(Protocol::UDP), b"x"));
        let expected =
            builder::icmp_error(3, 3, OUTSIDE, INSIDE, &builder::udp(to(Protocol::UDP), b"x"));
        let parsed = parse(&bytes, ChecksumMode::Partial).unwrap();
        parsed.rewrite(
            &mut bytes,
            builder::tuple(Protocol::ICMP, (OUTSIDE, 7), (INSIDE, 8)),
            Ttl::Keep,
        );
        assert_eq!(bytes, expected);
    }

    #[test]
    fn rewrite_error_of_another_packet_changes_only_its_addresses() {
        let mut bytes = builder::udp(from(Protocol::UDP), b"x");
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        parsed.rewrite_error(&mut bytes, PUBLIC, OUTSIDE, to(Protocol::TCP), Ttl::Keep);
        assert_eq!(
            bytes,
            builder::udp(builder::tuple(Protocol::UDP, (PUBLIC, 5000), (OUTSIDE, 53)), b"x")
        );
    }
}

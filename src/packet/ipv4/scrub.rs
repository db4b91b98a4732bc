//! What an IP header tells of the inside besides its addresses: its identification, and the addresses that hosts on the
//! way have recorded in options.

use crate::packet::checksum::{self, ChecksumDelta};
use crate::packet::icmp;
use crate::packet::ipv4;
use crate::packet::ipv4::options;
use crate::packet::parse::{Parsed, Payload};
use std::net::Ipv4Addr;

const IDENTIFICATION: usize = 4;
const FLAGS: usize = 6;
const MORE_FRAGMENTS: u8 = 0x20;

const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;

impl Parsed {
    /// Whether the packet is atomic (RFC 6864 §4): no piece of a datagram, and DF keeps it from becoming one. Nobody
    /// looks at its identification.
    #[inline]
    pub fn is_atomic(&self) -> bool {
        self.dont_fragment() && !self.is_fragment()
    }

    /// Whether it is a piece of a datagram.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        matches!(self.payload(), Payload::Fragment { .. })
    }

    /// Whether its IP header has options.
    #[inline]
    pub fn has_options(&self) -> bool {
        self.header_length() > ipv4::HEADER
    }

    /// Gives the packet another IP identification.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub fn set_identification(&self, bytes: &mut [u8], identification: u16) {
        set_header_identification(&mut bytes[..self.header_length()], identification);
    }

    /// The IP identification of the packet that an ICMP error quotes, where that is the first piece of a datagram.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub fn quoted_identification(&self, bytes: &[u8]) -> Option<u16> {
        let quote = &bytes[self.quote_start()?..];
        (quote[FLAGS] & MORE_FRAGMENTS != 0).then(|| word(quote, IDENTIFICATION))
    }

    /// Gives the packet that an ICMP error quotes another IP identification. Of a packet that is no ICMP error nothing
    /// changes.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub fn set_quoted_identification(&self, bytes: &mut [u8], identification: u16) {
        self.change_quoted_header(bytes, |header| {
            set_header_identification(header, identification)
        });
    }

    /// Puts `instead` in place of every address that a record route (RFC 791) or timestamp option holds and that
    /// `is_private`; also in the packet that an ICMP error quotes. An option that is cut short is left alone.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub fn strip_recorded_addresses(
        &self,
        bytes: &mut [u8],
        is_private: impl Fn(Ipv4Addr) -> bool,
        instead: Ipv4Addr,
    ) {
        strip_from_header(&mut bytes[..self.header_length()], &is_private, instead);
        self.change_quoted_header(bytes, |header| strip_from_header(header, &is_private, instead));
    }

    fn quote_start(&self) -> Option<usize> {
        matches!(self.payload(), Payload::IcmpError(_)).then(|| self.header_length() + icmp::HEADER)
    }

    /// Lets `change` at the quoted header, and keeps the error's checksum right.
    fn change_quoted_header(&self, bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
        let Some(start) = self.quote_start() else { return };
        let quoted = start..start + usize::from(self.quote.header_length);
        let before = checksum::sum(&bytes[quoted.clone()]);
        change(&mut bytes[quoted.clone()]);
        let difference = ChecksumDelta::default().word(before, checksum::sum(&bytes[quoted]));
        set_checksum(&mut bytes[self.header_length() + icmp::CHECKSUM..], difference);
    }
}

fn set_header_identification(header: &mut [u8], identification: u16) {
    let change = ChecksumDelta::default().word(word(header, IDENTIFICATION), identification);
    header[IDENTIFICATION..][..2].copy_from_slice(&identification.to_be_bytes());
    set_checksum(&mut header[ipv4::CHECKSUM..], change);
}

fn strip_from_header(header: &mut [u8], is_private: impl Fn(Ipv4Addr) -> bool, instead: Ipv4Addr) {
    let list = &mut header[ipv4::HEADER..];
    let before = checksum::sum(list);
    let mut at = 0;
    while let Ok(Some(option)) = options::next(list, at) {
        at = option.start + option.length;
        let option = &mut list[option.start..at];
        for record in records(option) {
            if let Some(address) = record.first_chunk_mut::<4>()
                && is_private(Ipv4Addr::from(*address))
            {
                *address = instead.octets();
            }
        }
    }
    let change = ChecksumDelta::default().word(before, checksum::sum(list));
    set_checksum(&mut header[ipv4::CHECKSUM..], change);
}

/// The parts of an option that begin with an address. Those behind its pointer are among them: nobody has recorded
/// anything there, but whoever sent the packet may have written there.
fn records(option: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    // Kind, length, pointer; the timestamp option has flags, too, and a time with each address if these are 1 or 3.
    let (start, size) = match (option[0], option.get(3).map(|flags| flags & 0x0f)) {
        (RECORD_ROUTE, Some(_)) => (3, 4),
        (TIMESTAMP, Some(1 | 3)) => (4, 8),
        _ => (option.len(), 4),
    };
    option[start..].chunks_mut(size)
}

fn set_checksum(field: &mut [u8], change: ChecksumDelta) {
    let value = change.apply(word(field, 0));
    field[..2].copy_from_slice(&value.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ChecksumMode, Protocol, builder, parse};

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn packet() -> Vec<u8> {
        builder::udp(builder::tuple(Protocol::UDP, (PUBLIC, 5000), (OUTSIDE, 53)), b"query")
    }

    fn concealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        parsed.strip_recorded_addresses(&mut bytes, |address| address.is_private(), PUBLIC);
        builder::verify(&bytes, ChecksumMode::Complete).unwrap();
        bytes
    }

    #[test]
    fn a_packet_is_atomic_only_whole_and_with_df() {
        let atomic = |bytes: &[u8]| parse(bytes, ChecksumMode::Complete).unwrap().is_atomic();
        let mut whole = packet();
        assert!(!atomic(&whole));
        builder::set_dont_fragment(&mut whole, true);
        assert!(atomic(&whole));
        let mut piece = builder::fragments(&whole, 8).swap_remove(0);
        builder::set_dont_fragment(&mut piece, true);
        assert!(!atomic(&piece));
    }

    #[test]
    fn a_new_identification_leaves_the_rest_as_it_was() {
        for (old, new) in [(0, 0xffff), (0xffff, 0), (7, 7), (0x1234, 0x5678)] {
            let mut bytes = packet();
            builder::set_identification(&mut bytes, old);
            parse(&bytes, ChecksumMode::Complete).unwrap().set_identification(&mut bytes, new);
            let mut expected = packet();
            builder::set_identification(&mut expected, new);
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_quoted_first_piece_shows_its_identification_and_takes_another() {
        let mut quoted = packet();
        builder::set_identification(&mut quoted, 77);
        let whole = builder::icmp_error(11, 1, OUTSIDE, PUBLIC, &quoted);
        let first = builder::fragments(&quoted, 8).swap_remove(0);
        let mut bytes = builder::icmp_error(11, 1, OUTSIDE, PUBLIC, &first);
        let identification = |bytes: &[u8]| {
            parse(bytes, ChecksumMode::Complete).unwrap().quoted_identification(bytes)
        };
        assert_eq!((identification(&whole), identification(&packet())), (None, None));
        assert_eq!(identification(&bytes), Some(77));
        parse(&bytes, ChecksumMode::Complete)
            .unwrap()
            .set_quoted_identification(&mut bytes, 0xabcd);
        let mut renumbered = first;
        builder::set_identification(&mut renumbered, 0xabcd);
        assert_eq!(bytes, builder::icmp_error(11, 1, OUTSIDE, PUBLIC, &renumbered));
    }

    #[test]
    fn private_addresses_in_recorded_routes_and_timestamps_are_replaced() {
        let [inside, public, outside] = [INSIDE, PUBLIC, OUTSIDE].map(|address| address.octets());
        let time = [1, 2, 3, 4];
        // Whatever the flags of the timestamp option, and wherever in the list the option stands.
        let route = |address: [u8; 4]| [&[7, 11, 8][..], &address, &outside].concat();
        let odd = |address: [u8; 4]| [&[1, 7, 11, 12][..], &address, &outside].concat();
        let stamped = |flags: u8, address: [u8; 4]| {
            [&[68, 20, 21, flags][..], &address, &time, &outside, &time].concat()
        };
        for make in [
            &route as &dyn Fn([u8; 4]) -> Vec<u8>,
            &odd,
            &|address| stamped(0x01, address),
            &|address| stamped(0xf3, address),
        ] {
            let with = |address| builder::with_ip_options(&packet(), &make(address));
            assert_eq!(concealed(with(inside)), with(public));
            let error = |address| builder::icmp_error(3, 3, OUTSIDE, PUBLIC, &with(address));
            assert_eq!(concealed(error(inside)), error(public));
        }
        // Times are no addresses.
        let times_only =
            builder::with_ip_options(&packet(), &[&[68, 8, 9, 0][..], &inside].concat());
        assert_eq!(concealed(times_only.clone()), times_only);
    }

    #[test]
    fn broken_options_of_a_quote_are_left_alone() {
        for list in [
            &[7, 40, 4, 10, 0, 0, 1, 0][..],
            &[7, 0, 4, 0],
            &[7, 2, 7, 3, 68, 3, 5, 1],
            &[1, 1, 1, 68],
        ] {
            let error = builder::icmp_error(
                3,
                3,
                OUTSIDE,
                PUBLIC,
                &builder::with_ip_options(&packet(), list),
            );
            assert_eq!(concealed(error.clone()), error);
        }
    }
}

//! Scrubs IP headers: replaces the identification and the addresses that routers have recorded in
//! options. Both would reveal inside hosts after the addresses were rewritten.

use crate::packet::checksum::{self, ChecksumDelta, word};
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
    /// Returns whether the packet is atomic (RFC 6864 §4): it is no fragment, and DF keeps routers
    /// from fragmenting it. The identification of an atomic packet has no meaning.
    #[inline]
    pub(crate) fn is_atomic(&self) -> bool {
        self.dont_fragment() && !self.is_fragment()
    }

    /// Returns whether the packet is a fragment.
    #[inline]
    pub(crate) fn is_fragment(&self) -> bool {
        matches!(self.payload(), Payload::Fragment { .. })
    }

    /// Returns whether the IP header has options.
    #[inline]
    pub(crate) fn has_options(&self) -> bool {
        self.header_length() > ipv4::HEADER
    }

    /// Sets the IP identification.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub(crate) fn set_identification(&self, bytes: &mut [u8], identification: u16) {
        set_header_identification(&mut bytes[..self.header_length()], identification);
    }

    /// Returns the IP identification of the quoted packet of an ICMP error if that packet is a
    /// first fragment.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub(crate) fn quoted_identification(&self, bytes: &[u8]) -> Option<u16> {
        let quote = &bytes[self.quote_start()?..];
        (quote[FLAGS] & MORE_FRAGMENTS != 0).then(|| word(quote, IDENTIFICATION))
    }

    /// Sets the IP identification of the quoted packet of an ICMP error. Leaves other packets
    /// alone.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub(crate) fn set_quoted_identification(&self, bytes: &mut [u8], identification: u16) {
        self.change_quoted_header(bytes, |header| {
            set_header_identification(header, identification)
        });
    }

    /// Replaces by `instead` every address for which `is_private` holds in record route and
    /// timestamp options (RFC 791). Does the same in the quoted packet of an ICMP error. Leaves
    /// truncated options alone.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Parsed::length`].
    pub(crate) fn strip_recorded_addresses(
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

    /// Runs `change` on the quoted header, and updates the checksum of the error.
    fn change_quoted_header(&self, bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
        let Some(start) = self.quote_start() else { return };
        let quoted = start..start + usize::from(self.quote.header_length);
        let before = checksum::sum(&bytes[quoted.clone()]);
        change(&mut bytes[quoted.clone()]);
        let difference = ChecksumDelta::default().word(before, checksum::sum(&bytes[quoted]));
        difference.update(bytes, self.header_length() + icmp::CHECKSUM);
    }
}

fn set_header_identification(header: &mut [u8], identification: u16) {
    let change = ChecksumDelta::default().word(word(header, IDENTIFICATION), identification);
    header[IDENTIFICATION..][..2].copy_from_slice(&identification.to_be_bytes());
    change.update(header, ipv4::CHECKSUM);
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
    change.update(header, ipv4::CHECKSUM);
}

/// Returns the parts of an option that begin with an address, those behind its pointer included. No
/// router has recorded an address there, but the sender may have written one.
fn records(option: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    // Kind, length, pointer. The timestamp option adds flags, and a time behind each address if the
    // flags are 1 or 3.
    let (start, size) = match (option[0], option.get(3).map(|flags| flags & 0x0f)) {
        (RECORD_ROUTE, Some(_)) => (3, 4),
        (TIMESTAMP, Some(1 | 3)) => (4, 8),
        _ => (option.len(), 4),
    };
    option[start..].chunks_mut(size)
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

    fn stripped(mut bytes: Vec<u8>) -> Vec<u8> {
        let parsed = parse(&bytes, ChecksumMode::Complete).unwrap();
        parsed.strip_recorded_addresses(&mut bytes, |address| address.is_private(), PUBLIC);
        builder::verify(&bytes, ChecksumMode::Complete).unwrap();
        bytes
    }

    #[test]
    fn a_packet_is_atomic_if_it_is_whole_and_has_df() {
        let atomic = |bytes: &[u8]| parse(bytes, ChecksumMode::Complete).unwrap().is_atomic();
        let mut whole = packet();
        assert!(!atomic(&whole));
        builder::set_dont_fragment(&mut whole, true);
        assert!(atomic(&whole));
        let mut fragment = builder::fragments(&whole, 8).swap_remove(0);
        builder::set_dont_fragment(&mut fragment, true);
        assert!(!atomic(&fragment));
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
    fn the_identification_of_a_quoted_first_fragment_is_read_and_set() {
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
            assert_eq!(stripped(with(inside)), with(public));
            let error = |address| builder::icmp_error(3, 3, OUTSIDE, PUBLIC, &with(address));
            assert_eq!(stripped(error(inside)), error(public));
        }
        // Times are no addresses.
        let times_only =
            builder::with_ip_options(&packet(), &[&[68, 8, 9, 0][..], &inside].concat());
        assert_eq!(stripped(times_only.clone()), times_only);
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
            assert_eq!(stripped(error.clone()), error);
        }
    }
}

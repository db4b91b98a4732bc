//! A packet as read from a wire, by its fields.

use std::fmt;
use std::net::Ipv4Addr;

use natbox::packet::{Endpoint, Protocol, TcpFlags};

/// An IPv4 packet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen(pub Vec<u8>);

impl Seen {
    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3])
    }

    pub(crate) fn protocol(&self) -> Protocol {
        Protocol(self.0[9])
    }

    pub(crate) fn header_length(&self) -> usize {
        usize::from(self.0[0] & 15) * 4
    }

    pub(crate) fn total_length(&self) -> usize {
        usize::from(self.word(2))
    }

    pub(crate) fn ttl(&self) -> u8 {
        self.0[8]
    }

    pub(crate) fn identification(&self) -> u16 {
        self.word(4)
    }

    pub(crate) fn type_of_service(&self) -> u8 {
        self.0[1]
    }

    pub(crate) fn dont_fragment(&self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// Returns the fragment offset in bytes, and whether more fragments follow.
    pub(crate) fn fragment(&self) -> (usize, bool) {
        (usize::from(self.word(6) & 0x1fff) * 8, self.0[6] & 0x20 != 0)
    }

    pub(crate) fn ip_options(&self) -> &[u8] {
        &self.0[20..self.header_length()]
    }

    /// Returns everything behind the IP header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0[self.header_length()..]
    }

    fn has_ports(&self) -> bool {
        self.fragment().0 == 0
            && matches!(self.protocol(), Protocol::TCP | Protocol::UDP)
            && self.body().len() >= 4
    }

    /// Returns address and port; port 0 for packets without ports.
    pub(crate) fn source(&self) -> Endpoint {
        let port = if self.has_ports() { self.word(self.header_length()) } else { 0 };
        Endpoint::new(self.address(12), port)
    }

    /// Returns address and port; port 0 for packets without ports.
    pub(crate) fn destination(&self) -> Endpoint {
        let port = if self.has_ports() { self.word(self.header_length() + 2) } else { 0 };
        Endpoint::new(self.address(16), port)
    }

    /// Returns the payload of TCP or UDP. For other protocols and later fragments: everything
    /// behind the IP header.
    pub(crate) fn payload(&self) -> &[u8] {
        let body = self.body();
        match self.protocol() {
            _ if self.fragment().0 != 0 => body,
            Protocol::TCP => &body[usize::from(body[12] >> 4) * 4..],
            Protocol::UDP | Protocol::ICMP => &body[8..],
            _ => body,
        }
    }

    /// Returns the checksum field of TCP, UDP or ICMP.
    pub(crate) fn checksum(&self) -> u16 {
        let at = match self.protocol() {
            Protocol::TCP => 16,
            Protocol::UDP => 6,
            Protocol::ICMP => 2,
            other => panic!("no checksum in {other}"),
        };
        self.word(self.header_length() + at)
    }

    pub(crate) fn flags(&self) -> TcpFlags {
        assert_eq!(self.protocol(), Protocol::TCP, "{self:?}");
        TcpFlags(self.body()[13])
    }

    /// Returns type and code of an ICMP message.
    pub(crate) fn icmp(&self) -> Option<(u8, u8)> {
        (self.protocol() == Protocol::ICMP && self.fragment().0 == 0)
            .then(|| (self.body()[0], self.body()[1]))
    }

    /// Returns the identifier of an ICMP query.
    pub(crate) fn identifier(&self) -> u16 {
        assert_eq!(self.protocol(), Protocol::ICMP, "{self:?}");
        self.word(self.header_length() + 4)
    }

    /// Returns the last two bytes of an ICMP header: the MTU of "fragmentation needed", the
    /// sequence number of a query.
    pub(crate) fn icmp_last_word(&self) -> u16 {
        assert_eq!(self.protocol(), Protocol::ICMP, "{self:?}");
        self.word(self.header_length() + 6)
    }

    /// Returns the packet that an ICMP error quotes.
    pub(crate) fn quote(&self) -> Option<Seen> {
        match self.icmp() {
            Some((3 | 5 | 11 | 12, _)) if self.body().len() >= 32 => {
                Some(Seen(self.body()[8..].to_vec()))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() < 20 || self.0.len() < self.header_length() {
            return write!(formatter, "{:02x?}", self.0);
        }
        write!(formatter, "{} {} > {}", self.protocol(), self.source(), self.destination())?;
        write!(formatter, ", ttl {}, id {}", self.ttl(), self.identification())?;
        if self.fragment() != (0, false) {
            write!(formatter, ", fragment {:?}", self.fragment())?;
        }
        if let Some((kind, code)) = self.icmp() {
            write!(formatter, ", icmp {kind}/{code}")?;
        }
        if let Some(quote) = self.quote() {
            write!(formatter, " about [{quote:?}]")?;
        }
        write!(formatter, ", {} bytes: {:02x?}", self.0.len(), &self.0[..self.0.len().min(80)])
    }
}

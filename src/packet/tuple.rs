//! Endpoints and tuples, in host order.

use std::fmt;
use std::net::Ipv4Addr;

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP (1).
    pub const ICMP: Self = Self(1);
    /// TCP (6).
    pub const TCP: Self = Self(6);
    /// UDP (17).
    pub const UDP: Self = Self(17);
    /// DCCP (33).
    pub const DCCP: Self = Self(33);
    /// UDP-Lite (136).
    pub const UDP_LITE: Self = Self(136);
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => formatter.write_str("icmp"),
            Self::TCP => formatter.write_str("tcp"),
            Self::UDP => formatter.write_str("udp"),
            Self(number) => write!(formatter, "ip-{number}"),
        }
    }
}

/// An address with a port. Protocols without ports use port 0.
///
/// In ICMP queries the port of the requesting host is the identifier, and the port of the replying
/// host is 0. A reply then has the reversed tuple of its request. Two hosts that query each other
/// with one identifier have different tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint<A = Ipv4Addr> {
    /// Address.
    pub address: A,
    /// Port, ICMP query identifier, or 0.
    pub port: u16,
}

impl<A> Endpoint<A> {
    /// Joins an address and a port.
    pub const fn new(address: A, port: u16) -> Self {
        Self { address, port }
    }
}

impl<A: fmt::Display> fmt::Display for Endpoint<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.address, self.port)
    }
}

/// Protocol, source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple<A = Ipv4Addr> {
    /// IP protocol.
    pub protocol: Protocol,
    /// Sender.
    pub source: Endpoint<A>,
    /// Receiver.
    pub destination: Endpoint<A>,
}

impl<A: Copy> Tuple<A> {
    /// Returns the tuple of a reply.
    pub const fn reversed(self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

impl<A: fmt::Display> fmt::Display for Tuple<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} > {}", self.protocol, self.source, self.destination)
    }
}

/// The transport fields that hold the ports of a packet's [`Tuple`], and the checksum that covers
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortFields {
    /// None: only the checksum of the IP header covers the addresses.
    None,
    /// Two ports, and a checksum over the pseudo header.
    Tcp,
    /// Two ports, and a checksum over the pseudo header that may be 0.
    Udp,
    /// No port that natbox translates, but a checksum over the pseudo header: DCCP (RFC 4340
    /// section 9.1).
    Dccp,
    /// The same, with a checksum that is never 0: UDP-Lite (RFC 3828 section 3.1). Each checksum
    /// covers the pseudo header, whatever part of the payload it covers.
    UdpLite,
    /// An identifier that is the port of the source, and a checksum without pseudo header.
    Request,
    /// An identifier that is the port of the destination, and a checksum without pseudo header.
    Reply,
}

impl PortFields {
    /// Returns the transport fields of a protocol whose sessions have no ports.
    #[inline]
    pub(super) fn without_ports(protocol: Protocol) -> Self {
        match protocol {
            Protocol::DCCP => Self::Dccp,
            Protocol::UDP_LITE => Self::UdpLite,
            _ => Self::None,
        }
    }
}

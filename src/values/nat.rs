//! Values of the translator.

use std::fmt;
use std::ops::RangeInclusive;

/// The part of the remote endpoint on which a mapping or a filter depends (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointDependence {
    /// No part.
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

/// Protocols of a forward or of a rule without translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP.
    TcpUdp,
    /// ICMP echo.
    Icmp,
    /// Every protocol, ports unchanged: an exposed host, which gets what nothing else claims.
    Any,
}

/// Part of a packet's tuple that an outbound rule hashes to select an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The inside endpoint; for protocols without ports the inside address.
    SourcePort,
    /// The inside address.
    SourceAddress,
    /// The inside address and the remote address.
    AddressPair,
}

/// TCP MSS clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// The smaller MTU of the inside interface and the uplink, minus 40.
    Auto,
    /// No clamp.
    Off,
    /// This many bytes.
    To(u16),
}

/// A range of ports or query identifiers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port, 0 included. Stands for protocols without ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Makes a range of one port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Reports whether `port` lies in the range.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Iterates over the ports in ascending order.
    pub fn iter(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl From<RangeInclusive<u16>> for PortRange {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}

/// Writes the range as the configuration file has it, such as `80` or `8000-8099`.
impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

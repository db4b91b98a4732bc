//! The rules that a reload may swap while sessions continue, as plain data.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::packet::{Endpoint, Protocol};
use crate::values::nat::{ForwardProtocol, HashBy, MssClamp, PortRange};

/// Rules of a translator, and the facts of its host that the rules depend on.
///
/// [`Translator::with_policy`](crate::nat::Translator::with_policy) swaps the whole value.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Inside legs. Their number is fixed at the start.
    pub legs: Vec<Leg>,
    /// Address of the TUN device: the source of ICMP errors that the host's kernel writes about
    /// translated packets.
    pub tun_address: Option<Ipv4Addr>,
    /// Host address: the link-local address from which the host's own packets leave over any uplink
    /// that an outbound rule allows. None: the host's own packets do not pass the translator.
    pub host_address: Option<Ipv4Addr>,
    /// Uplinks by their numbers, at most [`Policy::MAX_UPLINKS`]. Sessions name their uplink by its
    /// number, so an uplink keeps its number. A number without an uplink has [`Uplink::vacant`].
    pub uplinks: Vec<Uplink>,
    /// Published services.
    pub forwards: Vec<Forward>,
    /// Rules for sessions from inside to outside.
    pub outbound: Vec<OutboundRule>,
    /// Destinations that inside hosts reach without translation.
    pub no_nat: Vec<NoNatRule>,
    /// TCP and UDP ports that a mapping keeps: an inside port among them becomes the external port
    /// if it is free, even outside of [`Limits::ports`](crate::nat::Limits::ports).
    pub kept_ports: Vec<PortRange>,
    /// True: inside hosts reach each other through external addresses (RFC 4787 REQ-9).
    pub hairpin: bool,
    /// TCP MSS clamp.
    pub mss_clamp: MssClamp,
    /// Code of the destination unreachable message to an inside host for which no mapping can be
    /// made (RFC 5508 REQ-8, RFC 6888 REQ-11). None: no message.
    pub reject_with: Option<u8>,
    /// True: an unsolicited SYN is answered with port unreachable after a delay (RFC 5382 REQ-4).
    pub delayed_reject: bool,
}

impl Policy {
    /// Most uplinks of a policy.
    pub const MAX_UPLINKS: usize = 256;

    /// Makes the rules of one uplink with one address, over which every inside host may go out.
    /// Nothing is published.
    pub fn one_uplink(inside: Ipv4Net, external: Ipv4Addr) -> Self {
        let address =
            ExternalAddress { address: external, assigned_to_host: false, reserved: Vec::new() };
        Self {
            legs: vec![Leg {
                prefixes: vec![inside],
                address: None,
                routers: Vec::new(),
                mtu: 1500,
            }],
            tun_address: None,
            host_address: None,
            uplinks: vec![Uplink {
                name: "isp1".into(),
                mtu: 1500,
                weight: 1,
                tier: 1,
                addresses: vec![address],
                probe_address: None,
            }],
            forwards: Vec::new(),
            outbound: vec![OutboundRule {
                from: inside,
                to: Vec::new(),
                uplinks: vec![0],
                hash_by: HashBy::SourcePort,
            }],
            no_nat: Vec::new(),
            kept_ports: Vec::new(),
            hairpin: true,
            mss_clamp: MssClamp::Auto,
            reject_with: None,
            delayed_reject: false,
        }
    }

    /// Reports whether a mapping of this inside port keeps the port where it is free.
    pub(crate) fn keeps_port(&self, protocol: Protocol, port: u16) -> bool {
        protocol != Protocol::ICMP && self.kept_ports.iter().any(|kept| kept.contains(port))
    }

    /// Returns the index of the leg that leads to an inside host.
    pub(crate) fn leg_towards(&self, host: Ipv4Addr) -> Option<usize> {
        self.legs.iter().position(|leg| leg.prefixes.iter().any(|prefix| prefix.contains(&host)))
    }

    /// Returns the source of ICMP errors to an inside host; None: the published address.
    pub(crate) fn error_source_towards(&self, host: Ipv4Addr) -> Option<Ipv4Addr> {
        self.legs[self.leg_towards(host)?].address
    }
}

/// One inside leg: an interface towards inside hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    /// Prefixes of the inside hosts behind the interface.
    pub prefixes: Vec<Ipv4Net>,
    /// Address of the interface: the source of ICMP errors to these inside hosts. None: the
    /// published address.
    pub address: Option<Ipv4Addr>,
    /// Routers in front of inside hosts. They may send ICMP errors about any packet that went
    /// inside.
    pub routers: Vec<Ipv4Addr>,
    /// MTU of the interface at the start, in bytes;
    /// [`Translator::set_leg_mtu`](crate::nat::Translator::set_leg_mtu) changes it later.
    pub mtu: u16,
}

/// One uplink.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Name, for listings.
    pub name: String,
    /// MTU of its interface at the start, in bytes;
    /// [`Translator::set_uplink_mtu`](crate::nat::Translator::set_uplink_mtu) changes it later.
    pub mtu: u16,
    /// Share of new outbound mappings, relative to the other uplinks of the tier.
    pub weight: u32,
    /// Tier. A new session uses the lowest tier that has an uplink which admits it.
    pub tier: u8,
    /// External addresses.
    pub addresses: Vec<ExternalAddress>,
    /// Link-local address of the host whose packets leave by this uplink. Health checks and
    /// services of the host use it, and forwards may lead to it.
    pub probe_address: Option<Ipv4Addr>,
}

impl Uplink {
    /// Makes the entry of a number that no uplink has.
    pub fn vacant() -> Self {
        Self {
            name: String::new(),
            mtu: u16::MAX,
            weight: 1,
            tier: u8::MAX,
            addresses: Vec::new(),
            probe_address: None,
        }
    }

    /// Reports whether no uplink has the number of this entry.
    pub fn is_vacant(&self) -> bool {
        self.name.is_empty() && self.addresses.is_empty() && self.probe_address.is_none()
    }
}

/// One external address.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// True: the address is assigned to the host as well, and the host gets the packets that match
    /// no session, mapping or forward.
    pub assigned_to_host: bool,
    /// Ports that the host may pick for its own connections. A mapping gets one of them only as a
    /// kept port, or if [`Limits::ports`](crate::nat::Limits::ports) has no others.
    /// [`Translator::exclude_ports`](crate::nat::Translator::exclude_ports) names the ports that
    /// the host uses at the moment.
    pub reserved: Vec<PortRange>,
}

/// One published range of ports on one external address.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Name, for listings.
    pub name: String,
    /// Index of the uplink.
    pub uplink: u8,
    /// Published protocols.
    pub protocol: ForwardProtocol,
    /// Published address.
    pub address: Ipv4Addr,
    /// Published ports; all ports for ICMP and for whole addresses.
    pub ports: PortRange,
    /// Address of the server.
    pub to_address: Ipv4Addr,
    /// Port of the server for the first published port. Further ports follow in the same order.
    pub to_port: u16,
}

impl Forward {
    /// Smallest number of ports that a forward shares with mappings. A narrower range cannot take
    /// all ports of an address.
    pub(crate) const SHARED_PORTS: u16 = 1024;

    /// Reports whether dynamic mappings may get the forward's ports: those of a whole address, of a
    /// very wide range, and the identifiers of ICMP queries.
    ///
    /// Such a forward yields to a live mapping, and a mapping does not take a port on which a
    /// session of the forward lives.
    pub(crate) fn is_shared(&self) -> bool {
        self.ports.last - self.ports.first >= Self::SHARED_PORTS - 1
    }

    /// Reports whether both forwards publish some endpoint if they are on the same address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let share = |protocol: &Protocol| {
            self.protocol.covers(*protocol) && other.protocol.covers(*protocol)
        };
        [Protocol::TCP, Protocol::UDP, Protocol::ICMP].iter().any(share)
            && self.ports.first <= other.ports.last
            && other.ports.first <= self.ports.last
    }

    /// Orders the forwards of an address: the first one that publishes an endpoint has the packet.
    pub(crate) fn breadth(&self) -> (bool, u16) {
        (self.protocol == ForwardProtocol::Any, self.ports.last - self.ports.first)
    }
}

impl ForwardProtocol {
    /// Reports whether the rule applies to packets of `protocol`.
    pub fn covers(self, protocol: Protocol) -> bool {
        match self {
            Self::Tcp => protocol == Protocol::TCP,
            Self::Udp => protocol == Protocol::UDP,
            Self::TcpUdp => protocol == Protocol::TCP || protocol == Protocol::UDP,
            Self::Icmp => protocol == Protocol::ICMP,
            Self::Any => true,
        }
    }
}

/// Sources that may open sessions to the outside, and the uplinks of these sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundRule {
    /// Sources.
    pub from: Ipv4Net,
    /// Destinations. Empty: all.
    pub to: Vec<Ipv4Net>,
    /// Indices of uplinks, at least one.
    pub uplinks: Vec<u8>,
    /// Part of a packet's tuple that selects the uplink.
    pub hash_by: HashBy,
}

/// Destinations to and from which packets pass without translation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoNatRule {
    /// Addresses.
    pub to: Ipv4Net,
    /// Protocols.
    pub protocol: ForwardProtocol,
    /// Ports; all of them, 0 included, for protocols without ports.
    pub ports: PortRange,
}

impl NoNatRule {
    /// Reports whether packets to and from an endpoint are not translated.
    pub(crate) fn covers(&self, protocol: Protocol, remote: Endpoint) -> bool {
        self.to.contains(&remote.address)
            && self.protocol.covers(protocol)
            && self.ports.contains(remote.port)
    }
}

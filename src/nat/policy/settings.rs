//! What the translator needs to know of the configuration and of the host, as plain data.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::packet::Protocol;
use crate::time::Span;

/// Settings of one box; made by `control` from the configuration and the host's facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Private prefixes.
    pub inside: Vec<Ipv4Net>,
    /// Address of the box on the private leg: the source of ICMP errors to inside hosts. None: the published address.
    pub inside_address: Option<Ipv4Addr>,
    /// Routers behind which inside hosts are known to be: they may report on any packet that went inside.
    pub inside_routers: Vec<Ipv4Addr>,
    /// MTU of the private leg.
    pub inside_mtu: u16,
    /// Address of the TUN device, the source of ICMP errors that the host's kernel writes about translated packets.
    pub tun_address: Option<Ipv4Addr>,
    /// Lines, at most 256.
    pub uplinks: Vec<Uplink>,
    /// Published services.
    pub forwards: Vec<Forward>,
    /// Who may go out.
    pub outbound: Vec<OutboundRule>,
    /// Destinations that inside hosts reach without translation.
    pub no_nat: Vec<NoNatRule>,
    /// Mapping behaviour (RFC 4787 section 4.1).
    pub mapping: EndpointDependence,
    /// Filtering behaviour (RFC 4787 section 5).
    pub filtering: EndpointDependence,
    /// Whether inside hosts reach each other through external addresses.
    pub hairpin: bool,
    /// Dynamic external ports, inclusive.
    pub ports: (u16, u16),
    /// TCP MSS clamp.
    pub mss_clamp: MssClamp,
    /// Whether a host whose external address has no port left may use another one of the line (RFC 7857 section 4).
    pub paired_soft: bool,
    /// Whether UDP ports keep their lowest bit (RFC 4787 REQ-4).
    pub port_parity: bool,
    /// Whether mappings towards different destinations may share an external port (RFC 7857 section 3).
    pub port_overlapping: bool,
    /// Whether packets from outside keep dynamic UDP mappings alive (RFC 4787 REQ-6a).
    pub inbound_refresh: bool,
    /// Code of the destination unreachable message that an inside host gets when no mapping can be made for it; None:
    /// it gets none (RFC 5508 REQ-8, RFC 6888 REQ-11).
    pub reject_with: Option<u8>,
    /// Whether a SYN that nobody waits for is answered with port unreachable after a while (RFC 5382 REQ-4).
    pub delayed_reject: bool,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Sessions at one time, exactly.
    pub sessions: u32,
    /// Sessions that one inside host may have opened; 0: no limit.
    pub sessions_per_host: u32,
    /// Sessions that one inside host may open in a second; 0: no limit.
    pub new_sessions_per_host: u32,
    /// Datagrams in pieces that are tracked at one time.
    pub fragments: u32,
    /// Freed ports that are kept for their last holders, on each external address for each protocol.
    pub delayed_ports: u32,
    /// ICMP errors of our own to one host in a second; 0: no limit.
    pub icmp_errors_per_host: u32,
}

impl Settings {
    /// A box with one line of one address, whose inside may go out: no forwards, no limits but the table's 1,024 sessions, the
    /// usual idle timeouts. To be changed by whoever wants something else.
    pub fn one_line(inside: Ipv4Net, external: Ipv4Addr) -> Self {
        let address =
            ExternalAddress { address: external, assigned_to_host: false, reserved: Vec::new() };
        Self {
            inside: vec![inside],
            inside_address: None,
            inside_routers: Vec::new(),
            inside_mtu: 1500,
            tun_address: None,
            uplinks: vec![Uplink {
                name: "isp1".into(),
                mtu: 1500,
                weight: 1,
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
            mapping: EndpointDependence::EndpointIndependent,
            filtering: EndpointDependence::AddressAndPortDependent,
            hairpin: true,
            ports: (1024, 65535),
            mss_clamp: MssClamp::Auto,
            paired_soft: false,
            port_parity: true,
            port_overlapping: false,
            inbound_refresh: true,
            reject_with: None,
            delayed_reject: false,
            timeouts: Timeouts {
                tcp_established: Span::seconds(7440),
                tcp_transitory: Span::seconds(240),
                tcp_syn: Span::seconds(30),
                udp: Span::seconds(300),
                udp_dns: Span::seconds(10),
                icmp: Span::seconds(60),
                fragment: Span::seconds(15),
                port_reuse_delay: Span(0),
            },
            sessions: 1024,
            sessions_per_host: 0,
            new_sessions_per_host: 0,
            fragments: 64,
            delayed_ports: 0,
            icmp_errors_per_host: 0,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Name, for listings.
    pub name: String,
    /// MTU of its interface.
    pub mtu: u16,
    /// Share of new outbound mappings.
    pub weight: u32,
    /// External addresses.
    pub addresses: Vec<ExternalAddress>,
    /// Link-local address of the box's own endpoint on this line: what it sends goes out by the line, and forwards may lead to
    /// it. Probes of the line and services of the box use it.
    pub probe_address: Option<Ipv4Addr>,
}

/// One external address.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Whether it is the host's own as well: packets that match nothing are then handed back to the host.
    pub assigned_to_host: bool,
    /// Ports that the host's own connections take, inclusive; never taken for mappings. Those at which it waits come by
    /// `Translator::exclude_ports`.
    pub reserved: Vec<(u16, u16)>,
}

/// One published range on one external address.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Name, for listings.
    pub name: String,
    /// Index of the uplink.
    pub uplink: u8,
    /// What is published.
    pub protocol: ForwardProtocol,
    /// Published address.
    pub address: Ipv4Addr,
    /// Published ports, inclusive; all of them for echo and whole addresses.
    pub ports: (u16, u16),
    /// The server.
    pub to_address: Ipv4Addr,
    /// The server's port for the first published one; the others keep their distance.
    pub to_port: u16,
}

/// Protocols that a forward publishes, or that an exemption is for.
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
    /// Every protocol, ports unchanged.
    Any,
}

impl ForwardProtocol {
    /// Whether packets of `protocol` are meant.
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

/// Sources that may go out, and over which uplinks.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundRule {
    /// Sources.
    pub from: Ipv4Net,
    /// Destinations; none: all.
    pub to: Vec<Ipv4Net>,
    /// Indices of uplinks, at least one.
    pub uplinks: Vec<u8>,
    /// What is spread over them.
    pub hash_by: HashBy,
}

/// What is spread over the uplinks of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// Each inside endpoint by itself; protocols without ports by host.
    SourcePort,
    /// Each inside host, with all its endpoints.
    SourceAddress,
}

/// Destinations towards which nothing is translated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoNatRule {
    /// Addresses.
    pub to: Ipv4Net,
    /// Protocols.
    pub protocol: ForwardProtocol,
    /// Ports, inclusive; all of them, 0 included, for protocols without ports.
    pub ports: (u16, u16),
}

/// On what part of the remote endpoint a mapping or filter depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointDependence {
    /// On none.
    EndpointIndependent,
    /// On its address.
    AddressDependent,
    /// On its address and port.
    AddressAndPortDependent,
}

/// TCP MSS clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// The smaller of both legs' MTU, less 40.
    Auto,
    /// None.
    Off,
    /// This many bytes.
    To(u16),
}

/// Idle timeouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// Open TCP connections.
    pub tcp_established: Span,
    /// TCP connections that open, close or were reset.
    pub tcp_transitory: Span,
    /// TCP connections of which only SYNs from one side were seen.
    pub tcp_syn: Span,
    /// UDP.
    pub udp: Span,
    /// UDP to port 53 once answered.
    pub udp_dns: Span,
    /// ICMP queries.
    pub icmp: Span,
    /// Datagrams of which not all pieces have come.
    pub fragment: Span,
    /// How long a freed port is kept for its last holder (RFC 6888 REQ-8); zero: not at all.
    pub port_reuse_delay: Span,
}

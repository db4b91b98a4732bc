//! A box for the packets of fuzz targets: two inside legs, two uplinks, and rules that the input
//! chooses.

use std::net::Ipv4Addr;

use natbox::nat::{
    EndpointDependence, ExternalAddress, Forward, ForwardProtocol, HashBy, Leg, Limits, MssClamp,
    NoNatRule, OutboundRule, Policy, PortRange, Timeouts, Uplink,
};
use natbox::time::Span;

use super::input::Input;

/// Hosts of both legs. The first one is a server, the last one a router.
pub const INSIDE: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 0, 0, 5),
    Ipv4Addr::new(10, 0, 0, 6),
    Ipv4Addr::new(10, 1, 0, 7),
    Ipv4Addr::new(10, 1, 0, 254),
];
/// External addresses: two of the first uplink, one of the second.
pub const EXTERNAL: [Ipv4Addr; 3] = [
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv4Addr::new(198, 51, 100, 20),
];
/// Remote hosts.
pub const REMOTE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// A host that inside hosts reach without translation if there is a rule for it.
pub const BYPASSED: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 9);
/// The link-local address from which the host's own packets leave by any uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 71, 5);
/// The link-local addresses from which probes leave by one uplink.
pub const PROBES: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 71, 8), Ipv4Addr::new(169, 254, 71, 9)];
/// The address of the TUN device.
pub const TUN: Ipv4Addr = Ipv4Addr::new(169, 254, 71, 1);
/// Addresses that no packet should have.
pub const ODD: [Ipv4Addr; 6] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::new(10, 9, 9, 9),
];
/// Port on which the server is published.
pub const PUBLISHED: u16 = 8080;
/// First external port of mappings. There are few, so that packets meet.
pub const FIRST_PORT: u16 = 40_000;

/// Returns the limits of a box.
pub fn limits(input: &mut Input<'_>) -> Limits {
    let mut dependence = || {
        input.pick(&[
            EndpointDependence::EndpointIndependent,
            EndpointDependence::AddressDependent,
            EndpointDependence::AddressAndPortDependent,
        ])
    };
    let (mapping, filtering) = (dependence(), dependence());
    let switches = input.byte();
    let few = |bit: u8, number: u32| (switches >> bit & 1 == 1).then_some(number);
    Limits {
        inside: vec![net([10, 0, 0, 0], 24), net([10, 1, 0, 0], 24)],
        mapping,
        filtering,
        ports: PortRange { first: FIRST_PORT, last: FIRST_PORT + 15 },
        paired_soft: switches & 1 != 0,
        port_parity: switches & 2 == 0,
        port_overlapping: switches & 4 != 0,
        inbound_refresh: switches & 8 == 0,
        timeouts: Timeouts {
            tcp_established: Span::seconds(100),
            tcp_transitory: Span::seconds(40),
            tcp_syn: Span::seconds(30),
            udp: Span::seconds(50),
            udp_dns: Span::seconds(10),
            icmp: Span::seconds(20),
            fragment: Span::seconds(15),
            port_reuse_delay: few(4, 5).map(Span::seconds),
        },
        sessions: if switches & 32 == 0 { 32 } else { 6 },
        addresses_may_grow: false,
        accounting: switches & 64 != 0,
        sessions_per_host: few(7, 9).and_then(std::num::NonZeroU32::new),
        new_sessions_per_host: None,
        fragments: 24,
        delayed_ports: few(4, 3).unwrap_or(0),
        icmp_errors_per_host: few(3, 5).and_then(std::num::NonZeroU32::new),
    }
}

/// Returns the rules of a box. `switches` chooses among them.
pub fn policy(switches: u16) -> Policy {
    let is_on = |bit: u8| switches >> bit & 1 == 1;
    let leg =
        |prefix, address, routers| Leg { prefixes: vec![prefix], address, routers, mtu: 1500 };
    let mut forwards = Vec::new();
    if !is_on(0) {
        for (uplink, address) in [(0, EXTERNAL[0]), (1, EXTERNAL[2])] {
            forwards.push(forward(uplink, address, ForwardProtocol::TcpUdp, PUBLISHED, 80));
        }
        forwards.push(forward(0, EXTERNAL[1], ForwardProtocol::Icmp, 0, 0));
    }
    if is_on(1) {
        forwards.push(forward(0, EXTERNAL[1], ForwardProtocol::Any, 0, 0));
    }
    let outbound = |octet: u8, uplinks| OutboundRule {
        from: net([10, octet, 0, 0], 24),
        to: Vec::new(),
        uplinks,
        hash_by: HashBy::SourcePort,
    };
    Policy {
        legs: vec![
            leg(net([10, 0, 0, 0], 24), Some(Ipv4Addr::new(10, 0, 0, 1)), Vec::new()),
            leg(net([10, 1, 0, 0], 24), None, vec![INSIDE[3]]),
        ],
        tun_address: Some(TUN),
        host_address: is_on(2).then_some(HOST),
        uplinks: vec![
            uplink("isp1", 1, &EXTERNAL[..2], is_on(3), PROBES[0]),
            uplink("isp2", if is_on(4) { 2 } else { 1 }, &EXTERNAL[2..], is_on(5), PROBES[1]),
        ],
        forwards,
        outbound: if is_on(6) {
            vec![outbound(0, vec![1])]
        } else {
            vec![outbound(0, vec![0, 1]), outbound(1, vec![0])]
        },
        no_nat: (!is_on(7)).then_some(NO_NAT).into_iter().collect(),
        kept_ports: if is_on(8) { vec![PortRange::single(500)] } else { Vec::new() },
        hairpin: !is_on(9),
        mss_clamp: if is_on(10) { MssClamp::To(536) } else { MssClamp::Auto },
        reject_with: is_on(11).then_some(13),
        delayed_reject: is_on(12),
    }
}

fn uplink(name: &str, tier: u8, addresses: &[Ipv4Addr], owned: bool, probe: Ipv4Addr) -> Uplink {
    let external = |address: &Ipv4Addr| ExternalAddress {
        address: *address,
        assigned_to_host: owned,
        reserved: Vec::new(),
    };
    Uplink {
        name: name.into(),
        mtu: 1500,
        weight: 1,
        tier,
        addresses: addresses.iter().map(external).collect(),
        probe_address: Some(probe),
    }
}

fn forward(
    uplink: u8,
    address: Ipv4Addr,
    protocol: ForwardProtocol,
    port: u16,
    to_port: u16,
) -> Forward {
    let ports = if port == 0 { PortRange::ALL } else { PortRange::single(port) };
    let to_address = INSIDE[0];
    Forward { name: "server".into(), uplink, protocol, address, ports, to_address, to_port }
}

const fn net(octets: [u8; 4], length: u8) -> ipnet::Ipv4Net {
    let [a, b, c, d] = octets;
    ipnet::Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// The rule for [`BYPASSED`].
const NO_NAT: NoNatRule = NoNatRule {
    to: net([172, 16, 9, 0], 24),
    protocol: ForwardProtocol::Any,
    ports: PortRange::ALL,
};

//! Netlink messages of natbox's steps.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::address::{AddressMessage, AddressScope};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{
    RuleAction as KernelAction, RuleAttribute, RuleMessage, RulePortRange,
};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::indices::Indices;
use crate::host::error::HostError;
use crate::host::model::step::{
    RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, SourcePorts, UdpPorts,
};

/// Describes a /32 address of link scope.
pub(super) fn address_message(address: Ipv4Addr, index: u32) -> AddressMessage {
    let mut message =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, 32).build();
    message.header.scope = AddressScope::Link;
    message
}

/// Describes a route.
///
/// # Errors
/// When the route's interface does not exist.
pub(super) fn route_message(route: &Route, indices: &Indices) -> Result<RouteMessage, HostError> {
    let (kind, scope) = match route.kind {
        RouteKind::Unicast if route.via.is_none() => (RouteType::Unicast, RouteScope::Link),
        RouteKind::Unicast => (RouteType::Unicast, RouteScope::Universe),
        RouteKind::Blackhole => (RouteType::BlackHole, RouteScope::Universe),
        RouteKind::Throw => (RouteType::Throw, RouteScope::Universe),
        RouteKind::Unreachable => (RouteType::Unreachable, RouteScope::Universe),
        RouteKind::Broadcast => (RouteType::Broadcast, RouteScope::Link),
        RouteKind::Local => (RouteType::Local, RouteScope::Host),
    };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .table_id(route.table)
        .kind(kind)
        .scope(scope)
        .protocol(RouteProtocol::from(RTPROT_NATBOX));
    if route.to.prefix_len() > 0 {
        builder = builder.destination_prefix(route.to.network(), route.to.prefix_len());
    }
    if let Some(device) = &route.device {
        builder = builder.output_interface(indices.of(device)?);
    }
    if let Some(gateway) = route.via {
        builder = builder.gateway(gateway);
    }
    if route.onlink {
        builder = builder.onlink();
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    if route.metric > 0 {
        builder = builder.priority(route.metric);
    }
    let mut message = builder.build();
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(message)
}

/// Makes the request that removes a route from the kernel's description of the route.
pub(super) fn removal_message(mut found: RouteMessage) -> RouteMessage {
    // States of the next hop, which a request must not have.
    found.header.flags = RouteFlags::empty();
    // The kernel describes a nexthop object beside its number, and accepts only the number.
    if found.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_))) {
        found.attributes.retain(|attribute| {
            !matches!(
                attribute,
                RouteAttribute::Oif(_)
                    | RouteAttribute::Gateway(_)
                    | RouteAttribute::Via(_)
                    | RouteAttribute::MultiPath(_)
                    | RouteAttribute::Encap(_)
                    | RouteAttribute::EncapType(_)
            )
        });
    }
    found
}

/// Describes a rule. Without `protocol`, the message matches rules of any protocol.
pub(super) fn rule_message(rule: &Rule, protocol: Option<u8>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some(iif) = &rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    if let Some(oif) = &rule.oif {
        attributes.push(RuleAttribute::Oifname(oif.clone()));
    }
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.network().into()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.network().into()));
    }
    if let Some(UdpPorts { source, destination }) = rule.udp {
        let port = |port| RulePortRange { start: port, end: port };
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
        attributes.push(RuleAttribute::SourcePortRange(port(source)));
        attributes.push(RuleAttribute::DestinationPortRange(port(destination)));
    }
    if let Some(SourcePorts { first, last }) = rule.udp_source {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
        let range = RulePortRange { start: first, end: last };
        attributes.push(RuleAttribute::SourcePortRange(range));
    }
    if let Some(group) = rule.suppress_group {
        attributes.push(RuleAttribute::SuppressIfGroup(group));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    if let Some(protocol) = protocol {
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(protocol)));
    }
    match rule.action {
        RuleAction::Lookup(table) => {
            message.header.action = KernelAction::ToTable;
            attributes.push(RuleAttribute::Table(table));
        }
        RuleAction::Blackhole => message.header.action = KernelAction::Blackhole,
    }
    message
}

/// Describes a proxy neighbour entry.
pub(super) fn proxy_message(address: Ipv4Addr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    let destination = NeighbourAddress::Inet(address);
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

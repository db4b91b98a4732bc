//! The kernel's netlink messages as plain values.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction as KernelAction, RuleAttribute, RuleMessage};

use crate::host::model::private_filter::PRIVATE_IPV6;
use crate::host::model::snapshot::{Address, FoundRoute, FoundRule, Link, ProxyEntry, RuleEffect};
use crate::host::model::step::{Route, RouteKind, Rule, RuleAction, SourcePorts, UdpPorts};

/// `FIB_RULE_INVERT`: the rule applies to packets that do not match.
const FIB_RULE_INVERT: u32 = 2;
/// `FIB_RULE_UNRESOLVED`: the rule to which this one jumps is missing.
const FIB_RULE_UNRESOLVED: u32 = 4;
/// `FRA_DSCP` (Linux 6.14) and `FRA_DSCP_MASK`, which rtnetlink does not know yet.
const DSCP: u16 = 25;
const DSCP_MASK: u16 = 30;
/// `FRA_SPORT_MASK` and `FRA_DPORT_MASK`, which rtnetlink does not know yet.
const PORT_MASKS: [u16; 2] = [28, 29];

/// Reads an interface; None when the message has no name.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut name = None;
    let (mut mtu, mut queue_length, mut group) = (0, 0, 0);
    let (mut hardware, mut controller) = (None, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(found) = attribute {
            name = Some(found.clone());
        } else if let LinkAttribute::Mtu(found) = attribute {
            mtu = *found;
        } else if let LinkAttribute::TxQueueLen(found) = attribute {
            queue_length = *found;
        } else if let LinkAttribute::Group(found) = attribute {
            group = *found;
        } else if let LinkAttribute::Address(found) = attribute {
            hardware = found.as_slice().try_into().ok();
        } else if let LinkAttribute::Controller(index) = attribute {
            controller = Some(*index);
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Some(Link {
        index: message.header.index,
        name: name?,
        mtu,
        queue_length,
        group,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        arp: !flags.contains(LinkFlags::Noarp),
        hardware: hardware.filter(|_| is_ethernet),
        controller,
        lower: lower(&message.attributes),
    })
}

/// Reads the index of the interface that takes an interface's packets. None: there is none in this
/// namespace, or the packets have a tag or another header there.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are open-ended; others do not matter"
)]
fn lower(attributes: &[LinkAttribute]) -> Option<u32> {
    let (mut lower, mut is_stacked, mut is_far) = (None, false, false);
    for attribute in attributes {
        match attribute {
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_far = true,
            LinkAttribute::LinkInfo(found) => is_stacked = found.iter().any(is_stacked_kind),
            _ => {}
        }
    }
    lower.filter(|_| is_stacked && !is_far)
}

/// Returns true for a kind whose packets pass another interface with the same network header and
/// without a tag.
fn is_stacked_kind(info: &LinkInfo) -> bool {
    let LinkInfo::Kind(kind) = info else { return false };
    matches!(kind, InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap)
}

/// Reads an IPv4 address; None for another family.
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Address(IpAddr::V4(address)) = attribute {
            peer = Some(*address);
        }
    }
    let address = local.or(peer)?;
    let header = &message.header;
    Some(Address {
        index: header.index,
        address,
        network: Ipv4Net::new(peer.unwrap_or(address), header.prefix_len).ok()?.trunc(),
        primary: header.scope == AddressScope::Universe
            && !header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

/// Reads the network of a private IPv6 address, with the index of its interface; None for any other
/// address.
pub(super) fn private_ipv6(message: &AddressMessage) -> Option<(u32, Ipv6Net)> {
    let (index, length) = (message.header.index, message.header.prefix_len);
    let address = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Address(IpAddr::V6(address)) = attribute {
            Some(*address)
        } else {
            None
        }
    })?;
    let network = Ipv6Net::new(address, length).ok()?.trunc();
    PRIVATE_IPV6.iter().any(|private| private.contains(&network)).then_some((index, network))
}

/// Reads the IPv4 address of a neighbour entry.
pub(super) fn neighbour_address(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute {
            Some(*address)
        } else {
            None
        }
    })
}

/// Reads a proxy neighbour entry; None for any other entry.
pub(super) fn proxy(message: &NeighbourMessage) -> Option<ProxyEntry> {
    let address = neighbour_address(message)?;
    let is_proxy = message.header.flags.contains(NeighbourFlags::Proxy);
    is_proxy.then_some(ProxyEntry { address, index: message.header.ifindex })
}

/// Reads a route; None for a kind that natbox does not compare.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are open-ended; others set `more`"
)]
pub(super) fn route(message: &RouteMessage, names: &HashMap<u32, &str>) -> Option<FoundRoute> {
    let header = &message.header;
    let (kind, mut more) = match header.kind {
        RouteType::Unicast => (RouteKind::Unicast, false),
        RouteType::BlackHole => (RouteKind::Blackhole, false),
        RouteType::Throw => (RouteKind::Throw, false),
        RouteType::Unreachable => (RouteKind::Unreachable, false),
        RouteType::Prohibit => (RouteKind::Unreachable, true),
        RouteType::Broadcast => (RouteKind::Broadcast, false),
        RouteType::Local => (RouteKind::Local, false),
        _ => return None,
    };
    let mut found = Route::new(header.table.into(), kind, Ipv4Net::default());
    let mut is_opaque = header.tos != 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => found.table = *table,
            RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                found.to = Ipv4Net::new(*to, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Oif(index) => {
                found.device = names.get(index).map(|name| name.to_string())
            }
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => found.via = Some(*gateway),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => found.source = Some(*source),
            RouteAttribute::Priority(metric) => found.metric = *metric,
            RouteAttribute::Metrics(metrics) => match metrics[..] {
                [RouteMetric::Mtu(mtu)] => found.mtu = Some(mtu),
                _ => more = true,
            },
            RouteAttribute::CacheInfo(_) => {}
            RouteAttribute::MultiPath(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_) => is_opaque = true,
            _ => more = true,
        }
    }
    more |= is_opaque;
    Some(FoundRoute { route: found, protocol: header.protocol.into(), more, is_opaque })
}

/// Reads a policy rule.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's actions are open-ended; others set `more`"
)]
pub(in crate::host) fn rule(message: &RuleMessage) -> FoundRule {
    let header = &message.header;
    let action = RuleAction::Lookup(header.table.into());
    let has_tos = header.tos != 0;
    let is_inverted = header.flags.bits() & FIB_RULE_INVERT != 0;
    let mut found = FoundRule {
        rule: Rule::new(0, action),
        protocol: 0,
        more: has_tos,
        is_narrow: has_tos,
        is_inverted,
        effect: RuleEffect::Lookup,
    };
    let is_resolved = header.flags.bits() & FIB_RULE_UNRESOLVED == 0;
    let mut ports = PortSelector::default();
    for attribute in &message.attributes {
        read_rule_attribute(attribute, header.src_len, header.dst_len, &mut found, &mut ports);
    }
    found.rule.udp = ports.udp();
    found.rule.udp_source = ports.udp_source();
    let is_known = found.rule.udp.is_some() || found.rule.udp_source.is_some();
    found.more |= !is_known && ports.is_present();
    found.is_narrow |= ports.is_present();
    match header.action {
        KernelAction::ToTable => {}
        KernelAction::Blackhole => {
            found.rule.action = RuleAction::Blackhole;
            found.effect = RuleEffect::Drop;
        }
        KernelAction::Goto if is_resolved => found.more = true,
        KernelAction::Goto | KernelAction::Nop => {
            (found.more, found.effect) = (true, RuleEffect::Continue);
        }
        _ => (found.more, found.effect) = (true, RuleEffect::Drop),
    }
    // Inverted rules (`not`). A selector's interface that is missing at the moment is no
    // difference.
    found.more |= is_inverted;
    found
}

/// The attributes of a rule that select a protocol and ports.
#[derive(Default)]
struct PortSelector {
    is_udp: bool,
    source: Option<SourcePorts>,
    destination: Option<u16>,
}

impl PortSelector {
    fn udp(&self) -> Option<UdpPorts> {
        let (SourcePorts { first, last }, destination) = self.source.zip(self.destination)?;
        (self.is_udp && first == last).then_some(UdpPorts { source: first, destination })
    }

    fn udp_source(&self) -> Option<SourcePorts> {
        self.source.filter(|_| self.is_udp && self.destination.is_none())
    }

    fn is_present(&self) -> bool {
        self.is_udp || self.source.is_some() || self.destination.is_some()
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are open-ended; others set `more`"
)]
fn read_rule_attribute(
    attribute: &RuleAttribute,
    source_length: u8,
    destination_length: u8,
    found: &mut FoundRule,
    ports: &mut PortSelector,
) {
    match attribute {
        RuleAttribute::Priority(priority) => found.rule.priority = *priority,
        RuleAttribute::Iifname(name) => found.rule.iif = Some(name.clone()),
        RuleAttribute::Oifname(name) => found.rule.oif = Some(name.clone()),
        RuleAttribute::Source(IpAddr::V4(address)) => {
            found.rule.from = Ipv4Net::new(*address, source_length).ok();
        }
        RuleAttribute::Destination(IpAddr::V4(address)) => {
            found.rule.to = Ipv4Net::new(*address, destination_length).ok();
        }
        RuleAttribute::Table(table) => found.rule.action = RuleAction::Lookup(*table),
        RuleAttribute::Protocol(protocol) => found.protocol = (*protocol).into(),
        RuleAttribute::IpProtocol(protocol) => {
            ports.is_udp = *protocol == IpProtocol::Udp;
            found.more |= !ports.is_udp;
            found.is_narrow = true;
        }
        RuleAttribute::SourcePortRange(range) => {
            ports.source = Some(SourcePorts { first: range.start, last: range.end });
        }
        RuleAttribute::DestinationPortRange(range) if range.start == range.end => {
            ports.destination = Some(range.start);
        }
        // The kernel sends this attribute with every rule.
        RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
        RuleAttribute::SuppressPrefixLen(length) => {
            found.rule.suppress_prefix_length = Some(*length);
        }
        RuleAttribute::SuppressIfGroup(group) => found.rule.suppress_group = Some(*group),
        RuleAttribute::Other(other) if is_whole_port(other) => {}
        RuleAttribute::Goto(priority) => {
            (found.more, found.effect) = (true, RuleEffect::Goto(*priority));
        }
        // A mask without a mark selects packets without a mark.
        RuleAttribute::FwMask(_) | RuleAttribute::Realm(_) => found.more = true,
        RuleAttribute::UidRange(range) if range.start == 0 => found.more = true,
        RuleAttribute::Other(other) if is_default_dscp(other) => found.more = true,
        _ => (found.more, found.is_narrow) = (true, true),
    }
}

/// Returns true for the DSCP of most packets, 0, and for a mask of it.
fn is_default_dscp(attribute: &DefaultNla) -> bool {
    let mut value = [0; 1];
    let is_dscp = attribute.kind() == DSCP && attribute.value_len() == value.len();
    if is_dscp {
        attribute.emit_value(&mut value);
    }
    is_dscp && value == [0] || attribute.kind() == DSCP_MASK
}

/// Returns true for the mask of a whole port. Linux 6.15 and later send such a mask with every
/// port selector.
fn is_whole_port(attribute: &DefaultNla) -> bool {
    let mut value = [0; 2];
    let is_mask = PORT_MASKS.contains(&attribute.kind()) && attribute.value_len() == value.len();
    if is_mask {
        attribute.emit_value(&mut value);
    }
    is_mask && value == [0xff; 2]
}

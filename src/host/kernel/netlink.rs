//! The kernel's side: reading a [`Snapshot`], adding and deleting what a [`Step`] says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::stream::{Stream, StreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{
    RuleAction as KernelAction, RuleAttribute, RuleMessage, RulePortRange,
};
use rtnetlink::{AddressMessageBuilder, Handle, IpVersion, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

use crate::host::error::HostError;
use crate::host::model::snapshot::{Address, FoundRoute, FoundRule, Link, Snapshot};
use crate::host::model::steps::{
    RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, Step, TABLE_LOCAL, TUN_MTU, TUN_QUEUE_LENGTH,
};

/// `RTPROT_KERNEL`: who the first local rule belongs to.
const KERNEL: u8 = 2;
/// Errors of the kernel that say "it is not there": ENOENT, ESRCH, ENXIO, ENODEV, ENETDOWN, EADDRNOTAVAIL.
const GONE: [i32; 6] =
    [libc::ENOENT, libc::ESRCH, libc::ENXIO, libc::ENODEV, libc::ENETDOWN, libc::EADDRNOTAVAIL];

/// A netlink socket of the calling process's network namespace.
pub(crate) struct Kernel {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    /// Opens the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel grants no netlink socket.
    pub(crate) fn connect() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| {
            HostError::Netlink { doing: "opening a netlink socket".into(), source }
        })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// For requests of other modules.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads everything of interest.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, HostError> {
        let links = self.links().await?;
        let names: HashMap<u32, &str> =
            links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let addresses = dump("listing addresses", self.handle.address().get().execute()).await?;
        let routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = dump("listing routes", self.handle.route().get(routes).execute()).await?;
        let rules = dump("listing rules", self.handle.rule().get(IpVersion::V4).execute()).await?;
        let proxies =
            self.handle.neighbours().get().proxies().set_address_family(AddressFamily::Inet);
        let proxies = dump("listing proxied neighbours", proxies.execute()).await?;
        Ok(Snapshot {
            addresses: addresses.iter().filter_map(address_of).collect(),
            routes: routes.iter().filter_map(|message| route(message, &names)).collect(),
            rules: rules.iter().map(rule).collect(),
            proxies: proxies.iter().filter_map(proxy).collect(),
            links,
        })
    }

    /// Reads the interfaces.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let links = dump("listing interfaces", self.handle.link().get().execute()).await?;
        Ok(links.iter().filter_map(link).collect())
    }

    /// Makes the change of a step that is not a sysctl.
    ///
    /// # Errors
    /// What the kernel answers; also that something equal is there.
    pub(crate) async fn add(&self, step: &Step, indices: &Indices) -> Result<(), HostError> {
        let result = match step {
            Step::BringUpTun { device } => {
                let message = LinkUnspec::new_with_index(indices.of(device)?)
                    .mtu(TUN_MTU)
                    .txqueuelen(TUN_QUEUE_LENGTH)
                    .up();
                self.handle.link().change(message.build()).execute().await
            }
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                let mut request = self.handle.address().add(0, IpAddr::V4(*address), 32);
                *request.message_mut() = message;
                request.execute().await
            }
            Step::Route(route) => {
                let message = route_message(route, indices)?;
                self.handle.route().add(message).execute().await
            }
            Step::Rule(rule) => self.add_rule(rule, RTPROT_NATBOX).await,
            Step::ProxyNeighbour { address, device } => {
                let neighbours = self.handle.neighbours();
                let request = neighbours.add(indices.of(device)?, IpAddr::V4(*address));
                request.flags(NeighbourFlags::Proxy).execute().await
            }
            Step::RemoveDefaultLocalRule => {
                self.handle.rule().del(rule_message(&default_local_rule(), None)).execute().await
            }
            Step::Sysctl { .. } => unreachable!("sysctls are written by their own module"),
        };
        result.map_err(|error| HostError::netlink(crate::host::render::plan::command(step), error))
    }

    /// Takes back the change of a step that is not a sysctl. What is gone already is as good as taken back.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) async fn remove(&self, step: &Step, indices: &Indices) -> Result<(), HostError> {
        // Everything that hangs on a device goes with it.
        if step.devices().any(|device| indices.of(device).is_err()) {
            return Ok(());
        }
        let result = match step {
            Step::BringUpTun { .. } => Ok(()),
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                self.handle.address().del(message).execute().await
            }
            Step::Route(route) => {
                let message = route_message(route, indices)?;
                self.handle.route().del(message).execute().await
            }
            Step::Rule(rule) => {
                self.handle.rule().del(rule_message(rule, Some(RTPROT_NATBOX))).execute().await
            }
            Step::ProxyNeighbour { address, device } => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Inet;
                message.header.ifindex = indices.of(device)?;
                message.header.state = NeighbourState::Permanent;
                message.header.flags = NeighbourFlags::Proxy;
                message
                    .attributes
                    .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(*address)));
                self.handle.neighbours().del(message).execute().await
            }
            Step::RemoveDefaultLocalRule => {
                match self.add_rule(&default_local_rule(), KERNEL).await {
                    Err(error) if code(&error) == Some(libc::EEXIST) => Ok(()),
                    result => result,
                }
            }
            Step::Sysctl { .. } => unreachable!("sysctls are written by their own module"),
        };
        match result {
            Err(error) if code(&error).is_some_and(|code| GONE.contains(&code)) => Ok(()),
            Err(error) => Err(HostError::netlink(
                format!("taking back `{}`", crate::host::render::plan::command(step)),
                error,
            )),
            Ok(()) => Ok(()),
        }
    }

    async fn add_rule(&self, rule: &Rule, protocol: u8) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule, Some(protocol));
        request.execute().await
    }
}

/// Interface indices by name, of one moment.
pub(crate) struct Indices(HashMap<String, u32>);

impl Indices {
    pub(crate) fn new(links: &[Link]) -> Self {
        Self(links.iter().map(|link| (link.name.clone(), link.index)).collect())
    }

    pub(crate) fn of(&self, name: &str) -> Result<u32, HostError> {
        self.0.get(name).copied().ok_or_else(|| HostError::Netlink {
            doing: format!("finding interface {name}"),
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })
    }
}

impl Step {
    /// Interfaces that must exist for the change to exist. Rules are not bound to theirs.
    fn devices(&self) -> impl Iterator<Item = &str> {
        let device = match self {
            Step::BringUpTun { device }
            | Step::Address { device, .. }
            | Step::ProxyNeighbour { device, .. } => Some(device),
            Step::Route(route) => route.device.as_ref(),
            Step::Sysctl { .. } | Step::Rule(_) | Step::RemoveDefaultLocalRule => None,
        };
        device.into_iter().map(String::as_str)
    }
}

/// The rule with which the kernel begins (net/ipv4/fib_rules.c).
pub(crate) fn default_local_rule() -> Rule {
    let action = RuleAction::Lookup(TABLE_LOCAL);
    Rule { priority: 0, iif: None, from: None, to: None, udp: None, action }
}

pub(crate) async fn dump<T>(
    doing: &str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, HostError> {
    let mut stream = std::pin::pin!(stream);
    let mut found = Vec::new();
    while let Some(item) = stream.next().await {
        found.push(item.map_err(|error| HostError::netlink(doing, error))?);
    }
    Ok(found)
}

/// The kernel's error number, positive.
pub(crate) fn code(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error {
        Some(-message.raw_code())
    } else {
        None
    }
}

fn address_message(address: Ipv4Addr, index: u32) -> AddressMessage {
    let mut message =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, 32).build();
    message.header.scope = AddressScope::Link;
    message
}

fn route_message(route: &Route, indices: &Indices) -> Result<RouteMessage, HostError> {
    let (kind, scope) = match route.kind {
        RouteKind::Unicast if route.via.is_none() => (RouteType::Unicast, RouteScope::Link),
        RouteKind::Unicast => (RouteType::Unicast, RouteScope::Universe),
        RouteKind::Blackhole => (RouteType::BlackHole, RouteScope::Universe),
        RouteKind::Throw => (RouteType::Throw, RouteScope::Universe),
        RouteKind::Unreachable => (RouteType::Unreachable, RouteScope::Universe),
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
    Ok(builder.build())
}

fn rule_message(rule: &Rule, protocol: Option<u8>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some(iif) = &rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.network().into()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.network().into()));
    }
    if let Some((source, destination)) = rule.udp {
        let port = |port| RulePortRange { start: port, end: port };
        attributes.push(RuleAttribute::IpProtocol(rtnetlink::packet_route::IpProtocol::Udp));
        attributes.push(RuleAttribute::SourcePortRange(port(source)));
        attributes.push(RuleAttribute::DestinationPortRange(port(destination)));
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

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut name = None;
    let (mut mtu, mut queue_length) = (0, 0);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(found) = attribute {
            name = Some(found.clone());
        } else if let LinkAttribute::Mtu(found) = attribute {
            mtu = *found;
        } else if let LinkAttribute::TxQueueLen(found) = attribute {
            queue_length = *found;
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mtu,
        queue_length,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        arp: !flags.contains(LinkFlags::Noarp),
    })
}

/// [`link`] for a message that was sent unasked.
pub(crate) fn link_of(message: &LinkMessage) -> Option<Link> {
    link(message)
}

/// The address of a message, asked for or not.
pub(crate) fn address_of(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut other_end = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Address(IpAddr::V4(address)) = attribute {
            other_end = Some(*address);
        }
    }
    let address = local.or(other_end)?;
    let header = &message.header;
    Some(Address {
        index: header.index,
        address,
        network: Ipv4Net::new(other_end.unwrap_or(address), header.prefix_len).ok()?.trunc(),
        primary: header.scope == AddressScope::Universe
            && !header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

/// Whose neighbour entry it is.
pub(crate) fn neighbour_address(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute {
            Some(*address)
        } else {
            None
        }
    })
}

fn proxy(message: &NeighbourMessage) -> Option<(Ipv4Addr, u32)> {
    let address = neighbour_address(message)?;
    message
        .header
        .flags
        .contains(NeighbourFlags::Proxy)
        .then_some((address, message.header.ifindex))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are open-ended; others set `more`"
)]
fn route(message: &RouteMessage, names: &HashMap<u32, &str>) -> Option<FoundRoute> {
    let header = &message.header;
    let (kind, mut more) = match header.kind {
        RouteType::Unicast => (RouteKind::Unicast, false),
        RouteType::BlackHole => (RouteKind::Blackhole, false),
        RouteType::Throw => (RouteKind::Throw, false),
        RouteType::Unreachable => (RouteKind::Unreachable, false),
        RouteType::Prohibit => (RouteKind::Unreachable, true),
        _ => return None,
    };
    let mut found = Route {
        table: header.table.into(),
        kind,
        to: Ipv4Net::default(),
        device: None,
        via: None,
        onlink: false,
        source: None,
        metric: 0,
    };
    more |= header.tos != 0;
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
            RouteAttribute::CacheInfo(_) => {}
            _ => more = true,
        }
    }
    Some(FoundRoute { route: found, protocol: header.protocol.into(), more })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are open-ended; others set `more`"
)]
fn rule(message: &RuleMessage) -> FoundRule {
    let header = &message.header;
    let mut found = FoundRule {
        rule: Rule {
            priority: 0,
            iif: None,
            from: None,
            to: None,
            udp: None,
            action: RuleAction::Lookup(header.table.into()),
        },
        protocol: 0,
        more: header.tos != 0,
    };
    let (mut udp, mut source, mut destination) = (false, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => found.rule.priority = *priority,
            RuleAttribute::Iifname(name) => found.rule.iif = Some(name.clone()),
            RuleAttribute::Source(IpAddr::V4(address)) => {
                found.rule.from = Ipv4Net::new(*address, header.src_len).ok();
            }
            RuleAttribute::Destination(IpAddr::V4(address)) => {
                found.rule.to = Ipv4Net::new(*address, header.dst_len).ok();
            }
            RuleAttribute::Table(table) => found.rule.action = RuleAction::Lookup(*table),
            RuleAttribute::Protocol(protocol) => found.protocol = (*protocol).into(),
            RuleAttribute::IpProtocol(protocol) => {
                udp = *protocol == rtnetlink::packet_route::IpProtocol::Udp;
                found.more |= !udp;
            }
            RuleAttribute::SourcePortRange(range) if range.start == range.end => {
                source = Some(range.start)
            }
            RuleAttribute::DestinationPortRange(range) if range.start == range.end => {
                destination = Some(range.start);
            }
            // The kernel always says so.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::Other(other) if is_whole_port(other) => {}
            _ => found.more = true,
        }
    }
    found.rule.udp = source.zip(destination).filter(|_| udp);
    found.more |= found.rule.udp.is_none() && (udp || source.is_some() || destination.is_some());
    match header.action {
        KernelAction::ToTable => {}
        KernelAction::Blackhole => found.rule.action = RuleAction::Blackhole,
        _ => found.more = true,
    }
    // Inverted (`not`) and the like; a selector's device that is gone at the moment is no difference.
    found.more |= header.flags.bits() & FIB_RULE_INVERT != 0;
    found
}

/// Since Linux 6.15 a port of a rule comes back with a mask (`FRA_SPORT_MASK`, `FRA_DPORT_MASK`).
fn is_whole_port(attribute: &DefaultNla) -> bool {
    let mut value = [0; 2];
    let masks = [28, 29].contains(&attribute.kind()) && attribute.value_len() == value.len();
    if masks {
        attribute.emit_value(&mut value);
    }
    masks && value == [0xff; 2]
}

/// `FIB_RULE_INVERT`: the rule is for packets that do not match.
const FIB_RULE_INVERT: u32 = 2;

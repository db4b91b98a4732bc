//! Reports changes of interfaces, addresses, rules and routes, as the kernel sends them
//! (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_RULE, RTNLGRP_IPV4_ROUTE).
//!
//! The kernel reports no change of a sysctl that natbox sets, and no removed proxy entry. natbox
//! sets nothing of IPv6 but one sysctl of its TUN, so it watches no rule and no route of IPv6. The
//! filter of private addresses needs the private IPv6 networks of the uplinks.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::task::JoinHandle;

use super::decode;
use super::netlink::Kernel;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::snapshot::{Address, Link};
use crate::host::model::step::{RTPROT_NATBOX, TABLE_LOCAL, TABLE_MAIN};
use crate::timer::sleep_until;

/// Delay between the first change of addresses, rules or routes and its report, since changes come
/// in bursts.
const SETTLE_DELAY: Duration = Duration::from_millis(50);
/// Least time between two reports of other programs' routes and of addresses that the configuration
/// does not name. The routes of a router and the addresses of containers may change all the time,
/// and each report costs a snapshot.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A change on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostChange {
    /// A watched interface changed.
    Link(LinkChange),
    /// Addresses or other programs' routes changed.
    Addresses,
    /// Rules changed, routes of natbox or to external addresses, or settings and addresses of the
    /// TUN.
    Settings,
}

/// One change of one watched interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// Interface name.
    pub interface: String,
    /// Kind of change.
    pub event: LinkEvent,
}

/// Kind of change of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The interface was deleted, renamed or moved to another namespace.
    Removed,
    /// The interface is administratively down, or has no peer.
    Down,
    /// The interface is up with carrier, possibly for the first time. The kernel may have dropped
    /// routes in the meantime.
    Up,
    /// New MTU, in bytes.
    Mtu(u32),
    /// Another hardware address.
    HardwareAddress,
}

/// A subscription to changes.
pub(crate) struct LinkWatch {
    /// Change to report, and the time of the report.
    settling: Option<(Instant, HostChange)>,
    /// Earliest time of the next report of other programs' routes and addresses.
    next_look: Instant,
    kernel: Kernel,
    messages: Box<dyn futures_util::Stream<Item = Message> + Send + Unpin>,
    connection: JoinHandle<()>,
    watched: Vec<WatchedLink>,
    /// Name of the TUN.
    tun: String,
    /// Addresses of the configuration. An external one may be assigned to any interface.
    addresses: Vec<Ipv4Addr>,
    /// Changes not yet reported.
    pending: VecDeque<LinkChange>,
}

impl LinkSettings {
    fn of(link: &Link) -> Self {
        let Link { queue_length, group, up, arp, controller, lower, .. } = *link;
        Self { queue_length, group, up, arp, controller, lower }
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The last known state of one interface.
#[derive(Debug)]
struct WatchedLink {
    name: String,
    /// None while the interface does not exist.
    state: Option<LinkState>,
}

#[derive(Clone, Copy, Debug)]
struct LinkState {
    index: u32,
    carrier: bool,
    mtu: u32,
    settings: LinkSettings,
    hardware: Option<[u8; 6]>,
}

/// Settings of an interface whose change natbox reports without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkSettings {
    queue_length: u32,
    group: u32,
    /// Administrative state. It may change without a change of the carrier.
    up: bool,
    arp: bool,
    controller: Option<u32>,
    lower: Option<u32>,
}

impl WatchedLink {
    fn has_index(&self, index: u32) -> bool {
        self.state.is_some_and(|state| state.index == index)
    }
}

/// Meaning of a kernel message.
enum Message {
    New(Link),
    Deleted(u32),
    /// An address was added or removed.
    Address(Address),
    /// A private IPv6 address of the interface with this index was added or removed.
    PrivateIpv6(u32),
    /// A route was added or removed.
    Route(ChangedRoute),
    /// A rule was added or removed.
    Rule,
    /// The kernel lost messages, so everything has to be compared again.
    Overrun,
    Other,
}

/// The part of a route that tells whether natbox must look at it.
struct ChangedRoute {
    table: u32,
    protocol: u8,
    /// None for the default route.
    to: Option<Ipv4Addr>,
    /// Index of the outgoing interface.
    device: Option<u32>,
}

impl LinkWatch {
    /// Subscribes to the interfaces of a configuration. Reports every change from now on.
    ///
    /// # Errors
    /// When the kernel refuses the subscription.
    pub(crate) async fn start(config: &Config) -> Result<Self, HostError> {
        let mut names = vec![config.tun.name.clone()];
        names.extend(config.inside.legs.iter().map(|leg| leg.interface.clone()));
        names.extend(config.uplinks.iter().map(|uplink| uplink.interface.clone()));
        names.sort();
        names.dedup();
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv4Route,
        ];
        // The subscription precedes the list of interfaces, so that no change is lost in between.
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|source| HostError::Netlink {
                doing: "subscribing to changes of interfaces".into(),
                source,
            })?;
        let connection = tokio::spawn(connection);
        let messages = Box::new(messages.map(|(message, _)| interpret(message.payload)));
        let watched = names.into_iter().map(|name| WatchedLink { name, state: None }).collect();
        let external = config.uplinks.iter().flat_map(|uplink| uplink.addresses.iter().copied());
        let inside = config.inside.legs.iter().filter_map(|leg| leg.address);
        let addresses = external.chain(inside).collect();
        let mut watch = Self {
            settling: None,
            next_look: Instant::now(),
            kernel: Kernel::connect()?,
            messages,
            connection,
            watched,
            tun: config.tun.name.clone(),
            addresses,
            pending: VecDeque::new(),
        };
        let links = watch.kernel.links().await?;
        watch.compare_all(&links);
        watch.pending.clear();
        Ok(watch)
    }

    /// Waits for the next change. Never returns once the kernel's end of the subscription is
    /// closed, which happens only when the process ends.
    pub(crate) async fn next(&mut self) -> HostChange {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return HostChange::Link(change);
            }
            let due = self.settling.as_ref().map(|(due, _)| *due);
            let message = tokio::select! {
                message = self.messages.next() => message,
                () = sleep_until(due) => {
                    if let Some((_, change)) = self.settling.take() {
                        self.next_look = Instant::now() + LOOK_INTERVAL;
                        return change;
                    }
                    continue;
                }
            };
            match message {
                Some(message) => self.take(message).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            // Only natbox gives its TUN addresses.
            Message::Address(address) if self.is_tun(address.index) => {
                self.settle(HostChange::Settings, now);
            }
            Message::Address(address) if self.is_relevant(&address) => {
                self.settle(HostChange::Addresses, now);
            }
            // Any interface may get an inside address at which the host has a service.
            Message::Address(_) => {
                self.settle(HostChange::Addresses, now.max(self.next_look));
            }
            Message::PrivateIpv6(index) if self.is_watched(index) => {
                self.settle(HostChange::Addresses, now);
            }
            Message::Route(route) if self.concerns_natbox(&route) => {
                self.settle(HostChange::Settings, now);
            }
            Message::Route(route) if self.is_of_host(&route) => {
                self.settle(HostChange::Addresses, now.max(self.next_look));
            }
            Message::Rule => self.settle(HostChange::Settings, now),
            Message::New(link) => self.compare(&link),
            Message::Deleted(index) => self.remove(index),
            Message::Overrun => {
                tracing::debug!(
                    "the kernel dropped reports of changes; natbox looks at everything"
                );
                self.settle(HostChange::Addresses, now);
                match self.kernel.links().await {
                    Ok(links) => self.compare_all(&links),
                    Err(error) => tracing::warn!(%error, "changes of interfaces may be lost"),
                }
            }
            Message::PrivateIpv6(_) | Message::Route(_) | Message::Other => {}
        }
    }

    /// Reports a change when its burst has ended, from a time on. A change of addresses includes
    /// all settings.
    fn settle(&mut self, change: HostChange, from: Instant) {
        let due = from + SETTLE_DELAY;
        let (earliest, settling) = self.settling.get_or_insert_with(|| (due, change.clone()));
        *earliest = due.min(*earliest);
        if change == HostChange::Addresses {
            *settling = change;
        }
    }

    fn is_tun(&self, index: u32) -> bool {
        self.watched.iter().any(|watched| watched.name == self.tun && watched.has_index(index))
    }

    /// Returns true for another program's route of the main table, or of a table of its own by an
    /// interface that natbox does not use, as a VPN has it. Such routes decide which of the host's
    /// packets go to natbox and which ones the host forwards, and natbox copies them.
    fn is_of_host(&self, route: &ChangedRoute) -> bool {
        match route.table {
            TABLE_MAIN => !route.device.is_some_and(|index| self.is_tun(index)),
            TABLE_LOCAL => false,
            _ => route.to.is_some() && route.device.is_some_and(|index| !self.is_watched(index)),
        }
    }

    /// Returns true for a route of natbox, of its tables, or to an address of the configuration.
    /// The routes of a router change all the time.
    fn concerns_natbox(&self, route: &ChangedRoute) -> bool {
        route.protocol == RTPROT_NATBOX
            || RoutingIds::is_table_of_natbox(route.table)
            || route.to.is_some_and(|to| self.addresses.contains(&to))
    }

    /// Returns true for an address of the configuration or of a watched interface.
    fn is_relevant(&self, address: &Address) -> bool {
        self.addresses.contains(&address.address) || self.is_watched(address.index)
    }

    fn is_watched(&self, index: u32) -> bool {
        self.watched.iter().any(|watched| watched.has_index(index))
    }

    fn compare_all(&mut self, links: &[Link]) {
        let known = self.watched.iter().filter_map(|watched| Some(watched.state?.index));
        let removed: Vec<u32> =
            known.filter(|known| !links.iter().any(|link| link.index == *known)).collect();
        removed.into_iter().for_each(|index| self.remove(index));
        links.iter().for_each(|link| self.compare(link));
    }

    fn remove(&mut self, index: u32) {
        for watched in self.watched.iter_mut().filter(|watched| watched.has_index(index)) {
            watched.state = None;
            self.pending.push_back(LinkChange {
                interface: watched.name.clone(),
                event: LinkEvent::Removed,
            });
        }
    }

    fn compare(&mut self, link: &Link) {
        for watched in &mut self.watched {
            let mut report = |event| {
                self.pending.push_back(LinkChange { interface: watched.name.clone(), event });
            };
            let is_same = watched.has_index(link.index);
            // The TUN is the device that the workers serve, whatever its name is.
            let is_tun = watched.name == self.tun && watched.state.is_some();
            if is_tun && is_same != (watched.name == link.name) {
                // The TUN was renamed, or another interface has its name.
                let due = Instant::now() + SETTLE_DELAY;
                self.settling.get_or_insert((due, HostChange::Settings));
            }
            let is_other = if is_tun { !is_same } else { watched.name != link.name };
            if is_other {
                // The interface was renamed.
                if !is_tun && is_same {
                    report(LinkEvent::Removed);
                    watched.state = None;
                }
                continue;
            }
            let Link { index, carrier, mtu, hardware, .. } = *link;
            let settings = LinkSettings::of(link);
            let state = LinkState { index, carrier, mtu, settings, hardware };
            let before = watched.state.replace(state);
            let is_changed =
                before.is_some_and(|before| (before.mtu, before.settings) != (mtu, settings));
            if is_changed && watched.name == self.tun {
                let due = Instant::now() + SETTLE_DELAY;
                self.settling.get_or_insert((due, HostChange::Settings));
            } else if before.is_some_and(|before| before.settings != settings) {
                let due = Instant::now() + SETTLE_DELAY;
                self.settling = Some((due, HostChange::Addresses));
            }
            if before.is_none_or(|before| before.mtu != mtu) {
                report(LinkEvent::Mtu(mtu));
            }
            if before.is_some_and(|before| before.hardware != hardware) {
                report(LinkEvent::HardwareAddress);
            }
            // Another interface of the same name has lost the routes of the first.
            let is_replaced = before.is_some_and(|before| before.index != index);
            if is_replaced && carrier {
                report(LinkEvent::Up);
            } else if before.is_none_or(|before| before.carrier != carrier) {
                report(if carrier { LinkEvent::Up } else { LinkEvent::Down });
            }
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages are open-ended; natbox ignores the others"
)]
fn interpret(payload: NetlinkPayload<RouteNetlinkMessage>) -> Message {
    match payload {
        // A bridge sends messages of its own family about its ports. One of them says "deleted"
        // when a port leaves the bridge.
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            decode::link(&message).map_or(Message::Other, Message::New)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Message::Deleted(message.header.index)
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        ) => {
            let ipv4 = decode::address(&message).map(Message::Address);
            let ipv6 = || decode::private_ipv6(&message).map(|(index, _)| index);
            ipv4.or_else(|| ipv6().map(Message::PrivateIpv6)).unwrap_or(Message::Other)
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => Message::Route(changed_route(&route)),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_),
        ) => Message::Rule,
        NetlinkPayload::Overrun(_) => Message::Overrun,
        _ => Message::Other,
    }
}

fn changed_route(message: &RouteMessage) -> ChangedRoute {
    let header = &message.header;
    let (table, protocol) = (header.table.into(), header.protocol.into());
    let mut changed = ChangedRoute { table, protocol, to: None, device: None };
    for attribute in &message.attributes {
        if let RouteAttribute::Table(table) = attribute {
            changed.table = *table;
        } else if let RouteAttribute::Destination(RouteAddress::Inet(to)) = attribute {
            changed.to = Some(*to);
        } else if let RouteAttribute::Oif(index) = attribute {
            changed.device = Some(*index);
        }
    }
    changed
}

#[cfg(test)]
mod tests;

//! The part of the kernel's configuration that natbox compares with, as of one moment.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::step::{
    RTPROT_KERNEL, RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, TABLE_LOCAL, TABLE_MAIN,
    TUN_GROUP,
};
use crate::config::{Config, DynamicAddress, Uplink};

/// Interfaces, addresses, routes, rules and proxy neighbour entries of the network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// The networks of private IPv6 addresses, each with the index of its interface.
    pub(crate) private_ipv6: Vec<(u32, Ipv6Net)>,
    pub(crate) routes: Vec<FoundRoute>,
    pub(crate) rules: Vec<FoundRule>,
    pub(crate) proxies: Vec<ProxyEntry>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// Length of the transmit queue, in packets.
    pub(crate) queue_length: u32,
    /// Interface group.
    pub(crate) group: u32,
    /// Administrative state.
    pub(crate) up: bool,
    /// True when the interface is up and its peer is present.
    pub(crate) carrier: bool,
    /// True when the interface uses ARP.
    pub(crate) arp: bool,
    /// Hardware address; None: the interface is no Ethernet.
    pub(crate) hardware: Option<[u8; 6]>,
    /// Index of the bridge or bond of which the interface is a port.
    pub(crate) controller: Option<u32>,
    /// Index of the interface that takes the packets of this one as they are: that of a MACVLAN or
    /// an IPVLAN.
    pub(crate) lower: Option<u32>,
}

impl Link {
    /// Returns true for a port of a bridge or of a bond, which receives no packet of its own.
    pub(crate) fn is_port(&self) -> bool {
        self.controller.is_some()
    }
}

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    /// The connected network; for a point-to-point address, the peer.
    pub(crate) network: Ipv4Net,
    /// True when the address is a usable source towards any destination: neither of link scope nor
    /// secondary.
    pub(crate) primary: bool,
}

/// A route and the program that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRoute {
    pub(crate) route: Route,
    pub(crate) protocol: u8,
    /// True when the route has attributes that [`Route`] cannot hold. Such a route equals none of
    /// natbox's.
    pub(crate) more: bool,
    /// True when such an attribute decides the path of packets: several next hops, one of IPv6, a
    /// tunnel header, a type of service.
    pub(crate) is_opaque: bool,
}

/// A rule and the program that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRule {
    pub(crate) rule: Rule,
    pub(crate) protocol: u8,
    /// True when the rule has attributes that [`Rule`] cannot hold. Such a rule equals none of
    /// natbox's.
    pub(crate) more: bool,
    /// True when a selector that [`Rule`] cannot hold matches few of natbox's packets or none: a
    /// mark, a user, a protocol, a tunnel. natbox's packets have no mark and no type of service,
    /// and the kernel counts forwarded packets to the user 0.
    pub(crate) is_narrow: bool,
    /// True when the rule takes the packets that do not match (`not`).
    pub(crate) is_inverted: bool,
    /// What happens to the packets.
    pub(crate) effect: RuleEffect,
}

/// What the kernel does with the packets that a rule selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleEffect {
    /// Looks up their route in the table of [`Rule::action`].
    Lookup,
    /// Drops them (`blackhole`, `unreachable`, `prohibit`).
    Drop,
    /// Continues with the first rule from this priority on (`goto`).
    Goto(u32),
    /// Continues with the next rule (`nop`, `goto` to a rule that is missing).
    Continue,
}

/// A proxy neighbour entry: the host answers ARP for the address on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyEntry {
    pub(crate) address: Ipv4Addr,
    /// Interface index.
    pub(crate) index: u32,
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    /// The next hop; None when every destination is reached directly (PPP).
    pub(crate) via: Option<Ipv4Addr>,
    /// True when the kernel prefers this default route over all others.
    pub(crate) best: bool,
}

impl Snapshot {
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns the name of an interface.
    pub(crate) fn link_name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }

    pub(crate) fn has_address(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|found| found.address == address)
    }

    /// Iterates over the addresses of an interface.
    pub(crate) fn addresses_of(&self, link: &Link) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(|address| address.index == link.index)
    }

    /// Lists the private IPv6 networks of an interface.
    pub(crate) fn private_ipv6_of(&self, link: &Link) -> Vec<Ipv6Net> {
        let of_link = self.private_ipv6.iter().filter(|(index, _)| *index == link.index);
        let mut networks: Vec<Ipv6Net> = of_link.map(|(_, network)| *network).collect();
        networks.sort();
        networks.dedup();
        networks
    }

    /// Lists the networks that an interface reaches without a next hop.
    pub(crate) fn on_link(&self, link: &Link) -> Vec<Ipv4Net> {
        let routes = self.routes_through(link).filter(|route| route.via.is_none());
        let mut networks: Vec<Ipv4Net> = routes.map(|route| route.to).collect();
        let addresses = self.addresses.iter().filter(|address| address.index == link.index);
        // An address names its network even without a connected route (noprefixroute, link down).
        networks
            .extend(addresses.map(|address| address.network).filter(|net| net.prefix_len() < 32));
        networks.sort();
        networks.dedup();
        networks
    }

    /// Lists the next hops of an interface's routes, except that of the default route.
    pub(crate) fn next_hops(&self, link: &Link) -> Vec<Ipv4Addr> {
        let mut hops: Vec<Ipv4Addr> =
            self.routes_through(link).filter_map(|route| route.via).collect();
        hops.sort();
        hops.dedup();
        hops
    }

    /// Iterates over an interface's routes of the main table, except the default route.
    fn routes_through(&self, link: &Link) -> impl Iterator<Item = &Route> {
        let known = self.routes.iter().filter(|found| !found.is_opaque);
        known.map(|found| &found.route).filter(|route| {
            route.table == TABLE_MAIN
                && route.kind == RouteKind::Unicast
                && route.to.prefix_len() > 0
                && route.device.as_deref() == Some(&link.name)
        })
    }

    /// Iterates over the default routes of the main table.
    fn default_routes(&self) -> impl Iterator<Item = &FoundRoute> {
        self.routes.iter().filter(|found| {
            let route = &found.route;
            (route.table, route.kind, route.to.prefix_len()) == (TABLE_MAIN, RouteKind::Unicast, 0)
        })
    }

    /// Returns the default route of the main table that the kernel prefers.
    pub(super) fn preferred_default(&self) -> Option<&FoundRoute> {
        self.default_routes().min_by_key(|found| found.route.metric)
    }

    /// Returns the main table's default route through an interface, if [`Route`] holds its path.
    pub(crate) fn default_through(&self, link: &Link) -> Option<DefaultRoute> {
        let least = self.preferred_default().map(|found| found.route.metric);
        let known = self.default_routes().filter(|found| !found.is_opaque);
        let routes = known.map(|found| &found.route);
        let through = routes.filter(|route| route.device.as_deref() == Some(&link.name));
        let route = through.min_by_key(|route| route.metric)?;
        Some(DefaultRoute { via: route.via, best: Some(route.metric) == least })
    }

    /// Returns the present address and gateway of each uplink that follows its interface.
    ///
    /// An address of the inside, a link-local one (RFC 3927) and one of another uplink do not
    /// count.
    pub(crate) fn dynamic_addresses(&self, config: &Config) -> Vec<Option<DynamicAddress>> {
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        for uplink in config.uplinks.iter().filter(|uplink| !uplink.follows_interface) {
            taken.extend(&uplink.addresses);
        }
        let mut of = |uplink: &Uplink| {
            let link = self.link(&uplink.interface).filter(|_| uplink.follows_interface)?;
            let address = self.primary(link)?;
            let inside = config.inside.contains(address);
            if inside || address.is_link_local() || taken.contains(&address) {
                return None;
            }
            taken.push(address);
            Some(DynamicAddress {
                address,
                gateway: self.default_through(link).and_then(|route| route.via),
            })
        };
        config.uplinks.iter().map(&mut of).collect()
    }

    /// Returns the source that the kernel gives to packets by an interface without an address: the
    /// first usable one of any interface (`inet_select_addr`).
    pub(crate) fn source_of_unnumbered(&self) -> Option<Ipv4Addr> {
        let mut links: Vec<&Link> = self.links.iter().collect();
        links.sort_by_key(|link| link.index);
        links.into_iter().find_map(|link| self.primary(link))
    }

    /// Returns the first address of an interface that is a usable source.
    pub(crate) fn primary(&self, link: &Link) -> Option<Ipv4Addr> {
        let mut addresses = self.addresses.iter().filter(|address| address.index == link.index);
        addresses.find(|address| address.primary).map(|address| address.address)
    }

    /// Finds a rule, whatever program set it.
    pub(crate) fn rule(&self, wanted: &Rule) -> Option<&FoundRule> {
        self.rules.iter().find(|found| !found.more && found.rule == *wanted)
    }

    /// Finds a route, whatever program set it.
    pub(crate) fn route(&self, wanted: &Route) -> Option<&FoundRoute> {
        self.routes.iter().find(|found| found.is(wanted))
    }

    /// Returns true for a route that differs from `wanted` in its MTU at most.
    pub(crate) fn has_route_of_any_mtu(&self, wanted: &Route) -> bool {
        let same = |found: &Route| {
            Route { onlink: wanted.onlink, mtu: wanted.mtu, ..found.clone() } == *wanted
        };
        self.routes.iter().any(|found| !found.more && same(&found.route))
    }

    /// Finds the route with the same table, destination and metric. The kernel rejects `wanted`
    /// while that route exists.
    pub(crate) fn conflicting_route(&self, wanted: &Route) -> Option<&FoundRoute> {
        self.routes.iter().find(|found| {
            (found.route.table, found.route.to, found.route.metric)
                == (wanted.table, wanted.to, wanted.metric)
        })
    }

    /// Iterates over the rules of all natbox instances.
    pub(crate) fn natbox_rules(&self) -> impl Iterator<Item = &FoundRule> {
        self.rules.iter().filter(|found| found.is_natbox())
    }

    /// Returns true when a rule looks up every packet in the main table.
    pub(crate) fn has_main_rule(&self) -> bool {
        self.rules.iter().any(|found| found.looks_up(TABLE_MAIN))
    }
}

impl FoundRoute {
    /// Returns true for a route that is exactly `wanted`.
    fn is(&self, wanted: &Route) -> bool {
        let Route { table, kind, to, ref device, via, onlink: _, source, metric, mtu } = self.route;
        // `onlink` matters only when the route is added.
        !self.more
            && (table, kind, to, via) == (wanted.table, wanted.kind, wanted.to, wanted.via)
            && (source, metric, mtu) == (wanted.source, wanted.metric, wanted.mtu)
            && *device == wanted.device
    }

    /// Returns true for a route that is exactly one of `wanted`.
    pub(crate) fn is_one_of(&self, wanted: &[Route]) -> bool {
        wanted.iter().any(|wanted| self.is(wanted))
    }

    /// Returns true for a route of a natbox instance.
    pub(crate) fn is_natbox(&self) -> bool {
        self.protocol == RTPROT_NATBOX
    }
}

impl FoundRule {
    /// Returns true when the rule looks up every packet in the local table.
    pub(crate) fn is_local(&self) -> bool {
        self.looks_up(TABLE_LOCAL)
    }

    /// Formats the rule as `ip` does, as far as [`Rule`] holds it.
    pub(crate) fn words(&self) -> String {
        let not = if self.is_inverted { "not " } else { "" };
        format!("priority {} {not}{}", self.rule.priority, self.rule.words())
    }

    fn looks_up(&self, table: u32) -> bool {
        self.table_of_every_packet() == Some(table)
    }

    /// Returns the table in which the rule looks up every packet; None for any other rule.
    pub(crate) fn table_of_every_packet(&self) -> Option<u32> {
        let takes_all = !self.more
            && self.rule.takes_every_packet()
            && self.rule.suppress_group.is_none()
            && self.rule.suppress_prefix_length.is_none();
        match self.rule.action {
            RuleAction::Lookup(table) => takes_all.then_some(table),
            RuleAction::Blackhole => None,
        }
    }

    /// Returns true for a rule of a natbox instance.
    ///
    /// natbox's rules of the local table have the kernel's protocol number (see
    /// [`Rule::protocol`]). The kernel itself has no such rule with selectors.
    pub(crate) fn is_natbox(&self) -> bool {
        let is_kernels = self.protocol == RTPROT_KERNEL && !self.more;
        let leads_to_local = self.rule.action == RuleAction::Lookup(TABLE_LOCAL);
        let has_selector = self.rule.to.is_some() || self.rule.suppress_group == Some(TUN_GROUP);
        self.protocol == RTPROT_NATBOX || is_kernels && leads_to_local && has_selector
    }
}

//! What the kernel has set at one moment: the part of it that natbox compares with.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Config, DynamicAddress, Uplink};

use crate::host::model::facts::DefaultRoute;
use crate::host::model::steps::{
    RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, TABLE_LOCAL, TABLE_MAIN,
};

/// Interfaces, addresses, routes, rules and proxied neighbours of the network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<FoundRoute>,
    pub(crate) rules: Vec<FoundRule>,
    /// Address and interface index.
    pub(crate) proxies: Vec<(Ipv4Addr, u32)>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// Of the transmit queue, in packets.
    pub(crate) queue_length: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// Up, and the other end is there.
    pub(crate) carrier: bool,
    /// Speaks ARP.
    pub(crate) arp: bool,
}

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    /// The connected network; for a point-to-point address, the other end.
    pub(crate) network: Ipv4Net,
    /// Good as a source towards anywhere: not of link scope, not secondary.
    pub(crate) primary: bool,
}

/// A route and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRoute {
    pub(crate) route: Route,
    pub(crate) protocol: u8,
    /// It has parts that [`Route`] has no words for, so it equals none of ours.
    pub(crate) more: bool,
}

/// A rule and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRule {
    pub(crate) rule: Rule,
    pub(crate) protocol: u8,
    /// It has parts that [`Rule`] has no words for, so it equals none of ours.
    pub(crate) more: bool,
}

impl Snapshot {
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Names of all interfaces, for messages.
    pub(crate) fn link_names(&self) -> String {
        self.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn has_address(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|found| found.address == address)
    }

    /// Networks that are reached through an interface without a next hop.
    pub(crate) fn on_link(&self, link: &Link) -> Vec<Ipv4Net> {
        let routes = self.routes_through(link).filter(|route| route.via.is_none());
        let mut networks: Vec<Ipv4Net> = routes.map(|route| route.to).collect();
        let addresses = self.addresses.iter().filter(|address| address.index == link.index);
        // An address without a route of its own (noprefixroute, link still down) says it, too.
        networks
            .extend(addresses.map(|address| address.network).filter(|net| net.prefix_len() < 32));
        networks.sort();
        networks.dedup();
        networks
    }

    /// Next hops of routes through an interface, the default route's not among them.
    pub(crate) fn next_hops(&self, link: &Link) -> Vec<Ipv4Addr> {
        let mut hops: Vec<Ipv4Addr> =
            self.routes_through(link).filter_map(|route| route.via).collect();
        hops.sort();
        hops.dedup();
        hops
    }

    /// Routes of the main table through an interface, the default route not among them.
    fn routes_through(&self, link: &Link) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(|found| &found.route).filter(|route| {
            route.table == TABLE_MAIN
                && route.kind == RouteKind::Unicast
                && route.to.prefix_len() > 0
                && route.device.as_deref() == Some(&link.name)
        })
    }

    /// Whether the main table leads anywhere.
    pub(crate) fn has_default(&self) -> bool {
        self.routes.iter().any(|found| {
            found.route.table == TABLE_MAIN
                && found.route.kind == RouteKind::Unicast
                && found.route.to.prefix_len() == 0
        })
    }

    /// The main table's default route through an interface.
    pub(crate) fn default_through(&self, link: &Link) -> Option<DefaultRoute> {
        let defaults = self.routes.iter().map(|found| &found.route).filter(|route| {
            (route.table, route.kind, route.to.prefix_len()) == (TABLE_MAIN, RouteKind::Unicast, 0)
        });
        let least = defaults.clone().map(|route| route.metric).min();
        let through = defaults.filter(|route| route.device.as_deref() == Some(&link.name));
        let route = through.min_by_key(|route| route.metric)?;
        Some(DefaultRoute { via: route.via, best: Some(route.metric) == least })
    }

    /// Where the interfaces of the uplinks are at the moment, for those that follow them. An address that cannot be a line's
    /// is none: of the private network, link-local (RFC 3927), or already that of another line.
    pub(crate) fn dynamic_addresses(&self, config: &Config) -> Vec<Option<DynamicAddress>> {
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        for uplink in config.uplinks.iter().filter(|uplink| !uplink.follows_interface) {
            taken.extend(&uplink.addresses);
        }
        let mut of = |uplink: &Uplink| {
            let link = self.link(&uplink.interface).filter(|_| uplink.follows_interface)?;
            let address = self.primary(link)?;
            let inside = config.inside.prefixes.iter().any(|prefix| prefix.contains(&address));
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

    /// First address of an interface that is good as a source.
    pub(crate) fn primary(&self, link: &Link) -> Option<Ipv4Addr> {
        let mut addresses = self.addresses.iter().filter(|address| address.index == link.index);
        addresses.find(|address| address.primary).map(|address| address.address)
    }

    /// The rule that is there, whoever set it.
    pub(crate) fn rule(&self, wanted: &Rule) -> Option<&FoundRule> {
        self.rules.iter().find(|found| !found.more && found.rule == *wanted)
    }

    /// The route that is there, whoever set it.
    pub(crate) fn route(&self, wanted: &Route) -> Option<&FoundRoute> {
        // `onlink` is only about how it was added.
        let same = |found: &Route| Route { onlink: wanted.onlink, ..found.clone() } == *wanted;
        self.routes.iter().find(|found| !found.more && same(&found.route))
    }

    /// What the kernel would refuse our route for: same table, destination and metric.
    pub(crate) fn route_in_the_way(&self, wanted: &Route) -> Option<&FoundRoute> {
        self.routes.iter().find(|found| {
            (found.route.table, found.route.to, found.route.metric)
                == (wanted.table, wanted.to, wanted.metric)
        })
    }

    /// Priority of the first rule that asks the table of the host's own addresses for everything.
    pub(crate) fn local_rules(&self) -> impl Iterator<Item = &FoundRule> {
        self.rules.iter().filter(|found| is_local(found))
    }

    /// Rules of this program, whichever process set them.
    pub(crate) fn our_rules(&self) -> impl Iterator<Item = &FoundRule> {
        self.rules.iter().filter(|found| found.protocol == RTPROT_NATBOX)
    }
}

/// Whether a rule sends everything to the local table.
pub(crate) fn is_local(found: &FoundRule) -> bool {
    let Rule { priority: _, iif, from, to, udp, action } = &found.rule;
    !found.more
        && iif.is_none()
        && from.is_none()
        && to.is_none()
        && udp.is_none()
        && *action == RuleAction::Lookup(TABLE_LOCAL)
}

//! Facts about the host that decide which steps natbox needs.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::other_interfaces::OtherInterface;
use super::other_networks::OtherNetwork;
use super::own_traffic::OwnTraffic;
use super::presence::InterfaceState;
use super::settings::KernelSettings;
use super::snapshot::DefaultRoute;
use super::stacked::StackedInterface;
use super::step::Route;
use crate::config::{Config, PortRange};

/// Facts about the host, for one configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostFacts {
    /// The interface of each inside leg, in the order of the configuration.
    pub legs: Vec<InterfaceFacts>,
    /// The interface of each uplink, in the order of the configuration.
    pub uplinks: Vec<InterfaceFacts>,
    /// Interfaces that the configuration does not name, and that answer ARP.
    pub(crate) other_interfaces: Vec<OtherInterface>,
    /// For each uplink and each of its addresses: true when any interface of the host has the
    /// address.
    pub assigned_to_host: Vec<Vec<bool>>,
    /// For each uplink and each of its addresses: true when the address lies in a network of the
    /// uplink's interface and is not assigned to the host.
    pub on_link: Vec<Vec<bool>>,
    /// True when the address of some uplink follows its interface.
    pub(crate) follows_interfaces: bool,
    /// Ports that the host's own connections take from an address that is assigned to the host.
    pub ephemeral_ports: PortRange,
    /// Source of the kernel's ICMP errors about translated packets. No other packet comes out of
    /// the TUN's queues with this source.
    pub tun_address: Ipv4Addr,
    /// For each uplink the address on the TUN from which natbox itself sends over that uplink;
    /// None when natbox sends nothing.
    pub probe_addresses: Vec<Option<Ipv4Addr>>,
    /// The host's own packets from inside addresses.
    pub(crate) own_traffic: OwnTraffic,
    /// Networks behind other interfaces, whose packets the host forwards.
    pub(crate) other_networks: Vec<OtherNetwork>,
    /// True when a rule of the host looks up every packet in the main table.
    pub(crate) has_main_rule: bool,
    /// True when the rule of the local table is the kernel's first rule.
    pub(crate) has_first_local_rule: bool,
    /// Address on the TUN from which the host's own packets leave over any uplink; None with
    /// `host.default_route: leave`.
    pub host_address: Option<Ipv4Addr>,
    /// Conditions that need a person's attention, as messages.
    pub warnings: Vec<String>,
    /// Rules of other programs that take natbox's packets and that natbox's rules cannot precede,
    /// as messages.
    pub preceding_rules: Vec<String>,
    /// Sysctls of the host.
    pub(crate) settings: KernelSettings,
}

/// Facts about one interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InterfaceFacts {
    /// Interface name.
    pub interface: String,
    /// Interface index; 0 when assumed.
    pub index: u32,
    /// Size of the largest IP packet, in bytes.
    pub mtu: u32,
    /// First address that is a usable source.
    pub address: Option<Ipv4Addr>,
    /// All addresses of the interface.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// The networks of these addresses.
    pub(crate) networks: Vec<Ipv4Net>,
    /// Its private IPv6 networks.
    pub(crate) private_ipv6: Vec<Ipv6Net>,
    /// Hardware address of an Ethernet interface.
    pub(crate) hardware: Option<[u8; 6]>,
    /// Interfaces whose packets leave by this one.
    pub(crate) above: Vec<StackedInterface>,
    /// Whether packets can pass the interface.
    pub state: InterfaceState,
    /// Networks that the interface reaches without a next hop.
    pub on_link: Vec<Ipv4Net>,
    /// Next hops of routes to other networks.
    pub next_hops: Vec<Ipv4Addr>,
    /// True when the interface uses ARP, so that proxy entries have an effect.
    pub(crate) arp: bool,
    /// The host's own default route through the interface.
    pub(crate) default: Option<DefaultRoute>,
    /// Routes of the main table that an uplink without a configured gateway copies. None: natbox
    /// cannot copy them, or does not know them.
    pub(crate) static_routes: Option<Vec<Route>>,
    /// True when `plan` runs on another machine, so that these facts are assumptions.
    pub(crate) assumed: bool,
}

impl HostFacts {
    /// Returns the facts without the interfaces of other instances, which set them themselves.
    pub(crate) fn without_interfaces(mut self, names: &[String]) -> Self {
        self.other_interfaces.retain(|other| !names.contains(&other.name));
        self
    }

    /// Iterates over everything that needs a person's attention.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &String> {
        self.preceding_rules.iter().chain(&self.warnings)
    }

    /// Returns the external addresses that are assigned to the host.
    pub(crate) fn addresses_of_host(&self, config: &Config) -> Vec<Ipv4Addr> {
        let uplinks = config.uplinks.iter().zip(&self.assigned_to_host);
        let addresses = uplinks.flat_map(|(uplink, flags)| uplink.addresses.iter().zip(flags));
        addresses.filter(|(_, is_assigned)| **is_assigned).map(|(address, _)| *address).collect()
    }

    /// Returns true when an external address is assigned to the host, or may be at any moment.
    pub(crate) fn any_assigned_to_host(&self) -> bool {
        self.follows_interfaces || self.assigned_to_host.iter().flatten().any(|flag| *flag)
    }

    /// Returns true when the host's own packets from an address of an uplink leave by that uplink.
    ///
    /// With a single uplink the host's main table decides.
    pub(crate) fn host_leaves_by(&self, config: &Config, uplink: usize) -> bool {
        let next_hop = self.next_hop(config, uplink);
        let default = self.uplinks[uplink].default.filter(|route| route.best);
        config.uplinks.len() > 1
            || self.leaves_by_main_table(config, uplink)
            || default.is_some_and(|route| route.via == next_hop)
    }

    /// Returns true when the packets of an uplink leave by the host's main table: it has no
    /// gateway, and natbox cannot copy the host's routes into a table for this uplink alone.
    pub(crate) fn leaves_by_main_table(&self, config: &Config, uplink: usize) -> bool {
        config.uplinks.len() == 1
            && config.uplinks[uplink].gateway.is_none()
            && self.uplinks[uplink].static_routes.is_none()
    }

    /// Returns the next hop of an uplink: its gateway, or the next hop of the host's default route
    /// by its interface.
    pub(crate) fn next_hop(&self, config: &Config, uplink: usize) -> Option<Ipv4Addr> {
        let of_host = || self.uplinks[uplink].default.and_then(|route| route.via);
        config.uplinks[uplink].gateway.or_else(of_host)
    }

    /// Returns true when natbox knows a way for packets to every destination.
    pub(crate) fn has_way_out(&self, config: &Config, uplink: usize) -> bool {
        self.leaves_by_main_table(config, uplink)
            || self.next_hop(config, uplink).is_some()
            || self.uplinks[uplink].is_direct()
    }

    /// Returns true when packets can leave by an uplink: its interface is up, has an address and
    /// has a next hop.
    pub(crate) fn is_ready(&self, config: &Config, uplink: usize) -> bool {
        let (settings, facts) = (&config.uplinks[uplink], &self.uplinks[uplink]);
        let has_way_out = self.has_way_out(config, uplink);
        facts.state == InterfaceState::Up && !settings.addresses.is_empty() && has_way_out
    }
}

impl InterfaceFacts {
    /// Returns true when the interface is up and has a peer.
    pub(crate) fn is_up(&self) -> bool {
        self.state == InterfaceState::Up
    }

    /// Returns true when the kernel accepts routes through the interface.
    pub(crate) fn takes_routes(&self) -> bool {
        matches!(self.state, InterfaceState::NoCarrier | InterfaceState::Up)
    }

    /// Returns true when the interface reaches every destination without a next hop.
    pub(crate) fn is_direct(&self) -> bool {
        let point_to_point = self.takes_routes() && !self.arp;
        point_to_point || self.default.is_some_and(|route| route.via.is_none())
    }

    /// Returns true when the interface reaches an address without a next hop.
    pub(crate) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.assumed || self.on_link.iter().any(|prefix| prefix.contains(&address))
    }
}

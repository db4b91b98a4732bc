//! Facts about the host that decide which steps natbox needs.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::settings::KernelSettings;
use super::snapshot::{DefaultRoute, Snapshot};
use crate::config::{Config, PortRange};
use crate::host::error::HostError;

/// Facts about the host, for one configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostFacts {
    /// The interface of each inside leg, in the order of the configuration.
    pub legs: Vec<InterfaceFacts>,
    /// The interface of each uplink, in the order of the configuration.
    pub uplinks: Vec<InterfaceFacts>,
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
    /// Address on the TUN from which the host's own packets leave over any uplink; None with
    /// `host.default_route: leave`.
    pub host_address: Option<Ipv4Addr>,
    /// Conditions that need a person's attention, as messages.
    pub warnings: Vec<String>,
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
    /// True when `plan` runs on another machine, so that these facts are assumptions.
    pub(crate) assumed: bool,
}

/// Whether packets can pass an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterfaceState {
    /// The interface does not exist.
    Missing,
    /// The interface is administratively down.
    Down,
    /// The interface is up without a peer.
    NoCarrier,
    /// The interface is up with a peer.
    Up,
}

impl HostFacts {
    /// Returns true when an external address is assigned to the host, or may be at any moment.
    pub(crate) fn any_assigned_to_host(&self) -> bool {
        self.follows_interfaces || self.assigned_to_host.iter().flatten().any(|flag| *flag)
    }

    /// Checks that natbox can start: with at least one inside leg, and with at least one uplink.
    ///
    /// The other legs and uplinks may appear later. An uplink that follows its interface may always appear
    /// later.
    ///
    /// # Errors
    /// The interface that is missing or down.
    pub(crate) fn check_interfaces(
        &self,
        config: &Config,
        snapshot: &Snapshot,
    ) -> Result<(), HostError> {
        let legs = self.legs.iter().enumerate().map(|(place, facts)| {
            facts.check_usable(&config.inside.key_path(place, "interface"), snapshot)
        });
        first_unless_any(legs)?;
        let uplinks =
            config.uplinks.iter().zip(&self.uplinks).enumerate().map(|(place, (uplink, facts))| {
                let key = format!("uplinks[{place}].interface");
                match facts.check_usable(&key, snapshot) {
                    Err(_) if uplink.follows_interface => Ok(()),
                    usable => usable,
                }
            });
        first_unless_any(uplinks)
    }

    /// Returns true when the host's own packets from an address of an uplink leave by that uplink.
    ///
    /// With a single uplink the host's main table decides.
    pub(crate) fn host_leaves_by(&self, config: &Config, uplink: usize) -> bool {
        let gateway = config.uplinks[uplink].gateway;
        let default = self.uplinks[uplink].default.filter(|route| route.best);
        config.uplinks.len() > 1
            || gateway.is_none()
            || default.is_some_and(|route| route.via == gateway)
    }

    /// Returns true when packets can leave by an uplink: its interface is up, has an address and
    /// has a next hop.
    pub(crate) fn is_ready(&self, config: &Config, uplink: usize) -> bool {
        let (settings, facts) = (&config.uplinks[uplink], &self.uplinks[uplink]);
        let has_next_hop =
            config.uplinks.len() == 1 || settings.gateway.is_some() || facts.is_direct();
        facts.state == InterfaceState::Up && !settings.addresses.is_empty() && has_next_hop
    }
}

/// Returns the first result, or success if another one is a success.
fn first_unless_any(
    mut results: impl Iterator<Item = Result<(), HostError>>,
) -> Result<(), HostError> {
    let first = results.next().unwrap_or(Ok(()));
    if first.is_err() && results.any(|result| result.is_ok()) { Ok(()) } else { first }
}

impl InterfaceFacts {
    fn check_usable(&self, key: &str, snapshot: &Snapshot) -> Result<(), HostError> {
        let (key, name) = (key.to_owned(), self.interface.clone());
        match self.state {
            InterfaceState::Missing => {
                Err(HostError::MissingInterface { key, name, present: snapshot.link_names() })
            }
            InterfaceState::Down => Err(HostError::InterfaceDown { key, name }),
            InterfaceState::NoCarrier | InterfaceState::Up => Ok(()),
        }
    }

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

//! What was found on the host before anything is changed.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Config, PortRange};
use crate::host::error::HostError;
use crate::host::kernel::listeners;
use crate::host::kernel::sysctl;
use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::snapshot::Snapshot;

/// Where the kernel shows the ports that the host's own connections take.
const EPHEMERAL: &str = "net/ipv4/ip_local_port_range";
/// The kernel's own default for it (net/ipv4/af_inet.c).
const EPHEMERAL_DEFAULT: PortRange = PortRange { first: 32768, last: 60999 };

/// What was found on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFacts {
    /// The private leg.
    pub inside: InterfaceFacts,
    /// The public legs, in the order of the configuration.
    pub uplinks: Vec<InterfaceFacts>,
    /// For each uplink and each of its addresses: it is also an address of the host itself (of whatever interface).
    pub assigned_to_host: Vec<Vec<bool>>,
    /// For each uplink and each of its addresses: it lies in a network of the uplink's interface and is not owned.
    pub on_link: Vec<Vec<bool>>,
    /// The address of some uplink follows its interface.
    pub(crate) follows_interfaces: bool,
    /// Ports that the host's own connections from an owned address take.
    pub ephemeral_ports: PortRange,
    /// Source of the ICMP errors that the kernel writes about translated packets. They come out of the TUN's queues
    /// with it, and nothing else does.
    pub tun_address: Ipv4Addr,
    /// For each uplink the address of the box's own endpoint on it, on the TUN, if it needs one.
    pub probe_addresses: Vec<Option<Ipv4Addr>>,
    /// Things a person should look at, as sentences.
    pub warnings: Vec<String>,
    /// `net.ipv4.conf.all.rp_filter`.
    pub(crate) rp_filter_all: u8,
    /// Forwarding is on, but off for interfaces that are made now.
    pub(crate) forwarding_off_by_default: bool,
}

/// What was found about one leg.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceFacts {
    /// Interface name.
    pub interface: String,
    /// Interface index; 0 when assumed.
    pub index: u32,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// First address that is good as a source.
    pub address: Option<Ipv4Addr>,
    /// Whether packets can pass it.
    pub state: InterfaceState,
    /// Networks reached without a next hop.
    pub on_link: Vec<Ipv4Net>,
    /// Routers through which other networks are reached.
    pub next_hops: Vec<Ipv4Addr>,
    /// Speaks ARP: proxy entries make sense.
    pub(crate) arp: bool,
    /// The host's own default route through it, if there is one.
    pub(crate) default: Option<DefaultRoute>,
    /// Forwarding is on in general, but off for this interface.
    pub(crate) forwarding_off: bool,
    /// Nobody probed: `plan` without the interface at hand.
    pub(crate) assumed: bool,
}

/// Whether packets can pass a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// There is no such interface.
    Missing,
    /// Administratively down.
    Down,
    /// Up, and nobody is at the other end.
    NoCarrier,
    /// Up, with somebody at the other end.
    Up,
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    /// The next hop; None: everybody is reached directly (PPP).
    pub(crate) via: Option<Ipv4Addr>,
    /// It is the one that the kernel prefers.
    pub(crate) best: bool,
}

impl HostFacts {
    /// Looks at everything that the configuration names. `numbers`: asked whether an external address is, or may become, the
    /// host's own.
    ///
    /// # Errors
    /// When no numbers are free, or a setting cannot be read.
    pub(crate) fn collect(
        config: &Config,
        snapshot: &Snapshot,
        ids: impl Fn(bool) -> Result<RoutingIds, HostError>,
    ) -> Result<(Self, RoutingIds), HostError> {
        let inside = InterfaceFacts::collect(&config.inside.interface, snapshot)?;
        let uplinks = config
            .uplinks
            .iter()
            .map(|uplink| InterfaceFacts::collect(&uplink.interface, snapshot));
        let uplinks = uplinks.collect::<Result<Vec<InterfaceFacts>, HostError>>()?;
        let flags = |test: &dyn Fn(&InterfaceFacts, Ipv4Addr) -> bool| {
            let pairs = config.uplinks.iter().zip(&uplinks);
            pairs
                .map(|(uplink, leg)| {
                    uplink.addresses.iter().map(|address| test(leg, *address)).collect()
                })
                .collect::<Vec<Vec<bool>>>()
        };
        let assigned_to_host = flags(&|_, address| snapshot.has_address(address));
        let on_link = flags(&|leg, address| !snapshot.has_address(address) && leg.reaches(address));
        let follows_interfaces = config.uplinks.iter().any(|uplink| uplink.follows_interface);
        let any_assigned_to_host = follows_interfaces
            || assigned_to_host.iter().flatten().any(|assigned_to_host| *assigned_to_host);
        // An address may come to the host while the box runs; without free numbers for that it can only be told.
        let ids = match ids(true) {
            Err(_) if !any_assigned_to_host => ids(false)?,
            ids => ids?,
        };
        let mut facts = Self {
            inside,
            uplinks,
            assigned_to_host,
            on_link,
            follows_interfaces,
            ephemeral_ports: ephemeral_ports()?,
            tun_address: ids.tun_address,
            probe_addresses: probe_addresses(config, &ids),
            warnings: Vec::new(),
            rp_filter_all: number("net/ipv4/conf/all/rp_filter")?,
            forwarding_off_by_default: forwarding_off("default")?,
        };
        facts.warnings = facts.look_for_trouble(config, snapshot);
        Ok((facts, ids))
    }

    /// Plain facts for `plan`, where the interfaces are not at hand: nothing is the host's own, external addresses
    /// are on the segment (an entry too many does no harm there), every interface speaks ARP, filters are strict.
    pub(crate) fn assumed(config: &Config) -> (Self, RoutingIds) {
        let ids = RoutingIds::default_ids(&config.tun.name, true);
        let uplinks =
            config.uplinks.iter().map(|uplink| InterfaceFacts::assumed(&uplink.interface));
        let flags =
            |flag| config.uplinks.iter().map(|uplink| vec![flag; uplink.addresses.len()]).collect();
        let facts = Self {
            inside: InterfaceFacts::assumed(&config.inside.interface),
            uplinks: uplinks.collect(),
            assigned_to_host: flags(false),
            on_link: flags(true),
            follows_interfaces: false,
            ephemeral_ports: EPHEMERAL_DEFAULT,
            tun_address: ids.tun_address,
            probe_addresses: probe_addresses(config, &ids),
            warnings: Vec::new(),
            rp_filter_all: 1,
            forwarding_off_by_default: false,
        };
        (facts, ids)
    }

    /// The ports at which the host's own programs wait now; empty if no address is owned.
    ///
    /// # Errors
    /// The kernel's tables of sockets cannot be read.
    pub fn listening_ports(&self) -> Result<Vec<u16>, HostError> {
        if self.any_assigned_to_host() { listeners::ports() } else { Ok(Vec::new()) }
    }

    /// Whether some external address is also the host's own, or may be so any moment.
    pub fn any_assigned_to_host(&self) -> bool {
        self.follows_interfaces
            || self.assigned_to_host.iter().flatten().any(|assigned_to_host| *assigned_to_host)
    }

    /// Whether a box can begin like this: with its inside, and with a line. The others may come later, and so may an interface
    /// that is followed.
    ///
    /// # Errors
    /// The interface that is missing or down.
    pub(crate) fn check_interfaces(
        &self,
        config: &Config,
        snapshot: &Snapshot,
    ) -> Result<(), HostError> {
        self.inside.usable("inside.interface", snapshot)?;
        let mut lines =
            config.uplinks.iter().zip(&self.uplinks).enumerate().map(|(place, (uplink, leg))| {
                match leg.usable(&format!("uplinks[{place}].interface"), snapshot) {
                    Err(_) if uplink.follows_interface => Ok(()),
                    usable => usable,
                }
            });
        let first = lines.next().unwrap_or(Ok(()));
        if first.is_err() && lines.any(|line| line.is_ok()) { Ok(()) } else { first }
    }

    /// Whether what the host itself sends from an address of its own on a line leaves by that line. The host of a box with one
    /// line goes by its main table.
    pub fn host_leaves_by(&self, config: &Config, line: usize) -> bool {
        let gateway = config.uplinks[line].gateway;
        let default = self.uplinks[line].default.filter(|route| route.best);
        config.uplinks.len() > 1
            || gateway.is_none()
            || default.is_some_and(|route| route.via == gateway)
    }

    /// Whether packets can leave by a line: it has an address, and somebody to give them to.
    pub fn is_ready(&self, config: &Config, line: usize) -> bool {
        let (uplink, leg) = (&config.uplinks[line], &self.uplinks[line]);
        let leads_on = config.uplinks.len() == 1 || uplink.gateway.is_some() || leg.is_direct();
        leg.state == InterfaceState::Up && !uplink.addresses.is_empty() && leads_on
    }

    fn look_for_trouble(&self, config: &Config, snapshot: &Snapshot) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(address) =
            config.inside.address.filter(|address| !snapshot.has_address(*address))
        {
            warnings.push(format!(
                "inside.address: {address} is not an address of this host ({} has {}), so nobody answers for the servers' next \
                 hop; correct the key, or: ip address add {address}/{} dev {}",
                self.inside.interface,
                self.inside.address.map_or("none".into(), |address| address.to_string()),
                config.inside.prefix_of(address).map_or(32, |prefix| prefix.prefix_len()),
                self.inside.interface
            ));
        } else if self.inside.address.is_none() {
            warnings.push(format!(
                "inside.interface: {} has no IPv4 address, so no server can use this box as its next hop; give it \
                 one of {:?}",
                self.inside.interface, config.inside.prefixes
            ));
        }
        for (place, (uplink, leg)) in config.uplinks.iter().zip(&self.uplinks).enumerate() {
            let waits = "the line has failed until it is";
            let what = match leg.state {
                InterfaceState::Missing => {
                    format!("there is no interface {}; {waits} there", leg.interface)
                }
                InterfaceState::Down => {
                    format!("{} is down; {waits} up (ip link set {0} up)", leg.interface)
                }
                InterfaceState::NoCarrier => {
                    format!("{} has no carrier at the moment", leg.interface)
                }
                InterfaceState::Up => String::new(),
            };
            if !what.is_empty() {
                warnings.push(format!("uplinks[{place}].interface: {what}"));
            }
            if matches!(leg.state, InterfaceState::Missing | InterfaceState::Down) {
                continue;
            }
            if let (true, [], Some(found)) =
                (uplink.follows_interface, &uplink.addresses[..], leg.address)
            {
                warnings.push(format!(
                    "uplinks[{place}].interface: {} has {found}, which cannot be an external address: it is link-local, of an \
                     inside prefix, or another line's",
                    leg.interface
                ));
            }
            match uplink.gateway {
                Some(gateway) if !leg.reaches(gateway) => warnings.push(format!(
                    "uplinks[{place}].gateway: {gateway} is on no network of {} (it has {:?}); it is taken as \
                     reachable there all the same. If nothing goes out, correct the key or the interface's address",
                    leg.interface, leg.on_link
                )),
                None if config.uplinks.len() > 1 && !leg.is_direct() => warnings.push(format!(
                    "uplinks[{place}]: no gateway is configured and the host has no default route by {}, so nothing can go out \
                     there",
                    leg.interface
                )),
                None if !snapshot.has_default() => warnings.push(format!(
                    "uplinks[{place}]: no gateway is configured and the host has no default route, so nothing can \
                     go out by {}; set uplinks[{place}].gateway",
                    leg.interface
                )),
                Some(_) | None => {}
            }
        }
        warnings
    }
}

impl InterfaceFacts {
    fn collect(name: &str, snapshot: &Snapshot) -> Result<Self, HostError> {
        let Some(link) = snapshot.link(name) else {
            return Ok(Self {
                state: InterfaceState::Missing,
                arp: false,
                assumed: false,
                ..Self::assumed(name)
            });
        };
        Ok(Self {
            interface: name.into(),
            index: link.index,
            mtu: link.mtu,
            address: snapshot.primary(link),
            state: match (link.up, link.carrier) {
                (false, _) => InterfaceState::Down,
                (true, false) => InterfaceState::NoCarrier,
                (true, true) => InterfaceState::Up,
            },
            on_link: snapshot.on_link(link),
            next_hops: snapshot.next_hops(link),
            arp: link.arp,
            default: snapshot.default_through(link),
            forwarding_off: forwarding_off(name)?,
            assumed: false,
        })
    }

    fn usable(&self, key: &str, snapshot: &Snapshot) -> Result<(), HostError> {
        let (key, name) = (key.to_owned(), self.interface.clone());
        match self.state {
            InterfaceState::Missing => {
                Err(HostError::MissingInterface { key, name, present: snapshot.link_names() })
            }
            InterfaceState::Down => Err(HostError::InterfaceDown { key, name }),
            InterfaceState::NoCarrier | InterfaceState::Up => Ok(()),
        }
    }

    /// Whether the kernel takes routes through it.
    pub(crate) fn takes_routes(&self) -> bool {
        matches!(self.state, InterfaceState::NoCarrier | InterfaceState::Up)
    }

    /// Whether everybody is reached through it without a next hop.
    pub(crate) fn is_direct(&self) -> bool {
        let point_to_point = self.takes_routes() && !self.arp;
        point_to_point || self.default.is_some_and(|route| route.via.is_none())
    }

    fn assumed(name: &str) -> Self {
        Self {
            interface: name.into(),
            index: 0,
            mtu: 1500,
            address: None,
            state: InterfaceState::Up,
            on_link: Vec::new(),
            next_hops: Vec::new(),
            arp: true,
            default: None,
            forwarding_off: false,
            assumed: true,
        }
    }

    /// Whether an address is reached without a next hop.
    pub(crate) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.assumed || self.on_link.iter().any(|prefix| prefix.contains(&address))
    }
}

fn probe_addresses(config: &Config, ids: &RoutingIds) -> Vec<Option<Ipv4Addr>> {
    let uplinks = config.uplinks.iter().enumerate();
    let serves = config.dns.as_ref().is_some_and(|dns| dns.listen || dns.update.is_some());
    uplinks
        .map(|(place, uplink)| {
            (serves || uplink.has_own_endpoint()).then(|| ids.probe_address(place))
        })
        .collect()
}

/// Forwarding is on in general, but off here.
fn forwarding_off(interface: &str) -> Result<bool, HostError> {
    let on = sysctl::read("net/ipv4/ip_forward")?.as_deref() == Some("1");
    let here = sysctl::read(&format!("net/ipv4/conf/{interface}/forwarding"))?;
    Ok(on && here.as_deref() == Some("0"))
}

fn number(path: &str) -> Result<u8, HostError> {
    Ok(sysctl::read(path)?.and_then(|value| value.parse().ok()).unwrap_or(0))
}

fn ephemeral_ports() -> Result<PortRange, HostError> {
    let text = sysctl::read(EPHEMERAL)?.unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    Ok(match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => PortRange { first, last },
        (_, _) => EPHEMERAL_DEFAULT,
    })
}

//! What was found on the host before anything is changed.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::HostError;
use super::listeners;
use super::numbers::Numbers;
use super::snapshot::Snapshot;
use super::sysctl;
use crate::control::config::{Config, PortRange};

/// Where the kernel shows the ports that the host's own connections take.
const EPHEMERAL: &str = "net/ipv4/ip_local_port_range";
/// The kernel's own default for it (net/ipv4/af_inet.c).
const EPHEMERAL_DEFAULT: PortRange = PortRange { first: 32768, last: 60999 };

/// What was found on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The private leg.
    pub inside: LegFacts,
    /// The public legs, in the order of the configuration.
    pub uplinks: Vec<LegFacts>,
    /// For each uplink and each of its addresses: it is also an address of the host itself (of whatever interface).
    pub owned: Vec<Vec<bool>>,
    /// For each uplink and each of its addresses: it lies in a network of the uplink's interface and is not owned.
    pub on_link: Vec<Vec<bool>>,
    /// The address of some uplink follows its interface.
    pub(super) follows_interfaces: bool,
    /// Ports that the host's own connections from an owned address take.
    pub ephemeral_ports: PortRange,
    /// Source of the ICMP errors that the kernel writes about translated packets. They come out of the TUN's queues
    /// with it, and nothing else does.
    pub tun_address: Ipv4Addr,
    /// For each uplink the address of the box's own endpoint on it, on the TUN, if it needs one.
    pub own_endpoints: Vec<Option<Ipv4Addr>>,
    /// Things a person should look at, as sentences.
    pub warnings: Vec<String>,
    /// `net.ipv4.conf.all.rp_filter`.
    pub(super) rp_filter_all: u8,
    /// Forwarding is on, but off for interfaces that are made now.
    pub(super) forwarding_off_by_default: bool,
}

/// What was found about one leg.
#[derive(Clone, Debug, PartialEq)]
pub struct LegFacts {
    /// Interface name.
    pub interface: String,
    /// Interface index; 0 when assumed.
    pub index: u32,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// First address that is good as a source.
    pub address: Option<Ipv4Addr>,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Networks reached without a next hop.
    pub on_link: Vec<Ipv4Net>,
    /// Routers through which other networks are reached.
    pub next_hops: Vec<Ipv4Addr>,
    /// Speaks ARP: proxy entries make sense.
    pub(super) arp: bool,
    /// Forwarding is on in general, but off for this interface.
    pub(super) forwarding_off: bool,
    /// Nobody looked: `plan` without the interface at hand.
    pub(super) assumed: bool,
}

impl Facts {
    /// Looks at everything that the configuration names.
    ///
    /// # Errors
    /// When an interface is missing or down, or no numbers are free.
    pub(super) fn collect(
        config: &Config,
        snapshot: &Snapshot,
        numbers: impl FnOnce(bool) -> Result<Numbers, HostError>,
    ) -> Result<(Self, Numbers), HostError> {
        let inside = LegFacts::collect("inside.interface", &config.inside.interface, snapshot)?;
        let mut uplinks = Vec::new();
        for (place, uplink) in config.uplinks.iter().enumerate() {
            let key = format!("uplinks[{place}].interface");
            uplinks.push(LegFacts::collect(&key, &uplink.interface, snapshot)?);
        }
        let flags = |test: &dyn Fn(&LegFacts, Ipv4Addr) -> bool| {
            let pairs = config.uplinks.iter().zip(&uplinks);
            pairs
                .map(|(uplink, leg)| uplink.addresses.iter().map(|address| test(leg, *address)).collect())
                .collect::<Vec<Vec<bool>>>()
        };
        let owned = flags(&|_, address| snapshot.owns(address));
        let on_link = flags(&|leg, address| !snapshot.owns(address) && leg.reaches(address));
        let follows_interfaces = config.uplinks.iter().any(|uplink| uplink.follows_interface);
        let any_owned = follows_interfaces || owned.iter().flatten().any(|owned| *owned);
        let numbers = numbers(any_owned)?;
        let mut facts = Self {
            inside,
            uplinks,
            owned,
            on_link,
            follows_interfaces,
            ephemeral_ports: ephemeral_ports()?,
            tun_address: numbers.tun_address,
            own_endpoints: own_endpoints(config, &numbers),
            warnings: Vec::new(),
            rp_filter_all: number("net/ipv4/conf/all/rp_filter")?,
            forwarding_off_by_default: forwarding_off("default")?,
        };
        facts.warnings = facts.look_for_trouble(config, snapshot);
        Ok((facts, numbers))
    }

    /// Plain facts for `plan`, where the interfaces are not at hand: nothing is the host's own, external addresses
    /// are on the segment (an entry too many does no harm there), every interface speaks ARP, filters are strict.
    pub(super) fn assumed(config: &Config) -> (Self, Numbers) {
        let numbers = Numbers::preferred(&config.tun.name, false);
        let uplinks = config.uplinks.iter().map(|uplink| LegFacts::assumed(&uplink.interface));
        let flags = |flag| config.uplinks.iter().map(|uplink| vec![flag; uplink.addresses.len()]).collect();
        let facts = Self {
            inside: LegFacts::assumed(&config.inside.interface),
            uplinks: uplinks.collect(),
            owned: flags(false),
            on_link: flags(true),
            follows_interfaces: false,
            ephemeral_ports: EPHEMERAL_DEFAULT,
            tun_address: numbers.tun_address,
            own_endpoints: own_endpoints(config, &numbers),
            warnings: Vec::new(),
            rp_filter_all: 1,
            forwarding_off_by_default: false,
        };
        (facts, numbers)
    }

    /// The ports at which the host's own programs wait now; empty if no address is owned.
    ///
    /// # Errors
    /// The kernel's tables of sockets cannot be read.
    pub fn listening_ports(&self) -> Result<Vec<u16>, HostError> {
        if self.any_owned() { listeners::ports() } else { Ok(Vec::new()) }
    }

    /// Whether some external address is also the host's own, or may be so any moment.
    pub fn any_owned(&self) -> bool {
        self.follows_interfaces || self.owned.iter().flatten().any(|owned| *owned)
    }

    fn look_for_trouble(&self, config: &Config, snapshot: &Snapshot) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(address) = config.inside.address.filter(|address| !snapshot.owns(*address)) {
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
            match uplink.gateway {
                Some(gateway) if !leg.reaches(gateway) => warnings.push(format!(
                    "uplinks[{place}].gateway: {gateway} is on no network of {} (it has {:?}); it is taken as \
                     reachable there all the same. If nothing goes out, correct the key or the interface's address",
                    leg.interface, leg.on_link
                )),
                None if !snapshot.has_default() => warnings.push(format!(
                    "uplinks[{place}]: no gateway is configured and the host has no default route, so nothing can \
                     go out by {}; set uplinks[{place}].gateway",
                    leg.interface
                )),
                Some(_) | None => {}
            }
            if !leg.up {
                warnings.push(format!(
                    "uplinks[{place}].interface: {} has no carrier at the moment",
                    leg.interface
                ));
            }
        }
        warnings
    }
}

impl LegFacts {
    fn collect(key: &str, name: &str, snapshot: &Snapshot) -> Result<Self, HostError> {
        let link = snapshot.link(name).ok_or_else(|| HostError::MissingInterface {
            key: key.into(),
            name: name.into(),
            present: snapshot.link_names(),
        })?;
        if !link.up {
            return Err(HostError::InterfaceDown { key: key.into(), name: name.into() });
        }
        Ok(Self {
            interface: name.into(),
            index: link.index,
            mtu: link.mtu,
            address: snapshot.primary(link),
            up: link.carrier,
            on_link: snapshot.on_link(link),
            next_hops: snapshot.next_hops(link),
            arp: link.arp,
            forwarding_off: forwarding_off(name)?,
            assumed: false,
        })
    }

    fn assumed(name: &str) -> Self {
        Self {
            interface: name.into(),
            index: 0,
            mtu: 1500,
            address: None,
            up: true,
            on_link: Vec::new(),
            next_hops: Vec::new(),
            arp: true,
            forwarding_off: false,
            assumed: true,
        }
    }

    /// Whether an address is reached without a next hop.
    pub(super) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.assumed || self.on_link.iter().any(|prefix| prefix.contains(&address))
    }
}

fn own_endpoints(config: &Config, numbers: &Numbers) -> Vec<Option<Ipv4Addr>> {
    let uplinks = config.uplinks.iter().enumerate();
    let serves = config.dns.as_ref().is_some_and(|dns| dns.listen || dns.update.is_some());
    uplinks
        .map(|(place, uplink)| (serves || uplink.has_own_endpoint()).then(|| numbers.own_endpoint(place)))
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

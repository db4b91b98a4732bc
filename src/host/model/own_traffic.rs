//! Facts about the host's own packets that have an inside address as their source.
//!
//! Such packets take the path of an inside host's packets: into the TUN, and out with an external
//! address. They are replies of a service of the host that a forward publishes, or the host's own
//! connections from an inside address. Left to the main table, they would leave by an uplink
//! untranslated.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::other_networks::tables_of_every_packet;
use super::snapshot::{Address, FoundRoute, Snapshot};
use super::static_routes::best_routes;
use super::step::{RTPROT_NATBOX, RouteKind, SourcePorts, TABLE_MAIN};
use crate::config::{Config, Forward, ForwardProtocol, PortRange};

/// The loopback interface, which may have addresses of services.
const LOOPBACK: &str = "lo";

/// Multicast groups (RFC 5771).
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);

/// The host's own inside addresses, and the path of packets from them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnTraffic {
    /// The host's addresses within inside prefixes. A forward to one of them publishes a service of
    /// the host.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Sources of packets that natbox translates.
    pub(crate) sources: Vec<Ipv4Net>,
    /// Destinations with a path of their own. natbox translates packets to the rest of the outside.
    pub(crate) exceptions: Vec<(Ipv4Net, OwnWay)>,
    /// Uplinks' interfaces without an address, if the host's packets by them would have an inside
    /// address as their source.
    pub(crate) unnumbered: Option<Unnumbered>,
}

/// Interfaces of uplinks that have no address (RFC 1812 section 2.2.7).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unnumbered {
    /// The inside address that the kernel gives to packets by these interfaces.
    pub(crate) source: Ipv4Addr,
    /// Names of the interfaces.
    pub(crate) interfaces: Vec<String>,
    /// Networks that the host reaches by these interfaces.
    pub(crate) networks: Vec<Ipv4Net>,
}

/// The path of a packet of the host from an inside address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnWay {
    /// The host's other tables decide: the destination is behind an interface that is no uplink's,
    /// such as a VPN.
    Host,
    /// Into the TUN: the destination is behind an uplink, within a larger network of the host.
    Natbox,
}

impl OwnTraffic {
    /// Largest number of networks of the host that natbox leaves to the host.
    pub(crate) const MAX_EXCEPTIONS: usize = 1024;

    /// Derives the facts from what the kernel reports.
    pub(super) fn collect(config: &Config, snapshot: &Snapshot) -> Self {
        let inside = |found: &&Address| config.inside.prefix_of(found.address).is_some();
        let own: Vec<&Address> = snapshot.addresses.iter().filter(inside).collect();
        let mut addresses: Vec<Ipv4Addr> = own.iter().map(|found| found.address).collect();
        addresses.sort();
        addresses.dedup();
        Self {
            sources: sources(config, snapshot, &own),
            exceptions: exceptions(config, snapshot),
            unnumbered: Unnumbered::find(config, snapshot),
            addresses,
        }
    }

    /// Returns the facts that `plan` assumes for a box on another machine: the host has no networks
    /// besides those of the configuration.
    pub(super) fn assumed(config: &Config) -> Self {
        Self {
            addresses: config.inside.legs.iter().filter_map(|leg| leg.address).collect(),
            sources: config.inside.prefixes().collect(),
            exceptions: Vec::new(),
            unnumbered: None,
        }
    }

    /// Lists the networks to which natbox translates nothing, whatever routes the host has: the
    /// inside, and multicast groups.
    pub(crate) fn left_to_host(config: &Config) -> impl Iterator<Item = Ipv4Net> {
        config.inside.prefixes().chain([MULTICAST])
    }

    /// Returns true when a forward publishes a service of the host itself.
    pub(crate) fn has_target(&self, forward: &Forward) -> bool {
        self.addresses.contains(&forward.to_address)
    }

    /// Lists the UDP ports of the host's published services, each with its address.
    ///
    /// `ephemeral`: the ports that the host's own clients take. A range of ports that contains them
    /// all excludes them.
    pub(crate) fn udp_services(
        &self,
        config: &Config,
        ephemeral: PortRange,
    ) -> Vec<(Ipv4Addr, SourcePorts)> {
        let mut services: Vec<(Ipv4Addr, SourcePorts)> = Vec::new();
        for forward in config.forwards.iter().filter(|forward| self.has_target(forward)) {
            for ports in udp_ports(forward, ephemeral) {
                let service = (forward.to_address, ports);
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
        services
    }
}

/// Returns the UDP ports at which the server of a forward receives.
fn udp_ports(forward: &Forward, ephemeral: PortRange) -> Vec<SourcePorts> {
    let (first, last) = match forward.protocol {
        ForwardProtocol::Tcp | ForwardProtocol::Icmp => return Vec::new(),
        ForwardProtocol::Udp | ForwardProtocol::TcpUdp => {
            (forward.to_port, forward.to_port + (forward.ports.last - forward.ports.first))
        }
        ForwardProtocol::Any => (1, u16::MAX),
    };
    // The kernel's rules take ports from 1 to 65534 (fib_rule_port_range_valid).
    let (first, last) = (first.max(1), last.min(u16::MAX - 1));
    let parts = match first <= ephemeral.first && ephemeral.last <= last {
        true => vec![(first, ephemeral.first.saturating_sub(1)), (ephemeral.last + 1, last)],
        false => vec![(first, last)],
    };
    let ranges = parts.into_iter().filter(|(first, last)| first <= last);
    ranges.map(|(first, last)| SourcePorts { first, last }).collect()
}

/// Lists the sources of packets that natbox translates: the inside prefixes.
///
/// An interface that is neither an inside nor an outside one may have an address of an inside
/// prefix as well, such as a VPN. natbox then does not take the host's packets from that address,
/// and lists the other addresses of the prefix in place of the prefix.
fn sources(config: &Config, snapshot: &Snapshot, own: &[&Address]) -> Vec<Ipv4Net> {
    let is_ours = |found: &Address| {
        let name = snapshot.link_name(found.index);
        let is_uplink = |name| config.uplinks.iter().any(|uplink| uplink.interface == name);
        let is_inside = |name| config.inside.legs.iter().any(|leg| leg.interface == name);
        name.is_none_or(|name| name == LOOPBACK || is_inside(name) || is_uplink(name))
    };
    let is_target =
        |found: &Address| config.forwards.iter().any(|forward| forward.to_address == found.address);
    let mut sources = Vec::new();
    for prefix in config.inside.prefixes() {
        let mut within = own.iter().filter(|found| prefix.contains(&found.address));
        if within.clone().all(|found| is_ours(found)) {
            sources.push(prefix);
            continue;
        }
        let ours = within.by_ref().filter(|found| is_ours(found) || is_target(found));
        sources.extend(ours.map(|found| Ipv4Net::from(found.address)));
    }
    sources
}

impl Unnumbered {
    fn find(config: &Config, snapshot: &Snapshot) -> Option<Self> {
        let source = snapshot.source_of_unnumbered()?;
        config.inside.prefix_of(source)?;
        let mut interfaces: Vec<String> = Vec::new();
        for uplink in &config.uplinks {
            let is_unnumbered = |link| snapshot.primary(link).is_none();
            let link = snapshot.link(&uplink.interface);
            if link.is_some_and(is_unnumbered) && !interfaces.contains(&uplink.interface) {
                interfaces.push(uplink.interface.clone());
            }
        }
        let is_unnumbered = |found: &FoundRoute| {
            found.route.source.is_none()
                && found.route.device.as_ref().is_some_and(|device| interfaces.contains(device))
        };
        let routes = best_routes(snapshot, |found| found.route.table == TABLE_MAIN);
        let networks: Vec<Ipv4Net> = routes
            .into_iter()
            .filter(|(_, found)| is_unnumbered(found))
            .map(|(to, _)| to)
            .collect();
        (!interfaces.is_empty()).then_some(Self { source, interfaces, networks })
    }
}

/// Lists the networks to which the host has routes of their own.
fn exceptions(config: &Config, snapshot: &Snapshot) -> Vec<(Ipv4Net, OwnWay)> {
    let tables = tables_of_every_packet(snapshot);
    let best = best_routes(snapshot, |found| {
        tables.contains(&found.route.table) && is_of_host(config, found)
    });
    let way = |found: &FoundRoute| match (&found.route.device, found.route.kind) {
        (Some(device), _) => {
            match config.uplinks.iter().any(|uplink| uplink.interface == *device) {
                true => OwnWay::Natbox,
                false => OwnWay::Host,
            }
        }
        // A route with several next hops. Some of them may be uplinks.
        (None, RouteKind::Unicast) => OwnWay::Natbox,
        (None, _) => OwnWay::Host,
    };
    // Larger networks come first, so that an exception to an exception finds the larger one.
    let mut ordered: Vec<(Ipv4Net, OwnWay)> =
        best.into_iter().map(|(to, found)| (to, way(found))).collect();
    ordered.sort_by_key(|(to, _)| to.prefix_len());
    let mut exceptions: BTreeMap<Ipv4Net, OwnWay> = BTreeMap::new();
    let is_left_to_host =
        |network: &Ipv4Net| OwnTraffic::left_to_host(config).any(|one| one == *network);
    for (to, way) in ordered.into_iter().filter(|(to, _)| !is_left_to_host(to)) {
        let mut around = std::iter::successors(to.supernet(), Ipv4Net::supernet);
        let present = around.find_map(|network| match exceptions.get(&network) {
            Some(way) => Some(*way),
            None => is_left_to_host(&network).then_some(OwnWay::Host),
        });
        if present.unwrap_or(OwnWay::Natbox) != way && exceptions.len() < OwnTraffic::MAX_EXCEPTIONS
        {
            exceptions.insert(to, way);
        }
    }
    exceptions.into_iter().collect()
}

/// Returns true for a route to a network, that another program set. A half of all addresses is no
/// network: VPN clients precede a default route so.
fn is_of_host(config: &Config, found: &FoundRoute) -> bool {
    let route = &found.route;
    route.to.prefix_len() > 1
        && found.protocol != RTPROT_NATBOX
        && route.kind != RouteKind::Broadcast
        && route.device.as_ref() != Some(&config.tun.name)
}

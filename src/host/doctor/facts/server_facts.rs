//! Collects the facts about this machine as a server behind boxes.

use std::net::Ipv4Addr;

use super::firewall;
use super::first_hop::{self, HopProbe, ProbeRequest};
use super::link_settings::LinkSettings;
use super::neighbours::{NeighbourKey, TIMEOUT, settled_neighbours};
use super::samples::sample_outside_address;
use crate::config::{Config, Forward};
use crate::host::doctor::nft::filters::Filters;
use crate::host::error::HostError;
use crate::host::kernel::listeners::{self, Listener};
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::route_lookup::{
    NeighbourState, RouteQuery, RouteResult, trigger_resolution,
};
use crate::host::model::snapshot::Snapshot;
use crate::host::render::server_targets::{self, TargetAddress};

/// Outside address to use when every sample is in a local network.
const FALLBACK_OUTSIDE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// Facts about this machine as a server.
pub(crate) struct ServerFacts {
    pub(crate) configs: Vec<Config>,
    /// An address that stands for the Internet.
    pub(crate) outside: Ipv4Addr,
    /// Addresses of the server that this machine is; empty when this machine is none of the
    /// servers.
    pub(crate) addresses: Vec<AddressFacts>,
    /// Addresses of all servers, for the message when this machine is none of them.
    pub(crate) servers: Vec<Ipv4Addr>,
    pub(crate) snapshot: Snapshot,
    pub(crate) links: Vec<LinkSettings>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) filters: Filters,
}

/// Facts about one address of the server.
pub(crate) struct AddressFacts {
    pub(crate) address: Ipv4Addr,
    /// Position of the box that forwards to the address; the first of several.
    pub(crate) through: usize,
    /// Positions of the other boxes that forward to the address.
    pub(crate) other_boxes: Vec<usize>,
    /// Interface that has the address.
    pub(crate) interface: Option<String>,
    /// True when that interface is up with a peer.
    pub(crate) up: bool,
    /// Route of packets from the address; None when the interface is not up.
    pub(crate) reply_route: Option<RouteResult>,
    /// Route of requests to the address; None when the interface is not up.
    pub(crate) request_route: Option<RouteResult>,
    /// State of the next hop; None without an entry in the neighbour table.
    pub(crate) next_hop: Option<NeighbourState>,
    /// The router that really receives the replies; None without a probe.
    pub(crate) first_hop: Option<HopProbe>,
}

/// Collects the facts. With `probe`, sends packets that show the first router.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) async fn collect(configs: &[Config], probe: bool) -> Result<ServerFacts, HostError> {
    let kernel = Kernel::connect()?;
    let snapshot = kernel.snapshot().await?;
    let servers = server_targets::servers(configs);
    let is_here = |server: &&Vec<TargetAddress>| {
        server.iter().any(|target| snapshot.has_address(target.address))
    };
    // With a single server, this machine is that server even without one of its addresses.
    let this = servers.iter().find(is_here).or(servers.first().filter(|_| servers.len() == 1));
    let outside = configs
        .iter()
        .find_map(|config| sample_outside_address(config, &snapshot))
        .unwrap_or(FALLBACK_OUTSIDE);
    let mut addresses = Vec::new();
    for target in this.into_iter().flatten() {
        addresses.push(address_facts(&kernel, &snapshot, target, outside).await?);
    }
    resolve_next_hops(&kernel, &snapshot, &mut addresses).await?;
    if probe {
        probe_first_hops(&snapshot, &mut addresses, outside);
    }
    Ok(ServerFacts {
        configs: configs.to_vec(),
        outside,
        links: links(&snapshot, &addresses),
        addresses,
        servers: servers.iter().flatten().map(|target| target.address).collect(),
        listeners: listeners::listeners()?,
        filters: firewall::collect(),
        snapshot,
    })
}

async fn address_facts(
    kernel: &Kernel,
    snapshot: &Snapshot,
    target: &TargetAddress,
    outside: Ipv4Addr,
) -> Result<AddressFacts, HostError> {
    let address = target.address;
    let index =
        snapshot.addresses.iter().find(|found| found.address == address).map(|found| found.index);
    let link = snapshot.links.iter().find(|link| Some(link.index) == index);
    let interface = link.map(|link| link.name.clone());
    let up = link.is_some_and(|link| link.carrier);
    let (mut reply_route, mut request_route) = (None, None);
    if up {
        let reply = RouteQuery { from: address, to: outside, iif: None };
        reply_route = Some(kernel.route(&reply, snapshot).await?);
        let request = RouteQuery { from: outside, to: address, iif: interface.clone() };
        request_route = Some(kernel.route(&request, snapshot).await?);
    }
    Ok(AddressFacts {
        address,
        through: target.boxes[0],
        other_boxes: target.boxes[1..].to_vec(),
        interface,
        up,
        reply_route,
        request_route,
        next_hop: None,
        first_hop: None,
    })
}

/// Resolves the next hop of each address.
async fn resolve_next_hops(
    kernel: &Kernel,
    snapshot: &Snapshot,
    addresses: &mut [AddressFacts],
) -> Result<(), HostError> {
    let key = |facts: &AddressFacts| match &facts.reply_route {
        Some(RouteResult::Unicast { device, via: Some(via) }) => {
            Some(NeighbourKey { address: *via, index: snapshot.link(device)?.index })
        }
        Some(
            RouteResult::Unicast { via: None, .. } | RouteResult::Local | RouteResult::Dropped(_),
        )
        | None => None,
    };
    let wanted: Vec<NeighbourKey> = addresses.iter().filter_map(key).collect();
    wanted.iter().for_each(|key| trigger_resolution(key.address));
    let neighbours = settled_neighbours(kernel, &wanted, TIMEOUT).await?;
    for facts in addresses {
        facts.next_hop = key(facts).and_then(|key| key.state_in(&neighbours));
    }
    Ok(())
}

fn probe_first_hops(snapshot: &Snapshot, addresses: &mut [AddressFacts], outside: Ipv4Addr) {
    let probed: Vec<(&mut AddressFacts, u32)> = addresses
        .iter_mut()
        .filter_map(|facts| facts.reply_mtu(snapshot).map(|size| (facts, size)))
        .collect();
    let requests: Vec<ProbeRequest> = probed
        .iter()
        .map(|(facts, size)| ProbeRequest { from: facts.address, size: *size })
        .collect();
    let results = first_hop::probe(&requests, outside);
    probed.into_iter().zip(results).for_each(|((facts, _), result)| facts.first_hop = Some(result));
}

fn links(snapshot: &Snapshot, addresses: &[AddressFacts]) -> Vec<LinkSettings> {
    let mut links: Vec<LinkSettings> = Vec::new();
    for link in addresses.iter().filter_map(|facts| snapshot.link(facts.interface.as_deref()?)) {
        if !links.iter().any(|known| known.interface == link.name) {
            links.push(LinkSettings::read(link));
        }
    }
    links
}

impl AddressFacts {
    /// Returns the next hop of packets from the address.
    pub(crate) fn via(&self) -> Option<Ipv4Addr> {
        match self.reply_route.as_ref()? {
            RouteResult::Unicast { via, .. } => *via,
            RouteResult::Local | RouteResult::Dropped(_) => None,
        }
    }

    /// Returns the MTU of the interface by which replies leave, in bytes; None without a route.
    fn reply_mtu(&self, snapshot: &Snapshot) -> Option<u32> {
        let device = match self.reply_route.as_ref()? {
            RouteResult::Unicast { device, .. } => Some(device),
            RouteResult::Local | RouteResult::Dropped(_) => self.interface.as_ref(),
        };
        Some(snapshot.link(device?)?.mtu)
    }
}

impl ServerFacts {
    /// Lists the forwards of all boxes to an address, one per protocol and port.
    pub(crate) fn forwards(&self, address: Ipv4Addr) -> Vec<&Forward> {
        let mut found: Vec<&Forward> = Vec::new();
        for forward in self.configs.iter().flat_map(|config| &config.forwards) {
            let same = |known: &&Forward| {
                (known.protocol, known.to_port) == (forward.protocol, forward.to_port)
            };
            if forward.to_address == address && !found.iter().any(same) {
                found.push(forward);
            }
        }
        found
    }
}

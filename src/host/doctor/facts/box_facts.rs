//! Collects the facts about the host of a box.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::firewall;
use super::link_settings::LinkSettings;
use super::neighbours::{NeighbourKey, TIMEOUT, settled_neighbours};
use super::network_programs::NetworkPrograms;
use super::samples::{sample_inside_host, sample_outside_address};
use crate::config::Config;
use crate::host::apply::compare::{StepStatus, compare};
use crate::host::apply::journal;
use crate::host::doctor::nft::filters::Filters;
use crate::host::error::HostError;
use crate::host::kernel::listeners::{Listener, listeners};
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::route_lookup::{
    NeighbourState, RouteQuery, RouteResult, trigger_resolution,
};
use crate::host::kernel::sysctl;
use crate::host::model::facts::HostFacts;
use crate::host::model::presence::{self, AwaitedInterface};
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::settings::interface_names;
use crate::host::model::snapshot::{FoundRule, Snapshot};
use crate::host::model::step::{MAIN_PRIORITY, Step};
use crate::host::model::steps::steps;

/// Longest wait for duplicates of an address. RFC 5227 waits as long between its probes.
const DUPLICATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest number of addresses to check for duplicates, per uplink. Each takes an entry of the
/// neighbour table for a while.
const MAX_DUPLICATE_PROBES: usize = 64;

/// Facts about the host of a box.
pub(crate) struct BoxFacts {
    /// Configuration with the present addresses of its interfaces.
    pub(crate) config: Config,
    pub(crate) host: HostFacts,
    /// True when an instance runs, so that its steps should be in place.
    pub(crate) is_running: bool,
    pub(crate) steps: Vec<(Step, StepState)>,
    /// Rules of other programs before the rule of the main table.
    pub(crate) other_rules: Vec<FoundRule>,
    pub(crate) paths: Vec<ExpectedPath>,
    /// Interfaces without repeats, the inside legs first.
    pub(crate) links: Vec<LinkSettings>,
    pub(crate) filters: Filters,
    /// For each uplink its gateway, if the gateway is on the segment.
    pub(crate) gateways: Vec<Option<Gateway>>,
    /// Listening sockets of the host.
    pub(crate) listeners: Vec<Listener>,
    /// External addresses for which natbox answers ARP, as far as natbox could probe them.
    pub(crate) published: Vec<PublishedAddress>,
    pub(crate) network_programs: NetworkPrograms,
}

/// What the evaluation of the host's filters needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilteredBox<'a> {
    pub(crate) config: &'a Config,
    pub(crate) host: &'a HostFacts,
    pub(crate) filters: &'a Filters,
}

impl BoxFacts {
    /// Returns the part that the evaluation of the filters needs.
    pub(crate) fn filtered(&self) -> FilteredBox<'_> {
        FilteredBox { config: &self.config, host: &self.host, filters: &self.filters }
    }
}

/// State of a step on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StepState {
    InPlace,
    /// The change is missing. Holds the present value of a sysctl.
    Missing(Option<String>),
    /// This route of another program has the step's place.
    Conflict(String),
    /// natbox could not read the state, for this reason.
    Unreadable(String),
}

/// A path that packets must take through the box, and the path that they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedPath {
    /// The packets, as a plural noun for messages.
    pub(crate) packets: &'static str,
    pub(crate) query: RouteQuery,
    /// Outgoing interface.
    pub(crate) device: String,
    /// Next hop; None for any.
    pub(crate) via: Option<Ipv4Addr>,
    /// The kernel's decision.
    pub(crate) result: RouteResult,
}

/// A gateway on the segment of its uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) address: Ipv4Addr,
    /// None when the neighbour table has no entry.
    pub(crate) state: Option<NeighbourState>,
}

/// An external address for which natbox answers ARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedAddress {
    pub(crate) address: Ipv4Addr,
    pub(crate) interface: String,
    /// True when another machine answers ARP for the address.
    pub(crate) is_duplicate: bool,
}

/// Collects the facts. The inner error holds the interfaces without which no packet passes.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) async fn collect(
    file_config: &Config,
    running: Option<RoutingIds>,
) -> Result<Result<BoxFacts, Vec<AwaitedInterface>>, HostError> {
    let kernel = Kernel::connect()?;
    let snapshot = kernel.snapshot().await?;
    let awaited = presence::awaited(file_config, &snapshot.links);
    if !awaited.is_empty() {
        return Ok(Err(awaited));
    }
    let config = file_config.resolve(&snapshot.dynamic_addresses(file_config));
    let ids = match running {
        Some(ids) => ids,
        None => RoutingIds::allocate(&snapshot, &config, RuleOwner::ThisInstance)?,
    };
    let host = HostFacts::collect(&config, &snapshot, sysctl::settings()?, &ids);
    let host = host.without_interfaces(&journal::interfaces_of_others()?);
    let is_running = running.is_some();
    let wanted = if is_running { steps(&config, &host, &ids) } else { Vec::new() };
    let steps = wanted.into_iter().map(|step| (step_state(&step, &snapshot), step));
    let mut paths = match is_running {
        true => expected_paths(&config, &host, &snapshot),
        false => Vec::new(),
    };
    for path in &mut paths {
        path.result = kernel.route(&path.query, &snapshot).await?;
    }
    Ok(Ok(BoxFacts {
        steps: steps.map(|(state, step)| (step, state)).collect(),
        gateways: gateways(&kernel, &config, &host).await?,
        published: published(&kernel, &config, &host).await?,
        links: links(&config, &snapshot),
        listeners: listeners()?,
        other_rules: other_rules(&snapshot),
        filters: firewall::collect(),
        network_programs: NetworkPrograms::read(&config.tun.name),
        config,
        host,
        is_running,
        paths,
    }))
}

fn step_state(step: &Step, snapshot: &Snapshot) -> StepState {
    // With `host.manage: false` a person's commands lag behind the MTUs of the uplinks. A larger
    // one costs a datagram, and a smaller one costs nothing.
    if let Step::Route(route) = step
        && snapshot.has_route_of_any_mtu(route)
    {
        return StepState::InPlace;
    }
    match compare(step, snapshot, &[]) {
        Ok(StepStatus::InPlace | StepStatus::Shared(_)) => StepState::InPlace,
        Ok(StepStatus::Missing(_)) => StepState::Missing(match step {
            Step::Sysctl { path, .. } => sysctl::read(path).ok().flatten(),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => None,
        }),
        Err(HostError::Conflict { found, .. }) => StepState::Conflict(found),
        Err(error) => StepState::Unreadable(error.to_string()),
    }
}

/// Lists the rules of other programs before the main table, except local rules.
fn other_rules(snapshot: &Snapshot) -> Vec<FoundRule> {
    let is_other = |found: &&FoundRule| {
        !found.is_natbox() && found.rule.priority < MAIN_PRIORITY && !found.is_local()
    };
    snapshot.rules.iter().filter(is_other).cloned().collect()
}

/// Lists every path through the box, for the first address of each uplink, each server behind it,
/// and a host behind each inside leg.
fn expected_paths(config: &Config, host: &HostFacts, snapshot: &Snapshot) -> Vec<ExpectedPath> {
    let tun = &config.tun.name;
    let Some(client) = sample_outside_address(config, snapshot) else { return Vec::new() };
    let path = |packets, from, to, iif: &str, device: &str, via| ExpectedPath {
        packets,
        query: RouteQuery { from, to, iif: Some(iif.into()) },
        device: device.into(),
        via,
        result: RouteResult::Dropped("no route was looked up".into()),
    };
    let mut all: Vec<ExpectedPath> = Vec::new();
    for (place, uplink) in config.uplinks.iter().enumerate() {
        let Some(address) = uplink.addresses.first().copied() else { continue };
        let outside = &uplink.interface;
        all.push(path("requests of clients", client, address, outside, tun, None));
        all.push(path("replies to clients", address, client, tun, outside, uplink.gateway));
        for server in servers(config, place) {
            if host.own_traffic.addresses.contains(&server) {
                let replies =
                    path("replies of the host's services", server, client, "lo", tun, None);
                let query = RouteQuery { iif: None, ..replies.query };
                all.push(ExpectedPath { query, ..replies });
                continue;
            }
            let Some(leg) = config.inside.leg_of(server) else { continue };
            let inside = &leg.interface;
            all.push(path("translated requests to servers", client, server, tun, inside, None));
            all.push(path("replies of servers", server, client, inside, tun, None));
        }
    }
    for leg in &config.inside.legs {
        if let Some(host) = sample_inside_host(leg, snapshot) {
            let inside = &leg.interface;
            all.push(path("packets of inside hosts", host, client, inside, tun, None));
        }
    }
    let mut unique: Vec<ExpectedPath> = Vec::new();
    for path in all {
        if !unique.contains(&path) {
            unique.push(path);
        }
    }
    unique
}

/// Lists the servers behind an uplink without repeats.
fn servers(config: &Config, uplink: usize) -> Vec<Ipv4Addr> {
    let forwards = config.forwards.iter().filter(|forward| forward.uplink == uplink);
    let mut servers: Vec<Ipv4Addr> = forwards.map(|forward| forward.to_address).collect();
    servers.sort();
    servers.dedup();
    servers
}

fn links(config: &Config, snapshot: &Snapshot) -> Vec<LinkSettings> {
    let links = interface_names(config).into_iter().filter_map(|name| snapshot.link(name));
    links.filter(|link| link.up).map(LinkSettings::read).collect()
}

/// Resolves each gateway on its segment.
async fn gateways(
    kernel: &Kernel,
    config: &Config,
    host: &HostFacts,
) -> Result<Vec<Option<Gateway>>, HostError> {
    let keys = host.uplinks.iter().enumerate().map(|(place, facts)| {
        let next_hop = host.next_hop(config, place);
        let address = next_hop.filter(|gateway| facts.arp && facts.reaches(*gateway))?;
        Some(NeighbourKey { address, index: facts.index })
    });
    let keys: Vec<Option<NeighbourKey>> = keys.collect();
    let wanted: Vec<NeighbourKey> = keys.iter().flatten().copied().collect();
    wanted.iter().for_each(|key| trigger_resolution(key.address));
    let neighbours = settled_neighbours(kernel, &wanted, TIMEOUT).await?;
    let gateways = keys.into_iter().map(|key| {
        key.map(|key| Gateway { address: key.address, state: key.state_in(&neighbours) })
    });
    Ok(gateways.collect())
}

/// Probes the external addresses for which natbox answers ARP, each on its uplink. Addresses that
/// are assigned to the host are left out, because the kernel does not resolve them.
async fn published(
    kernel: &Kernel,
    config: &Config,
    host: &HostFacts,
) -> Result<Vec<PublishedAddress>, HostError> {
    let mut probed: Vec<(NeighbourKey, &str)> = Vec::new();
    for ((uplink, facts), on_link) in config.uplinks.iter().zip(&host.uplinks).zip(&host.on_link) {
        let answered =
            uplink.addresses.iter().zip(on_link).filter(|(_, on_link)| **on_link && facts.arp);
        for (address, _) in answered.take(MAX_DUPLICATE_PROBES) {
            if kernel.resolve(*address, facts.index).await {
                let key = NeighbourKey { address: *address, index: facts.index };
                probed.push((key, &facts.interface));
            }
        }
    }
    let wanted: Vec<NeighbourKey> = probed.iter().map(|(key, _)| *key).collect();
    let neighbours = settled_neighbours(kernel, &wanted, DUPLICATE_TIMEOUT).await?;
    let published = probed.into_iter().map(|(key, interface)| PublishedAddress {
        address: key.address,
        interface: interface.to_owned(),
        is_duplicate: key.state_in(&neighbours) == Some(NeighbourState::Reachable),
    });
    Ok(published.collect())
}

//! Looks at the host of a box.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use crate::config::{Config, Forward, ForwardProtocol};
use crate::host::apply::compare::{StepStatus, compare};
use crate::host::doctor::facts::links::Leg;
use crate::host::doctor::nft::filters::Filters;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::route_lookup::{
    Neighbour, NeighbourState, RouteQuery, RouteResult, rouse,
};
use crate::host::kernel::sysctl;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::{FoundRule, Snapshot, is_local};
use crate::host::model::steps::{self, RTPROT_NATBOX, Step};

/// What was found.
pub(crate) struct BoxFacts {
    /// With the addresses that its interfaces have now.
    pub(crate) config: Config,
    pub(crate) facts: HostFacts,
    /// Whether a box runs, so that its steps should be in place.
    pub(crate) runs: bool,
    /// External addresses that became the host's own after the box started.
    pub(crate) assigned_since_start: Vec<Ipv4Addr>,
    pub(crate) steps: Vec<(Step, State)>,
    /// Rules of others that are asked before the main table.
    pub(crate) foreign: Vec<FoundRule>,
    pub(crate) passages: Vec<Passage>,
    /// The inside first; interfaces without repeats.
    pub(crate) legs: Vec<Leg>,
    pub(crate) filters: Filters,
    /// Of each uplink: its gateway, if it has one on the segment.
    pub(crate) gateways: Vec<Option<(Ipv4Addr, Option<NeighbourState>)>>,
    /// External addresses for which natbox answers ARP and that were asked for: each with the interface, and whether somebody else
    /// answers, too.
    pub(crate) taken: Vec<(Ipv4Addr, String, bool)>,
}

/// How a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    InPlace,
    /// With the value that was found, of a sysctl.
    Missing(Option<String>),
    /// Something foreign is where it has to go.
    InTheWay(String),
    /// It cannot be looked at, for this reason.
    Unknown(String),
}

/// A way that a packet has to take through the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// For people.
    pub(crate) what: &'static str,
    pub(crate) question: RouteQuery,
    pub(crate) device: String,
    /// The next hop; None: any.
    pub(crate) via: Option<Ipv4Addr>,
    pub(crate) way: RouteResult,
}

/// Looks; the inner error: an interface is missing or down.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) async fn collect(
    written: &Config,
    running: Option<RoutingIds>,
) -> Result<Result<BoxFacts, HostError>, HostError> {
    let kernel = Kernel::connect()?;
    let mut snapshot = kernel.snapshot().await?;
    let config = written.resolve(&snapshot.dynamic_addresses(written));
    let choose = |assigned_to_host| match running {
        Some(ids) => Ok(ids),
        None => RoutingIds::allocate(
            &snapshot,
            &config.tun.name,
            assigned_to_host,
            RuleOwner::ThisInstance,
        ),
    };
    let (mut facts, ids) = HostFacts::collect(&config, &snapshot, choose)?;
    if let Err(error) = facts.check_interfaces(&config, &snapshot) {
        return Ok(Err(error));
    }
    let mut assigned_since_start = Vec::new();
    if facts.any_assigned_to_host() && !ids.may_precede_local() {
        let pairs = config.uplinks.iter().zip(&mut facts.assigned_to_host);
        for (uplink, assigned_to_host) in pairs {
            let now = uplink
                .addresses
                .iter()
                .zip(assigned_to_host.iter())
                .filter(|(_, assigned_to_host)| **assigned_to_host);
            assigned_since_start.extend(now.map(|(address, _)| *address));
            assigned_to_host.iter_mut().for_each(|assigned_to_host| *assigned_to_host = false);
        }
    }
    let runs = running.is_some();
    let wanted = if runs { steps::steps(&config, &facts, &ids) } else { Vec::new() };
    let steps = wanted
        .into_iter()
        .map(|step| (state(&step, &snapshot), step))
        .map(|(state, step)| (step, state));
    let steps: Vec<(Step, State)> = steps.collect();
    let mut passages = if runs { passages(&config, &snapshot) } else { Vec::new() };
    for passage in &mut passages {
        passage.way = kernel.way(&passage.question, &snapshot).await?;
    }
    let gateways = gateways(&kernel, &config, &facts).await?;
    let taken = taken(&kernel, &config, &facts).await?;
    snapshot.links.retain(|link| link.up);
    let legs = legs(&config, &snapshot);
    Ok(Ok(BoxFacts {
        foreign: foreign(&snapshot),
        taken,
        filters: Filters::look(),
        config,
        facts,
        runs,
        assigned_since_start,
        steps,
        passages,
        legs,
        gateways,
    }))
}

fn state(step: &Step, snapshot: &Snapshot) -> State {
    match compare(step, snapshot, &[]) {
        Ok(StepStatus::InPlace | StepStatus::Shared(_)) => State::InPlace,
        Ok(StepStatus::Missing(_)) => State::Missing(match step {
            Step::Sysctl { path, .. } => sysctl::read(path).ok().flatten(),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::RemoveDefaultLocalRule => None,
        }),
        Err(HostError::Conflict { found, .. }) => State::InTheWay(found),
        Err(error) => State::Unknown(error.to_string()),
    }
}

/// Rules of others before the main table, but that of the host's own addresses.
fn foreign(snapshot: &Snapshot) -> Vec<FoundRule> {
    let before = snapshot
        .rules
        .iter()
        .filter(|found| found.protocol != RTPROT_NATBOX && found.rule.priority < MAIN);
    before.filter(|found| !is_local(found)).cloned().collect()
}

/// Priority of the rule of the main table (net/ipv4/fib_rules.c).
const MAIN: u32 = 32766;

/// Every way through the box, for the first address of each line and each server behind it.
fn passages(config: &Config, snapshot: &Snapshot) -> Vec<Passage> {
    let (tun, inside) = (&config.tun.name, &config.inside.interface);
    let Some(client) = sample_outside_address(config, snapshot) else { return Vec::new() };
    let passage = |what, from, to, by: &str, device: &str, via| Passage {
        what,
        question: RouteQuery { from, to, by: Some(by.into()) },
        device: device.into(),
        via,
        way: RouteResult::Dropped("nobody asked".into()),
    };
    let mut all: Vec<Passage> = Vec::new();
    let mut once = |passage: Passage| {
        if !all.contains(&passage) {
            all.push(passage);
        }
    };
    for (place, uplink) in config.uplinks.iter().enumerate() {
        let Some(address) = uplink.addresses.first().copied() else { continue };
        let line = &uplink.interface;
        once(passage("a request on its way to natbox", client, address, line, tun, None));
        once(passage("a reply on its way to the line", address, client, tun, line, uplink.gateway));
        for server in servers(config, place) {
            once(passage(
                "a translated request on its way to the server",
                client,
                server,
                tun,
                inside,
                None,
            ));
            once(passage(
                "a reply of the server on its way to natbox",
                server,
                client,
                inside,
                tun,
                None,
            ));
        }
    }
    all
}

/// Servers behind a line, without repeats.
fn servers(config: &Config, uplink: usize) -> Vec<Ipv4Addr> {
    let forwards = config.forwards.iter().filter(|forward| forward.uplink == uplink);
    let mut servers: Vec<Ipv4Addr> = forwards.map(|forward| forward.to_address).collect();
    servers.sort();
    servers.dedup();
    servers
}

/// An address of the Internet that nothing is known of: neither here nor in the configuration.
pub(crate) fn sample_outside_address(config: &Config, snapshot: &Snapshot) -> Option<Ipv4Addr> {
    let mut known: Vec<Ipv4Net> = config.inside.prefixes.clone();
    known.extend(config.no_nat.iter().map(|exemption| exemption.to));
    // Two halves of everything are a VPN, and no network.
    let networks = snapshot.links.iter().flat_map(|link| snapshot.on_link(link));
    known.extend(networks.filter(|network| network.prefix_len() > 1));
    OUTSIDE_SAMPLES
        .into_iter()
        .find(|address| !known.iter().any(|network| network.contains(address)))
}

/// Documentation prefixes (RFC 5737), then two well-known hosts; one of them is nobody's neighbour.
pub(crate) const OUTSIDE_SAMPLES: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
    Ipv4Addr::new(9, 9, 9, 9),
    Ipv4Addr::new(1, 0, 0, 1),
];

fn legs(config: &Config, snapshot: &Snapshot) -> Vec<Leg> {
    let mut names = vec![&config.inside.interface];
    for uplink in &config.uplinks {
        if !names.contains(&&uplink.interface) {
            names.push(&uplink.interface);
        }
    }
    let links = names.iter().filter_map(|name| snapshot.link(name));
    links.map(|link| Leg::look(&link.name, link.mtu)).collect()
}

/// Has each gateway asked for, and sees who answers.
async fn gateways(
    kernel: &Kernel,
    config: &Config,
    facts: &HostFacts,
) -> Result<Vec<Option<(Ipv4Addr, Option<NeighbourState>)>>, HostError> {
    let on_segment = config.uplinks.iter().zip(&facts.uplinks).map(|(uplink, leg)| {
        let gateway = uplink.gateway.filter(|gateway| leg.arp && leg.reaches(*gateway))?;
        Some((gateway, leg.index))
    });
    let asked: Vec<Option<(Ipv4Addr, u32)>> = on_segment.collect();
    asked.iter().flatten().for_each(|(gateway, _)| rouse(*gateway));
    let neighbours = neighbours_when_settled(
        kernel,
        &asked.iter().flatten().copied().collect::<Vec<_>>(),
        PATIENCE,
    )
    .await?;
    let gateways = asked
        .iter()
        .map(|asked| asked.map(|(gateway, index)| (gateway, answer(&neighbours, gateway, index))));
    Ok(gateways.collect())
}

/// Asks those who were known long ago anew; the neighbour table when everybody who was asked has answered, or has had the time to.
pub(crate) async fn neighbours_when_settled(
    kernel: &Kernel,
    asked: &[(Ipv4Addr, u32)],
    patience: Duration,
) -> Result<Vec<Neighbour>, HostError> {
    let is_asked =
        |found: &&Neighbour| found.learned && asked.contains(&(found.address, found.index));
    for known in kernel.neighbours().await?.iter().filter(is_asked) {
        kernel.ask_again(known).await;
    }
    let mut neighbours = kernel.neighbours().await?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        let waiting = |(address, index): &(Ipv4Addr, u32)| {
            !matches!(
                answer(&neighbours, *address, *index),
                Some(NeighbourState::Reachable | NeighbourState::Failed)
            )
        };
        if !asked.iter().any(waiting) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        neighbours = kernel.neighbours().await?;
    }
    Ok(neighbours)
}

/// What the table says of a neighbour.
pub(crate) fn answer(
    neighbours: &[Neighbour],
    address: Ipv4Addr,
    index: u32,
) -> Option<NeighbourState> {
    let found = neighbours.iter().find(|found| (found.address, found.index) == (address, index));
    found.map(|found| found.answers)
}

/// The kernel asks three times, a second apart, before it gives up; without the privilege to have it ask at once, 5 s later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(9);
/// For those who are better not there (RFC 5227 waits as long between its probes).
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks on each line who has the addresses for which natbox answers there; the host's own are left out, which the kernel does not
/// ask for.
async fn taken(
    kernel: &Kernel,
    config: &Config,
    facts: &HostFacts,
) -> Result<Vec<(Ipv4Addr, String, bool)>, HostError> {
    let mut asked = Vec::new();
    for ((uplink, leg), on_link) in config.uplinks.iter().zip(&facts.uplinks).zip(&facts.on_link) {
        let published =
            uplink.addresses.iter().zip(on_link).filter(|(_, on_link)| **on_link && leg.arp);
        for (address, _) in published.take(MOST_ASKED) {
            if kernel.ask_for(*address, leg.index).await {
                asked.push((*address, leg.index, leg.interface.clone()));
            }
        }
    }
    let whom: Vec<(Ipv4Addr, u32)> =
        asked.iter().map(|(address, index, _)| (*address, *index)).collect();
    let neighbours = neighbours_when_settled(kernel, &whom, SHORT_PATIENCE).await?;
    let found = asked.into_iter().map(|(address, index, interface)| {
        (address, interface, answer(&neighbours, address, index) == Some(NeighbourState::Reachable))
    });
    Ok(found.collect())
}

/// Of one line: each takes a place in the neighbour table for a while.
const MOST_ASKED: usize = 64;

/// The transport of a forward that rules of filters may ask for.
pub(crate) fn protocols(forward: &Forward) -> &'static [&'static str] {
    match forward.protocol {
        ForwardProtocol::Tcp => &["tcp"],
        ForwardProtocol::Udp => &["udp"],
        ForwardProtocol::TcpUdp => &["tcp", "udp"],
        ForwardProtocol::Icmp | ForwardProtocol::Any => &[],
    }
}

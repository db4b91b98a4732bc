//! Looks at this machine as a server behind boxes.

use std::net::Ipv4Addr;

use crate::config::{Config, Forward};
use crate::host::doctor::facts::box_facts::{
    PATIENCE, answer, neighbours_when_settled, sample_outside_address,
};
use crate::host::doctor::facts::first_hop::{self, HopProbe};
use crate::host::doctor::facts::links::Leg;
use crate::host::doctor::nft::filters::Filters;
use crate::host::error::HostError;
use crate::host::kernel::listeners::{self, Listener};
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::route_lookup::{NeighbourState, RouteQuery, RouteResult, rouse};
use crate::host::model::snapshot::Snapshot;
use crate::host::render::server_plan;

/// What was found.
pub(crate) struct ServerFacts {
    pub(crate) configs: Vec<Config>,
    /// An address of the Internet.
    pub(crate) stranger: Ipv4Addr,
    /// Addresses of the server that this machine is, as far as can be told; none: it is none of the servers.
    pub(crate) lines: Vec<Line>,
    /// Addresses of all servers, for the message when it is none.
    pub(crate) servers: Vec<Ipv4Addr>,
    pub(crate) snapshot: Snapshot,
    pub(crate) legs: Vec<Leg>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) filters: Filters,
}

/// One address of the server, and the box that forwards to it.
pub(crate) struct Line {
    pub(crate) address: Ipv4Addr,
    /// Place of the box in the configurations; the first, should there be several.
    pub(crate) through: usize,
    /// Others that forward to the same address.
    pub(crate) also: Vec<usize>,
    /// Interface that has the address.
    pub(crate) interface: Option<String>,
    /// That is up.
    pub(crate) up: bool,
    /// Way of what is sent from it.
    pub(crate) way: Option<RouteResult>,
    /// What becomes of a request to it.
    pub(crate) arrival: Option<RouteResult>,
    /// What the next hop says to ARP.
    pub(crate) answers: Option<NeighbourState>,
    /// Who really gets it, and in which sizes.
    pub(crate) first_hop: Option<HopProbe>,
}

/// Looks.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) async fn collect(configs: &[Config], probe: bool) -> Result<ServerFacts, HostError> {
    let kernel = Kernel::connect()?;
    let snapshot = kernel.snapshot().await?;
    let all = server_plan::servers(configs);
    let here = |server: &&Vec<(Ipv4Addr, Vec<usize>)>| {
        server.iter().any(|(address, _)| snapshot.has_address(*address))
    };
    // With one server there is no doubt which it is, even without a single address.
    let this = all.iter().find(here).or(all.first().filter(|_| all.len() == 1));
    let stranger = configs
        .iter()
        .find_map(|config| sample_outside_address(config, &snapshot))
        .unwrap_or(Ipv4Addr::new(9, 9, 9, 9));
    let mut lines = Vec::new();
    for (address, boxes) in this.into_iter().flatten() {
        lines.push(line(&kernel, &snapshot, *address, boxes, stranger).await?);
    }
    hops(&kernel, &snapshot, &mut lines).await?;
    if probe {
        let asked: Vec<(&mut Line, u32)> = lines
            .iter_mut()
            .filter_map(|line| line.largest(&snapshot).map(|size| (line, size)))
            .collect();
        let from: Vec<(Ipv4Addr, u32)> =
            asked.iter().map(|(line, size)| (line.address, *size)).collect();
        let found = first_hop::ask(&from, stranger);
        asked.into_iter().zip(found).for_each(|((line, _), found)| line.first_hop = Some(found));
    }
    let mut legs: Vec<Leg> = Vec::new();
    for link in lines.iter().filter_map(|line| snapshot.link(line.interface.as_deref()?)) {
        if !legs.iter().any(|leg| leg.interface == link.name) {
            legs.push(Leg::look(&link.name, link.mtu));
        }
    }
    Ok(ServerFacts {
        configs: configs.to_vec(),
        stranger,
        lines,
        servers: all.iter().flatten().map(|(address, _)| *address).collect(),
        legs,
        listeners: listeners::listeners()?,
        filters: Filters::look(),
        snapshot,
    })
}

async fn line(
    kernel: &Kernel,
    snapshot: &Snapshot,
    address: Ipv4Addr,
    boxes: &[usize],
    stranger: Ipv4Addr,
) -> Result<Line, HostError> {
    let index =
        snapshot.addresses.iter().find(|found| found.address == address).map(|found| found.index);
    let link = snapshot.links.iter().find(|link| Some(link.index) == index);
    let up = link.is_some_and(|link| link.carrier);
    let question = RouteQuery { from: address, to: stranger, by: None };
    let way = match up {
        true => Some(kernel.way(&question, snapshot).await?),
        false => None,
    };
    let request =
        RouteQuery { from: stranger, to: address, by: link.map(|link| link.name.clone()) };
    let arrival = match up {
        true => Some(kernel.way(&request, snapshot).await?),
        false => None,
    };
    Ok(Line {
        address,
        through: boxes[0],
        also: boxes[1..].to_vec(),
        interface: link.map(|link| link.name.clone()),
        up,
        way,
        arrival,
        answers: None,
        first_hop: None,
    })
}

/// Has the next hops asked for.
async fn hops(kernel: &Kernel, snapshot: &Snapshot, lines: &mut [Line]) -> Result<(), HostError> {
    let hop = |line: &Line| match &line.way {
        Some(RouteResult::Unicast { device, via: Some(via) }) => {
            Some((*via, snapshot.link(device)?.index))
        }
        Some(
            RouteResult::Unicast { via: None, .. } | RouteResult::Local | RouteResult::Dropped(_),
        )
        | None => None,
    };
    let asked: Vec<(Ipv4Addr, u32)> = lines.iter().filter_map(hop).collect();
    asked.iter().for_each(|(address, _)| rouse(*address));
    let neighbours = neighbours_when_settled(kernel, &asked, PATIENCE).await?;
    for line in lines {
        line.answers = hop(line).and_then(|(address, index)| answer(&neighbours, address, index));
    }
    Ok(())
}

impl Line {
    /// Bytes of the largest packet that the way of its replies lets out, if there is a way.
    fn largest(&self, snapshot: &Snapshot) -> Option<u32> {
        let device = match self.way.as_ref()? {
            RouteResult::Unicast { device, .. } => Some(device),
            RouteResult::Local | RouteResult::Dropped(_) => self.interface.as_ref(),
        };
        Some(snapshot.link(device?)?.mtu)
    }
}

impl ServerFacts {
    /// The forwards of all boxes that lead to an address, each once for its ports.
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

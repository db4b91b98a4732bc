//! Finds the servers in the forwards of all boxes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::config::{Config, Forward};

/// Table on the server for the first box; the tables of the other boxes follow. Also the priority
/// of the table's rules.
const SERVER_TABLES: u32 = 7201;

/// An address of a server, and the boxes that forward to it.
pub(crate) struct TargetAddress {
    pub(crate) address: Ipv4Addr,
    /// Positions of the boxes in the list of configurations; never empty.
    pub(crate) boxes: Vec<usize>,
}

/// The forwards to one address.
#[derive(Default)]
pub(super) struct ServerTarget {
    pub(super) boxes: BTreeSet<usize>,
    pub(super) names: BTreeSet<String>,
}

pub(super) type Targets = BTreeMap<Ipv4Addr, ServerTarget>;

/// Warns about server addresses that several boxes use.
pub(super) fn shared_addresses(configs: &[Config]) -> Vec<String> {
    let targets = targets(configs);
    let shared = targets.iter().filter(|(_, target)| target.boxes.len() > 1);
    let warnings = shared.map(|(address, target)| {
        let names: Vec<&str> =
            target.boxes.iter().map(|place| configs[*place].name.as_str()).collect();
        format!(
            "{address}: {} forward to this server address, so a reply from it does not show its \
             box; give the server one address per box, or make one box with several uplinks",
            names.join(" and ")
        )
    });
    warnings.collect()
}

/// Lists the servers, each with its addresses in order.
pub(crate) fn servers(configs: &[Config]) -> Vec<Vec<TargetAddress>> {
    let targets = targets(configs);
    let target = |address: &Ipv4Addr| TargetAddress {
        address: *address,
        boxes: targets[address].boxes.iter().copied().collect(),
    };
    group(configs, &targets).iter().map(|group| group.iter().map(target).collect()).collect()
}

/// Returns the table on a server for the box at this position, which is also the priority of its
/// rule.
pub(crate) fn server_table(place: usize) -> u32 {
    SERVER_TABLES + place as u32
}

/// Collects the forwards by server address. A forward to the box's own address leads to no server.
pub(super) fn targets(configs: &[Config]) -> Targets {
    let mut targets = Targets::new();
    for (place, config) in configs.iter().enumerate() {
        let is_own = |forward: &&Forward| {
            config.inside.legs.iter().any(|leg| leg.address == Some(forward.to_address))
        };
        for forward in config.forwards.iter().filter(|forward| !is_own(forward)) {
            let target = targets.entry(forward.to_address).or_default();
            target.boxes.insert(place);
            target.names.insert(forward.name.clone());
        }
    }
    targets
}

/// Groups the addresses by server: forwards of one name in different boxes lead to one server.
pub(super) fn group(configs: &[Config], targets: &Targets) -> Vec<Vec<Ipv4Addr>> {
    let mut groups: Vec<Vec<Ipv4Addr>> = targets.keys().map(|address| vec![*address]).collect();
    let mut by_name: BTreeMap<&str, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let mut ambiguous = BTreeSet::new();
    for config in configs {
        let mut within: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
        for forward in &config.forwards {
            let first = *within.entry(&forward.name).or_insert(forward.to_address);
            // A name that leads to two servers in one box identifies neither.
            if first != forward.to_address {
                ambiguous.insert(forward.name.as_str());
            }
            by_name.entry(&forward.name).or_default().insert(forward.to_address);
        }
    }
    for (_, addresses) in by_name.iter().filter(|(name, _)| !ambiguous.contains(*name)) {
        let (joined, apart): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.iter().any(|address| addresses.contains(address)));
        groups = apart;
        groups.push(joined.into_iter().flatten().collect());
    }
    groups.iter_mut().for_each(|group| group.sort());
    groups.sort();
    groups
}

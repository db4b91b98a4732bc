//! Plans the settings of the servers behind the boxes.
//!
//! Each reply must leave by the box that forwarded the request. A server therefore needs one
//! address per box, and policy routing by source address. Behind a single box, a default route is
//! enough, whatever the number of uplinks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::box_plan::BoxPlan;
use super::server_plan::{ServerAddress, ServerPlan};
use super::server_targets::{Targets, group, server_table, targets};
use super::server_text::{BoxAddress, ServerView};
use crate::config::Config;

/// Plans all servers. `boxes` holds the plan of each box.
pub(super) fn plans(configs: &[Config], boxes: &[BoxPlan]) -> Vec<ServerPlan> {
    let targets = targets(configs);
    let groups = group(configs, &targets);
    groups.iter().map(|group| plan(group, &targets, configs, boxes)).collect()
}

fn plan(
    group: &[Ipv4Addr],
    targets: &Targets,
    configs: &[Config],
    boxes: &[BoxPlan],
) -> ServerPlan {
    let mut forwards = BTreeSet::new();
    let mut addresses = Vec::new();
    for address in group {
        let target = &targets[address];
        forwards.extend(target.names.iter().cloned());
        addresses.extend(target.boxes.iter().map(|place| BoxAddress {
            address: *address,
            config: &configs[*place],
            inside: boxes[*place].next_hop_of(*address),
            table: server_table(*place),
        }));
    }
    let policy_routing = configs.len() > 1;
    // The main table routes to the private networks, whatever the source.
    let private: BTreeSet<Ipv4Net> =
        configs.iter().flat_map(|config| config.inside.prefixes()).collect();
    let view = ServerView { addresses: &addresses, private: &private, policy_routing };
    let server_addresses = addresses.iter().map(|address| ServerAddress {
        address: address.address,
        network: address.network(),
        through: address.config.name.clone(),
    });
    ServerPlan {
        forwards: forwards.into_iter().collect(),
        addresses: server_addresses.collect(),
        policy_routing,
        notes: notes(&addresses, policy_routing),
        commands: view.commands(),
        networkd: view.networkd(),
        netplan: view.netplan(),
    }
}

fn notes(addresses: &[BoxAddress<'_>], policy_routing: bool) -> Vec<String> {
    if !policy_routing {
        return vec![
            "Behind a single box the server needs no policy routing: one address, and the box as \
             its default route. The box sends each reply out by the uplink of its request."
                .into(),
        ];
    }
    let mut notes = vec![
        "The source address of a reply decides which box it leaves by. A UDP program must answer \
         from the address that received the request (IP_PKTINFO, or one socket per address)."
            .into(),
        "For connections that the server opens itself, give it a default route via any box.".into(),
    ];
    if let [only] = addresses {
        notes.push(format!(
            "Only {} leads to this address. If that is the server's only box, a default route via \
             the box is enough.",
            only.config.name
        ));
    }
    notes
}

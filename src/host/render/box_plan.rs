//! The commands of one box. The list of steps decides what they set; see [`steps`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::config::Config;
use crate::host::apply::journal;
use crate::host::error::HostError;
use crate::host::kernel::sysctl;
use crate::host::model::exposure::{
    ExposedAddress, commands as commands_that_close, exposed_addresses,
};
use crate::host::model::facts::HostFacts;
use crate::host::model::presence;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::step::{RouteKind, Step};
use crate::host::model::steps::steps;

/// The commands of one box.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BoxPlan {
    /// Name of the box.
    pub name: String,
    /// Name of the TUN. natbox creates the TUN itself.
    pub tun: String,
    /// True when this machine has the box's interfaces, so that the plan uses their state. False
    /// when the plan assumes it.
    pub probed: bool,
    /// The box's address on the first inside leg, if the configuration or the interface gives it.
    pub inside_address: Option<Ipv4Addr>,
    /// The inside legs, in the order of the configuration.
    pub inside: Vec<PlannedLeg>,
    /// Remarks, as sentences.
    pub notes: Vec<String>,
    /// Commands for a POSIX shell, in order.
    pub commands: Vec<String>,
}

/// An inside leg of a box.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PlannedLeg {
    /// Interface towards the private network.
    pub interface: String,
    /// The box's address on the interface, if the configuration or the interface gives it.
    pub address: Option<Ipv4Addr>,
    /// Private prefixes behind the interface.
    pub prefixes: Vec<Ipv4Net>,
}

impl BoxPlan {
    /// Plans a box. `snapshot` is this machine's, if the box is this machine.
    pub(super) fn new(config: &Config, snapshot: Option<&Snapshot>) -> Self {
        let addresses = match snapshot {
            Some(snapshot) => snapshot.dynamic_addresses(config),
            None => vec![None; config.uplinks.len()],
        };
        let config = &config.resolve(&addresses);
        let mut notes = vec![first_note(config)];
        let awaited = snapshot.map(|snapshot| presence::awaited(config, &snapshot.links));
        notes.extend(awaited.iter().flatten().map(ToString::to_string));
        let present = snapshot.filter(|_| awaited.is_some_and(|awaited| awaited.is_empty()));
        let probed = present.map(|snapshot| collect(config, snapshot)).and_then(|collected| {
            collected.inspect_err(|error| notes.push(error.to_string())).ok()
        });
        let is_probed = probed.is_some();
        let (facts, ids) = probed.unwrap_or_else(|| {
            notes.push(
                "This machine does not have the box's interfaces, so the plan assumes: external \
                 addresses are on the segment of their uplink, none is assigned to the host, and \
                 gateways are reachable. Run `natbox plan` on the box to be sure."
                    .into(),
            );
            HostFacts::assumed(config)
        });
        notes.extend(dynamic_address_notes(config));
        notes.extend(facts.messages().cloned());
        if facts.any_assigned_to_host() {
            notes.push(
                "An external address is assigned to the host: the rule of the local table passes over \
                 that address, so that natbox's rules get its packets first."
                    .into(),
            );
        }
        notes.extend(exposed_addresses(config, &facts).iter().map(exposure_note));
        let steps = steps(config, &facts, &ids);
        let inside: Vec<PlannedLeg> = config
            .inside
            .legs
            .iter()
            .zip(&facts.legs)
            .map(|(leg, found)| PlannedLeg {
                interface: leg.interface.clone(),
                address: leg.address.or(found.address),
                prefixes: leg.prefixes.clone(),
            })
            .collect();
        Self {
            name: config.name.clone(),
            tun: config.tun.name.clone(),
            probed: is_probed,
            inside_address: inside.first().and_then(|leg| leg.address),
            inside,
            notes,
            commands: steps.iter().flat_map(|step| commands(step, config.host.manage)).collect(),
        }
    }

    /// Returns the box's address on the inside leg that leads to a server.
    pub(super) fn next_hop_of(&self, server: Ipv4Addr) -> Option<Ipv4Addr> {
        let leads_to =
            |leg: &&PlannedLeg| leg.prefixes.iter().any(|prefix| prefix.contains(&server));
        self.inside.iter().find(leads_to)?.address
    }
}

fn collect(config: &Config, snapshot: &Snapshot) -> Result<(HostFacts, RoutingIds), HostError> {
    let ids = RoutingIds::allocate(snapshot, config, RuleOwner::ThisInstance)?;
    let facts = HostFacts::collect(config, snapshot, sysctl::settings()?, &ids);
    Ok((facts.without_interfaces(&journal::interfaces_of_others()?), ids))
}

fn first_note(config: &Config) -> String {
    let tun = &config.tun.name;
    match config.host.manage {
        true => format!(
            "`natbox run` makes all these settings and reverts them when it stops. To make them by \
             hand, set host.manage: false, and run the commands after natbox has created {tun}."
        ),
        false => format!(
            "host.manage is false: run these commands each time natbox has created {tun}, because \
             the routes vanish with {tun} when natbox stops. A second run does no harm."
        ),
    }
}

fn exposure_note(exposed: &ExposedAddress) -> String {
    let ExposedAddress { outside, address, inside } = exposed;
    format!(
        "Hosts on the segment of {outside} reach {address}, the box's address on {inside}: natbox's \
         filter is off. To drop their packets: {}",
        commands_that_close(exposed).join("; ")
    )
}

fn dynamic_address_notes(config: &Config) -> impl Iterator<Item = String> {
    config.uplinks.iter().filter(|uplink| uplink.follows_interface).map(|uplink| {
        let (name, interface) = (&uplink.name, &uplink.interface);
        let now = uplink
            .addresses
            .first()
            .map_or("unknown here".into(), |address| format!("now {address}"));
        format!(
            "Uplink {name} uses the address of {interface} ({now}). `natbox run` follows changes of \
             that address; these commands do not."
        )
    })
}

/// Formats a step as commands.
///
/// Without `managed` a person runs the commands repeatedly, and the settings of the last run may
/// still be in place.
fn commands(step: &Step, managed: bool) -> Vec<String> {
    let command = step.command();
    let ignore_failure = |command: &str| format!("{command} 2>/dev/null || true");
    match step {
        Step::Rule(_) if !managed => {
            let delete = command.replacen("ip rule add", "ip rule del", 1);
            vec![ignore_failure(&delete), command]
        }
        // Deleting a rule of the local table first would leave the host without one for a moment.
        Step::SetLocalRuleAside if !managed => vec![ignore_failure(&format!("{{ {command}; }}"))],
        Step::KeepMainRule if !managed => vec![ignore_failure(&command)],
        Step::Route(route) if !managed && route.kind == RouteKind::Local => {
            vec![ignore_failure(&command)]
        }
        // The kernel's own rule; see [`steps`].
        Step::KeepMainRule => Vec::new(),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Sysctl { .. }
        | Step::Route(_)
        | Step::Rule(_)
        | Step::ProxyNeighbour { .. }
        | Step::SetLocalRuleAside => vec![command],
    }
}

//! The plan for all boxes and servers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::box_plan::BoxPlan;
use super::probe::{HostMatch, probe_host};
use super::server_plan::ServerPlan;
use super::server_targets::shared_addresses;
use super::servers;
use crate::config::{Config, Inside};

/// What a person has to do by hand, on every machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// One entry per configuration, in their order.
    pub boxes: Vec<BoxPlan>,
    /// One entry per server, as far as the configurations distinguish servers.
    pub servers: Vec<ServerPlan>,
    /// Settings that will not work, as messages.
    pub warnings: Vec<String>,
}

/// Makes the plan for boxes on this machine or on others.
///
/// The function needs no privilege. It assumes facts that it cannot read, and the plan says so.
pub(crate) fn plan(configs: &[Config]) -> Plan {
    let snapshot = probe_host();
    let matches: Vec<HostMatch> =
        configs.iter().map(|config| HostMatch::of(config, snapshot.as_ref())).collect();
    // Several machines may use the same interface names. At most one of them is this machine: the
    // one that fits best.
    let is_here = |config: &Config, own: HostMatch| {
        let same_interface = configs
            .iter()
            .zip(&matches)
            .filter(|(other, _)| shares_an_interface(&other.inside, &config.inside));
        own != HostMatch::None && same_interface.filter(|(_, other)| **other >= own).count() == 1
    };
    let boxes: Vec<BoxPlan> = configs
        .iter()
        .zip(&matches)
        .map(|(config, own)| {
            BoxPlan::new(config, snapshot.as_ref().filter(|_| is_here(config, *own)))
        })
        .collect();
    let configs: Vec<Config> =
        configs.iter().zip(&boxes).map(|(config, plan)| with_addresses(config, plan)).collect();
    let servers = servers::plans(&configs, &boxes);
    let mut warnings = shared_addresses(&configs);
    warnings.extend(duplicate_external_addresses(&configs));
    Plan { boxes, servers, warnings }
}

/// Returns a configuration with the inside addresses that its box has.
fn with_addresses(config: &Config, plan: &BoxPlan) -> Config {
    let mut config = config.clone();
    for (leg, planned) in config.inside.legs.iter_mut().zip(&plan.inside) {
        leg.address = leg.address.or(planned.address);
    }
    config
}

fn shares_an_interface(one: &Inside, other: &Inside) -> bool {
    one.legs.iter().any(|leg| other.legs.iter().any(|known| known.interface == leg.interface))
}

/// Warns about external addresses that two of the boxes claim.
fn duplicate_external_addresses(configs: &[Config]) -> Vec<String> {
    let mut owners: HashMap<Ipv4Addr, &str> = HashMap::new();
    let mut warnings = Vec::new();
    for config in configs {
        let fixed = config.uplinks.iter().filter(|uplink| !uplink.follows_interface);
        for address in fixed.flat_map(|uplink| &uplink.addresses) {
            if let Some(other) = owners.insert(*address, &config.name) {
                warnings.push(format!(
                    "{address}: both {other} and {} use this external address; give each box its \
                     own addresses",
                    config.name
                ));
            }
        }
    }
    warnings
}

impl Plan {
    /// Formats the plan for people: commands under a heading per machine.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "# WARNING: {warning}");
        }
        for plan in &self.boxes {
            let _ = writeln!(text, "# ==== box {}, run as root ====", plan.name);
            plan.notes.iter().for_each(|note| {
                let _ = writeln!(text, "# {note}");
            });
            text.push_str("set -e\n");
            plan.commands.iter().for_each(|command| {
                let _ = writeln!(text, "{command}");
            });
            text.push('\n');
        }
        for plan in &self.servers {
            plan.write(&mut text);
        }
        text
    }
}

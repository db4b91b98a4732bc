//! All checks of a box, in order.

use super::offloads::MachineRole;
use super::{
    box_exposure, box_firewall, box_paths, box_services, box_steps, box_uplinks, conntrack,
    filters, mtu, network_programs, offloads,
};
use crate::config::{Config, InsideLeg};
use crate::host::doctor::facts::box_facts::BoxFacts;
use crate::host::doctor::finding::{Finding, Severity};
use crate::host::model::facts::HostFacts;
use crate::host::model::presence::{AwaitedInterface, InterfaceState};

/// Stable name of the check of other programs' rules.
const RULES: &str = "rules";

/// Reports an interface that is missing or down.
pub(crate) fn missing_interface(awaited: &AwaitedInterface) -> Finding {
    let why = "without this interface no packet passes, and natbox checked nothing else";
    Finding::error("interface", awaited.to_string(), why).fix(awaited.command())
}

/// Makes the findings about the host of a box.
pub(crate) fn evaluate(facts: &BoxFacts) -> Vec<Finding> {
    let mut findings = configuration(&facts.config, &facts.host);
    let without_address = box_uplinks::without_address(facts);
    // The steps for such an uplink differ from the steps that fit it with its address.
    let is_comparable = without_address.is_empty();
    findings.extend(without_address);
    // A rule that takes natbox's packets is best seen in the paths.
    let explains = |finding: &Finding| finding.severity == Severity::Error && finding.id != RULES;
    let is_complete = !findings.iter().any(explains);
    if facts.is_running && is_comparable {
        let steps = box_steps::evaluate(facts);
        let all_in_place = steps.is_empty();
        findings.extend(steps);
        if all_in_place {
            let found = format!("all {} settings of the host are in place", facts.steps.len());
            findings.push(Finding::ok("host", found));
        }
        // A missing address or setting explains wrong paths.
        let is_explained = !all_in_place || !is_complete;
        findings.extend(box_paths::evaluate(facts, is_explained));
    }
    findings.extend(network_programs::evaluate(facts));
    findings.extend(box_services::evaluate(facts));
    findings.extend(mtu::of_box(facts));
    findings.extend(offloads::evaluate(&facts.links, MachineRole::Forwards));
    findings.push(conntrack::of_box(facts));
    findings.extend(filters::unreadable(&facts.filters));
    findings.extend(box_firewall::evaluate(facts.filtered()));
    findings.extend(box_exposure::evaluate(facts.filtered()));
    findings.extend(box_uplinks::gateways(facts));
    findings.extend(box_uplinks::duplicates(facts));
    findings
}

/// Reports the conditions in which host and configuration differ, and the rules of other programs
/// that take natbox's packets.
pub(crate) fn configuration(config: &Config, host: &HostFacts) -> Vec<Finding> {
    let inside = &config.inside;
    let finding = |warning: &String| {
        if warning.starts_with("forwards:") {
            let why = "clients of this forward get no reply";
            return Finding::error("configuration", warning, why);
        }
        let mut legs = inside.legs.iter().zip(&host.legs).enumerate();
        let is_named = |place: usize| warning.starts_with(&inside.key_path(place, ""));
        match legs.find(|(place, _)| is_named(*place)) {
            Some((_, (leg, found))) => of_leg(warning, leg, found.state),
            None => {
                let why = "the configuration and the host do not match";
                Finding::warning("configuration", warning, why)
            }
        }
    };
    let preceding = |rule: &String| {
        let why = "packets in and out take the path of that rule and are lost";
        Finding::error(RULES, rule, why)
    };
    let findings = host.preceding_rules.iter().map(preceding);
    findings.chain(host.warnings.iter().map(finding)).collect()
}

/// Reports a leg that does not work: without the box's address or its interface, the leg's inside
/// hosts have no next hop.
fn of_leg(warning: &str, leg: &InsideLeg, state: InterfaceState) -> Finding {
    let interface = &leg.interface;
    let unreachable = "servers and inside hosts behind this interface cannot reach the box";
    match (state, leg.address) {
        (InterfaceState::Missing, _) => Finding::error("interface", warning, unreachable)
            .advice(format!("create {interface}, or correct its name in the configuration")),
        (InterfaceState::Down, _) => Finding::error("interface", warning, unreachable)
            .fix([format!("ip link set {interface} up")]),
        (InterfaceState::NoCarrier | InterfaceState::Up, address) => {
            let why = "servers and inside hosts send their packets to this address, and get no \
                       answer without it";
            let finding = Finding::error("configuration", warning, why);
            match address {
                Some(address) => {
                    let length = leg.prefix_of(address).map_or(32, |prefix| prefix.prefix_len());
                    finding.fix([format!("ip address add {address}/{length} dev {interface}")])
                }
                None => finding.advice(format!(
                    "assign the address that the servers use as their next hop: ip address add \
                     ADDRESS/LENGTH dev {interface}"
                )),
            }
        }
    }
}

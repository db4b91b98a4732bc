//! Checks that the host's filters let natbox's packets pass unchanged.

use std::collections::BTreeSet;

use super::box_packets::{PassingPacket, packets};
use super::filters::no_obstacle;
use crate::host::doctor::facts::box_facts::FilteredBox;
use crate::host::doctor::finding::Finding;
use crate::host::doctor::nft::filters::FilterOutcome;
use crate::host::doctor::nft::packet::FilteredPacket;
use crate::host::doctor::nft::ruleset::Chain;

/// Reports rules of other programs that drop or rewrite natbox's packets.
pub(crate) fn evaluate(facts: FilteredBox<'_>) -> Vec<Finding> {
    let mut report = ChainFindings::default();
    let mut doubts = BTreeSet::new();
    for PassingPacket { packet, hooks, name } in packets(facts) {
        for hook in hooks {
            let packet = match *hook {
                "ingress" | "prerouting" => FilteredPacket { oif: None, ..packet.clone() },
                _ => packet.clone(),
            };
            for (chain, outcome) in facts.filters.obstacles(hook, &packet, &mut doubts) {
                let selector = selector(facts, hook, &packet);
                report.add(chain, outcome, &name, &selector);
            }
        }
    }
    let mut findings = report.findings;
    if findings.is_empty() {
        findings.extend(no_obstacle(facts.filters, &doubts));
    }
    findings
}

/// Findings, one per chain.
#[derive(Default)]
struct ChainFindings {
    findings: Vec<Finding>,
    /// Name of the chain of each finding.
    chains: Vec<String>,
}

impl ChainFindings {
    fn add(&mut self, chain: &Chain, outcome: FilterOutcome, packets: &str, selector: &str) {
        let name = format!("{} {} {}", chain.family, chain.table, chain.name);
        let dropped = "dropped packets never reach natbox, or never leave the box";
        let (verb, why) = match outcome {
            FilterOutcome::Passes => return,
            FilterOutcome::Dropped => ("drops", dropped),
            FilterOutcome::Rewritten => (
                "rewrites the addresses of",
                "natbox translates already, and a second translation breaks replies",
            ),
            FilterOutcome::Uncertain => ("may drop or rewrite", dropped),
        };
        let command = format!("nft 'insert rule {name} {selector} accept'");
        if let Some(place) = self.chains.iter().position(|known| *known == name) {
            let fix = &mut self.findings[place].fix;
            if !fix.contains(&command) {
                fix.push(command);
            }
            return;
        }
        let found = format!("the chain `{name}` {verb} {packets}");
        let make = match outcome {
            FilterOutcome::Uncertain => Finding::warning,
            FilterOutcome::Passes | FilterOutcome::Dropped | FilterOutcome::Rewritten => {
                Finding::error
            }
        };
        self.findings.push(make("firewall", found, why.to_owned()).fix([command]));
        self.chains.push(name);
    }
}

/// Returns the condition of a rule that accepts a packet and as few others as possible.
fn selector(facts: FilteredBox<'_>, hook: &str, packet: &FilteredPacket<'_>) -> String {
    let tun = facts.config.tun.name.as_str();
    match (packet.iif, packet.oif) {
        (Some(iif), _) if iif == tun && hook != "egress" => format!("iifname \"{tun}\""),
        (Some(iif), None) => {
            let to = packet.to.map(|to| format!(" ip daddr {to}")).unwrap_or_default();
            format!("iifname \"{iif}\"{to}")
        }
        (_, Some(oif)) if oif == tun => format!("oifname \"{tun}\""),
        (_, Some(oif)) => {
            let from = packet.from.map(|from| format!(" ip saddr {from}")).unwrap_or_default();
            format!("oifname \"{oif}\"{from}")
        }
        (None, None) => format!("oifname \"{tun}\""),
    }
}

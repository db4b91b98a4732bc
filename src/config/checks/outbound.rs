//! `outbound` and `no_nat`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ipnet::Ipv4Net;

use crate::config::problem::Location;
use crate::config::reader::cursor::Located;
use crate::config::schema::Unresolved;
use crate::config::sections::{FileNoNatRule, FileOutboundRule, NoNatRule, OutboundRule};
use crate::values::nat::{ForwardProtocol, PortRange};

use super::checker::Checker;
use super::destinations;
use super::inside::InsideLegs;

/// Checks the outbound rules; None if one is not complete.
pub(super) fn check(
    rules: &[Located<FileOutboundRule>],
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) -> Option<Vec<OutboundRule>> {
    check_repeats(rules, checker);
    let rules: Vec<_> = rules.iter().map(|rule| outbound_rule(rule, inside, checker)).collect();
    rules.into_iter().collect()
}

/// Returns the destinations of a rule; none: all. None if one could not be read.
fn destinations(rule: &FileOutboundRule) -> Option<Vec<Ipv4Net>> {
    match &rule.to {
        Unresolved::Absent => Some(Vec::new()),
        Unresolved::Unreadable => None,
        Unresolved::Given(to) => to.value.values(),
    }
}

fn check_repeats(rules: &[Located<FileOutboundRule>], checker: &Checker<'_>) {
    let mut known: HashMap<(Ipv4Net, Vec<Ipv4Net>), &Location> = HashMap::new();
    for rule in rules {
        let (Some(from), Some(mut to)) = (&rule.from, destinations(rule)) else { continue };
        let wanted = match to.is_empty() {
            true => "one rule for each prefix",
            false => "one rule for each prefix and its destinations",
        };
        to.sort();
        match known.entry((from.value, to)) {
            Entry::Vacant(vacant) => {
                vacant.insert(&from.location);
            }
            Entry::Occupied(first) => {
                let found = format!("{} again (first in {})", from.value, first.get().key);
                checker.diagnostics.report(&from.location, found, wanted, "join the two");
            }
        }
    }
}

fn outbound_rule(
    rule: &FileOutboundRule,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) -> Option<OutboundRule> {
    if let Some(from) = &rule.from
        && !inside.may_hold(from.value)
    {
        let wanted = format!("a prefix within {}", inside.known_prefixes());
        let advice = format!("correct it, or add it to `{}`", inside.prefixes_key());
        checker.diagnostics.report(&from.location, from.value.to_string(), wanted, advice);
    }
    if let (Some(from), Some(to)) = (&rule.from, rule.to.given()) {
        for to in &to.value.readable {
            destinations::check_outbound(from.value, to, inside, checker);
        }
    }
    let uplinks = checker.chosen_uplinks(&rule.uplinks);
    Some(OutboundRule {
        from: rule.from.as_ref()?.value,
        to: destinations(rule)?,
        uplinks: uplinks?,
        hash_by: rule.hash_by,
    })
}

/// Checks the rules without translation; None if one is not complete.
pub(super) fn check_no_nat(
    rules: &[Located<FileNoNatRule>],
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) -> Option<Vec<NoNatRule>> {
    let rules: Vec<_> = rules.iter().map(|rule| no_nat_rule(rule, inside, checker)).collect();
    rules.into_iter().collect()
}

fn no_nat_rule(
    rule: &FileNoNatRule,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) -> Option<NoNatRule> {
    if let Some(to) = &rule.to {
        destinations::check_bypassed(to, inside, checker);
    }
    let protocol = rule.protocol.clone().or_default(ForwardProtocol::Any);
    if let (Some(port), Some(ForwardProtocol::Icmp | ForwardProtocol::Any)) =
        (rule.port.given(), protocol)
    {
        let found = format!("`{}`", port.value);
        let wanted = "no `port`, because the protocol has none";
        checker.diagnostics.report(
            &port.location,
            found,
            wanted,
            "add `protocol: tcp` (or udp, tcp+udp)",
        );
    }
    Some(NoNatRule {
        to: rule.to.as_ref()?.value,
        protocol: protocol?,
        ports: rule.port.clone().or_default(PortRange::ALL)?,
    })
}

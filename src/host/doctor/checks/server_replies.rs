//! Checks that the replies from an address go to the box that forwards to it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::box_steps::RP_FILTER_STRICT;
use crate::host::doctor::facts::first_hop::FirstHop;
use crate::host::doctor::facts::server_facts::{AddressFacts, ServerFacts};
use crate::host::doctor::finding::Finding;
use crate::host::kernel::route_lookup::{NeighbourState, RouteResult};
use crate::host::model::snapshot::FoundRule;
use crate::host::model::step::{RouteKind, RuleAction, TABLE_LOCAL, TABLE_MAIN};
use crate::host::render::server_targets::server_table;

/// `default` of rt_tables, the last table that the kernel tries.
const TABLE_DEFAULT: u32 = 253;
const ID: &str = "replies";

/// Checks the path of the replies and of the requests.
pub(super) fn evaluate(facts: &ServerFacts, entry: &AddressFacts) -> Vec<Finding> {
    let Some(route) = &entry.reply_route else { return Vec::new() };
    let mut findings = vec![replies(&RepliesCheck::new(facts, entry, route))];
    findings.extend(next_hop(facts, entry));
    findings.extend(arrival(facts, entry));
    findings
}

/// The inputs of the check of one address.
struct RepliesCheck<'a> {
    facts: &'a ServerFacts,
    entry: &'a AddressFacts,
    /// Name of the box.
    name: &'a str,
    /// Inside address of the box, if the configuration has it.
    expected: Option<Ipv4Addr>,
    route: &'a RouteResult,
    why: String,
}

impl<'a> RepliesCheck<'a> {
    fn new(facts: &'a ServerFacts, entry: &'a AddressFacts, route: &'a RouteResult) -> Self {
        let config = facts.through(entry);
        let leg = config.inside.leg_of(entry.address);
        let (name, expected) = (config.name.as_str(), leg.and_then(|leg| leg.address));
        let why = format!(
            "clients expect replies from an external address of {name}; another box would give the \
             replies another source"
        );
        Self { facts, entry, name, expected, route, why }
    }

    fn first_hop(&self) -> Option<&FirstHop> {
        self.entry.first_hop.as_ref().map(|probe| &probe.first_hop)
    }

    /// Formats the result of the probe, for a route that is wrong already.
    fn proof(&self) -> String {
        match self.first_hop() {
            Some(FirstHop::Router(router)) => format!("; a packet with TTL 1 dies at {router}"),
            Some(FirstHop::Silent) => "; no router answers a packet with TTL 1".into(),
            Some(FirstHop::NotProbed(_)) | None => String::new(),
        }
    }

    fn error(&self, found: String) -> Finding {
        Finding::error(ID, found, &self.why)
    }

    fn warning(&self, found: String) -> Finding {
        Finding::warning(ID, found, &self.why)
    }
}

/// Checks the kernel's route of packets from the address, and the proof by a packet.
fn replies(check: &RepliesCheck<'_>) -> Finding {
    let RepliesCheck { facts, entry, name, expected, route, .. } = check;
    let (address, via) = (entry.address, entry.via());
    if via.is_none() || expected.is_some_and(|expected| via != Some(expected)) {
        let target = expected.map(|expected| format!(" ({expected})")).unwrap_or_default();
        let (outside, proof) = (facts.outside, check.proof());
        let found = format!(
            "packets from {address} to {outside} must go to {name}{target} but {route}{proof}"
        );
        return fix_route(check, check.error(found));
    }
    if expected.is_some() {
        return proven(check);
    }
    let same =
        facts.addresses.iter().find(|other| other.through != entry.through && other.via() == via);
    if let Some(other) = same {
        let found = format!(
            "packets from {address} {route}, and so do packets from {} for {}",
            other.address,
            facts.through(other).name
        );
        return fix_route(check, check.error(found));
    }
    let found = format!(
        "packets from {address} {route}{}; natbox does not know whether that is {name}",
        check.proof()
    );
    check.warning(found).advice(format!("set inside.address in the configuration of {name}"))
}

/// Evaluates the probe for an address whose route is right according to the kernel.
fn proven(check: &RepliesCheck<'_>) -> Finding {
    let RepliesCheck { facts, entry, name, route, .. } = check;
    let right = format!("packets from {} {route}, which is {name}", entry.address);
    let legs = facts.configs.iter().flat_map(|config| &config.inside.legs);
    let mut inside = legs.filter_map(|leg| leg.address);
    match check.first_hop() {
        Some(FirstHop::Router(router)) if Some(*router) == entry.via() => {
            Finding::ok(ID, format!("{right}; proven: a packet with TTL 1 died at {router}"))
        }
        Some(FirstHop::Router(router)) if inside.any(|other| other == *router) => {
            let found = format!(
                "{right} according to the kernel, but a packet with TTL 1 died at {router}, \
                 another box"
            );
            check.error(found).advice(format!(
                "compare on {name}: ip address show; and on this machine: ip neighbour show"
            ))
        }
        Some(FirstHop::Router(router)) => {
            let found = format!(
                "{right}; but a packet with TTL 1 died at {router}, which is in no configuration"
            );
            check.warning(found).advice(format!(
                "check on {name} whether {router} is another address of it; then all is well"
            ))
        }
        Some(FirstHop::Silent) => Finding::warning(
            ID,
            format!("{right}; but no router answered a packet with TTL 1"),
            format!("{name} may be off, may not forward, or may not send ICMP errors"),
        )
        .advice(format!("run natbox doctor on {name}")),
        Some(FirstHop::NotProbed(error)) => check
            .warning(format!("{right} according to the kernel; natbox sent no packet: {error}"))
            .advice("run natbox doctor as root"),
        None => Finding::ok(ID, format!("{right} according to the kernel; no packet was sent")),
    }
}

/// Adds the commands that lead an address to its box.
fn fix_route(check: &RepliesCheck<'_>, finding: Finding) -> Finding {
    let RepliesCheck { facts, entry, name, expected, .. } = check;
    let gateway = match expected {
        Some(address) => address.to_string(),
        None => format!("\"${{BOX:?set it to the inside address of {name}}}\""),
    };
    let device = facts.interface(entry);
    // Behind a single box, the main table's default route is enough.
    if facts.configs.len() == 1 {
        return finding.fix([format!("ip route replace default via {gateway} dev {device}")]);
    }
    let own = own_rule(facts, entry.address);
    let table = own.as_ref().map_or(server_table(entry.through), |own| own.table);
    let leads_there = expected.is_some()
        && facts.snapshot.routes.iter().any(|found| {
            let route = &found.route;
            (route.table, route.kind, route.to.prefix_len()) == (table, RouteKind::Unicast, 0)
                && route.via == *expected
        });
    let mut commands = Vec::new();
    if own.is_none() {
        let private: BTreeSet<Ipv4Net> =
            facts.configs.iter().flat_map(|config| config.inside.prefixes()).collect();
        commands.extend(
            private.iter().map(|network| format!("ip route replace throw {network} table {table}")),
        );
    }
    if !leads_there {
        commands.push(format!("ip route replace default via {gateway} dev {device} table {table}"));
    }
    let priorities = facts.snapshot.rules.iter().map(|found| found.rule.priority);
    let before_all =
        priorities.filter(|priority| *priority > 0).min().map(|lowest| lowest.saturating_sub(1));
    let priority = match own {
        None => Some(before_all.map_or(table, |before| table.min(before))),
        // The rule is right, but the kernel tries another rule first.
        Some(own) if leads_there => {
            Some(before_all.unwrap_or(own.rule.rule.priority.saturating_sub(1)))
        }
        Some(_) => None,
    };
    commands.extend(priority.map(|priority| {
        format!("ip rule add from {} lookup {table} priority {priority}", entry.address)
    }));
    finding.fix(commands)
}

/// The rule for packets from exactly one address.
struct OwnRule<'a> {
    rule: &'a FoundRule,
    /// A table that no other rule uses, so that its routes may be replaced.
    table: u32,
}

fn own_rule(facts: &ServerFacts, address: Ipv4Addr) -> Option<OwnRule<'_>> {
    let rules = &facts.snapshot.rules;
    rules.iter().find_map(|found| {
        let rule = &found.rule;
        let is_plain = !found.more && rule.iif.is_none() && rule.to.is_none() && rule.udp.is_none();
        let RuleAction::Lookup(table) = rule.action else { return None };
        let is_common = [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT].contains(&table);
        let has_other_users = || {
            rules
                .iter()
                .any(|other| other.rule.action == rule.action && other.rule.from != rule.from)
        };
        let is_own = is_plain && rule.from == Some(Ipv4Net::from(address));
        (is_own && !is_common && !has_other_users()).then_some(OwnRule { rule: found, table })
    })
}

/// Checks that the next hop answers ARP.
fn next_hop(facts: &ServerFacts, entry: &AddressFacts) -> Option<Finding> {
    let Some(RouteResult::Unicast { device, via: Some(via) }) = &entry.reply_route else {
        return None;
    };
    let hop = format!("{via} on {device}, the next hop of {},", entry.address);
    let finding = match entry.next_hop {
        Some(NeighbourState::Reachable) => return None,
        Some(NeighbourState::Failed) | None => Finding::error(
            "next-hop",
            format!("{hop} does not answer ARP"),
            "replies are lost on the private network",
        ),
        Some(NeighbourState::Unconfirmed) => Finding::warning(
            "next-hop",
            format!("{hop} has not answered ARP yet"),
            "if the next hop does not answer, replies are lost on the private network",
        ),
    };
    let name = &facts.through(entry).name;
    Some(finding.advice(format!(
        "check that {name} is on and has the address {via}: ip neighbour show dev {device}"
    )))
}

/// Checks that the kernel accepts requests to the address.
fn arrival(facts: &ServerFacts, entry: &AddressFacts) -> Option<Finding> {
    let (interface, Some(RouteResult::Dropped(reason))) =
        (entry.interface.as_ref()?, &entry.request_route)
    else {
        return None;
    };
    let (outside, address) = (facts.outside, entry.address);
    let found =
        format!("requests from {outside} to {address} in by {interface} are dropped: {reason}");
    let why = "the kernel drops the clients' requests before any program gets them";
    let finding = Finding::error("arrival", found, why);
    let link = facts.links.iter().find(|link| link.interface == *interface);
    let is_strict = link.is_some_and(|link| link.rp_filter == RP_FILTER_STRICT);
    Some(match is_strict {
        true => finding.fix([format!("sysctl -w net/ipv4/conf/{interface}/rp_filter=2")]),
        false => finding.advice("the sources have no route back; fix the replies first"),
    })
}

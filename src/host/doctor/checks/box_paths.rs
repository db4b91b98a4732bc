//! Checks that packets take the right path through the box.

use crate::host::doctor::facts::box_facts::{BoxFacts, ExpectedPath};
use crate::host::doctor::finding::Finding;
use crate::host::kernel::route_lookup::RouteResult;
use crate::host::model::snapshot::FoundRule;
use crate::host::model::step::{Rule, Step};

/// Largest number of paths that one finding names.
const MAX_SHOWN: usize = 3;

/// Reports paths that differ although every setting is in place. With `is_explained`, another
/// finding explains wrong paths.
pub(super) fn evaluate(facts: &BoxFacts, is_explained: bool) -> Option<Finding> {
    if facts.paths.is_empty() {
        return None;
    }
    let wrong: Vec<&ExpectedPath> = facts.paths.iter().filter(|path| !is_right(path)).collect();
    if wrong.is_empty() {
        let found = format!("packets take all {} paths through natbox", facts.paths.len());
        return Some(Finding::ok("path", found));
    }
    (!is_explained).then(|| wrong_paths(facts, &wrong))
}

fn is_right(path: &ExpectedPath) -> bool {
    match &path.result {
        RouteResult::Unicast { device, via } => {
            *device == path.device && path.via.is_none_or(|wanted| *via == Some(wanted))
        }
        RouteResult::Local | RouteResult::Dropped(_) => false,
    }
}

fn wrong_paths(facts: &BoxFacts, wrong: &[&ExpectedPath]) -> Finding {
    let shown = wrong.iter().take(MAX_SHOWN).map(|path| {
        let ExpectedPath { packets, query, result, device, .. } = path;
        let iif = query.iif.as_deref().unwrap_or("lo");
        format!(
            "{packets} (from {} to {} iif {iif}) must leave by {device} but {result}",
            query.from, query.to
        )
    });
    let finding = Finding::error(
        "path",
        shown.collect::<Vec<_>>().join("; "),
        "the kernel routes these packets past natbox",
    );
    if facts.other_rules.is_empty() {
        return finding.advice("check: ip rule show; ip route show table all");
    }
    let rules: Vec<String> = facts.other_rules.iter().map(|found| words(&found.rule)).collect();
    let advice = format!(
        "the kernel tries rules of other programs first ({}); let them spare natbox's interfaces",
        rules.join("; ")
    );
    finding.advice(advice).fix(commands(facts))
}

/// Lists the commands that move other programs' rules behind natbox's.
fn commands(facts: &BoxFacts) -> Vec<String> {
    let priorities = facts.steps.iter().filter_map(|(step, _)| match step {
        Step::Rule(rule) => Some(rule.priority),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Sysctl { .. }
        | Step::Route(_)
        | Step::ProxyNeighbour { .. }
        | Step::SetLocalRuleAside
        | Step::KeepMainRule => None,
    });
    let behind = priorities.max().unwrap_or(0) + 1;
    let before = |found: &&FoundRule| !found.more && found.rule.priority < behind;
    facts.other_rules.iter().filter(before).flat_map(|found| move_rule(found, behind)).collect()
}

/// Moves another program's rule behind natbox's rules. The new rule comes first, so that the rule
/// exists at every moment.
fn move_rule(found: &FoundRule, behind: u32) -> [String; 2] {
    let moved = Rule { priority: behind + found.rule.priority, ..found.rule.clone() };
    [format!("ip rule add {}", words(&moved)), format!("ip rule del {}", words(&found.rule))]
}

fn words(rule: &Rule) -> String {
    format!("priority {} {}", rule.priority, rule.words())
}

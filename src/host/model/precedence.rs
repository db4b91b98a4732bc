//! The place of natbox's rules among the rules of other programs.
//!
//! A rule that another program adds without a priority gets the priority before the lowest one in
//! use, the local rule aside (net/core/fib_rules.c, `fib_default_rule_pref`). A VPN client that
//! starts after natbox so gets a place before natbox's rules, and takes their packets. natbox then
//! moves its own rules before such a rule.
//!
//! If a rule takes only some of natbox's packets, natbox leaves it alone: a person who routes one
//! host by another path wants that exception.

use ipnet::Ipv4Net;

use super::settings::interface_names;
use super::snapshot::{FoundRule, Snapshot};
use crate::config::Config;

/// Priorities of one instance.
pub(super) const PRIORITIES_PER_INSTANCE: u32 = 16;

/// A place for a block of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The block begins at this priority, before every rule that takes natbox's packets.
    At(u32),
    /// No block is free before a rule that takes natbox's packets.
    Behind,
}

/// Finds a place for a block of rules. `taken` holds the priorities in use, `preferred` the first
/// priority to try.
pub(super) fn place(snapshot: &Snapshot, config: &Config, taken: &[u32], preferred: u32) -> Place {
    let taking = snapshot.rules.iter().filter(|found| takes_packets(found, config));
    let limit = taking.map(|found| found.rule.priority).min().unwrap_or(u32::MAX);
    let is_free = |first: u32| {
        let block = first..first + PRIORITIES_PER_INSTANCE;
        block.end <= limit && !taken.iter().any(|priority| block.contains(priority))
    };
    let below = |end: u32| end.checked_sub(PRIORITIES_PER_INSTANCE).filter(|first| *first > 0);
    let blocks = std::iter::successors(below(limit.min(preferred + PRIORITIES_PER_INSTANCE)), {
        |first| below(*first)
    });
    let mut candidates = std::iter::once(preferred).chain(blocks);
    candidates.find(|first| is_free(*first)).map_or(Place::Behind, Place::At)
}

/// Lists the rules of other programs that take natbox's packets and precede its rules, whose first
/// priority is `first`.
pub(crate) fn preceding<'s>(
    snapshot: &'s Snapshot,
    config: &'s Config,
    first: u32,
) -> impl Iterator<Item = &'s FoundRule> {
    let precedes = move |found: &&FoundRule| found.rule.priority < first;
    snapshot.rules.iter().filter(precedes).filter(|found| takes_packets(found, config))
}

/// Returns true for a rule of another program that takes all packets of one of natbox's paths.
fn takes_packets(found: &FoundRule, config: &Config) -> bool {
    if found.is_natbox() || found.is_local() && found.rule.priority == 0 {
        return false;
    }
    if found.is_inverted {
        return true;
    }
    let rule = &found.rule;
    let is_ours = |interface: &String| {
        *interface == config.tun.name || interface_names(config).contains(&interface.as_str())
    };
    let takes =
        |prefix: Option<Ipv4Net>| prefix.is_none_or(|prefix| holds_a_network(prefix, config));
    !found.is_narrow
        && rule.udp.is_none()
        && rule.iif.as_ref().is_none_or(is_ours)
        && takes(rule.from)
        && takes(rule.to)
}

/// Returns true for a prefix with a whole inside prefix or with an external address.
fn holds_a_network(prefix: Ipv4Net, config: &Config) -> bool {
    let mut external = config.uplinks.iter().flat_map(|uplink| &uplink.addresses);
    config.inside.prefixes().any(|inside| prefix.contains(&inside))
        || external.any(|address| prefix.contains(address))
}

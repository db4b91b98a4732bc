//! The place of natbox's rules among the rules of other programs.
//!
//! A rule that another program adds without a priority gets the priority before the lowest one in
//! use, the local rule aside (net/core/fib_rules.c, `fib_default_rule_pref`). A VPN client that
//! starts after natbox so gets a place before natbox's rules, and takes their packets. natbox then
//! moves its own rules before such a rule.
//!
//! If a rule takes only some of natbox's packets, natbox leaves it alone: a person who routes one
//! inside host by another path wants that exception. Remote hosts are anywhere, and replies to each
//! of them belong on the uplink of the request. So a rule for destinations outside always counts.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::private_filter::PRIVATE;
use super::settings::interface_names;
use super::snapshot::{FoundRoute, FoundRule, RuleEffect, Snapshot};
use super::step::{RouteKind, RuleAction};
use crate::config::Config;

/// Priorities of one instance.
pub(super) const PRIORITIES_PER_INSTANCE: u32 = 16;

/// Addresses that no remote host has, beside private ones: this network (RFC 1122 section
/// 3.2.1.3), multicast groups and reserved addresses.
const NO_HOSTS: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Longest prefix that is a part of the Internet. A longer one may be one network.
const PART_OF_INTERNET: u8 = 8;

/// Incoming interface of the host's own packets.
const LOOPBACK: &str = "lo";

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
    let look = Look { snapshot, config };
    let limit = |first: u32| {
        let taking = snapshot.rules.iter().filter(|found| look.takes_packets(found, first));
        taking.map(|found| found.rule.priority).min().unwrap_or(u32::MAX)
    };
    let is_free = |first: u32| {
        let block = first..first + PRIORITIES_PER_INSTANCE;
        block.end <= limit(first) && !taken.iter().any(|priority| block.contains(priority))
    };
    let below = |end: u32| end.checked_sub(PRIORITIES_PER_INSTANCE).filter(|first| *first > 0);
    let end = limit(preferred).min(preferred + PRIORITIES_PER_INSTANCE);
    let blocks = std::iter::successors(below(end), |first| below(*first));
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
    let look = Look { snapshot, config };
    let precedes = move |found: &&FoundRule| found.rule.priority < first;
    let rules = snapshot.rules.iter().filter(precedes);
    rules.filter(move |found| look.takes_packets(found, first))
}

/// What decides whether a rule takes natbox's packets.
#[derive(Clone, Copy)]
struct Look<'a> {
    snapshot: &'a Snapshot,
    config: &'a Config,
}

impl Look<'_> {
    /// Returns true for a rule of another program that takes all packets of one of natbox's paths,
    /// or those to a remote host. `first`: the first priority of natbox's rules.
    fn takes_packets(&self, found: &FoundRule, first: u32) -> bool {
        if found.is_natbox() || found.is_local() && found.rule.priority == 0 {
            return false;
        }
        let is_selected = match found.is_inverted {
            true => found.is_narrow || has_selector(found),
            false => !found.is_narrow && self.selects_packets(found),
        };
        let takes = match found.effect {
            RuleEffect::Lookup => self.has_route(found),
            RuleEffect::Drop => true,
            // A jump behind natbox's rules passes over them.
            RuleEffect::Goto(target) => target > first,
            RuleEffect::Continue => false,
        };
        is_selected && takes
    }

    /// Returns true when the selectors match natbox's packets.
    ///
    /// A packet that the host forwards has no outgoing interface yet. Nor has a packet of the host
    /// itself, unless its socket is bound to one. natbox binds none.
    fn selects_packets(&self, found: &FoundRule) -> bool {
        let rule = &found.rule;
        let is_ours = |interface: &String| {
            let names = interface_names(self.config);
            *interface == self.config.tun.name
                || interface == LOOPBACK
                || names.contains(&interface.as_str())
        };
        let holds_ours = |prefix: Option<Ipv4Net>| {
            prefix.is_none_or(|prefix| holds_a_network(prefix, self.config))
        };
        let is_from_part =
            rule.from.is_some_and(|from| is_remote(from) && from.prefix_len() <= PART_OF_INTERNET);
        let is_to_remote = rule.to.is_some_and(is_remote);
        rule.udp.is_none()
            && rule.udp_source.is_none()
            && rule.oif.is_none()
            && rule.iif.as_ref().is_none_or(is_ours)
            && match (holds_ours(rule.from), holds_ours(rule.to)) {
                (true, true) => true,
                (true, false) => is_to_remote,
                (false, true) => is_from_part,
                (false, false) => false,
            }
    }

    /// Returns true when the table of a rule has a route for natbox's packets.
    ///
    /// For destinations outside that hold no address of natbox, a part of the Internet counts. A
    /// route to one network behind the host is an exception that a person wants.
    fn has_route(&self, found: &FoundRule) -> bool {
        let RuleAction::Lookup(table) = found.rule.action else { return true };
        // A look at the rules alone knows no routes.
        if self.snapshot.routes.is_empty() {
            return true;
        }
        let to = found.rule.to.filter(|_| !found.is_inverted);
        let is_exception = |route: &FoundRoute| {
            route.route.to.prefix_len() > PART_OF_INTERNET
                && to.is_some_and(|to| !holds_a_network(to, self.config))
        };
        let in_group = |route: &FoundRoute| {
            let link = route.route.device.as_ref().and_then(|name| self.snapshot.link(name));
            link.is_some_and(|link| Some(link.group) == found.rule.suppress_group)
        };
        let is_short = |route: &FoundRoute| {
            let shortest = found.rule.suppress_prefix_length;
            shortest.is_some_and(|shortest| u32::from(route.route.to.prefix_len()) <= shortest)
        };
        let meets = |route: &FoundRoute| {
            let network = route.route.to;
            to.is_none_or(|to| to.contains(&network) || network.contains(&to))
        };
        let mut routes = self.snapshot.routes.iter().filter(|found| found.route.table == table);
        routes.any(|route| {
            route.route.kind != RouteKind::Throw
                && meets(route)
                && !is_exception(route)
                && !in_group(route)
                && !is_short(route)
        })
    }
}

/// Returns true for a rule with a selector that [`super::step::Rule`] holds.
fn has_selector(found: &FoundRule) -> bool {
    let rule = &found.rule;
    let has_prefix = [rule.from, rule.to].iter().any(Option::is_some);
    let has_interface = [&rule.iif, &rule.oif].iter().any(|interface| interface.is_some());
    has_prefix || has_interface || rule.udp.is_some() || rule.udp_source.is_some()
}

/// Returns true for a prefix with addresses that a host on the Internet may have.
fn is_remote(prefix: Ipv4Net) -> bool {
    !PRIVATE.iter().chain(&NO_HOSTS).any(|network| network.contains(&prefix))
}

/// Returns true for a prefix with a whole inside prefix or with an external address.
fn holds_a_network(prefix: Ipv4Net, config: &Config) -> bool {
    let mut external = config.uplinks.iter().flat_map(|uplink| &uplink.addresses);
    config.inside.prefixes().any(|inside| prefix.contains(&inside))
        || external.any(|address| prefix.contains(address))
}

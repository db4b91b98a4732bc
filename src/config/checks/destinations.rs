//! Destinations of `outbound` and `no_nat`: whether packets to them pass natbox, and what a rule
//! without translation opens.

use ipnet::Ipv4Net;

use crate::config::reader::cursor::Located;
use crate::config::types::network;

use super::checker::Checker;
use super::inside::InsideLegs;

/// Shortest prefix without translation: the largest private network is 10.0.0.0/8 (RFC 1918).
const SHORTEST_BYPASS: u8 = 8;

/// Reports a destination of a `no_nat` rule that no packet has, or that opens the inside to hosts
/// of the Internet.
pub(super) fn check_bypassed(
    to: &Located<Ipv4Net>,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) {
    let prefix = to.value;
    if check_unicast(to, checker) {
        return;
    }
    if prefix.prefix_len() < SHORTEST_BYPASS {
        let found = format!("{prefix}, a large part of all addresses");
        let wanted = format!(
            "networks that route {} back to this box, each at most a /{SHORTEST_BYPASS}",
            inside.known_prefixes()
        );
        let advice = "list these networks alone: each of their hosts reaches every inside host \
                      without a forward";
        checker.diagnostics.report(&to.location, found, wanted, advice);
    } else if let Some(own) = inside.prefix_around(prefix) {
        let found = format!("{prefix}, which lies in the inside prefix {own}");
        let advice = "remove the rule: natbox translates no packet between inside hosts";
        checker.diagnostics.report(&to.location, found, "destinations outside", advice);
    } else if let Some(own) = external_part(prefix, checker) {
        let found = format!("{prefix}, which is an address of this box ({own})");
        let advice = "remove the rule: inside hosts reach published services with nat.hairpin";
        checker.diagnostics.report(&to.location, found, "destinations beyond this box", advice);
    } else if let Some(own) = inside.prefix_within(prefix) {
        let found = format!("{prefix}, which holds the inside prefix {own}");
        let advice = format!(
            "if other sites are meant, list their networks: each host of {prefix} reaches every \
             inside host without a forward"
        );
        checker.diagnostics.warn(&to.location, found, "only networks behind the uplinks", advice);
    }
}

/// Reports a destination of an outbound rule that no packet through natbox has. `from`: the sources
/// of the rule.
pub(super) fn check_outbound(
    from: Ipv4Net,
    to: &Located<Ipv4Net>,
    inside: &InsideLegs<'_>,
    checker: &Checker<'_>,
) {
    if check_unicast(to, checker) {
        return;
    }
    if let Some(own) = inside.leg_of_both(from, to.value) {
        let found = format!("{}, which lies behind {own} like the sources", to.value);
        let advice = "remove it: hosts of one leg reach each other without natbox";
        let wanted = "destinations outside, or behind another inside leg";
        checker.diagnostics.report(&to.location, found, wanted, advice);
    }
}

/// Reports addresses that no other host has. Returns true for them.
fn check_unicast(to: &Located<Ipv4Net>, checker: &Checker<'_>) -> bool {
    let Some(kind) = network::kind_of_no_host(to.value) else { return false };
    let found = format!("{}, {kind} addresses", to.value);
    checker.diagnostics.report(
        &to.location,
        found,
        "addresses that hosts beyond this box may have",
        "remove or correct it: no packet to them passes natbox",
    );
    true
}

/// Returns the key of the external addresses that make up a whole prefix.
fn external_part(prefix: Ipv4Net, checker: &Checker<'_>) -> Option<String> {
    let mut hosts = (prefix.network().to_bits()..=prefix.broadcast().to_bits()).map(Into::into);
    let external = checker.external_addresses();
    let first = external.into_iter().find(|known| known.contains(&prefix.network()))?;
    let is_external = |host| checker.external_addresses().any(|known| known.contains(&host));
    hosts.all(is_external).then(|| first.location.key.clone())
}

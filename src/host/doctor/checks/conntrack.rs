//! Checks connection tracking beside natbox.
//!
//! The rules decide whether the kernel tracks packets. The count of connections does not: it
//! includes the host's own connections, and old entries stay for days. `notrack` rules for natbox's
//! packets are safe only where no rule matches a connection's state. For such a rule the packets
//! would belong to no connection, and the rule would drop them.

use std::net::Ipv4Addr;

use crate::host::doctor::facts::box_facts::BoxFacts;
use crate::host::doctor::facts::samples::OUTSIDE_SAMPLES;
use crate::host::doctor::finding::Finding;
use crate::host::doctor::nft::filters::{ConntrackUsage, Filters};
use crate::host::doctor::nft::packet::{FilteredPacket, Tracking};

/// Checks connection tracking on a box.
pub(crate) fn of_box(facts: &BoxFacts) -> Finding {
    let filters = &facts.filters;
    let Some(usage) = filters.conntrack else { return not_loaded() };
    let tracking = filters.tracking_use();
    let is_readable = filters.unreadable.is_none() && !filters.legacy;
    let is_untracked = is_untracked(facts);
    // An address that is assigned to the host serves the host's other connections as well, and
    // another program may translate those.
    let may_untrack = is_readable
        && !tracking.matches_state
        && !is_untracked
        && !facts.host.any_assigned_to_host();
    let commands = if may_untrack { untrack(facts) } else { Vec::new() };
    if is_full(usage) {
        return full(usage, commands);
    }
    let ok = |found: String| Finding::ok("conntrack", found);
    let counted = counted(usage);
    if is_untracked {
        return ok("nf_conntrack is loaded, and natbox's packets are untracked".into());
    }
    if !is_readable {
        return ok(format!(
            "nf_conntrack is loaded: {counted}; natbox could not read whether its packets are \
             among them"
        ));
    }
    if !tracking.tracks {
        return ok("nf_conntrack is loaded, and no rule of nftables uses it".into());
    }
    let finding = Finding::warning(
        "conntrack",
        format!("nf_conntrack is in the path: {counted}"),
        "the kernel tracks every packet in addition to natbox, and drops packets when its table is \
         full",
    );
    match commands.is_empty() {
        false => finding.fix(commands),
        true => finding.advice(format!(
            "raise net.netfilter.nf_conntrack_max well above limits.sessions; or untrack natbox's \
             packets by hand: first accept the packets of {} in all chains, before any rule that \
             matches a state, then add notrack rules for them",
            facts.config.tun.name
        )),
    }
}

/// Checks connection tracking on a server, where it is often wanted.
pub(crate) fn of_server(filters: &Filters) -> Finding {
    match filters.conntrack {
        None => not_loaded(),
        Some(usage) if is_full(usage) => full(usage, Vec::new()),
        Some(usage) => Finding::ok("conntrack", format!("nf_conntrack: {}", counted(usage))),
    }
}

fn counted(usage: ConntrackUsage) -> String {
    format!("the kernel tracks {} of at most {} connections", usage.count, usage.max)
}

fn not_loaded() -> Finding {
    Finding::ok("conntrack", "nf_conntrack is not loaded")
}

/// Returns true from 90 % on.
fn is_full(usage: ConntrackUsage) -> bool {
    usage.count * 10 >= usage.max * 9 && usage.count > 0
}

fn full(usage: ConntrackUsage, untrack: Vec<String>) -> Finding {
    let larger =
        format!("sysctl -w net.netfilter.nf_conntrack_max={}", usage.max.saturating_mul(4));
    Finding::error(
        "conntrack",
        format!("nf_conntrack is nearly full: {}", counted(usage)),
        "when the table is full, the kernel drops the packets of new connections",
    )
    .fix(std::iter::once(larger).chain(untrack))
}

/// Returns true when `notrack` rules match all of natbox's packets.
fn is_untracked(facts: &BoxFacts) -> bool {
    let from = |iif| FilteredPacket { iif: Some(iif), ..FilteredPacket::default() };
    let has_notrack =
        |packet: &FilteredPacket<'_>| facts.filters.tracking(packet) == Tracking::Untracked;
    let inside = &facts.config.inside;
    let outside = OUTSIDE_SAMPLES.into_iter().find(|to| !inside.contains(*to));
    let requests = facts.config.uplinks.iter().all(|uplink| {
        let mut addresses = uplink.addresses.iter();
        addresses
            .all(|to| has_notrack(&FilteredPacket { to: Some(*to), ..from(&uplink.interface) }))
    });
    requests
        && has_notrack(&from(&facts.config.tun.name))
        && inside
            .legs
            .iter()
            .all(|leg| has_notrack(&FilteredPacket { to: outside, ..from(&leg.interface) }))
}

/// Lists the commands that add `notrack` rules for natbox's packets.
fn untrack(facts: &BoxFacts) -> Vec<String> {
    let inside = &facts.config.inside;
    // Another program may translate the inside's connections to the host itself.
    let own = facts.host.uplinks.iter().filter_map(|interface| interface.address);
    let own = own.filter(|address| !inside.contains(*address));
    let mut tracked: Vec<String> = inside
        .prefixes()
        .map(|prefix| prefix.to_string())
        .chain(own.map(|own| own.to_string()))
        .collect();
    tracked.sort();
    tracked.dedup();
    let mut commands = vec![
        "nft 'add table ip natbox'".to_owned(),
        "nft 'add chain ip natbox untracked { type filter hook prerouting priority raw; }'".into(),
    ];
    let mut rule =
        |text: String| commands.push(format!("nft 'add rule ip natbox untracked {text} notrack'"));
    rule(format!("iifname \"{}\"", facts.config.tun.name));
    for leg in &inside.legs {
        let interface = &leg.interface;
        rule(format!("iifname \"{interface}\" ip daddr != {{ {} }}", tracked.join(", ")));
    }
    for uplink in &facts.config.uplinks {
        let addresses: Vec<String> = uplink.addresses.iter().map(Ipv4Addr::to_string).collect();
        if !addresses.is_empty() {
            let (interface, addresses) = (&uplink.interface, addresses.join(", "));
            rule(format!("iifname \"{interface}\" ip daddr {{ {addresses} }}"));
        }
    }
    commands
}

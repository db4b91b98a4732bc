//! What is thought of connection tracking beside natbox.
//!
//! Whether anything is tracked follows from the rules, not from the count of connections: what the host itself sends is counted as well,
//! and what was tracked once stays for days. To take natbox's packets out of it is safe only where no rule asks for a state: to such a
//! rule they would belong to no connection, and be dropped.

use std::net::Ipv4Addr;

use crate::host::doctor::Finding;
use crate::host::doctor::facts::box_facts::{BoxFacts, OUTSIDE_SAMPLES};
use crate::host::doctor::nft::filters::{Filters, Packet, Tracking};

/// Beside a box.
pub(crate) fn of_box(seen: &BoxFacts) -> Finding {
    let filters = &seen.filters;
    let Some((count, most)) = filters.conntrack else { return not_loaded() };
    let (tracks, asks) = filters.tracking();
    let unseen = filters.not_looked.is_some() || filters.legacy;
    let exempt = is_exempt(seen);
    // An address of the host's own is also that of its other connections, which may be translated.
    let commands = match unseen || asks || exempt || seen.facts.any_assigned_to_host() {
        true => Vec::new(),
        false => untrack(seen),
    };
    if is_full(count, most) {
        return full(count, most, commands);
    }
    let counted = format!("it follows {count} connections, of at most {most}");
    if exempt {
        return Finding::ok(
            "conntrack",
            "nf_conntrack is loaded, and natbox's packets are exempt from it",
        );
    }
    if unseen {
        return Finding::ok(
            "conntrack",
            format!(
                "nf_conntrack is loaded: {counted}; whether natbox's packets are among them is not known"
            ),
        );
    }
    if !tracks {
        return Finding::ok(
            "conntrack",
            "nf_conntrack is loaded, and no rule of nftables makes use of it",
        );
    }
    let finding = Finding::warning(
        "conntrack",
        format!("nf_conntrack is in the path: {counted}"),
        "every packet is tracked twice beside natbox, and when that table is full, packets are dropped",
    );
    match commands.is_empty() {
        false => finding.fix(commands),
        true => finding.advice(format!(
            "see that net.netfilter.nf_conntrack_max is well above what natbox may open; or exempt natbox's packets by hand: first accept in \
             all chains what comes or goes by {}, in front of the rules that ask for states, then notrack what passes natbox",
            seen.config.tun.name
        )),
    }
}

/// Beside a server, which wants it more often than not.
pub(crate) fn of_server(filters: &Filters) -> Finding {
    match filters.conntrack {
        None => not_loaded(),
        Some((count, most)) if is_full(count, most) => full(count, most, Vec::new()),
        Some((count, most)) => Finding::ok(
            "conntrack",
            format!("nf_conntrack follows {count} connections, of at most {most}"),
        ),
    }
}

fn not_loaded() -> Finding {
    Finding::ok("conntrack", "nf_conntrack is not loaded")
}

fn is_full(count: u64, most: u64) -> bool {
    count * 10 >= most * 9 && count > 0
}

fn full(count: u64, most: u64, untrack: Vec<String>) -> Finding {
    let larger = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4));
    Finding::error(
        "conntrack",
        format!("nf_conntrack follows {count} connections, of {most} that it has room for"),
        "when its table is full, the kernel drops the packets of new connections before they get anywhere",
    )
    .fix(std::iter::once(larger).chain(untrack))
}

/// Whether rules take all of natbox's packets out of it.
fn is_exempt(seen: &BoxFacts) -> bool {
    let by = |iif| Packet { iif: Some(iif), ..Packet::default() };
    let is_out = |packet: &Packet<'_>| seen.filters.followed(packet) == Tracking::Untracked;
    let prefixes = &seen.config.inside.prefixes;
    let stranger =
        OUTSIDE_SAMPLES.into_iter().find(|to| !prefixes.iter().any(|prefix| prefix.contains(to)));
    let requests = seen.config.uplinks.iter().all(|uplink| {
        let mut each = uplink.addresses.iter();
        each.all(|to| is_out(&Packet { to: Some(*to), ..by(&uplink.interface) }))
    });
    requests
        && is_out(&by(&seen.config.tun.name))
        && is_out(&Packet { to: stranger, ..by(&seen.config.inside.interface) })
}

/// Commands that take natbox's packets out of it.
fn untrack(seen: &BoxFacts) -> Vec<String> {
    let prefixes = &seen.config.inside.prefixes;
    // What the inside wants of the host itself may be translated by others.
    let own = seen.facts.uplinks.iter().filter_map(|leg| leg.address);
    let own = own.filter(|address| !prefixes.iter().any(|prefix| prefix.contains(address)));
    let mut spared: Vec<String> =
        prefixes.iter().map(ToString::to_string).chain(own.map(|own| own.to_string())).collect();
    spared.sort();
    spared.dedup();
    let mut commands = vec![
        "nft 'add table ip natbox'".to_owned(),
        "nft 'add chain ip natbox untracked { type filter hook prerouting priority raw; }'".into(),
    ];
    let mut rule =
        |text: String| commands.push(format!("nft 'add rule ip natbox untracked {text} notrack'"));
    rule(format!("iifname \"{}\"", seen.config.tun.name));
    rule(format!(
        "iifname \"{}\" ip daddr != {{ {} }}",
        seen.config.inside.interface,
        spared.join(", ")
    ));
    for uplink in &seen.config.uplinks {
        let addresses: Vec<String> = uplink.addresses.iter().map(Ipv4Addr::to_string).collect();
        if !addresses.is_empty() {
            rule(format!(
                "iifname \"{}\" ip daddr {{ {} }}",
                uplink.interface,
                addresses.join(", ")
            ));
        }
    }
    commands
}

//! Reads the rules of nftables, and the state of connection tracking.

use std::fs;
use std::process::Command;

use crate::host::doctor::nft::filters::{ConntrackUsage, Filters};
use crate::host::doctor::nft::ruleset;

/// Reads the filters of this network namespace. Most of them need root.
pub(super) fn collect() -> Filters {
    filters(list())
}

/// Reads the filters of this network namespace, with the rules of nftables as [`list`] returns
/// them.
pub(crate) fn filters(listing: Result<String, String>) -> Filters {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    let legacy = tables
        .is_ok_and(|names| names.split_whitespace().any(|name| ["filter", "nat"].contains(&name)));
    let chains = listing.and_then(|text| {
        ruleset::parse(&text).ok_or_else(|| "nft prints an unknown format".into())
    });
    let (chains, unreadable) = match chains {
        Ok(chains) => (chains, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    Filters { chains, unreadable, legacy, conntrack: conntrack() }
}

fn conntrack() -> Option<ConntrackUsage> {
    let number = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let (count, max) = number("nf_conntrack_count").zip(number("nf_conntrack_max"))?;
    Some(ConntrackUsage { count, max })
}

/// Lists the rules of nftables, as JSON.
///
/// # Errors
/// The reason, when nft is missing or fails.
pub(crate) fn list() -> Result<String, String> {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let output = output.map_err(|error| format!("nft cannot be started ({error})"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nft: {}", message.lines().next().unwrap_or("failed").trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

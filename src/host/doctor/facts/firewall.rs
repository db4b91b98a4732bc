//! Reads the rules of nftables, and the state of connection tracking.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::host::doctor::nft::filters::{ConntrackUsage, Filters};
use crate::host::doctor::nft::ruleset;
use crate::host::model::private_filter::TABLE_PREFIX;

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
    let chains =
        listing.and_then(|text| ruleset::parse(&text).ok_or_else(|| UNKNOWN_FORMAT.into()));
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

/// Lists the rules of nftables, as `nft -j list ruleset` would print them, without natbox's own
/// tables: nft 1.0.6 prints broken JSON about a table that belongs to a process.
///
/// # Errors
/// The reason, when nft is missing or fails.
pub(crate) fn list() -> Result<String, String> {
    let tables = nft(&["list", "tables"])?;
    let mut items = Vec::new();
    for table in tables.lines().filter_map(|line| line.strip_prefix("table ")) {
        let Some((family, name)) = table.split_once(' ') else { continue };
        if name.starts_with(TABLE_PREFIX) {
            continue;
        }
        // A table that is gone by now has no rules. The kernel reports the change.
        if let Ok(text) = nft(&["-j", "list", "table", family, name]) {
            let mut whole: Value = serde_json::from_str(&text).map_err(|_| UNKNOWN_FORMAT)?;
            let part = whole.get_mut("nftables").and_then(Value::as_array_mut);
            items.append(part.ok_or(UNKNOWN_FORMAT)?);
        }
    }
    Ok(json!({ "nftables": items }).to_string())
}

/// Runs nft and returns its output.
fn nft(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("nft").args(arguments).output();
    let output = output.map_err(|error| format!("nft cannot be started ({error})"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nft: {}", message.lines().next().unwrap_or("failed").trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const UNKNOWN_FORMAT: &str = "nft prints an unknown format";

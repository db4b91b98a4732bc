//! `natbox status`: what a running box is doing.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::target::InstanceSelector;
use super::{Failure, print};
use crate::api::Request;
use crate::api::{DnsStatus, Status, UplinkStatus};
use crate::nat::DropReason;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: InstanceSelector,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the status of a box.
///
/// # Errors
/// The environment's when no box answers; the user's when several run and none is named.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let status: Status = arguments.target.ask(&Request::Status)?;
    if arguments.json {
        let json =
            serde_json::to_string_pretty(&status).context("printing JSON").map_err(Failure::bug)?;
        print(&json)?;
    } else {
        print(&text(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let total = |name: &str| status.totals.get(name).copied().unwrap_or(0);
    let sessions = &status.sessions;
    let mut rows = vec![
        (
            "box",
            format!(
                "{} (natbox {}, pid {}, up {} s)",
                status.name, status.version, status.pid, status.uptime_seconds
            ),
        ),
        (
            "tun",
            format!(
                "{} ({} workers, io {}, offload {})",
                status.tun.name,
                status.workers.len(),
                status.tun.io,
                status.tun.offload
            ),
        ),
        (
            "sessions",
            format!(
                "{} of {} ({} created, {} expired, {} evicted)",
                sessions.now,
                sessions.capacity,
                sessions.created,
                sessions.expired,
                sessions.evicted
            ),
        ),
        ("mappings", status.mappings.to_string()),
        (
            "packets",
            format!(
                "{} in, {} out ({} to inside, {} to outside)",
                total("packets_in"),
                total("packets_out"),
                total("translated_inbound"),
                total("translated_outbound")
            ),
        ),
        ("bytes", format!("{} in, {} out", total("bytes_in"), total("bytes_out"))),
        ("host", format!("{} passed to the host", total("passed_to_host"))),
        (
            "bypass",
            format!(
                "{} not translated (no_nat), {} forwarded stateless",
                total("bypassed"),
                total("forwarded_stateless")
            ),
        ),
        (
            "icmp",
            format!(
                "{} errors translated, {} errors sent",
                total("icmp_errors_translated"),
                total("icmp_errors_sent")
            ),
        ),
    ];
    rows.splice(2..2, status.uplinks.iter().map(|uplink| ("uplink", uplink_row(uplink))));
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10}{value}");
    }
    if let Some(dns) = &status.dns {
        let _ = writeln!(text, "{:<10}{}", "dns", dns_text(dns));
        for (what, error) in [("update", &dns.update_error), ("hook", &dns.hook_error)] {
            if let Some(error) = error {
                let _ = writeln!(text, "{:<10}{what} failed: {error}", "");
            }
        }
    }
    if status.log_lines_dropped != 0 {
        let _ = writeln!(
            text,
            "{:<10}{} log lines dropped: slow reader",
            "log", status.log_lines_dropped
        );
    }
    if status.drops.is_empty() {
        let _ = writeln!(text, "{:<10}none", "drops");
    }
    for (number, (name, count)) in status.drops.iter().enumerate() {
        let known = DropReason::ALL.iter().find(|reason| reason.name() == name);
        let why = known.map_or("", |reason| reason.explanation().trim());
        let _ = writeln!(
            text,
            "{:<10}{count:>10} {name}: {why}",
            if number == 0 { "drops" } else { "" }
        );
    }
    text
}

fn uplink_row(uplink: &UplinkStatus) -> String {
    let state = match (uplink.healthy, uplink.link_ready, uplink.address) {
        (true, ..) => "healthy",
        (false, true, _) => "failed",
        (false, false, None) => "failed (no address)",
        (false, false, Some(_)) => "failed (no carrier)",
    };
    let address = uplink.address.map_or("no address".to_owned(), |address| address.to_string());
    let asked = match (uplink.health_check, uplink.latency_milliseconds, uplink.loss_percent) {
        (false, ..) => "no health check".to_owned(),
        (true, None, _) => "no answer yet".to_owned(),
        (true, Some(latency), loss) => {
            format!("{latency:.1} ms, {:.0} % lost", loss.unwrap_or(0.0))
        }
    };
    let UplinkStatus { name, interface, state_seconds, .. } = uplink;
    format!("{name} by {interface}, {address}: {state} for {state_seconds} s, {asked}")
}

fn dns_text(dns: &DnsStatus) -> String {
    let uplinks =
        if dns.usable.is_empty() { "no uplink".to_owned() } else { dns.usable.join(", ") };
    if dns.listening.is_empty() {
        return format!("no name server; usable: {uplinks}");
    }
    let count = |name: &str| dns.counters.get(name).copied().unwrap_or(0);
    format!(
        "{} queries, {} answers, {} cut for their size; above the limit: {} truncated, {} dropped; usable: {uplinks}",
        count("queries"),
        count("answers"),
        count("oversized"),
        count("limited_truncated"),
        count("limited_dropped")
    )
}

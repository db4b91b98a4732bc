//! `natbox status`: shows what a running instance does.

use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::target::InstanceQuery;
use crate::api::{
    DnsStatus, HostStatus, InstanceState, LegStatus, PendingReload, PendingState, Request,
    SandboxStatus, Status, SystemCallFilter, ThreadPrivileges, UplinkStatus,
};
use crate::config::counted;
use crate::host::doctor::{Finding, Severity};
use crate::nat::DropReason;

/// Arguments of `natbox status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    query: InstanceQuery,
}

/// Shows the status of an instance.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named.
pub(super) fn run(arguments: &StatusArguments) -> Result<ExitCode, Failure> {
    arguments.query.show(&Request::Status, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
    let mut rows = instance_rows(status);
    rows.extend(status.pending_reload.iter().map(|reload| Row::new("reload", reload_text(reload))));
    if status.state == InstanceState::Waiting {
        return lines(&rows);
    }
    rows.extend(status.host.iter().flat_map(host_rows));
    rows.extend(status.sandbox.iter().map(|found| Row::new("sandbox", sandbox_text(found))));
    rows.extend(status.inside.iter().map(|leg| Row::new("inside", leg_text(leg))));
    let several_tiers = status.uplinks.windows(2).any(|pair| pair[0].tier != pair[1].tier);
    rows.extend(status.uplinks.iter().map(|uplink| {
        let tier = if several_tiers { tier_text(uplink) } else { String::new() };
        Row::new("uplink", uplink_text(uplink) + &tier)
    }));
    rows.extend(table_rows(status));
    rows.extend(counter_rows(status));
    rows.extend(status.dns.iter().flat_map(dns_rows));
    if status.log_lines_dropped != 0 {
        let dropped = counted(status.log_lines_dropped, "log line", "log lines");
        rows.push(Row::new("log", format!("{dropped} dropped: slow reader")));
    }
    rows.extend(status.warnings.iter().flat_map(warning_rows));
    rows.extend(drop_rows(status));
    lines(&rows)
}

fn lines(rows: &[Row]) -> String {
    rows.iter().map(|Row { name, value }| format!("{name:<10}{value}\n")).collect()
}

/// One row of the report; rows that continue the one above have no name.
struct Row {
    name: &'static str,
    value: String,
}

impl Row {
    fn new(name: &'static str, value: String) -> Self {
        Self { name, value }
    }
}

fn instance_rows(status: &Status) -> Vec<Row> {
    let Status { name, version, pid, state, uptime_seconds, tun, workers, .. } = status;
    let state = match state {
        InstanceState::Running => "up",
        InstanceState::Waiting => "waiting",
    };
    let instance = format!("{name} (natbox {version}, pid {pid}, {state} {uptime_seconds} s)");
    let mut rows = vec![Row::new("instance", instance)];
    let missing = status.waiting_for.iter().enumerate();
    rows.extend(missing.map(|(index, missing)| {
        Row::new(if index == 0 { "waits for" } else { "" }, missing.clone())
    }));
    if status.state == InstanceState::Running {
        let workers = counted(workers.len(), "worker", "workers");
        let device = format!("{} ({workers}, io {}, offload {})", tun.name, tun.io, tun.offload);
        rows.push(Row::new("tun", device));
    }
    rows
}

/// Describes a reload that waits for its confirmation, or from which natbox has gone back.
fn reload_text(reload: &PendingReload) -> String {
    let PendingReload { state, changed, confirm_seconds, seconds_left, since, error } = reload;
    let keys = changed.join(", ");
    match (state, error) {
        (_, Some(error)) => error.clone(),
        (PendingState::Unconfirmed, None) => {
            let left = seconds_left.unwrap_or_default();
            format!(
                "goes back in {left} s of {confirm_seconds} s, unless confirmed (natbox confirm); changed: {keys}"
            )
        }
        (PendingState::Reverted, None) => format!(
            "went back at {since}: {keys}; a start also uses the configuration before, as long as \
             the file has the text of that reload; natbox reload uses the file"
        ),
    }
}

fn table_rows(status: &Status) -> [Row; 2] {
    let sessions = &status.sessions;
    let text = format!(
        "{} of {} ({} created, {} expired, {} evicted, {} ended by failover, {} by changes)",
        sessions.now,
        sessions.capacity,
        sessions.created,
        sessions.expired,
        sessions.evicted,
        sessions.ended_by_failover,
        sessions.ended_by_changes
    );
    [Row::new("sessions", text), Row::new("mappings", status.mappings.to_string())]
}

fn counter_rows(status: &Status) -> [Row; 5] {
    let total = |name: &str| status.totals.get(name).copied().unwrap_or(0);
    let packets = format!(
        "{} in, {} out ({} to inside, {} to outside)",
        total("packets_in"),
        total("packets_out"),
        total("translated_inbound"),
        total("translated_outbound")
    );
    let bytes = format!("{} in, {} out", total("bytes_in"), total("bytes_out"));
    let bypass = format!(
        "{} not translated (no_nat), {} forwarded stateless",
        total("bypassed"),
        total("forwarded_stateless")
    );
    let icmp = format!(
        "{} translated, {} sent",
        counted(total("icmp_errors_translated"), "error", "errors"),
        counted(total("icmp_errors_sent"), "error", "errors")
    );
    [
        Row::new("packets", packets),
        Row::new("bytes", bytes),
        Row::new("host", format!("{} passed to the host", total("passed_to_host"))),
        Row::new("bypass", bypass),
        Row::new("icmp", icmp),
    ]
}

/// Shows settings of the host that are missing or disputed.
fn host_rows(host: &HostStatus) -> Vec<Row> {
    let mut rows: Vec<Row> =
        host.error.iter().map(|error| Row::new("", format!("error: {error}"))).collect();
    rows.extend(host.missing.iter().map(|missing| Row::new("", format!("missing: {missing}"))));
    if rows.is_empty() && host.restored > 0 {
        let restored = counted(host.restored, "setting was", "settings were");
        rows.push(Row::new("", format!("complete; {restored} removed and set again")));
    }
    if let Some(first) = rows.first_mut() {
        first.name = "settings";
    }
    rows
}

/// Shows the privileges in one line, as does `natbox doctor`.
pub(super) fn sandbox_text(found: &SandboxStatus) -> String {
    let of = |name: &str, threads: &ThreadPrivileges| {
        let capabilities = match threads.capabilities.as_slice() {
            [] => "no capability".to_owned(),
            names => names.join("+"),
        };
        let filter = match threads.seccomp {
            SystemCallFilter::None => "all system calls",
            SystemCallFilter::DenyList => "deny-list",
            SystemCallFilter::AllowList => "allow-list",
        };
        format!("{name} {capabilities}, {filter}")
    };
    let files = match found.landlock {
        Some(version) => format!("files limited by Landlock {version}"),
        None => "files not limited".to_owned(),
    };
    let more = if found.no_new_privs { "no_new_privs" } else { "no_new_privs is missing" };
    let threads = [
        of("control", &found.control),
        of("workers", &found.workers),
        of("others", &found.other_threads),
    ];
    format!("{}; {files}; {more}", threads.join("; "))
}

fn leg_text(leg: &LegStatus) -> String {
    let address = leg.address.map_or("no address".to_owned(), |address| address.to_string());
    format!("{}, {address}: {}", leg.interface, if leg.up { "up" } else { "down" })
}

fn uplink_text(uplink: &UplinkStatus) -> String {
    let address = uplink.address.map_or("no address".to_owned(), |address| address.to_string());
    let check = match (uplink.health_check, uplink.latency_milliseconds, uplink.loss_percent) {
        (false, ..) => "no health check".to_owned(),
        (true, None, _) => "no reply yet".to_owned(),
        (true, Some(latency), loss) => {
            format!("{latency:.1} ms, {:.0} % lost", loss.unwrap_or(0.0))
        }
    };
    let UplinkStatus { name, interface, state_seconds, .. } = uplink;
    let state = match (uplink.healthy, uplink.link_ready && uplink.setting_missing) {
        (true, _) => "healthy",
        (false, true) => "failed (settings of the host are missing)",
        (false, false) => "failed",
    };
    let mut text =
        format!("{name} on {interface}, {address}: {state} for {state_seconds} s, {check}");
    if let Some(reason) = &uplink.reason {
        text.push_str(&format!("; {reason}"));
    }
    if let Some(seconds) = uplink.hold_seconds {
        text.push_str(&format!("; must answer for {seconds} s more"));
    }
    if uplink.last_resort {
        text.push_str("; used as the last resort");
    }
    text
}

fn tier_text(uplink: &UplinkStatus) -> String {
    let state = match (uplink.in_use, uplink.healthy) {
        (true, _) => ", in use",
        (false, true) => ", standby",
        (false, false) => "",
    };
    format!(", tier {}{state}", uplink.tier)
}

fn dns_rows(dns: &DnsStatus) -> Vec<Row> {
    let mut rows = vec![Row::new("dns", dns_text(dns))];
    for (what, error) in [("update", &dns.update_error), ("hook", &dns.hook_error)] {
        rows.extend(error.iter().map(|error| Row::new("", format!("{what} failed: {error}"))));
    }
    rows
}

fn dns_text(dns: &DnsStatus) -> String {
    let in_use = if dns.in_use.is_empty() { "none".to_owned() } else { dns.in_use.join(", ") };
    if dns.listening.is_empty() {
        return format!("no name server; uplinks in use: {in_use}");
    }
    let count = |name: &str| dns.counters.get(name).copied().unwrap_or(0);
    format!(
        "{}, {}, {} truncated for size; over the rate limit: {} truncated, {} dropped; \
         uplinks in use: {in_use}",
        counted(count("queries"), "query", "queries"),
        counted(count("answers"), "answer", "answers"),
        count("oversized"),
        count("limited_truncated"),
        count("limited_dropped")
    )
}

fn warning_rows(warning: &Finding) -> Vec<Row> {
    let Finding { severity, found, why, advice, fix, .. } = warning;
    let name = if *severity == Severity::Error { "error" } else { "warning" };
    let mut rows = vec![Row::new(name, format!("{found}: {why}"))];
    let rest = Some(advice).filter(|advice| !advice.is_empty()).into_iter().chain(fix);
    rows.extend(rest.map(|line| Row::new("", line.clone())));
    rows
}

fn drop_rows(status: &Status) -> Vec<Row> {
    let mut rows: Vec<Row> = status
        .drops
        .iter()
        .map(|(name, count)| {
            let known = DropReason::ALL.iter().find(|reason| reason.name() == name);
            let explanation = known.map_or("", |reason| reason.explanation().trim());
            Row::new("", format!("{count:>10} {name}: {explanation}"))
        })
        .collect();
    match rows.first_mut() {
        Some(first) => first.name = "drops",
        None => rows.push(Row::new("drops", "none".to_owned())),
    }
    rows
}

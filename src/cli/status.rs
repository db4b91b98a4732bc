//! `natbox status`: what a running box is doing.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Failure, print};
use crate::control::Status;
use crate::control::admin::{self, Request};
use crate::nat::DropReason;

/// Which box is meant.
#[derive(Debug, Args)]
pub struct Target {
    /// Name of the box (its configuration's `name`)
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// Its admin socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the status of a box.
///
/// # Errors
/// The environment's when no box answers; the user's when several run and none is named.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Target { name, socket } = &arguments.target;
    let socket = admin::find(socket.as_deref(), name.as_deref()).map_err(failure)?;
    let status: Status = admin::request(&socket, &Request::Status).map_err(failure)?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&status).context("printing JSON").map_err(Failure::bug)?;
        print(&json)?;
    } else {
        print(&text(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: admin::ClientError) -> Failure {
    match error {
        admin::ClientError::Several { .. } => Failure::user(error),
        admin::ClientError::NoneRunning { .. }
        | admin::ClientError::Silent { .. }
        | admin::ClientError::Strange { .. }
        | admin::ClientError::Refused(_) => Failure::environment(error),
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let total = |name: &str| status.totals.get(name).copied().unwrap_or(0);
    let sessions = &status.sessions;
    let lines = [
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
                sessions.now, sessions.capacity, sessions.created, sessions.expired, sessions.evicted
            ),
        ),
        ("mappings", status.mappings.to_string()),
        (
            "packets",
            format!(
                "{} in, {} out ({} to inside, {} to outside)",
                total("packets_in"),
                total("packets_out"),
                total("translated_inside"),
                total("translated_outside")
            ),
        ),
        ("bytes", format!("{} in, {} out", total("bytes_in"), total("bytes_out"))),
        (
            "other",
            format!(
                "{} stateless, {} handed back to the host, {} ICMP errors translated, {} answered",
                total("stateless"),
                total("handed_back"),
                total("icmp_errors"),
                total("answered")
            ),
        ),
    ];
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10}{value}");
    }
    if status.drops.is_empty() {
        let _ = writeln!(text, "{:<10}none", "drops");
    }
    for (number, (name, count)) in status.drops.iter().enumerate() {
        let known = DropReason::ALL.iter().find(|reason| reason.name() == name);
        let why = known.map_or("", |reason| reason.explanation().trim());
        let _ = writeln!(text, "{:<10}{count:>10} {name}: {why}", if number == 0 { "drops" } else { "" });
    }
    text
}

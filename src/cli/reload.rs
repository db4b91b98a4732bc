//! `natbox reload`: makes a running instance read its configuration file again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::output;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{Reloaded, Request};
use crate::config::counted;

/// Arguments of `natbox reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    query: InstanceQuery,
    /// Go back to the configuration before, unless `natbox confirm` follows within this time (1s to
    /// 24h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    confirm: Option<Duration>,
    /// Go back at once from a reload that waits for its confirmation
    #[arg(long, conflicts_with = "confirm")]
    cancel: bool,
}

/// Makes an instance read its configuration file again, and prints what changed.
///
/// # Errors
/// An environment error when no instance answers. A user error when the instance rejects the new
/// file; the instance then continues with the old one.
pub(super) fn run(arguments: &ReloadArguments) -> Result<ExitCode, Failure> {
    let request = match arguments.confirm {
        Some(time) => Request::ReloadUnconfirmed { confirm_seconds: time.as_secs() },
        None if arguments.cancel => Request::RevertReload,
        None => Request::Reload,
    };
    let reloaded: Reloaded = arguments.query.instance.ask(&request)?;
    for warning in &reloaded.warnings {
        warn(&format!("warning: {warning}"));
    }
    output::show(arguments.query.json, &reloaded, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(reloaded: &Reloaded) -> String {
    let Reloaded { changed, sessions_ended, warnings: _, confirm_seconds } = reloaded;
    let changes = if changed.is_empty() {
        "nothing has changed".to_owned()
    } else {
        let sessions = counted(*sessions_ended, "session", "sessions");
        format!("changed: {}; {sessions} ended", changed.join(", "))
    };
    match confirm_seconds {
        None => changes,
        Some(seconds) => format!(
            "{changes}\nnatbox goes back in {seconds} s, unless this command follows: natbox confirm"
        ),
    }
}

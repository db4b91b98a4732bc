//! `natbox reload`: makes a running instance read its configuration file again.

use std::process::ExitCode;

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
}

/// Makes an instance read its configuration file again, and prints what changed.
///
/// # Errors
/// An environment error when no instance answers. A user error when the instance rejects the new
/// file; the instance then continues with the old one.
pub(super) fn run(arguments: &ReloadArguments) -> Result<ExitCode, Failure> {
    let reloaded: Reloaded = arguments.query.instance.ask(&Request::Reload)?;
    for warning in &reloaded.warnings {
        warn(&format!("warning: {warning}"));
    }
    output::show(arguments.query.json, &reloaded, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(reloaded: &Reloaded) -> String {
    if reloaded.changed.is_empty() {
        return "nothing has changed".to_owned();
    }
    let sessions = counted(reloaded.sessions_ended, "session", "sessions");
    format!("changed: {}; {sessions} ended", reloaded.changed.join(", "))
}

//! `natbox reload`: a running box reads its configuration file again.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::target::InstanceSelector;
use super::{Failure, print, warn};
use crate::api::Reloaded;
use crate::api::Request;

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: InstanceSelector,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Has a box read its configuration again.
///
/// # Errors
/// The environment's when no box answers; the user's when the box refuses the new file: then it goes on by the old one.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let reloaded: Reloaded = arguments.target.ask(&Request::Reload)?;
    for warning in &reloaded.warnings {
        warn(&format!("warning: {warning}"));
    }
    let text = if arguments.json {
        serde_json::to_string_pretty(&reloaded).context("printing JSON").map_err(Failure::bug)?
    } else if reloaded.changed.is_empty() {
        "nothing has changed".to_owned()
    } else {
        format!(
            "changed: {}; {} sessions ended",
            reloaded.changed.join(", "),
            reloaded.sessions_ended
        )
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

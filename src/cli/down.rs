//! `natbox down`: removes everything that an instance has set on the host.

use std::process::ExitCode;

use clap::Args;

use super::config_file::ConfigFile;
use super::exit::Failure;
use super::output;
use super::progress::Progress;
use crate::control;

/// Arguments of `natbox down`.
#[derive(Debug, Args)]
pub(super) struct DownArguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Stops an instance if it runs, and removes its changes of the host, its TUN device and its
/// sessions.
///
/// # Errors
/// A user error when the configuration is wrong. An environment error when something stays.
pub(super) fn run(arguments: &DownArguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    let progress = Progress::of_wait("stopping the instance");
    let done = control::down(&config).map_err(Failure::environment)?;
    drop(progress);
    let text = if done.is_empty() { "nothing to remove".to_owned() } else { done.join("\n") };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

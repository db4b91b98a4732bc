//! `natbox run-hooks`: the process beside a box that runs its DNS hook. Nobody types it; `natbox run` starts it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::Failure;
use crate::dns;

/// Arguments of `run-hooks`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The program to run for each event that comes by standard input
    hook: PathBuf,
}

/// Runs hooks until standard input ends.
///
/// # Errors
/// A bug when the two processes do not understand each other.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    dns::run_events(&arguments.hook, io::stdin(), io::stdout().lock())
        .context("running DNS hooks")
        .map(|()| ExitCode::SUCCESS)
        .map_err(Failure::bug)
}

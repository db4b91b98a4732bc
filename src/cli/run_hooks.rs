//! `natbox run-hooks`: the helper process that runs the DNS hook of an instance. Started by
//! `natbox run` only.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::exit::Failure;
use crate::dns;

/// Arguments of `natbox run-hooks`.
#[derive(Debug, Args)]
pub(super) struct RunHooksArguments {
    /// Program to run for each event on standard input
    hook: PathBuf,
}

/// Runs the hook for each event until standard input ends.
///
/// # Errors
/// A bug when the two processes do not follow their protocol.
pub(super) fn run(arguments: &RunHooksArguments) -> Result<ExitCode, Failure> {
    dns::run_events(&arguments.hook, io::stdin(), io::stdout().lock())
        .context("running DNS hooks")
        .map(|()| ExitCode::SUCCESS)
        .map_err(Failure::bug)
}

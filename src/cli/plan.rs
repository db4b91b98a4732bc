//! `natbox plan`: prints the commands for hosts and servers without running them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::config_file::load_all;
use super::exit::Failure;
use super::output;
use crate::host::render;

/// Arguments of `natbox plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Configuration files of the instance, or of all instances that publish the same servers
    #[arg(short = 'c', long = "config", value_name = "FILE", num_args = 1.., required = true)]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the plan for the instances, as text or as JSON.
///
/// # Errors
/// A user error when a configuration is wrong, after all files have been read.
pub(super) fn run(arguments: &PlanArguments) -> Result<ExitCode, Failure> {
    let configs = load_all(&arguments.paths)?;
    output::show(arguments.json, &render::plan(&configs), |plan| plan.text())?;
    Ok(ExitCode::SUCCESS)
}

//! `natbox plan`: the host's and the servers' commands, without running them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Failure, print};
use crate::host::render;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration files of the box, or of all boxes that publish the same servers
    #[arg(short = 'c', long = "config", value_name = "FILE", num_args = 1.., required = true)]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the plan for the boxes, as text for people or as JSON.
///
/// # Errors
/// The user's when a configuration is wrong; all files are read before that is said.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let configs = super::load_all(&arguments.paths)?;
    let plan = render::plan(&configs);
    if arguments.json {
        print(
            &serde_json::to_string_pretty(&plan).context("printing JSON").map_err(Failure::bug)?,
        )?;
    } else {
        print(&plan.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `natbox plan`: the host's and the servers' commands, without running them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::host::plan;

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
    let mut configs = Vec::new();
    let mut failed = None;
    for path in &arguments.paths {
        match (ConfigFile { path: path.clone() }).load() {
            Ok(config) => configs.push(config),
            Err(failure) => {
                // The last one is reported by whoever called us.
                if let Some(earlier) = failed.replace(failure) {
                    earlier.report();
                }
            }
        }
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    let plan = plan::render(&configs);
    if arguments.json {
        print(&serde_json::to_string_pretty(&plan).context("printing JSON").map_err(Failure::bug)?)?;
    } else {
        print(&plan.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

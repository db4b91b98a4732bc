//! `natbox config`: prints the effective configuration.

use std::process::ExitCode;

use clap::Args;

use super::config_file::ConfigFile;
use super::exit::Failure;
use super::output::print;
use crate::config::{to_json, to_yaml};

/// Arguments of `natbox config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every value in the schema of the configuration file.
///
/// # Errors
/// A user error with every problem of the file.
pub fn run(arguments: &ConfigArguments) -> Result<ExitCode, Failure> {
    let config = arguments.file.load()?;
    print(&if arguments.json { to_json(&config) } else { to_yaml(&config) })?;
    Ok(ExitCode::SUCCESS)
}

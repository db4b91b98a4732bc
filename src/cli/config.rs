//! `natbox config`: prints the effective configuration.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::config::{to_json, to_yaml};

/// Arguments of `natbox config`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints every value in the file's own schema.
///
/// # Errors
/// The user's error with all problems of the file.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = arguments.file.load()?;
    print(&if arguments.json { to_json(&config) } else { to_yaml(&config) })?;
    Ok(ExitCode::SUCCESS)
}

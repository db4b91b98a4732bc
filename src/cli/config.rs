//! `natbox config`: prints the effective configuration, the schema of the file, or a reference file.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::config::{json_schema, reference, to_json, to_yaml};

/// Arguments of `natbox config`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    file: Option<ConfigFile>,
    /// Print the configuration as JSON
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of the configuration file instead
    #[arg(long, conflicts_with = "path", required_unless_present_any = ["path", "reference"])]
    schema: bool,
    /// Print a configuration file with every key, its meaning and its default instead
    #[arg(long, conflicts_with_all = ["path", "json", "schema"])]
    reference: bool,
}

/// Prints every value in the file's own schema, the schema itself, or the reference file.
///
/// # Errors
/// The user's error with all problems of the file.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let text = match &arguments.file {
        None if arguments.reference => reference(),
        None => json_schema(),
        Some(file) if arguments.json => to_json(&file.load()?),
        Some(file) => to_yaml(&file.load()?),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

//! `natbox config`: prints the effective configuration, the schema of the file, or a reference
//! file.

use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::config_file::ConfigFile;
use super::exit::Failure;
use super::output::print;
use crate::config::{json_schema, reference, to_json, to_yaml};

/// Arguments of `natbox config`.
#[derive(Debug, Args)]
#[command(mut_arg("path", |path| path.required(false)))]
#[command(group(ArgGroup::new("printed").required(true).args(["path", "schema", "reference"])))]
pub(super) struct ConfigArguments {
    #[command(flatten)]
    file: Option<ConfigFile>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of the configuration file; needs no file
    #[arg(long)]
    schema: bool,
    /// Print a configuration file with every key, its meaning and its default; needs no file
    #[arg(long, conflicts_with = "json")]
    reference: bool,
}

/// Prints every value in the schema of the configuration file, the schema itself, or the reference
/// file.
///
/// # Errors
/// A user error with every problem of the file.
pub(super) fn run(arguments: &ConfigArguments) -> Result<ExitCode, Failure> {
    let text = match &arguments.file {
        None if arguments.reference => reference(),
        None => json_schema(),
        Some(file) if arguments.json => to_json(&file.load()?),
        Some(file) => to_yaml(&file.load()?),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

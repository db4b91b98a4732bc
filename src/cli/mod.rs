//! The command line: arguments, and which file answers which command.

mod check;
mod config;
pub mod demo;
mod doctor;
mod events;
mod exit;
mod output;
mod plan;
mod reload;
mod run;
mod run_hooks;
mod sessions;
mod status;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self as configuration, Loaded, Problem};

pub use exit::{BUG, DONE, ENVIRONMENT, Failure, USER};
pub use output::{print, warn};

/// Runs the program.
///
/// Exit codes: see [`Failure`]; wrong arguments are the user's error, help and version are not.
pub fn main() -> ExitCode {
    exit::install_panic_hook();
    let outcome = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        Err(error) => {
            // What cannot be printed has no better place to go.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USER } else { exit::DONE });
        }
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

/// A NAT box in user space: publishes one server on several unrelated lines.
#[derive(Debug, Parser)]
#[command(name = "natbox", version, subcommand_required = true, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one box until TERM or INT
    Run(run::Arguments),
    /// Run the DNS hook of a box
    #[command(name = crate::dns::RUNNER_COMMAND, hide = true)]
    RunHooks(run_hooks::Arguments),
    /// Check a configuration file; name every problem at once
    Check(check::Arguments),
    /// Print the effective configuration, with all defaults
    Config(config::Arguments),
    /// Print what has to be set on the boxes' hosts and on the servers, as commands and as network configuration
    Plan(plan::Arguments),
    /// Show the whole story in network namespaces on this machine, measured: one server, two lines, two boxes
    Demo(demo::Arguments),
    /// Show what a running box is doing
    Status(status::Arguments),
    /// Find what is wrong with a running box and its host, or (doctor server) with a server behind boxes, and what mends it
    Doctor(doctor::Arguments),
    /// List the sessions of a running box
    Sessions(sessions::Arguments),
    /// Show recent events of a running box (uplinks that fail and return, reloads, shortages), and follow new ones
    Events(events::Arguments),
    /// Have a running box read its configuration file again; sessions that the new one allows live on
    Reload(reload::Arguments),
}

impl Command {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Run(arguments) => run::run(&arguments),
            Self::RunHooks(arguments) => run_hooks::run(&arguments),
            Self::Plan(arguments) => plan::run(&arguments),
            Self::Demo(arguments) => demo::run(&arguments),
            Self::Doctor(arguments) => doctor::run(&arguments),
            Self::Status(arguments) => status::run(&arguments),
            Self::Sessions(arguments) => sessions::run(&arguments),
            Self::Events(arguments) => events::run(&arguments),
            Self::Reload(arguments) => reload::run(&arguments),
            Self::Check(arguments) => check::run(&arguments),
            Self::Config(arguments) => config::run(&arguments),
        }
    }
}

/// `--config FILE`, the same in every command.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The box's configuration file (YAML)
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub path: PathBuf,
}

impl ConfigFile {
    /// Loads the file, with its warnings on standard error.
    ///
    /// # Errors
    /// The user's error, holding [`configuration::Problems`].
    pub fn load(&self) -> Result<configuration::Config, Failure> {
        let Loaded { config, warnings } = configuration::load(&self.path).map_err(Failure::user)?;
        show_warnings(&warnings);
        Ok(config)
    }
}

/// Loads several files; all are read before it is said that one is wrong.
///
/// # Errors
/// The user's, of the last wrong one; the others are reported.
fn load_all(paths: &[PathBuf]) -> Result<Vec<configuration::Config>, Failure> {
    let mut configs = Vec::new();
    let mut failed = None;
    for path in paths {
        match (ConfigFile { path: path.clone() }).load() {
            Ok(config) => configs.push(config),
            Err(failure) => {
                // The last one is reported by whoever called us.
                if let Some(earlier) = failed.replace(failure) {
                    Failure::report(&earlier);
                }
            }
        }
    }
    failed.map_or(Ok(configs), Err)
}

fn show_warnings(warnings: &[Problem]) {
    for warning in warnings {
        warn(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! `natbox check`: checks a configuration file.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::config_file::ConfigFile;
use super::exit::{self, Failure};
use super::output::{self, print};
use crate::config::{self as configuration, Config, Loaded, Problem, Problems, counted};

/// Arguments of `natbox check`.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks the file and prints the result.
///
/// # Errors
/// A user error with every problem of the file. With `--json` the problems are printed
/// instead, and the exit code is the same.
pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let path = &arguments.file.path;
    if arguments.json {
        let outcome = configuration::load(path);
        print(&output::json(&CheckReport::from(outcome.as_ref()))?)?;
        return Ok(ExitCode::from(match &outcome {
            Ok(_) => exit::DONE,
            Err(problems) if problems.is_unreadable() => exit::ENVIRONMENT,
            Err(_) => exit::USER,
        }));
    }
    let config = arguments.file.load()?;
    print(&format!("{}: ok\n{}", path.display(), summary(&config)))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct CheckReport<'o> {
    ok: bool,
    problems: Vec<&'o Problem>,
    warnings: Vec<&'o Problem>,
}

impl<'o> From<Result<&'o Loaded, &'o Problems>> for CheckReport<'o> {
    fn from(outcome: Result<&'o Loaded, &'o Problems>) -> Self {
        match outcome {
            Ok(loaded) => {
                Self { ok: true, problems: Vec::new(), warnings: loaded.warnings.iter().collect() }
            }
            Err(problems) => {
                Self { ok: false, problems: problems.iter().collect(), warnings: Vec::new() }
            }
        }
    }
}

/// Describes the configuration in one line.
fn summary(config: &Config) -> String {
    let legs = config.inside.legs.iter();
    let interfaces: Vec<&str> = legs.map(|leg| leg.interface.as_str()).collect();
    let addresses: usize = config.uplinks.iter().map(|uplink| uplink.addresses.len()).sum();
    format!(
        "{}: inside {}, {} with {}, {}, {}, {}",
        config.name,
        interfaces.join(" and "),
        counted(config.uplinks.len(), "uplink", "uplinks"),
        counted(addresses, "external address", "external addresses"),
        counted(config.forwards.len(), "forward", "forwards"),
        counted(config.outbound.len(), "outbound rule", "outbound rules"),
        counted(config.limits.sessions, "session", "sessions"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_the_configured_objects() {
        let text = include_str!("../../configs/three-legged.yaml");
        let config = configuration::parse("three-legged.yaml", text).unwrap().config;
        assert_eq!(
            summary(&config),
            "three-legged: inside lan0, 2 uplinks with 2 external addresses, 2 forwards, 1 outbound rule, 1000000 sessions"
        );
    }
}

//! `natbox check`: is this file a valid configuration?

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigFile, Failure, exit, print, show_warnings};
use crate::config::{self as configuration, Config, Loaded, Problem, Problems};

/// Arguments of `natbox check`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Checks the file and says so.
///
/// # Errors
/// The user's error with all problems; with `--json` they are printed instead, with the same exit code.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = &arguments.file.path;
    let outcome = configuration::load(path);
    if arguments.json {
        let code = if outcome.is_ok() { exit::DONE } else { exit::USER };
        let report = CheckReport::from(outcome.as_ref());
        print(&serde_json::to_string_pretty(&report).map_err(Failure::bug)?)?;
        return Ok(ExitCode::from(code));
    }
    let Loaded { config, warnings } = outcome.map_err(Failure::user)?;
    show_warnings(&warnings);
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

/// The box in one line.
fn summary(config: &Config) -> String {
    let addresses: usize = config.uplinks.iter().map(|uplink| uplink.addresses.len()).sum();
    format!(
        "{}: inside {}, {} with {}, {}, {}, {}",
        config.name,
        config.inside.interface,
        number(config.uplinks.len(), "uplink"),
        number(addresses, "external address"),
        number(config.forwards.len(), "forward"),
        number(config.outbound.len(), "outbound rule"),
        number(config.limits.sessions as usize, "session"),
    )
}

fn number(number: usize, what: &str) -> String {
    let plural = match number {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_the_box_has() {
        let text = include_str!("../../configs/three-legged.yaml");
        let config = configuration::parse("three-legged.yaml", text).unwrap().config;
        assert_eq!(
            summary(&config),
            "three-legged: inside lan0, 2 uplinks with 2 external addresses, 2 forwards, 1 outbound rule, 1000000 sessions"
        );
    }
}

//! `natbox check`: checks a configuration file.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::config_file::ConfigFile;
use super::exit::{self, Failure};
use super::output::{self, print};
use super::target::{self, InstanceSelector};
use crate::api::{EffectiveConfig, Request};
use crate::config::{self as configuration, Change, Config, Loaded, Problem, counted};
use crate::control;

/// Arguments of `natbox check`.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Also say which keys differ from those of the running instance, and which of them need a
    /// restart; without --name and --socket, the file names the instance's socket
    #[arg(long)]
    against_running: bool,
    #[command(flatten)]
    instance: InstanceSelector,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks the file and prints the result. Exit code: 1 if the file has a problem, or if a changed
/// key needs a restart.
///
/// # Errors
/// A user error with every problem of the file. With `--json` the problems are printed
/// instead, and the exit code is the same. An environment error when no instance answers.
pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let path = &arguments.file.path;
    if arguments.instance.is_named() && !arguments.against_running {
        let error = "--name, --socket: found without --against-running; add it, or leave them out";
        return Err(Failure::user(anyhow::anyhow!(error)));
    }
    if !arguments.json {
        let config = arguments.file.load()?;
        let running = against_running(arguments, &config)?;
        let more = running.as_ref().map_or_else(String::new, AgainstRunning::text);
        print(&format!("{}: ok\n{}{more}", path.display(), summary(&config)))?;
        return Ok(ExitCode::from(code(running.as_ref())));
    }
    match configuration::load(path) {
        Ok(Loaded { config, warnings }) => {
            let running = against_running(arguments, &config)?;
            let code = code(running.as_ref());
            let report = CheckReport {
                ok: true,
                problems: Vec::new(),
                warnings: warnings.iter().collect(),
                against_running: running,
            };
            print(&output::json(&report)?)?;
            Ok(ExitCode::from(code))
        }
        Err(problems) => {
            let report = CheckReport {
                ok: false,
                problems: problems.iter().collect(),
                warnings: Vec::new(),
                against_running: None,
            };
            print(&output::json(&report)?)?;
            let is_unreadable = problems.is_unreadable();
            Ok(ExitCode::from(if is_unreadable { exit::ENVIRONMENT } else { exit::USER }))
        }
    }
}

#[derive(Serialize)]
struct CheckReport<'o> {
    ok: bool,
    problems: Vec<&'o Problem>,
    warnings: Vec<&'o Problem>,
    /// None: the file was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_running: Option<AgainstRunning>,
}

/// The keys whose values differ from those of the running instance.
#[derive(Debug, Serialize)]
struct AgainstRunning {
    /// Keys that a reload changes.
    reloadable: Vec<String>,
    /// Keys that need a restart. While the file has one of them, the instance refuses a reload.
    needs_restart: Vec<String>,
}

/// Compares the file with the running instance, if the user asks for it.
fn against_running(
    arguments: &CheckArguments,
    file: &Config,
) -> Result<Option<AgainstRunning>, Failure> {
    if !arguments.against_running {
        return Ok(None);
    }
    let request = Request::EffectiveConfig;
    let EffectiveConfig { configuration, routing_ids, .. } = match arguments.instance.is_named() {
        true => arguments.instance.ask(&request)?,
        false => target::ask_at(&file.admin.socket, &request).map_err(target::failure)?,
    };
    let running = configuration::parse("the instance's configuration", &configuration)
        .map_err(Failure::bug)?
        .config;
    let is_waiting = routing_ids.is_none();
    let changes = configuration::changes(&running, file);
    let (fixed, reloadable): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| control::needs_restart(change, is_waiting));
    let paths = |changes: Vec<Change>| changes.into_iter().map(|change| change.path).collect();
    Ok(Some(AgainstRunning { reloadable: paths(reloadable), needs_restart: paths(fixed) }))
}

impl AgainstRunning {
    fn text(&self) -> String {
        let Self { reloadable, needs_restart } = self;
        if reloadable.is_empty() && needs_restart.is_empty() {
            return "\nthe running instance uses this configuration".to_owned();
        }
        let line = |what: &str, keys: &[String]| match keys {
            [] => String::new(),
            keys => format!("\n{what}: {}", keys.join(", ")),
        };
        let reload = line("changed by a reload", reloadable);
        let restart = line("needs a restart, and the instance refuses a reload", needs_restart);
        format!("{reload}{restart}")
    }
}

fn code(running: Option<&AgainstRunning>) -> u8 {
    match running {
        Some(running) if !running.needs_restart.is_empty() => exit::USER,
        Some(_) | None => exit::DONE,
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

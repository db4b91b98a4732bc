//! `natbox doctor`: what is wrong with a running box and its host, or with a server behind boxes, and what mends it.

mod report;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::config_file::{ConfigFile, load_all};
use super::exit::{self, Failure};
use super::output::print;
use super::target::{self, InstanceSelector};
use crate::api::Request;
use crate::api::client::ClientError;
use crate::api::{EffectiveConfig, Status};
use crate::config::{self, Config};
use crate::host::doctor::{self, Finding};
use report::DoctorReport;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DoctorArguments {
    #[command(subcommand)]
    what: Option<Subject>,
    #[command(flatten)]
    target: InstanceSelector,
    /// Configuration file that the instance should use; without it, doctor asks the instance
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// StepStatus at this machine as a server behind these boxes
    Server(ServerArguments),
}

/// Arguments of `doctor server`.
#[derive(Debug, Args)]
struct ServerArguments {
    /// The configuration files of the box, or of all boxes that publish this server
    #[arg(short = 'c', long = "config", value_name = "FILE", num_args = 1.., required = true)]
    paths: Vec<PathBuf>,
    /// Send no packets that show the way of the replies
    #[arg(long)]
    no_probe: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Looks, and tells what it found. Exit code: 1 if anything is wrong.
///
/// # Errors
/// The environment's when no box answers, or runs elsewhere; the user's when a configuration is wrong.
pub fn run(arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let (title, findings, json) = match &arguments.what {
        Some(Subject::Server(server)) => {
            let configs = load_all(&server.paths)?;
            let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
            let title = format!("server behind {}", names.join(", "));
            let findings =
                doctor::examine_server(&configs, !server.no_probe).map_err(Failure::environment)?;
            (title, findings, server.json)
        }
        None => {
            let (name, findings) = examine_box(arguments)?;
            (format!("box {name}"), findings, arguments.json)
        }
    };
    let report = DoctorReport::new(findings);
    print(&if json {
        serde_json::to_string_pretty(&report).context("printing JSON").map_err(Failure::bug)?
    } else {
        report.text(&title)
    })?;
    Ok(ExitCode::from(if report.healthy { exit::DONE } else { exit::USER }))
}

fn examine_box(arguments: &DoctorArguments) -> Result<(String, Vec<Finding>), Failure> {
    let file = arguments
        .config
        .as_ref()
        .map(|path| ConfigFile { path: path.clone() }.load())
        .transpose()?;
    let mut findings = Vec::new();
    let asked = match &file {
        Some(file) if !arguments.target.is_named() => {
            let socket = &file.admin.socket;
            match target::ask_at(socket, &Request::Status)
                .and_then(|status| Ok((status, target::ask_at(socket, &Request::EffectiveConfig)?)))
            {
                Ok(answers) => Some(answers),
                Err(error) => {
                    findings.push(no_answer(&file.name, &error));
                    None
                }
            }
        }
        Some(_) | None => Some((
            arguments.target.ask(&Request::Status)?,
            arguments.target.ask(&Request::EffectiveConfig)?,
        )),
    };
    let (config, routing_ids) = match asked {
        Some((status, setup)) => {
            let EffectiveConfig { configuration, routing_ids } = setup;
            let running = config::parse("the box's own configuration", &configuration)
                .map_err(Failure::bug)?
                .config;
            same_namespace(&status)?;
            findings.push(Finding::ok("box", format!("{} runs, pid {}", status.name, status.pid)));
            let up = doctor::interfaces_up().map_err(Failure::environment)?;
            findings.extend(status::evaluate(&status, &up));
            findings.extend(file.as_ref().and_then(|file| drift(file, &running)));
            (file.unwrap_or(running), Some(routing_ids))
        }
        None => (file.unwrap_or_else(|| unreachable!("without a file a box has answered")), None),
    };
    findings.extend(doctor::examine_box(&config, routing_ids).map_err(Failure::environment)?);
    Ok((config.name, findings))
}

/// A box that does not run, or that this user may not ask.
fn no_answer(name: &str, error: &ClientError) -> Finding {
    if let ClientError::Silent { path, source } = error
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        let found =
            format!("{name} cannot be asked: this user may not connect to {}", path.display());
        let why =
            "whether it runs is not known, and what it would set on the host was not looked for";
        return Finding::warning("box", found, why).advice("run it as root");
    }
    Finding::error("box", format!("{name} does not run: {error}"), "nothing is translated")
        .advice(format!("start it: systemctl start natbox@{name}, or natbox run --config FILE"))
}

/// The file says something else than the box lives by.
fn drift(file: &Config, running: &Config) -> Option<Finding> {
    (config::to_json(file) != config::to_json(running)).then(|| {
        Finding::warning(
            "configuration",
            format!("{} lives by another configuration than the file's", file.name),
            "what is looked at here is what the file wants",
        )
        .fix([format!("natbox reload --socket {}", running.admin.socket.display())])
        .advice("where that is refused: systemctl restart natbox@NAME")
    })
}

/// What the kernel says here must be what it says to the box.
fn same_namespace(status: &Status) -> Result<(), Failure> {
    let of =
        |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net")).ok();
    let pid = status.pid;
    match (of("self"), of(&pid.to_string())) {
        (Some(here), Some(there)) if here != there => Err(Failure::environment(anyhow!(
            "{} runs in another network namespace than this command; run it there: nsenter -t {pid} -n natbox doctor --name {}",
            status.name,
            status.name
        ))),
        // Who may not look is not told apart.
        (_, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::host::doctor::Severity;

    #[test]
    fn a_box_that_may_not_be_asked_is_not_said_to_be_dead() {
        let of = |kind: io::ErrorKind| {
            no_answer(
                "a",
                &ClientError::Silent { path: "/run/natbox/a.sock".into(), source: kind.into() },
            )
        };
        let refused = of(io::ErrorKind::PermissionDenied);
        assert!(
            refused.found.contains("cannot be asked") && refused.advice.contains("root"),
            "{refused:?}"
        );
        assert_eq!(
            (refused.severity, of(io::ErrorKind::NotFound).severity),
            (Severity::Warning, Severity::Error)
        );
    }
}

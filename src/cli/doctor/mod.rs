//! `natbox doctor`: checks a running instance and its host, or a server behind boxes, and prints
//! the commands that fix what is wrong.

mod reload;
mod report;
mod sandbox;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::config_file::{ConfigFile, load_all};
use super::exit::{self, Failure};
use super::output::print;
use super::progress::Progress;
use super::target::{self, InstanceSelector};
use crate::api::Request;
use crate::api::client::ClientError;
use crate::api::{EffectiveConfig, InstanceState, Status};
use crate::config::{self, Config};
use crate::host::doctor;
pub use crate::host::doctor::{Finding, Severity};
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
    /// Check this machine as a server behind these boxes
    Server(ServerArguments),
}

/// Arguments of `doctor server`.
#[derive(Debug, Args)]
struct ServerArguments {
    /// Configuration files of all boxes that publish this server
    #[arg(short = 'c', long = "config", value_name = "FILE", num_args = 1.., required = true)]
    paths: Vec<PathBuf>,
    /// Do not send packets that show the path of the replies
    #[arg(long)]
    no_probe: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the checks and prints the findings. Exit code: 1 if a finding is an error, otherwise 0.
///
/// # Errors
/// An environment error when no instance answers, or when the instance runs in another network
/// namespace. A user error when a configuration is wrong.
pub fn run(arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let progress = Progress::of_wait("checking");
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
            (format!("instance {name}"), findings, arguments.json)
        }
    };
    drop(progress);
    let report = DoctorReport::new(findings);
    print(&if json {
        serde_json::to_string_pretty(&report).context("printing JSON").map_err(Failure::bug)?
    } else {
        report.text(&title)
    })?;
    Ok(ExitCode::from(if report.healthy { exit::DONE } else { exit::USER }))
}

/// Checks an instance and its host. Returns the instance's name as well.
fn examine_box(arguments: &DoctorArguments) -> Result<(String, Vec<Finding>), Failure> {
    let file = arguments
        .config
        .as_ref()
        .map(|path| ConfigFile { path: path.clone() }.load())
        .transpose()?;
    let mut findings = Vec::new();
    let answers = match &file {
        Some(file) if !arguments.target.is_named() => match ask_at(&file.admin.socket) {
            Ok(answers) => Some(answers),
            Err(error) => {
                findings.push(no_answer(&file.name, &error));
                None
            }
        },
        Some(_) | None => Some((
            arguments.target.ask(&Request::Status)?,
            arguments.target.ask(&Request::EffectiveConfig)?,
        )),
    };
    let (config, routing_ids) = match answers {
        Some((status, effective)) => {
            let EffectiveConfig { configuration, routing_ids } = effective;
            let running = config::parse("the instance's configuration", &configuration)
                .map_err(Failure::bug)?
                .config;
            same_namespace(&status)?;
            findings.push(status::instance(&status));
            findings.extend(status.pending_reload.as_ref().map(reload::pending));
            if status.state == InstanceState::Running {
                let interfaces = doctor::interface_states().map_err(Failure::environment)?;
                findings.extend(status::evaluate(&status, &interfaces));
                findings.extend(status.sandbox.iter().flat_map(sandbox::sandbox));
            }
            if !reload::has_gone_back(status.pending_reload.as_ref()) {
                findings.extend(file.as_ref().and_then(|file| drift(file, &running)));
            }
            (file.unwrap_or(running), routing_ids)
        }
        None => {
            let file = file.unwrap_or_else(|| unreachable!("without a file an instance answers"));
            (file, None)
        }
    };
    findings.extend(doctor::examine_box(&config, routing_ids).map_err(Failure::environment)?);
    Ok((config.name, findings))
}

/// Asks the instance behind a socket.
fn ask_at(socket: &Path) -> Result<(Status, EffectiveConfig), ClientError> {
    let status = target::ask_at(socket, &Request::Status)?;
    Ok((status, target::ask_at(socket, &Request::EffectiveConfig)?))
}

/// Reports an instance that does not run, or whose socket this user may not open.
fn no_answer(name: &str, error: &ClientError) -> Finding {
    if let ClientError::Silent { path, source } = error
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        let found = format!("{name}: this user may not connect to {}", path.display());
        let why = "natbox does not know whether the instance runs, and did not check the settings of \
                   the host";
        return Finding::warning("instance", found, why).advice("run natbox doctor as root");
    }
    let found = format!("{name} does not run: {error}");
    Finding::error("instance", found, "no packet is translated").advice(format!(
        "start the instance: systemctl start natbox@{name}, or natbox run --config FILE"
    ))
}

/// Reports a file that differs from the running configuration.
fn drift(file: &Config, running: &Config) -> Option<Finding> {
    (config::to_json(file) != config::to_json(running)).then(|| {
        Finding::warning(
            "configuration",
            format!("{}: the running configuration differs from the file", file.name),
            "the checks use the file",
        )
        .fix([format!("natbox reload --socket {}", running.admin.socket.display())])
        .advice("if the instance rejects the reload: systemctl restart natbox@NAME")
    })
}

/// Checks that this process and the instance share a network namespace.
///
/// # Errors
/// When the namespaces differ. The kernel would then describe another host.
fn same_namespace(status: &Status) -> Result<(), Failure> {
    let of =
        |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net")).ok();
    let pid = status.pid;
    match (of("self"), of(&pid.to_string())) {
        (Some(here), Some(there)) if here != there => Err(Failure::environment(anyhow!(
            "{}: the instance runs in another network namespace; run the command there: nsenter -t {pid} \
             -n natbox doctor --name {}",
            status.name,
            status.name
        ))),
        // Without the privilege to compare, assume that they are the same.
        (_, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::host::doctor::Severity;

    #[test]
    fn a_socket_without_permission_is_a_warning() {
        let of = |kind: io::ErrorKind| {
            no_answer(
                "a",
                &ClientError::Silent { path: "/run/natbox/a.sock".into(), source: kind.into() },
            )
        };
        let refused = of(io::ErrorKind::PermissionDenied);
        assert!(
            refused.found.contains("may not connect") && refused.advice.contains("root"),
            "{refused:?}"
        );
        assert_eq!(
            (refused.severity, of(io::ErrorKind::NotFound).severity),
            (Severity::Warning, Severity::Error)
        );
    }
}

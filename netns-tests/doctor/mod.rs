//! `natbox doctor`: no error on a good machine; for each breakage a finding whose commands fix it.
//!
//! | file        | behaviour                                                                    |
//! |-------------|------------------------------------------------------------------------------|
//! | `of_box`    | a box: rules, routes, sysctls, TUN, filters of other programs, gateways       |
//! | `of_legs`   | a box with several inside legs: faults of one leg                            |
//! | `of_server` | a server: addresses, path of the replies, services, filters                   |

mod of_box;
mod of_legs;
mod of_server;

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use natbox::cli::doctor::{Finding, Severity};
use natbox::lab::{Namespace, command_line};
use serde::Deserialize;

use crate::lab::{NATBOX, output};

/// The output of doctor.
#[derive(Debug, Deserialize)]
struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Lists the findings of one check and severity.
    fn of(&self, severity: Severity, id: &str) -> Vec<&Finding> {
        self.findings
            .iter()
            .filter(|finding| (finding.severity, finding.id.as_str()) == (severity, id))
            .collect()
    }

    fn errors(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).collect()
    }
}

/// Runs doctor in a namespace, with a command in front of it (which may be empty).
fn examine(namespace: &Namespace, before: &[&str], arguments: &[&Path]) -> Result<Report> {
    let words: Vec<&str> = before.iter().copied().chain([NATBOX]).collect();
    let mut command = namespace.command(words[0]);
    command.args(&words[1..]).arg("doctor").args(arguments).arg("--json");
    let Output { status, stdout, stderr } = command.output()?;
    let said =
        || format!("{}: {status}\n{}{}", command_line(&command), text(&stdout), text(&stderr));
    let report: Report = serde_json::from_slice(&stdout).with_context(said)?;
    ensure!(status.code() == Some(i32::from(!report.healthy)), "{}", said());
    Ok(report)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A breakage, and the finding that doctor must report.
struct Breakage {
    /// A shell script that breaks something.
    script: String,
    severity: Severity,
    id: &'static str,
    /// Part of [`Finding::found`].
    found: String,
    /// A script that fixes the problem where doctor can only give advice.
    undo: Option<String>,
}

fn broken(script: impl Into<String>, id: &'static str, found: impl Into<String>) -> Breakage {
    Breakage {
        script: script.into(),
        severity: Severity::Error,
        id,
        found: found.into(),
        undo: None,
    }
}

impl Breakage {
    fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    fn undone_by(self, script: impl Into<String>) -> Self {
        Self { undo: Some(script.into()), ..self }
    }
}

fn shell(namespace: &Namespace, script: &str) -> Result<()> {
    let mut command = namespace.command("sh");
    command.args(["-ec", script]);
    output(command).map(drop)
}

/// Applies one breakage after the other, and fixes each with the commands of doctor.
fn assert_named_and_fixed(
    namespace: &Namespace,
    arguments: &[&Path],
    breakages: &[Breakage],
) -> Result<()> {
    let examine_again = || examine(namespace, &[], arguments);
    for Breakage { script, severity, id, found, undo } in breakages {
        shell(namespace, script)?;
        let report = examine_again()?;
        let named: Vec<&Finding> = report
            .of(*severity, id)
            .into_iter()
            .filter(|finding| finding.found.contains(found))
            .collect();
        ensure!(
            !named.is_empty(),
            "after `{script}`: no {id} finding with {found:?} in {report:#?}"
        );
        ensure!(named.iter().all(|finding| !finding.why.is_empty()), "{named:?}");
        match undo {
            Some(undo) => {
                ensure!(named.iter().all(|finding| !finding.advice.is_empty()), "{named:?}");
                shell(namespace, undo)?;
            }
            None => {
                // One breakage may cause others: run the commands of all errors.
                let others = report.errors().into_iter().filter(|finding| !named.contains(finding));
                let commands: Vec<&String> =
                    named.iter().copied().chain(others).flat_map(|finding| &finding.fix).collect();
                for command in commands {
                    shell(namespace, command).with_context(|| format!("after `{script}`"))?;
                }
            }
        }
        let after = examine_again()?;
        let same = after.of(*severity, id);
        let left = same.iter().any(|finding| finding.found.contains(found));
        if left || !after.errors().is_empty() {
            bail!("after `{script}`, after the fix of {named:#?}: {after:#?}");
        }
    }
    Ok(())
}

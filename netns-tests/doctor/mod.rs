//! `natbox doctor`: content with what works, and for each thing that is broken it names it, and the very commands that it prints
//! mend it.
//!
//! | file        | behaviour                                                                    |
//! |-------------|------------------------------------------------------------------------------|
//! | `of_box`    | the box's host: rules, routes, sysctls, TUN, filters of others, gateway       |
//! | `of_server` | the server's side: addresses, way of the replies, services, filters           |

mod of_box;
mod of_server;

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use natbox::host::doctor::{Finding, Severity};
use natbox::lab::{Namespace, command_line};
use serde::Deserialize;

use crate::lab::{NATBOX, output};

/// What doctor said.
#[derive(Debug, Deserialize)]
struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// The findings of one kind and severity.
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

/// Runs doctor in a namespace, behind a command that prepares things for it (which may be empty).
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

/// Something that can break, and what doctor has to say then.
struct Breakage {
    /// A shell script that breaks it.
    script: String,
    severity: Severity,
    id: &'static str,
    /// Part of what is found.
    found: String,
    /// A script that mends it where doctor can only give advice.
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
    fn warned_of(self) -> Self {
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

/// Breaks one thing after the other, and mends it by what doctor says.
fn assert_named_and_mended(
    namespace: &Namespace,
    arguments: &[&Path],
    breakages: &[Breakage],
) -> Result<()> {
    let look = || examine(namespace, &[], arguments);
    for Breakage { script, severity, id, found, undo } in breakages {
        shell(namespace, script)?;
        let report = look()?;
        let named: Vec<&Finding> = report
            .of(*severity, id)
            .into_iter()
            .filter(|finding| finding.found.contains(found))
            .collect();
        ensure!(!named.is_empty(), "after `{script}`: no {id} that says {found:?} in {report:#?}");
        ensure!(named.iter().all(|finding| !finding.why.is_empty()), "{named:?}");
        match undo {
            Some(undo) => {
                ensure!(named.iter().all(|finding| !finding.advice.is_empty()), "{named:?}");
                shell(namespace, undo)?;
            }
            None => {
                // One thing may break others: all that is said, the worst first.
                let others = report.errors().into_iter().filter(|finding| !named.contains(finding));
                let commands: Vec<&String> =
                    named.iter().copied().chain(others).flat_map(|finding| &finding.fix).collect();
                for command in commands {
                    shell(namespace, command).with_context(|| format!("after `{script}`"))?;
                }
            }
        }
        let after = look()?;
        let same = after.of(*severity, id);
        let left = same.iter().any(|finding| finding.found.contains(found));
        if left || !after.errors().is_empty() {
            bail!("after `{script}`, mending by {named:#?}: {after:#?}");
        }
    }
    Ok(())
}

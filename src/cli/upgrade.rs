//! `natbox upgrade --check`: asks another program whether it can take over the sessions of an
//! instance.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::config_file::ConfigFile;
use super::exit::{DONE, Failure, USER};
use super::output;
use super::progress::Progress;
use crate::control::{self, Preview};

/// The command of `natbox` that answers the question of `natbox upgrade --check`.
pub(super) const ANSWER_COMMAND: &str = "preview-takeover";

/// Arguments of `natbox upgrade`.
#[derive(Debug, Args)]
pub(super) struct UpgradeArguments {
    /// Ask the program at PATH whether it can take over the sessions. Nothing is stopped or changed
    #[arg(long, value_name = "PATH", required = true)]
    check: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of the answer.
#[derive(Debug, Args)]
pub(super) struct AnswerArguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Asks the other program, and prints its answer.
///
/// # Errors
/// A user error when the other program rejects the configuration or knows no such question. An
/// environment error when it cannot be run.
pub(super) fn run(arguments: &UpgradeArguments) -> Result<ExitCode, Failure> {
    let progress = Progress::of_wait("asking the other program");
    let answer = ask(&arguments.check, &arguments.config.path)?;
    drop(progress);
    let keeps = !matches!(answer, Preview::End { .. });
    output::show(arguments.json, &answer, sentence)?;
    Ok(ExitCode::from(if keeps { DONE } else { USER }))
}

/// Answers: prints what a start of this program would do with the sessions.
///
/// # Errors
/// A user error when the configuration is wrong.
pub(super) fn answer(arguments: &AnswerArguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    output::print(&output::json_line(&control::preview(&config))?)?;
    Ok(ExitCode::from(DONE))
}

fn ask(program: &Path, config: &Path) -> Result<Preview, Failure> {
    let mut command = Command::new(program);
    command.arg(ANSWER_COMMAND).arg("--config").arg(config);
    let output = command
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))
        .map_err(Failure::environment)?;
    if output.status.success()
        && let Ok(answer) = serde_json::from_slice(&output.stdout)
    {
        return Ok(answer);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::user(anyhow!(
        "{} does not say whether it can take over the sessions; it said: {}",
        program.display(),
        said.trim()
    )))
}

fn sentence(answer: &Preview) -> String {
    match answer {
        Preview::None => "there are no sessions to take over".to_owned(),
        Preview::Continue => "all sessions continue, from the first packet on".to_owned(),
        Preview::Import { reason } => {
            format!("the sessions that the configuration allows continue, by an import: {reason}")
        }
        Preview::End { reason } => format!("the sessions would end: {reason}"),
    }
}

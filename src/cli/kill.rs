//! `natbox kill`: ends sessions of a running instance.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::output;
use super::progress::Progress;
use super::sessions::count_matching;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{KilledSessions, Request, SessionCursor, SessionPage, SessionView};
use crate::config::counted;

/// Arguments of `natbox kill`.
#[derive(Debug, Args)]
pub(super) struct KillArguments {
    #[command(flatten)]
    query: InstanceQuery,
    #[command(flatten)]
    filter: FilterArgument,
    /// End every session if there is no filter
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// End no session if more than N match
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Tell the inside hosts nothing: neither a reset nor an ICMP error
    #[arg(long)]
    silent: bool,
}

/// Ends the sessions that match, after a question.
///
/// # Errors
/// A user error when the filter is wrong or missing, when more sessions match than allowed, or when
/// standard input is no terminal. An environment error when no instance answers.
pub(super) fn run(arguments: &KillArguments) -> Result<ExitCode, Failure> {
    let KillArguments { query, filter, all, yes, max, silent } = arguments;
    if filter.parse()?.is_empty() && !all {
        return Err(user("filter: found none, wanted one; to end every session: --all"));
    }
    let filter = filter.text();
    let progress = Progress::of_wait("counting sessions");
    let matching = count_matching(&query.instance, &filter, None)?.sessions;
    drop(progress);
    if let Some(max) = max.filter(|max| matching > *max) {
        return Err(user(&format!(
            "{} match, wanted at most {max} (--max); none is ended",
            counted(matching, "session", "sessions")
        )));
    }
    if matching != 0 && !yes && !confirmed(arguments, &filter, matching)? {
        return Ok(ExitCode::FAILURE);
    }
    let request = Request::KillSessions { filter, max: *max, silent: *silent };
    let progress = Progress::of_wait("ending sessions");
    let mut ended = 0;
    let complete = query.instance.follow(&request, |progress: KilledSessions| {
        ended = progress.ended;
        if progress.complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(progress);
    if complete.is_continue() {
        let sessions = counted(ended, "session", "sessions");
        return Err(Failure::environment(anyhow!("the instance has ended after {sessions}")));
    }
    let answer = KilledSessions { ended, complete: true };
    output::show(query.json, &answer, |answer| {
        format!("{} ended", counted(answer.ended, "session", "sessions"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how many sessions match with three examples, and asks.
fn confirmed(arguments: &KillArguments, filter: &str, matching: u64) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(user(&format!(
            "{} match; to end them without a question: --yes",
            counted(matching, "session", "sessions")
        )));
    }
    warn(&format!("{} match, such as:", counted(matching, "session", "sessions")));
    for session in examples(arguments, filter)? {
        warn(&format!("  {session}"));
    }
    let _ = write!(io::stderr(), "End {}? [y/N] ", if matching == 1 { "it" } else { "them" });
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::environment)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn examples(arguments: &KillArguments, filter: &str) -> Result<Vec<SessionView>, Failure> {
    let mut examples = Vec::new();
    let mut next = Some(SessionCursor::default());
    while let Some(from) = next.filter(|_| examples.len() < EXAMPLES) {
        let filter = filter.to_owned();
        let page: SessionPage =
            arguments.query.instance.ask(&Request::Sessions { from, filter })?;
        examples.extend(page.sessions);
        next = page.next;
    }
    examples.truncate(EXAMPLES);
    Ok(examples)
}

fn user(message: &str) -> Failure {
    Failure::user(anyhow!("{message}"))
}

/// Sessions that the question shows.
const EXAMPLES: usize = 3;

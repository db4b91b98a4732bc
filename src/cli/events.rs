//! `natbox events`: prints the recent events of a running instance and follows new ones, or follows
//! its sessions.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::output;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{Event, Request, SessionChanged};

/// Arguments of `natbox events`.
#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    #[command(flatten)]
    query: InstanceQuery,
    /// After the recent events (at most 1,000), print new ones until the instance ends
    #[arg(short = 'f', long)]
    follow: bool,
    /// Follow the beginnings, handshakes and ends of sessions instead; a filter implies this
    #[arg(long, conflicts_with = "follow")]
    sessions: bool,
    #[command(flatten)]
    filter: FilterArgument,
}

/// Prints the recent events. With `--follow` continues until the instance ends or the reader closes
/// its end.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named.
pub(super) fn run(arguments: &EventsArguments) -> Result<ExitCode, Failure> {
    let EventsArguments { query, follow, sessions, filter } = arguments;
    let follows_sessions = *sessions || !filter.parse()?.is_empty();
    let ended = if follows_sessions {
        let request = Request::SessionEvents { filter: filter.text() };
        print_all(query, &request, |change: &SessionChanged| change.to_string())?
    } else {
        let text = |event: &Event| format!("{} {}", event.at, event.kind);
        print_all(query, &Request::Events { follow: *follow }, text)?
    };
    if ended.is_continue() && (*follow || follows_sessions) {
        warn("the instance has ended");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each line of the answer. Returns `Continue` when the instance has ended, and `Break` when
/// the reader has closed its end.
fn print_all<Line: Serialize + DeserializeOwned>(
    query: &InstanceQuery,
    request: &Request,
    text: impl Fn(&Line) -> String,
) -> Result<ControlFlow<()>, Failure> {
    let ended = query.instance.follow(request, |line: Line| {
        let text = if query.json { output::json_line(&line) } else { Ok(text(&line)) };
        match text.and_then(|text| output::offer(&text)) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(Ok(())),
            Err(failure) => ControlFlow::Break(Err(failure)),
        }
    })?;
    match ended {
        ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
        ControlFlow::Break(outcome) => outcome.map(ControlFlow::Break),
    }
}

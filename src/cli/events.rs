//! `natbox events`: prints the recent events of a running instance and follows new ones.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::output;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{Event, Request};

/// Arguments of `natbox events`.
#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    #[command(flatten)]
    query: InstanceQuery,
    /// After the recent events (at most 1,000), print new ones until the instance ends
    #[arg(short = 'f', long)]
    follow: bool,
}

/// Prints the recent events. With `--follow` continues until the instance ends or the reader closes
/// its end.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named.
pub(super) fn run(arguments: &EventsArguments) -> Result<ExitCode, Failure> {
    let EventsArguments { query, follow } = arguments;
    let request = Request::Events { follow: *follow };
    let ended = query.instance.follow(&request, |event: Event| {
        match text(&event, query.json).and_then(|text| output::offer(&text)) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(Ok(())),
            Err(failure) => ControlFlow::Break(Err(failure)),
        }
    })?;
    match ended {
        ControlFlow::Continue(()) if *follow => warn("the instance has ended"),
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(outcome) => outcome?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(event: &Event, json: bool) -> Result<String, Failure> {
    if json { output::json_line(event) } else { Ok(format!("{} {}", event.at, event.kind)) }
}

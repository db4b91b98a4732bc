//! `natbox events`: what happened to a running box, and what happens.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::target::Target;
use super::{Failure, output, warn};
use crate::control::Event;
use crate::control::admin::Request;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// End after what the box remembers (its last 1,000 events), instead of going on
    #[arg(long)]
    past: bool,
    /// Print JSON: an object a line
    #[arg(long)]
    json: bool,
}

/// Prints events until the box has ended, or nobody reads any more.
///
/// # Errors
/// The environment's when no box answers; the user's when several run and none is named.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let follow = !arguments.past;
    let ended =
        arguments.target.follow(&Request::Events { follow }, |event: Event| {
            match text(&event, arguments.json).and_then(|text| output::offer(&text)) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => ControlFlow::Break(Ok(())),
                Err(failure) => ControlFlow::Break(Err(failure)),
            }
        })?;
    match ended {
        ControlFlow::Continue(()) if follow => warn("the box has ended"),
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(outcome) => outcome?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(event: &Event, json: bool) -> Result<String, Failure> {
    if json {
        return serde_json::to_string(event).context("printing JSON").map_err(Failure::bug);
    }
    Ok(format!("{} {}", event.at, event.kind))
}

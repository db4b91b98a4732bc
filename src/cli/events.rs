//! `natbox events`: prints the recent events of a running box, and follows new ones.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::target::InstanceSelector;
use super::{Failure, output, warn};
use crate::api::Event;
use crate::api::Request;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: InstanceSelector,
    /// After the recent events (the last 1,000), go on with new ones until the box ends
    #[arg(short = 'f', long)]
    follow: bool,
    /// Print JSON: an object a line
    #[arg(long)]
    json: bool,
}

/// Prints the recent events; with `--follow` goes on until the box has ended, or nobody reads any more.
///
/// # Errors
/// The environment's when no box answers; the user's when several run and none is named.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let follow = arguments.follow;
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

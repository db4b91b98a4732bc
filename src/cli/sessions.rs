//! `natbox sessions`: the sessions of a running box.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::target::InstanceSelector;
use super::{Failure, print};
use crate::api::Request;
use crate::api::{SessionCursor, SessionPage, SessionView};

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: InstanceSelector,
    /// Print JSON: one list, an entry a line
    #[arg(long)]
    json: bool,
}

/// Lists the sessions of a box, page by page.
///
/// # Errors
/// The environment's when no box answers; the user's when several run and none is named.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut next = Some(SessionCursor::default());
    let mut separator = "[";
    while let Some(from) = next {
        let page: SessionPage = arguments.target.ask(&Request::Sessions { from })?;
        next = page.next;
        let mut text = String::new();
        for session in &page.sessions {
            if arguments.json {
                text += separator;
                separator = ",";
                text += &serde_json::to_string(session)
                    .context("printing JSON")
                    .map_err(Failure::bug)?;
                text.push('\n');
            } else {
                line(&mut text, session);
            }
        }
        if !text.is_empty() {
            print(text.trim_end())?;
        }
    }
    if arguments.json {
        print(if separator == "[" { "[]" } else { "]" })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The packets of the side that opened it, before and after translation.
fn line(text: &mut String, session: &SessionView) {
    let SessionView { protocol, state, origin, uplink, original, reply, expires_in_seconds } =
        session;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{protocol:<5} {state:<13} {origin:<10} {uplink:<8} {:>21} > {:<21}  =>  {:>21} > {:<21} {expires_in_seconds:>6} s",
        original.source, original.destination, reply.destination, reply.source
    );
}

//! `natbox sessions`: lists the sessions of a running instance.

use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::output::{self, print};
use super::progress::Progress;
use super::target::InstanceQuery;
use crate::api::{Request, SessionCursor, SessionPage, SessionView};

/// Arguments of `natbox sessions`.
#[derive(Debug, Args)]
pub(super) struct SessionsArguments {
    #[command(flatten)]
    query: InstanceQuery,
}

/// Lists the sessions of an instance, page by page.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named.
pub(super) fn run(arguments: &SessionsArguments) -> Result<ExitCode, Failure> {
    let InstanceQuery { instance, json } = &arguments.query;
    let mut next = Some(SessionCursor::default());
    let mut separator = "[";
    let progress = Progress::of_output("sessions");
    while let Some(from) = next {
        let page: SessionPage = instance.ask(&Request::Sessions { from })?;
        next = page.next;
        progress.add(page.sessions.len());
        let mut lines = Vec::new();
        for session in &page.sessions {
            if *json {
                lines.push(format!("{separator}{}", output::json_line(session)?));
                separator = ",";
            } else {
                lines.push(row(session));
            }
        }
        if !lines.is_empty() {
            print(&lines.join("\n"))?;
        }
    }
    if *json {
        print(if separator == "[" { "[]" } else { "]" })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats the packets of the initiator before and after translation.
fn row(session: &SessionView) -> String {
    let SessionView { protocol, state, origin, uplink, original, reply, expires_in_seconds } =
        session;
    format!(
        "{protocol:<5} {state:<13} {origin:<16} {uplink:<8} {:>21} > {:<21}  =>  {:>21} > {:<21} \
         {expires_in_seconds:>6} s",
        original.source, original.destination, reply.destination, reply.source
    )
}

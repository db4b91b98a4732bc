//! `natbox demo`: one server on two uplinks, in network namespaces on this machine, with a measured
//! report. A scenario chooses the instances. [`crate::lab`] provides namespaces, servers, downloads
//! and captures.
//!
//! ```text
//! scenario          the differences between the scenarios
//! stage             the setup and its measurements
//! failover          an uplink that fails and recovers
//! report            the results (failover_report: those of failover)
//! diagram, screen   the picture and the progress
//! ```
//!
//! Everything except the instances runs in this process. The instances are `natbox run` processes
//! with copies of the published configuration files.

mod diagram;
mod error;
mod failover;
mod failover_report;
mod options;
mod report;
mod scenario;
mod screen;
mod stage;

use std::io::{self, IsTerminal as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use anyhow::anyhow;

use super::exit::Failure;
use super::failed::ErrorFormat;
use super::stderr::warn;
use crate::lab::interrupt::Interrupt;
use error::DemoError;
use failover_report::FailoverReport;
use options::DemoOptions;
use report::{DemoReport, ScenarioReport};
use scenario::{Scenario, ScenarioSpec};
use screen::Screen;
use stage::Stage;

/// Arguments of `natbox demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    #[command(flatten)]
    options: DemoOptions,
    /// Scenario other than that of two instances
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

/// Runs the demo. Exit code 0: the bandwidths add up, every reply used its own uplink, and the
/// server saw the clients' addresses. Exit code 1: an expectation failed, and the report says
/// which. After a signal the exit code is 128 and the signal's number, as in shells.
///
/// # Errors
/// An environment error when the machine lacks something or fails. A bug when the demo panicked.
/// The demo removes everything in each case.
pub fn run(arguments: &DemoArguments) -> Result<ExitCode, Failure> {
    let (options, spec) = (&arguments.options, ScenarioSpec::of(arguments.scenario));
    crate::lab::check_host().map_err(Failure::environment)?;
    let interrupt = Interrupt::listen().map_err(Failure::environment)?;
    let screen = Screen::new(options.json);
    // The program's own hook would end the process at once and leave the namespaces behind.
    std::panic::set_hook(Box::new(|panic| {
        warn(&format!("natbox: bug, please report it: {panic}"))
    }));
    let outcome =
        std::panic::catch_unwind(AssertUnwindSafe(|| show(spec, options, &interrupt, &screen)));
    // The last message begins on a line of its own.
    screen.end_line();
    match outcome {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(DemoError::Interrupted(signal))) => {
            let text = format!("{signal}; the demo has removed everything that it had set up");
            let format = if options.json { ErrorFormat::Json } else { ErrorFormat::Text };
            Ok(format.print("natbox: ", &text, None, 128 + signal.number))
        }
        Ok(Err(error)) => Err(Failure::environment(error)),
        Err(_) => Err(Failure::bug(anyhow!(
            "the demo panicked; it has removed everything that it had set up"
        ))),
    }
}

/// Runs the demo up to and including the clean-up.
fn show(
    spec: &ScenarioSpec,
    options: &DemoOptions,
    interrupt: &Interrupt,
    screen: &Screen,
) -> Result<ExitCode, DemoError> {
    let stage = Stage::set(spec, options, interrupt, screen)?;
    let mut report = stage.perform(options, interrupt, screen)?;
    let failover = match spec.fails {
        false => None,
        true => Some(failover::play(&stage.topology, &stage.boxes[0], interrupt, screen)?),
    };
    report.add_problems(failover.iter().flat_map(FailoverReport::problems));
    print_report(spec, &report, failover.as_ref(), options.json).map_err(DemoError::Output)?;
    if options.keep {
        stage.keep(interrupt, screen)?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print_report(
    spec: &ScenarioSpec,
    report: &DemoReport,
    failover: Option<&FailoverReport>,
    json: bool,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (json, spec.name) {
        (true, None) => writeln!(out, "{}", serde_json::to_string_pretty(report)?),
        (true, Some(scenario)) => {
            let report =
                ScenarioReport { scenario, uplinks_count: report.uplinks.len(), failover, report };
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)
        }
        (false, _) => {
            let more =
                failover.map_or_else(String::new, |failover| format!("{}\n", failover.text()));
            write!(out, "\n{more}{}", report.text(io::stdout().is_terminal()))
        }
    }
}

//! Floods a box and shows what its established sessions, new requests, memory and counters do
//! meanwhile. `benches/overload` runs it.
//!
//! Every scenario floods a new box twice. At the pace `carried` the flood is as fast as natbox
//! reads, so that the kernel's queues lose nothing. At the pace `full` one thread sends as fast as
//! it can, and the queue before natbox overflows. The kernel counts what its queues lose. Beyond
//! that loss, natbox may lose nothing.
//!
//! The program ends with exit code 1 if a check fails.

mod measure;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use measure::{Pace, Scenario, Settings, baseline, overload};
use report::{Report, print};

/// Overloads a box.
#[derive(Parser)]
#[command(name = "benches/overload")]
struct Arguments {
    /// Scenarios, separated by commas. The default is all.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Duration of each flood, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Source of the random packets.
    #[arg(long, default_value_t = 4787)]
    seed: u64,
    /// Directory for results.json and results.md.
    #[arg(long, default_value = "target/overload")]
    output: PathBuf,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let Arguments { scenario, seconds, seed, output, .. } = Arguments::parse();
    let scenarios = if scenario.is_empty() { Scenario::ALL.to_vec() } else { scenario };
    let program = Path::new(env!("CARGO_BIN_EXE_natbox"));
    let settings = Settings { program, time: Duration::from_secs(seconds), seed };
    let mut report = Report::new(seconds, seed);
    for scenario in scenarios {
        let name = scenario.name();
        let forwarded =
            baseline(scenario, settings).with_context(|| format!("{name}, baseline"))?;
        let phases = overload(scenario, settings, &Pace::BOTH).with_context(|| name.to_owned())?;
        for phase in &phases {
            report.add(phase, forwarded);
        }
    }
    report.write(&output)?;
    print(&format!("\n{}\nwritten: {}/results.{{md,json}}", report.table(), output.display()));
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

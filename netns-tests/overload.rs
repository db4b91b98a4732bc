//! Floods of five kinds: the short form of `benches/overload`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::NATBOX;
use measure::{Check, Pace, Scenario, Settings, overload};

#[path = "../benches/flood/measure/mod.rs"]
#[expect(dead_code, reason = "benches/flood uses the rest")]
mod measure;

/// Duration of each flood. Each scenario has three, two of them to fill the table.
const TIME: Duration = Duration::from_millis(1500);

#[test]
fn floods_harm_no_established_session_and_every_packet_is_counted() -> Result<()> {
    let settings = Settings { program: Path::new(NATBOX), time: TIME, seed: 4787 };
    let mut failed = Vec::new();
    for scenario in [
        Scenario::SynForward,
        Scenario::TableFull,
        Scenario::Fragments,
        Scenario::UdpMapping,
        Scenario::InsideHost,
    ] {
        let name = scenario.name();
        let phases = overload(scenario, settings, &[Pace::Carried]).context(name)?;
        for Check { what, found, wanted, holds } in phases.iter().flat_map(|it| it.checks()) {
            if !holds {
                failed.push(format!("{name}: {what}: {found} ({wanted})"));
            }
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

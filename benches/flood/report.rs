//! The figures as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::measure::{Check, Pace, Phase, Scenario};

/// The figures of all floods.
pub(crate) struct Report {
    command: String,
    rows: Vec<String>,
    results: Vec<Value>,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn new(seconds: u64, seed: u64) -> Report {
        let command = format!("benches/overload --seconds {seconds} --seed {seed}");
        Report { command, rows: Vec::new(), results: Vec::new(), failed: Vec::new() }
    }

    /// Adds a flood and prints its checks. `forwarded`: the worst loss of a flow through a box that
    /// only forwards.
    pub(crate) fn add(&mut self, phase: &Phase, forwarded: f64) {
        let name = format!("{} {}", phase.scenario.name(), phase.pace.name());
        let checks = phase.checks();
        for Check { what, found, wanted, holds } in &checks {
            let word = if *holds { "ok  " } else { "FAIL" };
            let line = format!("{word} {name}: {what}: {found} ({wanted})");
            print(&line);
            if !holds {
                self.failed.push(line);
            }
        }
        let figures = Figures::of(phase, forwarded);
        self.rows.push(figures.row(phase));
        self.results.push(figures.json(phase, &checks));
    }

    /// Tells whether every check holds.
    pub(crate) fn holds(&self) -> bool {
        self.failed.is_empty()
    }

    /// Returns the table as Markdown, with the failed checks.
    pub(crate) fn table(&self) -> String {
        let mut text = HEAD.to_owned();
        for row in &self.rows {
            text.push_str(row);
        }
        let verdict = match self.failed.as_slice() {
            [] => "every check holds".to_owned(),
            failed => failed.join("\n"),
        };
        text + &format!("\n{}; table of {} sessions; {verdict}\n", self.command, Scenario::CAPACITY)
    }

    /// Writes results.md and results.json.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        let report = json!({ "command": self.command, "floods": self.results });
        write("results.json", &format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        write("results.md", &self.table())
    }
}

/// The figures of one flood.
struct Figures {
    /// Packets of the flood each second.
    flood: f64,
    /// Packets that natbox read each second.
    read: f64,
    /// Worst share of the kernel's queues on a way.
    machine: f64,
    /// Worst loss of a flow through a box that only forwards.
    forwarded: f64,
}

impl Figures {
    fn of(phase: &Phase, forwarded: f64) -> Figures {
        let seconds = phase.seen.took.as_secs_f64();
        Figures {
            flood: phase.seen.flooded as f64 / seconds,
            read: phase.devices.tun.sent as f64 / seconds,
            machine: phase.machine_loss(),
            forwarded,
        }
    }

    fn row(&self, phase: &Phase) -> String {
        let drops: Vec<String> =
            phase.drops().map(|(reason, count)| format!("{count} {reason}")).collect();
        // The rate of a baseline is that of the pace `full`.
        let forwarded = match phase.pace {
            Pace::Full => format!("{:.2} %", 100.0 * self.forwarded),
            Pace::Carried => "-".to_owned(),
        };
        format!(
            "| {} | {} | {:.0} k | {:.0} k | {:.2} % | {:.2} % | {forwarded} | {:.3} % | {:.1} % | {} | {} | {} | {} |\n",
            phase.scenario.name(),
            phase.pace.name(),
            self.flood / 1000.0,
            self.read / 1000.0,
            100.0 * phase.loss(),
            100.0 * self.machine,
            100.0 * phase.worst_beyond_machine().1,
            100.0 * phase.seen.requests.share(),
            phase.seen.sessions,
            phase.growth(),
            phase.time_per_packet().as_nanos(),
            drops.join(", "),
        )
    }

    fn json(&self, phase: &Phase, checks: &[Check]) -> Value {
        let checks = checks.iter().map(|Check { what, found, wanted, holds }| {
            json!({ "what": what, "found": found, "wanted": wanted, "holds": holds })
        });
        json!({
            "scenario": phase.scenario.name(),
            "pace": phase.pace.name(),
            "flood_per_second": self.flood,
            "read_per_second": self.read,
            "loss": phase.loss(),
            "loss_of_kernel_queues": self.machine,
            "loss_when_forwarded": self.forwarded,
            "loss_beyond_machine": phase.worst_beyond_machine().1,
            "requests": phase.seen.requests.asked,
            "requests_answered": phase.seen.requests.answered,
            "sessions": phase.seen.sessions,
            "sessions_of_flood": phase.held,
            "memory_growth_kib": phase.growth(),
            "user_time_per_packet_ns": phase.time_per_packet().as_nanos() as u64,
            "drops": phase.drops().collect::<std::collections::BTreeMap<_, _>>(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

const HEAD: &str = "\
| scenario | pace | flood/s | read/s | loss of flows | of which kernel's queues | plain forwarding | beyond the machine | requests answered | sessions | memory, KiB | own time, ns a packet | drops |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|
";

//! Compares natbox with plain forwarding, nftables and haproxy, in namespaces of this machine.
//! `benches/compare` runs it, and installs the programs that it needs.
//!
//! Every round measures every device once, in rotating order, each in new namespaces. The figures
//! are medians over the rounds, those of requests with confidence intervals. On a virtual machine
//! with few cores only the ratios within one run are meaningful.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use latency::Placement;
use report::Figures;
use testbed::{Device, Testbed};
use workloads::{Load, Workload};

mod latency;
mod report;
mod statistics;
mod testbed;
mod udp;
mod workloads;

/// Compares natbox with the kernel's plain forwarding, the kernel's NAT and a proxy.
#[derive(Parser)]
#[command(name = "benches/compare")]
struct Arguments {
    /// Number of rounds. Each round measures every device once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Duration of a measurement, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Devices, separated by commas.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<Device>,
    /// Workloads, separated by commas. The default is all.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Requests of each run of the workload `request`. Figures for publication need 20,000 or more.
    #[arg(long, default_value_t = 20_000)]
    requests: u32,
    /// Directory for results.json, results.md and results.svg.
    #[arg(long, default_value = "target/compare")]
    output: PathBuf,
    /// Further keys of natbox's `tun` section, such as `workers: 1, busy_poll: 0`.
    #[arg(long, default_value = "")]
    tun: String,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let devices =
        if arguments.devices.is_empty() { Device::ALL.to_vec() } else { arguments.devices.clone() };
    let workloads = arguments.workloads()?;
    let mut figures = Figures::default();
    let fitting = workloads
        .iter()
        .flat_map(|workload| devices.iter().filter(|device| workload.fits(**device)));
    let (mut done, all) = (0, fitting.count() * arguments.rounds as usize);
    for round in 0..arguments.rounds {
        for workload in &workloads {
            // The order rotates, so that no device always finds the machine cool.
            for step in 0..devices.len() {
                let device = devices[(step + round as usize) % devices.len()];
                if workload.fits(device) {
                    done += 1;
                    let (name, device_name) = (workload.name, device.name());
                    progress(&format!("{done} of {all}: {name} through {device_name}"));
                    measure(&arguments, round, workload, device, &mut figures)?;
                }
            }
        }
    }
    write_report(&arguments, &devices, &figures)
}

impl Arguments {
    /// Returns the workloads to measure.
    ///
    /// # Errors
    /// A name is unknown.
    fn workloads(&self) -> Result<Vec<&'static Workload>> {
        let names: Vec<&str> = workloads::ALL.iter().map(|workload| workload.name).collect();
        for wanted in &self.workloads {
            anyhow::ensure!(
                names.contains(&wanted.as_str()),
                "--workloads {wanted}: unknown; choose from {}",
                names.join(", ")
            );
        }
        let is_wanted = |workload: &&Workload| {
            self.workloads.is_empty() || self.workloads.iter().any(|name| name == workload.name)
        };
        Ok(workloads::ALL.iter().filter(is_wanted).collect())
    }
}

/// Measures one workload once through a device and adds its figures.
fn measure(
    arguments: &Arguments,
    round: u32,
    workload: &Workload,
    device: Device,
    figures: &mut Figures,
) -> Result<()> {
    let placement = workload.is_pinned.then(Placement::choose).transpose()?;
    let testbed = Testbed::new(device, &arguments.tun, placement)?;
    let load =
        Load { time: Duration::from_secs(arguments.seconds), requests: arguments.requests.max(1) };
    let values = workload
        .run(&testbed, load)
        .with_context(|| format!("{} through {}", workload.name, device.name()))?;
    progress("");
    for (figure, value) in workload.figures.iter().zip(values) {
        print(&format!(
            "round {} {:14} {:9} {value:.2} {}",
            round + 1,
            figure.name,
            device.name(),
            figure.unit
        ));
        figures.add(*figure, device, value);
    }
    Ok(())
}

/// Writes the figures as JSON, Markdown and SVG, and prints the table.
fn write_report(arguments: &Arguments, devices: &[Device], figures: &Figures) -> Result<()> {
    let machine = machine();
    let Arguments { rounds, seconds, requests, .. } = arguments;
    let mut command = format!("benches/compare --rounds {rounds} --seconds {seconds}");
    let table = figures.table(devices);
    let mut caption = machine.clone();
    if arguments.workloads()?.iter().any(|workload| workload.is_pinned) {
        command.push_str(&format!(" --requests {requests}"));
        caption.push_str(&format!("; {}", Placement::choose()?.describe()));
    }
    caption.push_str(&format!("; {command}"));
    if let Some(note) = figures.note() {
        caption.push_str(&format!("; {note}"));
    }
    let report = json!({
        "machine": machine,
        "command": command,
        "natbox": env!("CARGO_PKG_VERSION"),
        "figures": figures.json(devices),
    });
    fs::create_dir_all(&arguments.output)?;
    let write = |name: &str, text: &str| {
        let path = arguments.output.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("results.json", &format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    write("results.md", &format!("{table}\n{caption}\n"))?;
    write("results.svg", &figures.chart(devices, &caption))?;
    let output = arguments.output.display();
    print(&format!("\n{table}\n{caption}\nwritten to {output}/results.{{md,json,svg}}"));
    Ok(())
}

/// Describes cores, processor and kernel.
fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = kernel.trim().split('-').next().unwrap_or_default();
    format!(
        "{cores} cores of {}, Linux {version}",
        model.map_or("an unknown processor", |(_, name)| name)
    )
}

/// Replaces the line of progress on a terminal. An empty text removes it.
fn progress(text: &str) {
    let mut screen = std::io::stderr();
    if screen.is_terminal() {
        // Progress that cannot be shown does not stop the measurements.
        let _ = write!(screen, "\r{text}\u{1b}[K").and_then(|()| screen.flush());
    }
}

#[expect(clippy::print_stdout, reason = "the report is the output of this program")]
fn print(line: &str) {
    println!("{line}");
}

//! natbox beside plain forwarding, nftables and haproxy, in namespaces of this machine. Run it by `benches/compare`, which
//! installs what it needs.
//!
//! Every round measures every device once, in alternating order, each on fresh namespaces; figures are medians over the
//! rounds. What a virtual machine with few cores shows is ratios within one run.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use report::Figures;
use scene::{Device, Scene};

mod report;
mod scene;
mod udp;
mod workloads;

/// Compares natbox with the kernel's plain forwarding, the kernel's NAT and a proxy.
#[derive(Parser)]
#[command(name = "benches/compare")]
struct Arguments {
    /// Rounds; each measures every device once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Devices, separated by commas.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<Device>,
    /// Workloads, separated by commas; all if not given.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Directory for results.json, results.md and results.svg.
    #[arg(long, default_value = "target/compare")]
    output: PathBuf,
    /// Further keys of natbox's `tun` section, such as `workers: 1, busy_poll: 0`.
    #[arg(long, default_value = "")]
    tun: String,
    /// Cargo adds this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let devices =
        if arguments.devices.is_empty() { Device::ALL.to_vec() } else { arguments.devices.clone() };
    let names: Vec<&str> = workloads::ALL.iter().map(|workload| workload.name).collect();
    for wanted in &arguments.workloads {
        anyhow::ensure!(
            names.contains(&wanted.as_str()),
            "{wanted} is no workload; there are {}",
            names.join(", ")
        );
    }
    let chosen: Vec<_> = workloads::ALL
        .iter()
        .filter(|workload| {
            arguments.workloads.is_empty()
                || arguments.workloads.iter().any(|wanted| wanted == workload.name)
        })
        .collect();
    let time = Duration::from_secs(arguments.seconds);
    let mut figures = Figures::default();
    for round in 0..arguments.rounds {
        for workload in &chosen {
            // Nobody is always the first, who finds the machine cool, or the last.
            for step in 0..devices.len() {
                let device = devices[(step + round as usize) % devices.len()];
                if !workload.fits(device) {
                    continue;
                }
                let scene = Scene::new(device, &arguments.tun)?;
                let values = workload
                    .run(&scene, time)
                    .with_context(|| format!("{} through {}", workload.name, device.name()))?;
                for (figure, value) in workload.figures.iter().zip(values) {
                    say(&format!(
                        "round {} {:14} {:9} {value:.2} {}",
                        round + 1,
                        figure.name,
                        device.name(),
                        figure.unit
                    ));
                    figures.add(*figure, device, value);
                }
            }
        }
    }
    let machine = machine();
    let command =
        format!("benches/compare --rounds {} --seconds {}", arguments.rounds, arguments.seconds);
    let table = figures.table(&devices);
    let caption = format!("{machine}; {command}");
    let report = json!({
        "machine": machine, "command": command, "natbox": env!("CARGO_PKG_VERSION"), "figures": figures.json(&devices),
    });
    fs::create_dir_all(&arguments.output)?;
    let write = |name: &str, text: &str| {
        let path = arguments.output.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("results.json", &format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    write("results.md", &format!("{table}\n{caption}\n"))?;
    write("results.svg", &figures.picture(&devices, &caption))?;
    say(&format!(
        "\n{table}\n{caption}\nwritten to {}/results.{{md,json,svg}}",
        arguments.output.display()
    ));
    Ok(())
}

/// Cores, processor and kernel.
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

#[expect(clippy::print_stdout, reason = "its report is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

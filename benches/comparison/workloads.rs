//! The workloads and the figures that they yield.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use natbox::lab::Namespace;
use serde_json::Value;

use crate::testbed::{CAPACITY, CLIENT, Device, HTTP, IPERF, SERVER, Testbed, UDP, run, wait_for};
use crate::udp;

/// A figure that a workload yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Short name, for tables and files.
    pub name: &'static str,
    /// Description for readers.
    pub title: &'static str,
    pub unit: &'static str,
    /// Lower values are better.
    pub is_cost: bool,
}

const fn figure(name: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { name, title, unit, is_cost: false }
}

const fn cost(name: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { name, title, unit, is_cost: true }
}

/// A workload, its figures, and the devices that it fits.
pub(crate) struct Workload {
    pub name: &'static str,
    pub figures: &'static [Figure],
    fits: fn(Device) -> bool,
    work: fn(&Testbed, Duration) -> Result<Vec<f64>>,
}

impl Workload {
    pub(crate) fn fits(&self, device: Device) -> bool {
        (self.fits)(device)
    }

    /// Measures the figures, in their order.
    pub(crate) fn run(&self, testbed: &Testbed, time: Duration) -> Result<Vec<f64>> {
        (self.work)(testbed, time)
    }
}

fn every_device(_: Device) -> bool {
    true
}

fn no_proxy(device: Device) -> bool {
    !device.is_proxy()
}

pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "tcp1",
        figures: &[figure("tcp1", "TCP, 1 stream in", "Gbit/s")],
        fits: every_device,
        work: |testbed, time| bulk(testbed, time, true, &["-P", "1"]),
    },
    Workload {
        name: "tcp4",
        figures: &[figure("tcp4", "TCP, 4 streams in", "Gbit/s")],
        fits: every_device,
        work: |testbed, time| bulk(testbed, time, true, &["-P", "4"]),
    },
    Workload {
        name: "tcp4-download",
        figures: &[figure("tcp4-download", "TCP, 4 streams, server sends", "Gbit/s")],
        fits: every_device,
        work: |testbed, time| bulk(testbed, time, true, &["-P", "4", "-R"]),
    },
    Workload {
        name: "tcp4-out",
        figures: &[figure("tcp4-out", "TCP, 4 streams out", "Gbit/s")],
        fits: no_proxy,
        work: |testbed, time| bulk(testbed, time, false, &["-P", "4"]),
    },
    Workload {
        name: "http",
        figures: &[figure("http", "HTTP, new connections in", "1/s")],
        fits: every_device,
        work: |testbed, time| Ok(vec![http(testbed, time, true, 32, true)?.rate]),
    },
    Workload {
        name: "http-out",
        figures: &[figure("http-out", "HTTP, new connections out", "1/s")],
        fits: no_proxy,
        work: |testbed, time| Ok(vec![http(testbed, time, false, 32, true)?.rate]),
    },
    Workload {
        name: "request",
        figures: &[
            cost("request-p50", "one small request, median", "us"),
            cost("request-p99", "one small request, 99th percentile", "us"),
        ],
        fits: every_device,
        work: |testbed, time| {
            let requests = http(testbed, time, true, 1, false)?;
            Ok(vec![requests.median, requests.percentile_99])
        },
    },
    Workload {
        name: "udp64",
        figures: &[figure("udp64", "UDP, 64-byte frames, 64 flows in", "packets/s")],
        fits: no_proxy,
        work: |testbed, time| datagrams_in(testbed, time, 64),
    },
    Workload {
        name: "udp20000",
        figures: &[figure("udp20000", "UDP, 20,000 flows in, packet by packet", "packets/s")],
        fits: no_proxy,
        work: |testbed, time| datagrams_in(testbed, time, 20_000),
    },
    Workload {
        name: "rfc9693",
        figures: &[
            figure("setup", "sessions opened by one UDP packet each, out", "1/s"),
            figure("capacity", "sessions held when more are offered", "sessions"),
            figure(
                "random-ports",
                "UDP over 60,000 sessions, pseudorandom ports, out",
                "packets/s",
            ),
            figure("tear-down", "sessions ended at once", "1/s"),
        ],
        fits: Device::translates,
        work: stateful,
    },
];

/// Runs iperf3, from the client to the published server or from the server to the client.
fn bulk(testbed: &Testbed, time: Duration, inbound: bool, more: &[&str]) -> Result<Vec<f64>> {
    let (from, to, target) = ends(testbed, inbound);
    let port = IPERF.to_string();
    let _server = testbed.spawn(to, "iperf3", &["-s", "-p", &port])?;
    wait_for_listener(to, IPERF)?;
    let seconds = time.as_secs().max(1).to_string();
    let mut command = from.command("iperf3");
    command
        .args(["-c", &target, "-p", &port, "-t", &seconds, "-J", "--connect-timeout", "3000"])
        .args(more);
    let report: Value = serde_json::from_str(&run(&mut command)?)?;
    let rate = &report["end"]["sum_received"]["bits_per_second"];
    Ok(vec![rate.as_f64().with_context(|| format!("iperf3: no rate in {report}"))? / 1e9])
}

/// The result of wrk.
struct Requests {
    /// Requests per second.
    rate: f64,
    /// Median time of a request, in microseconds.
    median: f64,
    /// 99th percentile of the time of a request, in microseconds.
    percentile_99: f64,
}

/// Runs wrk against nginx.
fn http(
    testbed: &Testbed,
    time: Duration,
    inbound: bool,
    connections: u32,
    closing: bool,
) -> Result<Requests> {
    let (from, to, target) = ends(testbed, inbound);
    let _server = testbed.web_server(to)?;
    wait_for_listener(to, HTTP)?;
    let mut command = from.command("wrk");
    command.args([
        "-t",
        "1",
        "-c",
        &connections.to_string(),
        "-d",
        &format!("{}s", time.as_secs().max(1)),
    ]);
    if closing {
        command.args(["-H", "Connection: close"]);
    }
    command.args(["--latency", &format!("http://{target}:{HTTP}/")]);
    let text = run(&mut command)?;
    let word = |label: &str| {
        let line = text.lines().map(str::trim_start).find(|line| line.starts_with(label));
        line.and_then(|line| line[label.len()..].split_whitespace().next())
            .with_context(|| format!("wrk: no {label} in {text}"))
    };
    let rate = word("Requests/sec:")?.parse()?;
    let (median, percentile_99) = (microseconds(word("50%")?)?, microseconds(word("99%")?)?);
    Ok(Requests { rate, median, percentile_99 })
}

/// Reads a time as wrk prints it.
fn microseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("wrk: {text} is not a time")
}

fn datagrams_in(testbed: &Testbed, time: Duration, flows: u16) -> Result<Vec<f64>> {
    let packets = udp::flows((CLIENT, 10_000..10_000 + flows), (testbed.target(), UDP..=UDP));
    // Opens the sessions first: the figure is the rate over existing ones.
    udp::send(&testbed.net, &testbed.server, &packets, None)?;
    Ok(vec![udp::send(&testbed.net, &testbed.server, &packets, Some(time))?.rate()])
}

/// Measures after RFC 9693: outbound sessions opened by one packet each until the table is full,
/// traffic over sessions with pseudorandom ports (RFC 4814), and the teardown of all sessions.
///
/// The setup rate is that of one sender at full speed, by the number of sessions afterwards. It is
/// not the rate without loss, as a virtual machine always loses some packets.
fn stateful(testbed: &Testbed, time: Duration) -> Result<Vec<f64>> {
    let first_flows = udp::flows((SERVER, 10_000..11_000), (CLIENT, 20_000..20_060));
    let outcome = udp::send(&testbed.server, &testbed.net, &first_flows, None)?;
    let mut opened = testbed.sessions()? as f64;
    let mut took = outcome.took;
    let random = udp::send(&testbed.server, &testbed.net, &first_flows, Some(time))?.rate();
    let further_flows = udp::flows((SERVER, 11_000..12_000), (CLIENT, 20_000..20_060));
    let before = testbed.sessions()?;
    let outcome = udp::send(&testbed.server, &testbed.net, &further_flows, None)?;
    opened += (testbed.sessions()? - before) as f64;
    took += outcome.took;
    let setup = opened / took.as_secs_f64();
    // Enough to fill the table in spite of losses.
    for block in 0..10 {
        let first = 12_000 + 1000 * block;
        let rest = udp::flows((SERVER, first..first + 1000), (CLIENT, 20_000..20_060));
        udp::send(&testbed.server, &testbed.net, &rest, None)?;
        if testbed.sessions()? >= CAPACITY {
            break;
        }
    }
    let held = testbed.sessions()?;
    let (ended, took) = testbed.tear_down()?;
    Ok(vec![setup, held as f64, random, ended as f64 / took.as_secs_f64()])
}

/// Returns the initiator, the responder, and the responder's address for the initiator.
fn ends(testbed: &Testbed, inbound: bool) -> (&Namespace, &Namespace, String) {
    match inbound {
        true => (&testbed.net, &testbed.server, testbed.target().to_string()),
        false => (&testbed.server, &testbed.net, CLIENT.to_string()),
    }
}

fn wait_for_listener(namespace: &Namespace, port: u16) -> Result<()> {
    wait_for("the server", || {
        let connect = || std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
        matches!(namespace.enter(connect), Ok(Ok(_)))
    })
}

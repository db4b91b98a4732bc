//! The workloads and the figures that they yield.

use std::time::Duration;

use anyhow::{Context, Result};
use natbox::lab::Namespace;
use serde_json::Value;

use crate::latency::{self, Latencies};
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
    /// True: client, server and device are pinned to processors ([`crate::latency`]).
    pub is_pinned: bool,
    fits: fn(Device) -> bool,
    work: fn(&Testbed, Load) -> Result<Vec<f64>>,
}

/// The size of one measurement.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Duration of measurements by time.
    pub time: Duration,
    /// Number of requests of measurements by number.
    pub requests: u32,
}

impl Workload {
    pub(crate) fn fits(&self, device: Device) -> bool {
        (self.fits)(device)
    }

    /// Measures the figures, in their order.
    pub(crate) fn run(&self, testbed: &Testbed, load: Load) -> Result<Vec<f64>> {
        (self.work)(testbed, load)
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
        is_pinned: false,
        fits: every_device,
        work: |testbed, load| bulk(testbed, load.time, true, &["-P", "1"]),
    },
    Workload {
        name: "tcp4",
        figures: &[figure("tcp4", "TCP, 4 streams in", "Gbit/s")],
        is_pinned: false,
        fits: every_device,
        work: |testbed, load| bulk(testbed, load.time, true, &["-P", "4"]),
    },
    Workload {
        name: "tcp4-download",
        figures: &[figure("tcp4-download", "TCP, 4 streams, server sends", "Gbit/s")],
        is_pinned: false,
        fits: every_device,
        work: |testbed, load| bulk(testbed, load.time, true, &["-P", "4", "-R"]),
    },
    Workload {
        name: "tcp4-out",
        figures: &[figure("tcp4-out", "TCP, 4 streams out", "Gbit/s")],
        is_pinned: false,
        fits: no_proxy,
        work: |testbed, load| bulk(testbed, load.time, false, &["-P", "4"]),
    },
    Workload {
        name: "http",
        figures: &[figure("http", "HTTP, new connections in", "1/s")],
        is_pinned: false,
        fits: every_device,
        work: |testbed, load| Ok(vec![http(testbed, load.time, true)?]),
    },
    Workload {
        name: "http-out",
        figures: &[figure("http-out", "HTTP, new connections out", "1/s")],
        is_pinned: false,
        fits: no_proxy,
        work: |testbed, load| Ok(vec![http(testbed, load.time, false)?]),
    },
    Workload {
        name: "request",
        figures: &[
            cost("request-p50", "one small request, median", "us"),
            cost("request-p99", "one small request, 99th percentile", "us"),
        ],
        is_pinned: true,
        fits: every_device,
        work: requests,
    },
    Workload {
        name: "udp64",
        figures: &[figure("udp64", "UDP, 64-byte frames, 64 flows in", "packets/s")],
        is_pinned: false,
        fits: no_proxy,
        work: |testbed, load| datagrams_in(testbed, load.time, 64),
    },
    Workload {
        name: "udp20000",
        figures: &[figure("udp20000", "UDP, 20,000 flows in, packet by packet", "packets/s")],
        is_pinned: false,
        fits: no_proxy,
        work: |testbed, load| datagrams_in(testbed, load.time, 20_000),
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
        is_pinned: false,
        fits: Device::translates,
        work: |testbed, load| stateful(testbed, load.time),
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

/// Runs wrk against nginx, with 32 connections and one request for each. Returns the requests a
/// second.
fn http(testbed: &Testbed, time: Duration, inbound: bool) -> Result<f64> {
    let (from, to, target) = ends(testbed, inbound);
    let _server = testbed.web_server(to)?;
    wait_for_listener(to, HTTP)?;
    let seconds = format!("{}s", time.as_secs().max(1));
    let mut command = from.command("wrk");
    command.args(["-t", "1", "-c", "32", "-d", &seconds, "-H", "Connection: close"]);
    command.arg(format!("http://{target}:{HTTP}/"));
    let text = run(&mut command)?;
    let rates = text.lines().find_map(|line| line.trim_start().strip_prefix("Requests/sec:"));
    let rate = rates.with_context(|| format!("wrk: no rate in {text}"))?;
    Ok(rate.trim().parse()?)
}

/// Measures single requests to nginx: median and 99th percentile.
fn requests(testbed: &Testbed, load: Load) -> Result<Vec<f64>> {
    let placement = testbed.placement.context("the workload is pinned")?;
    let _server = latency::pinned(placement.server, || testbed.web_server(&testbed.server))?;
    wait_for_listener(&testbed.server, HTTP)?;
    let Latencies { median, percentile_99 } =
        latency::measure(testbed, placement.client, load.requests)?;
    Ok(vec![median, percentile_99])
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

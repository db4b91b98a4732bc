//! What is measured, one workload at a time.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use natbox::lab::Namespace;
use serde_json::Value;

use crate::scene::{CAPACITY, CLIENT, Device, HTTP, IPERF, SERVER, Scene, UDP, run, wait_for};
use crate::udp;

/// A figure that a workload yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Short name, for tables and files.
    pub name: &'static str,
    /// What it says.
    pub title: &'static str,
    pub unit: &'static str,
    /// Less is better.
    pub is_cost: bool,
}

const fn figure(name: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { name, title, unit, is_cost: false }
}

const fn cost(name: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure { name, title, unit, is_cost: true }
}

/// A workload: what it yields, and whom it is for.
pub struct Workload {
    pub name: &'static str,
    pub figures: &'static [Figure],
    fits: fn(Device) -> bool,
    work: fn(&Scene, Duration) -> Result<Vec<f64>>,
}

impl Workload {
    pub fn fits(&self, device: Device) -> bool {
        (self.fits)(device)
    }

    /// The figures, in their order.
    pub fn run(&self, scene: &Scene, time: Duration) -> Result<Vec<f64>> {
        (self.work)(scene, time)
    }
}

fn anyone(_: Device) -> bool {
    true
}

fn no_proxy(device: Device) -> bool {
    !device.is_proxy()
}

pub const ALL: &[Workload] = &[
    Workload {
        name: "tcp1",
        figures: &[figure("tcp1", "TCP, 1 stream in", "Gbit/s")],
        fits: anyone,
        work: |scene, time| bulk(scene, time, true, &["-P", "1"]),
    },
    Workload {
        name: "tcp4",
        figures: &[figure("tcp4", "TCP, 4 streams in", "Gbit/s")],
        fits: anyone,
        work: |scene, time| bulk(scene, time, true, &["-P", "4"]),
    },
    Workload {
        name: "tcp4-download",
        figures: &[figure("tcp4-download", "TCP, 4 streams, server sends", "Gbit/s")],
        fits: anyone,
        work: |scene, time| bulk(scene, time, true, &["-P", "4", "-R"]),
    },
    Workload {
        name: "tcp4-out",
        figures: &[figure("tcp4-out", "TCP, 4 streams out", "Gbit/s")],
        fits: no_proxy,
        work: |scene, time| bulk(scene, time, false, &["-P", "4"]),
    },
    Workload {
        name: "http",
        figures: &[figure("http", "HTTP, new connections in", "1/s")],
        fits: anyone,
        work: |scene, time| Ok(vec![http(scene, time, true, 32, true)?.0]),
    },
    Workload {
        name: "http-out",
        figures: &[figure("http-out", "HTTP, new connections out", "1/s")],
        fits: no_proxy,
        work: |scene, time| Ok(vec![http(scene, time, false, 32, true)?.0]),
    },
    Workload {
        name: "request",
        figures: &[
            cost("request-p50", "one small request, median", "us"),
            cost("request-p99", "one small request, 99th percentile", "us"),
        ],
        fits: anyone,
        work: |scene, time| {
            let (_, p50, p99) = http(scene, time, true, 1, false)?;
            Ok(vec![p50, p99])
        },
    },
    Workload {
        name: "udp64",
        figures: &[figure("udp64", "UDP, 64-byte frames, 64 flows in", "packets/s")],
        fits: no_proxy,
        work: |scene, time| datagrams_in(scene, time, 64),
    },
    Workload {
        name: "udp20000",
        figures: &[figure("udp20000", "UDP, 20,000 flows in, packet by packet", "packets/s")],
        fits: no_proxy,
        work: |scene, time| datagrams_in(scene, time, 20_000),
    },
    Workload {
        name: "rfc9693",
        figures: &[
            figure("setup", "sessions begun by one UDP packet each, out", "1/s"),
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

/// iperf3, towards the published server or from it to the client.
fn bulk(scene: &Scene, time: Duration, inbound: bool, more: &[&str]) -> Result<Vec<f64>> {
    let (from, to, target) = ends(scene, inbound);
    let port = IPERF.to_string();
    let _server = scene.spawn(to, "iperf3", &["-s", "-p", &port])?;
    wait_for_listener(to, IPERF)?;
    let seconds = time.as_secs().max(1).to_string();
    let mut command = from.command("iperf3");
    command
        .args(["-c", &target, "-p", &port, "-t", &seconds, "-J", "--connect-timeout", "3000"])
        .args(more);
    let report: Value = serde_json::from_str(&run(&mut command)?)?;
    let rate = &report["end"]["sum_received"]["bits_per_second"];
    Ok(vec![rate.as_f64().with_context(|| format!("iperf3 says {report}"))? / 1e9])
}

/// wrk against nginx: requests a second, and the median and 99th percentile of a request in microseconds.
fn http(
    scene: &Scene,
    time: Duration,
    inbound: bool,
    connections: u32,
    closing: bool,
) -> Result<(f64, f64, f64)> {
    let (from, to, target) = ends(scene, inbound);
    let _server = scene.web_server(to)?;
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
            .with_context(|| format!("wrk says {text}"))
    };
    let rate = word("Requests/sec:")?.parse()?;
    Ok((rate, microseconds(word("50%")?)?, microseconds(word("99%")?)?))
}

/// A time as wrk prints it.
fn microseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text} is no time")
}

fn datagrams_in(scene: &Scene, time: Duration, flows: u16) -> Result<Vec<f64>> {
    let packets = udp::flows((CLIENT, 10_000..10_000 + flows), (scene.target(), UDP..=UDP));
    // Sessions first: what is measured is their use.
    udp::send(&scene.net, &scene.server, &packets, None)?;
    Ok(vec![udp::send(&scene.net, &scene.server, &packets, Some(time))?.rate()])
}

/// After RFC 9693: sessions that the inside opens, with one packet each, until the table is full; traffic over sessions with
/// pseudorandom ports (RFC 4814); and the end of them all. The rate of setting up is that of one sender as fast as it
/// goes, by the sessions that there are afterwards, and not that without any loss: a virtual machine loses some always.
fn stateful(scene: &Scene, time: Duration) -> Result<Vec<f64>> {
    let some = udp::flows((SERVER, 10_000..11_000), (CLIENT, 20_000..20_060));
    let outcome = udp::send(&scene.server, &scene.net, &some, None)?;
    let mut begun = scene.sessions()? as f64;
    let mut took = outcome.took;
    let random = udp::send(&scene.server, &scene.net, &some, Some(time))?.rate();
    let more = udp::flows((SERVER, 11_000..12_000), (CLIENT, 20_000..20_060));
    let before = scene.sessions()?;
    let outcome = udp::send(&scene.server, &scene.net, &more, None)?;
    begun += (scene.sessions()? - before) as f64;
    took += outcome.took;
    let setup = begun / took.as_secs_f64();
    // Enough to fill the table, whatever is lost on the way.
    for block in 0..10 {
        let first = 12_000 + 1000 * block;
        let rest = udp::flows((SERVER, first..first + 1000), (CLIENT, 20_000..20_060));
        udp::send(&scene.server, &scene.net, &rest, None)?;
        if scene.sessions()? >= CAPACITY {
            break;
        }
    }
    let held = scene.sessions()?;
    let (ended, took) = scene.tear_down()?;
    Ok(vec![setup, held as f64, random, ended as f64 / took.as_secs_f64()])
}

/// Who begins, who answers, and where the first finds the other.
fn ends(scene: &Scene, inbound: bool) -> (&Namespace, &Namespace, String) {
    match inbound {
        true => (&scene.net, &scene.server, scene.target().to_string()),
        false => (&scene.server, &scene.net, CLIENT.to_string()),
    }
}

fn wait_for_listener(namespace: &Namespace, port: u16) -> Result<()> {
    wait_for("the server", || {
        let connect = || std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
        matches!(namespace.enter(connect), Ok(Ok(_)))
    })
}

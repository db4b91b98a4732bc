//! The time of one small request, one request at a time over one connection.
//!
//! The client measures every request by itself, so that the quantiles are exact. Client, server and
//! device are pinned to fixed processors: a scheduler that moves them would decide the result. The
//! kernel forwards on the processor of the sender.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::statistics::quantile;
use crate::testbed::{HTTP, Testbed};

/// Processors of the three parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub client: usize,
    pub server: usize,
    /// Processor of natbox or haproxy.
    pub device: usize,
}

/// Times of the requests of one run, in microseconds.
pub(crate) struct Latencies {
    pub median: f64,
    pub percentile_99: f64,
}

impl Placement {
    /// Chooses processors among those that this process may use. With two processors, the device
    /// has that of the server: a request is never at both at the same time.
    ///
    /// # Errors
    /// The system does not say which processors there are.
    pub(crate) fn choose() -> Result<Self> {
        let set = sched_getaffinity(None).context("reading the allowed processors")?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let at = |place: usize| allowed[place.min(allowed.len() - 1)];
        ensure!(!allowed.is_empty(), "no processor is allowed");
        Ok(Self { client: at(0), server: at(1), device: at(2) })
    }

    /// Describes the placement for the report.
    pub(crate) fn describe(self) -> String {
        let Self { client, server, device } = self;
        format!("requests: client on processor {client}, server on {server}, device on {device}")
    }
}

/// Runs `work` on one processor. Programs that `work` starts stay there.
///
/// # Errors
/// The system does not allow the processor, or `work` fails.
pub(crate) fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("reading the allowed processors")?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("pinning to processor {cpu}"))?;
    let outcome = work();
    sched_setaffinity(None, &before).context("taking the pinning back")?;
    outcome
}

/// Sends requests to the published server, one after the other.
pub(crate) fn measure(testbed: &Testbed, cpu: usize, requests: u32) -> Result<Latencies> {
    let target = testbed.target();
    let mut times =
        testbed.net.enter(|| pinned(cpu, || request_times(target, requests)))?.context("client")?;
    times.sort_by(f64::total_cmp);
    Ok(Latencies { median: quantile(&times, 0.5), percentile_99: quantile(&times, 0.99) })
}

fn request_times(target: Ipv4Addr, requests: u32) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect((target, HTTP))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let mut buffer = [0; 4096];
    let mut times = Vec::with_capacity(requests as usize);
    for number in 0..WARM_UP + requests {
        let began = Instant::now();
        stream.write_all(request.as_bytes())?;
        read_response(&mut stream, &mut buffer)?;
        if number >= WARM_UP {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}

/// Reads one response with a body of [`BODY`] bytes.
fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..])?;
        ensure!(read > 0, "the server closed the connection, or its response is too long");
        length += read;
        let head = buffer[..length].windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|head| length >= head + 4 + BODY) {
            ensure!(buffer.starts_with(b"HTTP/1.1 200"), "the server refused a request");
            return Ok(());
        }
    }
}

/// Requests before those that count: they open the session and fill the caches.
const WARM_UP: u32 = 1000;
/// Length of the server's page, in bytes.
const BODY: usize = 1;

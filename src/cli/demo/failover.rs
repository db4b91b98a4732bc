//! A line dies and comes back while everybody talks: what the other line notices of it, and how soon the inside is on it.
//!
//! ```text
//!   client ── datagrams, one every 2 ms, and a request every 20 ms ── line 1 ──▶ server      may not lose anything
//!   server ── requests over one connection that begins on line 2 ───────────────▶ client     is reset, goes on over line 1
//!   provider 2: its router dies without a word (the address of the gateway is gone), and is mended later
//! ```

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{DemoError, PORT, Screen};
use crate::api::Status;
use crate::lab::boxes::{BoxError, NatBox};
use crate::lab::http::{self, Connection, connect};
use crate::lab::interrupt::Interrupt;
use crate::lab::topology::{CLIENTS, Topology, Uplink};
use crate::lab::{LabError, Namespace};

/// What came of it; the field names are keys of `--json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failover {
    /// Datagrams over the line that stayed, there and back, that were lost.
    #[serde(rename = "lost_on_other_lines")]
    pub lost_on_other_uplinks: u64,
    /// How many were sent.
    #[serde(rename = "datagrams_on_other_lines")]
    pub datagrams_on_other_uplinks: u64,
    /// Requests over the line that stayed that failed.
    #[serde(rename = "failed_requests_on_surviving_line")]
    pub failed_requests_on_surviving_uplink: u64,
    /// How many were made, each on a connection of its own.
    #[serde(rename = "requests_on_surviving_line")]
    pub requests_on_surviving_uplink: u64,
    /// From the death of the line until an inside host that talked over it had an answer over the other one.
    #[serde(rename = "seconds_to_new_line")]
    pub seconds_to_new_uplink: f64,
    /// As many as that may be: interval times `lose` of the configuration, and a tenth of a second.
    pub seconds_wanted: f64,
    /// From the mending of the line until the box used it again.
    pub seconds_until_back: f64,
}

impl Failover {
    /// What is not as it should be, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost_on_other_uplinks > 0 {
            problems.push(format!(
                "{} datagrams were lost on the line that stayed",
                self.lost_on_other_uplinks
            ));
        }
        if self.failed_requests_on_surviving_uplink > 0 {
            problems.push(format!(
                "{} requests failed on the line that stayed",
                self.failed_requests_on_surviving_uplink
            ));
        }
        if self.seconds_to_new_uplink > self.seconds_wanted + SLACK {
            problems.push(format!(
                "it took {:.2} s until the inside was on the other line; {:.2} s are allowed",
                self.seconds_to_new_uplink, self.seconds_wanted
            ));
        }
        problems
    }

    /// The findings for people.
    pub fn text(&self) -> String {
        format!(
            "  uplink 2 died:   the inside was on uplink 1 after {:.2} s ({:.2} s allowed), and uplink 2 was back {:.2} s after its mending\n\
             \x20 uplink 1 stayed: {} of {} datagrams lost, {} of {} requests failed\n",
            self.seconds_to_new_uplink,
            self.seconds_wanted,
            self.seconds_until_back,
            self.lost_on_other_uplinks,
            self.datagrams_on_other_uplinks,
            self.failed_requests_on_surviving_uplink,
            self.requests_on_surviving_uplink
        )
    }
}

/// Plays it on a box with two lines.
pub(super) fn play(
    topology: &Topology,
    natbox: &NatBox,
    interrupt: &Interrupt,
    screen: &Screen,
) -> Result<Failover, DemoError> {
    let [stays, dies] = &topology.uplinks[..] else { unreachable!("the scenario has two lines") };
    let stop = AtomicBool::new(false);
    let server = &topology.servers[0];
    let echo = bind_udp(&server.namespace, server.addresses[0])?;
    let sender = bind_udp(&topology.client, CLIENTS[1])?;
    sender
        .connect(stays.endpoint(PORT))
        .map_err(LabError::system("reach the published address"))?;
    let _web = outside_server(&topology.client)?;

    thread::scope(|scope| {
        // Whatever happens here, the others end.
        let _ends = SetOnDrop(&stop);
        scope.spawn(|| send_back(&echo, &stop));
        let arrivals = scope.spawn(|| count_answers(&sender, &stop));
        let datagrams = scope.spawn(|| send_steadily(&sender, &stop));
        let requests = scope.spawn(|| topology.client.enter(|| ask_steadily(stays, &stop)));
        let inside = scope.spawn(|| server.namespace.enter(|| talk(stays, dies, interrupt)));

        screen.show("  everybody talks, an inside host over uplink 2 ... ");
        interrupt.pause(WARM_UP)?;
        dies.provider.ip(&["address", "del", &gateway(dies), "dev", "box0"])?;
        let died = Instant::now();
        screen.show("uplink 2 dies ... ");
        let on_new_uplink = loop {
            interrupt.pause(POLL_INTERVAL)?;
            if inside.is_finished() || died.elapsed() > RECOVERY_TIMEOUT {
                break join(inside)??;
            }
        };
        screen.show("mended ... ");
        dies.provider.address("box0", dies.gateway, 24)?;
        let mended = Instant::now();
        while !is_healthy(natbox, 1)? && mended.elapsed() < RECOVERY_TIMEOUT {
            interrupt.pause(POLL_INTERVAL)?;
        }
        let back = mended.elapsed();
        interrupt.pause(WARM_UP)?;
        screen.show("done\n");

        stop.store(true, Ordering::Relaxed);
        let sent = join(datagrams);
        let (made, failed) = join(requests)?;
        Ok(Failover {
            lost_on_other_uplinks: sent - join(arrivals),
            datagrams_on_other_uplinks: sent,
            failed_requests_on_surviving_uplink: failed,
            requests_on_surviving_uplink: made,
            seconds_to_new_uplink: on_new_uplink
                .map_or(RECOVERY_TIMEOUT.as_secs_f64(), |when| (when - died).as_secs_f64()),
            seconds_wanted: SWITCH_LIMIT.as_secs_f64(),
            seconds_until_back: back.as_secs_f64(),
        })
    })
}

/// Sets a flag when it goes.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn gateway(uplink: &Uplink) -> String {
    format!("{}/24", uplink.gateway)
}

fn bind_udp(namespace: &Namespace, address: Ipv4Addr) -> Result<UdpSocket, LabError> {
    let failed = || LabError::system("open a socket for datagrams");
    let socket = namespace.enter(|| UdpSocket::bind((address, PORT)))?.map_err(failed())?;
    socket.set_read_timeout(Some(POLL_INTERVAL)).map_err(failed())?;
    Ok(socket)
}

/// A web server on the Internet that tells everybody where they seem to come from.
fn outside_server(client: &Namespace) -> Result<http::Server, LabError> {
    let failed = || LabError::system("start a web server on the Internet");
    let listener =
        client.enter(|| TcpListener::bind((CLIENTS[0], OUTSIDE_PORT)))?.map_err(failed())?;
    http::Server::start(vec![listener], None).map_err(failed())
}

fn is_healthy(natbox: &NatBox, uplink: usize) -> Result<bool, DemoError> {
    let status: Status = natbox.status().map_err(BoxError::from)?;
    Ok(status.uplinks.get(uplink).is_some_and(|uplink| uplink.healthy))
}

fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // What cannot be sent is missed, and counted, by the other end.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

/// Sends numbered datagrams; how many.
fn send_steadily(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // What cannot be sent will not be answered, and counts as lost.
        let _ = socket.send(&number.to_be_bytes());
        number += 1;
        thread::sleep(DATAGRAM_INTERVAL);
    }
    number
}

/// How many different datagrams come back, until some time after the last one was sent.
fn count_answers(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let (mut seen, mut buffer) = (HashSet::new(), [0; 64]);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) || last.elapsed() < REPLY_TIMEOUT {
        if socket.recv(&mut buffer).is_ok_and(|length| length == 8) {
            seen.insert(buffer[..8].to_vec());
            last = Instant::now();
        }
    }
    seen.len() as u64
}

/// Makes requests over a line; how many, and how many of them failed.
fn ask_steadily(uplink: &Uplink, stop: &AtomicBool) -> (u64, u64) {
    let (mut made, mut failed) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = connect(Some(CLIENTS[2]), uplink.endpoint(PORT), REQUEST_TIMEOUT)
            .and_then(|mut connection| connection.get("/"));
        made += 1;
        failed += u64::from(!answer.is_ok_and(|answer| answer.status == 200));
        thread::sleep(REQUEST_INTERVAL);
    }
    (made, failed)
}

/// An inside host's requests to the Internet, over a connection that begins on the line that dies and begins again when it
/// is told so; when the first answer came over the line that stays. None: never.
fn talk(
    stays: &Uplink,
    dies: &Uplink,
    interrupt: &Interrupt,
) -> Result<Option<Instant>, DemoError> {
    let mut connection = connect_over(dies, interrupt)?;
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP + RECOVERY_TIMEOUT {
        interrupt.check()?;
        match over(&mut connection) {
            Ok(address) if address == stays.published => return Ok(Some(Instant::now())),
            Ok(_) => thread::sleep(REQUEST_INTERVAL),
            Err(_) => match connect(None, outside(), REQUEST_TIMEOUT) {
                Ok(next) => connection = next,
                Err(_) => thread::sleep(REQUEST_INTERVAL),
            },
        }
    }
    Ok(None)
}

/// A connection from inside that goes out by this line: each has a port of its own, and the box spreads them.
fn connect_over(uplink: &Uplink, interrupt: &Interrupt) -> Result<Connection, DemoError> {
    let failed = || LabError::system("reach the Internet from inside");
    loop {
        interrupt.check()?;
        let mut connection = connect(None, outside(), REQUEST_TIMEOUT).map_err(failed())?;
        if over(&mut connection).map_err(failed())? == uplink.published {
            return Ok(connection);
        }
    }
}

fn outside() -> SocketAddrV4 {
    SocketAddrV4::new(CLIENTS[0], OUTSIDE_PORT)
}

/// The address by which the Internet knows an inside connection: that of its line.
fn over(connection: &mut Connection) -> io::Result<Ipv4Addr> {
    let answer = connection.get("/")?;
    answer.text().trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

const OUTSIDE_PORT: u16 = 8080;
/// Before the line dies, and after it is back.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often it is looked whether anything has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(2);
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);
/// After the last datagram its answer is waited for so long.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// For a connection, and for each answer over it: longer than any line takes to be given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What takes longer has failed.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval times `lose` of configs/failover.yaml, and a tenth of a second.
const SWITCH_LIMIT: Duration = Duration::from_millis(3100);
/// For the machine: threads that find no core, a handshake.
const SLACK: f64 = 0.4;

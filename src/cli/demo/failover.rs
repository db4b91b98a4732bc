//! An uplink fails and recovers under load: measures the loss on the other uplink, and the time
//! until inside hosts use the other uplink.
//!
//! ```text
//! client ── datagrams every 2 ms, requests every 20 ms ── uplink 1 ─▶ server   must lose nothing
//! server ── requests over one connection ──────────────── uplink 2 ─▶ client   reset, then uplink 1
//! provider 2: the gateway's address is removed, and later restored
//! ```

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::error::DemoError;
use super::failover_report::FailoverReport;
use super::screen::Screen;
use super::stage::PORT;
use crate::api::Status;
use crate::lab::boxes::{BoxError, NatBox};
use crate::lab::http::{self, Connection, connect};
use crate::lab::interrupt::Interrupt;
use crate::lab::topology::{CLIENTS, Topology, TopologyUplink};
use crate::lab::{LabError, Namespace};

/// Runs the failure on a box with two uplinks.
pub(super) fn play(
    topology: &Topology,
    natbox: &NatBox,
    interrupt: &Interrupt,
    screen: &Screen,
) -> Result<FailoverReport, DemoError> {
    let [survivor, failing] = &topology.uplinks[..] else {
        unreachable!("the scenario has two uplinks")
    };
    let stop = AtomicBool::new(false);
    let server = &topology.servers[0];
    let echo = bind_udp(&server.namespace, server.addresses[0])?;
    let sender = bind_udp(&topology.client, CLIENTS[1])?;
    sender
        .connect(survivor.endpoint(PORT))
        .map_err(LabError::system("reach the published address"))?;
    let _web = outside_server(&topology.client)?;

    thread::scope(|scope| {
        // In every case the other threads end.
        let _ends = SetOnDrop(&stop);
        scope.spawn(|| send_back(&echo, &stop));
        let arrivals = scope.spawn(|| count_answers(&sender, &stop));
        let datagrams = scope.spawn(|| send_steadily(&sender, &stop));
        let requests = scope.spawn(|| topology.client.enter(|| ask_steadily(survivor, &stop)));
        let inside = scope.spawn(|| server.namespace.enter(|| talk(survivor, failing, interrupt)));

        screen.show("  clients use uplink 1, an inside host uses uplink 2 ... ");
        interrupt.pause(WARM_UP)?;
        let failed_at = fail(failing)?;
        screen.show("uplink 2 fails ... ");
        let on_new_uplink = loop {
            interrupt.pause(POLL_INTERVAL)?;
            if inside.is_finished() || failed_at.elapsed() > RECOVERY_TIMEOUT {
                break join(inside)??;
            }
        };
        screen.show("repaired ... ");
        let back = repair(failing, natbox, interrupt)?;
        interrupt.pause(WARM_UP)?;
        screen.show("done\n");

        stop.store(true, Ordering::Relaxed);
        let sent = join(datagrams);
        let (made, failed) = join(requests)?;
        Ok(FailoverReport {
            lost_on_other_uplinks: sent - join(arrivals),
            datagrams_on_other_uplinks: sent,
            failed_requests_on_surviving_uplink: failed,
            requests_on_surviving_uplink: made,
            seconds_to_new_uplink: on_new_uplink
                .map_or(RECOVERY_TIMEOUT.as_secs_f64(), |when| (when - failed_at).as_secs_f64()),
            seconds_wanted: SWITCH_LIMIT.as_secs_f64(),
            seconds_until_back: back.as_secs_f64(),
        })
    })
}

/// Removes the gateway's address, as if its router had died. Returns the time.
fn fail(uplink: &TopologyUplink) -> Result<Instant, LabError> {
    let gateway = format!("{}/24", uplink.gateway);
    uplink.provider.ip(&["address", "del", &gateway, "dev", "box0"])?;
    Ok(Instant::now())
}

/// Restores the gateway's address. Returns the time until the instance uses the uplink again.
fn repair(
    uplink: &TopologyUplink,
    natbox: &NatBox,
    interrupt: &Interrupt,
) -> Result<Duration, DemoError> {
    uplink.provider.address("box0", uplink.gateway, 24)?;
    let repaired = Instant::now();
    while !is_healthy(natbox, 1)? && repaired.elapsed() < RECOVERY_TIMEOUT {
        interrupt.pause(POLL_INTERVAL)?;
    }
    Ok(repaired.elapsed())
}

/// Sets a flag when dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn bind_udp(namespace: &Namespace, address: Ipv4Addr) -> Result<UdpSocket, LabError> {
    let failed = || LabError::system("open a socket for datagrams");
    let socket = namespace.enter(|| UdpSocket::bind((address, PORT)))?.map_err(failed())?;
    socket.set_read_timeout(Some(POLL_INTERVAL)).map_err(failed())?;
    Ok(socket)
}

/// Starts a web server on the Internet that answers with the client's address.
fn outside_server(client: &Namespace) -> Result<http::HttpServer, LabError> {
    let failed = || LabError::system("start a web server on the Internet");
    let listener =
        client.enter(|| TcpListener::bind((CLIENTS[0], OUTSIDE_PORT)))?.map_err(failed())?;
    http::HttpServer::start(vec![listener], None).map_err(failed())
}

fn is_healthy(natbox: &NatBox, uplink: usize) -> Result<bool, DemoError> {
    let status: Status = natbox.status().map_err(BoxError::from)?;
    Ok(status.uplinks.get(uplink).is_some_and(|uplink| uplink.healthy))
}

fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // The other end counts a datagram that cannot be sent as lost.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

/// Sends numbered datagrams and returns how many.
fn send_steadily(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // A datagram that cannot be sent gets no reply, and counts as lost.
        let _ = socket.send(&number.to_be_bytes());
        number += 1;
        thread::sleep(DATAGRAM_INTERVAL);
    }
    number
}

/// Counts the distinct datagrams that come back, until [`REPLY_TIMEOUT`] after the last one.
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

/// Makes requests over an uplink. Returns how many, and how many failed.
fn ask_steadily(uplink: &TopologyUplink, stop: &AtomicBool) -> (u64, u64) {
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

/// Makes requests from an inside host to the Internet. The first connection uses the failing
/// uplink; after a reset the host connects again. Returns the time of the first reply over the
/// surviving uplink, or `None` if there was none.
fn talk(
    survivor: &TopologyUplink,
    failing: &TopologyUplink,
    interrupt: &Interrupt,
) -> Result<Option<Instant>, DemoError> {
    let mut connection = connect_over(failing, interrupt)?;
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP + RECOVERY_TIMEOUT {
        interrupt.check()?;
        match over(&mut connection) {
            Ok(address) if address == survivor.published => return Ok(Some(Instant::now())),
            Ok(_) => thread::sleep(REQUEST_INTERVAL),
            Err(_) => match connect(None, outside(), REQUEST_TIMEOUT) {
                Ok(next) => connection = next,
                Err(_) => thread::sleep(REQUEST_INTERVAL),
            },
        }
    }
    Ok(None)
}

/// Opens a connection from inside that uses this uplink. Every attempt has another port, and the
/// instance spreads ports over the uplinks.
fn connect_over(uplink: &TopologyUplink, interrupt: &Interrupt) -> Result<Connection, DemoError> {
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

/// Returns the external address of an inside connection, which is that of its uplink.
fn over(connection: &mut Connection) -> io::Result<Ipv4Addr> {
    let answer = connection.get("/")?;
    answer.text().trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

const OUTSIDE_PORT: u16 = 8080;
/// Time before the failure, and after the recovery.
const WARM_UP: Duration = Duration::from_secs(1);
/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(2);
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);
/// Time to wait for the reply to the last datagram.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// For a connection, and for each reply over it: longer than the detection of a failed uplink
/// takes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a recovery counts as failed.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval times `fall` of configs/failover.yaml, and a tenth of a second.
const SWITCH_LIMIT: Duration = Duration::from_millis(3100);

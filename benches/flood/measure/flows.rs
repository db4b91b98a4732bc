//! The established flows: numbered datagrams at a constant rate in both directions of two sessions,
//! and a download whose every byte is compared.

use std::net::UdpSocket;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use natbox::lab::http::{Connection, Pattern, connect};

use super::testbed::{CLIENT, Testbed};

/// The way of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Inbound,
    Outbound,
}

/// The datagrams of one direction of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub way: Way,
    pub sent: u64,
    pub received: u64,
}

impl Delivery {
    /// Returns the number of datagrams that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        self.sent - self.received
    }

    /// Returns the share of the datagrams that did not arrive.
    pub(crate) fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }
}

/// Two sessions: one opened from outside, one from inside.
pub(crate) struct Flows {
    sessions: [[UdpSocket; 2]; 2],
}

impl Flows {
    /// Opens the sessions.
    pub(crate) fn open(testbed: &Testbed) -> Result<Flows> {
        Ok(Flows { sessions: testbed.sessions()? })
    }

    /// Sends over every direction until `stop` is set. Returns the number of datagrams in each.
    pub(crate) fn send(&self, stop: &AtomicBool) -> Result<u64> {
        let started = Instant::now();
        let mut sent: u64 = 0;
        while !stop.load(Relaxed) {
            let due = started.elapsed().as_millis() as u64 / INTERVAL.as_millis() as u64;
            while sent < due {
                for socket in self.sessions.iter().flatten() {
                    match socket.send(&sent.to_be_bytes()) {
                        Ok(_) => {}
                        // An error of the other end's kernel about an earlier datagram.
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                        Err(error) => return Err(error).context("sending a datagram of a flow"),
                    }
                }
                sent += 1;
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(sent)
    }

    /// Reads what has arrived of `sent` datagrams in each direction.
    pub(crate) fn collect(&self, sent: u64) -> Result<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        for (session, [opener, listener]) in self.sessions.iter().enumerate() {
            let there = if session == 0 { Way::Inbound } else { Way::Outbound };
            let back = if session == 0 { Way::Outbound } else { Way::Inbound };
            for (way, receiver) in [(there, listener), (back, opener)] {
                deliveries.push(Delivery { way, sent, received: received(receiver, sent)? });
            }
        }
        Ok(deliveries)
    }
}

/// Empties a socket. Returns the number of different datagrams.
fn received(socket: &UdpSocket, sent: u64) -> Result<u64> {
    let mut seen = vec![false; usize::try_from(sent)?];
    let mut datagram = [0; 8];
    socket.set_nonblocking(true)?;
    loop {
        match socket.recv(&mut datagram) {
            Ok(8) => {
                let number = usize::try_from(u64::from_be_bytes(datagram))?;
                let is_new = seen.get_mut(number).context("a number that was not sent")?;
                *is_new = true;
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
    }
    socket.set_nonblocking(false)?;
    Ok(seen.into_iter().filter(|seen| *seen).count() as u64)
}

/// An established download through the published port.
pub(crate) struct Download {
    connection: Connection,
}

impl Download {
    pub(crate) fn open(testbed: &Testbed) -> Result<Download> {
        let connection =
            testbed.client.enter(|| connect(Some(CLIENT), testbed.web(), SILENCE))??;
        Ok(Download { connection })
    }

    /// Downloads slowly until `stop` is set, and compares every byte. Returns the number of bytes.
    ///
    /// # Errors
    /// The connection was reset, stood still for [`SILENCE`], or a byte was wrong.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<u64> {
        let (mut pattern, mut intact, mut bytes) = (Pattern::new(), true, 0);
        let read = |chunk: &[u8]| {
            intact &= pattern.matches(chunk);
            bytes += chunk.len() as u64;
            std::thread::sleep(INTERVAL);
            if stop.load(Relaxed) || !intact {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        self.connection.stream(&format!("/bytes/{}", u64::MAX), read).context("the download")?;
        ensure!(intact, "the download has a wrong byte");
        Ok(bytes)
    }
}

/// Time between two datagrams of a direction, and between two reads of the download.
const INTERVAL: Duration = Duration::from_millis(1);
/// Longest time for which a connection may stand still: retransmissions wait for up to half of it
/// when the kernel's queues are full.
const SILENCE: Duration = Duration::from_secs(60);

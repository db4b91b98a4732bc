//! A flow of numbered datagrams at a constant rate, and the times of their arrival.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::testbed::Testbed;

/// A running flow.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Vec<(u64, Instant)>>>,
}

/// What has arrived.
pub(crate) struct Arrivals {
    pub sent: u64,
    /// Numbers and times, in the order of their arrival.
    received: Vec<(u64, Instant)>,
}

impl Flow {
    /// Starts sender and receiver.
    pub(crate) fn start(testbed: &Testbed, rate: u32) -> Result<Flow> {
        let (source, sink) = testbed.sockets()?;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let receiver = {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || receive(&sink, &ended))
        };
        let sender = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let sent = send(&source, rate, &stop);
                // What is on its way arrives.
                std::thread::sleep(Duration::from_millis(100));
                ended.store(true, Ordering::Relaxed);
                sent
            })
        };
        Ok(Flow { stop, sender, receiver })
    }

    /// Stops the flow.
    pub(crate) fn stop(self) -> Result<Arrivals> {
        let Self { stop, sender, receiver } = self;
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        Ok(Arrivals { sent, received })
    }
}

impl Arrivals {
    /// Returns the longest time between two arrivals.
    pub(crate) fn longest_gap(&self) -> Duration {
        let gaps = self.received.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1));
        gaps.max().unwrap_or(Duration::MAX)
    }

    /// Returns the number of datagrams that have not arrived.
    pub(crate) fn lost(&self) -> u64 {
        let numbers: std::collections::HashSet<u64> =
            self.received.iter().map(|(number, _)| *number).collect();
        self.sent - numbers.len() as u64
    }

    /// Returns the number of datagrams that arrived after a later one.
    pub(crate) fn out_of_order(&self) -> u64 {
        let mut highest = 0;
        let mut count = 0;
        for (number, _) in &self.received {
            count += u64::from(*number < highest);
            highest = highest.max(*number);
        }
        count
    }
}

fn send(socket: &UdpSocket, rate: u32, stop: &AtomicBool) -> Result<u64> {
    let started = Instant::now();
    let mut sent: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            socket.send(&sent.to_be_bytes()).context("sending")?;
            sent += 1;
        }
        std::thread::sleep(SEND_INTERVAL);
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, ended: &AtomicBool) -> Result<Vec<(u64, Instant)>> {
    let mut received = Vec::with_capacity(1 << 17);
    let mut datagram = [0; 8];
    while !ended.load(Ordering::Relaxed) {
        // Returns after a while even if nothing arrives.
        if let Ok(8) = socket.recv(&mut datagram) {
            received.push((u64::from_be_bytes(datagram), Instant::now()));
        }
    }
    Ok(received)
}

/// Pause of the sender, after which it sends what is due.
const SEND_INTERVAL: Duration = Duration::from_micros(200);

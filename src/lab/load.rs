//! Clients that download over the uplinks while the goodput is measured.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{Connection, Pattern, connect};
use super::interrupt::{Interrupt, Interrupted};
use super::{LabError, Namespace, QUEUE_BYTES};

/// Concurrent connections on each uplink.
pub const CONNECTIONS: usize = 12;

/// Receive buffer of a client's connection, in bytes. The TCP window is smaller. All connections of
/// an uplink together therefore have less in flight than its queue holds ([`QUEUE_BYTES`]). The
/// uplink is always busy and never drops a packet, so that a short measurement is exact.
const RECEIVE_BUFFER: u64 = 64 * 1024;

const _: () = assert!(CONNECTIONS as u64 * RECEIVE_BUFFER < QUEUE_BYTES);

/// Time before the measurement: TCP fills the uplink, and the shaper's bucket empties.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Time after the measurement: queues drain, so that the next measurement begins with idle uplinks.
const DRAIN: Duration = Duration::from_millis(300);

/// Longest time for opening a connection, and longest silence on one.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A thread could not enter the clients' namespace.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A client could not connect, or a download ended early.
    #[error("the download from {target} by client {client} failed")]
    Download {
        /// Published endpoint.
        target: SocketAddrV4,
        /// Address of the client.
        client: Ipv4Addr,
        /// Cause.
        source: io::Error,
    },
    /// The received bytes differ from those sent.
    #[error("the download from {target} by client {client} was corrupted")]
    Corrupted {
        /// Published endpoint.
        target: SocketAddrV4,
        /// Address of the client.
        client: Ipv4Addr,
    },
    /// A signal arrived first.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Downloads from every target at once and returns the goodput of each in Mbit/s (10^6 bits).
/// Counts the bytes of body that the clients read within `window`, and compares every byte with the
/// byte sent.
///
/// Each target gets [`CONNECTIONS`] connections, from the client addresses in turn.
///
/// # Errors
/// See [`LoadError`].
pub fn measure(
    namespace: &Namespace,
    clients: &[Ipv4Addr],
    targets: &[SocketAddrV4],
    window: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, LoadError> {
    namespace.sysctl("net/ipv4/tcp_rmem", &format!("4096 {RECEIVE_BUFFER} {RECEIVE_BUFFER}"))?;
    // Every connection opens before the first download begins: a SYN behind a full queue would
    // delay the others.
    let mut connections = Vec::new();
    for (uplink, target) in targets.iter().enumerate() {
        for client in clients.iter().cycle().take(CONNECTIONS) {
            interrupt.check()?;
            connections.push((uplink, *client, *target, open(namespace, *client, *target)?));
        }
    }
    let downloads = connections
        .into_iter()
        .map(|(uplink, client, target, connection)| {
            Download::start(uplink, client, target, connection)
        })
        .collect::<Result<Vec<_>, _>>()?;

    let received = || {
        let mut sums = vec![0; targets.len()];
        downloads.iter().for_each(|download| sums[download.uplink] += download.received());
        sums
    };
    interrupt.pause(WARM_UP)?;
    let (start, before) = (Instant::now(), received());
    interrupt.pause(window)?;
    let (elapsed, after) = (start.elapsed(), received());
    for download in downloads {
        download.finish()?;
    }
    interrupt.pause(DRAIN)?;
    Ok(before.iter().zip(after).map(|(before, after)| mbit(after - before, elapsed)).collect())
}

fn mbit(bytes: u64, time: Duration) -> f64 {
    // Exact below 2^53 bytes.
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()
}

/// Asks `target` from one client address which source address it sees.
///
/// # Errors
/// The connection failed, or the answer is no address.
pub fn seen_address(
    namespace: &Namespace,
    client: Ipv4Addr,
    target: SocketAddrV4,
) -> Result<Ipv4Addr, LoadError> {
    let ask = || {
        let response = connect(Some(client), target, DOWNLOAD_TIMEOUT)?.get("/")?;
        response.text().trim().parse().map_err(io::Error::other)
    };
    namespace.enter(ask)?.map_err(|source| LoadError::Download { target, client, source })
}

fn open(
    namespace: &Namespace,
    client: Ipv4Addr,
    target: SocketAddrV4,
) -> Result<Connection, LoadError> {
    namespace
        .enter(|| connect(Some(client), target, DOWNLOAD_TIMEOUT))?
        .map_err(|source| LoadError::Download { target, client, source })
}

/// An endless download on a thread of its own. A drop ends the download.
struct Download {
    uplink: usize,
    client: Ipv4Addr,
    target: SocketAddrV4,
    shared: Arc<Progress>,
    thread: Option<JoinHandle<io::Result<u16>>>,
}

#[derive(Default)]
struct Progress {
    received: AtomicU64,
    stop: AtomicBool,
    corrupted: AtomicBool,
}

impl Download {
    fn start(
        uplink: usize,
        client: Ipv4Addr,
        target: SocketAddrV4,
        connection: Connection,
    ) -> Result<Download, LoadError> {
        let shared = Arc::new(Progress::default());
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("download".into());
        let thread = thread
            .spawn(move || download(connection, &theirs))
            .map_err(|source| LoadError::Download { target, client, source })?;
        Ok(Download { uplink, client, target, shared, thread: Some(thread) })
    }

    fn received(&self) -> u64 {
        // Relaxed: no other value depends on this count.
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Ends the download and returns its result.
    fn finish(mut self) -> Result<(), LoadError> {
        let (client, target) = (self.client, self.target);
        match self.stop() {
            Some(Err(source)) => Err(LoadError::Download { target, client, source }),
            Some(Ok(200)) if !self.shared.corrupted.load(Ordering::Relaxed) => Ok(()),
            Some(Ok(200)) | None => Err(LoadError::Corrupted { target, client }),
            Some(Ok(status)) => {
                let source = io::Error::other(format!("HTTP status {status}"));
                Err(LoadError::Download { target, client, source })
            }
        }
    }

    fn stop(&mut self) -> Option<io::Result<u16>> {
        // Relaxed: the thread needs to see the flag soon; the join orders everything else.
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Relaxed: as in stop. Not joined: during a panic, a second panic would abort. The thread
        // ends by itself.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn download(mut connection: Connection, shared: &Progress) -> io::Result<u16> {
    let mut pattern = Pattern::new();
    connection.stream(&format!("/bytes/{}", u64::MAX), |bytes| {
        // Relaxed: see received() and stop().
        shared.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if !pattern.matches(bytes) {
            shared.corrupted.store(true, Ordering::Relaxed);
        }
        match shared.stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
}

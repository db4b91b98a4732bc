//! Clients that download over the lines while the goodput is measured.

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

/// Connections at one time on each line.
pub const CONNECTIONS: usize = 12;

/// Receive buffer of a client's connection, in bytes; TCP offers less than that as its window. So all connections of
/// a line together have less under way than its queue holds ([`QUEUE_BYTES`]): the line is always busy and never
/// loses a packet, which makes a short measurement exact.
const RECEIVE_BUFFER: u64 = 64 * 1024;

const _: () = assert!(CONNECTIONS as u64 * RECEIVE_BUFFER < QUEUE_BYTES);

/// Time before measuring begins: TCP has filled the line and the shaper's bucket is empty.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Time after measuring for queues to drain, so that the next measurement begins with idle lines.
const DRAIN: Duration = Duration::from_millis(300);

/// How long a connection may take to open, or be silent.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A thread could not be moved into the clients' namespace.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A client could not connect, or a download broke off.
    #[error("the download from {target} by client {client} failed")]
    Download {
        /// Published endpoint.
        target: SocketAddrV4,
        /// Address of the client.
        client: Ipv4Addr,
        /// Why.
        source: io::Error,
    },
    /// The bytes that arrived were not those that were sent.
    #[error("the download from {target} by client {client} was corrupted")]
    Corrupted {
        /// Published endpoint.
        target: SocketAddrV4,
        /// Address of the client.
        client: Ipv4Addr,
    },
    /// A signal came first.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Downloads from every target at once and returns the goodput of each in Mbit/s (10^6 bits): bytes of body that
/// the clients have read within a window of `window`, every byte compared with what was sent.
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
    // All connect before the first begins: a SYN behind a full queue would delay the rest.
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

/// Asks `target` from one client address which address it sees.
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

/// An endless download on a thread of its own; ends when dropped.
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
        // Relaxed: a figure on its own.
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Ends the download and says how it went.
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
        // Relaxed: the thread only has to see it soon; joining it orders the rest.
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Relaxed: as in stop. Not joined: while a panic unwinds, a second one would abort; the thread ends by itself.
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

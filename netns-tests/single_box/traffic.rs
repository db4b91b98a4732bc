//! Waiting for conditions, and connections that count received bytes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use natbox::lab::Namespace;

/// Returns a duration in seconds.
pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Waits until `ask` returns a value. Fails after [`TIMEOUT`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for: {what}", TIMEOUT.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP server that reads and counts everything.
#[derive(Debug)]
pub(crate) struct Sink {
    address: SocketAddrV4,
    received: Arc<AtomicU64>,
}

impl Sink {
    /// Listens in a namespace, for one connection.
    pub(crate) fn listen(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Sink {
        let listener = namespace.enter(|| TcpListener::bind((address, port))).unwrap().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                // Relaxed: a count, read by polling.
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        Sink { address: SocketAddrV4::new(address, port), received }
    }

    /// Connects to the server, or to an endpoint that is published for it.
    pub(crate) fn connect(&self, from: &Namespace, published: Option<SocketAddrV4>) -> TcpStream {
        let to = published.unwrap_or(self.address).into();
        let stream = from.enter(|| TcpStream::connect_timeout(&to, seconds(3))).unwrap().unwrap();
        stream.set_write_timeout(Some(seconds(5))).unwrap();
        stream
    }

    /// Sends a number of bytes and waits until all have arrived.
    #[track_caller]
    pub(crate) fn upload(&self, stream: &mut TcpStream, bytes: usize) {
        let before = self.received.load(Ordering::Relaxed);
        stream.write_all(&vec![7; bytes]).unwrap();
        let wanted = before + bytes as u64;
        eventually("all bytes arrive", || {
            (self.received.load(Ordering::Relaxed) == wanted).then_some(())
        });
    }
}

/// Longest wait for a condition, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

//! The server.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{CHUNK, Pattern, header, read_head};

/// How soon an accepting thread notices that the server goes.
const STOP_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long a peer may neither read nor write before its connection is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept (out of descriptors, for example), so that the thread does not spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Where it comes from, as the server sees it.
    pub peer: Ipv4Addr,
    /// Path with query.
    pub path: String,
    head: Vec<String>,
}

impl Request {
    /// The value of a header, its name compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// What a [`Handler`] answers.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A text.
    pub fn text(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }
}

/// Answers requests before the built-in paths are looked at; `None` leaves it to them.
pub type Handler = Arc<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

/// A running server; dropping it closes its listeners and connections.
#[derive(Debug)]
pub struct Server {
    shared: Arc<ServerState>,
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ServerState {
    stop: AtomicBool,
    next_connection: AtomicU64,
    /// Open connections, so that they can be shut down from outside.
    connections: Mutex<HashMap<u64, TcpStream>>,
    peers: Mutex<BTreeSet<Ipv4Addr>>,
}

impl Server {
    /// Serves on listeners that are bound already (in whichever namespace).
    ///
    /// # Errors
    /// A listener cannot be made non-blocking, or a thread not be started.
    pub fn start(listeners: Vec<TcpListener>, handler: Option<Handler>) -> io::Result<Server> {
        let mut server = Server { shared: Arc::default(), acceptors: Vec::new() };
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let (shared, handler) = (server.shared.clone(), handler.clone());
            let thread = thread::Builder::new().name("http".into());
            server
                .acceptors
                .push(thread.spawn(move || accept(&listener, &shared, handler.as_ref()))?);
        }
        Ok(server)
    }

    /// Every client address that has sent a request so far, as seen here.
    pub fn peers(&self) -> BTreeSet<Ipv4Addr> {
        self.shared.peers.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Release: a thread that sees the flag finds everything that came before it.
        self.shared.stop.store(true, Ordering::Release);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
        // No new ones from here on. Their threads end by themselves once their sockets are shut.
        for connection in self.shared.connections.lock().values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<ServerState>, handler: Option<&Handler>) {
    // Acquire: pairs with the store in Server::drop.
    while !shared.stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, SocketAddr::V4(peer))) => {
                let (shared, handler) = (shared.clone(), handler.cloned());
                // Relaxed: only the value's uniqueness counts.
                let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
                let Ok(copy) = stream.try_clone() else { continue };
                shared.connections.lock().insert(number, copy);
                let connection = move || {
                    // The peer's mistakes and departures are no concern of the server's.
                    let _ = converse(&stream, *peer.ip(), &shared, handler.as_ref());
                    shared.connections.lock().remove(&number);
                };
                // Out of threads: both ends of `connection` are dropped, and the peer sees a reset.
                let _ = thread::Builder::new().name("http".into()).spawn(connection);
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&STOP_POLL));
            }
            Err(_) => thread::sleep(ACCEPT_RETRY_INTERVAL),
        }
    }
}

/// Answers the requests of one connection until either side is done.
fn converse(
    stream: &TcpStream,
    peer: Ipv4Addr,
    shared: &ServerState,
    handler: Option<&Handler>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        shared.peers.lock().insert(peer);
        let mut words = head[0].split(' ');
        let (method, path, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(path), Some("HTTP/1.1")) = (method, path, version) else {
            return write_answer(stream, &Answer::text(400, "bad request\n"), true);
        };
        let close =
            header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if method != "GET" {
            return write_answer(stream, &Answer::text(405, "only GET is served here\n"), true);
        }
        let request = Request { peer, path: path.to_owned(), head };
        let answer = handler.and_then(|handler| handler(&request));
        let length = request.path.strip_prefix("/bytes/").and_then(|length| length.parse().ok());
        match (answer, request.path.as_str(), length) {
            (Some(answer), _, _) => write_answer(stream, &answer, close)?,
            (None, "/", _) => {
                write_answer(stream, &Answer::text(200, format!("{}\n", IpAddr::V4(peer))), close)?;
            }
            (None, _, Some(length)) => write_pattern(stream, length, close)?,
            (None, _, None) => write_answer(stream, &Answer::text(404, "not found\n"), close)?,
        }
        if close {
            break;
        }
    }
    Ok(())
}

fn write_answer(mut stream: &TcpStream, answer: &Answer, close: bool) -> io::Result<()> {
    let mut text = head(answer.status, answer.body.len() as u64, close);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // In one write: one segment.
    stream.write_all(format!("{text}\r\n{}", answer.body).as_bytes())
}

fn write_pattern(mut stream: &TcpStream, length: u64, close: bool) -> io::Result<()> {
    stream.write_all(format!("{}\r\n", head(200, length, close)).as_bytes())?;
    let mut pattern = Pattern::new();
    let mut left = length;
    while left > 0 {
        let chunk = pattern.next(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        stream.write_all(chunk)?;
        left -= chunk.len() as u64;
    }
    Ok(())
}

fn head(status: u16, length: u64, close: bool) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Other",
    };
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n"
    )
}

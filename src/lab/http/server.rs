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

/// Interval at which an accepting thread checks whether the server stops.
const STOP_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Longest time in which a peer neither reads nor writes, before the server closes the connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept (for example without free descriptors), so that the thread does not
/// spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// One request.
#[derive(Debug)]
pub struct HttpRequest {
    /// Source address as the server sees it.
    pub peer: Ipv4Addr,
    /// Path with query.
    pub path: String,
    head: Vec<String>,
}

impl HttpRequest {
    /// Returns the value of a header. The name is compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// The answer of a [`HttpHandler`].
#[derive(Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl HttpAnswer {
    /// Makes an answer of a text.
    pub fn text(status: u16, body: impl Into<String>) -> HttpAnswer {
        HttpAnswer { status, headers: Vec::new(), body: body.into() }
    }
}

/// Answers requests before the built-in paths are checked. `None` leaves the request to the
/// built-in paths.
pub type HttpHandler = Arc<dyn Fn(&HttpRequest) -> Option<HttpAnswer> + Send + Sync>;

/// A running server. A drop closes its listeners and connections.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<ServerState>,
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ServerState {
    stop: AtomicBool,
    next_connection: AtomicU64,
    /// Open connections, which a drop of the server shuts down.
    connections: Mutex<HashMap<u64, TcpStream>>,
    peers: Mutex<BTreeSet<Ipv4Addr>>,
}

impl HttpServer {
    /// Serves on bound listeners of any namespace.
    ///
    /// # Errors
    /// A listener cannot be made non-blocking, or a thread cannot be started.
    pub fn start(
        listeners: Vec<TcpListener>,
        handler: Option<HttpHandler>,
    ) -> io::Result<HttpServer> {
        let mut server = HttpServer { shared: Arc::default(), acceptors: Vec::new() };
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

    /// Returns every client address that has sent a request so far.
    pub fn peers(&self) -> BTreeSet<Ipv4Addr> {
        self.shared.peers.lock().clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // Release: a thread that sees the flag sees everything before it.
        self.shared.stop.store(true, Ordering::Release);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
        // No new connection is accepted from here on. The threads end once their sockets are shut
        // down.
        for connection in self.shared.connections.lock().values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<ServerState>, handler: Option<&HttpHandler>) {
    // Acquire: pairs with the store in HttpServer::drop.
    while !shared.stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, SocketAddr::V4(peer))) => {
                let (shared, handler) = (shared.clone(), handler.cloned());
                // Relaxed: only the uniqueness of the value counts.
                let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
                let Ok(copy) = stream.try_clone() else { continue };
                shared.connections.lock().insert(number, copy);
                let connection = move || {
                    // Errors of one peer do not concern the server.
                    let _ = converse(&stream, *peer.ip(), &shared, handler.as_ref());
                    shared.connections.lock().remove(&number);
                };
                // Without a free thread both ends of `connection` are dropped, and the peer sees a
                // reset.
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

/// Answers the requests of one connection until either side closes.
fn converse(
    stream: &TcpStream,
    peer: Ipv4Addr,
    shared: &ServerState,
    handler: Option<&HttpHandler>,
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
            return write_answer(stream, &HttpAnswer::text(400, "bad request\n"), true);
        };
        let close =
            header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let is_head = method == "HEAD";
        if method != "GET" && !is_head {
            return write_answer(stream, &HttpAnswer::text(405, "only GET is served here\n"), true);
        }
        let request = HttpRequest { peer, path: path.to_owned(), head };
        let answer = handler.and_then(|handler| handler(&request));
        if is_head {
            // Only handlers answer HEAD, without the body.
            let answer = answer.unwrap_or_else(|| HttpAnswer::text(405, ""));
            return write_answer(stream, &HttpAnswer { body: String::new(), ..answer }, true);
        }
        let length = request.path.strip_prefix("/bytes/").and_then(|length| length.parse().ok());
        match (answer, request.path.as_str(), length) {
            (Some(answer), _, _) => write_answer(stream, &answer, close)?,
            (None, "/", _) => {
                write_answer(
                    stream,
                    &HttpAnswer::text(200, format!("{}\n", IpAddr::V4(peer))),
                    close,
                )?;
            }
            (None, _, Some(length)) => write_pattern(stream, length, close)?,
            (None, _, None) => write_answer(stream, &HttpAnswer::text(404, "not found\n"), close)?,
        }
        if close {
            break;
        }
    }
    Ok(())
}

fn write_answer(mut stream: &TcpStream, answer: &HttpAnswer, close: bool) -> io::Result<()> {
    let mut text = head(answer.status, answer.body.len() as u64, close);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // One write makes one segment.
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

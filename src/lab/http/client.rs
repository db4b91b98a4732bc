//! The client.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect as start_connecting, socket_with, sockopt,
};

use super::{CHUNK, header, read_head};

/// A connection to a server, kept open between requests as the server allows.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    host: SocketAddrV4,
}

/// A response with its whole body.
#[derive(Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    head: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Returns the body as text, or an empty text if the body is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// Returns the value of a header. The name is compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// Connects to `to`, from the local address `from` if given. `timeout` limits connecting and each
/// later read and write.
///
/// # Errors
/// The error of the system; `TimedOut` after `timeout`.
pub fn connect(
    from: Option<Ipv4Addr>,
    to: SocketAddrV4,
    timeout: Duration,
) -> io::Result<Connection> {
    connect_from(from.map(|address| SocketAddrV4::new(address, 0)), to, timeout)
}

/// Connects as [`connect`] does, from an endpoint that connections to other destinations may share.
///
/// # Errors
/// The error of the system; `TimedOut` after `timeout`.
pub fn connect_from(
    from: Option<SocketAddrV4>,
    to: SocketAddrV4,
    timeout: Duration,
) -> io::Result<Connection> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    if let Some(from) = from {
        sockopt::set_socket_reuseaddr(&socket, from.port() != 0)?;
        bind(&socket, &from)?;
    }
    match start_connecting(&socket, &to) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let limit = Timespec::try_from(timeout).map_err(io::Error::other)?;
            let ready = rustix::io::retry_on_intr(|| {
                poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&limit))
            })?;
            if ready == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer from {to}"),
                ));
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(Connection { reader: BufReader::with_capacity(CHUNK, stream), host: to })
}

impl Connection {
    /// Returns the underlying socket.
    pub fn stream_ref(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Gets a path with its whole body.
    ///
    /// # Errors
    /// The connection failed, or the answer is not HTTP with a length.
    pub fn get(&mut self, path: &str) -> io::Result<HttpResponse> {
        self.get_with(path, &[])
    }

    /// Gets a path as [`Connection::get`] does, with further headers.
    ///
    /// # Errors
    /// The connection failed, or the answer is not HTTP with a length.
    pub fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<HttpResponse> {
        let mut body = Vec::new();
        let (status, head) = self.exchange(path, headers, |bytes| {
            body.extend_from_slice(bytes);
            ControlFlow::Continue(())
        })?;
        Ok(HttpResponse { status, head, body })
    }

    /// Gets a path and passes the body to `receive` as it arrives, until the body ends or `receive`
    /// breaks off. Returns the status. After a break the connection cannot be used again, since the
    /// rest of the body still arrives.
    ///
    /// # Errors
    /// The connection failed, or the answer is not HTTP with a length.
    pub fn stream(
        &mut self,
        path: &str,
        receive: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<u16> {
        self.exchange(path, &[], receive).map(|(status, _)| status)
    }

    fn exchange(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        mut receive: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<(u16, Vec<String>)> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;

        let head = read_head(&mut self.reader)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")
        })?;
        let invalid = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the answer"))
        };
        let status = head[0]
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| invalid("no HTTP/1.1 status"))?;
        let mut left: u64 = header(&head, "content-length")
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| invalid("no length"))?;
        while left > 0 {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                // The kernel does not restart a read with a timeout (signal(7)), not even after a
                // pause of the machine.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let go_on = receive(&bytes[..taken]);
            self.reader.consume(taken);
            left -= taken as u64;
            if go_on.is_break() {
                break;
            }
        }
        Ok((status, head))
    }
}

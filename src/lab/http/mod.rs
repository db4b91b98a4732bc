//! A small HTTP/1.1 server and client for the demo and the tests.
//!
//! The server answers `/` with the peer address that it sees, and `/bytes/N` with N bytes of a
//! fixed pattern ([`Pattern`]). The client can thus detect lost, duplicated or displaced bytes. A
//! [`HttpHandler`] can add answers, for HEAD as well. The server uses one thread per connection,
//! keep-alive, and otherwise GET only: enough to measure an uplink.

mod client;
mod pattern;
mod server;

pub use client::{Connection, HttpResponse, connect, connect_from};
pub use pattern::Pattern;
pub use server::{HttpAnswer, HttpHandler, HttpRequest, HttpServer};

/// Longest accepted head (request or status line and headers), in bytes.
const MAX_HEAD: u64 = 16 * 1024;

/// Unit of reading and writing bodies, in bytes.
const CHUNK: usize = 64 * 1024;

use std::io::{self, BufRead, Read as _};

/// Reads a head up to its empty line. Returns `None` if the peer closes before the first byte.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    let mut limited = reader.take(MAX_HEAD);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 && lines.is_empty() {
            return Ok(None);
        }
        let Some(text) = line.strip_suffix('\n') else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP head without an end"));
        };
        let text = text.trim_end_matches('\r');
        if text.is_empty() && !lines.is_empty() {
            return Ok(Some(lines));
        }
        lines.push(text.to_owned());
    }
}

/// Returns the value of a header. The name is compared without case.
fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
    use std::ops::ControlFlow;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn serve(handler: Option<HttpHandler>) -> (HttpServer, SocketAddrV4) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("bound to IPv4")
        };
        (HttpServer::start(vec![listener], handler).unwrap(), address)
    }

    #[test]
    fn root_answers_with_the_address_of_the_peer() {
        let (server, address) = serve(None);
        let from = Ipv4Addr::new(127, 0, 0, 9);
        let mut connection = connect(Some(from), address, TIMEOUT).unwrap();
        assert_eq!(connection.get("/").unwrap().text(), "127.0.0.9\n");
        assert_eq!(server.peers().into_iter().collect::<Vec<_>>(), [from]);
    }

    #[test]
    fn one_connection_carries_several_requests() {
        let (_server, address) = serve(None);
        let mut connection = connect(None, address, TIMEOUT).unwrap();
        for length in [0, 1, 70_000, 200_000] {
            let mut pattern = Pattern::new();
            let mut total = 0;
            let status = connection
                .stream(&format!("/bytes/{length}"), |bytes| {
                    assert!(pattern.matches(bytes));
                    total += bytes.len();
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!((status, total), (200, length));
        }
    }

    #[test]
    fn a_client_may_leave_in_the_middle_of_a_body() {
        let (_server, address) = serve(None);
        let mut connection = connect(None, address, TIMEOUT).unwrap();
        connection.stream(&format!("/bytes/{}", u64::MAX), |_| ControlFlow::Break(())).unwrap();
        assert!(connection.get("/").is_err(), "the rest of the body is still on its way");
        drop(connection);
        let mut next = connect(None, address, TIMEOUT).unwrap();
        assert_eq!(next.get("/").unwrap().status, 200);
    }

    #[test]
    fn unknown_paths_are_404_and_handlers_come_first() {
        let handler: HttpHandler = Arc::new(|request: &HttpRequest| {
            (request.path == "/teapot")
                .then(|| HttpAnswer::text(418, request.header("x-leaf").unwrap_or("none")))
        });
        let (_server, address) = serve(Some(handler));
        let mut connection = connect(None, address, TIMEOUT).unwrap();
        assert_eq!(connection.get("/nothing").unwrap().status, 404);
        assert_eq!(connection.get("/bytes/x").unwrap().status, 404);
        let response = connection.get_with("/teapot", &[("X-Leaf", "green")]).unwrap();
        assert_eq!((response.status, response.text()), (418, "green"));
    }

    #[test]
    fn dropping_the_server_ends_open_connections() {
        let (server, address) = serve(None);
        let mut connection = connect(None, address, TIMEOUT).unwrap();
        assert_eq!(connection.get("/").unwrap().status, 200);
        drop(server);
        assert!(connection.get("/").is_err());
    }

    #[test]
    fn a_connection_nobody_accepts_fails() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("bound to IPv4")
        };
        drop(listener);
        let error = connect(None, address, TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

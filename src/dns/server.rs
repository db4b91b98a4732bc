//! The sockets of the name server: bound before privileges go, served on the name server's thread.
//!
//! By UDP every message is answered in the loop that received it; what cannot be sent at once is lost, as datagrams are.
//! By TCP a client has [`IDLE`] for each question and [`LIFETIME`] for all of them, and one network does not take all
//! connections that there are.

use std::collections::HashMap;
use std::hash::RandomState;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_server::net::xfer::Protocol;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::limit::{Limiter, RateLimitAction, network};
use super::responder::{Responder, Response, is_not_a_query};

/// The sockets at one address.
#[derive(Debug)]
pub(super) struct Sockets {
    datagrams: UdpSocket,
    connections: TcpListener,
}

impl Sockets {
    /// Binds both, at one port; port 0: at any that is free. The address need not be there yet (`IP_FREEBIND`): some are
    /// made only when the TUN is.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind_once(address) {
                // The port that was free for one protocol was not for the other.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                result => return result,
            }
        }
    }

    fn bind_once(mut address: SocketAddr) -> io::Result<Self> {
        let connections = TcpListener::from(socket(address, SocketType::STREAM)?);
        address.set_port(connections.local_addr()?.port());
        let datagrams = UdpSocket::from(socket(address, SocketType::DGRAM)?);
        rustix::net::listen(&connections, BACKLOG)?;
        Ok(Self { datagrams, connections })
    }

    /// The address, with the port that the system chose if none was given.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.connections.local_addr()
    }
}

fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    if kind == SocketType::STREAM {
        // A box that starts again does not wait for its predecessor's connections.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Serves the sockets; must be called on the runtime that is to do it.
pub(super) fn serve(sockets: Vec<Sockets>, responder: Responder, rate: u32) -> io::Result<()> {
    let responder = Arc::new(responder);
    // All sockets share one: a source that asks at several lines is still one source.
    let limiter = Arc::new(Mutex::new(Limiter::new(rate, RandomState::new(), Instant::now())));
    let places = Arc::new(ConnectionSlots::default());
    for Sockets { datagrams, connections } in sockets {
        let datagrams = tokio::net::UdpSocket::from_std(datagrams)?;
        let connections = tokio::net::TcpListener::from_std(connections)?;
        tokio::spawn(answer_datagrams(datagrams, Arc::clone(&responder), Arc::clone(&limiter)));
        tokio::spawn(take_connections(connections, Arc::clone(&responder), Arc::clone(&places)));
    }
    Ok(())
}

async fn answer_datagrams(
    socket: tokio::net::UdpSocket,
    responder: Arc<Responder>,
    limiter: Arc<Mutex<Limiter<RandomState>>>,
) {
    let counters = &responder.counters;
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "the name server cannot receive");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        counters.queries.count();
        // Whoever has no port, or asks nothing, gets no answer that would count against anybody.
        if client.port() == 0 || is_not_a_query(&buffer[..length]) {
            counters.ignored.count();
            continue;
        }
        let ruling = limiter.lock().check(client.ip(), Instant::now());
        let cut = match ruling {
            RateLimitAction::Answer => false,
            RateLimitAction::Truncate => true,
            RateLimitAction::Drop => {
                counters.limited_dropped.count();
                continue;
            }
        };
        let (counter, answer) =
            match responder.respond(&buffer[..length], client, Protocol::Udp, cut).await {
                Response::None => {
                    counters.ignored.count();
                    continue;
                }
                Response::Full(answer) | Response::Cut(answer) if cut => {
                    (&counters.limited_truncated, answer)
                }
                Response::Full(answer) => (&counters.answers, answer),
                Response::Cut(answer) => (&counters.oversized, answer),
            };
        counter.count();
        // A full buffer, or a route that is gone: the client asks again.
        if let Err(error) = socket.try_send_to(&answer, client) {
            tracing::debug!(%error, %client, "an answer was not sent");
        }
    }
}

async fn take_connections(
    listener: tokio::net::TcpListener,
    responder: Arc<Responder>,
    places: Arc<ConnectionSlots>,
) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: waiting helps, spinning does not.
                tracing::warn!(%error, "the name server cannot accept connections");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = ConnectionSlots::take(&places, client) else {
            responder.counters.connections_refused.count();
            continue;
        };
        responder.counters.connections.count();
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            let _place = place;
            let conversation = converse(stream, client, &responder);
            if let Ok(Err(error)) = timeout(LIFETIME, conversation).await {
                tracing::debug!(%error, %client, "a DNS connection ended");
            }
        });
    }
}

/// Answers one question after the other (RFC 7766).
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    responder: &Responder,
) -> io::Result<()> {
    let counters = &responder.counters;
    let mut message = Vec::new();
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if !(MIN_MESSAGE..=MAX_QUERY).contains(&length) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            message.resize(length, 0);
            stream.read_exact(&mut message).await
        };
        match timeout(IDLE, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        counters.queries.count();
        let answer = match responder.respond(&message, client, Protocol::Tcp, false).await {
            Response::None => {
                counters.ignored.count();
                return Ok(());
            }
            Response::Full(answer) | Response::Cut(answer) => answer,
        };
        counters.answers.count();
        // In one piece: a second small segment would wait for the client's acknowledgement.
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// The connections that there may be at one time.
#[derive(Debug, Default)]
struct ConnectionSlots(Mutex<HashMap<u64, usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct ConnectionSlot {
    places: Arc<ConnectionSlots>,
    network: u64,
}

impl ConnectionSlots {
    fn take(this: &Arc<Self>, client: SocketAddr) -> Option<ConnectionSlot> {
        let mut taken = this.0.lock();
        if taken.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        let network = network(client.ip());
        let by_network = taken.entry(network).or_default();
        if *by_network >= MAX_CONNECTIONS_PER_NETWORK {
            return None;
        }
        *by_network += 1;
        Some(ConnectionSlot { places: Arc::clone(this), network })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(number) = taken.get_mut(&self.network) {
            *number -= 1;
            if *number == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

/// Bytes of a message's header.
const MIN_MESSAGE: usize = 12;
/// Bytes of a message that is read: a question with its options is far shorter.
const MAX_QUERY: usize = 4096;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(5);
/// How long a connection may last.
const LIFETIME: Duration = Duration::from_secs(60);
/// Connections at one time.
const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_PER_NETWORK: usize = 32;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Attempts to find a port that is free for both protocols.
const ATTEMPTS: u32 = 16;
/// Waiting after an error of a socket.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;

//! The sockets of the name server: bound before natbox drops privileges, served on the name
//! server's thread.
//!
//! By UDP, the loop that receives a message also answers it. An answer that the system does not
//! take at once is lost, as datagrams may be. By TCP, a client has [`IDLE`] for each query and
//! [`LIFETIME`] for all of them, and one network cannot take all connections.

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
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limit::{Limiter, RateLimitAction, network};
use super::responder::{Extent, Responder, ResponseBytes, is_not_a_query};

/// The sockets at one address.
#[derive(Debug)]
pub(super) struct Sockets {
    datagrams: UdpSocket,
    connections: TcpListener,
}

impl Sockets {
    /// Binds both sockets at one port. Port 0: at any port that is free. The address need not exist
    /// yet (`IP_FREEBIND`): some addresses exist only when the TUN does.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind_once(address) {
                // The port was free for one protocol and not for the other.
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

    /// Returns the address, with the port that the system chose for port 0.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
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
        // A restart need not wait for the connections of the process before.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Serves the sockets, by tasks of `tasks`. Must run on the runtime that serves them.
pub(super) fn serve(
    sockets: Vec<Sockets>,
    responder: Responder,
    rate: u32,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let responder = Arc::new(responder);
    // All sockets share one limiter: a source that queries several addresses is one source.
    let limiter = Arc::new(Mutex::new(Limiter::new(rate, RandomState::new(), Instant::now())));
    let slots = Arc::new(ConnectionSlots::default());
    for Sockets { datagrams, connections } in sockets {
        let datagrams = tokio::net::UdpSocket::from_std(datagrams)?;
        let connections = tokio::net::TcpListener::from_std(connections)?;
        tasks.spawn(answer_datagrams(datagrams, Arc::clone(&responder), Arc::clone(&limiter)));
        tasks.spawn(take_connections(connections, Arc::clone(&responder), Arc::clone(&slots)));
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
                tracing::warn!(%error, "dns: datagrams cannot be received");
                tokio::time::sleep(ERROR_RETRY_INTERVAL).await;
                continue;
            }
        };
        counters.queries.count();
        // A message without a source port, or that is no query, gets no answer and counts against
        // no source.
        if client.port() == 0 || is_not_a_query(&buffer[..length]) {
            counters.ignored.count();
            continue;
        }
        let action = limiter.lock().check(client.ip(), Instant::now());
        let extent = match action {
            RateLimitAction::Answer => Extent::Full,
            RateLimitAction::Truncate => Extent::QueryAlone,
            RateLimitAction::Drop => {
                counters.limited_dropped.count();
                continue;
            }
        };
        let (counter, answer) =
            match responder.respond(&buffer[..length], client, Protocol::Udp, extent).await {
                ResponseBytes::None => {
                    counters.ignored.count();
                    continue;
                }
                ResponseBytes::Full(answer) | ResponseBytes::Truncated(answer)
                    if extent == Extent::QueryAlone =>
                {
                    (&counters.limited_truncated, answer)
                }
                ResponseBytes::Full(answer) => (&counters.answers, answer),
                ResponseBytes::Truncated(answer) => (&counters.oversized, answer),
            };
        counter.count();
        // The buffer is full or the route is gone: the client sends its query again.
        if let Err(error) = socket.try_send_to(&answer, client) {
            tracing::debug!(%error, %client, "dns: an answer was not sent");
        }
    }
}

async fn take_connections(
    listener: tokio::net::TcpListener,
    responder: Arc<Responder>,
    slots: Arc<ConnectionSlots>,
) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely the process has no descriptors left. Some are free again after a
                // pause.
                tracing::warn!(%error, "dns: connections cannot be accepted");
                tokio::time::sleep(ERROR_RETRY_INTERVAL).await;
                continue;
            }
        };
        let Some(slot) = ConnectionSlots::take(&slots, client) else {
            responder.counters.connections_refused.count();
            continue;
        };
        responder.counters.connections.count();
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            let _slot = slot;
            let conversation = converse(stream, client, &responder);
            if let Ok(Err(error)) = timeout(LIFETIME, conversation).await {
                tracing::debug!(%error, %client, "dns: a connection ended");
            }
        });
    }
}

/// Answers one query after the other (RFC 7766).
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
        let answer = match responder.respond(&message, client, Protocol::Tcp, Extent::Full).await {
            ResponseBytes::None => {
                counters.ignored.count();
                return Ok(());
            }
            ResponseBytes::Full(answer) | ResponseBytes::Truncated(answer) => answer,
        };
        counters.answers.count();
        // In one write: a second small segment would wait for the client's acknowledgement.
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// Connections that are open: a bounded number, in all and for each network.
#[derive(Debug, Default)]
struct ConnectionSlots(Mutex<HashMap<u64, usize>>);

/// One open connection, until it is dropped.
#[derive(Debug)]
struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
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
        Some(ConnectionSlot { slots: Arc::clone(this), network })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
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
/// Most bytes of a message that is read. A query with its options is far shorter.
const MAX_QUERY: usize = 4096;
/// How long a client may take for one query.
const IDLE: Duration = Duration::from_secs(5);
/// How long a connection may last.
const LIFETIME: Duration = Duration::from_secs(60);
/// Most open connections.
const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_PER_NETWORK: usize = 32;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Attempts to find a port that is free for both protocols.
const ATTEMPTS: u32 = 16;
/// Pause after an error of a socket.
const ERROR_RETRY_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;

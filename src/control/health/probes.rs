//! Probes of one uplink: ICMP echo, TCP connect, HTTP(S).
//!
//! natbox sends probes from the probe address of the uplink. They go through the TUN and are
//! translated like the packets of an inside host. So probes leave by the uplink's interface with
//! the uplink's external address, and the host's own routes do not matter. An answer proves that
//! the whole path works, including this instance.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Ipv4HeaderSlice};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{Notify, oneshot};

use super::web::WebClient;
use crate::config::{Config, Health, Uplink, WebTarget};

/// Raw sockets, which only a privileged process can open: one for each uplink number, so that a
/// reload may add a check by ping.
pub(in crate::control) struct RawSockets(Vec<Option<OwnedFd>>);

impl RawSockets {
    /// Opens the sockets. Needs CAP_NET_RAW if the configuration has checks by ping.
    ///
    /// # Errors
    /// The system's error, with the configuration key that asks for pings.
    pub(in crate::control) fn open(config: &Config) -> Result<Self, (String, io::Error)> {
        let mut sockets = Vec::new();
        for number in 0..Uplink::MAX {
            let pinged = config.uplinks.iter().position(|uplink| {
                usize::from(uplink.numbers.uplink) == number
                    && uplink.health.as_ref().is_some_and(|health| !health.ping.is_empty())
            });
            sockets.push(match (unused_socket(), pinged) {
                (Ok(socket), _) => Some(socket),
                (Err(_), None) => None,
                (Err(error), Some(place)) => {
                    return Err((format!("uplinks[{place}].health.ping"), error));
                }
            });
        }
        Ok(Self(sockets))
    }

    /// Returns the socket of an uplink whose health check needs one. The checks of one uplink, one
    /// after the other, share it.
    ///
    /// # Errors
    /// The process had not the privilege to open it.
    pub(super) fn socket(&self, uplink: u8, health: &Health) -> io::Result<Option<OwnedFd>> {
        if health.ping.is_empty() {
            return Ok(None);
        }
        match self.0.get(usize::from(uplink)).and_then(Option::as_ref) {
            Some(socket) => socket.try_clone().map(Some),
            None => Err(io::Error::other(
                "health.ping: natbox was started without CAP_NET_RAW; restart it with this \
                 capability",
            )),
        }
    }
}

/// Opens a raw socket that gets no packet yet: an unbound one would get every ICMP packet of the
/// host.
fn unused_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(ipproto::ICMP);
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)?;
    // The loopback interface may be down.
    rustix::net::sockopt::set_ip_freebind(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(UNUSED, 0))?;
    Ok(socket)
}

/// A target of probes.
#[derive(Clone, Debug)]
pub(super) enum ProbeTarget {
    Ping(Ipv4Addr),
    Tcp(SocketAddrV4),
    Http(WebTarget),
}

impl fmt::Display for ProbeTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(address) => write!(formatter, "ping {address}"),
            Self::Tcp(address) => write!(formatter, "tcp {address}"),
            Self::Http(WebTarget(page)) => write!(formatter, "{page}"),
        }
    }
}

/// Returns all targets of a health check.
pub(super) fn targets(health: &Health) -> Vec<ProbeTarget> {
    let ping = health.ping.iter().copied().map(ProbeTarget::Ping);
    let tcp = health.tcp.iter().copied().map(ProbeTarget::Tcp);
    let http = health.http.iter().cloned().map(ProbeTarget::Http);
    ping.chain(tcp).chain(http).collect()
}

/// Sends probes over one uplink.
pub(super) struct Prober {
    /// Probe address of the uplink.
    source: Ipv4Addr,
    echoes: Option<Rc<Echoes>>,
    web: Option<WebClient>,
}

impl Prober {
    /// Makes a prober for the probe address `source`, which must be set on the host by now.
    ///
    /// # Errors
    /// The host does not have the address, or the system's certificates cannot be read.
    pub(super) fn new(
        source: Ipv4Addr,
        raw: Option<OwnedFd>,
        health: &Health,
    ) -> io::Result<Rc<Self>> {
        let echoes = raw.map(|socket| Echoes::start(source, socket)).transpose()?;
        let web = match health.http.is_empty() {
            true => None,
            false => Some(WebClient::new(source, health)?),
        };
        Ok(Rc::new(Self { source, echoes, web }))
    }

    /// Stops reading replies, so that another prober can use the socket. Probes that wait get no
    /// answer any more.
    pub(super) fn stop(&self) {
        self.echoes.iter().for_each(|echoes| echoes.stop());
    }

    /// Sends one probe. Returns the time until the answer.
    ///
    /// # Errors
    /// The reason why there is no answer, as text for the log.
    pub(super) async fn probe(
        &self,
        target: &ProbeTarget,
        timeout: Duration,
    ) -> Result<Duration, String> {
        let began = Instant::now();
        let asked = async {
            match target {
                ProbeTarget::Ping(address) => self.ping(*address).await,
                ProbeTarget::Tcp(address) => self.connect(*address).await,
                ProbeTarget::Http(page) => match &self.web {
                    Some(web) => web.request(page).await,
                    None => Err("there is no HTTP client".to_owned()),
                },
            }
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(())) => Ok(began.elapsed()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    async fn ping(&self, address: Ipv4Addr) -> Result<(), String> {
        let echoes = self.echoes.as_ref().ok_or("there is no socket for ICMP")?;
        echoes.ask(address).await.map_err(|error| error.to_string())
    }

    async fn connect(&self, address: SocketAddrV4) -> Result<(), String> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddrV4::new(self.source, 0).into())?;
            socket.connect(address.into()).await.map(drop)
        };
        connect.await.map_err(|error: io::Error| error.to_string())
    }
}

/// The echo requests of one uplink that wait for their replies.
struct Echoes {
    /// A raw socket in a UDP wrapper: both send and receive one packet at a time, with the address
    /// of the other end.
    socket: UdpSocket,
    identifier: u16,
    state: RefCell<Waiting>,
    /// Ends the reader.
    stop: Notify,
}

#[derive(Default)]
struct Waiting {
    next: u16,
    by_sequence: HashMap<u16, (Ipv4Addr, oneshot::Sender<()>)>,
}

impl Echoes {
    fn start(source: Ipv4Addr, socket: OwnedFd) -> io::Result<Rc<Self>> {
        // With `host.manage: false` a person assigns the address after the TUN exists.
        rustix::net::sockopt::set_ip_freebind(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let echoes = Rc::new(Self {
            socket,
            identifier: rand::random(),
            state: RefCell::default(),
            stop: Notify::new(),
        });
        let reader = Rc::clone(&echoes);
        tokio::task::spawn_local(async move {
            loop {
                let read = tokio::select! {
                    read = reader.read() => read,
                    () = reader.stop.notified() => return,
                };
                if let Err(error) = read {
                    tracing::debug!(%error, "health.ping: the ICMP socket failed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Ok(echoes)
    }

    /// Ends the reader.
    fn stop(&self) {
        self.stop.notify_one();
    }

    /// Sends a request and waits for its reply.
    async fn ask(&self, address: Ipv4Addr) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let sequence = {
            let mut state = self.state.borrow_mut();
            state.by_sequence.retain(|_, (_, waiting)| !waiting.is_closed());
            state.next = state.next.wrapping_add(1);
            let sequence = state.next;
            state.by_sequence.insert(sequence, (address, sender));
            sequence
        };
        let header = IcmpEchoHeader { id: self.identifier, seq: sequence };
        let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), PAYLOAD);
        let packet = [&header.to_bytes()[..], PAYLOAD].concat();
        self.socket.send_to(&packet, SocketAddrV4::new(address, 0)).await?;
        receiver.await.map_err(io::Error::other)
    }

    /// Receives one packet.
    async fn read(&self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).await?;
        if let Some((source, sequence)) = self.reply(&buffer[..length]) {
            let mut state = self.state.borrow_mut();
            if state.by_sequence.get(&sequence).is_some_and(|(asked, _)| *asked == source)
                && let Some((_, waiting)) = state.by_sequence.remove(&sequence)
            {
                // Fails if the probe has timed out.
                let _ = waiting.send(());
            }
        }
        Ok(())
    }

    /// Returns the sender and the sequence number of an echo reply to this socket.
    fn reply(&self, packet: &[u8]) -> Option<(Ipv4Addr, u16)> {
        let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let (icmp, _) = Icmpv4Header::from_slice(packet.get(ip.slice().len()..)?).ok()?;
        let Icmpv4Type::EchoReply(echo) = icmp.icmp_type else { return None };
        (echo.id == self.identifier).then(|| (ip.source_addr(), echo.seq))
    }
}

/// Address of sockets that no check uses: packets to it do not come from outside.
const UNUSED: Ipv4Addr = Ipv4Addr::new(127, 71, 71, 71);
const PAYLOAD: &[u8] = b"natbox looks whether this line is alive";
/// Pause after an error of the socket.
const RETRY: Duration = Duration::from_millis(100);

//! Three namespaces with the box in the middle one.
//!
//! ```text
//!   client 198.51.100.1 ─── wan0 [ box ] lan0 ─── 10.0.0.2 server
//!                     198.51.100.254  10.0.0.1
//!          203.0.113.10 is routed to the box, which publishes the server at this address
//! ```
//!
//! The senders of floods are on the two segments: they write frames with any source address.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use natbox::api::{Request, SessionCursor, SessionPage, SessionView, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::HttpServer;
use natbox::lab::interrupt::Interrupt;
use natbox::lab::{Lab, Namespace, hardware_address};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::generator::Generator;
use super::scenario::{Keys, Scenario, Side, Targets};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const PUBLISHED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Published port of the web server.
pub(crate) const WEB: u16 = 80;
/// Published port of the established flow.
const FLOW: u16 = 9000;
/// Published port of a socket that no program reads.
pub(crate) const SINK: u16 = 9001;
/// Outside port of the flow that the server opens.
const OUTSIDE_FLOW: u16 = 6001;
/// Inside port of the mapping that a flood may aim at.
const MAPPED: u16 = 7000;

/// What forwards the packets between the two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// natbox.
    Natbox,
    /// The kernel, without translation: the machine's own limit.
    Route,
}

/// The namespaces with the running box.
pub(crate) struct Testbed {
    pub client: Namespace,
    pub middle: Namespace,
    pub server: Namespace,
    /// Keeps the kernel from answering datagrams to [`SINK`] and [`MAPPED`].
    _sinks: Vec<UdpSocket>,
    _web: HttpServer,
    targets: Targets,
    // Dropped before the lab, so that the process ends first.
    pub natbox: Option<NatBox>,
    _lab: Lab,
}

impl Testbed {
    /// Makes the namespaces and starts the box.
    pub(crate) fn new(device: Device, scenario: Scenario, program: &Path) -> Result<Testbed> {
        let lab = Lab::new("nbflood")?;
        let (client, middle, server) =
            (lab.namespace("net")?, lab.namespace("box")?, lab.namespace("server")?);
        lab.veth(1, (&client, "eth0"), (&middle, "wan0"))?;
        lab.veth(2, (&server, "eth0"), (&middle, "lan0"))?;
        client.address("eth0", CLIENT, 24)?;
        middle.address("wan0", UPLINK, 24)?;
        middle.address("lan0", GATEWAY, 24)?;
        server.address("eth0", SERVER, 24)?;
        server.route("default", GATEWAY)?;
        let natbox = match device {
            Device::Natbox => {
                client.route(&format!("{PUBLISHED}/32"), UPLINK)?;
                let text = configuration(&scenario.keys());
                let mut natbox = NatBox::start(program, &middle, lab.directory(), "natbox", &text)?;
                natbox.wait_ready(&Interrupt::default())?;
                Some(natbox)
            }
            Device::Route => {
                client.route("10.0.0.0/24", UPLINK)?;
                middle.route("default", CLIENT)?;
                middle.sysctl("net/ipv4/ip_forward", "1")?;
                None
            }
        };
        let web = server.enter(|| TcpListener::bind((SERVER, WEB)))??;
        let web = HttpServer::start(vec![web], None)?;
        let sink = bound(&server, SERVER, SINK)?;
        set_socket_recv_buffer_size_force(&sink, SINK_BUFFER)?;
        let (mapped, external) = open_mapping(&client, &server)?;
        let server_address = if device == Device::Natbox { PUBLISHED } else { SERVER };
        let targets = Targets { server: server_address, mapped: external };
        let _sinks = vec![sink, mapped];
        Ok(Testbed { client, middle, server, _sinks, _web: web, targets, natbox, _lab: lab })
    }

    pub(crate) fn targets(&self) -> Targets {
        self.targets
    }

    /// Returns the endpoint of the published web server.
    pub(crate) fn web(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.targets.server, WEB)
    }

    /// Makes the sender of a flood.
    pub(crate) fn generator(&self, side: Side, packets: &[Vec<u8>]) -> Result<Generator> {
        let (namespace, link) = match side {
            Side::Outside => (&self.client, 1),
            Side::Inside => (&self.server, 2),
        };
        let ends = [2, 1].map(|end| hardware_address(link, end));
        Generator::open(namespace, "eth0", ends, packets)
    }

    /// Opens a session from outside and one from inside. Returns the sockets of their ends: of each
    /// session the end that opened it, then the other one.
    pub(crate) fn sessions(&self) -> Result<[[UdpSocket; 2]; 2]> {
        let inward = {
            let listener = bound(&self.server, SERVER, FLOW)?;
            let opener = bound(&self.client, CLIENT, 0)?;
            connected(opener, listener, SocketAddrV4::new(self.targets.server, FLOW))?
        };
        let outward = {
            let listener = bound(&self.client, CLIENT, OUTSIDE_FLOW)?;
            let opener = bound(&self.server, SERVER, 0)?;
            connected(opener, listener, SocketAddrV4::new(CLIENT, OUTSIDE_FLOW))?
        };
        Ok([inward, outward])
    }

    /// Counts the sessions that the flood has opened: those of other senders than client and
    /// server.
    pub(crate) fn sessions_of_flood(&self) -> Result<u64> {
        let natbox = self.natbox.as_ref().context("natbox runs")?;
        let own = [CLIENT, SERVER].map(|address| format!("{address}:"));
        let (mut count, mut next) = (0, Some(SessionCursor::default()));
        while let Some(from) = next {
            let page: SessionPage = client::request(
                natbox.socket(),
                &Request::Sessions { from, filter: String::new() },
            )?;
            let is_floods = |session: &&SessionView| {
                !own.iter().any(|own| session.original.source.starts_with(own))
            };
            count += page.sessions.iter().filter(is_floods).count() as u64;
            next = page.next;
        }
        Ok(count)
    }
}

/// Binds a socket in a namespace, with a buffer for all datagrams of a run.
fn bound(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = namespace.enter(|| UdpSocket::bind((address, port)))??;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// Sends a first datagram and connects both sockets to the ends that they see.
fn connected(opener: UdpSocket, listener: UdpSocket, to: SocketAddrV4) -> Result<[UdpSocket; 2]> {
    opener.connect(to)?;
    opener.send(b"hello")?;
    let (_, peer) = listener.recv_from(&mut [0; 8]).context("the first datagram")?;
    listener.connect(peer)?;
    Ok([opener, listener])
}

/// Opens a mapping of the server. Returns its socket and the external endpoint.
fn open_mapping(client: &Namespace, server: &Namespace) -> Result<(UdpSocket, SocketAddrV4)> {
    let inside = bound(server, SERVER, MAPPED)?;
    let outside = bound(client, CLIENT, 0)?;
    inside.send_to(b"hello", outside.local_addr()?)?;
    let (_, external) = outside.recv_from(&mut [0; 8]).context("the mapping's first datagram")?;
    set_socket_recv_buffer_size_force(&inside, SINK_BUFFER)?;
    match external {
        std::net::SocketAddr::V4(external) => Ok((inside, external)),
        std::net::SocketAddr::V6(_) => unreachable!("the socket is an IPv4 socket"),
    }
}

fn configuration(keys: &Keys) -> String {
    let Keys { nat, limits } = keys;
    format!(
        "name: overload
tun: {{ name: nb0 }}
inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}
uplinks: [{{ name: wan, interface: wan0, addresses: [{PUBLISHED}], gateway: {CLIENT} }}]
forwards:
  - {{ name: web, protocol: tcp, port: {WEB}, to: '{SERVER}:{WEB}' }}
  - {{ name: flow, protocol: udp, port: {FLOW}, to: '{SERVER}:{FLOW}' }}
  - {{ name: sink, protocol: udp, port: {SINK}, to: '{SERVER}:{SINK}' }}
outbound: [{{ from: 10.0.0.0/24 }}]
nat: {{ {nat} }}
limits: {{ {limits} }}
timeouts: {{ fragment: 1s }}
"
    )
}

/// Receive buffer for the datagrams of a run, which are read at its end, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Receive buffer of a socket that no program reads: a flood fills it at once.
const SINK_BUFFER: usize = 4096;

//! One box on one uplink.
//!
//! ```text
//!   far                 further out; only with SingleBox::with_far
//!    │ 198.18.0.2 eth0
//!    │ 198.18.0.1 far0
//!   net                 the Internet side: the provider's router, with the clients' addresses on lo
//!    │ 203.0.113.254 eth0
//!    │ 203.0.113.1 (or .10) wan0
//!   box                 natbox run
//!    │ 10.0.0.1 lan0
//!    │ 10.0.0.101 eth0
//!   server
//! ```
//!
//! A test builds these namespaces for itself and removes them. Failures panic: a test that cannot
//! run fails.

mod errors;
mod inject;
mod running;
mod state;
mod traffic;

pub(crate) use errors::{ErrorWatch, IcmpError};
pub(crate) use inject::Injector;
pub(crate) use running::{Ended, RunningBox};
pub(crate) use state::HostState;
pub(crate) use traffic::{Sink, eventually, seconds};

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};

use natbox::lab::http;
use natbox::lab::{Lab, Namespace};

use crate::lab::wait_for;

/// The program under test.
pub(crate) const NATBOX: &str = env!("CARGO_BIN_EXE_natbox");

/// Address of the client.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// The provider's router, which is the box's next hop.
pub(crate) const PROVIDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// Address of the box on the private network.
pub(crate) const BOX_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Address of the server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
/// An unused address on the private network.
pub(crate) const DEAD_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 199);
/// Address of a host beyond the provider.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Published port of [`SERVER`]'s web server (TCP).
pub(crate) const WEB: u16 = 80;
/// Published port of the unused address (TCP and UDP).
pub(crate) const DEAD: u16 = 81;
/// Published port of [`SERVER`] (UDP). The test decides whether a socket listens there.
pub(crate) const DATAGRAMS: u16 = 7;

/// The owner of the published address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// No host has the address, and it lies in the network of the uplink: the box must answer ARP.
    OnLink,
    /// No host has the address, and the provider routes it to the box.
    Routed,
    /// The address of the box on the uplink.
    Owned,
}

/// The namespaces.
#[derive(Debug)]
pub(crate) struct SingleBox {
    pub lab: Lab,
    pub net: Namespace,
    pub natbox: Namespace,
    pub server: Namespace,
    /// Published address, `G`.
    pub published: Ipv4Addr,
    /// Address of the box's `wan0`.
    pub outside: Ipv4Addr,
}

impl SingleBox {
    pub(crate) fn new(kind: Published) -> SingleBox {
        let (published, outside) = match kind {
            Published::OnLink => (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 1)),
            Published::Routed => (Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(203, 0, 113, 1)),
            Published::Owned => (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 10)),
        };
        let lab = Lab::new("nbbox").unwrap();
        let [net, natbox, server] = ["net", "box", "srv"].map(|role| lab.namespace(role).unwrap());

        lab.veth(0, (&natbox, "wan0"), (&net, "eth0")).unwrap();
        natbox.address("wan0", outside, 24).unwrap();
        natbox.route("default", PROVIDER).unwrap();
        net.address("eth0", PROVIDER, 24).unwrap();
        net.address("lo", CLIENT, 32).unwrap();
        net.sysctl("net/ipv4/ip_forward", "1").unwrap();
        // The provider's router uses its own address in ARP requests, not that of a client behind
        // it.
        net.sysctl("net/ipv4/conf/all/arp_announce", "2").unwrap();
        if kind == Published::Routed {
            net.route(&format!("{published}/32"), outside).unwrap();
        }

        lab.veth(1, (&natbox, "lan0"), (&server, "eth0")).unwrap();
        natbox.address("lan0", BOX_INSIDE, 24).unwrap();
        server.address("eth0", SERVER, 24).unwrap();
        server.route("default", BOX_INSIDE).unwrap();
        SingleBox { lab, net, natbox, server, published, outside }
    }

    /// Adds a host beyond the provider. Only the provider's router knows that the link to this host
    /// has an MTU of `mtu` bytes.
    pub(crate) fn with_far(&self, mtu: u32) -> Namespace {
        let far = self.lab.namespace("far").unwrap();
        self.lab.veth(2, (&self.net, "far0"), (&far, "eth0")).unwrap();
        self.net.address("far0", Ipv4Addr::new(198, 18, 0, 1), 24).unwrap();
        far.address("eth0", FAR, 24).unwrap();
        far.route("default", Ipv4Addr::new(198, 18, 0, 1)).unwrap();
        self.net.ip(&["link", "set", "far0", "mtu", &mtu.to_string()]).unwrap();
        far
    }

    /// Returns a published endpoint.
    pub(crate) fn endpoint(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.published, port)
    }

    /// Returns a configuration for these namespaces.
    pub(crate) fn config(&self) -> Config {
        Config {
            name: "natbox".to_owned(),
            tun: "nb0".to_owned(),
            workers: "2".to_owned(),
            offload: "auto".to_owned(),
            io: "auto".to_owned(),
            inside: "lan0".to_owned(),
            outside: "wan0".to_owned(),
            published: self.published,
            manage: true,
            sessions: "64k".to_owned(),
            log_format: "text".to_owned(),
            socket: self.lab.directory().join("natbox.sock"),
            extra: String::new(),
        }
    }

    /// Writes a configuration beside the logs and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.lab.directory().join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the box and waits until the box answers.
    pub(crate) fn start(&self, config: &Config) -> RunningBox {
        RunningBox::start(self, config)
    }

    /// Runs `natbox ARGUMENTS` to its end in the box's namespace, behind a command that prepares
    /// the environment and may be empty.
    pub(crate) fn natbox(&self, before: &[&str], arguments: &[&str]) -> Ended {
        running::to_its_end(&self.natbox, before, arguments)
    }

    /// Runs a box that must not get ready. Returns its exit code and output.
    pub(crate) fn refused(&self, before: &[&str], config: &Path) -> Ended {
        self.natbox(before, &["run", "--config", config.to_str().unwrap()])
    }

    /// Returns the state of the box's host.
    pub(crate) fn host_state(&self) -> HostState {
        HostState::of(self)
    }

    /// Starts the built-in web server on [`SERVER`].
    pub(crate) fn serve(&self) -> http::HttpServer {
        serve(&self.server, SERVER, WEB)
    }

    /// Fetches, through the published port, the client's address as the server sees it.
    pub(crate) fn fetch(&self) -> std::io::Result<String> {
        let mut connection = self.connect(seconds(2))?;
        Ok(connection.get("/")?.text().trim().to_owned())
    }

    /// Connects to the published web server.
    pub(crate) fn connect(
        &self,
        timeout: std::time::Duration,
    ) -> std::io::Result<http::Connection> {
        self.net.enter(|| http::connect(Some(CLIENT), self.endpoint(WEB), timeout)).unwrap()
    }

    /// Asserts that the forward works and that the server reaches the Internet side.
    pub(crate) fn assert_traffic(&self) {
        assert_eq!(self.fetch().unwrap(), CLIENT.to_string(), "through the forward");
        self.assert_outbound();
    }

    /// Asserts that the server reaches the Internet side with the published address.
    pub(crate) fn assert_outbound(&self) {
        let outside = serve(&self.net, CLIENT, 8080);
        let to = SocketAddrV4::new(CLIENT, 8080);
        let mut connection =
            self.server.enter(|| http::connect(None, to, seconds(2))).unwrap().unwrap();
        assert_eq!(
            connection.get("/").unwrap().text().trim(),
            self.published.to_string(),
            "outbound"
        );
        drop(outside);
    }
}

/// Starts the built-in web server on an address of a namespace.
pub(crate) fn serve(namespace: &Namespace, address: Ipv4Addr, port: u16) -> http::HttpServer {
    // A server before this one on the same port may not have closed its last connection yet.
    let bind = || Ok(namespace.enter(|| TcpListener::bind((address, port)))?.ok());
    let listener = wait_for("the port", bind).unwrap();
    http::HttpServer::start(vec![listener], None).unwrap()
}

/// A configuration. Its `Display` is the YAML.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub name: String,
    pub tun: String,
    pub workers: String,
    pub offload: String,
    pub io: String,
    pub inside: String,
    pub outside: String,
    pub published: Ipv4Addr,
    pub manage: bool,
    pub sessions: String,
    pub log_format: String,
    pub socket: PathBuf,
    /// Whole lines that precede `limits`.
    pub extra: String,
}

impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            name,
            tun,
            workers,
            offload,
            io,
            inside,
            outside,
            published,
            manage,
            sessions,
            log_format,
            socket,
            extra,
        } = self;
        let socket = socket.display();
        writeln!(
            formatter,
            "name: {name}
tun: {{ name: {tun}, workers: {workers}, offload: {offload}, io: {io} }}
inside: {{ interface: {inside}, prefixes: [10.0.0.0/24] }}
uplinks:
  - {{ name: isp, interface: {outside}, addresses: [{published}], gateway: {PROVIDER} }}
forwards:
  - {{ name: web, protocol: tcp, port: {WEB}, to: '{SERVER}:{WEB}' }}
  - {{ name: datagrams, protocol: udp, port: {DATAGRAMS}, to: '{SERVER}:{DATAGRAMS}' }}
  - {{ name: dead, protocol: tcp+udp, port: {DEAD}, to: '{DEAD_SERVER}:{DEAD}' }}
outbound:
  - {{ from: 10.0.0.0/24 }}
{extra}limits: {{ sessions: {sessions} }}
host: {{ manage: {manage} }}
admin: {{ socket: {socket} }}
log: {{ level: debug, format: {log_format} }}"
        )
    }
}

//! Three namespaces with natbox in the middle one, as in `benches/comparison`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::{Lab, Namespace};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::deadline;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const PUBLISHED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 9000;
/// Ports that the other sessions are for.
const OTHER_PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_127;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM.
    Stopped,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
        }
    }
}

/// The namespaces and the running natbox.
pub(crate) struct Scene {
    client: Namespace,
    middle: Namespace,
    server: Namespace,
    configuration: String,
    // Dropped before the lab, so that the process ends first.
    natbox: Option<NatBox>,
    lab: Lab,
}

impl Scene {
    /// Sets up the namespaces, starts natbox and opens `sessions` sessions.
    pub(crate) fn new(tun: &str, sessions: u32) -> Result<Scene> {
        let lab = Lab::new("nbgap")?;
        let (client, middle, server) =
            (lab.namespace("net")?, lab.namespace("box")?, lab.namespace("server")?);
        lab.veth(1, (&client, "eth0"), (&middle, "wan0"))?;
        lab.veth(2, (&server, "eth0"), (&middle, "lan0"))?;
        client.address("eth0", CLIENT, 24)?;
        middle.address("wan0", UPLINK, 24)?;
        middle.address("lan0", GATEWAY, 24)?;
        server.address("eth0", SERVER, 24)?;
        server.route("default", GATEWAY)?;
        client.route(&format!("{PUBLISHED}/32"), UPLINK)?;
        let configuration = configuration(tun, sessions, lab.directory());
        let mut scene = Scene { client, middle, server, configuration, natbox: None, lab };
        scene.start()?;
        scene.wait_ready()?;
        scene.open_sessions(sessions)?;
        Ok(scene)
    }

    /// Ends natbox and starts it again. Returns the time from its end to its start.
    pub(crate) fn replace_box(&mut self, end: End) -> Result<Duration> {
        let mut natbox = self.natbox.take().context("natbox runs")?;
        match end {
            End::Killed => natbox.process().kill()?,
            End::Stopped => natbox.process().terminate()?,
        };
        let ended = Instant::now();
        self.start()?;
        Ok(ended.elapsed())
    }

    /// Waits until natbox answers on its admin socket.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let (natbox, end) = (self.natbox.as_mut().context("natbox runs")?, deadline());
        while natbox.status().is_err() {
            ensure!(Instant::now() < end, "natbox is not ready: {}", natbox.process().log_tail(12));
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Returns a socket of the client, connected to the published address, and the server's socket.
    pub(crate) fn sockets(&self) -> Result<(UdpSocket, UdpSocket)> {
        let source = self.client.enter(|| -> Result<_> {
            let socket = UdpSocket::bind(SocketAddrV4::new(CLIENT, 0))?;
            socket.connect(SocketAddrV4::new(PUBLISHED, PORT))?;
            Ok(socket)
        })??;
        let sink = self.server.enter(|| -> Result<_> {
            let socket = UdpSocket::bind(SocketAddrV4::new(SERVER, PORT))?;
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        })??;
        Ok((source, sink))
    }

    fn start(&mut self) -> Result<()> {
        let program = Path::new(env!("CARGO_BIN_EXE_natbox"));
        let directory = self.lab.directory();
        let natbox = NatBox::start(program, &self.middle, directory, "gap", &self.configuration)?;
        self.natbox = Some(natbox);
        Ok(())
    }

    /// Opens sessions of a published range of ports.
    fn open_sessions(&self, wanted: u32) -> Result<()> {
        let _sinks: Vec<UdpSocket> = self.server.enter(|| {
            let bind = |port| UdpSocket::bind(SocketAddrV4::new(SERVER, port));
            OTHER_PORTS.map(bind).collect::<std::io::Result<_>>()
        })??;
        let each = wanted.div_ceil(OTHER_PORTS.len() as u32);
        self.client.enter(|| -> Result<()> {
            for source in 0..each {
                let socket = UdpSocket::bind(SocketAddrV4::new(CLIENT, 10_000 + source as u16))?;
                for port in OTHER_PORTS {
                    socket.send_to(b"x", SocketAddrV4::new(PUBLISHED, port))?;
                }
                // The machine forwards more slowly than it sends.
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(())
        })??;
        let natbox = self.natbox.as_ref().context("natbox runs")?;
        let found = natbox.status()?.sessions.now;
        ensure!(u64::from(found) >= u64::from(wanted) * 95 / 100, "{found} of {wanted} sessions");
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.natbox.take());
        let file = self.lab.directory().join("down.yaml");
        if fs::write(&file, &self.configuration).is_ok() {
            let mut down = self.middle.command(env!("CARGO_BIN_EXE_natbox"));
            let _ = down.args(["down", "-c"]).arg(&file).output();
        }
    }
}

fn configuration(tun: &str, sessions: u32, directory: &Path) -> String {
    let directory = directory.display();
    let (first, last) = (OTHER_PORTS.start(), OTHER_PORTS.end());
    let capacity = sessions.saturating_mul(2).max(CAPACITY);
    format!(
        "name: gap
tun: {{ name: nb0, {tun} }}
inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}
uplinks: [{{ name: wan, interface: wan0, addresses: [{PUBLISHED}], gateway: {CLIENT} }}]
forwards:
  - {{ name: flow, protocol: udp, port: {PORT}, to: '{SERVER}:{PORT}' }}
  - {{ name: others, protocol: udp, port: {first}-{last}, to: {SERVER} }}
limits: {{ sessions: {capacity}, sessions_per_host: 0 }}
timeouts: {{ udp: 10m }}
state: {{ keep: true, directory: '{directory}/state' }}
admin: {{ socket: '{directory}/natbox.sock' }}
"
    )
}

/// Least capacity of the session table: the default of natbox.
const CAPACITY: u32 = 262_144;
/// Room for the datagrams that arrive at once after a gap, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

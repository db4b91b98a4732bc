//! Three namespaces with natbox in the middle one, as in `benches/comparison`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use natbox::api::{Request, Status, client};
use natbox::lab::{Lab, Namespace};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::process::{Pid, Signal, kill_process};

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
pub(crate) struct Testbed {
    client: Namespace,
    middle: Namespace,
    server: Namespace,
    natbox: Option<Child>,
    /// Number of other sessions.
    sessions: u32,
    lab: Lab,
}

impl Testbed {
    /// Sets up the namespaces, starts natbox and opens `sessions` sessions.
    pub(crate) fn new(tun: &str, sessions: u32) -> Result<Testbed> {
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
        let mut testbed = Testbed { client, middle, server, natbox: None, sessions: 0, lab };
        let state = testbed.lab.directory().join("state");
        fs::create_dir(&state)?;
        // As configs/run-natbox-state.mount does.
        mount("tmpfs", &state, "tmpfs", MountFlags::empty(), Some(c"huge=within_size"))?;
        fs::write(testbed.file(), configuration(tun, sessions, testbed.lab.directory()))?;
        testbed.start()?;
        testbed.wait_ready()?;
        testbed.open_sessions(sessions)?;
        testbed.sessions = testbed.status()?.sessions.now;
        Ok(testbed)
    }

    /// Ends natbox and starts it again. Returns how long the process took to end.
    pub(crate) fn replace_box(&mut self, end: End) -> Result<Duration> {
        let mut natbox = self.natbox.take().context("natbox runs")?;
        let started = Instant::now();
        match end {
            End::Killed => natbox.kill()?,
            End::Stopped => terminate(&natbox)?,
        }
        natbox.wait()?;
        let took = started.elapsed();
        self.start()?;
        Ok(took)
    }

    /// Waits until natbox answers on its admin socket and has adopted the other sessions.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let end = deadline();
        while self.status().map_or(true, |status| status.sessions.now < self.sessions) {
            let ended = self.natbox.as_mut().context("natbox runs")?.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                bail!("natbox is not ready: {}", fs::read_to_string(self.log())?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        Ok(client::request(&self.lab.directory().join("natbox.sock"), &Request::Status)?)
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

    /// Starts the program itself, as a supervisor does: `ip netns exec` takes milliseconds.
    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(NATBOX);
        command.args(["run", "--config"]).arg(self.file());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.natbox = Some(self.middle.enter(|| command.spawn())??);
        Ok(())
    }

    fn file(&self) -> std::path::PathBuf {
        self.lab.directory().join("natbox.yaml")
    }

    fn log(&self) -> std::path::PathBuf {
        self.lab.directory().join("natbox.log")
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
        let found = self.status()?.sessions.now;
        ensure!(u64::from(found) >= u64::from(wanted) * 95 / 100, "{found} of {wanted} sessions");
        Ok(())
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // `natbox down` stops the process, and ends what outlives it.
        let mut down = self.middle.command(NATBOX);
        let _ = down.args(["down", "-c"]).arg(self.file()).output();
        if let Some(mut natbox) = self.natbox.take() {
            let _ = natbox.kill();
            let _ = natbox.wait();
        }
        let _ = unmount(self.lab.directory().join("state"), UnmountFlags::DETACH);
    }
}

/// Asks a process to end.
fn terminate(process: &Child) -> Result<()> {
    let pid = Pid::from_raw(process.id().try_into()?).context("a process")?;
    Ok(kill_process(pid, Signal::TERM)?)
}

/// The program.
const NATBOX: &str = env!("CARGO_BIN_EXE_natbox");

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
/// Receive buffer for the datagrams that arrive at once after a gap, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

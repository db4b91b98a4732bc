//! Much traffic of every kind goes on while the process is killed and restarted: downloads by curl
//! from nginx in both directions, idle connections, UDP, ping, GRE, ESP and fragments.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};
use natbox::lab::{Child, Namespace};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, recvfrom,
    sendto, socket_with,
};

use super::{Owner, configuration, kill, site, stop};
use crate::lab::{BoxConfig, Echo, Nginx, Site, TIMEOUT, datagrams, exchange, listen, wait_for};

/// Downloads in each direction.
const DOWNLOADS: usize = 200;
/// Idle connections in each direction.
const IDLE: usize = 300;
/// UDP conversations from inside.
const CONVERSATIONS: usize = 200;
/// Bytes of a datagram that travels in fragments.
const FRAGMENTED: usize = 4000;
/// Rounds of each kind.
const ROUNDS: usize = 10;

const WEB: u16 = 80;
/// Web server on the Internet for the downloads.
const OUTSIDE_FILES: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// Server on the Internet for the idle connections.
const OUTSIDE_IDLE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[1], 8081);
/// Port of the inside server for the idle connections.
const IDLE_PORT: u16 = 81;
const ECHO: SocketAddrV4 = SocketAddrV4::new(CLIENTS[2], 7);
/// Remote host of ping, GRE and ESP.
const TUNNEL_END: Ipv4Addr = CLIENTS[3];

const GRE: u32 = 47;
const ESP: u32 = 50;

/// A box between real programs.
struct Testbed {
    site: Site,
    config: BoxConfig,
    content: Vec<u8>,
    _nginx: [Nginx; 2],
    /// For the idle connections: inside, and on the Internet.
    listeners: [TcpListener; 2],
    echo: Echo,
}

/// The next test with a namespace of the same inode must find no journal.
impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.site.down(&self.config);
    }
}

impl Testbed {
    fn new(owner: Owner) -> Result<Testbed> {
        let site = site(ThreeLeggedPlan::TWO_UPLINKS, owner)?;
        let (client, server, inside) = (site.client(), site.server(), site.server_address(0));
        let root = site.lab.directory().join("root");
        fs::create_dir(&root)?;
        let mut content = vec![0; FILE];
        StdRng::seed_from_u64(80).fill(content.as_mut_slice());
        fs::write(root.join("file"), &content)?;
        let published = SocketAddrV4::new(inside, WEB);
        let nginx = [
            Nginx::slow(&site.lab, server, "inside-files", &root, published, RATE)?,
            Nginx::slow(&site.lab, client, "outside-files", &root, OUTSIDE_FILES, RATE)?,
        ];
        let listeners = [
            listen(server, inside, IDLE_PORT)?,
            listen(client, *OUTSIDE_IDLE.ip(), OUTSIDE_IDLE.port())?,
        ];
        let echo = Echo::start(client, *ECHO.ip(), ECHO.port())?;
        let config = [1, 2].iter().fold(configuration(&site, 0..2, &[0, 1]), |config, number| {
            config.forward_as(&format!(
                "name: i{number}, uplink: isp{number}, protocol: tcp, port: {IDLE_PORT}, to: {inside}"
            ))
        });
        Ok(Testbed { site, config, content, _nginx: nginx, listeners, echo })
    }

    fn start(&self) -> Result<NatBox> {
        self.site.start(0, &self.config)
    }
}

/// Size of the file that is downloaded, in bytes: more than a download gets to.
const FILE: usize = 16 << 20;
/// Rate of each download, in bytes a second.
const RATE: u32 = 16 << 10;

/// Downloads of one file by one curl, all at the same time.
struct Downloads {
    curl: Child,
    files: Vec<PathBuf>,
}

impl Downloads {
    /// Starts as many downloads from each of the servers.
    fn start(
        name: &str,
        namespace: &Namespace,
        directory: &Path,
        servers: &[SocketAddrV4],
    ) -> Result<Downloads> {
        crate::lab::require("curl")?;
        let each = DOWNLOADS / servers.len();
        let mut curl = namespace.command("curl");
        curl.args(["-sS", "--fail", "--fail-early", "-Z", "--parallel-immediate"]);
        curl.args(["--parallel-max", &DOWNLOADS.to_string(), "--no-buffer"]);
        let mut files = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            let pattern = directory.join(format!("{name}-{number}-#1"));
            curl.arg(format!("http://{server}/file?[1-{each}]")).arg("-o").arg(&pattern);
            let file = |of: usize| directory.join(format!("{name}-{number}-{of}"));
            files.extend((1..=each).map(file));
        }
        let downloads = Downloads { curl: namespace.spawn(name, curl)?, files };
        wait_for("all downloads to run", || {
            let lengths = downloads.lengths();
            Ok((lengths.iter().all(|length| *length > 0)).then_some(()))
        })?;
        Ok(downloads)
    }

    /// Bytes of each download so far.
    fn lengths(&self) -> Vec<u64> {
        let length = |file| fs::metadata(file).map_or(0, |metadata| metadata.len());
        self.files.iter().map(length).collect()
    }

    /// Waits until each download has more bytes than `before`.
    fn go_on(&mut self, before: &[u64]) -> Result<()> {
        wait_for("all downloads to go on", || {
            if let Some(status) = self.curl.ended()? {
                bail!("curl has ended ({status}): {}", self.curl.log_tail(5));
            }
            let lengths = self.lengths();
            Ok(lengths.iter().zip(before).all(|(now, before)| now > before).then_some(()))
        })
    }

    /// Ends the downloads and compares what they have with the content of the file.
    fn finish(mut self, content: &[u8]) -> Result<()> {
        self.go_on(&self.lengths())?;
        self.curl.kill()?;
        let mut bytes = Vec::new();
        for file in &self.files {
            bytes.clear();
            File::open(file)?.read_to_end(&mut bytes)?;
            let expected = content.get(..bytes.len()).context("a download is too long")?;
            ensure!(bytes == expected, "{}: {} bytes differ", file.display(), bytes.len());
        }
        Ok(())
    }
}

/// A connection whose ends only speak when the test says so.
struct Idle {
    client: TcpStream,
    server: TcpStream,
}

impl Idle {
    fn new(from: &Namespace, to: SocketAddrV4, listener: &TcpListener) -> Result<Idle> {
        let client = from.enter(|| TcpStream::connect_timeout(&to.into(), TIMEOUT))??;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(TIMEOUT))?;
        }
        Ok(Idle { client, server })
    }

    /// Says a word in each direction.
    fn speak(&self, word: u32) -> Result<()> {
        let Self { client, server } = self;
        for (mut from, mut to) in [(client, server), (server, client)] {
            let mut heard = [0; 4];
            from.write_all(&word.to_be_bytes())?;
            to.read_exact(&mut heard)?;
            ensure!(heard == word.to_be_bytes(), "{heard:?} instead of {word}");
        }
        Ok(())
    }
}

/// Raw packets of a protocol without ports, to a remote host and back.
struct Tunnel {
    protocol: u32,
    inside: OwnedFd,
    outside: OwnedFd,
    seen: BTreeSet<Ipv4Addr>,
}

impl Tunnel {
    fn new(site: &Site, protocol: u32) -> Result<Tunnel> {
        let inside = raw(site.server(), site.server_address(0), protocol)?;
        let outside = raw(site.client(), TUNNEL_END, protocol)?;
        Ok(Tunnel { protocol, inside, outside, seen: BTreeSet::new() })
    }

    /// Sends a packet from inside, and one back to where the first one came from.
    fn exchange(&mut self) -> Result<()> {
        let payload = [self.protocol as u8, 0, 0x65, 0x58, 1, 2, 3, 4, 0, 0, 0, 1];
        let protocol = self.protocol;
        let mut packet = [0; 128];
        sendto(&self.inside, &payload, SendFlags::empty(), &SocketAddrV4::new(TUNNEL_END, 0))?;
        let flags = RecvFlags::empty();
        let (length, _, sender) = recvfrom(&self.outside, &mut packet[..], flags)
            .with_context(|| format!("protocol {protocol}: nothing arrives outside"))?;
        ensure!(packet[..length].ends_with(&payload), "protocol {protocol}: another payload");
        let sender = SocketAddrV4::try_from(sender.context("a sender")?)?;
        self.seen.insert(*sender.ip());
        sendto(&self.outside, &payload, SendFlags::empty(), &SocketAddrV4::new(*sender.ip(), 0))?;
        let (length, _) = recv(&self.inside, &mut packet[..], flags)
            .with_context(|| format!("protocol {protocol}: nothing comes back"))?;
        ensure!(packet[..length].ends_with(&payload), "protocol {protocol}: another payload");
        ensure!(self.seen.len() == 1, "protocol {protocol}: {:?}", self.seen);
        Ok(())
    }
}

/// Makes a raw socket at an address.
fn raw(namespace: &Namespace, address: Ipv4Addr, protocol: u32) -> Result<OwnedFd> {
    let protocol = Protocol::from_raw(protocol.try_into()?);
    namespace.enter(|| -> Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol))?;
        bind(&socket, &SocketAddrV4::new(address, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5)))?;
        Ok(socket)
    })?
}

/// All traffic of the test.
struct Traffic {
    downloads: [Downloads; 2],
    idle: Vec<Idle>,
    conversations: Vec<UdpSocket>,
    tunnels: [Tunnel; 2],
    ping: Child,
}

impl Traffic {
    fn start(testbed: &Testbed) -> Result<Traffic> {
        let Testbed { site, .. } = testbed;
        let (client, server) = (site.client(), site.server());
        let directory = site.lab.directory();
        let published = [0, 1].map(|uplink| site.uplink(uplink).published);
        let of_published = published.map(|address| SocketAddrV4::new(address, WEB));
        let downloads = [
            Downloads::start("from-outside", client, directory, &of_published)?,
            Downloads::start("from-inside", server, directory, &[OUTSIDE_FILES])?,
        ];
        let mut idle = Vec::new();
        for number in 0..IDLE {
            let to = SocketAddrV4::new(published[number % 2], IDLE_PORT);
            idle.push(Idle::new(client, to, &testbed.listeners[0])?);
            idle.push(Idle::new(server, OUTSIDE_IDLE, &testbed.listeners[1])?);
        }
        let conversation = |_| -> Result<UdpSocket> {
            let socket = datagrams(server, site.server_address(0), 0)?;
            socket.connect(ECHO)?;
            exchange(&socket, 100)?;
            Ok(socket)
        };
        let mut ping = server.command("ping");
        ping.args(["-n", "-i", "0.1", &TUNNEL_END.to_string()]);
        Ok(Traffic {
            downloads,
            idle,
            conversations: (0..CONVERSATIONS).map(conversation).collect::<Result<_>>()?,
            tunnels: [Tunnel::new(site, GRE)?, Tunnel::new(site, ESP)?],
            ping: server.spawn("ping", ping)?,
        })
    }

    /// Replaces the process once, and checks that all but the idle connections go on.
    fn outlives(&mut self, replace: impl FnOnce() -> Result<NatBox>) -> Result<NatBox> {
        let before = self.downloads.each_ref().map(Downloads::lengths);
        let natbox = replace()?;
        for (downloads, before) in self.downloads.iter_mut().zip(&before) {
            downloads.go_on(before)?;
        }
        for (number, socket) in self.conversations.iter().enumerate() {
            let size = if number % 10 == 0 { FRAGMENTED } else { 100 };
            exchange(socket, size).with_context(|| format!("conversation {number}"))?;
        }
        self.tunnels.iter_mut().try_for_each(Tunnel::exchange)?;
        Ok(natbox)
    }

    /// Lets each idle connection speak.
    fn idle_ones_speak(&self) -> Result<()> {
        for (number, connection) in self.idle.iter().enumerate() {
            connection.speak(number as u32).with_context(|| format!("idle connection {number}"))?;
        }
        Ok(())
    }

    /// Ends everything and checks it as a whole.
    fn finish(mut self, testbed: &Testbed) -> Result<()> {
        for downloads in self.downloads {
            downloads.finish(&testbed.content)?;
        }
        let senders: BTreeSet<SocketAddr> =
            testbed.echo.seen().into_iter().map(|(sender, _)| sender).collect();
        ensure!(senders.len() == CONVERSATIONS, "{} external endpoints", senders.len());
        self.ping.signal(rustix::process::Signal::INT)?;
        self.ping.wait(TIMEOUT)?;
        let text = self.ping.log();
        let (_, loss) = text.rsplit_once("received, ").context("a summary of ping")?;
        // Of a kill, the packets of one batch are lost; of a gap without a process, none may be.
        let (loss, _) = loss.split_once('%').context("a loss")?;
        ensure!(loss.parse::<f64>()? < 10., "{}", self.ping.log_tail(4));
        Ok(())
    }
}

fn traffic_outlives_kills_and_restarts(owner: Owner) -> Result<()> {
    let testbed = Testbed::new(owner)?;
    let mut natbox = testbed.start()?;
    let mut traffic = Traffic::start(&testbed)?;
    for round in 0..2 * ROUNDS {
        let replaced = traffic.outlives(|| {
            if round < ROUNDS {
                kill(natbox)?
            } else {
                stop(natbox)?
            };
            testbed.start()
        });
        natbox = replaced.with_context(|| format!("round {round} of {ROUNDS} kills, restarts"))?;
        if round % ROUNDS == 0 {
            traffic.idle_ones_speak()?;
        }
    }
    natbox = traffic
        .outlives(|| {
            stop(natbox)?;
            thread::sleep(Duration::from_secs(5));
            testbed.start()
        })
        .context("a start 5 s after a stop")?;
    traffic.idle_ones_speak()?;
    traffic.finish(&testbed)?;
    stop(natbox)
}

#[test]
fn traffic_outlives_kills_and_restarts_of_a_box_with_its_own_addresses() -> Result<()> {
    traffic_outlives_kills_and_restarts(Owner::Nobody)
}

#[test]
fn traffic_outlives_kills_and_restarts_of_a_box_with_the_hosts_addresses() -> Result<()> {
    traffic_outlives_kills_and_restarts(Owner::Host)
}

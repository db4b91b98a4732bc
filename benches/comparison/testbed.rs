//! Three namespaces, with the device under test in the middle one.
//!
//! ```text
//!   net 198.51.100.1 ─── wan0 [ box ] lan0 ─── 10.0.0.2 server
//!                    198.51.100.254  10.0.0.1
//!         203.0.113.10 is routed to the box, which publishes the server at this address
//! ```

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::{Child, Lab, Namespace};
use serde_json::Value;

use crate::latency::{self, Placement};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const PUBLISHED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Ports of the server, which are published unchanged.
pub(crate) const HTTP: u16 = 80;
pub(crate) const IPERF: u16 = 5201;
pub(crate) const UDP: u16 = 9000;

/// Capacity of the session tables: the default of conntrack on a Linux machine with a few GiB.
pub(crate) const CAPACITY: u64 = 262_144;

/// A device under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Device {
    /// Plain forwarding by the kernel, without NAT: clients connect to the server's own address.
    Route,
    /// The kernel's NAT.
    Nftables,
    /// A TCP proxy, as the common alternative to NAT.
    Haproxy,
    /// natbox.
    Natbox,
    /// natbox with `state.keep`. Not among the devices that are measured by default.
    NatboxKeep,
}

impl Device {
    pub(crate) const ALL: [Self; 4] = [Self::Route, Self::Nftables, Self::Haproxy, Self::Natbox];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Natbox => "natbox",
            Self::NatboxKeep => "natbox-keep",
        }
    }

    /// Returns whether the device carries inbound TCP only.
    pub(crate) fn is_proxy(self) -> bool {
        self == Self::Haproxy
    }

    pub(crate) fn translates(self) -> bool {
        matches!(self, Self::Nftables | Self::Natbox | Self::NatboxKeep)
    }
}

/// The namespaces, with the running device.
pub(crate) struct Testbed {
    pub device: Device,
    pub net: Namespace,
    pub middle: Namespace,
    pub server: Namespace,
    /// None: the scheduler places all programs.
    pub placement: Option<Placement>,
    tun: String,
    // Dropped before the lab, so that the programs end first.
    running: Option<Child>,
    lab: Lab,
}

/// Nothing that natbox keeps outlives the testbed.
impl Drop for Testbed {
    fn drop(&mut self) {
        drop(self.running.take());
        if self.device == Device::NatboxKeep {
            let config = self.directory().join("natbox.yaml");
            let mut down = self.middle.command(env!("CARGO_BIN_EXE_natbox"));
            let _ = down.args(["down", "--config"]).arg(config).output();
        }
    }
}

impl Testbed {
    /// Sets up the namespaces and starts the device. `tun` holds further keys of the `tun` section
    /// of natbox's configuration. With a `placement` the device runs on its processor.
    pub(crate) fn new(device: Device, tun: &str, placement: Option<Placement>) -> Result<Testbed> {
        let lab = Lab::new("nbcmp")?;
        let (net, middle, server) =
            (lab.namespace("net")?, lab.namespace("box")?, lab.namespace("server")?);
        lab.veth(1, (&net, "eth0"), (&middle, "wan0"))?;
        lab.veth(2, (&server, "eth0"), (&middle, "lan0"))?;
        net.address("eth0", CLIENT, 24)?;
        middle.address("wan0", UPLINK, 24)?;
        middle.address("lan0", GATEWAY, 24)?;
        server.address("eth0", SERVER, 24)?;
        server.route("default", GATEWAY)?;
        net.route(&format!("{PUBLISHED}/32"), UPLINK)?;
        for namespace in [&net, &server] {
            namespace.sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
        }
        let tun = tun.to_owned();
        let mut testbed =
            Testbed { device, net, middle, server, placement, tun, running: None, lab };
        let started = match placement {
            Some(Placement { device, .. }) => latency::pinned(device, || testbed.start()),
            None => testbed.start(),
        };
        started.with_context(|| format!("starting {}", device.name()))?;
        Ok(testbed)
    }

    /// Returns the address at which clients reach the server.
    pub(crate) fn target(&self) -> Ipv4Addr {
        if self.device == Device::Route { SERVER } else { PUBLISHED }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.lab.directory()
    }

    fn start(&mut self) -> Result<()> {
        match self.device {
            Device::Route => {
                self.net.route("10.0.0.0/24", UPLINK)?;
                self.middle.sysctl("net/ipv4/ip_forward", "1")?;
            }
            Device::Nftables => {
                self.middle.sysctl("net/ipv4/ip_forward", "1")?;
                let rules = self.write("rules.nft", &nftables_rules())?;
                let mut command = self.middle.command("nft");
                run(command.args(["-f", &rules]))?;
            }
            Device::Haproxy => {
                self.middle.address("lo", PUBLISHED, 32)?;
                let config = self.write("haproxy.cfg", &haproxy_config())?;
                let mut command = self.middle.command("haproxy");
                command.args(["-db", "-f", &config]);
                self.running = Some(self.middle.spawn("haproxy", command)?);
                let connect = || TcpStream::connect((PUBLISHED, HTTP));
                wait_for("haproxy", || matches!(self.middle.enter(connect), Ok(Ok(_))))?;
            }
            Device::Natbox | Device::NatboxKeep => {
                let config = self.write("natbox.yaml", &self.natbox_config(true))?;
                let mut command = self.middle.command(env!("CARGO_BIN_EXE_natbox"));
                command.args(["run", "--config", &config]);
                self.running = Some(self.middle.spawn("natbox", command)?);
                wait_for("natbox", || self.status().is_ok())?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory().join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }

    fn natbox_config(&self, outbound: bool) -> String {
        let socket = self.directory().join("natbox.sock");
        let keep = self.device == Device::NatboxKeep;
        format!(
            "name: compared
tun: {{ name: nb0, {} }}
inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}
uplinks: [{{ name: wan, interface: wan0, addresses: [{PUBLISHED}], gateway: {CLIENT} }}]
forwards:
  - {{ name: web, protocol: tcp, port: {HTTP}, to: '{SERVER}:{HTTP}' }}
  - {{ name: bulk, protocol: tcp, port: {IPERF}, to: '{SERVER}:{IPERF}' }}
  - {{ name: udp, protocol: udp, port: {UDP}, to: '{SERVER}:{UDP}' }}
outbound: [{}]
limits: {{ sessions: {CAPACITY}, sessions_per_host: 0 }}
admin: {{ socket: '{}' }}
state: {{ keep: {keep} }}
",
            self.tun,
            if outbound { "{ from: 10.0.0.0/24 }" } else { "" },
            socket.display()
        )
    }

    fn status(&self) -> Result<Value> {
        self.ask_natbox("status")
    }

    fn ask_natbox(&self, command: &str) -> Result<Value> {
        let socket = self.directory().join("natbox.sock");
        let output = Command::new(env!("CARGO_BIN_EXE_natbox"))
            .args([command, "--json", "--socket"])
            .arg(socket)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Returns the number of sessions in the device's table.
    pub(crate) fn sessions(&self) -> Result<u64> {
        match self.device {
            Device::Natbox | Device::NatboxKeep => {
                let status = self.status()?;
                status["sessions"]["now"].as_u64().context("natbox status counts sessions")
            }
            Device::Nftables => {
                Ok(self.middle.read_sysctl("net/netfilter/nf_conntrack_count")?.parse()?)
            }
            Device::Route | Device::Haproxy => bail!("{} has no sessions", self.device.name()),
        }
    }

    /// Ends all outbound sessions. Returns their number and the time that it took.
    pub(crate) fn tear_down(&self) -> Result<(u64, Duration)> {
        let before = self.sessions()?;
        let started;
        match self.device {
            Device::Natbox | Device::NatboxKeep => {
                self.write("natbox.yaml", &self.natbox_config(false))?;
                started = Instant::now();
                self.ask_natbox("reload")?;
            }
            Device::Nftables => {
                let mut command = self.middle.command("conntrack");
                command.arg("-F");
                started = Instant::now();
                run(&mut command)?;
            }
            Device::Route | Device::Haproxy => bail!("{} has no sessions", self.device.name()),
        }
        let took = started.elapsed();
        Ok((before - self.sessions()?, took))
    }

    /// Starts a program, which ends when the result or the testbed is dropped.
    pub(crate) fn spawn(
        &self,
        namespace: &Namespace,
        program: &str,
        arguments: &[&str],
    ) -> Result<Child> {
        let mut command = namespace.command(program);
        command.args(arguments);
        Ok(namespace.spawn(program, command)?)
    }

    /// Starts nginx with a page of one byte in a namespace.
    pub(crate) fn web_server(&self, namespace: &Namespace) -> Result<Child> {
        let directory = self.directory().display().to_string();
        let config = self.write(
            "nginx.conf",
            &format!(
                "daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log {directory}/nginx.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{ listen {HTTP} backlog=4096; location / {{ return 200 'x'; }} }} }}
"
            ),
        )?;
        self.spawn(namespace, "nginx", &["-c", &config])
    }
}

fn nftables_rules() -> String {
    format!(
        "table ip compared {{
  chain pre {{ type nat hook prerouting priority dstnat; policy accept;
    ip daddr {PUBLISHED} tcp dport {{ {HTTP}, {IPERF} }} dnat to {SERVER}
    ip daddr {PUBLISHED} udp dport {UDP} dnat to {SERVER}
  }}
  chain post {{ type nat hook postrouting priority srcnat; policy accept;
    oifname wan0 ip saddr 10.0.0.0/24 snat to {PUBLISHED}
  }}
}}
"
    )
}

fn haproxy_config() -> String {
    let listen = |name: &str, port: u16| {
        format!(
            "listen {name}\n  bind {PUBLISHED}:{port} backlog 4096\n  server s {SERVER}:{port}\n"
        )
    };
    format!(
        "global\n  maxconn 8000\n  nbthread 2\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n{}{}",
        listen("web", HTTP),
        listen("bulk", IPERF)
    )
}

/// Runs a program to its end and returns its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// Waits until `program` is ready.
pub(crate) fn wait_for(program: &str, mut is_ready: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_ready() {
        ensure!(started.elapsed() < Duration::from_secs(20), "{program}: not ready after 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

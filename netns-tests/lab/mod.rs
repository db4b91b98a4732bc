//! Helpers of the tests: a site with its uplinks, boxes and programs, and waiting for conditions.
//!
//! The namespaces are those of the demo ([`natbox::lab`], [`natbox::lab::topology`]).

mod datagrams;
mod programs;

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use natbox::lab::boxes::NatBox;
use natbox::lab::capture::{ExpectedReplies, UplinkCapture};
use natbox::lab::interrupt::Interrupt;
use natbox::lab::topology::{
    Attachment, Private, ThreeLeggedPlan, Topology, TopologyUplink, TwoBoxPlan, own_interface,
};
use natbox::lab::{Lab, LabError, Namespace};

pub(crate) use datagrams::{Echo, datagrams, exchange};
pub(crate) use programs::{Nginx, curl, hops, output, ping, require};

/// The program under test.
pub(crate) const NATBOX: &str = env!("CARGO_BIN_EXE_natbox");

/// Longest wait for a condition, on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Uplinks, hosts of the boxes, servers and clients. No box runs yet.
pub(crate) struct Site {
    pub topology: Topology,
    pub lab: Lab,
}

impl Site {
    /// Builds a site with unlimited uplinks and one box for each.
    pub(crate) fn new(private: Private, servers: u8) -> Result<Site> {
        let lab = Lab::new("nbtest").context("a netns test cannot run here")?;
        let topology = Topology::two_uplinks(&lab, TwoBoxPlan { private, servers, mbit: None })?;
        Ok(Site { topology, lab })
    }

    /// Builds a site whose uplinks all lead to one box.
    pub(crate) fn three_legged(plan: ThreeLeggedPlan) -> Result<Site> {
        Site::three_legged_by(plan, own_interface)
    }

    /// Builds the same site with the test's own attachment of the uplinks.
    pub(crate) fn three_legged_by(
        plan: ThreeLeggedPlan,
        attach: impl FnMut(&Lab, u8, &Namespace, &Namespace) -> Result<Attachment, LabError>,
    ) -> Result<Site> {
        let lab = Lab::new("nbtest").context("a netns test cannot run here")?;
        let topology = Topology::three_legged(&lab, plan, attach)?;
        Ok(Site { topology, lab })
    }

    pub(crate) fn uplink(&self, number: usize) -> &TopologyUplink {
        &self.topology.uplinks[number]
    }

    pub(crate) fn client(&self) -> &Namespace {
        &self.topology.client
    }

    /// Returns the namespace of the first server.
    pub(crate) fn server(&self) -> &Namespace {
        &self.topology.servers[0].namespace
    }

    /// Returns the first server's address for an uplink.
    pub(crate) fn server_address(&self, uplink: usize) -> Ipv4Addr {
        self.topology.servers[0].addresses[uplink]
    }

    /// Returns a configuration for the box of an uplink, without forwards.
    pub(crate) fn config(&self, uplink: usize) -> BoxConfig {
        self.config_of(uplink..uplink + 1)
    }

    /// Returns a configuration for the one box of all uplinks, without forwards.
    pub(crate) fn three_legged_config(&self) -> BoxConfig {
        self.config_of(0..self.topology.uplinks.len())
    }

    /// Returns a configuration for the one box, over some of the uplinks, without forwards.
    pub(crate) fn three_legged_over(&self, uplinks: Range<usize>) -> BoxConfig {
        BoxConfig { number: 1, ..self.config_of(uplinks) }
    }

    /// Returns a configuration for the one box, over some of the uplinks in this order, without
    /// forwards.
    pub(crate) fn three_legged_of(&self, uplinks: &[usize]) -> BoxConfig {
        let all = self.three_legged_config();
        let uplinks = uplinks.iter().map(|uplink| all.uplinks[*uplink].clone()).collect();
        BoxConfig { uplinks, ..all }
    }

    fn config_of(&self, uplinks: Range<usize>) -> BoxConfig {
        let uplink = |number: usize| {
            let TopologyUplink { interface, published, gateway, .. } = self.uplink(number);
            let name = number + 1;
            format!(
                "{{ name: isp{name}, interface: {interface}, addresses: [{published}], gateway: {gateway} }}"
            )
        };
        BoxConfig {
            number: uplinks.start + 1,
            workers: "auto".into(),
            offload: "auto",
            io: "auto",
            inside: self.uplink(uplinks.start).inside,
            prefix: self.uplink(uplinks.start).prefix.clone(),
            uplinks: uplinks.map(uplink).collect(),
            forwards: Vec::new(),
            outbound: String::new(),
            manage: true,
            state: None,
            // A small table is adopted at once, also by a program that is not optimised.
            sessions: 20_000,
            extra: String::new(),
        }
    }

    /// Returns a configuration that publishes port 80 of the first server.
    pub(crate) fn web_config(&self, uplink: usize) -> BoxConfig {
        self.config(uplink).forward("tcp", 80, self.server_address(uplink), 80)
    }

    /// Starts the box of an uplink and waits until the box is ready.
    pub(crate) fn start(&self, uplink: usize, config: &BoxConfig) -> Result<NatBox> {
        let name = format!("natbox{}", config.number);
        let namespace = &self.uplink(uplink).natbox;
        let mut natbox = NatBox::start(
            Path::new(NATBOX),
            namespace,
            self.lab.directory(),
            &name,
            &config.text(),
        )?;
        natbox.wait_ready(&Interrupt::default())?;
        Ok(natbox)
    }

    /// Removes what a stopped box has left for its next start, and returns the output.
    pub(crate) fn down(&self, config: &BoxConfig) -> Result<String> {
        let file = self.lab.directory().join("down.yaml");
        std::fs::write(&file, config.text())?;
        self.uplink(0).natbox.enter(|| {
            let mut down = Command::new(NATBOX);
            down.args(["down", "-c"]).arg(&file);
            output(down)
        })?
    }

    /// Starts both boxes, which publish port 80 of the first server.
    pub(crate) fn start_web_boxes(&self) -> Result<[NatBox; 2]> {
        Ok([self.start(0, &self.web_config(0))?, self.start(1, &self.web_config(1))?])
    }

    /// Captures an uplink and counts packets that are no replies from the published port 80.
    pub(crate) fn watch(&self, uplink: usize) -> Result<UplinkCapture> {
        self.watch_ports(uplink, &[80])
    }

    /// Does the same for other ports.
    pub(crate) fn watch_ports(
        &self,
        uplink: usize,
        ports: &'static [u16],
    ) -> Result<UplinkCapture> {
        let uplink = self.uplink(uplink);
        let expected = ExpectedReplies {
            sender: uplink.sender,
            own: uplink.outside,
            published: uplink.published,
            ports,
        };
        Ok(UplinkCapture::start(&uplink.provider, expected)?)
    }
}

/// The configuration of one box.
#[derive(Clone)]
pub(crate) struct BoxConfig {
    pub number: usize,
    pub workers: String,
    pub offload: &'static str,
    pub io: &'static str,
    inside: Ipv4Addr,
    prefix: String,
    uplinks: Vec<String>,
    forwards: Vec<String>,
    outbound: String,
    manage: bool,
    /// Directory of the session files; None: sessions end with the process.
    state: Option<PathBuf>,
    /// `limits.sessions` of a box that keeps its sessions.
    sessions: u32,
    extra: String,
}

impl BoxConfig {
    /// Publishes a port. `protocol` is as in the file; for `icmp` the ports are ignored.
    pub(crate) fn forward(
        mut self,
        protocol: &str,
        port: u16,
        to: Ipv4Addr,
        to_port: u16,
    ) -> BoxConfig {
        let number = self.forwards.len();
        self.forwards.push(match protocol {
            "icmp" => format!("{{ name: f{number}, protocol: icmp, to: {to} }}"),
            _ => format!(
                "{{ name: f{number}, protocol: {protocol}, port: {port}, to: \"{to}:{to_port}\" }}"
            ),
        });
        self
    }

    /// Adds a forward, as in the file.
    pub(crate) fn forward_as(mut self, forward: &str) -> BoxConfig {
        self.forwards.push(format!("{{ {forward} }}"));
        self
    }

    /// Adds keys to an uplink, as in the file.
    pub(crate) fn uplink(mut self, uplink: usize, keys: &str) -> BoxConfig {
        self.uplinks[uplink] = self.uplinks[uplink].replace(" }", &format!(", {keys} }}"));
        self
    }

    /// Makes an uplink use the address of its interface (`addresses: interface`).
    pub(crate) fn followed(mut self, uplink: usize) -> BoxConfig {
        let (head, tail) =
            self.uplinks[uplink].split_once("addresses: [").expect("written so above");
        let (_, tail) = tail.split_once(']').expect("written so above");
        self.uplinks[uplink] = format!("{head}addresses: interface{tail}");
        self
    }

    /// Removes the gateway of an uplink, so that the next hop comes from the interface.
    pub(crate) fn without_gateway(mut self, uplink: usize) -> BoxConfig {
        let (head, tail) =
            self.uplinks[uplink].split_once(", gateway: ").expect("written so above");
        let end = tail.find([',', ' ']).expect("more follows");
        self.uplinks[uplink] = format!("{head}{}", &tail[end..]);
        self
    }

    /// Leaves the settings of the host to the test (`host.manage: false`).
    pub(crate) fn unmanaged(self) -> BoxConfig {
        BoxConfig { manage: false, ..self }
    }

    /// Keeps the sessions beyond the process (`state.keep`), in a directory of the test. natbox
    /// mounts nothing there, because the directory exists.
    pub(crate) fn keeping(self, directory: &Path) -> BoxConfig {
        std::fs::create_dir_all(directory).expect("a directory of the test");
        BoxConfig { state: Some(directory.to_owned()), ..self }
    }

    /// Sets `limits.sessions` of a box that keeps its sessions.
    pub(crate) fn sessions(self, sessions: u32) -> BoxConfig {
        BoxConfig { sessions, ..self }
    }

    /// Adds an outbound rule, as in the file.
    pub(crate) fn outbound(mut self, rule: &str) -> BoxConfig {
        self.outbound.push_str(&format!("  - {{ {rule} }}\n"));
        self
    }

    /// Adds a key of the top level, as in the file.
    pub(crate) fn extra(mut self, key: &str) -> BoxConfig {
        self.extra.push_str(key);
        self.extra.push('\n');
        self
    }

    pub(crate) fn text(&self) -> String {
        let BoxConfig {
            number,
            workers,
            offload,
            io,
            inside,
            prefix,
            uplinks,
            forwards,
            outbound,
            manage,
            state,
            sessions,
            extra,
        } = self;
        let all = format!("  - {{ from: {prefix} }}\n");
        let outbound = if outbound.is_empty() { &all } else { outbound };
        let forwards = match forwards.as_slice() {
            [] => String::new(),
            some => format!("forwards:\n  - {}\n", some.join("\n  - ")),
        };
        let state = state.as_ref().map_or_else(String::new, |directory| {
            let directory = directory.display();
            format!(
                "state: {{ keep: true, directory: {directory} }}\n\
                 limits: {{ sessions: {sessions} }}\n"
            )
        });
        format!(
            "name: natbox{number}\n\
             tun: {{ name: nb{number}, workers: {workers}, offload: {offload}, io: {io} }}\n\
             inside: {{ interface: lan0, address: {inside}, prefixes: [{prefix}] }}\n\
             uplinks:\n  - {}\n\
             {forwards}\
             outbound:\n{outbound}\
             host: {{ manage: {manage} }}\n{state}{extra}",
            uplinks.join("\n  - ")
        )
    }
}

/// Listens in a namespace.
pub(crate) fn listen(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    bind(namespace, || TcpListener::bind((address, port)))
        .with_context(|| format!("bind {address}:{port}"))
}

/// Binds a socket in a namespace. Waits while the port is in use: a process that another test is
/// starting may hold a closed socket for a moment.
fn bind<T: Send>(
    namespace: &Namespace,
    bind: impl Fn() -> std::io::Result<T> + Send + Sync,
) -> Result<T> {
    wait_for("the port", || match namespace.enter(&bind)? {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(None),
        bound => Ok(Some(bound?)),
    })
}

/// Waits until `condition` has a value.
pub(crate) fn wait_for<T>(
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", TIMEOUT.as_secs());
        }
        thread::sleep(POLL);
    }
}

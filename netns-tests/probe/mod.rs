//! The packet-level probe: one real `natbox run` between two wires whose other ends the test holds.
//!
//! ```text
//!   outside   E1, E2, Rx: no host has these addresses; the test writes and reads their packets
//!     │  TAP wan0   203.0.113.1/24, next hop 203.0.113.254
//!    box      natbox run; external addresses G, G2, routed to the box
//!     │  TAP lan0   10.0.0.1/24
//!   inside    S1, S2, .., the private router Rp: the test's as well
//! ```
//!
//! A setup may have a second uplink, TAP wan1, 198.18.0.1/24, next hop 198.18.0.254. Its external
//! address is G2.
//!
//! No other kernel is on the wires, so that every reply comes from the test. The oracle checks
//! every packet that is read (see [`wire`]). After a silence the test sends a packet that must
//! pass, so that a stopped box cannot pass a test.

mod carried;
mod packets;
mod seen;
pub(crate) mod setup;
mod spray;
mod talk;
mod wire;

pub(crate) use carried::assert_carried;
pub(crate) use packets::{cut, segment, syn, tuple, udp, with};
pub(crate) use seen::Seen;
pub(crate) use setup::Setup;
pub(crate) use spray::spray;
pub(crate) use talk::{Connection, SYN_ACK};
pub(crate) use wire::Wire;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use natbox::api::Status;
use natbox::lab::{Lab, Namespace};
use natbox::packet::{Endpoint, Protocol, builder};

use crate::single_box::{RunningBox, eventually};

/// Private hosts.
pub(crate) const S1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub(crate) const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
pub(crate) const S3: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);
/// A private router.
pub(crate) const RP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// Address of the box on the private network.
pub(crate) const BOX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// External addresses of the box.
pub(crate) const G: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const G2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Outside hosts.
pub(crate) const E1: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const E2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A router on the way to them.
pub(crate) const RX: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// Published endpoint of [`S1`]:80, TCP and UDP.
pub(crate) const F: Endpoint = Endpoint::new(G, 8080);
/// Target of [`F`].
pub(crate) const F_TARGET: Endpoint = Endpoint::new(S1, 80);

/// The box and the wires.
pub(crate) struct Probe {
    pub inside: Wire,
    pub outside: Wire,
    second: Option<Wire>,
    pub natbox: Namespace,
    pub setup: Setup,
    path: PathBuf,
    running: Cell<Option<RunningBox>>,
    beats: Cell<u16>,
    lab: Lab,
}

impl Probe {
    /// Makes the wires and starts the box.
    pub(crate) fn start(setup: Setup) -> Probe {
        let probe = Probe::prepare(setup);
        probe.launch();
        probe
    }

    /// Starts the box with a small pipe as standard error that no process reads.
    pub(crate) fn start_unread(setup: Setup) -> Probe {
        let probe = Probe::prepare(setup);
        let fifo = probe.lab.directory().join("unread");
        let script = format!("mkfifo {0} && exec 9<>{0} && exec \"$@\" 2>&9", fifo.display());
        let socket = probe.lab.directory().join("natbox.sock");
        let before = ["sh", "-c", &script, "sh"];
        probe.running.set(Some(RunningBox::launch_behind(
            &before,
            &probe.natbox,
            "natbox",
            &probe.path,
            &socket,
        )));
        probe
    }

    fn prepare(setup: Setup) -> Probe {
        let lab = Lab::new("nbprobe").unwrap();
        let natbox = lab.namespace("box").unwrap();
        let [wan, lan] = setup.mtu;
        natbox.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let outside = Wire::new(&natbox, "wan0", Ipv4Addr::new(203, 0, 113, 1), wan, 1);
        let inside = Wire::new(&natbox, "lan0", BOX, lan, 0);
        let second = |mtu| Wire::new(&natbox, "wan1", Ipv4Addr::new(198, 18, 0, 1), mtu, 2);
        let second = setup.second.map(second);
        natbox.route("default", Ipv4Addr::new(203, 0, 113, 254)).unwrap();
        let path = lab.directory().join("natbox.yaml");
        let probe = Probe {
            inside,
            outside,
            second,
            natbox,
            setup,
            path,
            running: Cell::new(None),
            beats: Cell::new(0),
            lab,
        };
        probe.write(&probe.setup);
        probe
    }

    /// Starts the box with the default setup.
    pub(crate) fn plain() -> Probe {
        Probe::start(Setup::new())
    }

    /// Starts the box again after [`Probe::kill`].
    pub(crate) fn launch(&self) {
        let socket = self.lab.directory().join("natbox.sock");
        self.running.set(Some(RunningBox::launch(&self.natbox, "natbox", &self.path, &socket)));
    }

    /// Replaces the configuration file of the box.
    pub(crate) fn write(&self, setup: &Setup) {
        std::fs::write(&self.path, setup.text(&self.lab.directory().join("natbox.sock"))).unwrap();
    }

    /// Kills the box without a clean-up.
    pub(crate) fn kill(&self) {
        self.running.take().unwrap().kill();
    }

    /// Runs `work` with the process.
    pub(crate) fn with_box<T>(&self, work: impl FnOnce(&RunningBox) -> T) -> T {
        let running = self.running.take().expect("a running box");
        let outcome = work(&running);
        self.running.set(Some(running));
        outcome
    }

    pub(crate) fn status(&self) -> Status {
        self.with_box(RunningBox::status)
    }

    /// Returns the number of packets dropped so far for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.status().drops.get(reason).copied().unwrap_or(0)
    }

    /// Asserts the number of packets dropped so far for a reason, once the workers have published
    /// their counters.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, reason: &str, count: u64) {
        eventually(reason, || (self.dropped(reason) >= count).then_some(()));
        assert_eq!(self.dropped(reason), count, "{reason}");
    }

    /// Returns the number of live sessions.
    pub(crate) fn sessions(&self) -> u32 {
        self.status().sessions.now
    }

    /// Returns the resident memory of the process, in kilobytes.
    pub(crate) fn resident(&self) -> u64 {
        self.with_box(RunningBox::resident)
    }

    /// Returns the wire of the second uplink.
    #[track_caller]
    pub(crate) fn second(&self) -> &Wire {
        self.second.as_ref().expect("a setup with a second uplink")
    }

    /// Returns the log of the box.
    pub(crate) fn log(&self) -> String {
        self.with_box(|running| running.process.log())
    }

    /// Asserts that nothing arrives outside for a while, and that the box works.
    #[track_caller]
    pub(crate) fn silence_outside(&self) {
        self.outside.assert_silent();
        self.assert_alive();
    }

    /// Asserts that nothing arrives on any side for a while, and that the box works.
    #[track_caller]
    pub(crate) fn silence(&self) {
        self.outside.assert_silent();
        self.inside.assert_none();
        self.second.iter().for_each(Wire::assert_none);
        self.assert_alive();
    }

    /// Asserts that a packet to the heartbeat port arrives, and no other packet before it.
    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        // Each heartbeat has another payload and costs at most one session.
        self.beats.set(self.beats.get() + 1);
        let beat = self.beats.get();
        let tuple = builder::tuple(Protocol::UDP, (RX, 7), (G, setup::HEARTBEAT));
        self.outside.send(&builder::udp(tuple, &beat.to_be_bytes()));
        let seen = self.inside.expect("the heartbeat");
        assert_eq!(
            seen.destination(),
            Endpoint::new(setup::HEART, setup::HEARTBEAT),
            "instead of the heartbeat: {seen:?}"
        );
        assert_eq!(seen.payload(), beat.to_be_bytes());
    }
}

/// Makes an endpoint.
pub(crate) const fn at(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint::new(address, port)
}

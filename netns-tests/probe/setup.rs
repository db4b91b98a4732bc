//! The configuration of a probe's box.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// A port that every setup publishes, for [`super::Probe::assert_alive`].
pub(crate) const HEARTBEAT: u16 = 65_000;
/// Target of the heartbeat port.
pub(crate) const HEART: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 250);

/// The environment variable that names the variant: offload and workers, such as `none-1`.
pub(crate) const VARIANT: &str = "NATBOX_VARIANT";

/// Returns the variant for tests that do not choose one; `auto-2` without the environment variable.
pub(crate) fn variant() -> (String, u16) {
    let variant = std::env::var(VARIANT).unwrap_or_else(|_| "auto-2".to_owned());
    let (offload, workers) =
        variant.split_once('-').expect("NATBOX_VARIANT is OFFLOAD-WORKERS, such as none-1");
    (offload.to_owned(), workers.parse().expect("NATBOX_VARIANT ends with the number of workers"))
}

/// A configuration in the making. The methods take text as it stands between the braces in YAML.
#[derive(Clone)]
pub(crate) struct Setup {
    /// MTU of wan0 and lan0.
    pub mtu: [u16; 2],
    /// MTU of wan1, if there is a second uplink.
    pub second: Option<u16>,
    addresses: &'static str,
    offload: String,
    workers: u16,
    forwards: Vec<String>,
    outbound: Vec<&'static str>,
    nat: Vec<String>,
    timeouts: Vec<String>,
    limits: Vec<String>,
    log: Vec<String>,
    more: String,
}

impl Setup {
    /// Makes the setup of the conformance table: G, the forwards F and FR, and outbound for all
    /// inside hosts.
    pub(crate) fn new() -> Setup {
        let (offload, workers) = variant();
        Setup {
            mtu: [1500, 1500],
            second: None,
            addresses: "192.0.2.1",
            offload,
            workers,
            forwards: vec![
                "{ name: f, protocol: tcp+udp, port: 8080, address: 192.0.2.1, to: '10.0.0.11:80' }".into(),
                "{ name: fr, protocol: tcp+udp, port: 9000-9015, address: 192.0.2.1, to: '10.0.0.12:7000' }"
                    .into(),
            ],
            outbound: vec!["{ from: 10.0.0.0/24 }"],
            nat: Vec::new(),
            timeouts: Vec::new(),
            limits: vec!["sessions: 64k".into()],
            log: vec!["level: info".into()],
            more: String::new(),
        }
    }

    /// Adds G2.
    pub(crate) fn pool(self) -> Setup {
        Setup { addresses: "192.0.2.1-2", ..self }
    }

    /// Sets the external addresses.
    pub(crate) fn addresses(self, addresses: &'static str) -> Setup {
        Setup { addresses, ..self }
    }

    /// Adds a second uplink with its own MTU and G2, which publishes F's server. Outbound sessions
    /// use the first uplink.
    pub(crate) fn second_uplink(self, mtu: u16) -> Setup {
        let setup = Setup { second: Some(mtu), ..self };
        setup
            .forward(
                "name: f2, protocol: tcp+udp, port: 8080, address: 192.0.2.2, to: '10.0.0.11:80'",
            )
            .outbound(&["{ from: 10.0.0.0/24, uplinks: [isp] }"])
    }

    /// Sets the MTU of the two interfaces.
    pub(crate) fn mtu(self, wan: u16, lan: u16) -> Setup {
        Setup { mtu: [wan, lan], ..self }
    }

    /// Sets the number of workers.
    pub(crate) fn workers(self, workers: u16) -> Setup {
        Setup { workers, ..self }
    }

    /// Adds a forward, such as `protocol: any, address: 192.0.2.2, to: 10.0.0.12`.
    pub(crate) fn forward(mut self, forward: &str) -> Setup {
        self.forwards.push(format!("{{ {forward} }}"));
        self
    }

    /// Removes every forward except the heartbeat.
    pub(crate) fn no_forwards(mut self) -> Setup {
        self.forwards.clear();
        self
    }

    /// Replaces the outbound rules.
    pub(crate) fn outbound(mut self, rules: &[&'static str]) -> Setup {
        self.outbound = rules.to_vec();
        self
    }

    /// Adds keys of `nat`.
    pub(crate) fn nat(mut self, keys: &str) -> Setup {
        self.nat.push(keys.to_owned());
        self
    }

    /// Adds keys of `timeouts`.
    pub(crate) fn timeouts(mut self, keys: &str) -> Setup {
        self.timeouts.push(keys.to_owned());
        self
    }

    /// Adds keys of `limits`. `sessions` must come first.
    pub(crate) fn limits(mut self, keys: &str) -> Setup {
        if keys.starts_with("sessions:") {
            self.limits.clear();
        }
        self.limits.push(keys.to_owned());
        self
    }

    /// Adds keys of `log`.
    pub(crate) fn log(mut self, keys: &str) -> Setup {
        self.log.push(keys.to_owned());
        self
    }

    /// Returns the file's text.
    pub(super) fn text(&self, socket: &Path) -> String {
        let mut text = format!(
            "name: natbox
tun: {{ name: nb0, workers: {}, offload: {} }}
inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}
uplinks:
  - {{ name: isp, interface: wan0, addresses: [{}], gateway: 203.0.113.254 }}
{}admin: {{ socket: '{}' }}
forwards:
  - {{ name: heartbeat, protocol: udp, port: {HEARTBEAT}, address: 192.0.2.1, to: '{HEART}:{HEARTBEAT}' }}
",
            self.workers,
            self.offload,
            self.addresses,
            match self.second {
                Some(_) => {
                    "  - { name: isp2, interface: wan1, addresses: [192.0.2.2], gateway: 198.18.0.254 }\n"
                }
                None => "",
            },
            socket.display()
        );
        for forward in &self.forwards {
            let _ = writeln!(text, "  - {forward}");
        }
        if !self.outbound.is_empty() {
            let _ = writeln!(text, "outbound:\n  - {}", self.outbound.join("\n  - "));
        }
        for (section, keys) in [
            ("nat", &self.nat),
            ("timeouts", &self.timeouts),
            ("limits", &self.limits),
            ("log", &self.log),
        ] {
            let _ = writeln!(text, "{section}: {{ {} }}", keys.join(", "));
        }
        text + &self.more
    }
}

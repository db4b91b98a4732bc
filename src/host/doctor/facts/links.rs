//! What is looked at on any interface that packets pass, and what is thought of it.

use std::process::Command;

use crate::host::doctor::Finding;
use crate::host::kernel::sysctl;

/// What was found on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) interface: String,
    /// Bytes of the largest IP packet.
    pub(crate) mtu: u32,
    /// The greater of its own value and that of `all`: 0 off, 1 strict, 2 loose.
    pub(crate) rp_filter: u8,
    pub(crate) offloads: Offloads,
    /// It is a network card, real or emulated; between namespaces whole super-packets pass whatever is set.
    pub(crate) card: bool,
}

/// Of `ethtool -k`; None: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offloads {
    pub(crate) lro: Option<bool>,
    pub(crate) gro: Option<bool>,
    pub(crate) tso: Option<bool>,
    /// Why it could not be asked.
    pub(crate) not_looked: Option<String>,
}

impl Leg {
    pub(crate) fn look(interface: &str, mtu: u32) -> Self {
        Self {
            interface: interface.into(),
            mtu,
            rp_filter: rp_filter(interface),
            offloads: Offloads::look(interface),
            card: std::path::Path::new("/sys/class/net").join(interface).join("device").exists(),
        }
    }
}

/// The value that counts on an interface (Documentation/networking/ip-sysctl.rst).
pub(crate) fn rp_filter(interface: &str) -> u8 {
    let of = |name: &str| {
        let value = sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter")).ok().flatten();
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    of("all").max(of(interface))
}

impl Offloads {
    fn look(interface: &str) -> Self {
        match Command::new("ethtool").args(["-k", interface]).output() {
            Ok(output) if output.status.success() => {
                Self::parse(&String::from_utf8_lossy(&output.stdout))
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let why = format!("ethtool: {}", said.lines().next().unwrap_or("failed").trim());
                Self { not_looked: Some(why), ..Self::default() }
            }
            Err(error) => Self {
                not_looked: Some(format!("ethtool cannot be started ({error})")),
                ..Self::default()
            },
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let of = |name: &str| {
            let value =
                text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "))?;
            Some(value.starts_with("on"))
        };
        Self {
            lro: of("large-receive-offload"),
            gro: of("generic-receive-offload"),
            tso: of("tcp-segmentation-offload"),
            not_looked: None,
        }
    }
}

/// What is thought of the offloads. `forwards`: packets are forwarded between the interfaces.
pub(crate) fn offload_checks(legs: &[Leg], forwards: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Leg { interface, offloads, card, .. } in legs {
        if let Some(why) = &offloads.not_looked {
            findings.push(
                Finding::warning(
                    "offloads",
                    format!("{interface}: not looked at: {why}"),
                    "large receive offload spoils forwarded packets",
                )
                .advice("install ethtool, and see: ethtool -k"),
            );
            continue;
        }
        if forwards && offloads.lro == Some(true) {
            let why = "it joins packets in a way that cannot be undone, so that forwarded ones are too long and get lost";
            findings.push(
                Finding::error(
                    "offloads",
                    format!("{interface} has large receive offload (LRO) on"),
                    why,
                )
                .fix([format!("ethtool -K {interface} lro off")]),
            );
        }
        let slow: Vec<&str> = [("gro", offloads.gro), ("tso", offloads.tso)]
            .iter()
            .filter_map(|(name, on)| (*on == Some(false)).then_some(*name))
            .collect();
        if *card && !slow.is_empty() {
            let why = "TCP goes through natbox packet by packet instead of up to 64 KB at a time, several times as slow";
            let commands = slow.iter().map(|name| format!("ethtool -K {interface} {name} on"));
            findings.push(
                Finding::warning(
                    "offloads",
                    format!("{interface} has {} off", slow.join(" and ")),
                    why,
                )
                .fix(commands),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "offloads",
            if forwards {
                "LRO is off, and no card has GRO or TSO off"
            } else {
                "no card has GRO or TSO off"
            },
        ));
    }
    findings
}

//! Settings of one interface: MTU, source filter and offloads.

use std::path::Path;
use std::process::Command;

use crate::host::kernel::sysctl;
use crate::host::model::snapshot::Link;

/// Settings of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkSettings {
    /// Interface name.
    pub(crate) interface: String,
    /// Size of the largest IP packet, in bytes.
    pub(crate) mtu: u32,
    /// Effective source filter, the greater of the interface's value and that of `all`: 0 off, 1
    /// strict, 2 loose.
    pub(crate) rp_filter: u8,
    pub(crate) offloads: Offloads,
    /// True for a network card, real or emulated. Between namespaces super-packets pass whatever
    /// the offloads are.
    pub(crate) is_network_card: bool,
}

/// Offloads as `ethtool -k` prints them; None where ethtool does not list one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offloads {
    pub(crate) lro: Option<bool>,
    pub(crate) gro: Option<bool>,
    pub(crate) tso: Option<bool>,
    /// Reason why ethtool gave no answer.
    pub(crate) unreadable: Option<String>,
}

impl LinkSettings {
    pub(super) fn read(link: &Link) -> Self {
        let interface = link.name.as_str();
        Self {
            interface: interface.into(),
            mtu: link.mtu,
            rp_filter: rp_filter(interface),
            offloads: Offloads::read(interface),
            is_network_card: Path::new("/sys/class/net").join(interface).join("device").exists(),
        }
    }
}

/// Returns the effective source filter (Documentation/networking/ip-sysctl.rst).
fn rp_filter(interface: &str) -> u8 {
    let of = |name: &str| {
        let value = sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter")).ok().flatten();
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    of("all").max(of(interface))
}

impl Offloads {
    fn read(interface: &str) -> Self {
        match Command::new("ethtool").args(["-k", interface]).output() {
            Ok(output) if output.status.success() => {
                Self::parse(&String::from_utf8_lossy(&output.stdout))
            }
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr);
                let first = message.lines().next().unwrap_or("failed").trim();
                Self { unreadable: Some(format!("ethtool: {first}")), ..Self::default() }
            }
            Err(error) => Self {
                unreadable: Some(format!("ethtool cannot be started ({error})")),
                ..Self::default()
            },
        }
    }

    /// Reads the output of `ethtool -k`.
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
            unreadable: None,
        }
    }
}

//! Sysctls of the host that decide which steps natbox needs.

use crate::config::{Config, PortRange};

/// Values that natbox reads before it plans the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KernelSettings {
    /// Ports that the host's own connections take (`ip_local_port_range`).
    pub(crate) ephemeral_ports: PortRange,
    /// `net.ipv4.conf.all.rp_filter`.
    pub(crate) rp_filter_all: u8,
}

impl KernelSettings {
    /// The kernel's default for `ip_local_port_range` (net/ipv4/af_inet.c).
    pub(crate) const DEFAULT_EPHEMERAL_PORTS: PortRange = PortRange { first: 32768, last: 60999 };

    /// Returns the values to assume when natbox cannot read the host: source filters are strict.
    pub(crate) fn assumed() -> Self {
        Self { ephemeral_ports: Self::DEFAULT_EPHEMERAL_PORTS, rp_filter_all: 1 }
    }
}

/// Lists the interfaces of a configuration without repeats, the inside legs first.
pub(crate) fn interface_names(config: &Config) -> Vec<&str> {
    let mut names: Vec<&str> =
        config.inside.legs.iter().map(|leg| leg.interface.as_str()).collect();
    for uplink in &config.uplinks {
        if !names.contains(&uplink.interface.as_str()) {
            names.push(&uplink.interface);
        }
    }
    names
}

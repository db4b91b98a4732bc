//! Sysctls of the host that decide which steps natbox needs.

use std::collections::BTreeSet;

use crate::config::{Config, PortRange};

/// Values that natbox reads before it plans the steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KernelSettings {
    /// Ports that the host's own connections take (`ip_local_port_range`).
    pub(crate) ephemeral_ports: PortRange,
    /// `net.ipv4.conf.all.rp_filter`.
    pub(crate) rp_filter_all: u8,
    /// Interfaces with forwarding off while `ip_forward` is on. The name `default` stands for new
    /// interfaces.
    pub(crate) forwarding_off: BTreeSet<String>,
}

impl KernelSettings {
    /// The kernel's default for `ip_local_port_range` (net/ipv4/af_inet.c).
    pub(crate) const DEFAULT_EPHEMERAL_PORTS: PortRange = PortRange { first: 32768, last: 60999 };
    /// The name under which the kernel keeps the settings of new interfaces.
    pub(crate) const NEW_INTERFACES: &str = "default";

    /// Returns the values to assume when natbox cannot read the host: source filters are strict.
    pub(crate) fn assumed() -> Self {
        Self {
            ephemeral_ports: Self::DEFAULT_EPHEMERAL_PORTS,
            rp_filter_all: 1,
            forwarding_off: BTreeSet::new(),
        }
    }

    pub(crate) fn is_forwarding_off(&self, interface: &str) -> bool {
        self.forwarding_off.contains(interface)
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

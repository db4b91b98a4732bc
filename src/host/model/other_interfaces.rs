//! Interfaces of the host that the configuration does not name, and that answer ARP.
//!
//! Such an interface may be on the segment of an uplink or of an inside leg. By default the kernel
//! answers on it for every address of the host, so packets to a published address arrive on an
//! interface where natbox's rules do not expect them.

use super::settings::interface_names;
use super::snapshot::Link;
use crate::config::Config;

/// An interface that the configuration does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherInterface {
    /// Name of the interface.
    pub(crate) name: String,
    /// Index, which a new interface of the same name does not have.
    pub(crate) index: u32,
}

/// Lists the other Ethernet interfaces that use ARP.
pub(crate) fn other_interfaces(config: &Config, links: &[Link]) -> Vec<OtherInterface> {
    let own = interface_names(config);
    let answers = |link: &&Link| {
        let is_own = own.contains(&link.name.as_str()) || link.name == config.tun.name;
        link.arp && link.hardware.is_some() && !link.is_port() && !is_own
    };
    let answering = links.iter().filter(answers);
    answering.map(|link| OtherInterface { name: link.name.clone(), index: link.index }).collect()
}

//! Which interface answers ARP for an address of the host.

use super::planner::{StepPlanner, sysctl};
use crate::host::model::facts::InterfaceFacts;
use crate::host::model::presence::InterfaceState;
use crate::host::model::step::Step;

impl StepPlanner<'_> {
    /// Ties ARP to the interface that has the address.
    ///
    /// By default the kernel answers for each of the host's addresses on every interface. If two
    /// interfaces are on one segment, both answer, and the one that answers first gets the packets.
    /// An uplink's interface drops packets to the addresses of the others.
    ///
    /// * `arp_ignore` 1, on the uplinks: an interface answers for its own addresses only, and for
    ///   those of its proxy entries.
    /// * `arp_filter` 1, inside: the interface answers only where it has the route back. Unlike
    ///   `arp_ignore`, this lets inside hosts reach an address on another interface (a name server
    ///   on `lo`).
    /// * `arp_ignore` 1, on every other Ethernet interface of the host: such an interface may be on
    ///   the segment of an uplink, and no rule of natbox's expects packets from it. `arp_filter`
    ///   would keep an interface from answering even for its own address, if another interface of
    ///   the same network has the preferred route.
    /// * `arp_announce` 2, everywhere: an ARP request has an address of its own interface as
    ///   sender. Otherwise a request for a packet that natbox forwards could carry another uplink's
    ///   address or the inside address, and the segment would learn the wrong hardware address.
    ///
    /// A host cannot tell whether two of its interfaces are on one segment, so the settings do not
    /// depend on it.
    pub(super) fn arp(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let present = |facts: &&InterfaceFacts| facts.arp && facts.state != InterfaceState::Missing;
        let uplinks = self.facts.uplinks.iter().filter(present);
        let legs = self.facts.legs.iter().filter(present);
        let uplinks = uplinks.map(|facts| (&facts.interface, "arp_ignore"));
        let legs = legs.map(|facts| (&facts.interface, "arp_filter"));
        let others = self.facts.other_interfaces.iter().map(|other| (&other.name, "arp_ignore"));
        for (interface, key) in uplinks.chain(legs).chain(others) {
            steps.push(sysctl(format!("net/ipv4/conf/{interface}/{key}"), 1));
            steps.push(sysctl(format!("net/ipv4/conf/{interface}/arp_announce"), 2));
        }
        let mut unique = Vec::new();
        for step in steps {
            if !unique.contains(&step) {
                unique.push(step);
            }
        }
        unique
    }
}

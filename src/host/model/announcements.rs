//! The addresses that natbox announces by ARP: those for which the box answers on a segment.

use std::net::Ipv4Addr;

use super::facts::{HostFacts, InterfaceFacts};
use super::presence::InterfaceState;
use crate::config::Config;

/// An address, and the hardware address by which its segment reaches it.
///
/// A router or a server of the segment may still know the hardware address of a box that had the
/// address before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Announcement {
    pub(crate) address: Ipv4Addr,
    /// Hardware address of the interface.
    pub(crate) hardware: [u8; 6],
    /// Interface name.
    pub(crate) interface: String,
    /// Interface index.
    pub(crate) index: u32,
}

impl HostFacts {
    /// Lists the addresses to announce, without repeats: on every Ethernet interface the host's
    /// own addresses, and on an uplink the external addresses on its segment.
    ///
    /// An external address beyond the segment comes by way of an address of the interface.
    pub(crate) fn announcements(&self, config: &Config) -> Vec<Announcement> {
        let mut found: Vec<Announcement> = self.legs.iter().flat_map(own_addresses).collect();
        let places = config.uplinks.iter().zip(&self.uplinks).enumerate();
        for (place, (uplink, facts)) in places {
            found.extend(own_addresses(facts));
            let flags = self.assigned_to_host[place].iter().zip(&self.on_link[place]);
            let external = uplink.addresses.iter().zip(flags);
            let here = external.filter(|(_, (assigned, on_link))| **assigned || **on_link);
            found.extend(here.filter_map(|(address, _)| announcement(facts, *address)));
        }
        found.sort_by(|a, b| (&a.interface, a.address).cmp(&(&b.interface, b.address)));
        found.dedup();
        found
    }
}

fn own_addresses(facts: &InterfaceFacts) -> impl Iterator<Item = Announcement> {
    facts.addresses.iter().filter_map(|address| announcement(facts, *address))
}

/// Makes an announcement; None on an interface without ARP or without a peer.
fn announcement(facts: &InterfaceFacts, address: Ipv4Addr) -> Option<Announcement> {
    let is_usable = facts.arp && facts.state == InterfaceState::Up;
    let hardware = facts.hardware.filter(|_| is_usable)?;
    let (interface, index) = (facts.interface.clone(), facts.index);
    Some(Announcement { address, hardware, interface, index })
}

//! Interfaces that send their packets through another interface of the host.
//!
//! ```text
//!   wan1, a MACVLAN of wan0 ─ egress of wan1 ─ egress of wan0 ─ wire
//!   br0 with the port wan0 ─ egress of br0 ─ egress of wan0 ─ wire
//! ```
//!
//! What is right on the upper interface is right on the lower one. An interface of a VLAN does not
//! count, because its packets have a tag. A tunnel does not count, because its packets have another
//! header.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::snapshot::{Link, Snapshot};

/// An interface above another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackedInterface {
    /// Interface name.
    pub(crate) name: String,
    /// Hardware address of its packets, which no packet of the lower interface has; None if both
    /// may have the same.
    pub(crate) hardware: Option<[u8; 6]>,
    /// Addresses of the interface.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// The networks of these addresses.
    pub(crate) networks: Vec<Ipv4Net>,
    /// Its private IPv6 networks.
    pub(crate) private_ipv6: Vec<Ipv6Net>,
}

/// Lists the interfaces above an interface, directly or through others.
pub(super) fn interfaces_above(lower: &Link, snapshot: &Snapshot) -> Vec<StackedInterface> {
    let above = links_above(lower, &snapshot.links).into_iter();
    let stacked = above.map(|link| StackedInterface {
        name: link.name.clone(),
        hardware: own_hardware(link, lower),
        addresses: snapshot.addresses_of(link).map(|found| found.address).collect(),
        networks: snapshot.addresses_of(link).map(|found| found.network).collect(),
        private_ipv6: snapshot.private_ipv6_of(link),
    });
    stacked.collect()
}

/// Lists the interfaces above these interfaces, each with its index, its hardware address and the
/// interface below.
pub(crate) fn stacks(names: &[&str], links: &[Link]) -> Vec<(u32, Option<[u8; 6]>, u32)> {
    let lower = links.iter().filter(|link| names.contains(&link.name.as_str()));
    let above = lower.flat_map(|lower| {
        let above = links_above(lower, links).into_iter();
        above.map(|link| (link.index, link.hardware, lower.index))
    });
    above.collect()
}

fn links_above<'l>(lower: &Link, links: &'l [Link]) -> Vec<&'l Link> {
    let mut found: Vec<&Link> = Vec::new();
    let mut next = vec![(lower.index, lower.controller)];
    while let Some((index, controller)) = next.pop() {
        let is_above = |link: &&Link| link.lower == Some(index) || controller == Some(link.index);
        for link in links.iter().filter(is_above) {
            let mut known = found.iter().map(|known| known.index).chain([lower.index]);
            if !known.any(|known| known == link.index) {
                found.push(link);
                next.push((link.index, link.controller));
            }
        }
    }
    found
}

/// Returns the hardware address that tells packets of an upper interface from those of the lower
/// one. An IPVLAN has none. A port of a bridge or of a bond may send with the address of either.
fn own_hardware(link: &Link, lower: &Link) -> Option<[u8; 6]> {
    link.hardware.filter(|_| link.lower.is_some() && link.hardware != lower.hardware)
}

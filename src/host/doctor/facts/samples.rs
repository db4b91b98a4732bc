//! Addresses that stand for hosts on the Internet, and for inside hosts.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Config, InsideLeg};
use crate::host::model::snapshot::Snapshot;

/// Documentation prefixes (RFC 5737), then two well-known hosts. At least one of them is outside
/// all local networks.
pub(crate) const OUTSIDE_SAMPLES: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
    Ipv4Addr::new(9, 9, 9, 9),
    Ipv4Addr::new(1, 0, 0, 1),
];

/// Chooses an address that neither the host's networks nor the configuration contain.
pub(super) fn sample_outside_address(config: &Config, snapshot: &Snapshot) -> Option<Ipv4Addr> {
    let mut known: Vec<Ipv4Net> = config.inside.prefixes().collect();
    known.extend(config.no_nat.iter().map(|rule| rule.to));
    // A VPN routes the whole Internet as two halves. Such a prefix is not a local network.
    let networks = snapshot.links.iter().flat_map(|link| snapshot.on_link(link));
    known.extend(networks.filter(|network| network.prefix_len() > 1));
    let is_outside = |address: &Ipv4Addr| !known.iter().any(|network| network.contains(address));
    OUTSIDE_SAMPLES.into_iter().find(is_outside)
}

/// Chooses an address that stands for the hosts on the segment of an inside leg; None when the
/// interface is not up or has no network of the leg's prefixes.
pub(super) fn sample_inside_host(leg: &InsideLeg, snapshot: &Snapshot) -> Option<Ipv4Addr> {
    let link = snapshot.link(&leg.interface).filter(|link| link.carrier)?;
    let networks = snapshot.on_link(link).into_iter();
    let mut hosts = networks.flat_map(|network| network.hosts().take(MAX_OWN_ADDRESSES));
    hosts.find(|host| leg.prefix_of(*host).is_some() && !snapshot.has_address(*host))
}

/// Addresses of a network that are looked at: the first ones may be the host's own.
const MAX_OWN_ADDRESSES: usize = 64;

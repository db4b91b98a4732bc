//! The filter that keeps wrong addresses off the uplinks (`host.block_private`).
//!
//! ```text
//!   out by wan0 ─ source of the uplink isp2 by wan1 ─ sent by wan1 to the next hop of isp2
//!               ─ source in CLOSED(wan0) or OTHERS(wan0) ─ dropped
//!   in by wan0 ─ destination in CLOSED(wan0) ─ dropped
//!   CLOSED(wan0) = private addresses without the networks of wan0, and the inside prefixes;
//!                  without the addresses of wan0 and of its uplinks
//!   OTHERS(wan0) = external addresses of the uplinks of other interfaces;
//!                  without the addresses of wan0 and of its uplinks, and those of the host
//! ```
//!
//! The packets of an interface above wan0, such as a MACVLAN of wan0, pass wan0 as well. They pass
//! its filter by the hardware address of that interface. If both have one hardware address, wan0
//! also passes what belongs on the upper interface: the addresses of an uplink, or packets between
//! the networks of another interface and any address.
//!
//! The rules and routes of natbox lead packets of the inside past no uplink untranslated. The
//! filter covers what they cannot cover: other private networks of the host, and programs that
//! choose an interface or write IP headers themselves. The filter looks at packets as they are on
//! the wire: after the kernel's own NAT on the way out, before it on the way in.
//!
//! natbox does not translate IPv6. On the way out the filter also drops packets with private IPv6
//! sources, other than those of the interface's own networks.
//!
//! While another program keeps natbox's rules away, packets with an address of one uplink take the
//! host's default route, which may be another uplink. The filter sends them by their own uplink, so
//! the replies of the host's own services need no rule. Where it cannot, it drops those of natbox
//! and passes those of the host: without natbox, the host would send them as well.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::facts::{HostFacts, InterfaceFacts};
use super::presence::InterfaceState;
use crate::config::Config;

/// First part of the names of natbox's tables of nftables. The name of the TUN follows.
pub(crate) const TABLE_PREFIX: &str = "natbox-";

/// Names the table of the instance with this TUN device.
pub(crate) fn table(tun: &str) -> String {
    format!("{TABLE_PREFIX}{tun}")
}

/// Identifier of the finding that the filter cannot be set.
pub(crate) const FINDING: &str = "private-filter";

/// Addresses that no host on the Internet has: private ones (RFC 1918), those of carriers (RFC
/// 6598), link-local ones (RFC 3927) and loopback (RFC 1122 section 3.2.1.3).
pub(super) const PRIVATE: [Ipv4Net; 6] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Private IPv6 addresses: unique local ones (RFC 4193), and site-local ones (RFC 3879). Link-local
/// addresses and the unspecified one belong to neighbour discovery and DHCPv6, and no router
/// forwards them.
pub(crate) const PRIVATE_IPV6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// The filter of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrivateFilter {
    /// The interfaces of the uplinks.
    pub(crate) interfaces: Vec<FilteredInterface>,
    /// The ways out by uplinks with a next hop.
    pub(crate) ways_out: Vec<WayOut>,
    /// Inside prefixes.
    pub(crate) inside: Vec<AddressRange>,
    /// Destinations that inside hosts reach without translation. Packets between them and the
    /// inside pass.
    pub(crate) no_nat: Vec<AddressRange>,
}

/// An interface of an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilteredInterface {
    pub(crate) name: String,
    /// Interface index. Another interface of the same name needs the filter again.
    pub(crate) index: u32,
    /// External addresses of its uplinks, some of many. They are open, and most packets have one.
    pub(crate) external: Vec<Ipv4Addr>,
    /// Addresses that no packet may have: as its source on the way out, as its destination on the
    /// way in. In order and apart.
    pub(crate) closed: Vec<AddressRange>,
    /// Addresses that no packet may have as its source on the way out, beside those. In order and
    /// apart.
    pub(crate) others: Vec<AddressRange>,
    /// Hardware addresses of interfaces above. Their packets pass.
    pub(crate) hardware_above: Vec<[u8; 6]>,
    /// Networks behind other interfaces above, in order and apart. Packets to them on the way out
    /// pass, and packets from them on the way in.
    pub(crate) networks_above: Vec<AddressRange>,
    /// Private IPv6 networks from which packets may leave. The filter drops other private IPv6
    /// sources.
    pub(crate) private_ipv6: Vec<Ipv6Net>,
    /// Sources of packets that belong on other interfaces, each with the position of the uplink. In
    /// order and apart.
    pub(crate) astray: Vec<(usize, Vec<AddressRange>)>,
}

/// The way of packets out by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    /// Position of the uplink in the configuration.
    pub(crate) uplink: usize,
    /// Index of the interface.
    pub(crate) index: u32,
    /// Next hop.
    pub(crate) via: Ipv4Addr,
}

/// Addresses from the first to the last one, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressRange {
    pub(crate) first: Ipv4Addr,
    pub(crate) last: Ipv4Addr,
}

impl PrivateFilter {
    /// Plans the filter; None if the configuration has none.
    pub(crate) fn new(config: &Config, facts: &HostFacts) -> Option<Self> {
        if !config.host.manage || !config.host.block_private {
            return None;
        }
        let ways_out = ways_out(config, facts);
        let sources = sources(config, facts);
        let mut interfaces: Vec<FilteredInterface> = Vec::new();
        for found in &facts.uplinks {
            let is_known = interfaces.iter().any(|known| known.name == found.interface);
            if found.state != InterfaceState::Missing && !is_known {
                interfaces.push(FilteredInterface {
                    name: found.interface.clone(),
                    index: found.index,
                    external: external(config, &found.interface).take(FIRST_ADDRESSES).collect(),
                    closed: closed(config, found),
                    others: others(config, facts, found),
                    hardware_above: found.above.iter().filter_map(|one| one.hardware).collect(),
                    networks_above: networks_above(config, found),
                    private_ipv6: private_ipv6(found),
                    astray: astray(config, found, &ways_out, &sources),
                });
            }
        }
        Some(Self {
            interfaces,
            ways_out,
            inside: union(config.inside.prefixes()),
            no_nat: union(config.no_nat.iter().map(|rule| rule.to)),
        })
    }
}

/// Lists the closed addresses of an interface.
///
/// The network of an uplink is private if the provider's router translates as well.
fn closed(config: &Config, found: &InterfaceFacts) -> Vec<AddressRange> {
    let private = found.networks.iter().copied().fold(union(PRIVATE), without);
    let inside = union(config.inside.prefixes());
    let closed = merge(private.into_iter().chain(inside).collect());
    own(config, found).chain(own_above(config, found)).fold(closed, without)
}

/// Lists the private IPv6 networks of an interface, and those of the interfaces above with the same
/// hardware address.
fn private_ipv6(found: &InterfaceFacts) -> Vec<Ipv6Net> {
    let above = found.above.iter().filter(|above| above.hardware.is_none());
    let above = above.flat_map(|above| &above.private_ipv6);
    let mut networks: Vec<Ipv6Net> = found.private_ipv6.iter().chain(above).copied().collect();
    networks.sort();
    networks.dedup();
    networks
}

/// Lists the external addresses that belong on other interfaces, except those of the host.
fn others(config: &Config, facts: &HostFacts, found: &InterfaceFacts) -> Vec<AddressRange> {
    let uplinks = config.uplinks.iter().zip(&facts.assigned_to_host);
    let elsewhere = uplinks.filter(|(uplink, _)| uplink.interface != found.interface);
    let addresses = elsewhere.flat_map(|(uplink, are_of_host)| {
        let addresses = uplink.addresses.iter().zip(are_of_host);
        addresses.filter(|(_, is_of_host)| !**is_of_host).map(|(address, _)| *address)
    });
    let others = union(addresses.map(Ipv4Net::from));
    own(config, found).chain(own_above(config, found)).fold(others, without)
}

/// Lists the ways out by uplinks whose interface needs a next hop.
fn ways_out(config: &Config, facts: &HostFacts) -> Vec<WayOut> {
    let uplinks = facts.uplinks.iter().enumerate();
    let ways = uplinks.filter(|(_, found)| found.arp && found.takes_routes());
    let ways = ways.filter_map(|(uplink, found)| {
        let via = facts.next_hop(config, uplink)?;
        Some(WayOut { uplink, index: found.index, via })
    });
    ways.collect()
}

/// Lists the sources of packets that leave by each uplink: its external addresses, and those of its
/// interface. An address belongs to the uplink that publishes it, or to the first one.
fn sources(config: &Config, facts: &HostFacts) -> Vec<Vec<Ipv4Addr>> {
    let mut sources: Vec<Vec<Ipv4Addr>> =
        config.uplinks.iter().map(|uplink| uplink.addresses.clone()).collect();
    for (uplink, found) in facts.uplinks.iter().enumerate() {
        for address in found.addresses.iter().filter(|address| !config.inside.contains(**address)) {
            if !sources.iter().any(|known| known.contains(address)) {
                sources[uplink].push(*address);
            }
        }
    }
    sources
}

/// Lists the sources of packets that belong on other interfaces, for each way out.
fn astray(
    config: &Config,
    found: &InterfaceFacts,
    ways_out: &[WayOut],
    sources: &[Vec<Ipv4Addr>],
) -> Vec<(usize, Vec<AddressRange>)> {
    let ways = ways_out.iter().filter(|way| way.index != found.index).map(|way| way.uplink);
    let sources = ways.map(|uplink| {
        let sources = union(sources[uplink].iter().copied().map(Ipv4Net::from));
        (uplink, own(config, found).chain(own_above(config, found)).fold(sources, without))
    });
    sources.filter(|(_, sources)| !sources.is_empty()).collect()
}

/// Lists the addresses of an interface and of its uplinks.
fn own<'a>(config: &'a Config, found: &'a InterfaceFacts) -> impl Iterator<Item = Ipv4Net> + 'a {
    let addresses = found.addresses.iter().copied();
    external(config, &found.interface).chain(addresses).map(Ipv4Net::from)
}

/// Lists what an interface passes for those above: their addresses, if packets of both have one
/// hardware address, and broadcasts, which have no hardware address of one interface.
fn own_above<'a>(
    config: &'a Config,
    found: &'a InterfaceFacts,
) -> impl Iterator<Item = Ipv4Net> + 'a {
    found.above.iter().flat_map(|above| {
        let is_uplink = is_uplink(config, &above.name);
        let networks = above.networks.iter().copied().filter(|network| network.prefix_len() < 31);
        let broadcasts = networks.map(|network| Ipv4Net::from(network.broadcast()));
        let networks = above.networks.iter().filter(move |_| is_uplink).copied();
        let addresses = external(config, &above.name).chain(above.addresses.iter().copied());
        let shared = addresses.map(Ipv4Net::from).chain(networks);
        broadcasts.chain(shared.filter(|_| above.hardware.is_none()))
    })
}

/// Lists the networks behind the interfaces above that are no uplinks, if packets of both have one
/// hardware address. An upper interface that is an uplink has a filter of its own.
fn networks_above(config: &Config, found: &InterfaceFacts) -> Vec<AddressRange> {
    let above = found.above.iter().filter(|above| above.hardware.is_none());
    let above = above.filter(|above| !is_uplink(config, &above.name));
    union(above.flat_map(|above| {
        let legs = config.inside.legs.iter().filter(|leg| leg.interface == above.name);
        legs.flat_map(|leg| &leg.prefixes).chain(&above.networks).copied()
    }))
}

fn is_uplink(config: &Config, interface: &str) -> bool {
    config.uplinks.iter().any(|uplink| uplink.interface == interface)
}

/// Lists the external addresses of the uplinks of an interface.
fn external<'a>(config: &'a Config, interface: &'a str) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let on_interface = config.uplinks.iter().filter(move |uplink| uplink.interface == interface);
    on_interface.flat_map(|uplink| &uplink.addresses).copied()
}

/// Addresses of an interface that the filter compares before it searches a set.
const FIRST_ADDRESSES: usize = 4;

/// Lists the addresses of these networks.
fn union(networks: impl IntoIterator<Item = Ipv4Net>) -> Vec<AddressRange> {
    merge(networks.into_iter().map(AddressRange::from).collect())
}

/// Puts ranges in order, and joins those that touch.
fn merge(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort();
    let mut merged: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first.to_bits() <= last.last.to_bits().saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

/// Takes a network out of ranges.
fn without(ranges: Vec<AddressRange>, network: Ipv4Net) -> Vec<AddressRange> {
    let hole = AddressRange::from(network);
    let mut rest = Vec::new();
    for range in ranges {
        if range.last < hole.first || hole.last < range.first {
            rest.push(range);
            continue;
        }
        if range.first < hole.first {
            let last = Ipv4Addr::from_bits(hole.first.to_bits() - 1);
            rest.push(AddressRange { last, ..range });
        }
        if hole.last < range.last {
            let first = Ipv4Addr::from_bits(hole.last.to_bits() + 1);
            rest.push(AddressRange { first, ..range });
        }
    }
    rest
}

impl From<Ipv4Net> for AddressRange {
    fn from(network: Ipv4Net) -> Self {
        Self { first: network.network(), last: network.broadcast() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn networks() -> impl Strategy<Value = Vec<Ipv4Net>> {
        let network = (any::<u8>(), 0_u8..=32).prop_map(|(bits, length)| {
            // Few different addresses, at both ends of the space, so that networks meet.
            let bits = u32::from(bits >> 4) << 28 | u32::from(bits & 0xf);
            Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap().trunc()
        });
        vec(network, 0..5)
    }

    proptest! {
        #[test]
        fn ranges_hold_the_addresses_of_the_networks_and_not_those_taken_out(
            networks in networks(),
            out in networks(),
            bits in any::<u32>(),
            near in any::<u8>(),
        ) {
            let near = u32::from(near >> 4) << 28 | u32::from(near & 0xf);
            let ranges = out.iter().copied().fold(union(networks.clone()), without);
            for address in [bits, near, near.wrapping_sub(1)].map(Ipv4Addr::from_bits) {
                let holds = |nets: &[Ipv4Net]| nets.iter().any(|net| net.contains(&address));
                let found = ranges.iter().any(|range| range.first <= address && address <= range.last);
                prop_assert_eq!(found, holds(&networks) && !holds(&out));
            }
            let mut gaps = ranges.windows(2).map(|pair| (pair[0].last, pair[1].first));
            prop_assert!(gaps.all(|(last, first)| last < first), "{:?}", ranges);
        }
    }
}

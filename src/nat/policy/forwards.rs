//! Static forwards: published endpoint to server endpoint, and back. Read-only while packets flow.
//!
//! Of several forwards that publish an endpoint, the narrowest range has it, and a whole address is
//! the widest of all.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::nat::policy::rules::Forward;
use crate::packet::{Endpoint, Protocol};
use crate::values::nat::{ForwardProtocol, PortRange};

/// The forwards of a box, by either end.
pub(crate) struct Forwards {
    by_external: HashMap<Ipv4Addr, Vec<Forward>>,
    by_inside: HashMap<Ipv4Addr, Vec<OfServer>>,
}

/// A forward to a server.
struct OfServer {
    forward: Forward,
    /// True: a narrower forward on the same address has some of its endpoints.
    is_overlaid: bool,
}

/// The server endpoint behind a published endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerEndpoint {
    /// The endpoint.
    pub(crate) inside: Endpoint,
    /// See [`Forward::is_shared`].
    pub(crate) is_shared: bool,
}

/// A published endpoint of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishedEndpoint {
    /// Index of the uplink.
    pub(crate) uplink: u8,
    /// The endpoint.
    pub(crate) external: Endpoint,
    /// See [`Forward::is_shared`].
    pub(crate) is_shared: bool,
}

impl Forwards {
    /// Indexes a list of forwards.
    pub(crate) fn new(forwards: &[Forward]) -> Self {
        let mut by_external: HashMap<_, Vec<Forward>> = HashMap::new();
        for forward in forwards {
            by_external.entry(forward.address).or_default().push(forward.clone());
        }
        by_external.values_mut().for_each(|list| list.sort_by_key(Forward::breadth));
        let mut by_inside: HashMap<_, Vec<OfServer>> = HashMap::new();
        for forward in forwards {
            let narrower = by_external[&forward.address].iter();
            let mut narrower = narrower.take_while(|one| one.breadth() < forward.breadth());
            let is_overlaid = narrower.any(|one| one.overlaps(forward));
            let of_server = OfServer { forward: forward.clone(), is_overlaid };
            by_inside.entry(forward.to_address).or_default().push(of_server);
        }
        for list in by_inside.values_mut() {
            list.sort_by_key(|of_server| of_server.forward.breadth());
        }
        Self { by_external, by_inside }
    }

    /// Returns the server endpoint behind a published endpoint.
    pub(crate) fn target(&self, protocol: Protocol, external: Endpoint) -> Option<Endpoint> {
        self.at(protocol, external).map(|server| server.inside)
    }

    /// Returns the server endpoint behind a published endpoint, and whether mappings share that
    /// one.
    #[inline]
    pub(crate) fn at(&self, protocol: Protocol, external: Endpoint) -> Option<ServerEndpoint> {
        let forward = self.forward_at(protocol, external)?;
        let distance = external.port - forward.ports.first;
        let inside = Endpoint::new(forward.to_address, forward.to_port + distance);
        Some(ServerEndpoint { inside, is_shared: forward.is_shared() })
    }

    /// Returns the forward that publishes an external endpoint.
    pub(crate) fn forward_at(&self, protocol: Protocol, external: Endpoint) -> Option<&Forward> {
        self.by_external.get(&external.address)?.iter().find(|forward| {
            forward.protocol.covers(protocol) && forward.ports.contains(external.port)
        })
    }

    /// Reports whether a forward publishes an endpoint and does not share it with mappings.
    pub(crate) fn owns(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.forward_at(protocol, external).is_some_and(|forward| !forward.is_shared())
    }

    /// Returns the ranges of an address whose ports [`Self::owns`] reports: a narrower forward
    /// comes before one that shares its ports.
    pub(crate) fn owned_ranges(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
    ) -> impl Iterator<Item = PortRange> {
        self.ranges(protocol, address, |forward| !forward.is_shared())
    }

    /// Returns the ranges of an address that forwards share with mappings.
    pub(crate) fn shared_ranges(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
    ) -> impl Iterator<Item = PortRange> {
        self.ranges(protocol, address, Forward::is_shared)
    }

    fn ranges(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
        is_wanted: impl Fn(&Forward) -> bool,
    ) -> impl Iterator<Item = PortRange> {
        let forwards = self.by_external.get(&address).into_iter().flatten();
        forwards
            .filter(move |forward| forward.protocol.covers(protocol) && is_wanted(forward))
            .map(|forward| forward.ports)
    }

    /// Reports whether a forward leads to this inside host.
    pub(crate) fn has_server(&self, host: Ipv4Addr) -> bool {
        self.by_inside.contains_key(&host)
    }

    /// Returns an address of an uplink at which a forward publishes this inside host: the one that
    /// exposes the host, if any does.
    pub(crate) fn address_of(&self, host: Ipv4Addr, uplink: u8) -> Option<Ipv4Addr> {
        let of_uplink = || {
            let forwards = self.by_inside.get(&host).into_iter().flatten().map(|it| &it.forward);
            forwards.filter(|forward| forward.uplink == uplink)
        };
        let exposing = of_uplink().find(|forward| forward.protocol == ForwardProtocol::Any);
        exposing.or_else(|| of_uplink().next()).map(|forward| forward.address)
    }

    /// Reports whether a server endpoint has more than one published endpoint.
    pub(crate) fn published_more_than_once(&self, protocol: Protocol, inside: Endpoint) -> bool {
        self.published_endpoints(protocol, inside).nth(1).is_some()
    }

    /// Returns the published endpoint of a server endpoint and its uplink: `uplink` if a forward
    /// publishes the server there, otherwise the first uplink.
    #[inline]
    pub(crate) fn published(
        &self,
        protocol: Protocol,
        inside: Endpoint,
        uplink: Option<u8>,
    ) -> Option<PublishedEndpoint> {
        let mut published_endpoints = self.published_endpoints(protocol, inside).peekable();
        let first = published_endpoints.peek().copied();
        published_endpoints
            .find(|published| uplink.is_none_or(|uplink| uplink == published.uplink))
            .or(first)
    }

    /// Returns the published endpoint of a server endpoint on an external address.
    pub(crate) fn published_at(
        &self,
        protocol: Protocol,
        inside: Endpoint,
        address: Ipv4Addr,
    ) -> Option<PublishedEndpoint> {
        self.published_endpoints(protocol, inside)
            .find(|published| published.external.address == address)
    }

    /// Reports whether a server endpoint is published at an external endpoint of an uplink.
    pub(crate) fn publishes(
        &self,
        protocol: Protocol,
        inside: Endpoint,
        uplink: u8,
        external: Endpoint,
    ) -> bool {
        self.published_endpoints(protocol, inside)
            .any(|published| (published.uplink, published.external) == (uplink, external))
    }

    /// Returns the published endpoints of a server endpoint, the narrowest forward first.
    #[inline]
    pub(crate) fn published_endpoints(
        &self,
        protocol: Protocol,
        inside: Endpoint,
    ) -> impl Iterator<Item = PublishedEndpoint> {
        let of_server = self.by_inside.get(&inside.address).into_iter().flatten();
        of_server.filter_map(move |OfServer { forward, is_overlaid }| {
            let PortRange { first, last } = forward.ports;
            let distance = inside.port.checked_sub(forward.to_port)?;
            let covers = forward.protocol.covers(protocol) && distance <= last - first;
            if !covers {
                return None;
            }
            let external = Endpoint::new(forward.address, first + distance);
            let is_own = !is_overlaid || self.target(protocol, external) == Some(inside);
            is_own.then_some(PublishedEndpoint {
                uplink: forward.uplink,
                external,
                is_shared: forward.is_shared(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owned_ranges_hold_the_ports_of_forwards_that_share_none() {
        let external = Ipv4Addr::new(203, 0, 113, 10);
        let forward = |protocol, ports: std::ops::RangeInclusive<u16>| Forward {
            name: "server".into(),
            uplink: 0,
            protocol,
            address: external,
            ports: ports.into(),
            to_address: Ipv4Addr::new(10, 0, 0, 5),
            to_port: 1,
        };
        let forwards = Forwards::new(&[
            forward(ForwardProtocol::Any, 0..=65_535),
            forward(ForwardProtocol::Tcp, 8000..=12_000),
            forward(ForwardProtocol::TcpUdp, 8080..=8090),
            forward(ForwardProtocol::Udp, 65_535..=65_535),
            forward(ForwardProtocol::Icmp, 0..=65_535),
        ]);
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP] {
            let owned: Vec<_> = forwards.owned_ranges(protocol, external).collect();
            for port in PortRange::ALL.iter() {
                let owns = forwards.owns(protocol, Endpoint::new(external, port));
                assert_eq!(owned.iter().any(|range| range.contains(port)), owns, "port {port}");
            }
        }
    }
}

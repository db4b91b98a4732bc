//! Static forwards: published endpoint to server endpoint, and back. Read-only while packets flow.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::nat::policy::port_range::PortRange;
use crate::nat::policy::rules::{Forward, ForwardProtocol};
use crate::packet::{Endpoint, Protocol};

/// The forwards of a box, by either end.
pub(crate) struct Forwards {
    by_external: HashMap<Ipv4Addr, Vec<Forward>>,
    by_inside: HashMap<Ipv4Addr, Vec<Forward>>,
}

impl Forwards {
    /// Indexes a list of forwards.
    pub(crate) fn new(forwards: &[Forward]) -> Self {
        let mut by_external: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_inside: HashMap<_, Vec<_>> = HashMap::new();
        for forward in forwards {
            by_external.entry(forward.address).or_default().push(forward.clone());
            by_inside.entry(forward.to_address).or_default().push(forward.clone());
        }
        // A whole-address forward yields to a narrower one on the same address.
        for list in by_external.values_mut().chain(by_inside.values_mut()) {
            list.sort_by_key(|forward| forward.protocol == ForwardProtocol::Any);
        }
        Self { by_external, by_inside }
    }

    /// Returns the server endpoint behind a published endpoint.
    pub(crate) fn target(&self, protocol: Protocol, external: Endpoint) -> Option<Endpoint> {
        let forward = self.forward_at(protocol, external)?;
        let distance = external.port - forward.ports.first;
        Some(Endpoint::new(forward.to_address, forward.to_port + distance))
    }

    /// Returns the forward that publishes an external endpoint.
    pub(crate) fn forward_at(&self, protocol: Protocol, external: Endpoint) -> Option<&Forward> {
        self.by_external.get(&external.address)?.iter().find(|forward| {
            forward.protocol.covers(protocol) && forward.ports.contains(external.port)
        })
    }

    /// Reports whether a forward leads to this inside host.
    pub(crate) fn has_server(&self, host: Ipv4Addr) -> bool {
        self.by_inside.contains_key(&host)
    }

    /// Returns an address of an uplink at which a forward publishes this inside host.
    pub(crate) fn address_of(&self, host: Ipv4Addr, uplink: u8) -> Option<Ipv4Addr> {
        self.by_inside
            .get(&host)?
            .iter()
            .find(|forward| forward.uplink == uplink)
            .map(|forward| forward.address)
    }

    /// Reports whether a server endpoint has more than one published endpoint.
    pub(crate) fn published_more_than_once(&self, protocol: Protocol, inside: Endpoint) -> bool {
        self.published_endpoints(protocol, inside).nth(1).is_some()
    }

    /// Returns the published endpoint of a server endpoint and its uplink: `uplink` if a forward
    /// publishes the server there, otherwise the first uplink.
    pub(crate) fn published(
        &self,
        protocol: Protocol,
        inside: Endpoint,
        uplink: Option<u8>,
    ) -> Option<(u8, Endpoint)> {
        let mut published_endpoints = self.published_endpoints(protocol, inside).peekable();
        let first = published_endpoints.peek().copied();
        published_endpoints
            .find(|(number, _)| uplink.is_none_or(|uplink| uplink == *number))
            .or(first)
    }

    /// Returns the published endpoint of a server endpoint on an external address, and its uplink.
    pub(crate) fn published_at(
        &self,
        protocol: Protocol,
        inside: Endpoint,
        address: Ipv4Addr,
    ) -> Option<(u8, Endpoint)> {
        self.published_endpoints(protocol, inside)
            .find(|(_, published)| published.address == address)
    }

    /// Returns the published endpoints of a server endpoint, each with its uplink.
    fn published_endpoints(
        &self,
        protocol: Protocol,
        inside: Endpoint,
    ) -> impl Iterator<Item = (u8, Endpoint)> {
        self.by_inside.get(&inside.address).into_iter().flatten().filter_map(move |forward| {
            let PortRange { first, last } = forward.ports;
            let distance = inside.port.checked_sub(forward.to_port)?;
            (forward.protocol.covers(protocol) && distance <= last - first)
                .then(|| (forward.uplink, Endpoint::new(forward.address, first + distance)))
        })
    }
}

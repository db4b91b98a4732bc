//! Ports of external addresses that sessions hold without a mapping: see
//! [`crate::nat::mapping::held_ports`].

use std::net::Ipv4Addr;

use rand::rngs::StdRng;

use crate::nat::mapping::allocator::PortAllocator;
use crate::nat::mapping::mappings::Mappings;
use crate::packet::{Endpoint, Protocol};

impl Mappings {
    /// Holds an external port for one more session; false when the host or a mapping has the port,
    /// or the protocol has none.
    pub(crate) fn hold(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.hold(external.port))
    }

    /// Reports whether [`Self::hold`] would succeed now.
    pub(crate) fn may_hold(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.may_hold(external.port))
    }

    /// Reports whether a session holds an external port.
    pub(crate) fn is_held(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.is_held(external.port))
    }

    /// Reports whether the pool keeps an external port back for mappings.
    pub(crate) fn is_kept_back(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.is_kept_back(external.port))
    }

    /// Reports whether a port belongs to the host, which has the external address as well: see
    /// [`PortPool::is_hosts`](crate::nat::mapping::ports::PortPool::is_hosts).
    pub(crate) fn is_hosts(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.is_hosts(external.port))
    }

    /// Reports whether a program of the host listens at an external port.
    pub(crate) fn has_listener(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.has_listener(external.port))
    }

    /// Reports whether a program of the host uses an external port.
    pub(crate) fn is_used_by_host(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.is_used(external.port))
    }

    /// Holds a random free port of an external address for a session.
    pub(crate) fn hold_any(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
        inside_port: u16,
        random: &mut StdRng,
    ) -> Option<Endpoint> {
        let preference = self.preference(protocol, inside_port);
        let allocators = self.allocators.load();
        let port = allocators.get(&(protocol, address))?.hold_any(preference, random)?;
        Some(Endpoint::new(address, port))
    }

    /// Releases an external port that a session held.
    pub(crate) fn release_held(&self, protocol: Protocol, external: Endpoint) {
        self.ports_of(protocol, external.address, |ports| {
            ports.release_held(external.port);
            true
        });
    }

    /// Returns the answer of an address's allocator; false if there is none.
    fn ports_of(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
        ask: impl FnOnce(&PortAllocator) -> bool,
    ) -> bool {
        self.allocators.load().get(&(protocol, address)).is_some_and(|ports| ask(ports))
    }
}

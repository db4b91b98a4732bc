//! External ports that sessions hold without a mapping: those of exposed hosts, and second ports of
//! inside hosts whose first one is in use towards the same server.
//!
//! The first session takes the port's bit in the pool, and the last one gives the bit back. So no
//! mapping gets the port meanwhile. A port outside the pool needs no bit, because no mapping ever
//! gets it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;

use crate::nat::mapping::allocator::PortAllocator;
use crate::nat::mapping::mappings::Mappings;
use crate::nat::mapping::ports::PortPreference;
use crate::packet::{Endpoint, Protocol};

/// The held ports of one pool.
#[derive(Default)]
pub(crate) struct HeldPorts(HashMap<u16, Held>);

struct Held {
    sessions: u32,
    /// True: a forward has taken the port over, so the last session leaves the bit to it.
    is_claimed: bool,
}

impl HeldPorts {
    /// Takes a held port over for a forward; false when no session holds the port.
    pub(super) fn claim(&mut self, port: u16) -> bool {
        self.set_claimed(port, true)
    }

    /// Undoes [`Self::claim`]; false when no session holds the port.
    pub(super) fn unclaim(&mut self, port: u16) -> bool {
        self.set_claimed(port, false)
    }

    fn set_claimed(&mut self, port: u16, is_claimed: bool) -> bool {
        self.0.get_mut(&port).map(|held| held.is_claimed = is_claimed).is_some()
    }
}

impl PortAllocator {
    /// Holds a port for one more session; false when the host or a mapping has the port.
    fn hold(&self, port: u16) -> bool {
        if self.ports.is_hosts(port) {
            return false;
        }
        if !self.ports.has(port) {
            return true;
        }
        let mut held = self.held.lock();
        if let Some(held) = held.0.get_mut(&port) {
            held.sessions += 1;
            return true;
        }
        let won = self.ports.reserve(port);
        if won {
            held.0.insert(port, Held { sessions: 1, is_claimed: false });
        }
        won
    }

    /// Reports whether [`Self::hold`] would succeed now.
    fn may_hold(&self, port: u16) -> bool {
        !self.ports.is_hosts(port)
            && (!self.ports.has(port) || self.ports.is_free(port) || self.is_held(port))
    }

    fn is_held(&self, port: u16) -> bool {
        self.held.lock().0.contains_key(&port)
    }

    /// Holds a random free port for a session.
    fn hold_any(&self, preference: PortPreference, random: &mut StdRng) -> Option<u16> {
        let mut held = self.held.lock();
        let port = self.ports.take(preference, random)?;
        held.0.insert(port, Held { sessions: 1, is_claimed: false });
        Some(port)
    }

    /// Releases a port that a session held.
    fn release_held(&self, port: u16) {
        let mut held = self.held.lock();
        let Some(entry) = held.0.get_mut(&port) else { return };
        entry.sessions -= 1;
        if entry.sessions == 0 && held.0.remove(&port).is_some_and(|held| !held.is_claimed) {
            self.ports.release(port);
        }
    }
}

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

    /// Reports whether the host, which has the external address as well, uses a port.
    pub(crate) fn is_hosts(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.is_hosts(external.port))
    }

    /// Reports whether a program of the host listens at an external port.
    pub(crate) fn has_listener(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.ports_of(protocol, external.address, |ports| ports.ports.is_excluded(external.port))
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

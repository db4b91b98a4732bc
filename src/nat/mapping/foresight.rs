//! The mapping and the port that a packet would get now. Nothing here changes any state.

use std::net::Ipv4Addr;

use rand::rngs::StdRng;

use crate::nat::mapping::allocator::{PortAllocator, PortOrigin, PortRequest};
use crate::nat::mapping::key::MappingKey;
use crate::nat::mapping::mappings::{Mappings, PortsExhaustedOn};
use crate::nat::mapping::taken_ports::ForeseenPorts;
use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

/// What [`Mappings::acquire`] would return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForeseenMapping {
    /// The external endpoint.
    pub(crate) external: Endpoint,
    /// How the mapping gets its port.
    pub(crate) origin: PortOrigin,
}

impl Mappings {
    /// Returns what [`Self::acquire`] would return, with the same draws of random numbers.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub(crate) fn foresee(
        &self,
        key: MappingKey,
        request: PortRequest,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
        random: &mut StdRng,
        now: Tick,
    ) -> Result<ForeseenMapping, PortsExhaustedOn> {
        if let Some(mapping) = self.by_inside.get(&key) {
            let (external, origin) = (mapping.external, PortOrigin::Present);
            return match self.has_address(external.address) {
                true => Ok(ForeseenMapping { external, origin }),
                false => Err(PortsExhaustedOn),
            };
        }
        let allocate = |address| {
            let take = |allocator: &PortAllocator, preference, random: &mut StdRng| {
                let mut ports = ForeseenPorts::new(&allocator.ports);
                allocator.take(&key, request, preference, &mut ports, random, now)
            };
            self.allocate_on(address, &key, random, take, |shared| self.may_share(shared, &key))
        };
        let (external, origin) =
            addresses.into_iter().find_map(allocate).ok_or(PortsExhaustedOn)?;
        Ok(ForeseenMapping { external, origin })
    }

    /// Returns what [`Self::hold_any`] would return, with the same draws of random numbers.
    pub(crate) fn foresee_held(
        &self,
        protocol: Protocol,
        address: Ipv4Addr,
        inside_port: u16,
        random: &mut StdRng,
    ) -> Option<Endpoint> {
        let preference = self.preference(protocol, inside_port);
        let allocators = self.allocators.load();
        let allocator = allocators.get(&(protocol, address))?;
        let mut ports = ForeseenPorts::new(&allocator.ports);
        let port = allocator.ports.choose(preference, &mut ports, random)?;
        Some(Endpoint::new(address, port))
    }

    /// Reports whether a new mapping may share a port of other mappings.
    fn may_share(&self, external: Endpoint, key: &MappingKey) -> bool {
        let Some(overlap_counts) = &self.overlap_counts else { return false };
        overlap_counts.contains_key(&(key.protocol, external))
            && !self.by_external.contains_key(&self.external_key(
                key.protocol,
                external,
                key.remote,
            ))
    }
}

#[cfg(test)]
impl Mappings {
    /// Returns the mappings and the state of all ports, to compare.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let all = self.by_inside.iter();
        lines.extend(all.map(|it| format!("{:?} {:?}", it.key(), it.value().values())));
        let by_external = self.by_external.iter();
        lines.extend(by_external.map(|it| format!("{:?} {:?}", it.key(), it.value())));
        let counts = self.overlap_counts.iter().flatten();
        lines.extend(counts.map(|it| format!("{:?} {}", it.key(), it.value())));
        lines.extend(self.peers.iter().map(|it| format!("{:?} {}", it.key(), it.value())));
        let pinholes = self.hairpin_pinholes.iter();
        lines.extend(pinholes.map(|it| format!("{:?} {:?}", it.key(), it.value())));
        for (place, allocator) in self.allocators.load().iter() {
            let words = (0..1024).map(|word| (word, allocator.ports.taken_in(word)));
            let taken: Vec<_> = words.filter(|(_, bits)| *bits != 0).collect();
            lines.push(format!("{place:?} {} {taken:?}", allocator.ports.free()));
            lines.push(format!("{place:?} {}", allocator.waiting()));
        }
        lines.sort();
        lines
    }
}

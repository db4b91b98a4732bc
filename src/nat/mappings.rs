//! Dynamic mappings: inside endpoint to external endpoint, alive as long as any session uses them.
//!
//! ```text
//!   by_inside    (protocol, uplink, inside endpoint, [remote]) -> external endpoint, number of sessions
//!   by_external  (protocol, external endpoint)                 -> key of by_inside
//!   ports        (protocol, external address)                  -> bitmap of free ports; owns the reservation
//! ```
//!
//! Only a miss in the session table comes here. Locks: by_inside before by_external, never while holding a pool or
//! shard of the table.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::Ipv4Addr;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rand::rngs::StdRng;

use crate::packet::{Endpoint, Protocol};

use super::forwards::Forwards;
use super::ports::{Parity, PortPool};
use super::settings::{Dependence, Settings};

/// Identifies a mapping from the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MappingKey {
    protocol: Protocol,
    uplink: u8,
    inside: Endpoint,
    /// The part of the remote endpoint that the mapping depends on; zero where it does not.
    remote: Endpoint,
}

struct Mapping {
    external: Endpoint,
    sessions: u32,
}

/// No port is free on the external address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// The mappings of a box.
pub(super) struct Mappings {
    by_inside: DashMap<MappingKey, Mapping, RandomState>,
    by_external: DashMap<(Protocol, Endpoint), MappingKey, RandomState>,
    ports: HashMap<(Protocol, Ipv4Addr), PortPool>,
    /// With address-dependent filtering: how many sessions a mapping has with a remote address.
    permits: DashMap<(Protocol, Endpoint, Ipv4Addr), u32, RandomState>,
    mapping: Dependence,
    filtering: Dependence,
}

impl Mappings {
    pub(super) fn new(settings: &Settings, forwards: &Forwards) -> Self {
        let mut ports = HashMap::new();
        for external in settings.uplinks.iter().flat_map(|uplink| &uplink.addresses) {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP] {
                // Query identifiers are nobody's service: all of them are dynamic.
                let has_services = protocol != Protocol::ICMP;
                let (first, last) = if has_services { settings.ports } else { (0, u16::MAX) };
                let hosts = external.reserved.filter(|_| has_services);
                let pool = PortPool::new(first, last, hosts, |port| {
                    let endpoint = Endpoint::new(external.address, port);
                    has_services && forwards.target(protocol, endpoint).is_some()
                });
                ports.insert((protocol, external.address), pool);
            }
        }
        let room =
            ports.values().map(|pool| pool.free() as usize).sum::<usize>().min(settings.sessions as usize);
        let map = || RandomState::new();
        Self {
            by_inside: DashMap::with_capacity_and_hasher_and_shard_amount(room, map(), SHARDS),
            by_external: DashMap::with_capacity_and_hasher_and_shard_amount(room, map(), SHARDS),
            ports,
            permits: DashMap::with_hasher_and_shard_amount(map(), SHARDS),
            mapping: settings.mapping,
            filtering: settings.filtering,
        }
    }

    /// The key under which `inside` talks to `remote` over `uplink`.
    pub(super) fn key(
        &self,
        protocol: Protocol,
        uplink: u8,
        inside: Endpoint,
        remote: Endpoint,
    ) -> MappingKey {
        let none = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
        let remote = match self.mapping {
            Dependence::EndpointIndependent => none,
            Dependence::AddressDependent => Endpoint::new(remote.address, 0),
            Dependence::AddressAndPortDependent => remote,
        };
        MappingKey { protocol, uplink, inside, remote }
    }

    /// The external endpoint of a mapping, made on `address` if it is new, held for one more session.
    pub(super) fn acquire(
        &self,
        key: MappingKey,
        address: Ipv4Addr,
        random: &mut StdRng,
    ) -> Result<Endpoint, Exhausted> {
        match self.by_inside.entry(key) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().sessions += 1;
                Ok(entry.get().external)
            }
            Entry::Vacant(entry) => {
                let pool = self.ports.get(&(key.protocol, address)).ok_or(Exhausted)?;
                // RFC 4787 REQ-4 wants parity kept for UDP; RFC 6056 wants the rest random.
                let parity =
                    if key.protocol == Protocol::UDP { Parity::Like(key.inside.port) } else { Parity::Any };
                let port = pool.take(parity, random).ok_or(Exhausted)?;
                let external = Endpoint::new(address, port);
                self.by_external.insert((key.protocol, external), key);
                entry.insert(Mapping { external, sessions: 1 });
                Ok(external)
            }
        }
    }

    /// The mapping behind an external endpoint, held for one more session: its key and inside endpoint.
    pub(super) fn adopt(&self, protocol: Protocol, external: Endpoint) -> Option<(MappingKey, Endpoint)> {
        let key = *self.by_external.get(&(protocol, external))?;
        let mut mapping = self.by_inside.get_mut(&key)?;
        // Between the two look-ups the mapping may have ended, and begun anew under another port.
        (mapping.external == external).then(|| {
            mapping.sessions += 1;
            (key, key.inside)
        })
    }

    /// Lets one session's hold on a mapping go; the last one ends it and frees its port.
    pub(super) fn release(&self, key: MappingKey) {
        let ended = self.by_inside.remove_if_mut(&key, |_, mapping| {
            mapping.sessions -= 1;
            mapping.sessions == 0
        });
        if let Some((_, Mapping { external, .. })) = ended {
            self.by_external.remove(&(key.protocol, external));
            if let Some(pool) = self.ports.get(&(key.protocol, external.address)) {
                pool.release(external.port);
            }
        }
    }

    /// [`Self::release`] by the external endpoint.
    pub(super) fn release_external(&self, protocol: Protocol, external: Endpoint) {
        let key = self.by_external.get(&(protocol, external)).map(|key| *key);
        if let Some(key) = key {
            self.release(key);
        }
    }

    /// Whether there is a mapping at an external endpoint.
    pub(super) fn exists(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.by_external.contains_key(&(protocol, external))
    }

    /// Whether filtering lets `remote` send to the mapping at `external` without a session of its own.
    pub(super) fn admits(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) -> bool {
        match self.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.permits.contains_key(&(protocol, external, remote.address)),
            Dependence::AddressAndPortDependent => false,
        }
    }

    /// Notes that the inside opened a session from `external` to `remote`.
    pub(super) fn permit(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == Dependence::AddressDependent {
            *self.permits.entry((protocol, external, remote.address)).or_insert(0) += 1;
        }
    }

    /// Takes back one [`Self::permit`].
    pub(super) fn forbid(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == Dependence::AddressDependent {
            self.permits.remove_if_mut(&(protocol, external, remote.address), |_, sessions| {
                *sessions -= 1;
                *sessions == 0
            });
        }
    }

    /// Keeps a port from mappings, for a forward; false while a mapping has it. A port outside the range, or one that was
    /// kept before, is kept already.
    pub(super) fn reserve(&self, protocol: Protocol, external: Endpoint) -> bool {
        match self.ports.get(&(protocol, external.address)) {
            Some(pool) => pool.keep(external.port),
            None => true,
        }
    }

    /// Gives a port that a forward had to the mappings.
    pub(super) fn unreserve(&self, protocol: Protocol, external: Endpoint) {
        if let Some(pool) = self.ports.get(&(protocol, external.address)) {
            pool.give(external.port);
        }
    }

    /// Number of dynamic mappings.
    pub(super) fn len(&self) -> usize {
        self.by_inside.len()
    }
}

/// Locks of each map; a power of two, as DashMap wants.
const SHARDS: usize = 64;

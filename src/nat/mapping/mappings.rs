//! Dynamic mappings: inside endpoint to external endpoint, alive as long as any session uses them.
//!
//! ```text
//!   by_inside       (protocol, uplink, inside endpoint, [remote]) -> external endpoint, sessions
//!   by_external     (protocol, external endpoint, [remote])       -> key of by_inside
//!   allocators      (protocol, external address)                  -> ports: free and delayed ones
//!   overlap_counts  (protocol, external endpoint)                 -> mappings; only where ports overlap
//! ```
//!
//! The bit of a port in the allocator reserves the port. Where ports may overlap (RFC 7857 section
//! 3), the first mapping on a port takes the bit and the last one gives the bit back. In between,
//! an entry in `by_external` reserves a mapping; its key then contains the remote endpoint that the
//! mapping depends on.
//!
//! Only a miss in the session table uses these maps. Locks are taken in the order by_inside,
//! overlap_counts, by_external, and never while a worker holds a shard of the table. Only the
//! adoption takes them while it holds a pool; their holders take no pool.

use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rand::rngs::StdRng;

use crate::nat::event_channel::event_channel;
use crate::nat::mapping::allocator::{
    PortAllocator, PortAllocators, PortOrigin, PortRequest, allocators,
};
use crate::nat::mapping::events::{MappingChange, MappingEvent, MappingEvents, MappingLog};
use crate::nat::mapping::key::{BorrowedMapping, MappingKey, MappingValue};
use crate::nat::mapping::ports::PortPreference;
use crate::nat::mapping::settings::MappingSettings;
use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::{ExternalAddress, Policy};
use crate::nat::seed::HashKey;
use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;
use crate::values::nat::EndpointDependence;

pub(super) struct Mapping {
    pub(super) external: Endpoint,
    sessions: u32,
    /// Time of the last packet from inside that opened a session or called [`Mappings::refresh`].
    refreshed: Tick,
}

/// No external address has a free port for the mapping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PortsExhaustedOn;

/// The mappings of an instance.
pub(crate) struct Mappings {
    pub(super) by_inside: DashMap<MappingKey, Mapping, HashKey>,
    pub(super) by_external: DashMap<(Protocol, Endpoint, Endpoint), MappingKey, HashKey>,
    pub(super) allocators: ArcSwap<PortAllocators>,
    /// True: freed UDP ports may wait for their last holder.
    delays_ports: bool,
    /// None: every port serves one mapping.
    pub(super) overlap_counts: Option<DashMap<(Protocol, Endpoint), u32, HashKey>>,
    /// With address-dependent filtering: number of sessions of an external endpoint with a remote
    /// address.
    pub(super) peers: DashMap<(Protocol, Endpoint, Ipv4Addr), u32, HashKey>,
    /// Hairpin pinholes: an inside host sent from its external endpoint to another mapping, and
    /// filtering dropped the packet. Until the stored time that mapping may send to the external
    /// endpoint, as a host outside could.
    pub(super) hairpin_pinholes: DashMap<(Protocol, Endpoint, Endpoint), Tick, HashKey>,
    pub(super) settings: ArcSwap<MappingSettings>,
    mapping: EndpointDependence,
    pub(super) filtering: EndpointDependence,
    /// None: nothing reads the log.
    log: ArcSwapOption<MappingLog>,
}

impl Mappings {
    pub(crate) fn new(limits: &Limits, policy: &Policy, forwards: &Forwards, key: HashKey) -> Self {
        let anyone_may_send = limits.filtering == EndpointDependence::EndpointIndependent;
        let delays_ports = anyone_may_send && !limits.port_overlapping;
        let delayed_ports = delays_ports.then_some(limits.delayed_ports);
        let allocator = |protocol, external: &ExternalAddress| {
            PortAllocator::new(
                protocol,
                external,
                limits.ports,
                delayed_ports,
                limits.timeouts,
                policy.has_own_sessions(),
                forwards.owned_ranges(protocol, external.address),
            )
        };
        let allocators = allocators(policy, allocator);
        share_ports(&allocators, forwards);
        let free = allocators.values().map(|allocator| allocator.ports.free() as usize);
        let capacity = free.sum::<usize>().min(limits.sessions as usize);
        Self {
            by_inside: DashMap::with_capacity_and_hasher_and_shard_amount(capacity, key, SHARDS),
            by_external: DashMap::with_capacity_and_hasher_and_shard_amount(capacity, key, SHARDS),
            allocators: ArcSwap::from_pointee(allocators),
            delays_ports,
            overlap_counts: limits
                .port_overlapping
                .then(|| DashMap::with_hasher_and_shard_amount(key, SHARDS)),
            peers: DashMap::with_hasher_and_shard_amount(key, SHARDS),
            hairpin_pinholes: DashMap::with_hasher_and_shard_amount(key, SHARDS),
            settings: ArcSwap::from_pointee(MappingSettings::of(limits)),
            mapping: limits.mapping,
            filtering: limits.filtering,
            log: ArcSwapOption::empty(),
        }
    }

    /// Changes the external addresses. An address that stays keeps its ports as they are. A new
    /// address gets all of its ports; [`Self::claim_for_forward`] takes those of forwards.
    pub(crate) fn set_addresses(&self, policy: &Policy, forwards: &Forwards) {
        let before = self.allocators.load();
        let allocators = allocators(policy, |protocol, external| {
            match before.get(&(protocol, external.address)) {
                Some(known) => Arc::clone(known),
                None => {
                    let settings = self.settings();
                    let ports = settings.ports;
                    let delayed = self.delays_ports.then_some(settings.delayed_ports);
                    let own = policy.has_own_sessions();
                    PortAllocator::new(
                        protocol,
                        external,
                        ports,
                        delayed,
                        settings.timeouts,
                        own,
                        std::iter::empty(),
                    )
                }
            }
        });
        share_ports(&allocators, forwards);
        self.allocators.store(Arc::new(allocators));
    }

    /// Logs beginnings and ends from now on; at most `capacity` events wait for the reader.
    pub(crate) fn log(&self, capacity: usize) -> MappingEvents {
        let (log, events) = event_channel(capacity);
        self.log.store(Some(Arc::new(log)));
        events
    }

    /// Ends the log. Its reader gets the events that wait, and then the end.
    pub(crate) fn end_log(&self) {
        self.log.store(None);
    }

    /// Number of events lost because the reader was slow.
    pub(crate) fn events_lost(&self) -> u64 {
        self.log.load().as_ref().map_or(0, |log| log.lost())
    }

    fn note(&self, change: MappingChange, key: &MappingKey, external: Endpoint, at: Tick) {
        if let Some(log) = &*self.log.load() {
            let MappingKey { protocol, inside, .. } = *key;
            log.send(MappingEvent { change, protocol, inside, external, at });
        }
    }

    /// Key of the mapping by which `inside` sends to `remote` over `uplink`.
    pub(crate) fn key(
        &self,
        protocol: Protocol,
        uplink: u8,
        inside: Endpoint,
        remote: Endpoint,
    ) -> MappingKey {
        MappingKey { protocol, uplink, inside, remote: self.mapping_scope(remote) }
    }

    /// Whether mappings depend on a part of the remote endpoint.
    pub(crate) fn depend_on_remote(&self) -> bool {
        self.mapping != EndpointDependence::EndpointIndependent
    }

    /// Part of a remote endpoint that mappings depend on.
    fn mapping_scope(&self, remote: Endpoint) -> Endpoint {
        match self.mapping {
            EndpointDependence::EndpointIndependent => ANY,
            EndpointDependence::AddressDependent => Endpoint::new(remote.address, 0),
            EndpointDependence::AddressAndPortDependent => remote,
        }
    }

    /// Key in by_external of an external endpoint and, where ports overlap, of a remote endpoint.
    pub(super) fn external_key(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) -> (Protocol, Endpoint, Endpoint) {
        let remote = if self.overlap_counts.is_some() { self.mapping_scope(remote) } else { ANY };
        (protocol, external, remote)
    }

    /// Holds a mapping for one more session and returns its external endpoint. A new mapping is
    /// made on the first of these external addresses that has a port for it.
    pub(crate) fn acquire(
        &self,
        key: MappingKey,
        request: PortRequest,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
        random: &mut StdRng,
        now: Tick,
    ) -> Result<Endpoint, PortsExhaustedOn> {
        match self.by_inside.entry(key) {
            // The external address was removed; the mapping ends with its last session.
            Entry::Occupied(entry) if !self.has_address(entry.get().external.address) => {
                Err(PortsExhaustedOn)
            }
            Entry::Occupied(mut entry) => {
                let mapping = entry.get_mut();
                mapping.sessions += 1;
                mapping.refreshed = now;
                Ok(mapping.external)
            }
            Entry::Vacant(entry) => {
                let allocate = |address| {
                    let take = |ports: &PortAllocator, preference, random: &mut StdRng| {
                        ports.take(&key, request, preference, &mut &ports.ports, random, now)
                    };
                    self.allocate_on(address, &key, random, take, |shared| self.share(shared, key))
                };
                let (external, origin) =
                    addresses.into_iter().find_map(allocate).ok_or(PortsExhaustedOn)?;
                if origin != PortOrigin::Shared {
                    self.enter_external(external, key);
                }
                self.note(MappingChange::Begins, entry.key(), external, now);
                entry.insert(Mapping { external, sessions: 1, refreshed: now });
                Ok(external)
            }
        }
    }

    pub(super) fn has_address(&self, external: Ipv4Addr) -> bool {
        self.allocators.load().contains_key(&(Protocol::TCP, external))
    }

    /// Finds a port on an external address for a new mapping: one that `take` takes, or else, where
    /// ports overlap, one that `share` shares.
    pub(super) fn allocate_on(
        &self,
        address: Ipv4Addr,
        key: &MappingKey,
        random: &mut StdRng,
        take: impl FnOnce(&PortAllocator, PortPreference, &mut StdRng) -> Option<(u16, PortOrigin)>,
        share: impl Fn(Endpoint) -> bool,
    ) -> Option<(Endpoint, PortOrigin)> {
        let allocators = self.allocators.load();
        let allocator = allocators.get(&(key.protocol, address))?;
        let preference = self.preference(key.protocol, key.inside.port);
        if let Some((port, origin)) = take(allocator, preference, random) {
            return Some((Endpoint::new(address, port), origin));
        }
        self.overlap_counts.as_ref()?;
        let mut candidates = allocator.ports.candidates(preference, random);
        candidates
            .find(|port| share(Endpoint::new(address, *port)))
            .map(|port| (Endpoint::new(address, port), PortOrigin::Shared))
    }

    /// Returns what the external port of an inside port should share with it. RFC 4787 REQ-4 wants
    /// parity kept for UDP; RFC 6056 wants the rest random.
    pub(super) fn preference(&self, protocol: Protocol, inside_port: u16) -> PortPreference {
        match protocol {
            Protocol::UDP if self.settings.load().keeps_parity => {
                PortPreference::ClassAndParity(inside_port)
            }
            Protocol::TCP | Protocol::UDP => PortPreference::Class(inside_port),
            _ => PortPreference::None,
        }
    }

    /// Enters the first mapping on a port whose bit this mapping has taken.
    fn enter_external(&self, external: Endpoint, key: MappingKey) {
        if let Some(overlap_counts) = &self.overlap_counts {
            overlap_counts.insert((key.protocol, external), 1);
        }
        self.by_external.insert(self.external_key(key.protocol, external, key.remote), key);
    }

    /// Puts a mapping on a port of other mappings, if its remote endpoint distinguishes it from
    /// them.
    fn share(&self, external: Endpoint, key: MappingKey) -> bool {
        let Some(overlap_counts) = &self.overlap_counts else { return false };
        let Some(mut count) = overlap_counts.get_mut(&(key.protocol, external)) else {
            return false;
        };
        match self.by_external.entry(self.external_key(key.protocol, external, key.remote)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(key);
                *count += 1;
                true
            }
        }
    }

    /// Holds the mapping at an external endpoint towards `remote` for one more session.
    pub(crate) fn borrow(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) -> Option<BorrowedMapping> {
        let key = *self.by_external.get(&self.external_key(protocol, external, remote))?;
        let mut mapping = self.by_inside.get_mut(&key)?;
        // Between the two lookups the mapping may have ended and begun again on another port.
        (mapping.external == external).then(|| {
            mapping.sessions += 1;
            BorrowedMapping { mapping: key, inside: key.inside, refreshed: mapping.refreshed }
        })
    }

    /// The mapping of a key.
    pub(crate) fn by_key(&self, key: MappingKey) -> Option<MappingValue> {
        let mapping = self.by_inside.get(&key)?;
        Some(MappingValue { key, external: mapping.external, refreshed: mapping.refreshed })
    }

    /// The mapping at an external endpoint towards `remote`.
    pub(crate) fn at_external(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) -> Option<MappingValue> {
        let key = *self.by_external.get(&self.external_key(protocol, external, remote))?;
        self.by_key(key).filter(|mapping| mapping.external == external)
    }

    /// Whether mappings here depend on as much of the remote endpoint as `key`, so that a session
    /// with `remote` finds the mapping by its key and by its external endpoint.
    pub(crate) fn has_scope_of(&self, key: &MappingKey, remote: Endpoint) -> bool {
        let scope = self.mapping_scope(remote);
        key.remote == self.mapping_scope(key.remote)
            && (key.remote == scope || self.overlap_counts.is_none())
    }

    /// Holds a mapping of another translator for one more session; a new one gets the same port.
    ///
    /// # Errors
    /// The mapping's key has another external endpoint here, or its port is not free.
    pub(crate) fn restore(
        &self,
        value: MappingValue,
        keeps_port: bool,
        now: Tick,
    ) -> Result<(), PortsExhaustedOn> {
        let MappingValue { key, external, refreshed } = value;
        match self.by_inside.entry(key) {
            Entry::Occupied(mut entry) if entry.get().external == external => {
                let mapping = entry.get_mut();
                mapping.sessions += 1;
                if refreshed.reached(mapping.refreshed) {
                    mapping.refreshed = refreshed;
                }
                Ok(())
            }
            Entry::Occupied(_) => Err(PortsExhaustedOn),
            Entry::Vacant(entry) => {
                let allocators = self.allocators.load();
                let allocator = allocators.get(&(key.protocol, external.address));
                if allocator.is_some_and(|ports| ports.take_exact(&key, keeps_port, external.port))
                {
                    self.enter_external(external, key);
                } else if !self.share(external, key) {
                    return Err(PortsExhaustedOn);
                }
                self.note(MappingChange::Begins, &key, external, now);
                entry.insert(Mapping { external, sessions: 1, refreshed });
                Ok(())
            }
        }
    }

    /// Notes that the inside sent over a mapping, if there is such a mapping.
    pub(crate) fn refresh(&self, key: MappingKey, now: Tick) {
        if let Some(mut mapping) = self.by_inside.get_mut(&key) {
            mapping.refreshed = now;
        }
    }

    /// Releases one session's hold on a mapping. The last release ends the mapping and frees its
    /// port.
    pub(crate) fn release(&self, key: MappingKey, now: Tick) {
        let ended = self.by_inside.remove_if_mut(&key, |_, mapping| {
            mapping.sessions -= 1;
            mapping.sessions == 0
        });
        let Some((_, Mapping { external, .. })) = ended else { return };
        self.note(MappingChange::Ends, &key, external, now);
        let is_last = match &self.overlap_counts {
            None => {
                self.by_external.remove(&self.external_key(key.protocol, external, key.remote));
                true
            }
            Some(overlap_counts) => overlap_counts
                .remove_if_mut(&(key.protocol, external), |_, count| {
                    self.by_external.remove(&self.external_key(key.protocol, external, key.remote));
                    *count -= 1;
                    *count == 0
                })
                .is_some(),
        };
        if is_last
            && let Some(allocator) = self.allocators.load().get(&(key.protocol, external.address))
        {
            allocator.free(external.port, key, now);
        }
    }

    /// [`Self::release`] by the external endpoint and the remote one.
    pub(crate) fn release_external(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) {
        let key =
            self.by_external.get(&self.external_key(protocol, external, remote)).map(|key| *key);
        if let Some(key) = key {
            self.release(key, now);
        }
    }

    /// Whether there is a mapping of this key.
    pub(crate) fn contains(&self, key: MappingKey) -> bool {
        self.by_inside.contains_key(&key)
    }

    /// Whether there is a mapping at an external endpoint.
    pub(crate) fn exists(&self, protocol: Protocol, external: Endpoint) -> bool {
        match &self.overlap_counts {
            None => self.by_external.contains_key(&self.external_key(protocol, external, ANY)),
            Some(overlap_counts) => overlap_counts.contains_key(&(protocol, external)),
        }
    }

    /// Takes a port from the mappings, for a forward; false while a mapping has the port. A port
    /// outside the range, or one claimed before, needs no claim: true.
    pub(crate) fn claim_for_forward(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.allocators
            .load()
            .get(&(protocol, external.address))
            .is_none_or(|allocator| allocator.claim_for_forward(external.port))
    }

    /// Gives a port that a forward had back to the mappings.
    pub(crate) fn return_from_forward(&self, protocol: Protocol, external: Endpoint) {
        if let Some(allocator) = self.allocators.load().get(&(protocol, external.address)) {
            allocator.return_from_forward(external.port);
        }
    }

    /// Excludes the ports that the host uses, on every address that is assigned to the host; see
    /// [`PortPool::exclude`](crate::nat::mapping::ports::PortPool::exclude).
    pub(crate) fn exclude(&self, protocol: Protocol, listening: &[u16], connected: &[u16]) {
        for ((of, _), allocator) in self.allocators.load().iter() {
            if *of == protocol {
                allocator.ports.exclude(listening, connected);
            }
        }
    }

    /// Number of dynamic mappings.
    pub(crate) fn len(&self) -> usize {
        self.by_inside.len()
    }
}

#[cfg(test)]
impl Mapping {
    /// The values, to compare.
    pub(super) fn values(&self) -> (Endpoint, u32, Tick) {
        (self.external, self.sessions, self.refreshed)
    }
}

/// Tells the pools which ports forwards share with mappings.
fn share_ports(allocators: &PortAllocators, forwards: &Forwards) {
    for ((protocol, address), allocator) in allocators {
        allocator.ports.share(forwards.shared_ranges(*protocol, *address));
    }
}

/// Remote endpoint of a mapping that does not depend on the remote endpoint.
const ANY: Endpoint = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
/// Locks of each map; a power of two, as DashMap requires.
const SHARDS: usize = 64;

//! Dynamic mappings: inside endpoint to external endpoint, alive as long as any session uses them.
//!
//! ```text
//!   by_inside    (protocol, uplink, inside endpoint, [remote]) -> external endpoint, number of sessions
//!   by_external  (protocol, external endpoint, [remote])       -> key of by_inside
//!   supplies     (protocol, external address)                  -> ports: free ones, and those that rest
//!   sharers      (protocol, external endpoint)                 -> number of mappings; only where ports overlap
//! ```
//!
//! A port is reserved by its bit in the supply. Where ports may overlap (RFC 7857 section 3), the first mapping on a port
//! takes the bit and the last one gives it back; in between, a mapping is reserved by its place in by_external, which
//! then knows the remote endpoint that the mapping depends on.
//!
//! Only a miss in the session table comes here. Locks: by_inside, sharers, by_external, in this order, never while holding
//! a pool or shard of the table.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rand::rngs::StdRng;

use crate::nat::mapping::events::{MappingChange, MappingEvent, MappingEvents, MappingLog};
use crate::nat::mapping::key::{BorrowedMapping, MappingKey};
use crate::nat::mapping::ports::{PortPool, PortPreference};
use crate::nat::mapping::reuse_delay::ReuseDelay;
use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::settings::{EndpointDependence, ExternalAddress, Settings, Timeouts};
use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;

struct Mapping {
    external: Endpoint,
    sessions: u32,
    /// When the inside sent over it last, as far as [`Mappings::refresh`] is told.
    refreshed: Tick,
}

/// No port is free on the external address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PortsExhaustedOn;

/// The mappings of a box.
pub(crate) struct Mappings {
    by_inside: DashMap<MappingKey, Mapping, RandomState>,
    by_external: DashMap<(Protocol, Endpoint, Endpoint), MappingKey, RandomState>,
    allocators: ArcSwap<PortAllocators>,
    /// Of what a new supply is made.
    ports: (u16, u16),
    /// Freed UDP ports that rest on each address; None: they are free at once.
    delayed_ports: Option<u32>,
    /// None: every port serves one mapping.
    overlap_counts: Option<DashMap<(Protocol, Endpoint), u32, RandomState>>,
    /// With address-dependent filtering: how many sessions a mapping has with a remote address.
    peers: DashMap<(Protocol, Endpoint, Ipv4Addr), u32, RandomState>,
    /// An inside host spoke from its external endpoint to another mapping, which did not let it in. A host outside would
    /// have been free to answer now; so is this one, until then. At most [`MAX_PINHOLES`].
    hairpin_pinholes: DashMap<(Protocol, Endpoint, Endpoint), Tick, RandomState>,
    timeouts: Timeouts,
    mapping: EndpointDependence,
    filtering: EndpointDependence,
    keeps_parity: bool,
    /// None: nobody wants to know.
    log: Option<MappingLog>,
}

type PortAllocators = HashMap<(Protocol, Ipv4Addr), Arc<PortAllocator>>;

/// The ports of one protocol on one external address.
struct PortAllocator {
    ports: PortPool,
    /// None: freed ports are free at once.
    resting: Option<ReuseDelay>,
}

impl Mappings {
    pub(crate) fn new(settings: &Settings, forwards: &Forwards) -> Self {
        let anyone_may_send = settings.filtering == EndpointDependence::EndpointIndependent;
        let rests = anyone_may_send
            && !settings.port_overlapping
            && settings.timeouts.port_reuse_delay.0 != 0;
        let delayed_ports = rests.then_some(settings.delayed_ports);
        let is_published = |protocol, external| forwards.target(protocol, external).is_some();
        let supply = |protocol, external: &ExternalAddress| {
            PortAllocator::new(
                protocol,
                external,
                settings.ports,
                delayed_ports,
                settings.timeouts,
                is_published,
            )
        };
        let supplies = supplies(settings, supply);
        let free = supplies.values().map(|supply| supply.ports.free() as usize);
        let room = free.sum::<usize>().min(settings.sessions as usize);
        let map = || RandomState::new();
        Self {
            by_inside: DashMap::with_capacity_and_hasher_and_shard_amount(room, map(), SHARDS),
            by_external: DashMap::with_capacity_and_hasher_and_shard_amount(room, map(), SHARDS),
            allocators: ArcSwap::from_pointee(supplies),
            ports: settings.ports,
            delayed_ports,
            overlap_counts: settings
                .port_overlapping
                .then(|| DashMap::with_hasher_and_shard_amount(map(), SHARDS)),
            peers: DashMap::with_hasher_and_shard_amount(map(), SHARDS),
            hairpin_pinholes: DashMap::with_hasher_and_shard_amount(map(), SHARDS),
            timeouts: settings.timeouts,
            mapping: settings.mapping,
            filtering: settings.filtering,
            keeps_parity: settings.port_parity,
            log: None,
        }
    }

    /// Takes in other external addresses. Those that stay keep their ports as they are; new ones get all of theirs, and those of
    /// forwards are for [`Self::claim_for_forward`].
    pub(crate) fn set_addresses(&self, settings: &Settings) {
        let before = self.allocators.load();
        self.allocators.store(Arc::new(supplies(settings, |protocol, external| {
            match before.get(&(protocol, external.address)) {
                Some(known) => Arc::clone(known),
                None => {
                    let (ports, resting) = (self.ports, self.delayed_ports);
                    PortAllocator::new(protocol, external, ports, resting, self.timeouts, |_, _| {
                        false
                    })
                }
            }
        })));
    }

    /// Has beginnings and ends told from now on, with room for so many unread events.
    pub(crate) fn log(&mut self, room: usize) -> MappingEvents {
        let (log, events) = MappingLog::new(room);
        self.log = Some(log);
        events
    }

    /// Events that found no reader in time.
    pub(crate) fn events_lost(&self) -> u64 {
        self.log.as_ref().map_or(0, MappingLog::lost)
    }

    fn note(&self, change: MappingChange, key: &MappingKey, external: Endpoint, at: Tick) {
        if let Some(log) = &self.log {
            let MappingKey { protocol, inside, .. } = *key;
            log.note(MappingEvent { change, protocol, inside, external, at });
        }
    }

    /// The key under which `inside` talks to `remote` over `uplink`.
    pub(crate) fn key(
        &self,
        protocol: Protocol,
        uplink: u8,
        inside: Endpoint,
        remote: Endpoint,
    ) -> MappingKey {
        MappingKey { protocol, uplink, inside, remote: self.mapping_scope(remote) }
    }

    /// The part of a remote endpoint that mappings depend on.
    fn mapping_scope(&self, remote: Endpoint) -> Endpoint {
        match self.mapping {
            EndpointDependence::EndpointIndependent => ANY,
            EndpointDependence::AddressDependent => Endpoint::new(remote.address, 0),
            EndpointDependence::AddressAndPortDependent => remote,
        }
    }

    /// Where by_external has the mapping of an external endpoint and, where that matters, a remote one.
    fn external_key(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) -> (Protocol, Endpoint, Endpoint) {
        let remote = if self.overlap_counts.is_some() { self.mapping_scope(remote) } else { ANY };
        (protocol, external, remote)
    }

    /// The external endpoint of a mapping, held for one more session. A new mapping is made on the first of these external
    /// addresses that has a port for it.
    pub(crate) fn acquire(
        &self,
        key: MappingKey,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
        random: &mut StdRng,
        now: Tick,
    ) -> Result<Endpoint, PortsExhaustedOn> {
        match self.by_inside.entry(key) {
            // Its external address is gone; it will be free when its last session has ended.
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
                let mut addresses = addresses.into_iter();
                let external = addresses
                    .find_map(|address| self.allocate_on(address, key, random, now))
                    .ok_or(PortsExhaustedOn)?;
                self.note(MappingChange::Begins, entry.key(), external, now);
                entry.insert(Mapping { external, sessions: 1, refreshed: now });
                Ok(external)
            }
        }
    }

    fn has_address(&self, external: Ipv4Addr) -> bool {
        self.allocators.load().contains_key(&(Protocol::TCP, external))
    }

    /// Gives a new mapping a port on an external address, if one can be had.
    fn allocate_on(
        &self,
        address: Ipv4Addr,
        key: MappingKey,
        random: &mut StdRng,
        now: Tick,
    ) -> Option<Endpoint> {
        let supplies = self.allocators.load();
        let supply = supplies.get(&(key.protocol, address))?;
        // RFC 4787 REQ-4 wants parity kept for UDP; RFC 6056 wants the rest random.
        let likeness = match key.protocol {
            Protocol::UDP if self.keeps_parity => PortPreference::ClassAndParity(key.inside.port),
            Protocol::TCP | Protocol::UDP => PortPreference::Class(key.inside.port),
            _ => PortPreference::None,
        };
        let Some(port) = supply.take(&key, likeness, random, now) else {
            self.overlap_counts.as_ref()?;
            return supply
                .ports
                .candidates(likeness, random)
                .map(|port| Endpoint::new(address, port))
                .find(|shared| self.share(*shared, key));
        };
        let external = Endpoint::new(address, port);
        if let Some(sharers) = &self.overlap_counts {
            sharers.insert((key.protocol, external), 1);
        }
        self.by_external.insert(self.external_key(key.protocol, external, key.remote), key);
        Some(external)
    }

    /// Puts a mapping on a port that others have, if it can be told from them by its remote endpoint.
    fn share(&self, external: Endpoint, key: MappingKey) -> bool {
        let Some(sharers) = &self.overlap_counts else { return false };
        let Some(mut count) = sharers.get_mut(&(key.protocol, external)) else { return false };
        match self.by_external.entry(self.external_key(key.protocol, external, key.remote)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(key);
                *count += 1;
                true
            }
        }
    }

    /// The mapping behind an external endpoint towards `remote`, held for one more session.
    pub(crate) fn borrow(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) -> Option<BorrowedMapping> {
        let key = *self.by_external.get(&self.external_key(protocol, external, remote))?;
        let mut mapping = self.by_inside.get_mut(&key)?;
        // Between the two look-ups the mapping may have ended, and begun anew under another port.
        (mapping.external == external).then(|| {
            mapping.sessions += 1;
            BorrowedMapping { mapping: key, inside: key.inside, refreshed: mapping.refreshed }
        })
    }

    /// Notes that the inside sent over a mapping, if there is one.
    pub(crate) fn refresh(&self, key: MappingKey, now: Tick) {
        if let Some(mut mapping) = self.by_inside.get_mut(&key) {
            mapping.refreshed = now;
        }
    }

    /// Lets one session's hold on a mapping go; the last one ends it and frees its port.
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
            Some(sharers) => sharers
                .remove_if_mut(&(key.protocol, external), |_, count| {
                    self.by_external.remove(&self.external_key(key.protocol, external, key.remote));
                    *count -= 1;
                    *count == 0
                })
                .is_some(),
        };
        if is_last
            && let Some(supply) = self.allocators.load().get(&(key.protocol, external.address))
        {
            supply.free_port(external.port, key, now);
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

    /// Whether there is such a mapping.
    pub(crate) fn contains(&self, key: MappingKey) -> bool {
        self.by_inside.contains_key(&key)
    }

    /// Whether there is a mapping at an external endpoint.
    pub(crate) fn exists(&self, protocol: Protocol, external: Endpoint) -> bool {
        match &self.overlap_counts {
            None => self.by_external.contains_key(&self.external_key(protocol, external, ANY)),
            Some(sharers) => sharers.contains_key(&(protocol, external)),
        }
    }

    /// Whether filtering lets `remote` send to the mapping at `external` without a session of its own.
    pub(crate) fn allows(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> bool {
        let has_knocked = || {
            let until = self.hairpin_pinholes.get(&(protocol, external, self.filter_scope(remote)));
            until.is_some_and(|until| !now.reached(*until))
        };
        match self.filtering {
            EndpointDependence::EndpointIndependent => true,
            EndpointDependence::AddressDependent => {
                self.peers.contains_key(&(protocol, external, remote.address)) || has_knocked()
            }
            EndpointDependence::AddressAndPortDependent => has_knocked(),
        }
    }

    /// Notes that an inside host spoke in vain from `external` to the mapping at `target`.
    pub(crate) fn open_pinhole(
        &self,
        protocol: Protocol,
        external: Endpoint,
        target: Endpoint,
        now: Tick,
    ) {
        let patience =
            if protocol == Protocol::TCP { self.timeouts.tcp_syn } else { self.timeouts.udp };
        if self.hairpin_pinholes.len() < MAX_PINHOLES {
            self.hairpin_pinholes
                .insert((protocol, external, self.filter_scope(target)), now.after(patience));
        }
    }

    /// Forgets those who were not answered in time.
    pub(crate) fn expire_pinholes(&self, now: Tick) {
        if !self.hairpin_pinholes.is_empty() {
            self.hairpin_pinholes.retain(|_, until| !now.reached(*until));
        }
    }

    /// The part of a remote endpoint that filtering looks at.
    fn filter_scope(&self, remote: Endpoint) -> Endpoint {
        match self.filtering {
            EndpointDependence::EndpointIndependent
            | EndpointDependence::AddressAndPortDependent => remote,
            EndpointDependence::AddressDependent => Endpoint::new(remote.address, 0),
        }
    }

    /// Notes that the inside opened a session from `external` to `remote`.
    pub(crate) fn add_peer(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == EndpointDependence::AddressDependent {
            *self.peers.entry((protocol, external, remote.address)).or_insert(0) += 1;
        }
    }

    /// Takes back one [`Self::add_peer`].
    pub(crate) fn remove_peer(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == EndpointDependence::AddressDependent {
            self.peers.remove_if_mut(&(protocol, external, remote.address), |_, sessions| {
                *sessions -= 1;
                *sessions == 0
            });
        }
    }

    /// Keeps a port from mappings, for a forward; false while a mapping has it. A port outside the range, or one that was
    /// kept before, is kept already.
    pub(crate) fn claim_for_forward(&self, protocol: Protocol, external: Endpoint) -> bool {
        self.allocators
            .load()
            .get(&(protocol, external.address))
            .is_none_or(|supply| supply.keep(external.port))
    }

    /// Gives a port that a forward had to the mappings.
    pub(crate) fn return_from_forward(&self, protocol: Protocol, external: Endpoint) {
        if let Some(supply) = self.allocators.load().get(&(protocol, external.address)) {
            supply.ports.give_back(external.port);
        }
    }

    /// See [`PortPool::bar`]; for services, on every address of the host's own.
    pub(crate) fn exclude(&self, ports: &[u16]) {
        for supply in self.allocators.load().values() {
            supply.ports.bar(ports);
        }
    }

    /// Number of dynamic mappings.
    pub(crate) fn len(&self) -> usize {
        self.by_inside.len()
    }
}

/// A supply for each protocol with ports on each external address.
fn supplies(
    settings: &Settings,
    supply: impl Fn(Protocol, &ExternalAddress) -> Arc<PortAllocator>,
) -> PortAllocators {
    let mut supplies = HashMap::new();
    for external in settings.uplinks.iter().flat_map(|uplink| &uplink.addresses) {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP] {
            supplies.insert((protocol, external.address), supply(protocol, external));
        }
    }
    supplies
}

impl PortAllocator {
    fn new(
        protocol: Protocol,
        external: &ExternalAddress,
        ports: (u16, u16),
        resting: Option<u32>,
        timeouts: Timeouts,
        is_published: impl Fn(Protocol, Endpoint) -> bool,
    ) -> Arc<Self> {
        // Query identifiers are nobody's service: all of them are dynamic.
        let has_services = protocol != Protocol::ICMP;
        let (first, last) = if has_services { ports } else { (0, u16::MAX) };
        let hosts = if has_services { &external.reserved[..] } else { &[] };
        let ports = PortPool::new(first, last, hosts, |port| {
            has_services && is_published(protocol, Endpoint::new(external.address, port))
        });
        let resting = resting.filter(|_| protocol == Protocol::UDP);
        let resting = resting.map(|most| ReuseDelay::new(timeouts.port_reuse_delay, most));
        Arc::new(Self { ports, resting })
    }

    /// A port for a new mapping: the one that rests for it, or a random free one.
    fn take(
        &self,
        key: &MappingKey,
        likeness: PortPreference,
        random: &mut StdRng,
        now: Tick,
    ) -> Option<u16> {
        if let Some(resting) = &self.resting {
            match resting.reclaim(key) {
                Some(port) if self.ports.is_excluded(port) => self.ports.release(port),
                Some(port) => return Some(port),
                None => {}
            }
            resting.release_due(now, |port| self.ports.release(port));
        }
        self.ports.take(likeness, random)
    }

    /// Takes the port of an ended mapping back.
    fn free_port(&self, port: u16, key: MappingKey, now: Tick) {
        match &self.resting {
            None => self.ports.release(port),
            Some(resting) => resting.quarantine(port, key, now, |port| self.ports.release(port)),
        }
    }

    fn keep(&self, port: u16) -> bool {
        self.ports.claim(port)
            || self.resting.as_ref().is_some_and(|resting| resting.take_over(port))
    }
}

/// The remote endpoint of a mapping that does not depend on one.
const ANY: Endpoint = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
/// Inside hosts that wait for each other's answers at one time; more are refused as ever.
const MAX_PINHOLES: usize = 4096;
/// Locks of each map; a power of two, as DashMap wants.
const SHARDS: usize = 64;

//! Port allocators: the ports of one protocol on one external address, free and delayed.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use rand::rngs::StdRng;

use crate::nat::mapping::held_ports::HeldPorts;
use crate::nat::mapping::key::MappingKey;
use crate::nat::mapping::ports::{PortPool, PortPreference};
use crate::nat::mapping::reuse_delay::ReuseDelay;
use crate::nat::mapping::taken_ports::DelayedPorts;
use crate::nat::policy::initiator::Initiator;
use crate::nat::policy::limits::Timeouts;
use crate::nat::policy::rules::{ExternalAddress, Policy};
use crate::packet::Protocol;
use crate::time::{Span, Tick};
use crate::values::nat::PortRange;

/// The allocators of an instance, by protocol and external address.
pub(crate) type PortAllocators = HashMap<(Protocol, Ipv4Addr), Arc<PortAllocator>>;

/// Ports of one protocol on one external address.
pub(crate) struct PortAllocator {
    pub(crate) ports: PortPool,
    /// Ports that sessions hold without a mapping.
    held: Mutex<HeldPorts>,
    /// Number of free ports that only the box itself gets.
    kept_for_box: AtomicU32,
    /// True: the box itself opens sessions.
    keeps_for_box: bool,
    /// False: every port is dynamic, as with the identifiers of queries.
    has_services: bool,
    /// None: a freed port is free at once, whatever the limits.
    delay: Option<ReuseDelay>,
}

/// What decides which ports a new mapping may get, besides its key.
#[derive(Clone, Copy)]
pub(crate) struct PortRequest {
    /// True: the mapping gets its inside port where that is free.
    pub(crate) keeps_port: bool,
    /// The initiator of the mapping's first session.
    pub(crate) initiator: Initiator,
}

/// How a mapping or a session has got its external port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortOrigin {
    /// The mapping exists.
    Present,
    /// The port has waited for its last holder.
    Waiting,
    /// It is the inside port.
    Kept,
    /// It is a random free port.
    Random,
    /// Mappings towards other destinations share the port.
    Shared,
}

/// Makes an allocator for each protocol with ports on each external address.
pub(crate) fn allocators(
    policy: &Policy,
    allocator: impl Fn(Protocol, &ExternalAddress) -> Arc<PortAllocator>,
) -> PortAllocators {
    let mut allocators = HashMap::new();
    for external in policy.uplinks.iter().flat_map(|uplink| &uplink.addresses) {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP] {
            allocators.insert((protocol, external.address), allocator(protocol, external));
        }
    }
    allocators
}

impl PortAllocator {
    /// Makes an allocator. `delayed_ports` is the number of freed UDP ports that wait for their
    /// last holder; None: a freed port is free at once. `keeps_for_box`: the box itself opens
    /// sessions. `is_owned` names the ports of forwards that do not share them.
    pub(crate) fn new(
        protocol: Protocol,
        external: &ExternalAddress,
        ports: PortRange,
        delayed_ports: Option<u32>,
        timeouts: Timeouts,
        keeps_for_box: bool,
        owned: impl Iterator<Item = PortRange>,
    ) -> Arc<Self> {
        // No service listens at a query identifier: all identifiers are dynamic.
        let has_services = protocol != Protocol::ICMP;
        let ports = if has_services { ports } else { PortRange::ALL };
        let hosts = if has_services { &external.reserved[..] } else { &[] };
        let ports = PortPool::new(ports, hosts, owned.filter(|_| has_services));
        let delayed_ports = delayed_ports.filter(|_| protocol == Protocol::UDP);
        let delay = delayed_ports.map(|most| {
            let (delay, most) = reuse_delay(most, timeouts);
            ReuseDelay::new(delay, most)
        });
        let kept = if keeps_for_box { kept_for_box(ports.free()) } else { 0 };
        let (held, kept_for_box) = (Mutex::default(), AtomicU32::new(kept));
        Arc::new(Self { ports, held, kept_for_box, keeps_for_box, has_services, delay })
    }

    /// Changes the range of dynamic ports.
    pub(super) fn set_range(&self, range: PortRange) {
        if self.has_services {
            self.ports.set_range(range);
            let kept = if self.keeps_for_box { kept_for_box(self.ports.free()) } else { 0 };
            self.kept_for_box.store(kept, Relaxed);
        }
    }

    /// Changes the number of freed ports that wait, and their delay.
    pub(super) fn set_delay(&self, delayed_ports: u32, timeouts: Timeouts) {
        if let Some(waiting) = &self.delay {
            let (delay, most) = reuse_delay(delayed_ports, timeouts);
            waiting.set(delay, most, |port| self.ports.release(port));
        }
    }

    /// Takes a port for a new mapping: the one that waits for the mapping's holder, the inside port
    /// if the mapping keeps ports, or a random free one. `ports` says which ones are free, and
    /// takes the port.
    pub(crate) fn take(
        &self,
        key: &MappingKey,
        PortRequest { keeps_port, initiator }: PortRequest,
        preference: PortPreference,
        ports: &mut impl DelayedPorts,
        random: &mut StdRng,
        now: Tick,
    ) -> Option<(u16, PortOrigin)> {
        if let Some(delay) = &self.delay {
            match ports.reclaim(delay, key) {
                Some(port) if self.ports.is_used(port) => ports.release(port),
                Some(port) => return Some((port, PortOrigin::Waiting)),
                None => {}
            }
            ports.release_due(delay, key, now);
        }
        // Without a port, a health check would take a crowded uplink for a dead one.
        let left = initiator.must_leave(self.kept_for_box.load(Relaxed));
        let is_crowded = left != 0 && ports.free() <= left;
        let inside = key.inside.port;
        let may_keep = keeps_port && !(is_crowded && self.ports.is_dynamic(inside));
        if may_keep && self.ports.take_kept(inside, ports) {
            return Some((inside, PortOrigin::Kept));
        }
        if is_crowded {
            return None;
        }
        self.ports.choose(preference, ports, random).map(|port| (port, PortOrigin::Random))
    }

    /// Takes this very port for a restored mapping; false when the port is not free for the
    /// mapping. Only a mapping that keeps its inside port may have a port outside of the range.
    pub(crate) fn take_exact(&self, key: &MappingKey, keeps_port: bool, port: u16) -> bool {
        let delayed = self.delay.as_ref().is_some_and(|delay| delay.reclaim_exact(key, port));
        let may_have = self.ports.is_dynamic(port) || keeps_port && port == key.inside.port;
        delayed || may_have && self.ports.reserve(port)
    }

    /// Takes the port of an ended mapping back.
    pub(crate) fn free(&self, port: u16, key: MappingKey, now: Tick) {
        match &self.delay {
            None => self.ports.release(port),
            Some(delay) => delay.quarantine(port, key, now, |port| self.ports.release(port)),
        }
    }

    /// Holds a port for one more session; false when the host or a mapping has the port.
    pub(super) fn hold(&self, port: u16) -> bool {
        !self.ports.is_hosts(port)
            && (!self.ports.has(port) || self.held.lock().hold(port, &self.ports))
    }

    /// Reports whether [`Self::hold`] would succeed now.
    pub(super) fn may_hold(&self, port: u16) -> bool {
        !self.ports.is_hosts(port)
            && (!self.ports.has(port) || self.ports.is_free(port) || self.is_held(port))
    }

    /// Reports whether a session holds a port.
    pub(super) fn is_held(&self, port: u16) -> bool {
        self.held.lock().has(port)
    }

    /// Holds a random free port for a session.
    pub(super) fn hold_any(&self, preference: PortPreference, random: &mut StdRng) -> Option<u16> {
        self.held.lock().hold_any(&self.ports, preference, random)
    }

    /// Releases a port that a session held.
    pub(super) fn release_held(&self, port: u16) {
        self.held.lock().release(port, &self.ports);
    }

    /// Takes a port from the mappings, for a forward; false while a mapping has the port.
    pub(crate) fn claim_for_forward(&self, port: u16) -> bool {
        self.held.lock().claim(port)
            || self.ports.claim(port)
            || self.delay.as_ref().is_some_and(|delay| delay.take_over(port))
    }

    /// Returns a port of a former forward to the mappings.
    pub(crate) fn return_from_forward(&self, port: u16) {
        if !self.held.lock().unclaim(port) {
            self.ports.give_back(port);
        }
    }
}

/// Returns the delay of freed ports, and how many may wait.
fn reuse_delay(delayed_ports: u32, timeouts: Timeouts) -> (Span, u32) {
    timeouts.port_reuse_delay.map_or((Span(0), 0), |delay| (delay, delayed_ports))
}

#[cfg(test)]
impl PortAllocator {
    /// Returns the held and the delayed ports, to compare.
    pub(super) fn waiting(&self) -> String {
        let delayed = self.delay.as_ref().map(ReuseDelay::snapshot);
        format!("{:?} {delayed:?}", self.held.lock().snapshot())
    }
}

/// Returns the number of ports that are kept for the box itself, of this many dynamic ports.
fn kept_for_box(free: u32) -> u32 {
    (free / PORTS_PER_KEPT_PORT).clamp(MIN_KEPT_PORTS, MAX_KEPT_PORTS).min(free / 8)
}

/// Number of dynamic ports for each one that is kept for the box.
const PORTS_PER_KEPT_PORT: u32 = 1024;
/// Bounds of the number of ports that are kept for the box on an external address. A range of fewer
/// than eight times the lower bound keeps an eighth of its ports: half of those that sessions of
/// exposed hosts leave to mappings.
const MIN_KEPT_PORTS: u32 = 16;
const MAX_KEPT_PORTS: u32 = 32;

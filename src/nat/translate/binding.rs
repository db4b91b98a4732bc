//! The binding of a session: its external endpoint, its mapping or port, and its share of the
//! host's limit (RFC 6146). The commit reserves the binding before it inserts the session, and the
//! end of the session releases it.

use std::net::Ipv4Addr;

use crate::nat::context::WorkerContext;
use crate::nat::mapping::allocator::PortRequest;
use crate::nat::mapping::key::{BorrowedMapping, MappingKey};
use crate::nat::policy::initiator::Initiator;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::table::{EndedSession, SessionId};
use crate::nat::translate::decide::{ExternalEndpoint, Server};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::held::{Binding, Holding};
use crate::nat::translator::Translator;
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

impl Translator {
    /// Reserves the external endpoint of a session that `tuple` opens from inside, and the
    /// session's share of its host's limits.
    pub(crate) fn bind(
        &self,
        context: &mut impl Effects,
        tuple: Tuple,
        uplink: u8,
        external: ExternalEndpoint,
        now: Tick,
    ) -> Result<Binding, DropReason> {
        context.acquire_host(self, tuple.source.address, now)?;
        let endpoint = match external {
            ExternalEndpoint::Published(endpoint) => endpoint,
            // The reply tuple's entry in the table is the whole reservation.
            ExternalEndpoint::Address(address) => Endpoint::new(address, 0),
            ExternalEndpoint::Port(endpoint) if context.hold(self, tuple.protocol, endpoint) => {
                return Ok(Binding::new(endpoint, Holding::Port));
            }
            // Another worker may have given the port of an exposed host to a mapping.
            ExternalEndpoint::Port(Endpoint { address: first, .. })
            | ExternalEndpoint::Mapping(first) => {
                return self.bind_mapping(context, tuple, uplink, first, now);
            }
        };
        Ok(Binding::new(endpoint, Holding::Nothing(external.kind())))
    }

    fn bind_mapping<E: Effects>(
        &self,
        context: &mut E,
        tuple: Tuple,
        uplink: u8,
        first: Ipv4Addr,
        now: Tick,
    ) -> Result<Binding, DropReason> {
        let key = self.mappings.key(tuple.protocol, uplink, tuple.source, tuple.destination);
        if self.table.inherits() && !self.mappings.contains(key) {
            context.release_host(self, tuple.source.address);
            return Err(DropReason::AdoptingSessions);
        }
        let request = PortRequest {
            keeps_port: self.policy.keeps_port(tuple.protocol, tuple.source.port),
            initiator: self.policy.initiator(tuple.source.address),
        };
        let acquire = |context: &mut E| {
            let addresses = self.external_addresses(uplink, tuple.source.address, first);
            context.acquire_mapping(self, key, request, addresses, now)
        };
        let mut acquired = acquire(context);
        if acquired.is_err()
            && request.initiator != Initiator::InsideHost
            && context.evict_reserved(self, Some(uplink), now)
        {
            acquired = acquire(context);
        }
        match acquired {
            Ok(external) => {
                // Added before the session is in the table, where another worker could end it at
                // once.
                context.add_peer(self, tuple.protocol, external, tuple.destination);
                Ok(Binding::new(external, Holding::Mapping(key)))
            }
            Err(_) => {
                context.release_host(self, tuple.source.address);
                Err(DropReason::PortsExhausted)
            }
        }
    }

    /// Reserves another port of an external address for a session that `tuple` opens from inside.
    /// The sender's own external port is in use towards the same server.
    pub(crate) fn bind_another_port(
        &self,
        context: &mut impl Effects,
        tuple: Tuple,
        address: Ipv4Addr,
        now: Tick,
    ) -> Result<Binding, DropReason> {
        let Tuple { protocol, source, .. } = tuple;
        context.acquire_host(self, source.address, now)?;
        match context.hold_any(self, protocol, address, source.port) {
            Some(external) => Ok(Binding::new(external, Holding::Port)),
            None => {
                context.release_host(self, source.address);
                Err(DropReason::PortsExhausted)
            }
        }
    }

    /// Reserves the published port of a server for a session to it, if the session holds the port.
    #[inline]
    pub(crate) fn hold_published(
        &self,
        context: &mut impl Effects,
        protocol: Protocol,
        published: Endpoint,
        server: Server,
    ) -> Holding {
        if server.holds_port && context.hold(self, protocol, published) {
            Holding::Port
        } else {
            Holding::Nothing(EndpointKind::Forward)
        }
    }

    /// Releases the binding of a session that `tuple` failed to open.
    pub(crate) fn release_binding(&self, tuple: Tuple, binding: &Binding, now: Tick) {
        let Tuple { protocol, source, destination } = tuple;
        match binding.initiator {
            Holding::Nothing(_) => {}
            Holding::Mapping(mapping) => {
                self.mappings.remove_peer(protocol, binding.external, destination);
                self.mappings.release(mapping, now);
            }
            Holding::Port => self.mappings.release_held(protocol, binding.external),
        }
        match binding.responder {
            Holding::Nothing(_) => {}
            Holding::Mapping(mapping) => {
                self.release_borrowed(tuple, binding.external, mapping, now);
            }
            Holding::Port => self.mappings.release_held(protocol, destination),
        }
        self.hosts.release(source.address);
    }

    /// Holds the mapping at an external endpoint for a new session, if filtering admits `remote`.
    pub(crate) fn borrow_mapping(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<BorrowedMapping, DropReason> {
        let mut borrowed = self
            .mappings
            .borrow(protocol, external, remote)
            .ok_or_else(|| self.without_mapping())?;
        borrowed.refreshed = self.refreshed(protocol, borrowed.refreshed, now);
        match self.admit(protocol, external, remote, borrowed.refreshed, now) {
            Ok(()) => {
                // The inside may reply to a remote endpoint that is admitted, and a session of the
                // inside admits its peer.
                self.mappings.add_peer(protocol, external, remote);
                Ok(borrowed)
            }
            Err(reason) => {
                self.mappings.release(borrowed.mapping, now);
                Err(reason)
            }
        }
    }

    /// Returns the time of a mapping's last refresh if a packet from outside uses the mapping now.
    pub(crate) fn refreshed(&self, protocol: Protocol, refreshed: Tick, now: Tick) -> Tick {
        let refreshes = self.limits.inbound_refresh || protocol != Protocol::UDP;
        if refreshes { now } else { refreshed }
    }

    /// Checks whether filtering admits `remote` over the mapping at an external endpoint.
    pub(crate) fn admit(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        refreshed: Tick,
        now: Tick,
    ) -> Result<(), DropReason> {
        // The sessions of the mapping have expired and are not yet reaped. Packets from outside
        // must not keep the mapping alive (RFC 4787 REQ-6a).
        if now.reached(refreshed.after(self.limits.timeouts.udp)) {
            return Err(DropReason::NoMapping);
        }
        match self.mappings.allows(protocol, external, remote, now) {
            true => Ok(()),
            false => Err(DropReason::Filtered),
        }
    }

    /// Releases the mapping of a session that `remote` failed to open by `tuple`.
    pub(crate) fn release_borrowed(
        &self,
        tuple: Tuple,
        remote: Endpoint,
        mapping: MappingKey,
        now: Tick,
    ) {
        self.mappings.remove_peer(tuple.protocol, tuple.destination, remote);
        self.mappings.release(mapping, now);
    }

    /// Refreshes the mapping of a packet from inside. Called only if packets from outside do not
    /// refresh mappings.
    #[cold]
    pub(crate) fn refresh_mapping(&self, tuple: Tuple, uplink: u8, now: Tick) {
        if tuple.protocol == Protocol::UDP {
            self.mappings.refresh(
                self.mappings.key(tuple.protocol, uplink, tuple.source, tuple.destination),
                now,
            );
        }
    }

    /// Ends an expired session, unless a packet has refreshed the session in the meantime.
    pub(crate) fn reap(&self, context: &mut WorkerContext, session: SessionId, now: Tick) {
        if let Some(ended) = self.table.reap_if_expired(session, now) {
            context.counters.sessions_expired += 1;
            self.release(&ended, now);
        }
    }

    /// Releases what an ended session held.
    pub(crate) fn release(&self, ended: &EndedSession, now: Tick) {
        if !ended.adopted {
            return;
        }
        let (original, reply) = (ended.original.tuple(), ended.reply.tuple());
        let Tuple { protocol, source, destination } = original;
        // The sender of the first packet as the other end sees it.
        let seen = reply.destination;
        if ended.origin.initiator.is_inside() {
            self.hosts.release(source.address);
        }
        match ended.origin.initiator {
            EndpointKind::Outside | EndpointKind::Forward | EndpointKind::Address => {}
            EndpointKind::Mapping => {
                self.mappings.remove_peer(protocol, seen, destination);
                self.mappings
                    .release(self.mappings.key(protocol, ended.uplink, source, destination), now);
            }
            EndpointKind::Port => self.mappings.release_held(protocol, seen),
        }
        match ended.origin.responder {
            EndpointKind::Outside | EndpointKind::Forward | EndpointKind::Address => {}
            EndpointKind::Mapping => {
                self.mappings.remove_peer(protocol, destination, seen);
                self.mappings.release_external(protocol, destination, seen, now);
                if ended.origin == SessionKind::INBOUND {
                    self.inbound.release(reply.source.address);
                }
            }
            EndpointKind::Port => self.mappings.release_held(protocol, destination),
        }
    }
}

//! What sessions hold beside their record (a mapping, a permit, a place in their host's account), and how it comes back.

use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

use super::mappings::MappingKey;
use super::session::End;
use super::table::{Ended, SessionId};
use super::verdict::DropReason;
use super::{Lane, Nat};

/// An external endpoint for a session from inside, and what the session must give back.
pub(super) struct Lease {
    /// The endpoint.
    pub(super) external: Endpoint,
    /// What kind of one it is.
    pub(super) from: End,
    /// The mapping, where it is one.
    mapping: Option<MappingKey>,
    /// The other inside host's mapping, if the session goes to one.
    pub(super) target: Option<MappingKey>,
}

/// A mapping held for a session that comes in by it.
pub(super) struct Adopted {
    /// What is held.
    pub(super) mapping: MappingKey,
    /// The inside endpoint behind it.
    pub(super) inside: Endpoint,
    /// When the session counts as last refreshed.
    pub(super) refreshed: Tick,
}

impl Nat {
    /// An external endpoint for a session that `tuple` opens from inside, and a place in its host's account.
    pub(super) fn lease(
        &self,
        lane: &mut Lane,
        tuple: Tuple,
        uplink: u8,
        now: Tick,
    ) -> Result<Lease, DropReason> {
        self.hosts.book(tuple.source.address, now)?;
        if let Some((published_uplink, external)) =
            self.forwards.published(tuple.protocol, tuple.source, Some(uplink))
            && published_uplink == uplink
        {
            return Ok(Lease { external, from: End::Forward, mapping: None, target: None });
        }
        if !has_ports(tuple.protocol) {
            // Address-only: the reply tuple's place in the table is the whole reservation.
            let address = self.external_address(uplink, tuple.source.address);
            let external = Endpoint::new(address, 0);
            return Ok(Lease { external, from: End::Address, mapping: None, target: None });
        }
        let key = self.mappings.key(tuple.protocol, uplink, tuple.source, tuple.destination);
        let addresses = self.external_addresses(uplink, tuple.source.address);
        match self.mappings.acquire(key, addresses, &mut lane.random, now) {
            Ok(external) => {
                // Before the session is in the table, where another worker could end it at once.
                self.mappings.permit(tuple.protocol, external, tuple.destination);
                Ok(Lease { external, from: End::Mapping, mapping: Some(key), target: None })
            }
            Err(_) => {
                self.hosts.release(tuple.source.address);
                Err(DropReason::PortsExhausted)
            }
        }
    }

    /// Gives back the lease of a session that `tuple` did not open after all.
    pub(super) fn return_lease(&self, tuple: Tuple, lease: &Lease, now: Tick) {
        if let Some(mapping) = lease.mapping {
            self.mappings.forbid(tuple.protocol, lease.external, tuple.destination);
            self.mappings.release(mapping, now);
        }
        if let Some(mapping) = lease.target {
            self.return_adopted(tuple, lease.external, mapping, now);
        }
        self.hosts.release(tuple.source.address);
    }

    /// The mapping at an external endpoint, held for a new session, if filtering lets `remote` in.
    pub(super) fn adopt_mapping(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<Adopted, DropReason> {
        let mut adopted =
            self.mappings.adopt(protocol, external, remote).ok_or(DropReason::NoMapping)?;
        if self.settings.inbound_refresh || protocol != Protocol::UDP {
            adopted.refreshed = now;
        }
        // Its sessions are over and not yet buried: strangers must not keep what is left of it (RFC 4787 REQ-6a).
        let is_over = now.reached(adopted.refreshed.after(self.settings.timeouts.udp));
        if !is_over && self.mappings.admits(protocol, external, remote, now) {
            // Whoever is let in may be answered, and what the inside answers is what permits.
            self.mappings.permit(protocol, external, remote);
            return Ok(adopted);
        }
        self.mappings.release(adopted.mapping, now);
        Err(if is_over { DropReason::NoMapping } else { DropReason::Filtered })
    }

    /// Gives back the mapping of a session that `remote` did not open by `tuple` after all.
    pub(super) fn return_adopted(
        &self,
        tuple: Tuple,
        remote: Endpoint,
        mapping: MappingKey,
        now: Tick,
    ) {
        self.mappings.forbid(tuple.protocol, tuple.destination, remote);
        self.mappings.release(mapping, now);
    }

    /// Notes that the inside sent over a mapping, where that alone keeps it alive.
    #[cold]
    pub(super) fn refresh_mapping(&self, tuple: Tuple, uplink: u8, now: Tick) {
        if tuple.protocol == Protocol::UDP {
            self.mappings.refresh(
                self.mappings.key(tuple.protocol, uplink, tuple.source, tuple.destination),
                now,
            );
        }
    }

    /// Ends a session whose time is over, unless another packet was faster.
    pub(super) fn bury(&self, lane: &mut Lane, session: SessionId, now: Tick) {
        if let Some(ended) = self.table.end_if_due(session, now) {
            lane.counters.sessions_expired += 1;
            self.release(&ended, now);
        }
    }

    /// Gives back what an ended session held.
    pub(super) fn release(&self, ended: &Ended, now: Tick) {
        let (original, reply) = (ended.original.tuple(), ended.reply.tuple());
        let Tuple { protocol, source, destination } = original;
        // As whom the sender of the first packet is known to the other end.
        let seen = reply.destination;
        if ended.origin.from.is_inside() {
            self.hosts.release(source.address);
        }
        if ended.origin.from == End::Mapping {
            self.mappings.forbid(protocol, seen, destination);
            self.mappings
                .release(self.mappings.key(protocol, ended.uplink, source, destination), now);
        }
        if ended.origin.to == End::Mapping {
            self.mappings.forbid(protocol, destination, seen);
            self.mappings.release_external(protocol, destination, seen, now);
        }
    }
}

/// Protocols whose sessions are told apart by ports or identifiers.
pub(super) fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP)
}

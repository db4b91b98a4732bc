//! What sessions hold beside their record (a mapping, a permit, a place in their host's account), and how it comes back.

use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

use super::mappings::MappingKey;
use super::session::Origin;
use super::table::{Ended, SessionId};
use super::verdict::DropReason;
use super::{Lane, Nat};

/// An external endpoint for a session from inside, and what the session must give back.
pub(super) struct Lease {
    /// The endpoint.
    pub(super) external: Endpoint,
    /// None: a forward's own endpoint, or a protocol without ports.
    pub(super) mapping: Option<MappingKey>,
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
            return Ok(Lease { external, mapping: None });
        }
        if !has_ports(tuple.protocol) {
            // Address-only: the reply tuple's place in the table is the whole reservation.
            let address = self.external_address(uplink, tuple.source.address);
            return Ok(Lease { external: Endpoint::new(address, 0), mapping: None });
        }
        let key = self.mappings.key(tuple.protocol, uplink, tuple.source, tuple.destination);
        let addresses = self.external_addresses(uplink, tuple.source.address);
        match self.mappings.acquire(key, addresses, &mut lane.random, now) {
            Ok(external) => {
                // Before the session is in the table, where another worker could end it at once.
                self.mappings.permit(tuple.protocol, external, tuple.destination);
                Ok(Lease { external, mapping: Some(key) })
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
        self.hosts.release(tuple.source.address);
    }

    /// The mapping at an external endpoint, held for a new session, if filtering lets `remote` in.
    pub(super) fn adopt_mapping(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<(MappingKey, Endpoint), DropReason> {
        let (mapping, inside) =
            self.mappings.adopt(protocol, external, remote).ok_or(DropReason::NoMapping)?;
        if self.mappings.admits(protocol, external, remote, now) {
            Ok((mapping, inside))
        } else {
            self.mappings.release(mapping, now);
            Err(DropReason::Filtered)
        }
    }

    /// Where a hairpin packet to a mapping goes. The target's mapping is not held: it lives by its own sessions.
    pub(super) fn admitted_by_mapping(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<Endpoint, DropReason> {
        let (mapping, inside) = self.adopt_mapping(protocol, external, remote, now)?;
        self.mappings.release(mapping, now);
        Ok(inside)
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
        match ended.origin {
            Origin::Forward => {}
            Origin::Outbound | Origin::Hairpin => {
                self.hosts.release(original.source.address);
                let Tuple { protocol, source, destination } = original;
                self.mappings.forbid(protocol, reply.destination, destination);
                self.mappings.release(self.mappings.key(protocol, ended.uplink, source, destination), now);
            }
            Origin::Published | Origin::HairpinPublished => self.hosts.release(original.source.address),
            Origin::Inbound => {
                let Tuple { protocol, source, destination } = original;
                self.mappings.release_external(protocol, destination, source, now);
            }
        }
    }
}

/// Protocols whose sessions are told apart by ports or identifiers.
pub(super) fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP)
}

//! Decides about a packet that might arrive: the decision of the miss path, and the result of its
//! commit.

use crate::nat::table::key::Key;
use crate::nat::translate::decide::{
    Decision, ExternalEndpoint, Opening, Path, Query, Rewrite, has_ports,
};
use crate::nat::translator::Translator;
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, Tuple};
use crate::time::Tick;
use crate::values::nat::EndpointDependence;

impl Translator {
    /// Decides about a packet that might arrive now, and changes nothing.
    ///
    /// [`Self::process`] carries out the same decision, with three exceptions. A packet that would
    /// open a session is dropped if a resource runs out ([`DropReason::is_shortage`]). A packet
    /// longer than the MTU of its outgoing interface is dropped if it has DF set. A hairpin packet
    /// to a port without a mapping is dropped for another reason if the sender's new mapping draws
    /// this very port.
    pub fn decide(&self, query: &Query, now: Tick) -> Decision {
        if let Some(hit) = self.table.lookup(Key::of(query.tuple), now) {
            let inside = hit.origin.is_inbound(hit.direction);
            return Decision::Session(Rewrite { to: hit.to, inside, uplink: hit.uplink });
        }
        let decision = self.decide_unmatched(query, now);
        let Decision::Open(opening) = decision else { return decision };
        match self.foresee(&opening, now) {
            Ok(()) => decision,
            Err(reason) => self.decide_dropped(query.tuple.destination.address, reason),
        }
    }

    /// Returns the result of an opening's commit if no resource runs out.
    fn foresee(&self, opening: &Opening, now: Tick) -> Result<(), DropReason> {
        let tuple = opening.tuple;
        let protocol = tuple.protocol;
        match opening.path {
            Path::Outbound { external, remote } => {
                self.reply_is_free(opening, remote, external, now)
            }
            // To avoid a conflict, the sender's port can change; other protocols have no ports.
            Path::Hairpin { server: Some(_), .. } if has_ports(protocol) => Ok(()),
            Path::Hairpin { external, server: Some(server) } => {
                self.reply_is_free(opening, server.endpoint, external, now)
            }
            Path::Hairpin { external, server: None } => {
                // A new mapping has a port for which no filter exists yet.
                let unknown_port = match external {
                    ExternalEndpoint::Published(endpoint) | ExternalEndpoint::Port(endpoint) => {
                        endpoint
                    }
                    ExternalEndpoint::Address(address) | ExternalEndpoint::Mapping(address) => {
                        Endpoint::new(address, 0)
                    }
                };
                let remote = self.present_endpoint(opening, external).unwrap_or(unknown_port);
                let mapping = self.mappings.at_external(protocol, tuple.destination, remote);
                let mapping = mapping.ok_or_else(|| self.without_mapping())?;
                // A host that sends to its own mapping refreshes the mapping, and is a peer of the
                // mapping.
                let is_own = remote == tuple.destination;
                let refreshed =
                    if is_own { now } else { self.refreshed(protocol, mapping.refreshed, now) };
                if !is_own || self.limits.filtering != EndpointDependence::AddressDependent {
                    self.admit(protocol, tuple.destination, remote, refreshed, now)?;
                }
                self.reply_is_free(opening, mapping.key.inside, external, now)
            }
            // A client's source port can change to avoid a conflict; other protocols have no ports.
            Path::Forward { server } if !has_ports(protocol) => {
                let (source, destination) = (server.endpoint, tuple.source);
                let reply = Tuple { protocol, source, destination };
                self.is_free(reply, now)
            }
            Path::Forward { .. } | Path::Mapping { .. } | Path::Midstream { .. } => Ok(()),
        }
    }

    fn reply_is_free(
        &self,
        opening: &Opening,
        target: Endpoint,
        external: ExternalEndpoint,
        now: Tick,
    ) -> Result<(), DropReason> {
        let Some(destination) = self.present_endpoint(opening, external) else { return Ok(()) };
        let reply = Tuple { protocol: opening.tuple.protocol, source: target, destination };
        if reply == opening.tuple {
            Err(DropReason::AddressConflict)
        } else {
            self.is_free(reply, now)
        }
    }

    fn is_free(&self, reply: Tuple, now: Tick) -> Result<(), DropReason> {
        match self.table.lookup(Key::of(reply), now) {
            Some(_) => Err(DropReason::AddressConflict),
            None => Ok(()),
        }
    }

    /// Returns the external endpoint of an opening. None: the commit draws a port.
    fn present_endpoint(&self, opening: &Opening, external: ExternalEndpoint) -> Option<Endpoint> {
        let Tuple { protocol, source, destination } = opening.tuple;
        match external {
            ExternalEndpoint::Published(endpoint) | ExternalEndpoint::Port(endpoint) => {
                Some(endpoint)
            }
            ExternalEndpoint::Address(address) => Some(Endpoint::new(address, 0)),
            ExternalEndpoint::Mapping(_) => {
                let key = self.mappings.key(protocol, opening.uplink, source, destination);
                self.mappings.by_key(key).map(|mapping| mapping.external)
            }
        }
    }
}

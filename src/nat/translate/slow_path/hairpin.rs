//! Sessions between two inside hosts over an external address.

use crate::nat::translate::commit::Unmatched;
use crate::nat::translate::decide::{ExternalEndpoint, Opening, Server, has_ports};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::held::{Binding, Holding};
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};

impl Translator {
    /// Opens a hairpin session to the server of a forward, or (None) to the mapping at the packet's
    /// destination.
    pub(crate) fn open_hairpin(
        &self,
        context: &mut impl Effects,
        miss: Unmatched<'_>,
        opening: &Opening,
        external: ExternalEndpoint,
        server: Option<Server>,
    ) -> Result<Verdict, DropReason> {
        let binding = self.bind(context, miss.tuple, opening.uplink, external, miss.now)?;
        match server {
            Some(server) => self.open_hairpin_to_server(context, miss, opening, binding, server),
            None => self.open_hairpin_to_mapping(context, miss, opening, binding),
        }
    }

    /// Opens a hairpin session to the server of a forward.
    ///
    /// If the sender already talks to the same server endpoint through another published port, the
    /// server must see another source port.
    fn open_hairpin_to_server(
        &self,
        context: &mut impl Effects,
        miss: Unmatched<'_>,
        opening: &Opening,
        mut binding: Binding,
        server: Server,
    ) -> Result<Verdict, DropReason> {
        let (tuple, now) = (miss.tuple, miss.now);
        let address = binding.external.address;
        binding.responder = self.hold_published(context, tuple.protocol, tuple.destination, server);
        let opened = self.open_bound(context, miss, &binding, server.endpoint, opening);
        let miss = match opened {
            Err((DropReason::AddressConflict, miss)) if has_ports(tuple.protocol) => miss,
            opened => return opened.map_err(|(reason, _)| reason),
        };
        let mut binding = self.bind_another_port(context, tuple, address, now)?;
        binding.responder = self.hold_published(context, tuple.protocol, tuple.destination, server);
        self.open_bound(context, miss, &binding, server.endpoint, opening)
            .map_err(|(reason, _)| reason)
    }

    /// Opens a hairpin session to the mapping at the packet's destination.
    fn open_hairpin_to_mapping(
        &self,
        context: &mut impl Effects,
        miss: Unmatched<'_>,
        opening: &Opening,
        mut binding: Binding,
    ) -> Result<Verdict, DropReason> {
        let (tuple, now) = (miss.tuple, miss.now);
        let borrowed =
            context.borrow_mapping(self, tuple.protocol, tuple.destination, binding.external, now);
        match borrowed {
            Ok(borrowed) => {
                binding.responder = Holding::Mapping(borrowed.mapping);
                self.open_bound(context, miss, &binding, borrowed.inside, opening)
                    .map_err(|(reason, _)| reason)
            }
            Err(reason) => {
                context.release_binding(self, tuple, &binding, now);
                if reason == DropReason::Filtered
                    && self.mappings.exists(tuple.protocol, binding.external)
                {
                    context.open_pinhole(
                        self,
                        tuple.protocol,
                        binding.external,
                        tuple.destination,
                        now,
                    );
                }
                Ok(self.untranslated_verdict(tuple.destination.address, reason))
            }
        }
    }
}

//! Sessions between two inside hosts over an external address.

use crate::nat::context::WorkerContext;
use crate::nat::translate::commit::Unmatched;
use crate::nat::translate::decide::{ExternalEndpoint, Opening};
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::Endpoint;

impl Translator {
    /// Opens a hairpin session to the server of a forward, or (None) to the mapping at the packet's
    /// destination.
    pub(crate) fn open_hairpin(
        &self,
        context: &mut WorkerContext,
        miss: Unmatched<'_>,
        opening: &Opening,
        external: ExternalEndpoint,
        server: Option<Endpoint>,
    ) -> Result<Verdict, DropReason> {
        let (tuple, now) = (miss.tuple, miss.now);
        let mut binding = self.bind(context, tuple, opening.uplink, external, now)?;
        let target = match server {
            Some(server) => Ok(server),
            None => self
                .borrow_mapping(tuple.protocol, tuple.destination, binding.external, now)
                .map(|borrowed| {
                    binding.target = Some(borrowed.mapping);
                    borrowed.inside
                }),
        };
        match target {
            Ok(target) => self
                .open_bound(context, miss, &binding, target, opening)
                .map_err(|(reason, _)| reason),
            Err(reason) => {
                self.release_binding(tuple, &binding, now);
                if reason == DropReason::Filtered
                    && self.mappings.exists(tuple.protocol, binding.external)
                {
                    self.mappings.open_pinhole(
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

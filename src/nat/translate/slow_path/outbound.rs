//! Sessions from inside to outside, and connections of published servers that are adopted
//! midstream.

use crate::nat::policy::initiator::Initiator;
use crate::nat::table::key::Key;
use crate::nat::table::session::NewSession;
use crate::nat::table::{FirstPacket, InsertError, Match};
use crate::nat::tracking::direction::Direction;
use crate::nat::translate::commit::{Unmatched, initial_match};
use crate::nat::translate::decide::{ExternalEndpoint, Opening, Rewrite};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::held::Binding;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Tuple};

impl Translator {
    /// Opens a session from inside to outside.
    ///
    /// If the table is full, a published server's reply arrives here. It is translated without a
    /// session, and no limit of a host applies.
    #[inline]
    pub(crate) fn open_outbound(
        &self,
        context: &mut impl Effects,
        miss: Unmatched<'_>,
        opening: &Opening,
        external: ExternalEndpoint,
        remote: Endpoint,
    ) -> Result<Verdict, DropReason> {
        let bound = self.bind(context, miss.tuple, opening.uplink, external, miss.now);
        let binding = match (bound, external) {
            (Ok(binding), _) => binding,
            (
                Err(_),
                ExternalEndpoint::Published(published) | ExternalEndpoint::Port(published),
            ) => {
                return self.forward_reply_stateless(context, miss, published, opening.uplink);
            }
            (Err(reason), ExternalEndpoint::Address(_) | ExternalEndpoint::Mapping(_)) => {
                return Err(reason);
            }
        };
        match (self.open_bound(context, miss, &binding, remote, opening), external) {
            (
                Err((DropReason::TableFull, miss)),
                ExternalEndpoint::Published(published) | ExternalEndpoint::Port(published),
            ) => self.forward_reply_stateless(context, miss, published, opening.uplink),
            (outcome, _) => outcome.map_err(|(reason, _)| reason),
        }
    }

    /// Opens a session from inside from the binding's endpoint to `target`. On an error, releases
    /// the binding and returns the packet.
    pub(crate) fn open_bound<'a>(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'a>,
        binding: &Binding,
        target: Endpoint,
        opening: &Opening,
    ) -> Result<Verdict, (DropReason, Unmatched<'a>)> {
        let protocol = miss.tuple.protocol;
        let reply = Tuple { protocol, source: target, destination: binding.external };
        let new = NewSession { origin: binding.kind(), ..opening.session(reply) };
        let inserted = match self.policy.initiator(miss.tuple.source.address) {
            Initiator::InsideHost => context.insert(self, &new, miss.first(), miss.now),
            own @ (Initiator::Host | Initiator::Probe) => {
                context.insert_own(self, own, &new, miss.first(), miss.now)
            }
        };
        let Err(error) = inserted else {
            let hit = initial_match(&new);
            return Ok(self.forward_match(context, &mut miss.packet, &hit, miss.now));
        };
        context.release_binding(self, miss.tuple, binding, miss.now);
        match error {
            InsertError::AlreadyExists => Ok(self.retry(context, miss)),
            InsertError::ReplyConflict => Err((DropReason::AddressConflict, miss)),
            InsertError::Full => Err((DropReason::TableFull, miss)),
        }
    }

    /// Adopts a connection of a published server midstream, or translates the packet without a
    /// session.
    pub(crate) fn adopt_midstream(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'_>,
        opening: &Opening,
        published: Endpoint,
    ) -> Verdict {
        let to = Tuple { source: published, ..miss.tuple };
        // The same session as the client's packet would open, so that both directions agree on the
        // initiator.
        let (original, reply) = (Key::of(to.reversed()), Key::of(miss.tuple));
        let new = NewSession { original, reply, ..opening.session(miss.tuple) };
        let first = FirstPacket { segment: None, direction: Direction::Reply, ..miss.first() };
        match context.insert(self, &new, first, miss.now) {
            Ok(()) => {
                let hit = Match { to, direction: Direction::Reply, ..initial_match(&new) };
                self.forward_match(context, &mut miss.packet, &hit, miss.now)
            }
            Err(InsertError::AlreadyExists) => self.retry(context, miss),
            Err(InsertError::Full | InsertError::ReplyConflict) => {
                let rewrite = Rewrite { to, inside: false, uplink: opening.uplink };
                self.send_stateless(context, &mut miss.packet, rewrite, miss.now)
            }
        }
    }
}

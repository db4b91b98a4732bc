//! Sessions from outside to inside: through a forward, or over a dynamic mapping.

use crate::nat::table::InsertError;
use crate::nat::table::key::Key;
use crate::nat::table::session::{EndpointKind, NewSession, SessionKind};
use crate::nat::translate::commit::{Unmatched, initial_match};
use crate::nat::translate::decide::{Opening, Server, has_ports};
use crate::nat::translate::effects::Effects;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::Tuple;
use crate::time::Tick;

impl Translator {
    /// Opens a session from outside over a dynamic mapping.
    pub(crate) fn open_inbound(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'_>,
        opening: &Opening,
    ) -> Result<Verdict, DropReason> {
        let Tuple { protocol, source, destination } = miss.tuple;
        let borrowed = context.borrow_mapping(self, protocol, destination, source, miss.now)?;
        if let Err(reason) = context.acquire_inbound(self, borrowed.inside.address) {
            context.release_borrowed(self, miss.tuple, source, borrowed.mapping, miss.now);
            return Err(reason);
        }
        let reply = Tuple { protocol, source: borrowed.inside, destination: source };
        let idle = miss.now.since(borrowed.refreshed);
        let new = NewSession { idle, ..opening.session(reply) };
        let Err(error) = context.insert(self, &new, miss.first(), miss.now) else {
            let hit = initial_match(&new);
            return Ok(self.forward_match(context, &mut miss.packet, &hit, miss.now));
        };
        context.release_inbound(self, borrowed.inside.address);
        context.release_borrowed(self, miss.tuple, source, borrowed.mapping, miss.now);
        match error {
            InsertError::AlreadyExists => Ok(self.retry(context, miss)),
            InsertError::ReplyConflict => Err(DropReason::AddressConflict),
            InsertError::Full => Err(DropReason::TableFull),
        }
    }

    /// Opens a session from outside to a published server.
    ///
    /// If the same client endpoint already talks to the same server endpoint (through another
    /// uplink or another published port), the session gets another source port. A tentative session
    /// of the server ends, because the client's packet shows the uplink. If a forward shares the
    /// published port with mappings, the session holds the port.
    #[inline(always)]
    pub(crate) fn open_forward(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'_>,
        opening: &Opening,
        server: Server,
    ) -> Result<Verdict, DropReason> {
        let tuple = miss.tuple;
        let holding = self.hold_published(context, tuple.protocol, tuple.destination, server);
        let origin = SessionKind { initiator: EndpointKind::Outside, responder: holding.kind() };
        let mut client = tuple.source;
        let error = 'tries: {
            for _ in 0..CONFLICT_TRIES {
                let (source, destination) = (server.endpoint, client);
                let reply = Tuple { protocol: tuple.protocol, source, destination };
                let new = NewSession { origin, ..opening.session(reply) };
                match context.insert(self, &new, miss.first(), miss.now) {
                    Ok(()) => {
                        let hit = initial_match(&new);
                        return Ok(self.forward_match(context, &mut miss.packet, &hit, miss.now));
                    }
                    Err(InsertError::ReplyConflict)
                        if context.replace_tentative(self, new.reply, miss.now) => {}
                    Err(InsertError::ReplyConflict) if has_ports(tuple.protocol) => {
                        client.port = context.worker().random_unprivileged_port();
                    }
                    Err(error) => break 'tries error,
                }
            }
            InsertError::ReplyConflict
        };
        if holding.is_port() {
            context.release_held(self, tuple.protocol, tuple.destination);
        }
        match error {
            InsertError::AlreadyExists => Ok(self.retry(context, miss)),
            InsertError::Full => {
                self.forward_request_stateless(context, miss, opening.uplink, server.endpoint)
            }
            InsertError::ReplyConflict if has_ports(tuple.protocol) => {
                Err(DropReason::PortsExhausted)
            }
            InsertError::ReplyConflict => Err(DropReason::AddressConflict),
        }
    }

    /// Ends the tentative session that a server has opened with this tuple. Returns false if there
    /// is none.
    pub(crate) fn replace_tentative(&self, original: Key, now: Tick) -> bool {
        let ended = self.table.end_tentative(original, now);
        ended.inspect(|ended| self.release(ended, now)).is_some()
    }
}

/// Maximum number of random source ports to try for a client whose own port is taken. A try fails
/// only if the random port is taken.
const CONFLICT_TRIES: usize = 16;

//! Sessions by request: pages of them, one of them ended, and all that match a filter ended.
//!
//! No call walks the whole table. A call handles one slice and returns where the next call
//! continues, so a control thread can do other work between slices.

use std::net::Ipv4Addr;

use crate::nat::policy::forwards::PublishedEndpoint;
use crate::nat::policy::rules::{Forward, Uplink};
use crate::nat::table::events::SessionEvents;
use crate::nat::table::filter::{Filter, PolicyCondition};
use crate::nat::table::listing::{Page, TableCursor};
use crate::nat::table::session::{EndReason, EndpointKind, SessionId, SessionInfo};
use crate::nat::translator::Translator;
use crate::packet::{Protocol, Tuple};
use crate::time::Tick;

/// Outcome of one slice of [`Translator::end_matching`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSlice {
    /// Number of sessions that ended.
    pub ended: usize,
    /// Start of the next slice; None: the walk is complete.
    pub next: Option<TableCursor>,
}

/// The identifier names no session: the session has ended, or there never was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such session")]
pub struct NoSuchSession;

impl Translator {
    /// Returns the next sessions that match a filter. A page of a large table may be empty and
    /// still have a next page.
    ///
    /// Pages may or may not contain sessions that begin or end meanwhile; no session is in two
    /// pages.
    pub fn sessions(&self, from: TableCursor, filter: &Filter) -> Page<SessionInfo> {
        let mut items = Vec::new();
        let mut next = Some(from);
        for _ in 0..MAX_SLICES {
            let Some(cursor) = next.filter(|_| items.len() < PAGE) else { break };
            next = self.table.list(cursor, SLICE, |session| {
                if self.matches(filter, &session) {
                    items.push(session);
                }
            });
        }
        Page { items, next }
    }

    /// Adds the sessions among the next slice of the table to `into`, and returns where to
    /// continue. None ends the walk.
    pub fn slice(&self, from: TableCursor, into: &mut Vec<SessionInfo>) -> Option<TableCursor> {
        self.table.list(from, SLICE, |session| into.push(session))
    }

    /// Returns the name of the forward that a session uses. A hairpin session may use two: the one
    /// of its initiator comes first.
    pub fn forward_of(&self, session: &SessionInfo) -> Option<&str> {
        self.forwards_of(session).next().map(|forward| forward.name.as_str())
    }

    /// Subscribes to the changes of sessions from now on. At most `capacity` events wait for the
    /// reader; further ones are lost and counted. Translators that share the sessions share the
    /// subscription.
    pub fn subscribe(&self, capacity: usize) -> SessionEvents {
        self.table.subscribe(capacity)
    }

    /// Ends a session. For some reasons the translator notifies the inside host: TCP gets a reset,
    /// UDP gets an ICMP error.
    ///
    /// # Errors
    /// The identifier is stale.
    pub fn end(&self, id: SessionId, reason: EndReason, now: Tick) -> Result<(), NoSuchSession> {
        let session = self.table.session(id).ok_or(NoSuchSession)?;
        if self.end_one(&session, reason, now) { Ok(()) } else { Err(NoSuchSession) }
    }

    /// Ends the sessions that match a filter among the next slice of the table.
    ///
    /// Call this again with the returned cursor. While [`Self::notifications`] is large, wait a
    /// moment before.
    pub fn end_matching(
        &self,
        filter: &Filter,
        reason: EndReason,
        from: TableCursor,
        now: Tick,
    ) -> EndedSlice {
        self.end_first_match(&[(filter.clone(), reason)], from, now)
    }

    /// Ends the sessions that match any filter among the next slice of the table, for the reason of
    /// the first one that they match.
    pub(crate) fn end_first_match(
        &self,
        filters: &[(Filter, EndReason)],
        from: TableCursor,
        now: Tick,
    ) -> EndedSlice {
        let mut doomed = Vec::new();
        let next =
            self.find_first_match(filters, from, |session, reason| doomed.push((session, reason)));
        let ends = |(session, reason): &&(_, _)| self.end_one(session, *reason, now);
        EndedSlice { ended: doomed.iter().filter(ends).count(), next }
    }

    /// Passes the sessions that match any filter among the next slice of the table, each with the
    /// reason of the first filter that it matches. Returns the start of the next slice.
    pub(super) fn find_first_match(
        &self,
        filters: &[(Filter, EndReason)],
        from: TableCursor,
        mut found: impl FnMut(SessionInfo, EndReason),
    ) -> Option<TableCursor> {
        self.table.list(from, SLICE, |session| {
            let first = filters.iter().find(|(filter, _)| self.matches(filter, &session));
            if let Some((_, reason)) = first {
                found(session, *reason);
            }
        })
    }

    /// Ends a session and releases its resources; false if the session has ended in the meantime.
    fn end_one(&self, session: &SessionInfo, reason: EndReason, now: Tick) -> bool {
        let Some(ended) = self.table.end(session.id, reason, now) else { return false };
        self.release(&ended, now);
        if reason.notifies_inside() {
            self.notifications.extend(self.notifications_for(session));
        }
        true
    }

    /// Reports whether a session meets every condition of a filter.
    fn matches(&self, filter: &Filter, session: &SessionInfo) -> bool {
        filter.matches_values(session)
            && filter.forward.as_ref().is_none_or(|name| self.uses_forward(session, name))
            && self.meets(filter.condition, session)
    }

    fn uses_forward(&self, session: &SessionInfo, name: &str) -> bool {
        self.forwards_of(session).any(|forward| forward.name == name)
    }

    /// Returns the forwards that a session uses, that of the initiator first.
    fn forwards_of(&self, session: &SessionInfo) -> impl Iterator<Item = &Forward> {
        let protocol = session.original.protocol;
        let kinds = [session.origin.initiator, session.origin.responder];
        kinds.into_iter().zip(session.external_endpoints()).filter_map(move |(kind, external)| {
            let is_published = matches!(kind, EndpointKind::Forward | EndpointKind::Port);
            self.forwards.forward_at(protocol, external.filter(|_| is_published)?)
        })
    }

    fn meets(&self, condition: PolicyCondition, session: &SessionInfo) -> bool {
        match condition {
            PolicyCondition::None => true,
            PolicyCondition::HasAlternative => self.is_movable(session) && self.can_leave(session),
            PolicyCondition::Prefers(uplink) => {
                self.is_movable(session) && self.prefers(session, uplink)
            }
            PolicyCondition::ReturnsFromBackup(uplink) => {
                session.original.protocol != Protocol::TCP
                    && self.tier(session.uplink) > self.tier(uplink)
                    && self.is_movable(session)
                    && self.prefers(session, uplink)
            }
            PolicyCondition::AddressRemoved => self.address_removed(session),
            PolicyCondition::Disallowed => !self.permits(session),
        }
    }

    /// Reports whether the uplink of a session may change: hairpin needs no uplink, and a probe
    /// address must stay on its own.
    fn is_movable(&self, session: &SessionInfo) -> bool {
        let is_probe = session
            .inside_endpoints()
            .into_iter()
            .flatten()
            .any(|end| self.uplink_of_probe_address(end.address).is_some());
        !session.is_hairpin() && !is_probe
    }

    /// Reports whether a session could begin again over another uplink.
    fn can_leave(&self, session: &SessionInfo) -> bool {
        let Tuple { protocol, source, destination } = session.original;
        match session.origin.initiator {
            EndpointKind::Mapping | EndpointKind::Address | EndpointKind::Port => {
                let is_elsewhere = |published: PublishedEndpoint| {
                    self.is_alternative(published.uplink, session.uplink)
                };
                self.outbound_rule(source.address, destination.address)
                    .is_some_and(|rule| self.has_alternative(rule, session.uplink))
                    || self.forwards.published_endpoints(protocol, source).any(is_elsewhere)
            }
            EndpointKind::Outside | EndpointKind::Forward => {
                self.has_other_open_uplink(session.uplink)
            }
        }
    }

    /// Reports whether a session from inside over another uplink would use `uplink` if it began
    /// now. The server of a forward that owns its ports does not choose: its replies use the uplink
    /// of the request, and so do the sessions that are related to the request.
    fn prefers(&self, session: &SessionInfo, uplink: u8) -> bool {
        let tuple = session.original;
        let Tuple { protocol, source, destination } = tuple;
        let chooses = matches!(
            session.origin.initiator,
            EndpointKind::Mapping | EndpointKind::Address | EndpointKind::Port
        );
        if session.uplink == uplink
            || !chooses
            || self.is_related_on(tuple, session.uplink, session.last_seen)
        {
            return false;
        }
        let rule = self.outbound_rule(source.address, destination.address);
        let chosen = rule.and_then(|rule| self.preferred_uplink(rule, &tuple, session.uplink));
        let may_begin = |published: &PublishedEndpoint| {
            (published.uplink == session.uplink || self.admits_new(published.uplink))
                && !self.is_backup(published, chosen)
        };
        // An exposed host opens sessions from its published address, whatever the uplink of that
        // address.
        let published = self.preferred_endpoint(protocol, source, chosen, may_begin);
        published.map(|published| published.uplink).or(chosen) == Some(uplink)
    }

    /// Reports whether an external address of a session is no longer configured, or belongs to
    /// another uplink than that of the session.
    pub(crate) fn address_removed(&self, session: &SessionInfo) -> bool {
        let is_hairpin = session.is_hairpin();
        let external = session.external_endpoints();
        let is_here = |address: Ipv4Addr| {
            let external = self.external(address);
            external.is_some_and(|external| is_hairpin || external.uplink == session.uplink)
        };
        external.into_iter().flatten().any(|end| !is_here(end.address))
            || self.is_vacant(session.uplink)
    }

    /// Reports whether no uplink has a number.
    fn is_vacant(&self, uplink: u8) -> bool {
        self.policy.uplinks.get(usize::from(uplink)).is_none_or(Uplink::is_vacant)
    }
}

/// Sessions of a page, give or take a slice.
const PAGE: usize = 512;
/// Records examined under one lock.
const SLICE: u32 = 1024;
/// Slices of a page. A page of a large and empty table ends without any session, so that the caller
/// can do other work.
const MAX_SLICES: usize = 256;

#[cfg(test)]
mod tests;

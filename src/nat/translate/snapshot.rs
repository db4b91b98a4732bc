//! Export and import: sessions that leave one translator and continue in another, as plain values.
//!
//! A snapshot has its uplink by name, and its times as spans before the export. So the importing
//! translator may have another clock, another seed, another order of uplinks and another session
//! table. It must have the external addresses of the session and a policy that allows the session.
//!
//! The import restores the session's mapping with the same external port, its peer for filtering,
//! and its share of the host's limit. The order of imports matters in one case: if the outbound
//! rule of a session does not name its uplink, the session is allowed only after the inbound
//! session to which it is related.

use crate::nat::mapping::key::{MappingKey, MappingValue};
use crate::nat::table::accounting::Accounting;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::table::listing::{Page, TableCursor};
use crate::nat::table::session::{
    EndReason, EndedSession, EndpointKind, NewSession, SessionId, SessionInfo, SessionKind,
};
use crate::nat::table::session_table::InsertError;
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_window::TcpSnapshot;
use crate::nat::translator::Translator;
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::{Span, Tick};

/// A session as a plain value, for another translator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Version of the format: [`SNAPSHOT_VERSION`].
    pub version: u16,
    /// Name of the uplink.
    pub uplink: String,
    /// Tuple of the packets of the initiator, on arrival.
    pub original: Tuple,
    /// Tuple of the packets of the responder, on arrival.
    pub reply: Tuple,
    /// Kinds of the two endpoints.
    pub kind: SessionKind,
    /// State.
    pub state: State,
    /// Sequence numbers and windows; meaningful for TCP only.
    pub tcp: TcpSnapshot,
    /// Time since the last packet that refreshed the session.
    pub idle: Span,
    /// Mappings that the session holds: that of the initiator, that of the responder.
    pub mappings: [Option<MappingSnapshot>; 2],
    /// Packets and bytes; None if the exporter has no accounting.
    pub accounting: Option<AccountingSnapshot>,
}

/// Packets and bytes of a session as plain values, indexed by [`Direction::number`].
///
/// [`Direction::number`]: crate::nat::tracking::direction::Direction::number
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountingSnapshot {
    /// Time since the session began; at most [`Span::MAX`].
    pub age: Span,
    /// Packets of each direction.
    pub packets: [u64; 2],
    /// Bytes of each direction, IP headers included.
    pub bytes: [u64; 2],
}

/// A dynamic mapping as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingSnapshot {
    /// Inside endpoint.
    pub inside: Endpoint,
    /// External endpoint.
    pub external: Endpoint,
    /// Part of the remote endpoint that the mapping depends on; zero where it depends on none.
    pub remote: Endpoint,
    /// Time since the last packet from inside that counts as a refresh of the mapping.
    pub idle: Span,
}

/// Why a session cannot be imported. The translator has not changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The snapshot has another version.
    #[error("snapshot: version {0} is unknown; this release reads version {SNAPSHOT_VERSION}")]
    Version(u16),
    /// The parts of the snapshot contradict each other.
    #[error("snapshot: its parts contradict each other")]
    Malformed,
    /// No uplink has the snapshot's name.
    #[error("uplink: the snapshot's uplink is not configured")]
    UnknownUplink,
    /// The session's idle timeout is over.
    #[error("session: its idle timeout is over")]
    Expired,
    /// Mappings here depend on another part of the remote endpoint than those of the exporter.
    #[error("mapping: it depends on another part of the remote endpoint than mappings here")]
    MappingBehaviour,
    /// The policy does not allow the session, or an external address is not on the uplink.
    #[error("session: the policy does not allow it")]
    Disallowed,
    /// The port of a mapping is not free, or the inside endpoint has another mapping.
    #[error("mapping: its external port is not free")]
    PortTaken,
    /// Another session has one of the tuples.
    #[error("session: another session has one of its tuples")]
    TupleTaken,
    /// No record is free.
    #[error("session table: no record is free")]
    TableFull,
}

impl Translator {
    /// Returns snapshots of the sessions among the next slice of the table. Sessions whose time is
    /// over are left out, and so are those that end meanwhile.
    pub fn export(&self, from: TableCursor, now: Tick) -> Page<SessionSnapshot> {
        let mut sessions = Vec::new();
        let next = self.table.list(from, SLICE, |session| {
            if !now.reached(session.deadline) {
                sessions.push(session);
            }
        });
        let snapshots = sessions.iter().filter_map(|session| self.snapshot(session, now));
        Page { items: snapshots.collect(), next }
    }

    /// The snapshot of a session; None if the session has ended in the meantime.
    fn snapshot(&self, session: &SessionInfo, now: Tick) -> Option<SessionSnapshot> {
        let SessionInfo { original, reply, uplink, .. } = *session;
        let SessionKind { initiator, responder } = session.origin;
        let protocol = original.protocol;
        let mut mappings = [None; 2];
        if initiator == EndpointKind::Mapping {
            let key = self.mappings.key(protocol, uplink, original.source, original.destination);
            mappings[0] = Some(MappingSnapshot::of(self.mappings.by_key(key)?, now));
        }
        if responder == EndpointKind::Mapping {
            let remote = reply.destination;
            let mapping = self.mappings.at_external(protocol, original.destination, remote)?;
            mappings[1] = Some(MappingSnapshot::of(mapping, now));
        }
        Some(SessionSnapshot {
            version: SNAPSHOT_VERSION,
            uplink: self.policy.uplinks[usize::from(uplink)].name.clone(),
            original,
            reply,
            kind: session.origin,
            state: session.state,
            tcp: session.tcp,
            idle: now.since(session.last_seen),
            mappings,
            accounting: session.accounting.map(|Accounting { start, packets, bytes }| {
                AccountingSnapshot { age: now.since(start), packets, bytes }
            }),
        })
    }

    /// Adds a session of another translator: the same translation, timers, window and mapping.
    ///
    /// The session counts towards its host's limit of sessions, but no limit prevents the import.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(&self, snapshot: &SessionSnapshot, now: Tick) -> Result<SessionId, ImportError> {
        if snapshot.version != SNAPSHOT_VERSION {
            return Err(ImportError::Version(snapshot.version));
        }
        if !snapshot.is_consistent() {
            return Err(ImportError::Malformed);
        }
        let uplink = self.policy.uplinks.iter().position(|uplink| uplink.name == snapshot.uplink);
        let uplink = uplink.ok_or(ImportError::UnknownUplink)? as u8;
        self.reserve(snapshot, uplink, now)?;
        let SessionSnapshot { original, reply, kind, state, idle, .. } = *snapshot;
        let (original_key, reply_key) = (Key::of(original), Key::of(reply));
        let accounting = snapshot.accounting.map_or(
            Accounting::starting(now),
            |AccountingSnapshot { age, packets, bytes }| {
                let start = Tick(now.0.wrapping_sub(age.0));
                Accounting { start, packets, bytes }
            },
        );
        let new = NewSession {
            original: original_key,
            reply: reply_key,
            origin: kind,
            uplink,
            state,
            idle,
        };
        let KeyHash(pool) = self.table.hash(original_key);
        let pool = pool as u32 as usize;
        self.table.restore(pool, &new, &snapshot.tcp, &accounting, now).map_err(|error| {
            let (origin, reason) = (kind, EndReason::Requested);
            let ended = EndedSession {
                original: original_key,
                reply: reply_key,
                origin,
                uplink,
                reason,
                adopted: true,
            };
            self.release(&ended, now);
            match error {
                InsertError::Full => ImportError::TableFull,
                InsertError::AlreadyExists | InsertError::ReplyConflict => ImportError::TupleTaken,
            }
        })
    }

    /// Reserves what a session holds, as its first packet did: mappings, ports, and its share of
    /// its host's limit. Reserves nothing if the policy does not allow the session.
    pub(crate) fn reserve(
        &self,
        snapshot: &SessionSnapshot,
        uplink: u8,
        now: Tick,
    ) -> Result<(), ImportError> {
        if snapshot.idle >= self.table.idle_timeout(snapshot.state) {
            return Err(ImportError::Expired);
        }
        if !self.allows_import(snapshot, uplink, now) {
            return Err(ImportError::Disallowed);
        }
        if !self.has_mapping_behaviour(snapshot, uplink) {
            return Err(ImportError::MappingBehaviour);
        }
        self.hold_mappings(snapshot, uplink, now)?;
        self.hold_ports(snapshot, uplink, now)?;
        let SessionSnapshot { original, reply, kind, .. } = *snapshot;
        if kind.initiator.is_inside() {
            self.hosts.restore(original.source.address, now);
        } else if kind == SessionKind::INBOUND {
            self.inbound.restore(reply.source.address);
        }
        for (external, remote) in peers(snapshot) {
            self.mappings.add_peer(original.protocol, external, remote);
        }
        Ok(())
    }

    /// Reports whether the policy allows the session of a snapshot on an uplink.
    fn allows_import(&self, snapshot: &SessionSnapshot, uplink: u8, now: Tick) -> bool {
        self.allows_on_uplink(&SessionInfo {
            id: SessionId::new(0, 1),
            original: snapshot.original,
            reply: snapshot.reply,
            origin: snapshot.kind,
            uplink,
            state: snapshot.state,
            tcp: snapshot.tcp,
            last_seen: now,
            deadline: now,
            accounting: None,
        })
    }

    /// Reports whether the external endpoints belong to the session's uplink and the policy allows
    /// the session.
    pub(crate) fn allows_on_uplink(&self, session: &SessionInfo) -> bool {
        let mut external = session.external_endpoints().into_iter().flatten();
        external.all(|end| self.external(end.address).is_some_and(|it| it.uplink == session.uplink))
            && self.permits(session)
    }

    /// Reports whether the end of the session will find the mappings of the snapshot.
    fn has_mapping_behaviour(&self, snapshot: &SessionSnapshot, uplink: u8) -> bool {
        let SessionSnapshot { original, reply, mappings: [initiator, responder], .. } = snapshot;
        let protocol = original.protocol;
        let key = |mapping: &MappingSnapshot| mapping.key(protocol, uplink);
        initiator.is_none_or(|mapping| {
            let (inside, remote) = (original.source, original.destination);
            key(&mapping) == self.mappings.key(protocol, uplink, inside, remote)
        }) && responder
            .is_none_or(|mapping| self.mappings.has_scope_of(&key(&mapping), reply.destination))
    }

    /// Holds the mappings of a snapshot; none of them if one cannot be held.
    fn hold_mappings(
        &self,
        snapshot: &SessionSnapshot,
        uplink: u8,
        now: Tick,
    ) -> Result<(), ImportError> {
        let protocol = snapshot.original.protocol;
        let values: Vec<MappingValue> =
            snapshot.mappings.iter().flatten().map(|it| it.value(protocol, uplink, now)).collect();
        for (held, value) in values.iter().enumerate() {
            let keeps_port = self.policy.keeps_port(protocol, value.key.inside.port);
            if self.mappings.restore(*value, keeps_port, now).is_err() {
                for other in &values[..held] {
                    self.mappings.release(other.key, now);
                }
                return Err(ImportError::PortTaken);
            }
        }
        Ok(())
    }

    /// Holds the ports of a snapshot. If one cannot be held, holds none of them and releases the
    /// mappings of the snapshot.
    fn hold_ports(
        &self,
        snapshot: &SessionSnapshot,
        uplink: u8,
        now: Tick,
    ) -> Result<(), ImportError> {
        let protocol = snapshot.original.protocol;
        let ports: Vec<Endpoint> = held_ports(snapshot).collect();
        for (held, port) in ports.iter().enumerate() {
            if !self.mappings.hold(protocol, *port) {
                for other in &ports[..held] {
                    self.mappings.release_held(protocol, *other);
                }
                for mapping in snapshot.mappings.iter().flatten() {
                    self.mappings.release(mapping.key(protocol, uplink), now);
                }
                return Err(ImportError::PortTaken);
            }
        }
        Ok(())
    }
}

/// Returns the external endpoints whose ports a session holds without a mapping.
fn held_ports(snapshot: &SessionSnapshot) -> impl Iterator<Item = Endpoint> {
    let SessionSnapshot { original, reply, kind, .. } = *snapshot;
    let initiator = (kind.initiator == EndpointKind::Port).then_some(reply.destination);
    let responder = (kind.responder == EndpointKind::Port).then_some(original.destination);
    initiator.into_iter().chain(responder)
}

/// External endpoint of each mapping and the endpoint that its session exchanges packets with.
fn peers(snapshot: &SessionSnapshot) -> impl Iterator<Item = (Endpoint, Endpoint)> {
    let SessionSnapshot { original, reply, kind, .. } = *snapshot;
    let initiator = (kind.initiator == EndpointKind::Mapping)
        .then_some((reply.destination, original.destination));
    let responder = (kind.responder == EndpointKind::Mapping)
        .then_some((original.destination, reply.destination));
    initiator.into_iter().chain(responder)
}

impl SessionSnapshot {
    /// Reports whether the parts fit together, so that the end of the session releases exactly what
    /// its import takes.
    pub(crate) fn is_consistent(&self) -> bool {
        let SessionKind { initiator, responder } = self.kind;
        let (original, reply) = (self.original, self.reply);
        let fits = |kind, mapping: Option<MappingSnapshot>, inside, external| match mapping {
            None => kind != EndpointKind::Mapping,
            Some(mapping) => {
                kind == EndpointKind::Mapping
                    && (mapping.inside, mapping.external) == (inside, external)
            }
        };
        fit_together(self.kind, self.state, original, reply)
            && fits(initiator, self.mappings[0], original.source, reply.destination)
            && fits(responder, self.mappings[1], reply.source, original.destination)
    }
}

/// Reports whether a session of this kind and state may have these tuples.
pub(crate) fn fit_together(
    SessionKind { initiator, responder }: SessionKind,
    state: State,
    original: Tuple,
    reply: Tuple,
) -> bool {
    let protocol = original.protocol;
    let state_fits = match state {
        State::Tcp(_) => protocol == Protocol::TCP,
        State::Udp | State::DnsReplied | State::Tentative => protocol == Protocol::UDP,
        State::Icmp => protocol == Protocol::ICMP,
        State::Other => ![Protocol::TCP, Protocol::UDP, Protocol::ICMP].contains(&protocol),
    };
    state_fits
        && reply.protocol == protocol
        && (initiator.is_inside() || responder.is_inside())
        // Only the destination of a session to the inside differs from the source of its replies. A
        // related session may have another port of the same remote host.
        && (responder.is_inside() || reply.source.address == original.destination.address)
        && (initiator.is_inside() || reply.destination.address == original.source.address)
}

impl MappingSnapshot {
    pub(crate) fn of(mapping: MappingValue, now: Tick) -> Self {
        let MappingValue { key, external, refreshed } = mapping;
        Self { inside: key.inside, external, remote: key.remote, idle: now.since(refreshed) }
    }

    fn value(&self, protocol: Protocol, uplink: u8, now: Tick) -> MappingValue {
        let refreshed = Tick(now.0.wrapping_sub(self.idle.0));
        MappingValue { key: self.key(protocol, uplink), external: self.external, refreshed }
    }

    fn key(&self, protocol: Protocol, uplink: u8) -> MappingKey {
        MappingKey { protocol, uplink, inside: self.inside, remote: self.remote }
    }
}

/// Version of the format of a [`SessionSnapshot`].
pub const SNAPSHOT_VERSION: u16 = 1;
/// Records examined under one lock.
const SLICE: u32 = 1024;

#[cfg(test)]
mod tests;

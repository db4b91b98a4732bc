//! The miss path: decides whether a packet opens a session, and which.
//!
//! ```text
//!                      destination is external                destination is not
//!   source inside      hairpin                                outbound
//!   source outside     forward, mapping, or the host's own    dropped
//! ```

use std::net::Ipv4Addr;

use crate::nat::context::WorkerContext;
use crate::nat::table::key::Key;
use crate::nat::table::session::{EndpointKind, NewSession, SessionKind};
use crate::nat::table::{FirstPacket, InsertError, Lookup, Match};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::binding::{Binding, has_ports};
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::{External, Translator};
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Payload, Protocol, Tuple};
use crate::time::{Span, Tick};

/// A packet of no session, with what is known of it.
struct Unmatched<'a> {
    packet: Packet<'a>,
    tuple: Tuple,
    segment: Option<&'a Segment>,
    now: Tick,
}

impl Translator {
    /// Handles a packet of no session.
    #[cold]
    pub(crate) fn open_session(
        &self,
        context: &mut WorkerContext,
        mut packet: Packet<'_>,
        key: Key,
        segment: Option<&Segment>,
        now: Tick,
    ) -> Verdict {
        let tuple = key.tuple();
        let (source, destination) = (tuple.source.address, tuple.destination.address);
        let is_own = self.uplink_of_probe_address(source).is_some();
        if is_martian(source) && !is_own || is_martian(destination) || source == destination {
            return Verdict::Drop(DropReason::Martian);
        }
        if let Some(verdict) = self.bypass(context, &mut packet, tuple) {
            return verdict;
        }
        let Packet { parsed, wire_length, .. } = packet;
        let miss = Unmatched {
            packet: Packet { parsed, buffer: &mut *packet.buffer, wire_length },
            tuple,
            segment,
            now,
        };
        let outcome = match (self.is_inside(source) || is_own, self.external(destination)) {
            (true, None) => self.open_outbound(context, miss),
            (true, Some(external)) => self.open_hairpin(context, miss, external),
            (false, Some(external)) => match self.open_inbound(context, miss, external) {
                Err(reason @ (DropReason::NoMapping | DropReason::Filtered)) => {
                    let verdict = self.untranslated_verdict(destination, reason);
                    if verdict == Verdict::Drop(reason) {
                        self.defer(&packet, tuple, now);
                    }
                    Ok(verdict)
                }
                outcome @ (Ok(_) | Err(_)) => outcome,
            },
            (false, None) => Err(DropReason::SourceNotAllowed),
        };
        outcome.unwrap_or_else(|reason| self.reject(context, &mut packet, reason, now))
    }

    fn open_outbound(
        &self,
        context: &mut WorkerContext,
        miss: Unmatched<'_>,
    ) -> Result<Verdict, DropReason> {
        let tuple = miss.tuple;
        let chosen = self.select_uplink(&tuple);
        let published = self.forwards.published(tuple.protocol, tuple.source, chosen);
        let uplink =
            published.map(|(uplink, _)| uplink).or(chosen).ok_or(DropReason::NoOutboundRule)?;
        let published_more_than_once =
            self.forwards.published_more_than_once(tuple.protocol, tuple.source);
        let state = match (miss.opening_state(), published) {
            // It may begin something, or answer what the box has forgotten.
            (Ok(State::Udp), Some(_)) if published_more_than_once => State::Tentative,
            (Ok(state), _) => state,
            // A static forward's server goes on in the middle of a connection after a restart of the box.
            (
                Err(DropReason::TcpWithoutSession | DropReason::IcmpUnsolicitedReply),
                Some((_, endpoint)),
            ) => {
                return self.adopt_midstream_from_server(context, miss, uplink, endpoint);
            }
            (Err(reason), _) => return Err(reason),
        };
        let lease = match (self.bind(context, tuple, uplink, miss.now), published) {
            (Ok(lease), _) => lease,
            // A published server's answers look like this when the table is full: no account may stop them.
            (Err(_), Some((_, external))) => {
                return self.forward_reply_stateless(context, miss, external, uplink);
            }
            (Err(reason), None) => return Err(reason),
        };
        let origin = SessionKind { initiator: lease.from, responder: EndpointKind::Outside };
        let external = lease.external;
        match self.open_bound(context, miss, lease, tuple.destination, origin, uplink, state) {
            Err((DropReason::TableFull, miss)) if published.is_some() => {
                self.forward_reply_stateless(context, miss, external, uplink)
            }
            outcome => outcome.map_err(|(reason, _)| reason),
        }
    }

    fn open_hairpin(
        &self,
        context: &mut WorkerContext,
        miss: Unmatched<'_>,
        external: External,
    ) -> Result<Verdict, DropReason> {
        let tuple = miss.tuple;
        let published = self.forwards.target(tuple.protocol, tuple.destination);
        // An inside host that talks to the box's own external address means the host itself, and in the middle of a
        // connection, too: what the host answers does not come by here.
        if external.owned
            && published.is_none()
            && !self.mappings.exists(tuple.protocol, tuple.destination)
        {
            return Ok(Verdict::PassToHost);
        }
        if !self.policy.hairpin {
            return Err(DropReason::HairpinDisabled);
        }
        let state = miss.opening_state()?;
        let mut lease = self.bind(context, tuple, external.uplink, miss.now)?;
        let target = match published {
            Some(target) => Ok(target),
            None => self
                .borrow_mapping(tuple.protocol, tuple.destination, lease.external, miss.now)
                .map(|adopted| {
                    lease.target = Some(adopted.mapping);
                    adopted.inside
                }),
        };
        let target = match target {
            Ok(target) => target,
            Err(reason) => {
                self.release_binding(tuple, &lease, miss.now);
                if reason == DropReason::Filtered
                    && self.mappings.exists(tuple.protocol, lease.external)
                {
                    self.mappings.open_pinhole(
                        tuple.protocol,
                        lease.external,
                        tuple.destination,
                        miss.now,
                    );
                }
                return Ok(self.untranslated_verdict(tuple.destination.address, reason));
            }
        };
        let to = if lease.target.is_some() { EndpointKind::Mapping } else { EndpointKind::Forward };
        let origin = SessionKind { initiator: lease.from, responder: to };
        self.open_bound(context, miss, lease, target, origin, external.uplink, state)
            .map_err(|(reason, _)| reason)
    }

    /// Opens a session from inside that leaves with the lease's endpoint towards `target`; gives the lease and the
    /// packet back if it cannot.
    #[expect(clippy::too_many_arguments, reason = "what a session from inside is made of")]
    fn open_bound<'a>(
        &self,
        context: &mut WorkerContext,
        mut miss: Unmatched<'a>,
        lease: Binding,
        target: Endpoint,
        origin: SessionKind,
        uplink: u8,
        state: State,
    ) -> Result<Verdict, (DropReason, Unmatched<'a>)> {
        let reply =
            Tuple { protocol: miss.tuple.protocol, source: target, destination: lease.external };
        let (original, reply) = (Key::of(miss.tuple), Key::of(reply));
        let new = NewSession { original, reply, origin, uplink, state, idle: Span(0) };
        let Err(error) = self.insert(context, &new, miss.first(), miss.now) else {
            return Ok(self.forward_match(
                context,
                &mut miss.packet,
                &initial_match(&new),
                miss.now,
            ));
        };
        self.release_binding(miss.tuple, &lease, miss.now);
        match error {
            InsertError::AlreadyExists => Ok(self.retry(context, miss)),
            InsertError::ReplyConflict => Err((DropReason::AddressConflict, miss)),
            InsertError::Full => Err((DropReason::TableFull, miss)),
        }
    }

    fn open_inbound(
        &self,
        context: &mut WorkerContext,
        mut miss: Unmatched<'_>,
        external: External,
    ) -> Result<Verdict, DropReason> {
        let tuple = miss.tuple;
        if self.external(tuple.source.address).is_some() {
            return Err(DropReason::Martian);
        }
        if let Some(server) = self.forwards.target(tuple.protocol, tuple.destination) {
            return self.open_inbound_forward(context, miss, server, external.uplink);
        }
        let state = miss.opening_state().map_err(|reason| {
            if self.mappings.exists(tuple.protocol, tuple.destination) {
                reason
            } else {
                DropReason::NoMapping
            }
        })?;
        let adopted =
            self.borrow_mapping(tuple.protocol, tuple.destination, tuple.source, miss.now)?;
        let reply =
            Tuple { protocol: tuple.protocol, source: adopted.inside, destination: tuple.source };
        let new = NewSession {
            original: Key::of(tuple),
            reply: Key::of(reply),
            origin: SessionKind::INBOUND,
            uplink: external.uplink,
            state,
            idle: miss.now.since(adopted.refreshed),
        };
        let Err(error) = self.insert(context, &new, miss.first(), miss.now) else {
            return Ok(self.forward_match(
                context,
                &mut miss.packet,
                &initial_match(&new),
                miss.now,
            ));
        };
        self.release_borrowed(tuple, tuple.source, adopted.mapping, miss.now);
        match error {
            InsertError::AlreadyExists => Ok(self.retry(context, miss)),
            InsertError::ReplyConflict => Err(DropReason::AddressConflict),
            InsertError::Full => Err(DropReason::TableFull),
        }
    }

    /// A session from outside to a published server. When the same client endpoint already talks to the same server
    /// endpoint (through another uplink or another published port), its source port is rewritten for this one. What the
    /// server itself began by a guess yields: now the line is known.
    fn open_inbound_forward(
        &self,
        context: &mut WorkerContext,
        mut miss: Unmatched<'_>,
        server: Endpoint,
        uplink: u8,
    ) -> Result<Verdict, DropReason> {
        let tuple = miss.tuple;
        let stateless = Tuple { destination: server, ..tuple };
        let state = match (miss.opening_state(), miss.midstream_state()) {
            (Ok(state), _) | (Err(DropReason::TcpWithoutSession), Some(state)) => state,
            // RST and FIN of a connection that the box no longer knows: the server does.
            (Err(reason @ DropReason::TcpWithoutSession), None) => {
                return self.forward_request_stateless(context, miss, stateless, uplink, reason);
            }
            (Err(reason), _) => return Err(reason),
        };
        let mut client = tuple.source;
        for _ in 0..CONFLICT_TRIES {
            let reply = Tuple { protocol: tuple.protocol, source: server, destination: client };
            let (original, reply, origin) = (Key::of(tuple), Key::of(reply), SessionKind::FORWARD);
            let new = NewSession { original, reply, origin, uplink, state, idle: Span(0) };
            match self.insert(context, &new, miss.first(), miss.now) {
                Ok(()) => {
                    return Ok(self.forward_match(
                        context,
                        &mut miss.packet,
                        &initial_match(&new),
                        miss.now,
                    ));
                }
                Err(InsertError::AlreadyExists) => return Ok(self.retry(context, miss)),
                Err(InsertError::Full) => {
                    return self.forward_request_stateless(
                        context,
                        miss,
                        stateless,
                        uplink,
                        DropReason::TableFull,
                    );
                }
                Err(InsertError::ReplyConflict) if self.replace_tentative(reply, miss.now) => {}
                Err(InsertError::ReplyConflict) if has_ports(tuple.protocol) => {
                    client.port = context.random_unprivileged_port()
                }
                Err(InsertError::ReplyConflict) => return Err(DropReason::AddressConflict),
            }
        }
        Err(DropReason::PortsExhausted)
    }

    /// Ends the session that a server began with this tuple, if where it belongs was a guess.
    fn replace_tentative(&self, begun: Key, now: Tick) -> bool {
        let ended = self.table.end_tentative(begun, now);
        ended.inspect(|ended| self.release(ended, now)).is_some()
    }

    /// A published server's packet in the middle of a connection that the box does not know. Where the server is
    /// published several times, only the client's next packet can tell where the connection came in: until then nothing
    /// may go out from the wrong place.
    fn adopt_midstream_from_server(
        &self,
        context: &mut WorkerContext,
        mut miss: Unmatched<'_>,
        uplink: u8,
        published: Endpoint,
    ) -> Result<Verdict, DropReason> {
        if self.forwards.published_more_than_once(miss.tuple.protocol, miss.tuple.source) {
            return Err(DropReason::UplinkUnknown);
        }
        let to = Tuple { source: published, ..miss.tuple };
        let Some(state) = miss.midstream_state() else {
            return Ok(self.send_stateless(context, miss, to, false, uplink));
        };
        // As the client's own packet would have made it, so that both directions agree on who opened it.
        let (original, reply) = (Key::of(to.reversed()), Key::of(miss.tuple));
        let origin = SessionKind::FORWARD;
        let new = NewSession { original, reply, origin, uplink, state, idle: Span(0) };
        let first = FirstPacket { segment: None, direction: Direction::Reply, ..miss.first() };
        Ok(match self.insert(context, &new, first, miss.now) {
            Ok(()) => {
                let hit = Match { to, direction: Direction::Reply, ..initial_match(&new) };
                self.forward_match(context, &mut miss.packet, &hit, miss.now)
            }
            Err(InsertError::AlreadyExists) => self.retry(context, miss),
            Err(InsertError::Full | InsertError::ReplyConflict) => {
                self.send_stateless(context, miss, to, false, uplink)
            }
        })
    }

    /// A client's packet that cannot have a session goes on to the server without, unless the server would take it for that
    /// of a session which came in elsewhere: it would be answered there.
    fn forward_request_stateless(
        &self,
        context: &mut WorkerContext,
        miss: Unmatched<'_>,
        to: Tuple,
        uplink: u8,
        reason: DropReason,
    ) -> Result<Verdict, DropReason> {
        match self.table.lookup(Key::of(to.reversed()), miss.now) {
            Some(_) => Err(reason),
            None => Ok(self.send_stateless(context, miss, to, true, uplink)),
        }
    }

    /// A published server's packet that cannot have a session goes out without, unless it may answer a question that came in
    /// elsewhere.
    fn forward_reply_stateless(
        &self,
        context: &mut WorkerContext,
        miss: Unmatched<'_>,
        published: Endpoint,
        uplink: u8,
    ) -> Result<Verdict, DropReason> {
        if self.forwards.published_more_than_once(miss.tuple.protocol, miss.tuple.source) {
            return Err(DropReason::UplinkUnknown);
        }
        let to = Tuple { source: published, ..miss.tuple };
        Ok(self.send_stateless(context, miss, to, false, uplink))
    }

    /// Translates a packet of a static forward without a session.
    fn send_stateless(
        &self,
        context: &mut WorkerContext,
        mut miss: Unmatched<'_>,
        to: Tuple,
        inside: bool,
        uplink: u8,
    ) -> Verdict {
        let verdict =
            self.rewrite_and_count(context, &mut miss.packet, to, inside, uplink, miss.now);
        if verdict == Verdict::Translated {
            context.counters.forwarded_stateless += 1;
        }
        verdict
    }

    /// Another worker was faster with the very same session: its record serves this packet too.
    fn retry(&self, context: &mut WorkerContext, mut miss: Unmatched<'_>) -> Verdict {
        let key = Key::of(miss.tuple);
        let (hash, bytes) = (self.table.hash(key), miss.packet.parsed.length() as u32);
        match self.table.lookup_and_update(key, hash, miss.segment, bytes, miss.now) {
            Lookup::Hit(hit) => self.forward_match(context, &mut miss.packet, &hit, miss.now),
            // Gone again already, which takes a whole lifetime; the sender will try again.
            Lookup::Expired(_) | Lookup::Miss => Verdict::Drop(DropReason::TableFull),
        }
    }

    /// Adds a session; in a full table at the cost of one that the table gives up more easily.
    fn insert(
        &self,
        context: &mut WorkerContext,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let mut result = self.table.insert(context.worker, new, Some(first), now);
        if result == Err(InsertError::Full)
            && let Some(ended) = self.table.evict(context.worker, now)
        {
            context.counters.sessions_evicted += 1;
            self.release(&ended, now);
            result = self.table.insert(context.worker, new, Some(first), now);
        }
        if result.is_ok() {
            context.counters.sessions_created += 1;
        }
        result.map(|_| ())
    }
}

impl Unmatched<'_> {
    /// The state of the session that the packet may open, or why it may not.
    fn opening_state(&self) -> Result<State, DropReason> {
        if let Some(segment) = self.segment {
            let state = TcpState::opening(segment.flags).map(State::Tcp);
            return state.ok_or(DropReason::TcpWithoutSession);
        }
        match self.packet.parsed.payload() {
            Payload::Udp => Ok(State::Udp),
            Payload::IcmpQuery(kind) if kind.is_request() => Ok(State::Icmp),
            Payload::IcmpQuery(_) => Err(DropReason::IcmpUnsolicitedReply),
            Payload::Other => Ok(State::Other),
            Payload::Fragment { .. } => opening_state_of_fragment(self.tuple),
            Payload::Tcp(_) => unreachable!("its header was read"),
            Payload::IcmpError(_) | Payload::IcmpOther { .. } => {
                unreachable!("these have no tuple and never come here")
            }
        }
    }

    /// The packet as the opener of a session of which it is the original direction.
    fn first(&self) -> FirstPacket<'_> {
        FirstPacket {
            segment: self.segment,
            direction: Direction::Original,
            bytes: self.packet.parsed.length() as u32,
        }
    }

    /// The state of a connection that is adopted in its middle, if the packet shows that there is one.
    fn midstream_state(&self) -> Option<State> {
        self.segment.and_then(|segment| TcpState::midstream(segment.flags)).map(State::Tcp)
    }
}

/// The hit that the packet which opens a session makes.
fn initial_match(new: &NewSession) -> Match {
    Match {
        to: new.reply.tuple().reversed(),
        direction: Direction::Original,
        origin: new.origin,
        uplink: new.uplink,
        reschedule: None,
    }
}

/// A first piece shows its ports; of TCP it has the whole header, or it opens nothing.
fn opening_state_of_fragment(tuple: Tuple) -> Result<State, DropReason> {
    match tuple.protocol {
        Protocol::TCP => Err(DropReason::TcpWithoutSession),
        Protocol::UDP => Ok(State::Udp),
        Protocol::ICMP if tuple.destination.port == 0 => Ok(State::Icmp),
        Protocol::ICMP => Err(DropReason::IcmpUnsolicitedReply),
        _ => Ok(State::Other),
    }
}

/// Addresses that are never translated: no single host (RFC 1812 section 5.3.7), or link-local (RFC 3927 section 7).
pub(crate) fn is_martian(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}

/// Random source ports tried for a client whose own is taken; each fails only by chance.
const CONFLICT_TRIES: usize = 16;

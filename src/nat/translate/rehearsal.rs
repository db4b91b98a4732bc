//! A packet that need not exist: it takes the paths of a packet, and changes nothing.
//!
//! Each effect is answered as if it had happened. An effect that a later step of the same packet
//! depends on is kept here: the host's usage, the mapping that the packet would get, the tentative
//! session that it would replace.

use std::net::Ipv4Addr;

use rand::rngs::StdRng;

use crate::nat::context::WorkerContext;
use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::store::{Admit, Disposition};
use crate::nat::mapping::allocator::PortRequest;
use crate::nat::mapping::foresight::ForeseenMapping;
use crate::nat::mapping::host_limits::HostUsage;
use crate::nat::mapping::key::{BorrowedMapping, MappingKey};
use crate::nat::mapping::mappings::PortsExhaustedOn;
use crate::nat::policy::initiator::Initiator;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::table::pool::RESERVE;
use crate::nat::table::session::{NewSession, SessionId, SessionInfo};
use crate::nat::table::{FirstPacket, InsertError, Lookup};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::decide::Decision;
use crate::nat::translate::effects::Effects;
use crate::nat::translate::held::Binding;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Parsed, Protocol, Tuple};
use crate::time::Tick;
use crate::values::nat::EndpointDependence;

/// The effects that a packet would have, and what the paths have said about it.
pub(crate) struct Rehearsal {
    worker: WorkerContext,
    /// The usage of the sender, as this packet changes it. None: not yet asked for, or no limit.
    usage: Option<(Ipv4Addr, HostUsage)>,
    /// The mapping that the packet would get or has.
    mapping: Option<(MappingKey, ForeseenMapping)>,
    reaped: Option<SessionId>,
    replaced: Option<Key>,
    pub(crate) story: Story,
}

/// What the paths have said about a packet.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// The outcome.
    pub(crate) verdict: Option<Verdict>,
    /// The session that the packet belongs to.
    pub(crate) session: Option<SessionInfo>,
    /// The decision about a packet without a session.
    pub(crate) decision: Option<Decision>,
    /// The session that the packet would open.
    pub(crate) opened: Option<NewSession>,
    /// The mapping of the sender that the packet uses or would make.
    pub(crate) mapping: Option<(MappingKey, ForeseenMapping)>,
    /// The mapping of the receiver.
    pub(crate) borrowed: Option<MappingKey>,
    /// The session that the new one would replace, because the table is full.
    pub(crate) evicted: Option<SessionInfo>,
    /// The sender gets an ICMP error after some seconds.
    pub(crate) is_deferred: bool,
    /// The ICMP error to the sender exceeds the limit.
    pub(crate) is_error_limited: bool,
    /// Why the real outcome may differ.
    pub(crate) doubt: Option<Doubt>,
}

/// Why the outcome of a packet may differ from that of its rehearsal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The session of the packet has expired, and natbox has not removed it yet. A packet would
    /// remove it first, and what the session held would be free.
    Expired,
    /// The table still adopts the sessions of a process before this one.
    Adopting,
    /// A session of the box itself would end for this one, and its port would be free.
    EndsAnother,
}

impl Rehearsal {
    /// Rehearses a packet of a worker with these random choices.
    pub(crate) fn new(worker: usize, random: StdRng) -> Self {
        Self {
            worker: WorkerContext::rehearsing(worker, random),
            usage: None,
            mapping: None,
            reaped: None,
            replaced: None,
            story: Story::default(),
        }
    }

    /// Returns what the table says about a new session.
    fn would_insert(
        &mut self,
        nat: &Translator,
        new: &NewSession,
        most_reserved: Option<u32>,
        now: Tick,
    ) -> Result<(), InsertError> {
        if nat.table.inherits() {
            self.story.doubt = Some(Doubt::Adopting);
        }
        let result = match most_reserved {
            Some(most) => nat.table.would_insert_reserved(most, new, self.reaped, now),
            None => nat.table.would_insert(self.worker.worker, new, self.reaped, now),
        };
        let is_replaced = self.replaced.is_some_and(|replaced| replaced == new.reply);
        let evicted = match result {
            Err(InsertError::ReplyConflict) if is_replaced => None,
            result => result?,
        };
        self.story.opened = Some(*new);
        self.story.evicted = evicted;
        Ok(())
    }

    /// The mapping that the packet has got, if it is at this external endpoint.
    fn own_mapping_at(&self, protocol: Protocol, external: Endpoint) -> Option<MappingKey> {
        let (key, foreseen) = self.mapping.as_ref()?;
        (key.protocol == protocol && foreseen.external == external).then_some(*key)
    }
}

impl Effects for Rehearsal {
    fn worker(&mut self) -> &mut WorkerContext {
        &mut self.worker
    }

    fn decided(&mut self, decision: &Decision) {
        self.story.decision = Some(*decision);
    }

    fn concluded(&mut self, verdict: Verdict) {
        self.story.verdict = Some(verdict);
    }

    fn lookup(
        &mut self,
        nat: &Translator,
        key: Key,
        _: KeyHash,
        _: Option<&Segment>,
        _: u32,
        now: Tick,
    ) -> Lookup {
        let found = nat.table.peek(key, now);
        if let Lookup::Hit(_) = found {
            self.story.session = nat.table.session_at(key);
        }
        found
    }

    fn reschedule(&mut self, _: &Translator, _: SessionId, _: Tick) {}

    fn reap(&mut self, _: &Translator, session: SessionId, _: Tick) {
        self.reaped = Some(session);
        self.story.doubt = Some(Doubt::Expired);
    }

    fn insert(
        &mut self,
        nat: &Translator,
        new: &NewSession,
        _: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        self.would_insert(nat, new, None, now)
    }

    fn insert_own(
        &mut self,
        nat: &Translator,
        initiator: Initiator,
        new: &NewSession,
        _: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let most = Some(RESERVE - initiator.must_leave(RESERVE));
        let order = match initiator == Initiator::Probe {
            true => [most, None],
            false => [None, most],
        };
        match self.would_insert(nat, new, order[0], now) {
            Err(InsertError::Full) => self.would_insert(nat, new, order[1], now),
            inserted => inserted,
        }
    }

    fn evict_reserved(&mut self, nat: &Translator, uplink: Option<u8>, now: Tick) -> bool {
        if nat.table.victim_of_reserve(uplink, now).is_some() {
            self.story.doubt = Some(Doubt::EndsAnother);
        }
        false
    }

    fn replace_tentative(&mut self, nat: &Translator, original: Key, _: Tick) -> bool {
        // Its time may be over: the packet ends it all the same.
        let session = nat.table.session_at(original);
        let is_tentative = session.is_some_and(|session| {
            session.state == State::Tentative && Key::of(session.original) == original
        });
        let is_first = self.replaced != Some(original);
        if is_tentative && is_first {
            self.replaced = Some(original);
        }
        is_tentative && is_first
    }

    fn acquire_host(
        &mut self,
        nat: &Translator,
        host: Ipv4Addr,
        now: Tick,
    ) -> Result<(), DropReason> {
        let usage = self.usage.map(|(_, usage)| usage).or_else(|| nat.hosts.usage(host, now));
        let Some(usage) = usage else { return Ok(()) };
        self.usage = Some((host, nat.hosts.with_one_more(usage, now)?));
        Ok(())
    }

    fn release_host(&mut self, _: &Translator, _: Ipv4Addr) {
        if let Some((_, usage)) = &mut self.usage {
            usage.release();
        }
    }

    fn acquire_inbound(&mut self, nat: &Translator, host: Ipv4Addr) -> Result<(), DropReason> {
        nat.inbound.would_acquire(host)
    }

    fn release_inbound(&mut self, _: &Translator, _: Ipv4Addr) {}

    fn acquire_mapping(
        &mut self,
        nat: &Translator,
        key: MappingKey,
        request: PortRequest,
        addresses: impl Iterator<Item = Ipv4Addr>,
        now: Tick,
    ) -> Result<Endpoint, PortsExhaustedOn> {
        let random = &mut self.worker.random;
        let foreseen = nat.mappings.foresee(key, request, addresses, random, now)?;
        let external = foreseen.external;
        self.story.mapping = Some((key, foreseen));
        self.mapping = Some((key, foreseen));
        Ok(external)
    }

    fn add_peer(&mut self, _: &Translator, _: Protocol, _: Endpoint, _: Endpoint) {}

    fn refresh_mapping(&mut self, _: &Translator, _: Tuple, _: u8, _: Tick) {}

    fn borrow_mapping(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<BorrowedMapping, DropReason> {
        // A packet to the mapping of its own sender: the mapping is refreshed, and its external
        // endpoint is a peer of itself.
        let own = self.own_mapping_at(protocol, external).filter(|_| remote == external);
        if let Some(mapping) = own {
            if nat.limits.filtering != EndpointDependence::AddressDependent {
                nat.admit(protocol, external, remote, now, now)?;
            }
            self.story.borrowed = Some(mapping);
            return Ok(BorrowedMapping { mapping, inside: mapping.inside, refreshed: now });
        }
        let found = nat.mappings.at_external(protocol, external, remote);
        let found = found.ok_or_else(|| nat.without_mapping())?;
        let refreshed = nat.refreshed(protocol, found.refreshed, now);
        nat.admit(protocol, external, remote, refreshed, now)?;
        self.story.borrowed = Some(found.key);
        Ok(BorrowedMapping { mapping: found.key, inside: found.key.inside, refreshed })
    }

    fn release_borrowed(&mut self, _: &Translator, _: Tuple, _: Endpoint, _: MappingKey, _: Tick) {}

    fn release_binding(&mut self, nat: &Translator, tuple: Tuple, _: &Binding, _: Tick) {
        self.mapping = None;
        self.release_host(nat, tuple.source.address);
    }

    fn hold(&mut self, nat: &Translator, protocol: Protocol, external: Endpoint) -> bool {
        self.own_mapping_at(protocol, external).is_none()
            && nat.mappings.may_hold(protocol, external)
    }

    fn hold_any(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        address: Ipv4Addr,
        inside_port: u16,
    ) -> Option<Endpoint> {
        // An earlier attempt of this packet has found its port in use, so it has freed none.
        nat.mappings.foresee_held(protocol, address, inside_port, &mut self.worker.random)
    }

    fn release_held(&mut self, _: &Translator, _: Protocol, _: Endpoint) {}

    fn open_pinhole(&mut self, _: &Translator, _: Protocol, _: Endpoint, _: Endpoint, _: Tick) {}

    fn defer(&mut self, nat: &Translator, parsed: &Parsed, _: &[u8], _: Tick) {
        self.story.is_deferred = nat.is_deferred(parsed).is_some();
    }

    fn admit_icmp_error(&mut self, nat: &Translator, receiver: Ipv4Addr, now: Tick) -> bool {
        let is_admitted = nat.icmp_errors.would_admit(receiver, &mut self.worker.random, now);
        self.story.is_error_limited = !is_admitted;
        is_admitted
    }

    fn identification(
        &mut self,
        nat: &Translator,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        segments: u16,
    ) -> u16 {
        nat.identifications.next(source, destination, protocol, segments)
    }

    fn admit_fragment(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        fragment: FragmentRange,
        _: &[u8],
        now: Tick,
    ) -> Admit {
        nat.fragments.would_admit(id, fragment, now)
    }

    fn resolve_fragments(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        _: Disposition,
        now: Tick,
    ) -> Vec<Box<[u8]>> {
        nat.fragments.waiting(id, now)
    }
}

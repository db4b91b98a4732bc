//! What the paths of a packet do to the state that workers share.
//!
//! The paths decide, and ask for each effect here. [`WorkerContext`] has the effects of a packet
//! that has arrived. [`crate::nat::translate::rehearsal`] answers as if it had them, and changes
//! nothing. So a packet that need not exist takes the same paths.

use std::net::Ipv4Addr;

use crate::nat::context::WorkerContext;
use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::store::{Admit, Disposition};
use crate::nat::mapping::allocator::PortRequest;
use crate::nat::mapping::key::{BorrowedMapping, MappingKey};
use crate::nat::mapping::mappings::PortsExhaustedOn;
use crate::nat::policy::initiator::Initiator;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::table::session::{NewSession, SessionId};
use crate::nat::table::{FirstPacket, InsertError, Lookup};
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::decide::Decision;
use crate::nat::translate::held::Binding;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Parsed, Protocol, Tuple};
use crate::time::Tick;

/// The effects of one packet.
pub(crate) trait Effects {
    /// The context with the counters, the random choices and the packets to send.
    fn worker(&mut self) -> &mut WorkerContext;
    /// Notes the decision about a packet without a session.
    fn decided(&mut self, decision: &Decision);
    /// Notes the outcome.
    fn concluded(&mut self, verdict: Verdict);

    /// See [`crate::nat::table::Table::lookup_and_update`].
    fn lookup(
        &mut self,
        nat: &Translator,
        key: Key,
        hash: KeyHash,
        segment: Option<&Segment>,
        bytes: u32,
        now: Tick,
    ) -> Lookup;
    /// See [`crate::nat::table::Table::reschedule`].
    fn reschedule(&mut self, nat: &Translator, session: SessionId, now: Tick);
    /// See [`Translator::reap`].
    fn reap(&mut self, nat: &Translator, session: SessionId, now: Tick);
    /// See [`Translator::insert`].
    fn insert(
        &mut self,
        nat: &Translator,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError>;
    /// See [`Translator::insert_own`].
    fn insert_own(
        &mut self,
        nat: &Translator,
        initiator: Initiator,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError>;
    /// See [`Translator::evict_reserved`].
    fn evict_reserved(&mut self, nat: &Translator, uplink: Option<u8>, now: Tick) -> bool;
    /// See [`Translator::replace_tentative`].
    fn replace_tentative(&mut self, nat: &Translator, original: Key, now: Tick) -> bool;

    /// Counts one more session of a host, unless a limit forbids it.
    fn acquire_host(
        &mut self,
        nat: &Translator,
        host: Ipv4Addr,
        now: Tick,
    ) -> Result<(), DropReason>;
    /// Counts one session of a host less.
    fn release_host(&mut self, nat: &Translator, host: Ipv4Addr);
    /// Counts one more session from outside over a mapping of a host, unless a limit forbids it.
    fn acquire_inbound(&mut self, nat: &Translator, host: Ipv4Addr) -> Result<(), DropReason>;
    /// Counts one session from outside less.
    fn release_inbound(&mut self, nat: &Translator, host: Ipv4Addr);

    /// See [`crate::nat::mapping::mappings::Mappings::acquire`].
    fn acquire_mapping(
        &mut self,
        nat: &Translator,
        key: MappingKey,
        request: PortRequest,
        addresses: impl Iterator<Item = Ipv4Addr>,
        now: Tick,
    ) -> Result<Endpoint, PortsExhaustedOn>;
    /// Counts a session between an external endpoint and a remote one, for filtering.
    fn add_peer(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    );
    /// See [`Translator::refresh_mapping`].
    fn refresh_mapping(&mut self, nat: &Translator, tuple: Tuple, uplink: u8, now: Tick);
    /// See [`Translator::borrow_mapping`].
    fn borrow_mapping(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<BorrowedMapping, DropReason>;
    /// See [`Translator::release_borrowed`].
    fn release_borrowed(
        &mut self,
        nat: &Translator,
        tuple: Tuple,
        remote: Endpoint,
        mapping: MappingKey,
        now: Tick,
    );
    /// See [`Translator::release_binding`].
    fn release_binding(&mut self, nat: &Translator, tuple: Tuple, binding: &Binding, now: Tick);
    /// Holds an external port for one more session; false when it is not free for that.
    fn hold(&mut self, nat: &Translator, protocol: Protocol, external: Endpoint) -> bool;
    /// Holds a random free port of an external address.
    fn hold_any(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        address: Ipv4Addr,
        inside_port: u16,
    ) -> Option<Endpoint>;
    /// Releases an external port that the session held.
    fn release_held(&mut self, nat: &Translator, protocol: Protocol, external: Endpoint);
    /// See [`crate::nat::mapping::mappings::Mappings::open_pinhole`].
    fn open_pinhole(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        target: Endpoint,
        now: Tick,
    );

    /// See [`Translator::defer`].
    fn defer(&mut self, nat: &Translator, parsed: &Parsed, packet: &[u8], now: Tick);
    /// Takes the cost of an ICMP error to `receiver`; false when its limit forbids the error.
    fn admit_icmp_error(&mut self, nat: &Translator, receiver: Ipv4Addr, now: Tick) -> bool;
    /// Takes the identification of a packet; of its first segment, if it has several.
    fn identification(
        &mut self,
        nat: &Translator,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        segments: u16,
    ) -> u16;
    /// See [`crate::nat::fragments::store::Fragments::admit`].
    fn admit_fragment(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        fragment: FragmentRange,
        bytes: &[u8],
        now: Tick,
    ) -> Admit;
    /// See [`crate::nat::fragments::store::Fragments::resolve`].
    fn resolve_fragments(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        disposition: Disposition,
        now: Tick,
    ) -> Vec<Box<[u8]>>;
}

/// The effects of a packet that has arrived.
impl Effects for WorkerContext {
    #[inline(always)]
    fn worker(&mut self) -> &mut WorkerContext {
        self
    }

    #[inline(always)]
    fn decided(&mut self, _: &Decision) {}

    #[inline(always)]
    fn concluded(&mut self, _: Verdict) {}

    #[inline(always)]
    fn lookup(
        &mut self,
        nat: &Translator,
        key: Key,
        hash: KeyHash,
        segment: Option<&Segment>,
        bytes: u32,
        now: Tick,
    ) -> Lookup {
        nat.table.lookup_and_update(key, hash, segment, bytes, now)
    }

    #[inline(always)]
    fn reschedule(&mut self, nat: &Translator, session: SessionId, now: Tick) {
        nat.table.reschedule(session, now);
    }

    #[inline(always)]
    fn reap(&mut self, nat: &Translator, session: SessionId, now: Tick) {
        nat.reap(self, session, now);
    }

    #[inline(always)]
    fn insert(
        &mut self,
        nat: &Translator,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        nat.insert(self, new, first, now)
    }

    #[inline(always)]
    fn insert_own(
        &mut self,
        nat: &Translator,
        initiator: Initiator,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        nat.insert_own(self, initiator, new, first, now)
    }

    fn evict_reserved(&mut self, nat: &Translator, uplink: Option<u8>, now: Tick) -> bool {
        nat.evict_reserved(self, uplink, now)
    }

    fn replace_tentative(&mut self, nat: &Translator, original: Key, now: Tick) -> bool {
        nat.replace_tentative(original, now)
    }

    #[inline(always)]
    fn acquire_host(
        &mut self,
        nat: &Translator,
        host: Ipv4Addr,
        now: Tick,
    ) -> Result<(), DropReason> {
        nat.hosts.try_acquire(host, now)
    }

    fn release_host(&mut self, nat: &Translator, host: Ipv4Addr) {
        nat.hosts.release(host);
    }

    #[inline(always)]
    fn acquire_inbound(&mut self, nat: &Translator, host: Ipv4Addr) -> Result<(), DropReason> {
        nat.inbound.try_acquire(host)
    }

    fn release_inbound(&mut self, nat: &Translator, host: Ipv4Addr) {
        nat.inbound.release(host);
    }

    #[inline(always)]
    fn acquire_mapping(
        &mut self,
        nat: &Translator,
        key: MappingKey,
        request: PortRequest,
        addresses: impl Iterator<Item = Ipv4Addr>,
        now: Tick,
    ) -> Result<Endpoint, PortsExhaustedOn> {
        nat.mappings.acquire(key, request, addresses, &mut self.random, now)
    }

    #[inline(always)]
    fn add_peer(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
    ) {
        nat.mappings.add_peer(protocol, external, remote);
    }

    #[inline(always)]
    fn refresh_mapping(&mut self, nat: &Translator, tuple: Tuple, uplink: u8, now: Tick) {
        nat.refresh_mapping(tuple, uplink, now);
    }

    #[inline(always)]
    fn borrow_mapping(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> Result<BorrowedMapping, DropReason> {
        nat.borrow_mapping(protocol, external, remote, now)
    }

    fn release_borrowed(
        &mut self,
        nat: &Translator,
        tuple: Tuple,
        remote: Endpoint,
        mapping: MappingKey,
        now: Tick,
    ) {
        nat.release_borrowed(tuple, remote, mapping, now);
    }

    fn release_binding(&mut self, nat: &Translator, tuple: Tuple, binding: &Binding, now: Tick) {
        nat.release_binding(tuple, binding, now);
    }

    #[inline(always)]
    fn hold(&mut self, nat: &Translator, protocol: Protocol, external: Endpoint) -> bool {
        nat.mappings.hold(protocol, external)
    }

    fn hold_any(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        address: Ipv4Addr,
        inside_port: u16,
    ) -> Option<Endpoint> {
        nat.mappings.hold_any(protocol, address, inside_port, &mut self.random)
    }

    fn release_held(&mut self, nat: &Translator, protocol: Protocol, external: Endpoint) {
        nat.mappings.release_held(protocol, external);
    }

    fn open_pinhole(
        &mut self,
        nat: &Translator,
        protocol: Protocol,
        external: Endpoint,
        target: Endpoint,
        now: Tick,
    ) {
        nat.mappings.open_pinhole(protocol, external, target, now);
    }

    fn defer(&mut self, nat: &Translator, parsed: &Parsed, packet: &[u8], now: Tick) {
        nat.defer(parsed, packet, now);
    }

    fn admit_icmp_error(&mut self, nat: &Translator, receiver: Ipv4Addr, now: Tick) -> bool {
        nat.icmp_errors.admit(receiver, &mut self.random, now)
    }

    #[inline(always)]
    fn identification(
        &mut self,
        nat: &Translator,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        segments: u16,
    ) -> u16 {
        nat.identifications.take(source, destination, protocol, segments)
    }

    fn admit_fragment(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        fragment: FragmentRange,
        bytes: &[u8],
        now: Tick,
    ) -> Admit {
        nat.fragments.admit(id, fragment, bytes, now)
    }

    fn resolve_fragments(
        &mut self,
        nat: &Translator,
        id: DatagramId,
        disposition: Disposition,
        now: Tick,
    ) -> Vec<Box<[u8]>> {
        nat.fragments.resolve(id, disposition, now)
    }
}

//! Carries out a decision: reserves what a new session needs, inserts the session, rewrites the
//! packet.

use crate::nat::context::WorkerContext;
use crate::nat::policy::initiator::Initiator;
use crate::nat::table::key::Key;
use crate::nat::table::pool::RESERVE;
use crate::nat::table::session::NewSession;
use crate::nat::table::{FirstPacket, InsertError, Lookup, Match};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::decide::{Decision, Opening, Path};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::Tuple;
use crate::time::{Span, Tick};

/// A packet that opens a session.
pub(crate) struct Unmatched<'a> {
    pub(crate) packet: Packet<'a>,
    pub(crate) tuple: Tuple,
    pub(crate) segment: Option<&'a Segment>,
    pub(crate) now: Tick,
}

impl Translator {
    /// Carries out the decision about a packet.
    #[inline(always)]
    pub(crate) fn carry_out(
        &self,
        context: &mut impl Effects,
        mut packet: Packet<'_>,
        segment: Option<&Segment>,
        decision: Decision,
        now: Tick,
    ) -> Verdict {
        context.decided(&decision);
        match decision {
            Decision::Open(opening) => {
                let Packet { parsed, wire_length, .. } = packet;
                let miss = Unmatched {
                    packet: Packet { parsed, buffer: &mut *packet.buffer, wire_length },
                    tuple: opening.tuple,
                    segment,
                    now,
                };
                match self.commit(context, miss, &opening) {
                    Ok(verdict) => verdict,
                    Err(reason) => self.drop_unmatched(context, &mut packet, reason, now),
                }
            }
            Decision::Session(rewrite) => {
                self.rewrite_and_count(context, &mut packet, rewrite, now)
            }
            Decision::Stateless(rewrite) => self.send_stateless(context, &mut packet, rewrite, now),
            Decision::Bypass(tuple) => self.bypass(context, &mut packet, tuple),
            Decision::Error(rewrite) => self.rewrite_error(context, &mut packet, &rewrite),
            Decision::BypassError(rewrite) => self.bypass_error(context, &mut packet, &rewrite),
            Decision::Fragment(rewrite) => self.rewrite_fragment(context, packet.buffer, rewrite),
            Decision::Hold => Verdict::Held,
            Decision::PassToHost => Verdict::PassToHost,
            Decision::Drop(reason) => self.drop_unmatched(context, &mut packet, reason, now),
        }
    }

    /// Opens the session of a packet and rewrites the packet.
    #[inline(always)]
    fn commit(
        &self,
        context: &mut impl Effects,
        miss: Unmatched<'_>,
        opening: &Opening,
    ) -> Result<Verdict, DropReason> {
        match opening.path {
            Path::Outbound { external, remote } => {
                self.open_outbound(context, miss, opening, external, remote)
            }
            Path::Hairpin { external, server } => {
                self.open_hairpin(context, miss, opening, external, server)
            }
            Path::Forward { server } => self.open_forward(context, miss, opening, server),
            Path::Mapping { .. } => self.open_inbound(context, miss, opening),
            Path::Midstream { published } => {
                Ok(self.adopt_midstream(context, miss, opening, published))
            }
        }
    }

    /// Drops a packet without a session. The sender may get an ICMP error, at once or later.
    fn drop_unmatched(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        reason: DropReason,
        now: Tick,
    ) -> Verdict {
        if let DropReason::NoMapping | DropReason::Filtered = reason {
            // The mapping may have ended since the decision.
            let verdict = self.untranslated_verdict(packet.parsed.destination(), reason);
            if verdict == Verdict::Drop(reason) {
                context.defer(self, packet.parsed, packet.buffer, now);
            }
            return verdict;
        }
        self.reject(context, packet, reason, now)
    }

    /// Translates a packet by the session that another worker has just opened with the same tuples.
    pub(crate) fn retry(&self, context: &mut impl Effects, mut miss: Unmatched<'_>) -> Verdict {
        let key = Key::of(miss.tuple);
        let (hash, bytes) = (self.table.hash(key), miss.packet.parsed.length() as u32);
        match context.lookup(self, key, hash, miss.segment, bytes, miss.now) {
            Lookup::Hit(hit) => self.forward_match(context, &mut miss.packet, &hit, miss.now),
            // The session has ended in the meantime, although its whole idle timeout had to pass.
            // The sender retransmits.
            Lookup::Expired(_) | Lookup::Miss => Verdict::Drop(DropReason::TableFull),
        }
    }

    /// Inserts a session. If the table is full, evicts the session that yields first, if any
    /// yields.
    #[inline(always)]
    pub(crate) fn insert(
        &self,
        context: &mut WorkerContext,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let mut result = self.table.insert(context.worker, new, Some(first), now);
        while result == Err(InsertError::Full) && self.table.inherits() {
            self.adopt(context.worker, ADOPTION_BATCH_SIZE, now);
            result = self.table.insert(context.worker, new, Some(first), now);
        }
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
        result.map(drop)
    }

    /// Inserts a session that the box itself opens. Records are kept back for such sessions: a
    /// probe uses them first, and the host when no other record is left.
    #[cold]
    pub(crate) fn insert_own(
        &self,
        context: &mut WorkerContext,
        initiator: Initiator,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let most = RESERVE - initiator.must_leave(RESERVE);
        let is_probe = initiator == Initiator::Probe;
        let mut insert = |reserved: bool| match reserved {
            true => self.insert_reserved(context, most, new, first, now),
            false => self.insert(context, new, first, now),
        };
        match insert(is_probe) {
            Err(InsertError::Full) => insert(!is_probe),
            inserted => inserted,
        }
    }

    /// Inserts a session of the box in a reserved record. If `most` of them are in use, evicts a
    /// session that has done its work.
    fn insert_reserved(
        &self,
        context: &mut WorkerContext,
        most: u32,
        new: &NewSession,
        first: FirstPacket<'_>,
        now: Tick,
    ) -> Result<(), InsertError> {
        let mut result = self.table.insert_reserved(most, new, Some(first), now);
        if result == Err(InsertError::Full) && self.evict_reserved(context, None, now) {
            result = self.table.insert_reserved(most, new, Some(first), now);
        }
        if result.is_ok() {
            context.counters.sessions_created += 1;
        }
        result.map(drop)
    }

    /// Ends a session in a reserved record that has done its work, and releases its port. `uplink`
    /// restricts the search to the sessions of an uplink. False: there is none.
    pub(crate) fn evict_reserved(
        &self,
        context: &mut WorkerContext,
        uplink: Option<u8>,
        now: Tick,
    ) -> bool {
        let Some(ended) = self.table.evict_reserved(uplink, now) else { return false };
        context.counters.sessions_evicted += 1;
        self.release(&ended, now);
        true
    }
}

impl Unmatched<'_> {
    /// The packet as the opener of a session of which it is the original direction.
    pub(crate) fn first(&self) -> FirstPacket<'_> {
        FirstPacket {
            segment: self.segment,
            direction: Direction::Original,
            bytes: self.packet.parsed.length() as u32,
        }
    }
}

impl Opening {
    /// The session between the packet's tuple and the tuple of its replies, of the decided kind.
    #[inline(always)]
    pub(crate) fn session(&self, reply: Tuple) -> NewSession {
        NewSession {
            original: Key::of(self.tuple),
            reply: Key::of(reply),
            origin: self.kind(),
            uplink: self.uplink,
            state: self.state,
            idle: Span(0),
        }
    }
}

/// Records that are adopted at once if a new session finds no free record.
const ADOPTION_BATCH_SIZE: u32 = 256;

/// The match of the packet that opens a session.
pub(crate) fn initial_match(new: &NewSession) -> Match {
    Match {
        to: new.reply.tuple().reversed(),
        direction: Direction::Original,
        origin: new.origin,
        uplink: new.uplink,
        reschedule: None,
    }
}

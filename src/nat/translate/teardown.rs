//! Ending the sessions of a failed line, and telling the inside at once: TCP is reset, UDP gets an ICMP error, so that
//! whoever talked over it can begin again over another line.
//!
//! The control thread sweeps the table in slices; what is to be said waits in `NotificationQueue` until a worker sends it.

use crate::nat::table::session::EndpointKind;
use crate::nat::table::{SessionId, SessionInfo};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::TcpSequences;
use crate::nat::translator::{Translator, WorkerContext};
use crate::packet::{ChecksumMode, IcmpErrorKind, TcpFlags, Tuple, builder, icmp_error, parse};
use crate::time::Tick;

/// Which sessions a change of lines ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeardownScope {
    /// Those that go over this line and could begin again over another.
    Over(u8),
    /// Those from inside that go over another line, and would take this one if they began now.
    FailbackTo(u8),
    /// Those over external addresses that the box has no more.
    AddressGone,
}

/// Where a sweep goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCursor(usize, u32);

/// Whole IPv4 packets.
type Packets = Vec<Box<[u8]>>;

impl Translator {
    /// Ends affected sessions in a slice of the table. Returns how many, and where to go on (None: the sweep is done).
    ///
    /// Call it again a moment later while [`Self::notifications`] is large.
    pub fn teardown_slice(
        &self,
        affected: TeardownScope,
        from: TableCursor,
        now: Tick,
    ) -> (usize, Option<TableCursor>) {
        let mut doomed: Vec<(SessionId, Packets)> = Vec::new();
        let next = self.table.list((from.0, from.1), SLICE, |session| {
            if self.is_in_scope(affected, &session) {
                doomed.push((session.id, self.notifications_for(&session)));
            }
        });
        let mut ended = 0;
        for (id, packets) in doomed {
            // The session may have ended by now.
            let Some(session) = self.table.end(id) else { continue };
            self.release(&session, now);
            self.notifications.extend(packets);
            ended += 1;
        }
        (ended, next.map(|(pool, offset)| TableCursor(pool, offset)))
    }

    /// Ends all affected sessions at once; how many.
    pub fn teardown_all(&self, affected: TeardownScope, now: Tick) -> usize {
        let (mut ended, mut place) = (0, Some(TableCursor::default()));
        while let Some(from) = place {
            let (some, next) = self.teardown_slice(affected, from, now);
            (ended, place) = (ended + some, next);
        }
        ended
    }

    /// Packets to inside hosts that wait to be sent.
    pub fn notifications(&self) -> usize {
        self.notifications.len()
    }

    /// Leaves some of what waits in [`WorkerContext::outbox`]. One worker does it for all.
    pub(crate) fn send_notifications(&self, lane: &mut WorkerContext) {
        if lane.worker != 0 || self.notifications.is_empty() {
            return;
        }
        let packets = self.notifications.take(BATCH_SIZE);
        lane.counters.failover_notifications += packets.len() as u64;
        lane.outbox.extend(packets);
    }

    fn is_in_scope(&self, affected: TeardownScope, session: &SessionInfo) -> bool {
        let (from, to) = (session.origin.initiator, session.origin.responder);
        let is_hairpin = from.is_inside() && to.is_inside();
        let ends = [session.original.source, session.reply.source];
        let is_own = ends.iter().any(|end| self.uplink_of_probe_address(end.address).is_some());
        // What is published cannot choose: it answers where it was asked.
        let rule = || {
            self.outbound_rule(
                session.original.source.address,
                session.original.destination.address,
            )
        };
        match affected {
            TeardownScope::AddressGone => self.address_removed(session),
            // Hairpin needs no line; the box's own endpoints must stay on theirs.
            TeardownScope::Over(_) | TeardownScope::FailbackTo(_) if is_hairpin || is_own => false,
            TeardownScope::Over(uplink) if session.uplink != uplink => false,
            TeardownScope::Over(uplink) => match from {
                EndpointKind::Mapping | EndpointKind::Address => {
                    rule().is_some_and(|rule| self.has_alternative(rule, uplink))
                }
                EndpointKind::Outside | EndpointKind::Forward => self.has_other_open_uplink(uplink),
            },
            TeardownScope::FailbackTo(uplink) => {
                let inside = session.original.source;
                let would_return =
                    |rule| self.preferred_uplink(rule, inside, session.uplink) == Some(uplink);
                session.uplink != uplink
                    && matches!(from, EndpointKind::Mapping | EndpointKind::Address)
                    && rule().is_some_and(would_return)
            }
        }
    }

    /// Whether an external address of a session is not the box's any more.
    pub(crate) fn address_removed(&self, session: &SessionInfo) -> bool {
        let (from, to) = (session.origin.initiator, session.origin.responder);
        let is_gone = |address| self.external(address).is_none();
        from.is_inside() && is_gone(session.reply.destination.address)
            || to.is_inside() && is_gone(session.original.destination.address)
    }

    /// What the inside end of a session is told when it ends: nothing where there is no way to.
    fn notifications_for(&self, session: &SessionInfo) -> Packets {
        let inside = if session.origin.initiator.is_inside() {
            Direction::Original
        } else {
            Direction::Reply
        };
        let sent = match inside {
            Direction::Original => session.original,
            Direction::Reply => session.reply,
        };
        match (session.state, session.tcp) {
            (State::Tcp(TcpState::FinBoth | TcpState::Reset), _) => Vec::new(),
            (State::Tcp(_), numbers) => resets(sent.reversed(), numbers, inside),
            (State::Udp | State::DnsReplied | State::Tentative, _) => {
                self.unreachable_error(sent).into_iter().collect()
            }
            (State::Icmp | State::Other, _) => Vec::new(),
        }
    }

    /// An ICMP error about a datagram that the inside host could have sent.
    fn unreachable_error(&self, sent: Tuple) -> Option<Box<[u8]>> {
        let datagram = builder::udp(sent, b"");
        let mut buffer = [0; BUFFER];
        buffer[..datagram.len()].copy_from_slice(&datagram);
        let parsed = parse(&datagram, ChecksumMode::Complete).ok()?;
        let source = self.policy.inside_address.unwrap_or(sent.destination.address);
        let answer = IcmpErrorKind::Unreachable { code: ADMINISTRATIVELY_PROHIBITED };
        let length = icmp_error(&parsed, &mut buffer, datagram.len(), answer, source)?;
        Some(buffer[..length].into())
    }
}

/// Resets in the name of the other end. A receiver obeys only the very number that it expects (RFC 5961 section 3.2): what
/// the other end would send next if nothing was lost on the way, else what the receiver has acknowledged.
fn resets(to: Tuple, numbers: TcpSequences, inside: Direction) -> Packets {
    let (own, other) = (inside.number(), inside.opposite().number());
    // In answer to a SYN it is the acknowledgement that counts.
    let acknowledgement = numbers.next[own].unwrap_or(0);
    let mut expected: Vec<u32> =
        [numbers.next[other], numbers.acknowledged[own]].into_iter().flatten().collect();
    expected.dedup();
    if expected.is_empty() {
        expected.push(0);
    }
    let reset = |sequence| {
        let flags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);
        builder::tcp(to, flags, sequence, acknowledgement, &[], b"").into()
    };
    expected.into_iter().map(reset).collect()
}

/// Records looked at in one slice, under one lock.
const SLICE: u32 = 1024;
/// Packets that a worker sends at once.
const BATCH_SIZE: usize = 64;
/// Room for an ICMP error.
const BUFFER: usize = 2048;
/// ICMP code 13 (RFC 1812 section 5.2.7.1). Of the codes that are true here, it is one that the kernels of the receivers pass on to
/// programs (Linux: EHOSTUNREACH; host unreachable is kept from those that do not ask for it).
const ADMINISTRATIVELY_PROHIBITED: u8 = 13;

//! Notifications to inside hosts when natbox ends their sessions: TCP gets a reset, UDP gets an
//! ICMP error, so that the host can begin again over another uplink at once.
//!
//! The control thread ends sessions in slices (see [`crate::nat::translate::sessions`]). The
//! notifications wait in [`NotificationQueue`] until a worker sends them.
//!
//! [`NotificationQueue`]: crate::nat::shared::notifications::NotificationQueue

use crate::nat::context::WorkerContext;
use crate::nat::table::session::SessionInfo;
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::TcpSequences;
use crate::nat::translator::Translator;
use crate::packet::{ChecksumMode, IcmpErrorKind, TcpFlags, Tuple, builder, icmp_error, parse};

/// Whole IPv4 packets.
type Packets = Vec<Box<[u8]>>;

impl Translator {
    /// Number of notifications that wait to be sent.
    pub fn notifications(&self) -> usize {
        self.notifications.len()
    }

    /// Moves some of the notifications that wait to [`WorkerContext::outbox`]. One worker sends
    /// those of all.
    pub(crate) fn send_notifications(&self, context: &mut WorkerContext) {
        if context.worker != 0 || self.notifications.is_empty() {
            return;
        }
        let packets = self.notifications.take(BATCH_SIZE);
        context.counters.failover_notifications += packets.len() as u64;
        context.outbox.extend(packets);
    }

    /// Notifications to the inside endpoint about the end of a session; empty where the protocol
    /// has no such message.
    pub(crate) fn notifications_for(&self, session: &SessionInfo) -> Packets {
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
            (State::Tcp(_), tcp) => resets(sent.reversed(), tcp.sequences(), inside),
            (State::Udp | State::DnsReplied | State::Tentative, _) => {
                self.unreachable_error(sent).into_iter().collect()
            }
            (State::Icmp | State::Other, _) => Vec::new(),
        }
    }

    /// Builds an ICMP error about a datagram that the inside host could have sent.
    fn unreachable_error(&self, sent: Tuple) -> Option<Box<[u8]>> {
        let datagram = builder::udp(sent, b"");
        let mut buffer = [0; BUFFER];
        buffer[..datagram.len()].copy_from_slice(&datagram);
        let parsed = parse(&datagram, ChecksumMode::Complete).ok()?;
        let host = sent.source.address;
        let source = self.policy.error_source_towards(host).unwrap_or(sent.destination.address);
        let answer = IcmpErrorKind::Unreachable { code: ADMINISTRATIVELY_PROHIBITED };
        let length = icmp_error(&parsed, &mut buffer, datagram.len(), answer, source)?;
        Some(buffer[..length].into())
    }
}

/// Builds resets in the name of the other end. A receiver obeys only the exact sequence number that
/// it expects (RFC 5961 section 3.2). That is the number the other end would send next if no
/// segment was lost on the way, else the number that the receiver has acknowledged.
fn resets(to: Tuple, sequences: TcpSequences, inside: Direction) -> Packets {
    let (own, other) = (inside.number(), inside.opposite().number());
    // In reply to a SYN, the acknowledgement number counts.
    let acknowledgement = sequences.next[own].unwrap_or(0);
    let mut expected: Vec<u32> =
        [sequences.next[other], sequences.acknowledged[own]].into_iter().flatten().collect();
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

/// Notifications that a worker sends at once.
const BATCH_SIZE: usize = 64;
/// Length of a buffer that holds any ICMP error.
const BUFFER: usize = 2048;
/// ICMP code 13 (RFC 1812 section 5.2.7.1). Of the codes that are true here, kernels pass this one
/// to programs (Linux: EHOSTUNREACH); they hide host unreachable from programs that do not ask for
/// it.
const ADMINISTRATIVELY_PROHIBITED: u8 = 13;

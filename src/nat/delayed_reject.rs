//! SYNs from outside that nobody waits for: silence at first, and an error only if it stays so (RFC 5382 REQ-4).
//!
//! The other end may be about to dial out; its SYN must not find that ours was answered with an error already. So the SYN
//! is kept for six seconds, and answered unless a session of its tuple exists by then.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::packet::{ChecksumMode, IcmpErrorKind, Payload, Tuple, parse};
use crate::time::{Span, Tick};

use super::fast_path::Packet;
use super::key::Key;
use super::verdict::{DropReason, Verdict};
use super::{Translator, WorkerContext};

/// SYNs that wait, oldest first; at most [`MOST`]. When there is no room, newcomers are met with silence.
#[derive(Default)]
pub(super) struct DelayedRejects(Mutex<VecDeque<Waiting>>);

struct Waiting {
    due: Tick,
    tuple: Tuple,
    packet: Box<[u8]>,
    checksum: ChecksumMode,
}

impl DelayedRejects {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Takes one whose time has come.
    fn due(&self, now: Tick) -> Option<Waiting> {
        let mut waiting = self.0.lock();
        if now.reached(waiting.front()?.due) { waiting.pop_front() } else { None }
    }
}

impl Translator {
    /// Keeps a dropped packet from outside if it is a SYN and such are answered late.
    pub(super) fn defer(&self, packet: &Packet<'_>, tuple: Tuple, now: Tick) {
        let Payload::Tcp(tcp) = packet.parsed.payload() else { return };
        let length = packet.parsed.length();
        if !self.settings.delayed_reject || !tcp.flags.syn() || tcp.flags.ack() || length > LONGEST
        {
            return;
        }
        let mut waiting = self.delayed_rejects.0.lock();
        if waiting.len() < MOST {
            waiting.push_back(Waiting {
                due: now.after(PATIENCE),
                tuple,
                packet: packet.buffer[..length].into(),
                checksum: packet.parsed.checksum_mode(),
            });
        }
    }

    /// Answers SYNs that have waited long enough; the answers are left in [`WorkerContext::released`]. One worker does it for all.
    pub(super) fn send_due(&self, lane: &mut WorkerContext, now: Tick) {
        if lane.worker != 0 || !self.settings.delayed_reject {
            return;
        }
        while let Some(Waiting { tuple, packet, checksum, .. }) = self.delayed_rejects.due(now) {
            if self.table.lookup(Key::of(tuple), now).is_some() {
                continue;
            }
            let mut buffer = [0; BUFFER];
            buffer[..packet.len()].copy_from_slice(&packet);
            let Ok(parsed) = parse(&packet, checksum) else {
                unreachable!("it was parsed when it came")
            };
            let mut packet =
                Packet { parsed: &parsed, buffer: &mut buffer, wire_length: packet.len() };
            let unreachable = IcmpErrorKind::Unreachable { code: PORT_UNREACHABLE };
            if let Verdict::Answer(length, _) =
                self.reply_with_error(lane, &mut packet, unreachable, DropReason::NoMapping, now)
            {
                lane.counters.icmp_errors_sent += 1;
                lane.outbox.push(buffer[..length].into());
            }
        }
    }
}

/// RFC 5382 REQ-4: no answer within this time.
const PATIENCE: Span = Span::seconds(6);
/// SYNs kept at one time.
const MOST: usize = 1024;
/// Longest SYN kept, in bytes: what an ICMP error may quote.
const LONGEST: usize = 548;
/// Room for an ICMP error.
const BUFFER: usize = 2048;
const PORT_UNREACHABLE: u8 = 3;

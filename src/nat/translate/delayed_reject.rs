//! SYNs from outside that nobody waits for: silence at first, and an error only if it stays so (RFC 5382 REQ-4).
//!
//! The other end may be about to dial out; its SYN must not find that ours was answered with an error already. So the SYN
//! is kept for six seconds, and answered unless a session of its tuple exists by then.

use crate::nat::context::WorkerContext;
use crate::nat::state::delayed_rejects::DelayedReject;
use crate::nat::table::key::Key;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpErrorKind, Payload, parse};
use crate::time::{Span, Tick};

impl Translator {
    /// Keeps a dropped packet from outside if it is a SYN and such are answered late.
    pub(crate) fn defer(&self, packet: &Packet<'_>, now: Tick) {
        let Payload::Tcp(tcp) = packet.parsed.payload() else { return };
        let Some(tuple) = packet.parsed.tuple() else { return };
        let length = packet.parsed.length();
        if !self.policy.delayed_reject || !tcp.flags.syn() || tcp.flags.ack() || length > MAX_SYN {
            return;
        }
        self.delayed_rejects.push(DelayedReject {
            due: now.after(REJECT_DELAY),
            tuple,
            packet: packet.buffer[..length].into(),
            checksum: packet.parsed.checksum_mode(),
        });
    }

    /// Answers SYNs that have waited long enough; the answers are left in [`WorkerContext::outbox`]. One worker does it for all.
    pub(crate) fn send_due(&self, context: &mut WorkerContext, now: Tick) {
        if context.worker != 0 || !self.policy.delayed_reject {
            return;
        }
        while let Some(DelayedReject { tuple, packet, checksum, .. }) =
            self.delayed_rejects.due(now)
        {
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
                self.reply_with_error(context, &mut packet, unreachable, DropReason::NoMapping, now)
            {
                context.counters.icmp_errors_sent += 1;
                context.outbox.push(buffer[..length].into());
            }
        }
    }
}

/// RFC 5382 REQ-4: no answer within this time.
const REJECT_DELAY: Span = Span::seconds(6);
/// Longest SYN kept, in bytes: what an ICMP error may quote.
const MAX_SYN: usize = 548;
/// Room for an ICMP error.
const BUFFER: usize = 2048;
const PORT_UNREACHABLE: u8 = 3;

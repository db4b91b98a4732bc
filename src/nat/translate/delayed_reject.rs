//! Delayed rejects of unsolicited SYNs from outside. A SYN is dropped silently at first, and
//! rejected only if no session opens (RFC 5382 REQ-4).
//!
//! The other end may be about to open the connection from inside. An early error would break this
//! simultaneous open. So the translator keeps the SYN for six seconds, and rejects the SYN unless a
//! session has its tuple by then.

use crate::nat::context::WorkerContext;
use crate::nat::shared::delayed_rejects::DelayedReject;
use crate::nat::table::key::Key;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpErrorKind, Parsed, Payload, Tuple, parse};
use crate::time::{Span, Tick};

impl Translator {
    /// Keeps a dropped packet from outside if the packet is a SYN and the policy rejects SYNs after
    /// a delay.
    pub(crate) fn defer(&self, parsed: &Parsed, packet: &[u8], now: Tick) {
        let Some(tuple) = self.is_deferred(parsed) else { return };
        self.delayed_rejects.push(DelayedReject {
            due: now.after(REJECT_DELAY),
            tuple,
            packet: packet[..parsed.length()].into(),
            checksum: parsed.checksum_mode(),
        });
    }

    /// Returns the tuple of a SYN that the policy rejects after a delay. None: another packet.
    pub(crate) fn is_deferred(&self, parsed: &Parsed) -> Option<Tuple> {
        let Payload::Tcp(tcp) = parsed.payload() else { return None };
        let is_syn = tcp.flags.syn() && !tcp.flags.ack() && parsed.length() <= MAX_SYN;
        parsed.tuple().filter(|_| self.policy.delayed_reject && is_syn)
    }

    /// Rejects the SYNs whose delay has passed, and leaves the errors in [`WorkerContext::outbox`].
    /// Only worker 0 does this.
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
                unreachable!("the translator parsed this SYN when it arrived")
            };
            let mut packet =
                Packet { parsed: &parsed, buffer: &mut buffer, wire_length: packet.len() };
            let unreachable = IcmpErrorKind::Unreachable { code: PORT_UNREACHABLE };
            if let Verdict::Reply(length, _) =
                self.reply_with_error(context, &mut packet, unreachable, DropReason::NoMapping, now)
            {
                context.counters.icmp_errors_sent += 1;
                context.outbox.push(buffer[..length].into());
            }
        }
    }
}

/// Time before a reject (RFC 5382 REQ-4).
const REJECT_DELAY: Span = Span::seconds(6);
/// Maximum length of a SYN that is kept, in bytes: the length that an ICMP error may quote.
const MAX_SYN: usize = 548;
/// Size of the buffer for an ICMP error, in bytes.
const BUFFER: usize = 2048;
const PORT_UNREACHABLE: u8 = 3;

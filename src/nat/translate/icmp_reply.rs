//! ICMP errors that the translator itself sends.

use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpErrorKind, PacketHead, icmp_error};
use crate::time::Tick;

impl Translator {
    /// Replaces a packet that is dropped for `reason` by an ICMP error to its sender. The buffer
    /// must hold the packet as its sender sent it.
    ///
    /// The source of the error is the box's address on the sender's leg if the sender is inside,
    /// otherwise the destination of the packet.
    #[cold]
    pub(crate) fn reply_with_error(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        answer: IcmpErrorKind,
        reason: DropReason,
        now: Tick,
    ) -> Verdict {
        let sender = packet.parsed.source();
        let to_inside = self.is_inside(sender);
        let source = match self.policy.error_source_towards(sender) {
            Some(address) if to_inside => address,
            Some(_) | None => packet.parsed.destination(),
        };
        if !context.admit_icmp_error(self, sender, now) {
            context.worker().counters.icmp_errors_rate_limited += 1;
            return Verdict::Drop(reason);
        }
        context.worker().replaced = PacketHead::of(&packet.buffer[..packet.parsed.length()]);
        if !to_inside && packet.parsed.has_options() {
            // The kernel has recorded addresses on the way to the translator.
            self.strip_recorded_addresses(packet.parsed, packet.buffer, source);
        }
        match icmp_error(packet.parsed, packet.buffer, packet.wire_length, answer, source) {
            Some(length) => Verdict::Reply(length, reason),
            None => Verdict::Drop(reason),
        }
    }

    /// Drops a packet that opens no session, and sends an ICMP error to an inside sender if the
    /// policy has a code for it (RFC 5508 REQ-8).
    pub(crate) fn reject(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        reason: DropReason,
        now: Tick,
    ) -> Verdict {
        let is_rejected = matches!(
            reason,
            DropReason::NoOutboundRule
                | DropReason::HairpinDisabled
                | DropReason::AddressConflict
                | DropReason::TableFull
                | DropReason::PortsExhausted
                | DropReason::HostSessionLimit
                | DropReason::HostSessionRate
        );
        match self.policy.reject_with {
            Some(code) if is_rejected && self.is_inside(packet.parsed.source()) => self
                .reply_with_error(
                    context,
                    packet,
                    IcmpErrorKind::Unreachable { code },
                    reason,
                    now,
                ),
            Some(_) | None => Verdict::Drop(reason),
        }
    }
}

//! The path of fragments. [`crate::nat::fragments::store`] keeps the state of their datagrams.

use crate::nat::context::WorkerContext;
use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::store::{Admit, Disposition};
use crate::nat::table::key::Key;
use crate::nat::translate::decide::{Decision, FragmentRewrite};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::{External, Translator};
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{ChecksumMode, Endpoint, Payload, Ttl, Tuple, parse};
use crate::time::Tick;

impl Translator {
    /// Handles a fragment. Leaves fragments that have waited for this one in
    /// [`WorkerContext::outbox`].
    #[cold]
    pub(crate) fn translate_fragment(
        &self,
        context: &mut impl Effects,
        packet: Packet<'_>,
        now: Tick,
    ) -> Verdict {
        let Packet { parsed, buffer, wire_length } = packet;
        let Payload::Fragment { offset, more, identification, first_tuple } = parsed.payload()
        else {
            unreachable!("the engine brings only fragments here");
        };
        let name = DatagramId {
            source: parsed.source(),
            destination: parsed.destination(),
            protocol: parsed.protocol(),
            identification,
        };
        let start = u32::from(offset);
        let range = FragmentRange {
            start,
            end: start + (parsed.length() - parsed.header_length()) as u32,
            more,
        };
        let decision =
            match context.admit_fragment(self, name, range, &buffer[..parsed.length()], now) {
                Admit::First => {
                    let packet = Packet { parsed, buffer, wire_length };
                    return self.translate_first_fragment(context, packet, name, first_tuple, now);
                }
                Admit::Held => Decision::Hold,
                Admit::Refused(reason) => return Verdict::Drop(reason),
                Admit::Resolved(Disposition::Dropped(reason)) => return Verdict::Drop(reason),
                Admit::Resolved(Disposition::PassedToHost) => Decision::PassToHost,
                Admit::Resolved(Disposition::Translated { to, inside }) => {
                    Decision::Fragment(FragmentRewrite { to, inside })
                }
            };
        self.carry_out(context, Packet { parsed, buffer, wire_length }, None, decision, now)
    }

    /// Translates the first fragment of a datagram by its ports. Translates the fragments that wait
    /// for it in the same way.
    fn translate_first_fragment(
        &self,
        context: &mut impl Effects,
        packet: Packet<'_>,
        name: DatagramId,
        first_tuple: Option<Tuple>,
        now: Tick,
    ) -> Verdict {
        let Packet { parsed, buffer, wire_length } = packet;
        let verdict = match first_tuple {
            Some(tuple) => {
                let key = Key::of(tuple);
                let packet = Packet { parsed, buffer: &mut *buffer, wire_length };
                self.translate(context, packet, key, self.table.hash(key), now)
            }
            None => self.untranslated_verdict(parsed.destination(), DropReason::UnsupportedIcmp),
        };
        let disposition = self.disposition_of(buffer, verdict);
        for mut fragment in context.resolve_fragments(self, name, disposition, now) {
            match disposition {
                Disposition::Dropped(reason) => {
                    context.worker().drop_packet(reason, &fragment, now);
                    continue;
                }
                Disposition::PassedToHost => {}
                Disposition::Translated { to, inside } => {
                    let rewrite = FragmentRewrite { to, inside };
                    if let Verdict::Drop(reason) =
                        self.rewrite_fragment(context, &mut fragment, rewrite)
                    {
                        context.worker().drop_packet(reason, &fragment, now);
                        continue;
                    }
                }
            }
            context.worker().outbox.push(fragment);
        }
        verdict
    }

    /// Returns the consequence of the first fragment's verdict for the other fragments.
    fn disposition_of(&self, translated: &[u8], verdict: Verdict) -> Disposition {
        match verdict {
            Verdict::Translated => {
                let Ok(parsed) = parse(translated, ChecksumMode::Complete) else {
                    unreachable!("a rewrite leaves a packet well-formed");
                };
                let Payload::Fragment { identification, .. } = parsed.payload() else {
                    unreachable!("a rewrite leaves a fragment a fragment");
                };
                let to = DatagramId {
                    source: parsed.source(),
                    destination: parsed.destination(),
                    protocol: parsed.protocol(),
                    identification,
                };
                Disposition::Translated { to, inside: self.is_inside(to.destination) }
            }
            Verdict::PassToHost => Disposition::PassedToHost,
            Verdict::Reply(_, reason) | Verdict::Drop(reason) => Disposition::Dropped(reason),
            Verdict::Held => unreachable!("a first fragment never waits"),
        }
    }

    /// Translates a later fragment like the first one.
    ///
    /// A fragment with DF that exceeds the MTU of its outgoing interface is dropped. No ICMP error
    /// may report on it (RFC 1812 section 4.3.2.7).
    pub(crate) fn rewrite_fragment(
        &self,
        context: &mut impl Effects,
        fragment: &mut [u8],
        FragmentRewrite { to, inside }: FragmentRewrite,
    ) -> Verdict {
        let Ok(parsed) = parse(fragment, ChecksumMode::Complete) else {
            unreachable!("the fragment was parsed when it came");
        };
        if parsed.dont_fragment() && parsed.length() > usize::from(self.fragment_mtu(to, inside)) {
            return Verdict::Drop(DropReason::MtuExceeded);
        }
        // Later fragments have no ports; a rewrite leaves their payload alone.
        let addresses = Tuple {
            protocol: to.protocol,
            source: Endpoint::new(to.source, 0),
            destination: Endpoint::new(to.destination, 0),
        };
        parsed.rewrite(fragment, addresses, Ttl::Increment);
        parsed.set_identification(fragment, to.identification);
        if to.source != parsed.source() && !inside {
            self.strip_recorded_addresses(&parsed, fragment, to.source);
        }
        if (to.source, to.destination) == (parsed.source(), parsed.destination()) {
            context.worker().counters.bypassed += 1;
        } else {
            if inside {
                context.worker().counters.translated_inbound += 1;
            } else {
                context.worker().counters.translated_outbound += 1;
            }
            let external = if inside { parsed.destination() } else { to.source };
            // A hairpin fragment comes from an external address.
            if let Some(External { uplink, .. }) = self.external(external)
                && !(inside && self.external(to.source).is_some())
            {
                context.worker().traffic.count(uplink, inside, parsed.length());
            }
        }
        Verdict::Translated
    }

    /// Returns the MTU of the interface by which a translated fragment leaves. The source of a
    /// bypassed fragment may have no uplink; then the kernel decides.
    fn fragment_mtu(&self, to: DatagramId, inside: bool) -> u16 {
        if inside {
            let leg = self.policy.leg_towards(to.destination);
            return leg.map_or(u16::MAX, |leg| self.uplink_states.leg_mtu(leg));
        }
        let external = self.external(to.source);
        external.map_or(u16::MAX, |external| self.uplink_states.uplink_mtu(external.uplink))
    }

    /// Removes expired datagrams, and counts the fragments that are lost with them.
    pub(crate) fn expire_fragments(&self, context: &mut WorkerContext, now: Tick) {
        let lost = self.fragments.expire(now);
        for (reason, lost) in [
            (DropReason::FragmentTimeout, lost.expired),
            (DropReason::FragmentTableFull, lost.evicted),
            (DropReason::FragmentOverlap, lost.refused),
        ] {
            if lost.count != 0 {
                context.drop_packets(reason, lost.count, &lost.heads, now);
            }
        }
    }
}

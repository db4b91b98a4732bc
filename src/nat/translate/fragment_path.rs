//! The way of a datagram's pieces; what is kept about them is in [`crate::nat::fragments::store`].

use crate::nat::context::WorkerContext;
use crate::nat::fragments::datagram::{DatagramId, FragmentRange};
use crate::nat::fragments::store::{Admit, Disposition};
use crate::nat::table::key::Key;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{ChecksumMode, Endpoint, Payload, Ttl, Tuple, parse};
use crate::time::Tick;

impl Translator {
    /// Handles a piece of a datagram. Pieces that had waited for this one are left in [`WorkerContext::outbox`].
    #[cold]
    pub(crate) fn translate_fragment(
        &self,
        context: &mut WorkerContext,
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
        let piece = FragmentRange {
            start,
            end: start + (parsed.length() - parsed.header_length()) as u32,
            more,
        };
        match self.fragments.admit(name, piece, &buffer[..parsed.length()], now) {
            Admit::Held => Verdict::Held,
            Admit::Refused(reason) => Verdict::Drop(reason),
            Admit::Known(fate) => self.follow(context, buffer, fate),
            Admit::First => {
                let verdict = match first_tuple {
                    Some(tuple) => {
                        let key = Key::of(tuple);
                        let packet = Packet { parsed, buffer: &mut *buffer, wire_length };
                        self.translate(context, packet, key, self.table.hash(key), now)
                    }
                    None => {
                        self.untranslated_verdict(parsed.destination(), DropReason::UnsupportedIcmp)
                    }
                };
                let fate = self.fate(buffer, verdict);
                for mut piece in self.fragments.resolve(name, fate, now) {
                    match self.follow(context, &mut piece, fate) {
                        Verdict::Translated | Verdict::PassToHost => context.outbox.push(piece),
                        Verdict::Drop(reason) | Verdict::Answer(_, reason) => {
                            context.counters.drops.count(reason, 1)
                        }
                        Verdict::Held => unreachable!("a fate is never to wait"),
                    }
                }
                verdict
            }
        }
    }

    /// What the verdict on the first piece means for the others.
    fn fate(&self, translated: &[u8], verdict: Verdict) -> Disposition {
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
            Verdict::Answer(_, reason) | Verdict::Drop(reason) => Disposition::Dropped(reason),
            Verdict::Held => unreachable!("a first piece never waits"),
        }
    }

    /// Does to a later piece what was done to the first.
    fn follow(&self, context: &mut WorkerContext, piece: &mut [u8], fate: Disposition) -> Verdict {
        match fate {
            Disposition::Dropped(reason) => Verdict::Drop(reason),
            Disposition::PassedToHost => Verdict::PassToHost,
            Disposition::Translated { to, inside } => {
                let Ok(parsed) = parse(piece, ChecksumMode::Complete) else {
                    unreachable!("it was parsed when it came");
                };
                // Later pieces have no ports; a rewrite leaves their payload alone.
                let addresses = Tuple {
                    protocol: to.protocol,
                    source: Endpoint::new(to.source, 0),
                    destination: Endpoint::new(to.destination, 0),
                };
                parsed.rewrite(piece, addresses, Ttl::Increment);
                parsed.set_identification(piece, to.identification);
                if to.source != parsed.source() && !inside {
                    self.strip_recorded_addresses(&parsed, piece, to.source);
                }
                if (to.source, to.destination) == (parsed.source(), parsed.destination()) {
                    context.counters.bypassed += 1;
                } else if inside {
                    context.counters.translated_inbound += 1;
                } else {
                    context.counters.translated_outbound += 1;
                }
                Verdict::Translated
            }
        }
    }

    /// Forgets datagrams whose time is over, and counts the pieces that were lost with them.
    pub(crate) fn expire_fragments(&self, context: &mut WorkerContext, now: Tick) {
        let lost = self.fragments.expire(now);
        context.counters.drops.count(DropReason::FragmentTimeout, lost.expired);
        context.counters.drops.count(DropReason::FragmentTableFull, lost.evicted);
        context.counters.drops.count(DropReason::FragmentOverlap, lost.refused);
    }
}

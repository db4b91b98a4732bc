//! The way of a datagram's pieces; what is kept about them is in [`super::fragments`].

use crate::packet::{ChecksumMode, Content, Endpoint, Tuple, parse};
use crate::time::Tick;

use super::fast_path::Packet;
use super::fragments::{Admission, DatagramName, Fate, Piece};
use super::key::Key;
use super::verdict::{DropReason, Verdict};
use super::{Lane, Nat};

impl Nat {
    /// Handles a piece of a datagram. Pieces that had waited for this one are left in [`Lane::released`].
    #[cold]
    pub fn translate_fragment(&self, lane: &mut Lane, packet: Packet<'_>, now: Tick) -> Verdict {
        let Packet { parsed, buffer, wire_length } = packet;
        let Content::Fragment { offset, more, identification, first_tuple } = parsed.content()
        else {
            unreachable!("the engine brings only fragments here");
        };
        let name = DatagramName {
            source: parsed.source(),
            destination: parsed.destination(),
            protocol: parsed.protocol(),
            identification,
        };
        let start = u32::from(offset);
        let piece =
            Piece { start, end: start + (parsed.length() - parsed.header_length()) as u32, more };
        match self.fragments.admit(name, piece, &buffer[..parsed.length()], now) {
            Admission::Held => Verdict::Held,
            Admission::Refused(reason) => Verdict::Drop(reason),
            Admission::Known(fate) => self.follow(lane, buffer, fate),
            Admission::First => {
                let verdict = match first_tuple {
                    Some(tuple) => {
                        let key = Key::of(tuple);
                        let packet = Packet { parsed, buffer: &mut *buffer, wire_length };
                        self.translate(lane, packet, key, self.table.hash(key), now)
                    }
                    None => self.leave(parsed.destination(), DropReason::UnsupportedIcmp),
                };
                let fate = self.fate(buffer, verdict);
                for mut piece in self.fragments.settle(name, fate, now) {
                    match self.follow(lane, &mut piece, fate) {
                        Verdict::Translated | Verdict::HandBack => lane.released.push(piece),
                        Verdict::Drop(reason) | Verdict::Answer(_, reason) => {
                            lane.counters.drops.count(reason, 1)
                        }
                        Verdict::Held => unreachable!("a fate is never to wait"),
                    }
                }
                verdict
            }
        }
    }

    /// What the verdict on the first piece means for the others.
    fn fate(&self, translated: &[u8], verdict: Verdict) -> Fate {
        match verdict {
            Verdict::Translated => {
                let Ok(parsed) = parse(translated, ChecksumMode::Complete) else {
                    unreachable!("a rewrite leaves a packet well-formed");
                };
                let Content::Fragment { identification, .. } = parsed.content() else {
                    unreachable!("a rewrite leaves a fragment a fragment");
                };
                let to = DatagramName {
                    source: parsed.source(),
                    destination: parsed.destination(),
                    protocol: parsed.protocol(),
                    identification,
                };
                Fate::Translated { to, inside: self.is_inside(to.destination) }
            }
            Verdict::HandBack => Fate::HandedBack,
            Verdict::Answer(_, reason) | Verdict::Drop(reason) => Fate::Dropped(reason),
            Verdict::Held => unreachable!("a first piece never waits"),
        }
    }

    /// Does to a later piece what was done to the first.
    fn follow(&self, lane: &mut Lane, piece: &mut [u8], fate: Fate) -> Verdict {
        match fate {
            Fate::Dropped(reason) => Verdict::Drop(reason),
            Fate::HandedBack => Verdict::HandBack,
            Fate::Translated { to, inside } => {
                let Ok(parsed) = parse(piece, ChecksumMode::Complete) else {
                    unreachable!("it was parsed when it came");
                };
                // Later pieces have no ports; a rewrite leaves their payload alone.
                let addresses = Tuple {
                    protocol: to.protocol,
                    source: Endpoint::new(to.source, 0),
                    destination: Endpoint::new(to.destination, 0),
                };
                parsed.rewrite(piece, addresses, true);
                parsed.renumber(piece, to.identification);
                if to.source != parsed.source() && !inside {
                    self.conceal_recorded(&parsed, piece, to.source);
                }
                if (to.source, to.destination) == (parsed.source(), parsed.destination()) {
                    lane.counters.exempt += 1;
                } else if inside {
                    lane.counters.translated_inside += 1;
                } else {
                    lane.counters.translated_outside += 1;
                }
                Verdict::Translated
            }
        }
    }

    /// Forgets datagrams whose time is over, and counts the pieces that were lost with them.
    pub(super) fn expire_fragments(&self, lane: &mut Lane, now: Tick) {
        let lost = self.fragments.expire(now);
        lane.counters.drops.count(DropReason::FragmentIncomplete, lost.expired);
        lane.counters.drops.count(DropReason::FragmentsFull, lost.evicted);
        lane.counters.drops.count(DropReason::FragmentRefused, lost.refused);
    }
}

//! The hit path: looks up, tracks, rewrites. A packet without a session goes to
//! [`crate::nat::translate::slow_path`].

use std::net::Ipv4Addr;

use crate::nat::table::hash::KeyHash;
use crate::nat::table::key::Key;
use crate::nat::table::{Lookup, Match};
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::decide::Rewrite;
use crate::nat::translate::effects::Effects;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpErrorKind, Parsed, Payload, Tcp, Ttl, Tuple};
use crate::time::Tick;
use crate::values::nat::MssClamp;

/// A parsed packet in its buffer.
pub(crate) struct Packet<'a> {
    /// Its headers.
    pub parsed: &'a Parsed,
    /// At least 2048 bytes, with the packet at the front.
    pub buffer: &'a mut [u8],
    /// Its length on the wire in bytes, IP header included. For a super-packet: the length of one
    /// full segment.
    pub wire_length: usize,
}

impl Translator {
    /// Translates a packet that has a tuple; `key` and `hash` are its tuple's.
    #[inline]
    pub(crate) fn translate(
        &self,
        context: &mut impl Effects,
        mut packet: Packet<'_>,
        key: Key,
        hash: KeyHash,
        now: Tick,
    ) -> Verdict {
        let segment = segment(&packet);
        let bytes = packet.parsed.length() as u32;
        match context.lookup(self, key, hash, segment.as_ref(), bytes, now) {
            Lookup::Hit(hit) => {
                if !self.limits.inbound_refresh
                    && !hit.origin.is_inbound_over_mapping(hit.direction)
                {
                    context.refresh_mapping(self, key.tuple(), hit.uplink, now);
                }
                self.forward_match(context, &mut packet, &hit, now)
            }
            Lookup::Expired(session) => {
                context.reap(self, session, now);
                self.open_session(context, packet, key, segment.as_ref(), now)
            }
            Lookup::Miss => self.open_session(context, packet, key, segment.as_ref(), now),
        }
    }

    /// Rewrites a packet of a session.
    #[inline]
    pub(crate) fn forward_match(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        hit: &Match,
        now: Tick,
    ) -> Verdict {
        if let Some(session) = hit.reschedule {
            context.reschedule(self, session, now);
        }
        let inside = hit.origin.is_inbound(hit.direction);
        let rewrite = Rewrite { to: hit.to, inside, uplink: hit.uplink };
        let verdict = self.rewrite_and_count(context, packet, rewrite, now);
        if verdict == Verdict::Translated && !hit.origin.is_hairpin() {
            context.worker().traffic.count(hit.uplink, inside, packet.parsed.length());
        }
        verdict
    }

    /// Rewrites and counts a packet, unless it exceeds the MTU of its outgoing interface.
    #[inline]
    pub(crate) fn rewrite_and_count(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        Rewrite { to, inside, uplink }: Rewrite,
        now: Tick,
    ) -> Verdict {
        let mtu = self.least_egress_mtu(inside, uplink);
        if packet.wire_length > usize::from(mtu)
            && packet.parsed.dont_fragment()
            && let Some(mtu) = self.exceeded_mtu(packet.wire_length, mtu, inside, to)
        {
            // Sent before the rewrite, so that the error quotes the packet of the sender. The
            // kernel would quote the translated packet (RFC 5508 section 7.1.1).
            return self.reply_with_error(
                context,
                packet,
                IcmpErrorKind::FragmentationNeeded { mtu },
                DropReason::MtuExceeded,
                now,
            );
        }
        if let Payload::Tcp(tcp) = packet.parsed.payload()
            && tcp.flags.syn()
        {
            self.clamp(packet, uplink, to);
        }
        packet.parsed.rewrite(packet.buffer, to, Ttl::Increment);
        if !packet.parsed.is_atomic() || packet.parsed.has_options() {
            self.scrub_packet(context, packet, to, inside);
        }
        if inside {
            context.worker().counters.translated_inbound += 1;
        } else {
            context.worker().counters.translated_outbound += 1;
        }
        Verdict::Translated
    }

    /// Returns the MTU of the outgoing interface; for a packet to the inside, the least of all
    /// legs.
    #[inline]
    fn least_egress_mtu(&self, inside: bool, uplink: u8) -> u16 {
        let states = &self.uplink_states;
        if inside { states.least_leg_mtu() } else { states.uplink_mtu(uplink) }
    }

    /// Returns the MTU of the interface by which a packet leaves as `to`, if the packet exceeds it.
    /// `least`: see [`Self::least_egress_mtu`].
    #[cold]
    fn exceeded_mtu(&self, length: usize, least: u16, inside: bool, to: Tuple) -> Option<u16> {
        let leg = self.policy.leg_towards(to.destination.address).filter(|_| inside);
        let mtu = leg.map_or(least, |leg| self.uplink_states.leg_mtu(leg));
        (length > usize::from(mtu)).then_some(mtu)
    }

    #[cold]
    fn clamp(&self, packet: &mut Packet<'_>, uplink: u8, to: Tuple) {
        let maximum = match self.policy.mss_clamp {
            MssClamp::Off => return,
            MssClamp::To(bytes) => bytes,
            MssClamp::Auto => {
                let mtu = self.uplink_states.uplink_mtu(uplink);
                let least = self.uplink_states.least_leg_mtu();
                let ends = [packet.parsed.source(), to.destination.address];
                let mtu = if mtu <= least { mtu } else { mtu.min(self.least_mtu_towards(ends)) };
                mtu.saturating_sub(IP_AND_TCP)
            }
        };
        packet.parsed.clamp_mss(packet.buffer, maximum);
    }

    /// Returns the least MTU of the legs that lead to the inside hosts among `ends`; without an
    /// inside host, the least of all legs.
    fn least_mtu_towards(&self, ends: [Ipv4Addr; 2]) -> u16 {
        let legs = ends.into_iter().filter_map(|end| self.policy.leg_towards(end));
        let mtus = legs.map(|leg| self.uplink_states.leg_mtu(leg));
        mtus.min().unwrap_or(self.uplink_states.least_leg_mtu())
    }
}

#[inline]
fn segment(packet: &Packet<'_>) -> Option<Segment> {
    let Tcp { flags, sequence, acknowledgement, window, payload_length } =
        packet.parsed.tcp(packet.buffer)?;
    let scale = if flags.syn() { packet.parsed.window_scale(packet.buffer) } else { None };
    Some(Segment {
        flags,
        sequence,
        acknowledgement,
        window,
        payload: u32::from(payload_length),
        scale,
    })
}

/// Bytes of an IPv4 and a TCP header without options.
const IP_AND_TCP: u16 = 40;

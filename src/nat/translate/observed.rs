//! Packets that are shown to an operator: what the translator knows of them, and the observer that
//! sees them pass. Nothing here changes any state.

use crate::nat::table::key::Key;
use crate::nat::table::session::SessionInfo;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Frame, Frames, Parsed, Payload, Tuple};
use crate::time::Tick;

/// Sees the frames of a batch before and after their translation.
pub(crate) trait Observer {
    /// A frame has arrived.
    fn arrived(&mut self, index: usize, frame: &Frame<'_>);

    /// The translator has decided about a frame. The frame is not submitted yet.
    fn decided(&mut self, frames: &mut impl Frames, decided: &Decided<'_>, now: Tick);

    /// A packet that is not this frame leaves because of it: a fragment that has waited for it.
    fn released(&mut self, packet: &[u8], now: Tick);
}

/// What the translator has decided about a frame.
pub(crate) struct Decided<'a> {
    /// Number of the frame in its batch.
    pub(crate) index: usize,
    /// The headers as they arrived. None: the packet is malformed.
    pub(crate) parsed: Option<&'a Parsed>,
    pub(crate) verdict: Verdict,
    /// True: the packet has opened a session.
    pub(crate) opened: bool,
}

impl Decided<'_> {
    #[inline]
    pub(crate) fn malformed(index: usize, reason: DropReason) -> Self {
        Self { index, parsed: None, verdict: Verdict::Drop(reason), opened: false }
    }
}

/// Nothing observes. The calls cost nothing.
pub(crate) struct Unobserved;

impl Observer for Unobserved {
    #[inline(always)]
    fn arrived(&mut self, _: usize, _: &Frame<'_>) {}

    #[inline(always)]
    fn decided(&mut self, _: &mut impl Frames, _: &Decided<'_>, _: Tick) {}

    #[inline(always)]
    fn released(&mut self, _: &[u8], _: Tick) {}
}

/// What is known of a packet by its addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketEnds {
    /// True: the source is inside.
    pub from_inside: bool,
    /// True: the destination is an external address.
    pub to_external: bool,
    /// Name of the uplink that has the destination, or the source.
    pub uplink: Option<String>,
    /// Name of the forward that publishes the destination.
    pub forward: Option<String>,
}

/// What is known of a packet: its tuple, its ends and its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOrigin {
    /// Tuple of the packet as it arrived. Ports are 0 in a packet without ports.
    pub tuple: Tuple,
    /// What its addresses say. Uplink and forward are those of the session, if there is one.
    pub ends: PacketEnds,
    /// The session of the packet. For an ICMP error: that of the quoted packet.
    pub session: Option<SessionInfo>,
}

impl Translator {
    /// Returns what is known of a packet without a session.
    pub(crate) fn ends_of(&self, tuple: Tuple) -> PacketEnds {
        let (source, destination) = (tuple.source, tuple.destination);
        let external = self.external(destination.address);
        let forward = self.forwards.forward_at(tuple.protocol, destination);
        let uplink = external.or(self.external(source.address)).map(|external| external.uplink);
        PacketEnds {
            from_inside: self.is_inside(source.address),
            to_external: external.is_some(),
            uplink: uplink.and_then(|uplink| self.uplink_name(uplink)),
            forward: forward.map(|forward| forward.name.clone()),
        }
    }

    /// Returns what is known of a packet after the translator has decided about it.
    pub(crate) fn origin_of(&self, parsed: &Parsed, now: Tick) -> PacketOrigin {
        let without_ports = Tuple {
            protocol: parsed.protocol(),
            source: Endpoint::new(parsed.source(), 0),
            destination: Endpoint::new(parsed.destination(), 0),
        };
        let (tuple, of_session) = match parsed.payload() {
            Payload::IcmpError(error) => (without_ports, Some(error.quoted.reversed())),
            Payload::Fragment { first_tuple, .. } => {
                (first_tuple.unwrap_or(without_ports), first_tuple)
            }
            Payload::Tcp(_)
            | Payload::Udp
            | Payload::IcmpQuery(_)
            | Payload::IcmpOther { .. }
            | Payload::Other => (parsed.tuple().unwrap_or(without_ports), parsed.tuple()),
        };
        let session = of_session.and_then(|tuple| self.table.session_of(Key::of(tuple), now));
        let mut ends = self.ends_of(tuple);
        if let Some(session) = &session {
            ends.uplink = self.uplink_name(session.uplink);
            ends.forward = self.forward_of(session).map(str::to_owned);
        }
        PacketOrigin { tuple, ends, session }
    }

    fn uplink_name(&self, uplink: u8) -> Option<String> {
        self.policy.uplinks.get(usize::from(uplink)).map(|uplink| uplink.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::nat::policy::limits::Limits;
    use crate::nat::policy::rules::{Forward, Policy};
    use crate::nat::seed::Seed;
    use crate::packet::{Protocol, builder};
    use crate::time::Tick;
    use crate::values::nat::ForwardProtocol;

    #[test]
    fn the_ends_of_a_packet_are_known_by_its_addresses() {
        let inside = "10.0.0.0/24".parse().expect("a prefix");
        let [host, external] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(203, 0, 113, 10)];
        let remote = Ipv4Addr::new(192, 0, 2, 1);
        let forward = Forward {
            name: "web".into(),
            uplink: 0,
            protocol: ForwardProtocol::Tcp,
            address: external,
            ports: (80..=80).into(),
            to_address: host,
            to_port: 80,
        };
        let policy = Policy { forwards: vec![forward], ..Policy::one_uplink(inside, external) };
        let nat = Translator::new(Limits::new(inside), policy, 1, Seed::from(1), Tick(0));
        let nat = nat.expect("memory");
        let ends =
            |from, to, port| nat.ends_of(builder::tuple(Protocol::TCP, (from, 1), (to, port)));
        let published = PacketEnds {
            from_inside: false,
            to_external: true,
            uplink: Some(nat.policy.uplinks[0].name.clone()),
            forward: Some("web".into()),
        };
        assert_eq!(ends(remote, external, 80), published);
        assert_eq!(ends(remote, external, 81), PacketEnds { forward: None, ..published.clone() });
        let outbound = PacketEnds { from_inside: true, ..PacketEnds::default() };
        assert_eq!(ends(host, remote, 80), outbound);
    }
}

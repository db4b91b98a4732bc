//! What would happen to a packet, and why: the rehearsal of the packet, with the parts of the
//! policy that decide about it.

use rand::rngs::StdRng;

use crate::nat::context::{FrameClass, WorkerContext};
use crate::nat::counters::Counters;
use crate::nat::policy::rules::{NoNatRule, OutboundRule};
use crate::nat::seed::WorkerSeed;
use crate::nat::table::session::{EndpointKind, SessionInfo};
use crate::nat::translate::decide::{Decision, ExternalEndpoint, Opening, Path};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::observed::Unobserved;
use crate::nat::translate::rehearsal::{Rehearsal, Story};
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{ChecksumMode, Endpoint, Offload, Parsed, Payload, Tuple, VecFrames, parse};
use crate::time::Tick;

/// What would happen to a packet, and why.
#[derive(Debug)]
pub(crate) struct Explained {
    /// The headers of the packet. None: it is malformed.
    pub(crate) parsed: Option<Parsed>,
    /// The outcome.
    pub(crate) verdict: Verdict,
    /// The packets that would be sent: first this packet or the ICMP error in its place, then the
    /// fragments that it releases.
    pub(crate) sent: Vec<Vec<u8>>,
    /// What the paths of the packet have said.
    pub(crate) story: Story,
    /// What a worker would count.
    pub(crate) counters: Counters,
    /// Index of the uplink that the packet uses.
    pub(crate) uplink: Option<u8>,
    /// Index of the uplink that has the destination address.
    pub(crate) uplink_of_destination: Option<u8>,
    /// Indices of the inside legs of the packet's source, and of its destination when it leaves.
    pub(crate) legs: [Option<usize>; 2],
    /// Name of the forward that the packet uses.
    pub(crate) forward: Option<String>,
    /// The outbound rule that covers the packet.
    pub(crate) rule: Option<OutboundRule>,
    /// The rule by which the packet is not translated.
    pub(crate) no_nat: Option<NoNatRule>,
}

impl Translator {
    /// Explains what would happen now to a packet, and changes nothing. A port that natbox would
    /// draw at random is an example: each worker draws its own.
    pub(crate) fn explain(&self, packet: &[u8], now: Tick) -> Explained {
        self.rehearse(packet, Offload::default(), 0, self.worker_seed.rng(usize::MAX), now)
    }

    /// Explains what would happen to the next packet of a worker, with the random choices that the
    /// worker then makes. For these, the worker gets another generator.
    pub(crate) fn explain_next(
        &self,
        context: &mut WorkerContext,
        packet: &[u8],
        now: Tick,
    ) -> Explained {
        let next = WorkerSeed::draw(&mut context.random);
        context.random = next.rng(0);
        self.rehearse(packet, Offload::default(), context.worker, next.rng(0), now)
    }

    /// Explains what would happen to a packet on the queue of a worker that makes these random
    /// choices.
    pub(crate) fn rehearse(
        &self,
        packet: &[u8],
        offload: Offload,
        worker: usize,
        random: StdRng,
        now: Tick,
    ) -> Explained {
        let mut rehearsal = Rehearsal::new(worker, random);
        let mut frames = VecFrames::new();
        frames.push_with(packet, offload);
        let mut classes = [FrameClass::Dropped(DropReason::NotIpv4)];
        self.process_from(&mut rehearsal, &mut classes, &mut frames, &mut Unobserved, 0, now);
        let sent = frames.take_sent().into_iter().map(|(packet, _)| packet).collect();
        let [class] = classes;
        self.explained(class, sent, rehearsal)
    }

    fn explained(
        &self,
        class: FrameClass,
        sent: Vec<Vec<u8>>,
        mut rehearsal: Rehearsal,
    ) -> Explained {
        let counters = rehearsal.worker().counters.clone();
        let story = rehearsal.story;
        let parsed = match class {
            FrameClass::Dropped(_) => None,
            FrameClass::Classified { parsed, .. }
            | FrameClass::Error { parsed, .. }
            | FrameClass::Fragment { parsed }
            | FrameClass::Untranslatable { parsed, .. } => Some(parsed),
        };
        let Some(verdict) = story.verdict else { unreachable!("every frame has an outcome") };
        let tuple = parsed.as_ref().and_then(tuple_of);
        let destination = parsed.as_ref().map(Parsed::destination);
        let leaves_to = sent.first().and_then(|packet| parse(packet, ChecksumMode::Complete).ok());
        let leaves_to = leaves_to.map(|parsed| parsed.destination());
        let leg = |address| self.policy.leg_towards(address);
        Explained {
            uplink: self.uplink_of(&story),
            uplink_of_destination: destination
                .and_then(|address| self.external(address))
                .map(|external| external.uplink),
            legs: [parsed.as_ref().map(Parsed::source).and_then(leg), leaves_to.and_then(leg)],
            forward: tuple.and_then(|tuple| self.forward_used(tuple, &story)),
            rule: tuple.and_then(|tuple| self.rule_of(tuple, &story)),
            no_nat: tuple.and_then(|tuple| self.no_nat_rule(tuple, &story)),
            parsed,
            verdict,
            sent,
            story,
            counters,
        }
    }

    fn uplink_of(&self, story: &Story) -> Option<u8> {
        match (&story.session, story.decision) {
            (Some(session), _) => Some(session.uplink),
            (None, Some(Decision::Open(opening))) => Some(opening.uplink),
            (None, Some(Decision::Session(rewrite) | Decision::Stateless(rewrite))) => {
                Some(rewrite.uplink)
            }
            (None, _) => None,
        }
    }

    /// Returns the name of the forward that a packet uses, or whose port it is for.
    fn forward_used(&self, tuple: Tuple, story: &Story) -> Option<String> {
        let external = match (&story.session, story.decision) {
            (Some(session), _) => published_endpoint(session)?,
            (None, Some(Decision::Open(opening))) => published_by(&opening)?,
            (None, Some(Decision::Stateless(rewrite))) if !rewrite.inside => rewrite.to.source,
            (None, _) => tuple.destination,
        };
        let forward = self.forwards.forward_at(tuple.protocol, external)?;
        Some(forward.name.clone())
    }

    /// Returns the outbound rule that covers a packet from inside to outside.
    fn rule_of(&self, tuple: Tuple, story: &Story) -> Option<OutboundRule> {
        let original = story.session.as_ref().map_or(tuple, |session| session.original);
        let (source, destination) = (original.source.address, original.destination.address);
        let is_outbound = (self.is_inside(source) || self.is_hosts_own(source))
            && self.external(destination).is_none()
            && !matches!(story.decision, Some(Decision::Bypass(_)));
        self.outbound_rule(source, destination).filter(|_| is_outbound).cloned()
    }

    fn no_nat_rule(&self, tuple: Tuple, story: &Story) -> Option<NoNatRule> {
        let Some(Decision::Bypass(_)) = story.decision else { return None };
        let remote = match self.is_inside(tuple.source.address) {
            true => tuple.destination,
            false => tuple.source,
        };
        self.policy.no_nat.iter().find(|rule| rule.covers(tuple.protocol, remote)).copied()
    }
}

/// Returns the tuple of a packet, or of the first fragment of a datagram.
pub(crate) fn tuple_of(parsed: &Parsed) -> Option<Tuple> {
    match parsed.payload() {
        Payload::Fragment { first_tuple, .. } => first_tuple,
        Payload::Tcp(_)
        | Payload::Udp
        | Payload::IcmpQuery(_)
        | Payload::IcmpError(_)
        | Payload::IcmpOther { .. }
        | Payload::Other => parsed.tuple(),
    }
}

/// Returns the published endpoint of a session over a forward.
fn published_endpoint(session: &SessionInfo) -> Option<Endpoint> {
    let kinds = [session.origin.initiator, session.origin.responder];
    let mut ends = kinds.into_iter().zip(session.external_endpoints());
    ends.find_map(|(kind, external)| {
        external.filter(|_| matches!(kind, EndpointKind::Forward | EndpointKind::Port))
    })
}

/// Returns the published endpoint through which a packet opens a session.
fn published_by(opening: &Opening) -> Option<Endpoint> {
    match opening.path {
        Path::Forward { .. } | Path::Hairpin { server: Some(_), .. } => {
            Some(opening.tuple.destination)
        }
        Path::Midstream { published } => Some(published),
        Path::Outbound { external, .. } | Path::Hairpin { external, server: None } => {
            match external {
                ExternalEndpoint::Published(endpoint) | ExternalEndpoint::Port(endpoint) => {
                    Some(endpoint)
                }
                ExternalEndpoint::Address(_) | ExternalEndpoint::Mapping(_) => None,
            }
        }
        Path::Mapping { .. } => None,
    }
}

#[cfg(test)]
mod tests;

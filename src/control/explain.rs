//! Explanations of packets, as the admin socket sends them and `natbox explain` shows them.

use std::net::Ipv4Addr;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::api::{
    ExplainedDrop, ExplainedMapping, ExplainedPacket, Explanation, MAX_EXPLAINED, MappingPort,
    OpenedSession, PacketOutcome, PlaceView, TupleView,
};
use crate::config::Config;
use crate::engine::{FreshTranslator, Handle};
use crate::host::HostFacts;
use crate::nat::{
    Doubt, DropReason, Explained, ForwardProtocol, NewSession, NoNatRule, OutboundRule, PortOrigin,
    SessionInfo, Verdict, tuple_of,
};
use crate::packet::{ChecksumMode, Endpoint, Parsed, Payload, Tuple, parse};
use crate::time::Tick;

use super::{sessions, settings};

/// Why an instance explains no packet.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    /// The instance does not translate yet.
    #[error(
        "explain: the instance waits for its interfaces; try again when `natbox status` shows that it runs"
    )]
    Waiting,
    /// The packet is not hexadecimal, or too long.
    #[error(
        "packet: found no bytes in hexadecimal, wanted at most {MAX_EXPLAINED} of them, and no more than its length"
    )]
    NoPacket,
}

/// Returns the packet of a request.
///
/// # Errors
/// [`ExplainError::NoPacket`].
pub(super) fn packet(first_bytes: &str, length: u16) -> Result<Vec<u8>, ExplainError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(first_bytes.as_bytes());
    let fits = |bytes: &Vec<u8>| bytes.len() <= MAX_EXPLAINED && bytes.len() <= usize::from(length);
    let mut packet = bytes.ok().filter(fits).ok_or(ExplainError::NoPacket)?;
    packet.resize(usize::from(length), 0);
    Ok(packet)
}

/// Explains what would happen now to a packet of a running instance, and changes nothing.
pub(super) fn explain(engine: &Handle, config: &Config, packet: &[u8]) -> Explanation {
    let explained = engine.explain(packet);
    let view = View { config, uplinks: uplink_names(engine), now: Tick::now(), is_fresh: false };
    view.explanation(&explained, packet.len())
}

fn uplink_names(engine: &Handle) -> Vec<String> {
    engine.listing().uplinks().into_iter().map(str::to_owned).collect()
}

/// A configuration without a running instance: no session exists, all uplinks are up, and no
/// external address is assigned to the host.
pub(crate) struct FreshInstance<'c> {
    config: &'c Config,
    translator: FreshTranslator,
}

impl<'c> FreshInstance<'c> {
    /// Makes the instance.
    ///
    /// # Errors
    /// The memory for the sessions cannot be mapped.
    pub(crate) fn new(config: &'c Config) -> std::io::Result<Self> {
        let (facts, _) = HostFacts::assumed(config);
        let policy = settings::policy(config, &facts, &std::collections::BTreeMap::new());
        let translator = FreshTranslator::new(settings::limits(config), policy)?;
        Ok(Self { config, translator })
    }

    /// Explains what would happen to a packet, this many milliseconds after the first one. Later
    /// packets find the sessions that it opens.
    pub(crate) fn explain_next(&mut self, packet: &[u8], milliseconds: u32) -> Explanation {
        let now = Tick(milliseconds);
        let explained = self.translator.explain_next(packet, now);
        let uplinks = self.config.uplink_names_by_number();
        let view = View { config: self.config, uplinks, now, is_fresh: true };
        view.explanation(&explained, packet.len())
    }
}

/// What turns numbers into names.
struct View<'c> {
    config: &'c Config,
    uplinks: Vec<String>,
    now: Tick,
    /// True: the draws of the only worker are known.
    is_fresh: bool,
}

impl View<'_> {
    fn explanation(&self, explained: &Explained, length: usize) -> Explanation {
        let story = &explained.story;
        let forward = explained.forward.as_deref();
        let session = |session: &SessionInfo, forward: Option<&str>| {
            let uplink = self.uplink(session.uplink).unwrap_or_default();
            sessions::view(session, &uplink, forward, self.now)
        };
        let mapping = story.mapping.as_ref().map(|(key, foreseen)| ExplainedMapping {
            inside: key.inside.to_string(),
            external: foreseen.external.to_string(),
            port: mapping_port(foreseen.origin),
        });
        Explanation {
            packet: packet_view(explained.parsed.as_ref(), length),
            from: self.from(explained),
            outcome: outcome(explained),
            sent: explained.sent.first().map(|packet| sent_view(packet)),
            towards: self.towards(explained),
            released_fragments: explained.sent.len().saturating_sub(1),
            uplink: explained.uplink.and_then(|uplink| self.uplink(uplink)),
            forward: explained.forward.clone(),
            outbound_rule: explained.rule.as_ref().map(|rule| self.rule(rule)),
            no_nat_rule: explained.no_nat.as_ref().map(no_nat_rule),
            mapping: mapping.or_else(|| self.used_mapping(explained)),
            session: story.session.as_ref().map(|found| session(found, forward)),
            opens: story.opened.as_ref().map(opened),
            ends: story.evicted.as_ref().map(|ended| session(ended, None)),
            drop: drop_reason(explained.verdict).map(|reason| ExplainedDrop {
                reason: reason.name().to_owned(),
                meaning: reason.explanation().trim().to_owned(),
                advice: reason.advice().to_owned(),
            }),
            notes: self.notes(explained),
        }
    }

    fn uplink(&self, uplink: u8) -> Option<String> {
        self.uplinks.get(usize::from(uplink)).cloned()
    }

    /// Returns the mapping over which a packet from outside comes, or that of a session.
    fn used_mapping(&self, explained: &Explained) -> Option<ExplainedMapping> {
        let external = explained.parsed.as_ref().and_then(Parsed::tuple)?.destination;
        let borrowed = explained.story.borrowed?;
        Some(ExplainedMapping {
            inside: borrowed.inside.to_string(),
            external: external.to_string(),
            port: MappingPort::Present,
        })
    }

    fn from(&self, explained: &Explained) -> Option<PlaceView> {
        let parsed = explained.parsed.as_ref()?;
        Some(match explained.legs[0] {
            Some(leg) => self.inside(leg),
            None if parsed.source().is_link_local() => {
                PlaceView { side: "host".to_owned(), interface: None }
            }
            None => self.outside(explained.uplink_of_destination.or(explained.uplink)),
        })
    }

    fn towards(&self, explained: &Explained) -> Option<PlaceView> {
        if explained.verdict == Verdict::PassToHost {
            return None;
        }
        let sent = parse(explained.sent.first()?, ChecksumMode::Complete).ok()?;
        Some(match explained.legs[1] {
            Some(leg) => self.inside(leg),
            None => self.outside(explained.uplink.or(self.uplink_with(sent.source()))),
        })
    }

    fn uplink_with(&self, address: Ipv4Addr) -> Option<u8> {
        let mut uplinks = self.config.uplinks.iter();
        let uplink = uplinks.find(|uplink| uplink.addresses.contains(&address))?;
        Some(uplink.numbers.uplink)
    }

    fn inside(&self, leg: usize) -> PlaceView {
        let interface = self.config.inside.legs.get(leg).map(|leg| leg.interface.clone());
        PlaceView { side: "inside".to_owned(), interface }
    }

    fn outside(&self, uplink: Option<u8>) -> PlaceView {
        let uplink = uplink.and_then(|number| {
            self.config.uplinks.iter().find(|uplink| uplink.numbers.uplink == number)
        });
        let interface = uplink.map(|uplink| uplink.interface.clone());
        PlaceView { side: "outside".to_owned(), interface }
    }

    fn rule(&self, rule: &OutboundRule) -> String {
        let to: Vec<_> = rule.to.iter().map(ToString::to_string).collect();
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", ")) };
        let uplinks: Vec<_> = rule.uplinks.iter().filter_map(|it| self.uplink(*it)).collect();
        format!("from {}{to} over {}", rule.from, uplinks.join(", "))
    }

    fn notes(&self, explained: &Explained) -> Vec<String> {
        let story = &explained.story;
        let is_random = story.mapping.as_ref().is_some_and(|(_, foreseen)| {
            matches!(foreseen.origin, PortOrigin::Random | PortOrigin::Shared)
        });
        let notes = [
            (is_random && !self.is_fresh).then_some(RANDOM_PORT),
            story.is_deferred.then_some(DEFERRED),
            story.is_error_limited.then_some(ERROR_LIMITED),
            (explained.verdict == Verdict::PassToHost).then_some(TO_HOST),
            story.doubt.map(|doubt| match doubt {
                Doubt::Expired => EXPIRED,
                Doubt::Adopting => ADOPTING,
                Doubt::EndsAnother => ENDS_ANOTHER,
            }),
            (explained.counters.forwarded_stateless != 0).then_some(STATELESS),
        ];
        notes.into_iter().flatten().map(str::to_owned).collect()
    }
}

const RANDOM_PORT: &str = "The external port is an example: each worker draws its own at random.";
const DEFERRED: &str = "The sender gets an ICMP error after 6 seconds, unless the inside host \
                        opens the connection meanwhile (`nat.unsolicited_syn`).";
const ERROR_LIMITED: &str = "The sender gets no ICMP error: `limits.icmp_errors_per_host` is used \
                             up.";
const TO_HOST: &str = "A program of the host may answer. The host's own filter decides first.";
const EXPIRED: &str = "The session of this packet has just expired. A packet removes it, and what \
                       it held is free again: mapping and port may differ from this answer.";
const ADOPTING: &str = "natbox still adopts the sessions of the process before it: the answer may \
                        be another one in a moment.";
const ENDS_ANOTHER: &str = "A session of the box itself would end to free its port, so the packet \
                            may pass.";
const STATELESS: &str = "The packet is translated without a session.";

fn outcome(explained: &Explained) -> PacketOutcome {
    match explained.verdict {
        Verdict::Translated if explained.counters.bypassed != 0 => PacketOutcome::Untranslated,
        Verdict::Translated => PacketOutcome::Translated,
        Verdict::PassToHost => PacketOutcome::ToHost,
        Verdict::Held => PacketOutcome::Waits,
        Verdict::Reply(..) => PacketOutcome::Rejected,
        Verdict::Drop(_) => PacketOutcome::Dropped,
    }
}

fn drop_reason(verdict: Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Drop(reason) | Verdict::Reply(_, reason) => Some(reason),
        Verdict::Translated | Verdict::PassToHost | Verdict::Held => None,
    }
}

fn mapping_port(origin: PortOrigin) -> MappingPort {
    match origin {
        PortOrigin::Present => MappingPort::Present,
        PortOrigin::Waiting => MappingPort::Waiting,
        PortOrigin::Kept => MappingPort::Kept,
        PortOrigin::Random => MappingPort::Random,
        PortOrigin::Shared => MappingPort::Shared,
    }
}

fn no_nat_rule(rule: &NoNatRule) -> String {
    let protocol = match rule.protocol {
        ForwardProtocol::Any => "",
        ForwardProtocol::Tcp => " tcp",
        ForwardProtocol::Udp => " udp",
        ForwardProtocol::TcpUdp => " tcp and udp",
        ForwardProtocol::Icmp => " icmp",
    };
    format!("to {}{protocol}", rule.to)
}

fn opened(new: &NewSession) -> OpenedSession {
    OpenedSession {
        state: new.state.name().to_owned(),
        origin: new.origin.name().to_owned(),
        original: tuple_view(new.original.tuple()),
        reply: tuple_view(new.reply.tuple()),
    }
}

fn tuple_view(tuple: Tuple) -> TupleView {
    TupleView { source: tuple.source.to_string(), destination: tuple.destination.to_string() }
}

fn sent_view(packet: &[u8]) -> ExplainedPacket {
    let parsed = parse(packet, ChecksumMode::Complete).ok();
    packet_view(parsed.as_ref(), packet.len())
}

fn packet_view(parsed: Option<&Parsed>, length: usize) -> ExplainedPacket {
    let Some(parsed) = parsed else {
        return ExplainedPacket { protocol: None, addresses: None, detail: None, length };
    };
    let first = tuple_of(parsed);
    let end = |address, tuple_end: Option<Endpoint>| match tuple_end {
        Some(Endpoint { port, .. }) if port != 0 => format!("{address}:{port}"),
        Some(_) | None => format!("{address}"),
    };
    ExplainedPacket {
        protocol: Some(parsed.protocol().to_string()),
        addresses: Some(TupleView {
            source: end(parsed.source(), first.map(|tuple| tuple.source)),
            destination: end(parsed.destination(), first.map(|tuple| tuple.destination)),
        }),
        detail: detail(parsed.payload()),
        length,
    }
}

/// Returns what the addresses of a packet do not show.
fn detail(payload: Payload) -> Option<String> {
    match payload {
        Payload::Tcp(tcp) => {
            let names = FLAGS.iter().filter(|(bit, _)| tcp.flags.0 & bit != 0);
            let names: Vec<_> = names.map(|(_, name)| *name).collect();
            Some(if names.is_empty() { "no flags".to_owned() } else { names.join(" ") })
        }
        Payload::IcmpQuery(kind) if kind.is_request() => Some("request".to_owned()),
        Payload::IcmpQuery(_) => Some("reply".to_owned()),
        Payload::IcmpError(error) => {
            Some(format!("error type {} code {} about {}", error.kind, error.code, error.quoted))
        }
        Payload::IcmpOther { .. } => Some("neither a query nor an error".to_owned()),
        Payload::Fragment { offset, .. } => Some(format!("fragment at byte {offset}")),
        Payload::Udp | Payload::Other => None,
    }
}

const FLAGS: [(u8, &str); 6] =
    [(0x02, "syn"), (0x10, "ack"), (0x01, "fin"), (0x04, "rst"), (0x08, "psh"), (0x20, "urg")];

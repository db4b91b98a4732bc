//! An explanation as text, one fact a line.

use crate::api::{
    ExplainedPacket, Explanation, MappingPort, PacketOutcome, PlaceView, SessionView,
};

/// Returns the lines of an explanation.
pub(super) fn lines(explanation: &Explanation) -> String {
    let Explanation { packet, from, outcome, sent, towards, .. } = explanation;
    let mut lines = Lines(Vec::new());
    lines.add("packet", Some(packet_line(packet)));
    lines.add("from", from.as_ref().map(place));
    lines.add("outcome", Some(outcome_line(explanation)));
    lines.add("meaning", explanation.drop.as_ref().map(|drop| drop.meaning.clone()));
    lines.add("advice", explanation.drop.as_ref().map(|drop| drop.advice.clone()));
    lines.add("forward", explanation.forward.clone());
    lines.add("rule", explanation.outbound_rule.as_ref().map(|rule| format!("outbound {rule}")));
    lines.add("rule", explanation.no_nat_rule.as_ref().map(|rule| format!("no_nat {rule}")));
    lines.add("uplink", explanation.uplink.clone());
    lines.add(
        "mapping",
        explanation.mapping.as_ref().map(|mapping| {
            format!("{} = {} ({})", mapping.inside, mapping.external, port(mapping.port))
        }),
    );
    lines.add("session", explanation.session.as_ref().map(session));
    lines.add(
        "opens",
        explanation.opens.as_ref().map(|new| {
            format!(
                "{} session, {}; replies {} -> {}",
                new.origin, new.state, new.reply.source, new.reply.destination
            )
        }),
    );
    lines.add("ends", explanation.ends.as_ref().map(session));
    let label = if *outcome == PacketOutcome::Rejected { "answer" } else { "sent" };
    lines.add(label, sent.as_ref().map(packet_line));
    lines.add("towards", towards.as_ref().map(place));
    for note in &explanation.notes {
        lines.add("note", Some(note.clone()));
    }
    lines.0.join("\n")
}

struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, label: &str, content: Option<String>) {
        self.0.extend(content.map(|content| format!("  {label:<8}  {content}")));
    }
}

fn packet_line(packet: &ExplainedPacket) -> String {
    let ExplainedPacket { protocol, addresses, detail, length } = packet;
    let (Some(protocol), Some(addresses)) = (protocol, addresses) else {
        return format!("malformed, {length} bytes");
    };
    let detail = detail.as_ref().map_or(String::new(), |detail| format!(" {detail}"));
    format!("{protocol} {} -> {}{detail}, {length} bytes", addresses.source, addresses.destination)
}

fn place(place: &PlaceView) -> String {
    match &place.interface {
        Some(interface) => format!("{} ({interface})", place.side),
        None => place.side.clone(),
    }
}

fn outcome_line(explanation: &Explanation) -> String {
    let reason = explanation.drop.as_ref().map_or("", |drop| drop.reason.as_str());
    let released = match explanation.released_fragments {
        0 => String::new(),
        count => format!(", with {count} held fragments of its datagram"),
    };
    match explanation.outcome {
        PacketOutcome::Translated => format!("translated{released}"),
        PacketOutcome::Untranslated => format!("passed without translation{released}"),
        PacketOutcome::ToHost => format!("passed to the host itself{released}"),
        PacketOutcome::Waits => "held until the first fragment of its datagram arrives".to_owned(),
        PacketOutcome::Rejected => format!("dropped: {reason}, with an ICMP error to the sender"),
        PacketOutcome::Dropped => format!("dropped: {reason}"),
    }
}

fn port(port: MappingPort) -> &'static str {
    match port {
        MappingPort::Present => "exists",
        MappingPort::Waiting => "new, with its port of before",
        MappingPort::Kept => "new, keeps its port",
        MappingPort::Random => "new, port drawn at random",
        MappingPort::Shared => "new, port shared with mappings to other destinations",
    }
}

fn session(session: &SessionView) -> String {
    format!(
        "{}, {}, {} -> {}; ends in {} s without packets",
        session.origin,
        session.state,
        session.original.source,
        session.original.destination,
        session.expires_in_seconds
    )
}

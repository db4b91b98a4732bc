//! The stream of a trace: takes packets from the workers' rings and writes them to a client.
//!
//! The workers write into bounded rings and never wait. A slow client delays this stream alone;
//! then rings are full, and the stream says how many packets are missing.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::MissedTickBehavior;

use super::drops::rfc3339;
use super::packet_view::{Headers, Visible, subject_of, subject_without_session};
use crate::api::{TraceLine, TraceVerdict, TracedPacketView, TracedSession, TupleView};
use crate::engine::{Handle, Trace, TraceOutcome, TracedPacket, TracedPackets};
use crate::filter::FilterExpression;
use crate::nat::{DropReason, PacketEnds, SessionInfo};
use crate::packet::{PacketHead, Tuple};

/// Begins a trace of the packets that match a filter. None: too many traces are on.
pub(super) fn begin(engine: &Handle, filter: FilterExpression) -> Option<Trace> {
    engine.trace(move |packet| matches(&filter, packet))
}

/// Reports whether a packet matches: a packet of a session as its session does, another one by its
/// own headers. A packet without an IPv4 header matches the empty filter only.
fn matches(filter: &FilterExpression, packet: &TracedPacket) -> bool {
    if filter.is_empty() {
        return true;
    }
    if let Some(origin) = &packet.origin {
        return filter.matches(&subject_of(origin, packet.now));
    }
    let head = packet.before.or(packet.after);
    let ends = PacketEnds::default();
    head.and_then(|head| Headers::of(&head).tuple)
        .is_some_and(|tuple| filter.matches(&subject_without_session(tuple, &ends)))
}

/// Writes a trace to a client until the client closes the connection.
///
/// # Errors
/// The client is gone.
pub(super) async fn stream(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut trace: Trace,
) -> io::Result<()> {
    writer.write_all(&lines([TraceLine::Started])).await?;
    let mut pause = tokio::time::interval(INTERVAL);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            _ = pause.tick() => {}
            read = reader.read(&mut ignored) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        }
        // On a thread of its own: the control thread has other work.
        let batch = tokio::task::spawn_blocking(move || {
            let found = trace.take(MAX_BATCH);
            (found.packets.len(), batch_lines(&found), trace)
        });
        let Ok((packets, text, returned)) = batch.await else { return Ok(()) };
        trace = returned;
        writer.write_all(&text).await?;
        if packets >= MAX_BATCH / 2 {
            // More packets wait.
            pause.reset_immediately();
        }
    }
}

fn batch_lines(found: &TracedPackets) -> Vec<u8> {
    let packets = found.packets.iter().map(|packet| TraceLine::Packet(Box::new(view(packet))));
    let lost = (found.lost != 0).then_some(TraceLine::Lost { packets: found.lost });
    lines(packets.chain(lost))
}

fn lines(lines: impl IntoIterator<Item = TraceLine>) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, &line)
            .expect("plain structs with string keys always serialise");
        text.push(b'\n');
    }
    text
}

fn view(packet: &TracedPacket) -> TracedPacketView {
    let (verdict, reason) = verdict(packet.outcome);
    let bytes = |head: PacketHead| Headers::of(&head).view(&head, Visible::Everything);
    let (session, ends) = match &packet.origin {
        Some(origin) => (origin.session.as_ref(), Some(&origin.ends)),
        None => (None, None),
    };
    TracedPacketView {
        at: rfc3339(packet.at),
        worker: packet.worker,
        verdict,
        reason: reason.map(|reason| reason.name().to_owned()),
        meaning: reason.map(|reason| reason.explanation().trim().to_owned()),
        session: session.map(|session| session_view(session, packet.opened)),
        uplink: ends.and_then(|ends| ends.uplink.clone()),
        forward: ends.and_then(|ends| ends.forward.clone()),
        before: packet.before.map(bytes),
        after: packet.after.map(bytes),
    }
}

fn verdict(outcome: TraceOutcome) -> (TraceVerdict, Option<DropReason>) {
    match outcome {
        TraceOutcome::Translated => (TraceVerdict::Translated, None),
        TraceOutcome::PassedToHost => (TraceVerdict::PassedToHost, None),
        TraceOutcome::Rejected(reason) => (TraceVerdict::Rejected, Some(reason)),
        TraceOutcome::Held => (TraceVerdict::Held, None),
        TraceOutcome::Released => (TraceVerdict::Released, None),
        TraceOutcome::Dropped(reason) => (TraceVerdict::Dropped, Some(reason)),
    }
}

fn session_view(session: &SessionInfo, new: bool) -> TracedSession {
    let tuple = |tuple: &Tuple| TupleView {
        source: tuple.source.to_string(),
        destination: tuple.destination.to_string(),
    };
    TracedSession {
        new,
        state: session.state.name().to_owned(),
        origin: session.origin.name().to_owned(),
        original: tuple(&session.original),
        reply: tuple(&session.reply),
    }
}

/// Longest time for which a packet waits in a ring while the client reads.
const INTERVAL: Duration = Duration::from_millis(20);
/// Packets that are written at once.
const MAX_BATCH: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::packet::{Protocol, builder};
    use crate::time::Tick;

    #[test]
    fn packets_match_by_their_headers_and_malformed_ones_only_without_a_filter() {
        let traced = |bytes: &[u8]| TracedPacket {
            at: SystemTime::UNIX_EPOCH,
            now: Tick(0),
            worker: 0,
            before: Some(PacketHead::of(bytes)),
            after: None,
            outcome: TraceOutcome::Dropped(DropReason::NotIpv4),
            opened: false,
            origin: None,
        };
        let tuple = builder::tuple(Protocol::UDP, ([192, 0, 2, 1], 7), ([203, 0, 113, 10], 53));
        let datagram = traced(&builder::udp(tuple, b"question"));
        let (filter, other): (FilterExpression, FilterExpression) =
            ("udp to :53".parse().unwrap(), "udp to :54".parse().unwrap());
        assert!(matches(&filter, &datagram) && !matches(&other, &datagram));
        let malformed = traced(&[0; 19]);
        assert!(matches(&FilterExpression::default(), &malformed));
        assert!(!matches(&filter, &malformed) && !matches(&"not udp".parse().unwrap(), &malformed));
        let text = String::from_utf8(batch_lines(&TracedPackets {
            packets: vec![datagram, malformed],
            lost: 3,
        }))
        .unwrap();
        let lines: Vec<TraceLine> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(
            lines[..],
            [TraceLine::Packet(_), TraceLine::Packet(_), TraceLine::Lost { packets: 3 }]
        ));
    }
}

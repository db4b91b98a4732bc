//! `natbox trace`: shows live packets of a running instance, before and after.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::output;
use super::pcapng::CaptureFile;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{PacketView, Request, TraceLine, TracedPacketView, TracedSession};
use crate::config::counted;

/// Arguments of `natbox trace`.
#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    #[command(flatten)]
    query: InstanceQuery,
    /// End after this number of packets
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write the packets as a pcapng capture, both sides with the decision as a comment; `-` for a
    /// pipe
    #[arg(short = 'w', long, value_name = "FILE", conflicts_with = "json")]
    write: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgument,
}

/// Where the lines go.
enum Sink {
    Text,
    Json,
    Capture(Box<CaptureFile>),
}

/// Shows matching packets until the count is reached, the reader closes its end or the instance
/// ends.
///
/// # Errors
/// An environment error when no instance answers or the capture cannot be written. A user error
/// when several run and none is named, when the filter is wrong, or when the user may only read.
pub(super) fn run(arguments: &TraceArguments) -> Result<ExitCode, Failure> {
    let TraceArguments { query, count, write, filter } = arguments;
    filter.parse()?;
    let mut sink = match write {
        Some(path) => Sink::Capture(Box::new(CaptureFile::create(path, &INTERFACES)?)),
        None if query.json => Sink::Json,
        None => Sink::Text,
    };
    let mut left = count.unwrap_or(u64::MAX);
    let request = Request::Trace { filter: filter.text() };
    let ended = query.instance.follow(&request, |line: TraceLine| {
        left -= u64::from(matches!(line, TraceLine::Packet(_)));
        match sink.take(&line) {
            Ok(true) if left > 0 => ControlFlow::Continue(()),
            Ok(_) => ControlFlow::Break(Ok(())),
            Err(failure) => ControlFlow::Break(Err(failure)),
        }
    })?;
    match ended {
        ControlFlow::Continue(()) => warn("the instance has ended"),
        ControlFlow::Break(outcome) => outcome?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Sink {
    /// Writes a line. Returns false when the reader has closed its end.
    fn take(&mut self, line: &TraceLine) -> Result<bool, Failure> {
        match self {
            Self::Json => output::offer(&output::json_line(line)?),
            Self::Text => match line {
                TraceLine::Packet(packet) => output::offer(&text(packet)),
                TraceLine::Started | TraceLine::Lost { .. } => {
                    notice(line);
                    Ok(true)
                }
            },
            Self::Capture(capture) => match line {
                TraceLine::Packet(packet) => write_packet(capture, packet),
                TraceLine::Started | TraceLine::Lost { .. } => {
                    notice(line);
                    Ok(true)
                }
            },
        }
    }
}

/// Reports on standard error that the trace is on, or what was lost.
fn notice(line: &TraceLine) {
    match line {
        TraceLine::Started => warn("tracing; Ctrl-C ends"),
        TraceLine::Lost { packets } => {
            warn(&format!("{} lost: slow reader", counted(*packets, "packet", "packets")));
        }
        TraceLine::Packet(_) => {}
    }
}

fn write_packet(capture: &mut CaptureFile, packet: &TracedPacketView) -> Result<bool, Failure> {
    let sides = [(BEFORE, &packet.before), (AFTER, &packet.after)];
    for (interface, side) in sides {
        if let Some(side) = side
            && !capture.add(interface, &packet.at, side, decision(packet))?
        {
            return Ok(false);
        }
    }
    capture.flush()
}

fn text(packet: &TracedPacketView) -> String {
    let TracedPacketView { at, before, after, .. } = packet;
    let side = |view: &Option<PacketView>| view.as_ref().map(|view| view.summary.clone());
    let mut text = format!("{at} {}", decision(packet));
    for (name, side) in [("before", side(before)), ("after", side(after))] {
        if let Some(side) = side {
            text.push_str(&format!("\n    {name:<6} {side}"));
        }
    }
    text
}

/// Returns what natbox has decided, on one line.
fn decision(packet: &TracedPacketView) -> String {
    let TracedPacketView { verdict, reason, meaning, session, uplink, forward, .. } = packet;
    let mut parts = vec![verdict.name().to_owned()];
    if let (Some(reason), Some(meaning)) = (reason, meaning) {
        parts[0] += &format!(" ({reason}): {}", meaning.trim_end_matches('.'));
    }
    if let Some(TracedSession { new, state, origin, .. }) = session {
        let age = if *new { "new" } else { "known" };
        parts.push(format!("{age} session {origin} {state}"));
    }
    parts.extend(uplink.iter().map(|uplink| format!("uplink {uplink}")));
    parts.extend(forward.iter().map(|forward| format!("forward {forward}")));
    parts.join(", ")
}

/// Interfaces of the capture.
const INTERFACES: [&str; 2] = ["before", "after"];
const BEFORE: u32 = 0;
const AFTER: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{TraceVerdict, TupleView};

    fn traced(verdict: TraceVerdict) -> TracedPacketView {
        let packet =
            |summary: &str| PacketView { length: 60, summary: summary.into(), bytes: "45".into() };
        TracedPacketView {
            at: "2026-11-25T15:00:00.000Z".to_owned(),
            worker: 0,
            verdict,
            reason: None,
            meaning: None,
            session: None,
            uplink: Some("isp1".to_owned()),
            forward: None,
            before: Some(packet("udp a > b")),
            after: Some(packet("udp a > c")),
        }
    }

    #[test]
    fn a_packet_shows_its_decision_and_both_sides() {
        let tuple = || TupleView { source: "a".to_owned(), destination: "b".to_owned() };
        let session = TracedSession {
            new: true,
            state: "udp".to_owned(),
            origin: "forward".to_owned(),
            original: tuple(),
            reply: tuple(),
        };
        let forward = Some("web".to_owned());
        let packet = TracedPacketView {
            session: Some(session),
            forward,
            ..traced(TraceVerdict::Translated)
        };
        assert_eq!(
            text(&packet),
            "2026-11-25T15:00:00.000Z translated, new session forward udp, uplink isp1, forward \
             web\n    before udp a > b\n    after  udp a > c"
        );
        let dropped = TracedPacketView {
            reason: Some("no-mapping".to_owned()),
            meaning: Some("No forward exists.".to_owned()),
            after: None,
            ..traced(TraceVerdict::Dropped)
        };
        assert_eq!(decision(&dropped), "dropped (no-mapping): No forward exists, uplink isp1");
        assert!(!text(&dropped).contains("after"));
    }
}

//! `natbox drops`: shows what a running instance drops, and why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::pcapng::CaptureFile;
use super::target::InstanceQuery;
use crate::api::{DropExampleView, DropReport, ReasonView, Request};
use crate::config::counted;

/// Arguments of `natbox drops`.
#[derive(Debug, Args)]
pub(super) struct DropsArguments {
    #[command(flatten)]
    query: InstanceQuery,
    /// Write the packets as a pcapng capture, each with its reason as a comment; `-` for a pipe
    #[arg(short = 'w', long, value_name = "FILE", conflicts_with = "json")]
    write: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgument,
}

/// Shows the drops of an instance.
///
/// # Errors
/// An environment error when no instance answers or the capture cannot be written. A user error
/// when several run and none is named, or when the filter is wrong.
pub(super) fn run(arguments: &DropsArguments) -> Result<ExitCode, Failure> {
    let DropsArguments { query, write, filter } = arguments;
    filter.parse()?;
    let request = Request::Drops { filter: filter.text() };
    match write {
        Some(path) => {
            let report: DropReport = query.instance.ask(&request)?;
            write_capture(&report, CaptureFile::create(path, &["natbox drops"])?)?;
        }
        None => query.show(&request, text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the examples of all reasons in the order of their times.
fn write_capture(report: &DropReport, mut capture: CaptureFile) -> Result<(), Failure> {
    let reasons = report.reasons.iter();
    let mut examples: Vec<(&DropExampleView, &ReasonView)> = reasons
        .flat_map(|reason| reason.examples.iter().map(move |example| (example, reason)))
        .collect();
    // The text of a time sorts as the time does. Stable: packets of one batch keep their order.
    examples.sort_by_key(|(example, _)| &example.at);
    for (DropExampleView { at, packet, .. }, ReasonView { reason, meaning, .. }) in examples {
        if !capture.add(0, at, packet, format!("dropped: {reason}: {meaning}"))? {
            return Ok(());
        }
    }
    capture.flush().map(|_| ())
}

fn text(report: &DropReport) -> String {
    if report.reasons.is_empty() {
        return "no dropped packet matches".to_owned();
    }
    let reasons: Vec<String> = report.reasons.iter().map(reason_text).collect();
    let mut text = reasons.join("\n");
    if report.missed_examples != 0 {
        let missed = counted(report.missed_examples, "example was", "examples were");
        let _ = write!(text, "\n{missed} not stored, because a reader held the list");
    }
    if !report.with_payload {
        text.push_str("\nonly root sees more than the headers of these packets");
    }
    text
}

fn reason_text(reason: &ReasonView) -> String {
    let ReasonView { reason, packets, packets_per_second, last, meaning, advice, examples } =
        reason;
    let packets = counted(*packets, "packet", "packets");
    let last = last.as_ref().map(|last| format!(", last {last}")).unwrap_or_default();
    let mut text = format!("{reason}: {packets}, {packets_per_second:.1}/s{last}\n");
    let _ = writeln!(text, "  {meaning}");
    let _ = writeln!(text, "  To do: {advice}");
    for DropExampleView { at, number, from, packet, .. } in examples {
        let from = from.as_deref().unwrap_or("-");
        let _ = writeln!(text, "  {at} #{number} {from:<7} {}", packet.summary);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PacketView;

    #[test]
    fn a_reason_shows_count_rate_meaning_advice_and_packets() {
        let packet =
            PacketView { length: 60, summary: "tcp a > b".to_owned(), bytes: String::new() };
        let example = DropExampleView {
            at: "2026-11-25T15:00:00.000Z".to_owned(),
            worker: 0,
            number: 7,
            from: Some("outside".to_owned()),
            uplink: None,
            forward: None,
            packet,
        };
        let reason = ReasonView {
            reason: "no-mapping".to_owned(),
            packets: 7,
            packets_per_second: 0.5,
            last: Some(example.at.clone()),
            meaning: "No forward.".to_owned(),
            advice: "Add one.".to_owned(),
            examples: vec![example],
        };
        let mut report =
            DropReport { reasons: vec![reason], missed_examples: 0, with_payload: true };
        assert_eq!(
            text(&report),
            "no-mapping: 7 packets, 0.5/s, last 2026-11-25T15:00:00.000Z\n  No forward.\n  \
             To do: Add one.\n  2026-11-25T15:00:00.000Z #7 outside tcp a > b\n"
        );
        (report.missed_examples, report.with_payload) = (1, false);
        let text = text(&report);
        assert!(text.contains("1 example was not stored") && text.contains("only root"), "{text}");
        assert_eq!(super::text(&DropReport::default()), "no dropped packet matches");
    }
}

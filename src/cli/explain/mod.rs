//! `natbox explain`: says what would happen to a packet, and why.

mod capture;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use data_encoding::HEXLOWER;

use super::config_file::ConfigFile;
use super::exit::Failure;
use super::output;
use super::target::InstanceQuery;
use crate::api::{Explanation, MAX_EXPLAINED, Request};
use crate::config::Config;
use crate::control::FreshInstance;
use crate::packet_words;

use capture::CapturedPacket;

/// Arguments of `natbox explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The packet: PROTOCOL SOURCE -> DESTINATION, and more words about it
    ///
    /// For example 'tcp 192.0.2.7:4242 -> 203.0.113.10:80 syn', or 'icmp 10.0.0.5 -> 192.0.2.1
    /// id 7'. `to` means the same as `->`. TCP: `syn` (default), `ack`, `fin`, `rst`, `psh`,
    /// `urg`, `seq N`. ICMP: `request` (default), `reply`, `id N`. All: `length N`, `df`, `from
    /// inside`, `from outside`, `from INTERFACE`.
    #[arg(required_unless_present = "pcap", conflicts_with = "pcap")]
    packet: Vec<String>,
    /// Explain each packet of a capture instead (pcap or pcapng)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Ask no running instance: begin without sessions, with this configuration file
    ///
    /// All uplinks are up. Of several packets, the later ones find the sessions of those before.
    #[arg(short = 'c', long, value_name = "FILE", conflicts_with_all = ["name", "socket"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    query: InstanceQuery,
}

/// Says what would happen to a packet, or to each packet of a capture.
///
/// # Errors
/// A user error when the words describe no packet, or the file is no capture or no configuration.
/// An environment error when no instance answers.
pub(super) fn run(arguments: &ExplainArguments) -> Result<ExitCode, Failure> {
    let json = arguments.query.json;
    let described = match &arguments.pcap {
        None => Some(packet_words::parse(&arguments.packet.join(" ")).map_err(Failure::user)?),
        Some(_) => None,
    };
    let config = match &arguments.config {
        Some(path) => Some(ConfigFile { path: path.clone() }.load()?),
        None => None,
    };
    let mut oracle = Oracle::new(&arguments.query, config.as_ref())?;
    match (&arguments.pcap, described) {
        (Some(path), _) => explain_capture(&mut oracle, path, json)?,
        (None, Some(described)) => {
            let mut explanation = oracle.explain(&described.bytes(), 0)?;
            let contradiction = described.from.and_then(|from| contradiction(&from, &explanation));
            explanation.notes.extend(contradiction);
            output::show(json, &explanation, text::lines)?;
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Explains each packet of a capture.
fn explain_capture(
    oracle: &mut Oracle<'_>,
    path: &std::path::Path,
    json: bool,
) -> Result<(), Failure> {
    let (mut number, mut first, mut is_open) = (0u64, None, true);
    let mut skipped = 0u64;
    capture::read(path, |CapturedPacket { time, packet }| {
        number += 1;
        let Some(packet) = packet else {
            skipped += 1;
            return Ok(is_open);
        };
        let passed = time.saturating_sub(*first.get_or_insert(time));
        let milliseconds = u32::try_from(passed.as_millis()).unwrap_or(u32::MAX);
        let explanation = oracle.explain(&packet, milliseconds)?;
        let text = match json {
            true => output::json_line(&NumberedExplanation { number, explanation })?,
            false => format!("packet {number}\n{}", text::lines(&explanation)),
        };
        is_open = output::offer(&text)?;
        Ok(is_open)
    })?;
    if skipped != 0 && is_open && !json {
        output::print(&format!("{skipped} of {number} packets are not IPv4 and were left out"))?;
    }
    Ok(())
}

/// An explanation of a packet of a capture.
#[derive(serde::Serialize)]
struct NumberedExplanation {
    /// Number of the packet in the capture, counted from 1.
    number: u64,
    #[serde(flatten)]
    explanation: Explanation,
}

/// What knows the answers.
enum Oracle<'a> {
    Running(&'a InstanceQuery),
    Fresh(Box<FreshInstance<'a>>),
}

impl<'a> Oracle<'a> {
    fn new(query: &'a InstanceQuery, config: Option<&'a Config>) -> Result<Self, Failure> {
        let Some(config) = config else { return Ok(Self::Running(query)) };
        let fresh = FreshInstance::new(config)
            .context("limits.sessions: the memory for the sessions cannot be mapped")
            .map_err(Failure::environment)?;
        Ok(Self::Fresh(Box::new(fresh)))
    }

    fn explain(&mut self, packet: &[u8], milliseconds: u32) -> Result<Explanation, Failure> {
        match self {
            Self::Running(query) => {
                let first = &packet[..packet.len().min(MAX_EXPLAINED)];
                let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
                query.instance.ask(&Request::Explain { packet: HEXLOWER.encode(first), length })
            }
            Self::Fresh(fresh) => Ok(fresh.explain_next(packet, milliseconds)),
        }
    }
}

/// Returns a note if a packet does not come from where its description says.
fn contradiction(from: &str, explanation: &Explanation) -> Option<String> {
    let found = explanation.from.as_ref()?;
    let interface = found.interface.as_deref();
    if found.side == from || interface == Some(from) {
        return None;
    }
    let source = explanation.packet.addresses.as_ref().map(|it| it.source.as_str());
    let place = interface.map_or(String::new(), |interface| format!(" ({interface})"));
    Some(format!(
        "The source {} belongs to the {}{place}, not to `{from}`. natbox decides by the addresses; \
         its rules on the host drop a packet that comes by another interface.",
        source.unwrap_or_default(),
        found.side,
    ))
}

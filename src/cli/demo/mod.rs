//! `natbox demo`: one server on two uplinks, in network namespaces on this machine, with a measured
//! report. A scenario chooses the instances. [`crate::lab`] provides namespaces, servers, downloads
//! and captures.
//!
//! ```text
//! scenario    in what the scenarios differ
//! failover    an uplink that fails and comes back
//! report      the findings
//! ```
//!
//! Everything except the instances runs in this process. The instances are `natbox run` processes
//! with copies of the published configuration files.

pub mod failover;
pub mod report;
mod scenario;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::lab::boxes::{BoxError, NatBox};
use crate::lab::capture::{ExpectedReplies, SETTLE, UplinkCapture};
use crate::lab::interrupt::{Interrupt, Interrupted};
use crate::lab::load::{self, LoadError};
use crate::lab::topology::{CLIENTS, Topology, TopologyUplink};
use crate::lab::{Lab, LabError, http};
use anyhow::anyhow;
use failover::FailoverReport;
use report::{DemoReport, ScenarioReport, UplinkReport};
use scenario::{Scenario, ScenarioSpec};

use super::{Failure, warn};

/// Port of the web server, outside and inside.
const PORT: u16 = 80;

/// Interval at which the demo checks for Enter while everything keeps running.
const KEEP_POLL: Duration = Duration::from_millis(100);

/// Arguments of `natbox demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    #[command(flatten)]
    options: DemoOptions,
    /// Scenario other than that of two instances
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

/// Options of every scenario. They may precede or follow its name.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Print the report as JSON (progress goes to standard error)
    #[arg(long, global = true)]
    pub json: bool,
    /// Rate limit of each uplink in both directions, in Mbit/s
    #[arg(long, global = true, value_name = "MBIT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub rate: u32,
    /// Length of each of the three measurements, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Keep everything running after the report, until Enter or Ctrl-C
    #[arg(long, global = true)]
    pub keep: bool,
}

/// The reason why the demo could not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// The namespaces could not be built.
    #[error(transparent)]
    Lab(LabError),
    /// An instance did not start or answer.
    #[error(transparent)]
    Box(BoxError),
    /// A download failed.
    #[error(transparent)]
    Load(LoadError),
    /// The report could not be printed.
    #[error("cannot print the report")]
    Output(#[source] io::Error),
    /// A signal ended the demo.
    #[error(transparent)]
    Interrupted(Interrupted),
}

impl From<LabError> for DemoError {
    fn from(error: LabError) -> DemoError {
        DemoError::Lab(error)
    }
}

impl From<Interrupted> for DemoError {
    fn from(error: Interrupted) -> DemoError {
        DemoError::Interrupted(error)
    }
}

// A signal stays a signal, whichever layer noticed the signal.
impl From<BoxError> for DemoError {
    fn from(error: BoxError) -> DemoError {
        if let BoxError::Interrupted(signal) = error {
            signal.into()
        } else {
            DemoError::Box(error)
        }
    }
}

impl From<LoadError> for DemoError {
    fn from(error: LoadError) -> DemoError {
        if let LoadError::Interrupted(signal) = error {
            signal.into()
        } else {
            DemoError::Load(error)
        }
    }
}

/// Runs the demo. Exit code 0: the bandwidths add up, every reply used its own uplink, and the
/// server saw the clients' addresses. Exit code 1: an expectation failed, and the report says
/// which. After a signal the exit code is 128 and the signal's number, as in shells.
///
/// # Errors
/// An environment error when the machine lacks something or fails. A bug when the demo panicked.
/// The demo removes everything in each case.
pub fn run(arguments: &DemoArguments) -> Result<ExitCode, Failure> {
    let (options, spec) = (&arguments.options, ScenarioSpec::of(arguments.scenario));
    crate::lab::check_host().map_err(Failure::environment)?;
    let interrupt = Interrupt::listen().map_err(Failure::environment)?;
    let screen = Screen { errors: options.json, unfinished: Cell::new(false) };
    // The program's own hook would end the process at once and leave the namespaces behind.
    std::panic::set_hook(Box::new(|panic| {
        warn(&format!("natbox: bug, please report it: {panic}"))
    }));
    let outcome =
        std::panic::catch_unwind(AssertUnwindSafe(|| show(spec, options, &interrupt, &screen)));
    // The last message begins on a line of its own.
    screen.end_line();
    match outcome {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(DemoError::Interrupted(signal))) => {
            warn(&format!("natbox: {signal}; the demo has removed everything that it had set up"));
            Ok(ExitCode::from(128 + signal.number))
        }
        Ok(Err(error)) => Err(Failure::environment(error)),
        Err(_) => Err(Failure::bug(anyhow!(
            "the demo panicked; it has removed everything that it had set up"
        ))),
    }
}

/// Runs the demo up to and including the clean-up.
fn show(
    spec: &ScenarioSpec,
    options: &DemoOptions,
    interrupt: &Interrupt,
    screen: &Screen,
) -> Result<ExitCode, DemoError> {
    let stage = Stage::set(spec, options, interrupt, screen)?;
    let mut report = stage.perform(options, interrupt, screen)?;
    let failover = match spec.fails {
        false => None,
        true => Some(failover::play(&stage.topology, &stage.boxes[0], interrupt, screen)?),
    };
    report.add_problems(failover.iter().flat_map(FailoverReport::problems));
    print_report(spec, &report, failover.as_ref(), options.json).map_err(DemoError::Output)?;
    if options.keep {
        stage.keep(interrupt, screen)?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print_report(
    spec: &ScenarioSpec,
    report: &DemoReport,
    failover: Option<&FailoverReport>,
    json: bool,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (json, spec.name) {
        (true, None) => writeln!(out, "{}", serde_json::to_string_pretty(report)?),
        (true, Some(scenario)) => {
            let report =
                ScenarioReport { scenario, uplinks_count: report.uplinks.len(), failover, report };
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)
        }
        (false, _) => {
            let more =
                failover.map_or_else(String::new, |failover| format!("{}\n", failover.text()));
            write!(out, "\n{more}{}", report.text(io::stdout().is_terminal()))
        }
    }
}

/// The place where progress is shown.
struct Screen {
    /// True: standard error, because another program reads standard output.
    errors: bool,
    /// Whether the last text did not end its line.
    unfinished: Cell<bool>,
}

impl Screen {
    /// Shows text as it is. A failure to show progress does not stop the demo.
    fn show(&self, text: &str) {
        self.unfinished.set(!text.ends_with('\n'));
        let _ = match self.errors {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        };
    }

    fn end_line(&self) {
        if self.unfinished.get() {
            self.show("\n");
        }
    }
}

/// Everything that is set up. The fields are dropped in this order, so that nothing outlives what
/// it uses.
struct Stage {
    boxes: Vec<NatBox>,
    server: http::HttpServer,
    topology: Topology,
    /// Keeps the directory.
    _lab: Lab,
}

impl Stage {
    fn set(
        spec: &ScenarioSpec,
        options: &DemoOptions,
        interrupt: &Interrupt,
        screen: &Screen,
    ) -> Result<Stage, DemoError> {
        screen.show(&format!("{}\n\n", spec.title));
        let lab = Lab::new("nbdemo")?;
        let topology = (spec.build)(&lab, options.rate)?;
        interrupt.check()?;
        let blank: Vec<_> = topology
            .uplinks
            .iter()
            .enumerate()
            .map(|(n, uplink)| blank(&topology, n, uplink))
            .collect();
        screen.show(&format!("{}\n", (spec.diagram)(&blank, options.rate, &CLIENTS)));

        let host = &topology.servers[0];
        let listeners = host.namespace.enter(|| {
            let addresses = BTreeSet::from_iter(host.addresses.iter().copied());
            let listeners = addresses.into_iter().map(|address| TcpListener::bind((address, PORT)));
            listeners.collect::<io::Result<Vec<_>>>()
        })?;
        let listeners = listeners.map_err(LabError::system("listen on the server's addresses"))?;
        let server = http::HttpServer::start(listeners, None)
            .map_err(LabError::system("start the web server"))?;

        let program =
            std::env::current_exe().map_err(LabError::system("find this program's own file"))?;
        let mut boxes = Vec::new();
        for (uplink, (name, configuration)) in topology.uplinks.iter().zip(spec.boxes) {
            let started =
                NatBox::start(&program, &uplink.natbox, lab.directory(), name, configuration)?;
            screen.show(&format!("  $ {}\n", started.command()));
            boxes.push(started);
        }
        screen.show(&format!("    ({})\n\n", spec.copies));
        for started in &mut boxes {
            started.wait_ready(interrupt)?;
        }
        Ok(Stage { boxes, server, topology, _lab: lab })
    }

    fn perform(
        &self,
        options: &DemoOptions,
        interrupt: &Interrupt,
        screen: &Screen,
    ) -> Result<DemoReport, DemoError> {
        let uplinks = &self.topology.uplinks;
        let watches = uplinks
            .iter()
            .map(|uplink| UplinkCapture::start(&uplink.provider, expected(uplink)))
            .collect::<Result<Vec<_>, _>>()?;
        let frames_before = frames(uplinks)?;

        screen.show("  each client asks for its own address over each uplink ... ");
        let (seen, each_its_own) = self.seen_addresses(interrupt)?;
        screen.show(&format!("{} addresses seen\n", seen.len()));

        let targets: Vec<_> = uplinks.iter().map(|uplink| uplink.endpoint(PORT)).collect();
        let download = |what: &str, targets: &[SocketAddrV4]| -> Result<Vec<f64>, DemoError> {
            screen.show(&format!("  downloads over {what} for {} s ... ", options.seconds));
            let window = Duration::from_secs(options.seconds.into());
            let rates = load::measure(&self.topology.client, &CLIENTS, targets, window, interrupt)?;
            screen.show(&format!("{:.1} Mbit/s\n", rates.iter().sum::<f64>()));
            Ok(rates)
        };
        let mut alone = Vec::new();
        for (uplink, target) in uplinks.iter().zip(&targets) {
            alone.extend(download(&format!("{} alone", uplink.name), &[*target])?);
        }
        let together = download("both uplinks", &targets)?;

        interrupt.pause(SETTLE)?;
        let frames_after = frames(uplinks)?;
        let mut capture_missed = 0;
        let statuses = self
            .boxes
            .iter()
            .map(NatBox::status)
            .collect::<Result<Vec<_>, _>>()
            .map_err(BoxError::from)?;
        let created: Vec<u64> = statuses.iter().map(|status| status.sessions.created).collect();
        let mut reports = Vec::new();
        for (number, watch) in watches.into_iter().enumerate() {
            let counts = watch.finish();
            // Frames that arrive between the reading of the counter and the end of the capture make
            // no negative count.
            capture_missed +=
                (frames_after[number] - frames_before[number]).saturating_sub(counts.frames);
            reports.push(UplinkReport {
                alone_mbit: alone[number],
                together_mbit: together[number],
                // An instance with several uplinks counts their sessions together.
                sessions: created.get(number).copied().filter(|_| created.len() == uplinks.len()),
                replies: counts.replies,
                wrong_uplink_replies: counts.wrong,
                first_wrong: counts.first_wrong,
                ..blank(&self.topology, number, &uplinks[number])
            });
        }
        let report = DemoReport {
            uplinks: reports,
            client_addresses: CLIENTS.into(),
            // The addresses that the server reported to clients, and those that it has served
            // since.
            client_addresses_seen: &seen | &self.server.peers(),
            capture_missed,
            rate_mbit: options.rate,
            seconds: options.seconds,
            together_mbit: 0.0,
            ratio: 0.0,
            wrong_uplink_replies: 0,
            client_addresses_preserved: each_its_own,
            sessions: created.iter().sum(),
            passed: false,
            problems: Vec::new(),
        };
        Ok(report.finish())
    }

    /// Asks the server from each client over each uplink for the client's address. Returns all
    /// reported addresses, and whether each client was told its own.
    fn seen_addresses(
        &self,
        interrupt: &Interrupt,
    ) -> Result<(BTreeSet<Ipv4Addr>, bool), DemoError> {
        let (mut all, mut each_its_own) = (BTreeSet::new(), true);
        for uplink in &self.topology.uplinks {
            for client in CLIENTS {
                interrupt.check()?;
                let seen =
                    load::seen_address(&self.topology.client, client, uplink.endpoint(PORT))?;
                each_its_own &= seen == client;
                all.insert(seen);
            }
        }
        Ok((all, each_its_own))
    }

    /// Keeps everything running until Enter or a signal. Both are the regular end.
    fn keep(&self, interrupt: &Interrupt, screen: &Screen) -> Result<(), DemoError> {
        let Topology { client, uplinks, servers, .. } = &self.topology;
        screen.show("\nEverything keeps running. Commands to try in another shell:\n");
        screen.show(&format!(
            "  ip netns exec {} curl http://{}/\n",
            client.name(),
            uplinks[0].endpoint(PORT)
        ));
        screen.show(&format!("  ip netns exec {} ip rule\n", servers[0].namespace.name()));
        for (uplink, started) in uplinks.iter().zip(&self.boxes) {
            screen.show(&format!("  natbox status --socket {}\n", started.socket().display()));
            screen.show(&format!("  ip netns exec {} bash\n", uplink.natbox.name()));
        }
        screen.show("Enter or Ctrl-C removes everything. ");
        let (sender, enter) = crossbeam_channel::bounded(1);
        // Never joined: the thread waits for a line that may not come, and ends with the process.
        let reader = thread::Builder::new().spawn(move || {
            // End of input is not Enter. Without a terminal only a signal ends the demo.
            if io::stdin().lock().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                let _ = sender.send(());
            } else {
                std::mem::forget(sender);
            }
        });
        reader.map_err(LabError::system("start a thread"))?;
        while interrupt.pause(KEEP_POLL).is_ok() && enter.try_recv().is_err() {}
        Ok(())
    }
}

/// Makes a report on an uplink without measurements.
fn blank(topology: &Topology, number: usize, uplink: &TopologyUplink) -> UplinkReport {
    UplinkReport {
        name: uplink.name.to_owned(),
        published: uplink.endpoint(PORT),
        server: topology.servers[0].addresses[number],
        inside: uplink.inside,
        alone_mbit: 0.0,
        together_mbit: 0.0,
        share_together: 0.0,
        sessions: None,
        replies: 0,
        wrong_uplink_replies: 0,
        first_wrong: None,
    }
}

/// Returns what an instance may send to its uplink: replies of the published web server only.
fn expected(uplink: &TopologyUplink) -> ExpectedReplies {
    ExpectedReplies {
        sender: uplink.sender,
        own: uplink.outside,
        published: uplink.published,
        ports: &[PORT],
    }
}

/// Returns the number of frames that each provider has received from its box.
fn frames(uplinks: &[TopologyUplink]) -> Result<Vec<u64>, LabError> {
    uplinks.iter().map(TopologyUplink::frames).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_from_every_layer_is_an_interruption() {
        let signal = Interrupted { number: 15 };
        for error in
            [DemoError::from(BoxError::from(signal)), LoadError::from(signal).into(), signal.into()]
        {
            assert!(matches!(error, DemoError::Interrupted(found) if found == signal), "{error}");
        }
    }
}

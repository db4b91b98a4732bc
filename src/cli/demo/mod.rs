//! `natbox demo`: one server on two lines, in network namespaces on this machine, with a measured report.
//! A scenario says with which boxes. Namespaces, servers, downloads and captures are those of [`crate::lab`].
//!
//! ```text
//! scenario    in what the scenarios differ
//! failover    an uplink that fails and comes back
//! report      the findings
//! ```
//!
//! Everything but the boxes runs in this process. The boxes are real `natbox run` processes with copies of the
//! published configuration files.

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
use crate::lab::capture::{Expected, SETTLE, UplinkCapture};
use crate::lab::interrupt::{Interrupt, Interrupted};
use crate::lab::load::{self, LoadError};
use crate::lab::topology::{CLIENTS, Topology, Uplink};
use crate::lab::{Lab, LabError, http};
use anyhow::anyhow;
use failover::Failover;
use report::{DemoReport, ScenarioReport, UplinkReport};
use scenario::{Scenario, ScenarioSpec};

use super::{Failure, warn};

/// Port of the web server, outside and inside.
const PORT: u16 = 80;

/// How often the demo looks for Enter while it is kept running.
const KEEP_POLL: Duration = Duration::from_millis(100);

/// Arguments of `natbox demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: DemoOptions,
    /// Another scenario than that of two boxes
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

/// Options of every scenario; they may stand before or behind its name.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Print the report as JSON (progress goes to standard error)
    #[arg(long, global = true)]
    pub json: bool,
    /// Rate that each line is shaped to, in Mbit/s, both directions
    #[arg(long, global = true, value_name = "MBIT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub rate: u32,
    /// Length of each of the three measurements, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Leave everything running afterwards to look around, until Enter or Ctrl-C
    #[arg(long, global = true)]
    pub keep: bool,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// The namespaces could not be built.
    #[error(transparent)]
    Lab(LabError),
    /// A box did not start or answer.
    #[error(transparent)]
    Box(BoxError),
    /// A download failed.
    #[error(transparent)]
    Load(LoadError),
    /// The report could not be printed.
    #[error("cannot print the report")]
    Output(#[source] io::Error),
    /// A signal ended it.
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

// A signal is a signal, wherever it was noticed.
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

/// Shows the demo. Exit code 0: the lines add up, no reply on the wrong line, client addresses preserved; 1: not so,
/// and the report says what; 128 and the signal's number after a signal, as shells do.
///
/// # Errors
/// The environment's for what the machine lacks or does wrong; a bug when the demo itself panicked. Nothing is left
/// behind in any case.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (options, spec) = (&arguments.options, ScenarioSpec::of(arguments.scenario));
    crate::lab::check_host().map_err(Failure::environment)?;
    let interrupt = Interrupt::listen().map_err(Failure::environment)?;
    let screen = Screen { errors: options.json, line_open: Cell::new(false) };
    // The program's own hook ends the process at once, which would leave the namespaces to the next start.
    std::panic::set_hook(Box::new(|panic| {
        warn(&format!("natbox: a bug, please report it: {panic}"))
    }));
    let outcome =
        std::panic::catch_unwind(AssertUnwindSafe(|| show(spec, options, &interrupt, &screen)));
    // The last message begins a line of its own.
    screen.end_line();
    match outcome {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(DemoError::Interrupted(signal))) => {
            warn(&format!("natbox: {signal}; everything that the demo had set up is removed"));
            Ok(ExitCode::from(128 + signal.number))
        }
        Ok(Err(error)) => Err(Failure::environment(error)),
        Err(_) => Err(Failure::bug(anyhow!("the demo panicked; what it had set up is removed"))),
    }
}

/// [`run`], up to and including the clean-up.
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
    report.add_problems(failover.iter().flat_map(Failover::problems));
    print_report(spec, &report, failover.as_ref(), options.json).map_err(DemoError::Output)?;
    if options.keep {
        stage.keep(interrupt, screen)?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print_report(
    spec: &ScenarioSpec,
    report: &DemoReport,
    failover: Option<&Failover>,
    json: bool,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (json, spec.name) {
        (true, None) => writeln!(out, "{}", serde_json::to_string_pretty(report)?),
        (true, Some(scenario)) => {
            let told =
                ScenarioReport { scenario, uplinks_count: report.uplinks.len(), failover, report };
            writeln!(out, "{}", serde_json::to_string_pretty(&told)?)
        }
        (false, _) => {
            let more =
                failover.map_or_else(String::new, |failover| format!("{}\n", failover.text()));
            write!(out, "\n{more}{}", report.text(io::stdout().is_terminal()))
        }
    }
}

/// Where progress is shown.
struct Screen {
    /// On standard error, because standard output is for a program.
    errors: bool,
    /// Whether the last text did not end its line.
    line_open: Cell<bool>,
}

impl Screen {
    /// Shows text as it is. Progress that cannot be shown is no reason to stop.
    fn show(&self, text: &str) {
        self.line_open.set(!text.ends_with('\n'));
        let _ = match self.errors {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        };
    }

    fn end_line(&self) {
        if self.line_open.get() {
            self.show("\n");
        }
    }
}

/// Everything that is set up. Fields are dropped in this order: nothing outlives what it uses.
struct Stage {
    boxes: Vec<NatBox>,
    server: http::Server,
    topology: Topology,
    /// Kept for its directory.
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
        let server = http::Server::start(listeners, None)
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

        screen.show("  every client asks for its own address over each line ... ");
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
        let together = download("both lines", &targets)?;

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
            // Frames that arrived between the counter's reading and the end of the capture make no negative miss.
            capture_missed +=
                (frames_after[number] - frames_before[number]).saturating_sub(counts.frames);
            reports.push(UplinkReport {
                alone_mbit: alone[number],
                together_mbit: together[number],
                // A box of several lines counts them together.
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
            // Both what it told each client and whom it has served since.
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

    /// What the server tells each client, over each line, about where it comes from, and whether each was told its
    /// own address.
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

    /// Leaves everything as it is until Enter or a signal, which is how this is meant to end and no failure.
    fn keep(&self, interrupt: &Interrupt, screen: &Screen) -> Result<(), DemoError> {
        let Topology { client, uplinks, servers, .. } = &self.topology;
        screen.show("\nLeft running. To look around, in another shell:\n");
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
        screen.show("Enter or Ctrl-C removes it all. ");
        let (sender, enter) = crossbeam_channel::bounded(1);
        // Never joined: it waits for a line that may not come, and ends with the process.
        let reader = thread::Builder::new().spawn(move || {
            // End of input is not Enter: with no terminal there is only the signal.
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

/// A report on a line of which nothing is measured yet.
fn blank(topology: &Topology, number: usize, uplink: &Uplink) -> UplinkReport {
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

/// What the demo's boxes may send to their line: replies from the published web server, and nothing else.
fn expected(uplink: &Uplink) -> Expected {
    Expected {
        sender: uplink.sender,
        own: uplink.outside,
        published: uplink.published,
        ports: &[PORT],
    }
}

/// Frames that the providers have received from the boxes.
fn frames(uplinks: &[Uplink]) -> Result<Vec<u64>, LabError> {
    uplinks.iter().map(Uplink::frames).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_noticed_anywhere_is_an_interruption() {
        let signal = Interrupted { number: 15 };
        for error in
            [DemoError::from(BoxError::from(signal)), LoadError::from(signal).into(), signal.into()]
        {
            assert!(matches!(error, DemoError::Interrupted(found) if found == signal), "{error}");
        }
    }
}

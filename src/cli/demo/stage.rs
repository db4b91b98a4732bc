//! The setup of a scenario, and the measurements on it.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::thread;
use std::time::Duration;

use super::error::DemoError;
use super::options::DemoOptions;
use super::report::{DemoReport, UplinkReport};
use super::scenario::ScenarioSpec;
use super::screen::Screen;
use crate::lab::boxes::{BoxError, NatBox};
use crate::lab::capture::{ExpectedReplies, SETTLE, UplinkCapture};
use crate::lab::interrupt::Interrupt;
use crate::lab::load;
use crate::lab::topology::{CLIENTS, Topology, TopologyUplink};
use crate::lab::{Lab, LabError, http};

/// Port of the web server, outside and inside.
pub(super) const PORT: u16 = 80;

/// Interval at which the demo checks for Enter while everything keeps running.
const KEEP_POLL: Duration = Duration::from_millis(100);

/// Everything that is set up. The fields are dropped in this order, so that nothing outlives what
/// it uses.
pub(super) struct Stage {
    pub(super) boxes: Vec<NatBox>,
    server: http::HttpServer,
    pub(super) topology: Topology,
    /// Keeps the directory.
    _lab: Lab,
}

/// Goodput of each uplink, in Mbit/s.
struct Goodput {
    alone: Vec<f64>,
    together: Vec<f64>,
}

impl Stage {
    /// Builds the namespaces and starts the server and the instances.
    pub(super) fn set(
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

    /// Measures all uplinks and reports.
    pub(super) fn perform(
        &self,
        options: &DemoOptions,
        interrupt: &Interrupt,
        screen: &Screen,
    ) -> Result<DemoReport, DemoError> {
        let uplinks = &self.topology.uplinks;
        let captures = uplinks
            .iter()
            .map(|uplink| UplinkCapture::start(&uplink.provider, expected(uplink)))
            .collect::<Result<Vec<_>, _>>()?;
        let frames_before = frames(uplinks)?;

        screen.show("  each client asks for its own address over each uplink ... ");
        let (seen, each_its_own) = self.seen_addresses(interrupt)?;
        screen.show(&format!("{} addresses seen\n", seen.len()));
        let goodput = self.download(options, interrupt, screen)?;

        interrupt.pause(SETTLE)?;
        let frames_after = frames(uplinks)?;
        let created = self.created_sessions()?;
        let mut capture_missed = 0;
        let mut reports = Vec::new();
        for (number, capture) in captures.into_iter().enumerate() {
            let counts = capture.finish();
            // Frames that arrive between the reading of the counter and the end of the capture make
            // no negative count.
            capture_missed +=
                (frames_after[number] - frames_before[number]).saturating_sub(counts.frames);
            reports.push(UplinkReport {
                alone_mbit: goodput.alone[number],
                together_mbit: goodput.together[number],
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

    /// Measures the goodput of each uplink alone, and of all together.
    fn download(
        &self,
        options: &DemoOptions,
        interrupt: &Interrupt,
        screen: &Screen,
    ) -> Result<Goodput, DemoError> {
        let uplinks = &self.topology.uplinks;
        let targets: Vec<_> = uplinks.iter().map(|uplink| uplink.endpoint(PORT)).collect();
        let measure = |what: &str, targets: &[SocketAddrV4]| -> Result<Vec<f64>, DemoError> {
            screen.show(&format!("  downloads over {what} for {} s ... ", options.seconds));
            let window = Duration::from_secs(options.seconds.into());
            let rates = load::measure(&self.topology.client, &CLIENTS, targets, window, interrupt)?;
            screen.show(&format!("{:.1} Mbit/s\n", rates.iter().sum::<f64>()));
            Ok(rates)
        };
        let mut alone = Vec::new();
        for (uplink, target) in uplinks.iter().zip(&targets) {
            alone.extend(measure(&format!("{} alone", uplink.name), &[*target])?);
        }
        Ok(Goodput { alone, together: measure("both uplinks", &targets)? })
    }

    /// Returns the number of sessions that each instance has created.
    fn created_sessions(&self) -> Result<Vec<u64>, DemoError> {
        let statuses = self.boxes.iter().map(NatBox::status).collect::<Result<Vec<_>, _>>();
        let statuses = statuses.map_err(BoxError::from)?;
        Ok(statuses.iter().map(|status| status.sessions.created).collect())
    }

    /// Asks the server from each client over each uplink for the client's address. Returns all
    /// reported addresses, and whether each report named the client's own.
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
    pub(super) fn keep(&self, interrupt: &Interrupt, screen: &Screen) -> Result<(), DemoError> {
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

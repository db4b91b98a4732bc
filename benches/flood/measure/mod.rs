//! Overloads a box and measures what its established sessions, new requests, memory and counters
//! show meanwhile. `benches/overload` runs it, and the namespace tests run a short form.
//!
//! ```text
//!   testbed     the namespaces, the box, the sockets
//!   scenario    the limits of the box and the packets of the flood
//!   generator   the sender of the flood
//!   flows       established sessions
//!   requests    new requests
//!   counters    the counters of devices and natbox
//!   checks      what must hold
//! ```

mod checks;
mod counters;
mod flows;
mod generator;
mod requests;
mod scenario;
mod testbed;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use checks::Check;
pub(crate) use flows::Delivery;
pub(crate) use scenario::Scenario;

use counters::{Devices, Snapshot, TunQueue};
use flows::{Download, Flows, Way};
use generator::Generator;
use requests::Requests;
use testbed::{Device, Testbed};

/// What a run needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// natbox.
    pub program: &'a Path,
    /// Duration of each flood.
    pub time: Duration,
    /// Source of the random packets.
    pub seed: u64,
}

/// The speed of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as natbox reads: the highest rate at which the queue of the TUN device loses
    /// nothing.
    Carried,
    /// As fast as one thread sends.
    Full,
}

impl Pace {
    pub(crate) const BOTH: [Self; 2] = [Self::Carried, Self::Full];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Full => "full",
        }
    }
}

/// One flood, and what was seen during it.
pub(crate) struct Phase {
    pub scenario: Scenario,
    pub pace: Pace,
    pub seen: Seen,
    pub devices: Devices,
    /// Sessions of the flood after its end.
    pub held: u64,
    before: Snapshot,
    after: Snapshot,
}

/// What was seen during a flood.
pub(crate) struct Seen {
    /// Frames of the flood that the first device took.
    pub flooded: u64,
    /// Time of the flood.
    pub took: Duration,
    pub deliveries: Vec<Delivery>,
    pub requests: Requests,
    /// Bytes of the download, or the reason why it failed.
    pub downloaded: Result<u64, String>,
    /// Largest number of sessions at one time.
    pub sessions: u32,
}

impl Phase {
    /// Returns the flow that has lost the largest share beyond the machine's own limit, with that
    /// share.
    ///
    /// At full pace the kernel's queues lose packets of the flows as they lose those of the flood.
    /// At the other pace they lose few, and each of these may be one of a flow: datagrams of a flow
    /// come in bursts where its sender waits for the processor.
    pub(crate) fn worst_beyond_machine(&self) -> (Delivery, f64) {
        let beyond = |flow: &Delivery| match self.pace {
            Pace::Full => flow.loss() - self.devices.loss(flow.way),
            Pace::Carried => {
                let lost = flow.lost().saturating_sub(self.devices.lost(flow.way));
                lost as f64 / flow.sent.max(1) as f64
            }
        };
        let flows = self.seen.deliveries.iter().map(|flow| (*flow, beyond(flow)));
        flows.max_by(|one, other| one.1.total_cmp(&other.1)).expect("there are flows")
    }

    /// Returns the larger share that the kernel's queues have lost on one of the ways.
    pub(crate) fn machine_loss(&self) -> f64 {
        self.devices.loss(Way::Inbound).max(self.devices.loss(Way::Outbound))
    }

    /// Returns the worst loss of a flow.
    pub(crate) fn loss(&self) -> f64 {
        worst(&self.seen.deliveries)
    }

    /// Returns the number of sessions that natbox has opened since its start.
    fn opened(&self) -> u64 {
        self.after.status.sessions.created
    }

    /// Returns the growth of the resident memory, in KiB.
    pub(crate) fn growth(&self) -> u64 {
        self.after.resident.saturating_sub(self.before.resident)
    }

    /// Returns the time in natbox's own code for each packet that it has read.
    pub(crate) fn time_per_packet(&self) -> Duration {
        let time = self.after.user_time.saturating_sub(self.before.user_time);
        let packets = u32::try_from(self.devices.tun.sent).unwrap_or(u32::MAX);
        time / packets.max(1)
    }

    /// Returns the packets that were dropped, by reason.
    pub(crate) fn drops(&self) -> impl Iterator<Item = (&str, u64)> {
        self.after.status.drops.keys().filter_map(|reason| {
            let count = self.after.dropped(reason) - self.before.dropped(reason);
            (count > 0).then_some((reason.as_str(), count))
        })
    }

    /// Returns everything that must hold.
    pub(crate) fn checks(&self) -> Vec<Check> {
        checks::of(self)
    }
}

/// Floods a box at each pace, after first floods that fill its table and touch its memory.
pub(crate) fn overload(
    scenario: Scenario,
    settings: Settings<'_>,
    paces: &[Pace],
) -> Result<Vec<Phase>> {
    let testbed = Testbed::new(Device::Natbox, scenario, settings.program)?;
    let run = Run::new(&testbed, scenario, settings.seed)?;
    let short = settings.time.min(WARM_UP);
    for pace in [Pace::Full, Pace::Carried] {
        run.flood(pace, short, 0)?;
        Snapshot::settled(&testbed)?;
    }
    paces.iter().map(|pace| run.phase(scenario, *pace, settings.time)).collect()
}

/// Sends the same flood through a box that only forwards. Returns the worst loss of a flow: the
/// machine's own limit.
pub(crate) fn baseline(scenario: Scenario, settings: Settings<'_>) -> Result<f64> {
    let testbed = Testbed::new(Device::Route, scenario, settings.program)?;
    let run = Run::new(&testbed, scenario, settings.seed)?;
    Ok(worst(&run.flood(Pace::Full, settings.time, 0)?.deliveries))
}

fn worst(deliveries: &[Delivery]) -> f64 {
    deliveries.iter().map(Delivery::loss).fold(0.0, f64::max)
}

/// A testbed with a flood and the flows that it must not harm.
struct Run<'a> {
    testbed: &'a Testbed,
    flows: Flows,
    generator: Generator,
}

impl<'a> Run<'a> {
    fn new(testbed: &'a Testbed, scenario: Scenario, seed: u64) -> Result<Run<'a>> {
        let packets = scenario.packets(testbed.targets(), seed);
        let generator = testbed.generator(scenario.side(), &packets)?;
        Ok(Run { testbed, flows: Flows::open(testbed)?, generator })
    }

    /// Floods the box, and looks at its counters before and after.
    fn phase(&self, scenario: Scenario, pace: Pace, time: Duration) -> Result<Phase> {
        let before = Snapshot::settled(self.testbed)?;
        let goal = if pace == Pace::Carried { scenario.least_opened() } else { 0 };
        let seen = self.flood(pace, time, goal)?;
        let after = Snapshot::settled(self.testbed)?;
        let devices = after.devices.since(&before.devices);
        let held = self.testbed.sessions_of_flood()?;
        Ok(Phase { scenario, pace, seen, devices, held, before, after })
    }

    fn flood(&self, pace: Pace, time: Duration, goal: u64) -> Result<Seen> {
        let stop = AtomicBool::new(false);
        let download = Download::open(self.testbed)?;
        let paced_by = match pace {
            Pace::Carried => Some(TunQueue::open(&self.testbed.middle)?),
            Pace::Full => None,
        };
        scope(|scope| {
            let sender = scope.spawn(|| self.flows.send(&stop));
            let requests = scope.spawn(|| requests::request(self.testbed, &stop));
            let download = scope.spawn(|| download.run(&stop));
            let generator = scope.spawn(|| self.generator.run(paced_by, &stop));
            let started = Instant::now();
            let sessions = self.watch(time, goal);
            let took = started.elapsed();
            // Relaxed: the threads need to see the flag soon, and nothing else.
            stop.store(true, Relaxed);
            let flooded = joined(generator)?;
            let sent = joined(sender)?;
            let requests = joined(requests)?;
            let downloaded = joined(download).map_err(|error| format!("{error:#}"));
            // What is on its way arrives.
            sleep(TRAIL);
            let deliveries = self.flows.collect(sent)?;
            Ok(Seen { flooded, took, deliveries, requests, downloaded, sessions: sessions? })
        })
    }

    /// Waits until the box has opened `goal` sessions since its start, but at least for `time`.
    /// Returns the largest number of sessions meanwhile.
    fn watch(&self, time: Duration, goal: u64) -> Result<u32> {
        let start = Instant::now();
        let (mut most, mut opened) = (0, 0);
        while start.elapsed() < time || opened < goal && start.elapsed() < MAX_TIME {
            if let Some(natbox) = &self.testbed.natbox {
                let sessions = natbox.status()?.sessions;
                (most, opened) = (most.max(sessions.now), sessions.created);
            }
            sleep(SAMPLE);
        }
        Ok(most)
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Longest duration of each of the first floods.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest duration of a flood that has not reached its goal.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Time between two looks at the number of sessions.
const SAMPLE: Duration = Duration::from_millis(100);
/// Time until the last datagrams have arrived.
const TRAIL: Duration = Duration::from_millis(300);

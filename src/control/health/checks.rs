//! The subsystem that probes the uplinks at the intervals of their health checks.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::{Config, Uplink};
use crate::control::subsystem::{Outcome, Subsystem};
use crate::timer::sleep_until;
use crate::uplinks::UplinkStates;

use super::monitor::UplinkMonitor;
use super::probes::{self, ProbeTarget, Prober, RawSockets};

/// Probes the uplinks that have a health check.
pub(in crate::control) struct HealthChecks {
    monitor: Rc<UplinkMonitor>,
    checks: Vec<Check>,
    /// The checks of a reload.
    changes: mpsc::UnboundedReceiver<NewChecks>,
    results: mpsc::UnboundedReceiver<ProbeResult>,
    report: mpsc::UnboundedSender<ProbeResult>,
}

/// The health check of one uplink.
struct Check {
    /// Number of the uplink.
    uplink: u8,
    /// Differs from that of every other check, so that a late result is not taken for one of a
    /// check after a reload.
    generation: u64,
    interval: Duration,
    /// Time that a probe waits for its answer.
    timeout: Duration,
    /// Start of the next round.
    next: Instant,
    targets: Rc<[ProbeTarget]>,
    prober: Rc<Prober>,
}

/// Result of one probe: the time until the answer, or the reason why there is none.
pub(in crate::control) struct ProbeResult {
    uplink: u8,
    generation: u64,
    round: u64,
    /// Index of the target.
    target: usize,
    answer: Result<Duration, String>,
}

/// The health checks after a reload.
pub(in crate::control) struct NewChecks {
    /// Numbers of the uplinks whose checks go on.
    kept: Vec<u8>,
    new: Vec<Check>,
}

impl NewChecks {
    /// Prepares the checks of `config`. Those of `before` that are the same go on. `source`: the
    /// probe address of an uplink.
    ///
    /// # Errors
    /// A socket cannot be bound, or the system's certificates cannot be read.
    pub(in crate::control) fn prepare(
        before: &Config,
        config: &Config,
        source: impl Fn(&Uplink) -> Ipv4Addr,
        raw: &RawSockets,
    ) -> io::Result<Self> {
        let is_checked = |uplink: &&Uplink| uplink.health.is_some();
        let identity = |uplink: &Uplink| (uplink.name.clone(), uplink.numbers.uplink);
        let has = |uplink: &&Uplink| {
            let mut known = before.uplinks.iter();
            known.any(|known| identity(known) == identity(uplink) && known.health == uplink.health)
        };
        let (kept, new): (Vec<&Uplink>, Vec<&Uplink>) =
            config.uplinks.iter().filter(is_checked).partition(has);
        let kept = kept.into_iter().map(|uplink| uplink.numbers.uplink).collect();
        let new = new.into_iter().filter_map(|uplink| Check::new(uplink, source(uplink), raw));
        Ok(Self { kept, new: new.collect::<Result<_, _>>()? })
    }
}

impl Check {
    /// Prepares the check of an uplink; None: the uplink has none.
    fn new(uplink: &Uplink, source: Ipv4Addr, raw: &RawSockets) -> Option<io::Result<Self>> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        let settings = uplink.health.as_ref()?;
        let number = uplink.numbers.uplink;
        let prober =
            raw.socket(number, settings).and_then(|raw| Prober::new(source, raw, settings));
        Some(prober.map(|prober| Self {
            uplink: number,
            generation: GENERATIONS.fetch_add(1, Relaxed),
            interval: settings.interval,
            timeout: (settings.interval * settings.fall).clamp(MIN_TIMEOUT, MAX_TIMEOUT),
            next: Instant::now(),
            targets: probes::targets(settings).into(),
            prober,
        }))
    }
}

impl HealthChecks {
    /// Prepares the probes. The probe addresses of `states` must be set on the host by now.
    /// `changes`: the checks of each reload.
    ///
    /// # Errors
    /// A socket cannot be bound, or the system's certificates cannot be read.
    pub(in crate::control) fn new(
        config: &Config,
        monitor: Rc<UplinkMonitor>,
        states: &UplinkStates,
        raw: &RawSockets,
        changes: mpsc::UnboundedReceiver<NewChecks>,
    ) -> io::Result<Self> {
        let mut checks = Vec::new();
        for (uplink, state) in config.uplinks.iter().zip(&states.uplinks) {
            let check = state.source.and_then(|source| Check::new(uplink, source, raw));
            checks.extend(check.transpose()?);
        }
        let (report, results) = mpsc::unbounded_channel();
        Ok(Self { monitor, checks, changes, results, report })
    }

    /// Takes the checks of a reload.
    fn replace(&mut self, NewChecks { kept, new }: NewChecks) {
        let ended = self.checks.extract_if(.., |check| !kept.contains(&check.uplink));
        ended.for_each(|check| check.prober.stop());
        self.checks.extend(new);
    }

    /// Reports whether a check that goes on has made a result.
    fn is_current(&self, result: &ProbeResult) -> bool {
        self.checks.iter().any(|check| check.generation == result.generation)
    }

    /// Begins the rounds that are due.
    fn begin_rounds(&mut self) {
        let now = Instant::now();
        for check in self.checks.iter_mut().filter(|check| check.next <= now) {
            // After a pause of the whole machine, the rounds of the pause are left out.
            check.next = (check.next + check.interval).max(now);
            let round = self.monitor.begin_round(check.uplink);
            for target in 0..check.targets.len() {
                let (prober, targets) = (Rc::clone(&check.prober), Rc::clone(&check.targets));
                let (report, timeout) = (self.report.clone(), check.timeout);
                let (uplink, generation) = (check.uplink, check.generation);
                tokio::task::spawn_local(async move {
                    let probed = &targets[target];
                    let answer = prober.probe(probed, timeout).await;
                    let answer = answer.map_err(|error| format!("{probed}: {error}"));
                    // Fails only when the instance has stopped.
                    let _ = report.send(ProbeResult { uplink, generation, round, target, answer });
                });
            }
        }
    }
}

/// Event that the health checks wait for.
pub(in crate::control) enum CheckEvent {
    /// A probe has ended.
    Result(ProbeResult),
    /// A reload has changed the checks.
    Changed(NewChecks),
    /// A round or a deadline is due.
    Due,
}

impl Subsystem for HealthChecks {
    type Event = CheckEvent;
    const NAME: &'static str = "health checks";

    async fn next(&mut self) -> Self::Event {
        let rounds = self.checks.iter().map(|check| check.next);
        let due = rounds.chain(self.monitor.deadline()).min();
        tokio::select! {
            Some(result) = self.results.recv() => CheckEvent::Result(result),
            Some(changes) = self.changes.recv() => CheckEvent::Changed(changes),
            () = sleep_until(due) => CheckEvent::Due,
        }
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {
            CheckEvent::Result(result) if self.is_current(&result) => {
                let ProbeResult { uplink, round, target, answer, .. } = result;
                self.monitor.record(uplink, round, target, answer);
            }
            CheckEvent::Result(_) => {}
            CheckEvent::Changed(changes) => self.replace(changes),
            CheckEvent::Due => {
                // The rounds first: after a pause of the whole machine, an uplink has no answers
                // because natbox sent no probes.
                self.begin_rounds();
                self.monitor.expire_deadlines();
            }
        }
        Outcome::Continue(())
    }
}

/// Bounds of a probe's timeout.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

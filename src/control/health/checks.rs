//! The subsystem that probes the uplinks at the intervals of their health checks.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Config;
use crate::control::subsystem::{Outcome, Subsystem};
use crate::timer::sleep_until;
use crate::uplinks::UplinkStates;

use super::monitor::UplinkMonitor;
use super::probes::{self, ProbeTarget, Prober, RawSockets};

/// Probes the uplinks that have a health check.
pub(in crate::control) struct HealthChecks {
    monitor: Rc<UplinkMonitor>,
    checks: Vec<Check>,
    results: mpsc::UnboundedReceiver<ProbeResult>,
    report: mpsc::UnboundedSender<ProbeResult>,
}

/// The health check of one uplink.
struct Check {
    uplink: usize,
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
    uplink: usize,
    round: u64,
    /// Index of the target.
    target: usize,
    answer: Result<Duration, String>,
}

impl HealthChecks {
    /// Prepares the probes. The probe addresses of `states` must be set on the host by now.
    ///
    /// # Errors
    /// A socket cannot be bound, or the system's certificates cannot be read.
    pub(in crate::control) fn new(
        config: &Config,
        monitor: Rc<UplinkMonitor>,
        states: &UplinkStates,
        mut raw: RawSockets,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let mut checks = Vec::new();
        for (index, (uplink, state)) in config.uplinks.iter().zip(&states.uplinks).enumerate() {
            let (Some(settings), Some(source)) = (&uplink.health, state.source) else { continue };
            checks.push(Check {
                uplink: index,
                interval: settings.interval,
                timeout: (settings.interval * settings.fall).clamp(MIN_TIMEOUT, MAX_TIMEOUT),
                next: now,
                targets: probes::targets(settings).into(),
                prober: Prober::new(source, raw.take(index), settings)?,
            });
        }
        let (report, results) = mpsc::unbounded_channel();
        Ok(Self { monitor, checks, results, report })
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
                let (report, uplink, timeout) = (self.report.clone(), check.uplink, check.timeout);
                tokio::task::spawn_local(async move {
                    let probed = &targets[target];
                    let answer = prober.probe(probed, timeout).await;
                    let answer = answer.map_err(|error| format!("{probed}: {error}"));
                    // Fails only when the instance has stopped.
                    let _ = report.send(ProbeResult { uplink, round, target, answer });
                });
            }
        }
    }
}

impl Subsystem for HealthChecks {
    /// A result; None: a round or a deadline is due.
    type Event = Option<ProbeResult>;
    const NAME: &'static str = "health checks";

    async fn next(&mut self) -> Self::Event {
        let rounds = self.checks.iter().map(|check| check.next);
        let due = rounds.chain(self.monitor.deadline()).min();
        tokio::select! {
            result = self.results.recv() => result,
            () = sleep_until(due) => None,
        }
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {
            Some(ProbeResult { uplink, round, target, answer }) => {
                self.monitor.record(uplink, round, target, answer)
            }
            None => {
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

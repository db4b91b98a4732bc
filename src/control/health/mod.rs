//! The health of the lines: probes, link states, and what they amount to.
//!
//! | file        | idea                                                          |
//! |-------------|---------------------------------------------------------------|
//! | `line.rs`   | one line as a pure state machine                              |
//! | `probes.rs` | asking one target over one line                               |
//! | `names.rs`  | names of targets, also when the host cannot look them up      |

mod names;
mod probes;
mod uplink;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Config;

pub(super) use probes::RawSockets;
pub(super) use uplink::{DownReason, UplinkEvent, UplinkHealth};

use probes::{Prober, Target};

/// All lines, in the order of the configuration; the status shows them.
pub(super) type UplinkHealths = Rc<RefCell<Vec<UplinkHealth>>>;

/// A line has turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UplinkTransition {
    /// Its number.
    pub(super) uplink: usize,
    /// How.
    pub(super) turn: UplinkEvent,
}

/// Watches all lines.
pub(super) struct Health {
    lines: UplinkHealths,
    watched: Vec<Probe>,
    findings: mpsc::UnboundedReceiver<ProbeResult>,
    report: mpsc::UnboundedSender<ProbeResult>,
    turns: VecDeque<UplinkTransition>,
    /// By uplink: what the last probe without an answer met with.
    errors: Vec<String>,
}

/// A line that is asked.
struct Probe {
    uplink: usize,
    interval: Duration,
    patience: Duration,
    next: Instant,
    targets: Rc<[Target]>,
    prober: Rc<Prober>,
}

/// What a probe found: how long the answer took, or why there is none.
struct ProbeResult {
    uplink: usize,
    round: u64,
    answer: Result<Duration, String>,
}

impl Health {
    /// Watches the lines of a configuration from now on. `own`: the box's endpoints on them, set on the host by now;
    /// `carriers`: whether their interfaces are up.
    ///
    /// # Errors
    /// A prober cannot be made.
    pub(super) fn start(
        config: &Config,
        own: &[Option<Ipv4Addr>],
        carriers: impl Iterator<Item = bool>,
        mut raw: RawSockets,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let lines = config.uplinks.iter().zip(carriers);
        let lines = lines
            .map(|(uplink, carrier)| UplinkHealth::new(uplink.health.as_ref(), carrier, now))
            .collect();
        let mut watched = Vec::new();
        for (place, (uplink, own)) in config.uplinks.iter().zip(own).enumerate() {
            let (Some(health), Some(own)) = (&uplink.health, own) else { continue };
            watched.push(Probe {
                uplink: place,
                interval: health.interval,
                patience: (health.interval * health.fall).clamp(MIN_TIMEOUT, MAX_TIMEOUT),
                next: now,
                targets: probes::targets(health).into(),
                prober: Prober::new(*own, raw.take(place), health)?,
            });
        }
        let (report, findings) = mpsc::unbounded_channel();
        let lines = Rc::new(RefCell::new(lines));
        let errors = vec![String::new(); config.uplinks.len()];
        Ok(Self { lines, watched, findings, report, turns: VecDeque::new(), errors })
    }

    /// The lines as they are.
    pub(super) fn lines(&self) -> UplinkHealths {
        Rc::clone(&self.lines)
    }

    /// Why the last probe of a line that had no answer had none; empty if all had.
    pub(super) fn last_error(&self, uplink: usize) -> &str {
        &self.errors[uplink]
    }

    /// Takes in whether packets can leave by a line.
    pub(super) fn set_carrier(&mut self, uplink: usize, carrier: bool) {
        let turn = self.lines.borrow_mut()[uplink].set_carrier(carrier, Instant::now());
        self.turns.extend(turn.map(|turn| UplinkTransition { uplink, turn }));
    }

    /// Waits for the next line to turn. May be dropped and called again. Must run in a `LocalSet`.
    pub(super) async fn next(&mut self) -> UplinkTransition {
        loop {
            if let Some(turn) = self.turns.pop_front() {
                return turn;
            }
            self.ask();
            let deadlines = self.lines.borrow().iter().filter_map(UplinkHealth::deadline).min();
            let due = self.watched.iter().map(|watched| watched.next).chain(deadlines).min();
            tokio::select! {
                finding = self.findings.recv() => self.record(finding),
                () = sleep_until(due) => {
                    // After a pause of the whole machine a line is not to blame for answers that nobody asked for.
                    self.ask();
                    self.expire_deadlines();
                }
            }
        }
    }

    /// Begins the rounds that are due.
    fn ask(&mut self) {
        let now = Instant::now();
        for watched in self.watched.iter_mut().filter(|watched| watched.next <= now) {
            // After a pause of the whole machine the rounds it missed are not made up for.
            watched.next = (watched.next + watched.interval).max(now);
            let round = self.lines.borrow_mut()[watched.uplink].begin_round(now);
            for target in 0..watched.targets.len() {
                let (prober, targets) = (Rc::clone(&watched.prober), Rc::clone(&watched.targets));
                let (report, uplink, patience) =
                    (self.report.clone(), watched.uplink, watched.patience);
                tokio::task::spawn_local(async move {
                    let answer = prober.ask(&targets[target], patience).await;
                    let answer = answer.map_err(|reason| format!("{}: {reason}", targets[target]));
                    // Fails only when the box has stopped.
                    let _ = report.send(ProbeResult { uplink, round, answer });
                });
            }
        }
    }

    fn record(&mut self, finding: Option<ProbeResult>) {
        let Some(ProbeResult { uplink, round, answer }) = finding else { return };
        let mut lines = self.lines.borrow_mut();
        let turn = match answer {
            Ok(latency) => lines[uplink].answered(round, latency, Instant::now()),
            Err(reason) => {
                tracing::debug!(uplink, reason, "no answer");
                lines[uplink].unanswered();
                self.errors[uplink] = reason;
                None
            }
        };
        self.turns.extend(turn.map(|turn| UplinkTransition { uplink, turn }));
    }

    fn expire_deadlines(&mut self) {
        let now = Instant::now();
        for (uplink, line) in self.lines.borrow_mut().iter_mut().enumerate() {
            self.turns.extend(line.tick(now).map(|turn| UplinkTransition { uplink, turn }));
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// How long an answer is waited for, at least and at most.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

//! The health of one uplink as a pure state machine: its input is the time, the results of probes
//! and the state of the link.
//!
//! ```text
//!            link not ready, or `fall` intervals without a good round,
//!            or loss or latency of the window from `fail` on
//!   healthy ──────────────────────────────────────────────────────────▶ failed
//!      ▲                                                                   │
//!      └── `rise` good rounds in a row, loss and latency up to `return`, ──┘
//!          and `hold` since the uplink answers
//! ```
//!
//! An uplink whose link is ready starts healthy. A *good* round has at least `quorum` answers. An
//! *outage* is a time of `fall` intervals without a good round.
//!
//! Invariants:
//!
//! * The lost probes of the outage by which the uplink failed leave the window, so that an uplink
//!   that was dead returns as fast as `rise` allows. All other lost probes stay in it, so that an
//!   uplink that loses packets all the time does not return.
//! * The hold begins with the first good round after an outage.
//! * While a target has answered within `fall` intervals, a failed uplink is a last resort.

use std::fmt;
use std::time::{Duration, Instant};

use super::hold::Damping;
use super::loss::Loss;
use super::rounds::{AnsweredRound, Rounds};
use crate::config::{Health, LatencyLimits, LossLimits};
use crate::uplinks::Answers;

/// The health of one uplink.
#[derive(Clone, Debug)]
pub(super) struct UplinkHealth {
    check: Option<CheckState>,
    link_ready: bool,
    /// None: healthy.
    down: Option<DownReason>,
    /// Time of the last change between healthy and failed.
    since: Instant,
}

/// The health check of an uplink.
#[derive(Clone, Debug)]
struct CheckState {
    interval: Duration,
    fall: u32,
    rise: u32,
    window: u32,
    loss: LossLimits,
    latency: Option<LatencyLimits>,
    rounds: Rounds,
    damping: Damping,
    /// Start of the last good round; at first, start of the check.
    last_good: Instant,
    /// Number of the last good round.
    last_good_round: Option<u64>,
    /// Time of the last answer: the start of its round, but at most an interval before the answer;
    /// None: no target has answered since the last tick after an outage.
    last_answer: Option<Instant>,
    /// Good rounds in a row.
    good_rounds: u32,
    /// First good round since the failure and since the last outage; None: there was none.
    answers_since: Option<Instant>,
    /// True after an outage whose rounds must leave the window.
    forgets_outage: bool,
}

/// A change of an uplink's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UplinkEvent {
    /// The uplink is healthy again.
    Up,
    /// The uplink has failed.
    Down(DownReason),
}

/// Reason why an uplink has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DownReason {
    /// The interface is down or removed, or has no address or no next hop.
    LinkNotReady,
    /// For `fall` intervals, fewer targets than `quorum` have answered.
    NoAnswer,
    /// Too many probes of the window are lost.
    Loss {
        /// Lost probes of the target that counts.
        lost: u32,
        /// Its probes that have ended.
        of: u32,
    },
    /// The median latency of the window is too long.
    Latency(Duration),
}

impl fmt::Display for DownReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkNotReady => formatter.write_str("no carrier, no address or no next hop"),
            Self::NoAnswer => formatter.write_str("no answer"),
            Self::Loss { lost, of } => write!(formatter, "loss: {lost} of {of} probes"),
            Self::Latency(latency) => {
                write!(formatter, "latency: {:.1} ms", latency.as_secs_f64() * 1000.0)
            }
        }
    }
}

impl UplinkHealth {
    /// Starts with an uplink that is healthy if its link is ready.
    pub(super) fn new(health: Option<&Health>, link_ready: bool, now: Instant) -> Self {
        let check = health.map(|health| CheckState {
            interval: health.interval,
            fall: health.fall,
            rise: health.rise,
            window: health.window,
            loss: health.loss,
            latency: health.latency,
            rounds: Rounds::new(health),
            damping: Damping::new(health.hold),
            last_good: now,
            last_good_round: None,
            last_answer: None,
            good_rounds: 0,
            answers_since: None,
            forgets_outage: !link_ready,
        });
        let down = (!link_ready).then_some(DownReason::LinkNotReady);
        Self { check, link_ready, down, since: now }
    }

    /// Returns the same uplink under another health check, or none. The check begins again. A
    /// failed uplink stays failed until the check finds it healthy.
    pub(super) fn with_settings(self, health: Option<&Health>, now: Instant) -> Self {
        let new = Self::new(health, self.link_ready, now);
        let stays_down = self.down.is_some() && (health.is_some() || !self.link_ready);
        let mut new = Self { down: self.down.filter(|_| stays_down), since: self.since, ..new };
        if let Some(check) = new.check.as_mut().filter(|_| stays_down) {
            check.forgets_outage = true;
        }
        new
    }

    /// Returns whether new sessions may use the uplink.
    pub(super) fn is_healthy(&self) -> bool {
        self.down.is_none()
    }

    /// Returns why the uplink has failed; None: it is healthy.
    pub(super) fn down(&self) -> Option<DownReason> {
        self.down
    }

    /// Returns whether packets can leave by the uplink.
    pub(super) fn link_ready(&self) -> bool {
        self.link_ready
    }

    /// Returns the median latency of the window; None: no answer yet.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.check.as_ref()?.rounds.latency()
    }

    /// Returns what the targets have answered lately. Without a health check, there are none.
    pub(super) fn answers(&self, now: Instant) -> Answers {
        match &self.check {
            Some(check) if check.last_answer.is_some() => match check.answers_well(now) {
                true => Answers::Good,
                false => Answers::Poor,
            },
            Some(_) | None => Answers::None,
        }
    }

    /// Returns the lost share of the last probes, up to the length of the window, 0 to 1. Outages
    /// count here. None: too few probes have ended.
    pub(super) fn loss(&self) -> Option<f64> {
        self.check.as_ref()?.rounds.recent_loss()
    }

    /// Returns the time at which the hold of a failed uplink ends if the uplink answers until then;
    /// None: nothing holds the uplink.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        let check = self.check.as_ref().filter(|_| self.down.is_some())?;
        let until = check.answers_since.unwrap_or(now) + check.damping.hold();
        (until > now).then_some(until)
    }

    /// Returns the time at which the uplink fails unless a good round comes before. If the uplink
    /// has failed: the time at which it is no last resort any more unless an answer comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let check = self.check.as_ref()?;
        let last = if self.is_healthy() { Some(check.last_good) } else { check.last_answer };
        Some(check.end_of_outage(last?))
    }

    /// Begins a round. Returns its number.
    pub(super) fn begin_round(&mut self, now: Instant) -> u64 {
        let Some(check) = &mut self.check else { return 0 };
        if let Some(before) = check.rounds.last_began() {
            // After a pause of the whole machine: no probe was sent, so the uplink is not at fault.
            let pause = now.saturating_duration_since(before + check.interval);
            if pause > check.interval {
                check.last_good += pause;
                check.last_answer = check.last_answer.map(|last| last + pause);
            }
        }
        check.rounds.begin(now)
    }

    /// Records that a target has answered in a round.
    pub(super) fn answered(
        &mut self,
        round: u64,
        target: usize,
        latency: Duration,
        now: Instant,
    ) -> Option<UplinkEvent> {
        let check = self.check.as_mut()?;
        let answered = check.rounds.answered(round, target, latency)?;
        if self.link_ready {
            check.record_answer(answered.began, now);
        }
        if answered.becomes_good {
            check.count_good_round(answered, self.link_ready, now);
        }
        if self.is_healthy() {
            return self.fail_by_limits(now);
        }
        let check = self.check.as_ref()?;
        let returns = answered.becomes_good && self.link_ready && check.may_return(now);
        returns.then(|| self.turn(UplinkEvent::Up, now))
    }

    /// Records that a target has not answered in a round.
    pub(super) fn unanswered(
        &mut self,
        round: u64,
        target: usize,
        now: Instant,
    ) -> Option<UplinkEvent> {
        self.check.as_mut()?.rounds.unanswered(round, target);
        if self.is_healthy() { self.fail_by_limits(now) } else { None }
    }

    /// Fails the uplink if its deadline has passed. A failed uplink is no last resort after its
    /// deadline.
    pub(super) fn tick(&mut self, now: Instant) -> Option<UplinkEvent> {
        let is_due = self.deadline().is_some_and(|deadline| now >= deadline);
        let check = self.check.as_mut()?;
        if check.last_answer.is_some_and(|last| now >= check.end_of_outage(last)) {
            check.last_answer = None;
        }
        let fails = is_due && self.is_healthy();
        fails.then(|| self.turn(UplinkEvent::Down(DownReason::NoAnswer), now))
    }

    /// Records whether packets can leave by the uplink. When the link is ready again, an uplink
    /// with a health check is healthy only after `rise` good rounds.
    pub(super) fn set_link_ready(&mut self, ready: bool, now: Instant) -> Option<UplinkEvent> {
        if std::mem::replace(&mut self.link_ready, ready) == ready {
            return None;
        }
        if let Some(check) = &mut self.check {
            check.last_answer = None;
        }
        let down = DownReason::LinkNotReady;
        if !ready && self.is_healthy() {
            return Some(self.turn(UplinkEvent::Down(down), now));
        }
        let Some(check) = &mut self.check else {
            return (ready && !self.is_healthy()).then(|| self.turn(UplinkEvent::Up, now));
        };
        check.good_rounds = 0;
        check.answers_since = None;
        check.forgets_outage = true;
        self.down = Some(if ready { DownReason::NoAnswer } else { down });
        None
    }

    /// Fails the uplink if loss or latency have reached their limits.
    fn fail_by_limits(&mut self, now: Instant) -> Option<UplinkEvent> {
        let reason = self.check.as_ref()?.excess()?;
        Some(self.turn(UplinkEvent::Down(reason), now))
    }

    fn turn(&mut self, event: UplinkEvent, now: Instant) -> UplinkEvent {
        self.down = match event {
            UplinkEvent::Up => None,
            UplinkEvent::Down(reason) => Some(reason),
        };
        if let Some(check) = &mut self.check {
            check.good_rounds = 0;
            check.answers_since = None;
            if let UplinkEvent::Down(reason) = event {
                check.damping.failed(self.since, now);
                check.forgets_outage =
                    matches!(reason, DownReason::NoAnswer | DownReason::LinkNotReady);
            }
        }
        self.since = now;
        event
    }
}

impl CheckState {
    /// Returns the time without a good round that makes an outage.
    fn outage(&self) -> Duration {
        self.interval * self.fall
    }

    /// Returns the time at which an outage that began at `last` is long enough, and the last
    /// answers are due.
    fn end_of_outage(&self, last: Instant) -> Instant {
        last + self.outage() + GRACE
    }

    /// Records an answer in a round. A slow answer counts when it comes, less an interval.
    fn record_answer(&mut self, began: Instant, now: Instant) {
        let heard = now.checked_sub(self.interval).map_or(began, |before| before.max(began));
        self.last_answer = self.last_answer.max(Some(heard));
    }

    /// Counts a good round. An answer may take longer than the interval, so a round whose answers
    /// are still missing does not break the row. A round that a later good round has overtaken
    /// does.
    fn count_good_round(&mut self, good: AnsweredRound, link_ready: bool, now: Instant) {
        let AnsweredRound { number, began, .. } = good;
        let follows_outage = began.saturating_duration_since(self.last_good) > self.outage();
        self.last_good = self.last_good.max(began);
        let last = self.last_good_round;
        if last.is_some_and(|last| last >= number) {
            return;
        }
        if self.forgets_outage && link_ready {
            self.forgets_outage = false;
            self.rounds.forget(last, number);
        }
        if follows_outage {
            self.answers_since = None;
        }
        self.answers_since.get_or_insert(now);
        let in_a_row = last.is_some_and(|last| last + 1 == number);
        self.good_rounds = if in_a_row { self.good_rounds.saturating_add(1) } else { 1 };
        self.last_good_round = Some(number);
    }

    /// Returns which limit the window has reached. A window that is not full yet counts as if the
    /// rounds to come were good.
    fn excess(&self) -> Option<DownReason> {
        // 100%: only `fall` decides.
        if let Some(Loss { lost, of }) = self.rounds.loss()
            && self.loss.fail < 100
            && lost * 100 >= self.loss.fail * self.window
        {
            return Some(DownReason::Loss { lost, of });
        }
        let is_known = self.rounds.len() * 2 >= self.window;
        let latency = self.rounds.latency().filter(|_| is_known)?;
        let is_long = self.latency.is_some_and(|limits| latency >= limits.fail);
        is_long.then_some(DownReason::Latency(latency))
    }

    /// Returns whether loss and latency are within the limits at which the uplink may return.
    fn is_within_limits(&self) -> bool {
        let may_return = |loss: Loss| loss.lost * 100 <= self.loss.r#return * loss.of;
        self.rounds.loss().is_none_or(may_return)
            && self
                .latency
                .zip(self.rounds.latency())
                .is_none_or(|(limits, now)| now <= limits.back)
    }

    /// Returns whether a failed uplink whose link is ready may return.
    fn may_return(&self, now: Instant) -> bool {
        let hold = self.damping.hold();
        self.good_rounds >= self.rise
            && self.is_within_limits()
            && self.answers_since.is_some_and(|since| now >= since + hold)
    }

    /// Returns whether only `rise` and the hold keep a failed uplink from its return.
    fn answers_well(&self, now: Instant) -> bool {
        self.answers_since.is_some()
            && now < self.end_of_outage(self.last_good)
            && self.is_within_limits()
    }
}

/// Time that the answers of the last round may take.
const GRACE: Duration = Duration::from_millis(90);

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;

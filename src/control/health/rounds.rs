//! The rounds of probes of one uplink: those that wait for answers, and the window of those that
//! have ended.
//!
//! ```text
//!   begin ─▶ waiting ─┬─ `quorum` answers ───────────────────────▶ good, with its latency ─┐
//!                     └─ too many targets without an answer ───────▶ lost ─────────────────┴▶ window
//! ```
//!
//! Rounds may end in another order than they began: a lost round ends at the timeout of its probes.
//! The loss counts single probes: see [`super::loss`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::loss::{Loss, ProbeResults};
use crate::config::Health;

/// The rounds of one uplink.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    targets: u32,
    quorum: u32,
    /// Rounds of the window.
    window: usize,
    next: u64,
    /// Start of the last round.
    last_began: Option<Instant>,
    /// Rounds with probes that wait for answers, oldest first.
    waiting: VecDeque<WaitingRound>,
    /// The rounds of the window, by number, after the same number of older rounds. An older round
    /// moves into the window when the window forgets an outage.
    ended: VecDeque<EndedRound>,
    probes: ProbeResults,
    /// Median latency of the window when the last round became good.
    latency: Option<Duration>,
}

#[derive(Clone, Debug)]
struct WaitingRound {
    number: u64,
    began: Instant,
    answers: u32,
    unanswered: u32,
    /// Whether the round is good or lost. The results of its other probes still count as loss.
    has_ended: bool,
}

#[derive(Clone, Debug)]
struct EndedRound {
    number: u64,
    /// None: the round is lost.
    latency: Option<Duration>,
}

/// A round in which a target has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnsweredRound {
    pub(super) number: u64,
    pub(super) began: Instant,
    /// Whether this answer makes the round good.
    pub(super) becomes_good: bool,
}

impl Rounds {
    pub(super) fn new(health: &Health) -> Self {
        Self {
            targets: health.targets() as u32,
            quorum: health.quorum,
            window: health.window as usize,
            next: 0,
            last_began: None,
            waiting: VecDeque::new(),
            ended: VecDeque::new(),
            probes: ProbeResults::new(health),
            latency: None,
        }
    }

    /// Begins a round. Returns its number.
    pub(super) fn begin(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.last_began = Some(now);
        self.waiting.push_back(WaitingRound {
            number,
            began: now,
            answers: 0,
            unanswered: 0,
            has_ended: false,
        });
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
        number
    }

    /// Returns the start of the last round.
    pub(super) fn last_began(&self) -> Option<Instant> {
        self.last_began
    }

    /// Records the answer of a target. Returns None if the window has forgotten the round.
    pub(super) fn answered(
        &mut self,
        number: u64,
        target: usize,
        latency: Duration,
    ) -> Option<AnsweredRound> {
        let place = self.place(number);
        self.probes.record(target, number, true, place.is_some());
        let round = &mut self.waiting[place?];
        round.answers += 1;
        let becomes_good = !round.has_ended && round.answers >= self.quorum;
        let answered = AnsweredRound { number, began: round.began, becomes_good };
        if becomes_good {
            self.end(place?, Some(latency));
            self.latency = self.median().or(self.latency);
        }
        self.remove_if_complete(place?);
        Some(answered)
    }

    /// Records a target without an answer.
    pub(super) fn unanswered(&mut self, number: u64, target: usize) {
        let place = self.place(number);
        self.probes.record(target, number, false, place.is_some());
        let Some(place) = place else { return };
        let round = &mut self.waiting[place];
        round.unanswered += 1;
        if !round.has_ended && round.unanswered > self.targets.saturating_sub(self.quorum) {
            self.end(place, None);
        }
        self.remove_if_complete(place);
    }

    /// Forgets the lost probes, and the lost and waiting rounds, between two rounds: an outage,
    /// which does not count in the window. Later results of these rounds do not count.
    pub(super) fn forget(&mut self, after: Option<u64>, before: u64) {
        let between = |number: u64| number < before && after.is_none_or(|after| number > after);
        self.waiting.retain(|round| !between(round.number));
        self.ended.retain(|round| round.latency.is_some() || !between(round.number));
        self.probes.forget(between);
    }

    /// Returns the loss of the window; None: too few targets have a result.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.probes.of_window()
    }

    /// Returns the lost share of the last probes, outages included, 0 to 1; None: too few targets
    /// have a result.
    pub(super) fn recent_loss(&self) -> Option<f64> {
        self.probes.recent().map(Loss::share)
    }

    /// Returns the number of rounds in the window, up to its length.
    pub(super) fn len(&self) -> u32 {
        self.ended.len().min(self.window) as u32
    }

    /// Returns the median latency of the window; None: no round has been good.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.iter().position(|round| round.number == number)
    }

    fn end(&mut self, place: usize, latency: Option<Duration>) {
        let round = &mut self.waiting[place];
        round.has_ended = true;
        let number = round.number;
        let later = self.ended.iter().rev().take_while(|ended| ended.number > number).count();
        let place = self.ended.len() - later;
        self.ended.insert(place, EndedRound { number, latency });
        if self.ended.len() > 2 * self.window {
            // An outage must not displace the rounds before it: the window will forget the outage.
            let lost = self.ended.iter().rev().take_while(|round| round.latency.is_none()).count();
            self.ended.remove(if lost > self.window { self.ended.len() - lost } else { 0 });
        }
    }

    fn remove_if_complete(&mut self, place: usize) {
        let round = &self.waiting[place];
        if round.answers + round.unanswered >= self.targets {
            self.waiting.remove(place);
        }
    }

    fn in_window(&self) -> impl Iterator<Item = &EndedRound> {
        self.ended.iter().rev().take(self.window)
    }

    fn median(&self) -> Option<Duration> {
        let mut latencies: Vec<Duration> =
            self.in_window().filter_map(|round| round.latency).collect();
        let middle = latencies.len() / 2;
        (!latencies.is_empty()).then(|| *latencies.select_nth_unstable(middle).1)
    }
}

/// Most rounds with waiting probes. With the shortest interval, 100 others begin during one.
const MAX_WAITING: usize = 128;

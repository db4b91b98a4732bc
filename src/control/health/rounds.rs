//! The rounds of probes of one uplink: those that wait for answers, and the window of those that
//! have ended.
//!
//! ```text
//!   begin ─▶ waiting ─┬─ `quorum` answers ───────────────────────▶ good, with its latency ─┐
//!                     └─ too many targets without an answer ───────▶ lost ─────────────────┴▶ window
//! ```
//!
//! Rounds may end in another order than they began: a lost round ends at the timeout of its probes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
    /// Rounds that wait for answers, oldest first.
    waiting: VecDeque<WaitingRound>,
    /// The rounds of the window, by number, after the same number of older rounds. An older round
    /// moves into the window when the window forgets an outage.
    ended: VecDeque<EndedRound>,
    /// The last rounds, outages included, up to the length of the window: true for a good one.
    recent: VecDeque<bool>,
    /// Median latency of the window when the last round became good.
    latency: Option<Duration>,
}

#[derive(Clone, Debug)]
struct WaitingRound {
    number: u64,
    began: Instant,
    answers: u32,
    unanswered: u32,
}

#[derive(Clone, Debug)]
struct EndedRound {
    number: u64,
    /// None: the round is lost.
    latency: Option<Duration>,
}

/// A round that has become good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoodRound {
    pub(super) number: u64,
    pub(super) began: Instant,
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
            recent: VecDeque::new(),
            latency: None,
        }
    }

    /// Begins a round. Returns its number.
    pub(super) fn begin(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.last_began = Some(now);
        self.waiting.push_back(WaitingRound { number, began: now, answers: 0, unanswered: 0 });
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
        number
    }

    /// Returns the start of the last round.
    pub(super) fn last_began(&self) -> Option<Instant> {
        self.last_began
    }

    /// Records an answer. Returns the round if this answer makes it good.
    pub(super) fn answered(&mut self, number: u64, latency: Duration) -> Option<GoodRound> {
        let place = self.place(number)?;
        let round = &mut self.waiting[place];
        round.answers += 1;
        if round.answers < self.quorum {
            return None;
        }
        let good = GoodRound { number, began: round.began };
        self.end(place, Some(latency));
        self.latency = self.median().or(self.latency);
        Some(good)
    }

    /// Records a target without an answer. Returns true if this makes the round a lost one.
    pub(super) fn unanswered(&mut self, number: u64) -> bool {
        let Some(place) = self.place(number) else { return false };
        let round = &mut self.waiting[place];
        round.unanswered += 1;
        let is_lost = round.unanswered > self.targets.saturating_sub(self.quorum);
        if is_lost {
            self.end(place, None);
        }
        is_lost
    }

    /// Forgets the lost and waiting rounds between two others: an outage, which does not count in
    /// the window. Later results of these rounds do not count.
    pub(super) fn forget(&mut self, after: Option<u64>, before: u64) {
        let between = |number: u64| number < before && after.is_none_or(|after| number > after);
        let waiting = self.waiting.len();
        self.waiting.retain(|round| !between(round.number));
        for _ in self.waiting.len()..waiting {
            self.remember(false);
        }
        self.ended.retain(|round| round.latency.is_some() || !between(round.number));
    }

    /// Returns the number of lost rounds in the window, and of all rounds in it.
    pub(super) fn lost(&self) -> (u32, u32) {
        let lost = self.in_window().filter(|round| round.latency.is_none()).count();
        (lost as u32, self.ended.len().min(self.window) as u32)
    }

    /// Returns the lost share of the last rounds, outages included, 0 to 1; None: no round has
    /// ended yet.
    pub(super) fn recent_loss(&self) -> Option<f64> {
        let lost = self.recent.iter().filter(|good| !**good).count();
        (!self.recent.is_empty()).then(|| lost as f64 / self.recent.len() as f64)
    }

    /// Returns the median latency of the window; None: no round has been good.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.iter().position(|round| round.number == number)
    }

    fn end(&mut self, place: usize, latency: Option<Duration>) {
        let Some(round) = self.waiting.remove(place) else { return };
        self.remember(latency.is_some());
        let later = self.ended.iter().rev().take_while(|ended| ended.number > round.number).count();
        let place = self.ended.len() - later;
        self.ended.insert(place, EndedRound { number: round.number, latency });
        if self.ended.len() > 2 * self.window {
            // An outage must not displace the rounds before it: the window will forget the outage.
            let lost = self.ended.iter().rev().take_while(|round| round.latency.is_none()).count();
            self.ended.remove(if lost > self.window { self.ended.len() - lost } else { 0 });
        }
    }

    fn in_window(&self) -> impl Iterator<Item = &EndedRound> {
        self.ended.iter().rev().take(self.window)
    }

    fn remember(&mut self, good: bool) {
        self.recent.push_back(good);
        if self.recent.len() > self.window {
            self.recent.pop_front();
        }
    }

    fn median(&self) -> Option<Duration> {
        let mut latencies: Vec<Duration> =
            self.in_window().filter_map(|round| round.latency).collect();
        let middle = latencies.len() / 2;
        (!latencies.is_empty()).then(|| *latencies.select_nth_unstable(middle).1)
    }
}

/// Most rounds that wait for answers. With the shortest interval, 100 others begin during one.
const MAX_WAITING: usize = 128;

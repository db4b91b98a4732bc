//! The health of one uplink as a pure state machine: its input is the time, the results of probes
//! and the state of the link.
//!
//! ```text
//!            `fall` intervals without a good round, or link not ready
//!   healthy ──────────────────────────────────────────────────────▶ failed
//!      ▲                                                               │
//!      └───────────────── `rise` good rounds in a row ◀─────────────────┘
//! ```
//!
//! An uplink whose link is ready starts healthy. A *good* round has at least `quorum` answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Health;

/// The health of one uplink.
#[derive(Debug)]
pub(super) struct UplinkHealth {
    check: Option<CheckState>,
    link_ready: bool,
    healthy: bool,
}

/// The health check of an uplink.
#[derive(Debug)]
struct CheckState {
    interval: Duration,
    fall: u32,
    rise: u32,
    quorum: u32,
    /// Last rounds, oldest first.
    rounds: VecDeque<Round>,
    next_round: u64,
    /// Start of the last good round; at first, start of the check.
    last_good: Instant,
    /// Good rounds in a row.
    good_rounds: u32,
    /// Number of the last good round.
    last_good_round: Option<u64>,
    /// Smoothed round-trip time.
    latency: Option<Duration>,
    /// For each of the last probes: true if it got an answer.
    answers: VecDeque<bool>,
}

#[derive(Debug)]
struct Round {
    number: u64,
    began: Instant,
    answers: u32,
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
}

impl UplinkHealth {
    /// Starts with an uplink that is healthy if its link is ready.
    pub(super) fn new(health: Option<&Health>, link_ready: bool, now: Instant) -> Self {
        let check = health.map(|health| CheckState {
            interval: health.interval,
            fall: health.fall,
            rise: health.rise,
            quorum: health.quorum,
            rounds: VecDeque::new(),
            next_round: 0,
            last_good: now,
            good_rounds: 0,
            last_good_round: None,
            latency: None,
            answers: VecDeque::new(),
        });
        Self { check, link_ready, healthy: link_ready }
    }

    /// Returns whether new sessions may use the uplink.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Returns whether packets can leave by the uplink.
    pub(super) fn link_ready(&self) -> bool {
        self.link_ready
    }

    /// Returns the smoothed round-trip time; None: no answer yet.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.check.as_ref()?.latency
    }

    /// Returns the lost share of the last 100 probes, 0 to 1; None: no probe has ended yet.
    pub(super) fn loss(&self) -> Option<f64> {
        let answers = &self.check.as_ref()?.answers;
        let lost = answers.iter().filter(|answered| !**answered).count();
        (!answers.is_empty()).then(|| lost as f64 / answers.len() as f64)
    }

    /// Returns the time at which the uplink fails unless a good round comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let check = self.check.as_ref().filter(|_| self.healthy)?;
        Some(check.last_good + check.interval * check.fall + GRACE)
    }

    /// Begins a round. Returns its number.
    pub(super) fn begin_round(&mut self, now: Instant) -> u64 {
        let Some(check) = &mut self.check else { return 0 };
        if let Some(before) = check.rounds.back() {
            // After a pause of the whole machine: no probe was sent, so the uplink is not at fault.
            let pause = now.saturating_duration_since(before.began + check.interval);
            if pause > check.interval {
                check.last_good += pause;
            }
        }
        let number = check.next_round;
        check.next_round += 1;
        check.rounds.push_back(Round { number, began: now, answers: 0 });
        if check.rounds.len() > MAX_ROUNDS {
            check.rounds.pop_front();
        }
        number
    }

    /// Records that a target has answered in a round.
    pub(super) fn answered(&mut self, round: u64, latency: Duration) -> Option<UplinkEvent> {
        let check = self.check.as_mut()?;
        check.record(true);
        check.latency = Some(check.latency.map_or(latency, |known| (known * 7 + latency) / 8));
        let round = check.rounds.iter_mut().find(|known| known.number == round)?;
        let number = round.number;
        round.answers += 1;
        if round.answers != check.quorum {
            return None;
        }
        check.last_good = check.last_good.max(round.began);
        check.count_good_round(number);
        let recovers = self.link_ready && !self.healthy && check.good_rounds >= check.rise;
        recovers.then(|| self.turn(UplinkEvent::Up))
    }

    /// Records that a target has not answered.
    pub(super) fn unanswered(&mut self) {
        if let Some(check) = &mut self.check {
            check.record(false);
        }
    }

    /// Fails the uplink if its deadline has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Option<UplinkEvent> {
        self.deadline()
            .is_some_and(|deadline| now >= deadline)
            .then(|| self.turn(UplinkEvent::Down(DownReason::NoAnswer)))
    }

    /// Records whether packets can leave by the uplink. When the link is ready again, an uplink
    /// with a health check is healthy only after `rise` good rounds.
    pub(super) fn set_link_ready(&mut self, ready: bool) -> Option<UplinkEvent> {
        if std::mem::replace(&mut self.link_ready, ready) == ready {
            return None;
        }
        if let Some(check) = &mut self.check {
            check.good_rounds = 0;
        }
        if !ready {
            return self.healthy.then(|| self.turn(UplinkEvent::Down(DownReason::LinkNotReady)));
        }
        (self.check.is_none() && !self.healthy).then(|| self.turn(UplinkEvent::Up))
    }

    fn turn(&mut self, event: UplinkEvent) -> UplinkEvent {
        self.healthy = event == UplinkEvent::Up;
        if let Some(check) = &mut self.check {
            check.good_rounds = 0;
        }
        event
    }
}

impl CheckState {
    /// Counts a good round. An answer may take longer than the interval, so a round whose answers
    /// are still missing does not break the row. A round that a later good round has overtaken
    /// does.
    fn count_good_round(&mut self, number: u64) {
        let in_a_row = self.last_good_round.is_some_and(|last| last + 1 == number);
        if self.last_good_round.is_none_or(|last| last < number) {
            self.good_rounds = if in_a_row { self.good_rounds.saturating_add(1) } else { 1 };
            self.last_good_round = Some(number);
        }
    }

    fn record(&mut self, answered: bool) {
        self.answers.push_back(answered);
        if self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
    }
}

/// Time that the answers of the last round may take.
const GRACE: Duration = Duration::from_millis(90);
/// Rounds that wait for answers.
const MAX_ROUNDS: usize = 64;
/// Probes from which the loss is computed.
const MAX_ANSWERS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(20);

    fn health(quorum: u32, fall: u32, rise: u32) -> Health {
        Health { ping: vec![], tcp: vec![], http: vec![], quorum, interval: SECOND, fall, rise }
    }

    /// Plays rounds of a second each. `answers`: how many targets answer at once in each round.
    /// Returns the events with their times in milliseconds.
    fn play(
        uplink: &mut UplinkHealth,
        start: Instant,
        answers: &[u32],
    ) -> Vec<(u128, UplinkEvent)> {
        let mut events = Vec::new();
        for (second, count) in answers.iter().enumerate() {
            let began = start + SECOND * second as u32;
            let round = uplink.begin_round(began);
            for _ in 0..*count {
                events.extend(uplink.answered(round, QUICK).map(|event| (began + QUICK, event)));
            }
            // The caller looks at the clock at the deadline.
            if let Some(deadline) = uplink.deadline().filter(|deadline| *deadline < began + SECOND)
            {
                events.extend(uplink.tick(deadline).map(|event| (deadline, event)));
            }
        }
        events.into_iter().map(|(when, event)| ((when - start).as_millis(), event)).collect()
    }

    #[test]
    fn an_uplink_fails_after_fall_intervals_and_recovers_after_rise_good_rounds() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        let events = play(&mut uplink, start, &[1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1]);
        assert_eq!(
            events,
            [(4090, UplinkEvent::Down(DownReason::NoAnswer)), (11_020, UplinkEvent::Up)]
        );
    }

    #[test]
    fn single_lost_rounds_do_not_fail_an_uplink() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 2, 1)), true, start);
        assert_eq!(play(&mut uplink, start, &[1, 0, 1, 0, 1, 0, 1]), []);
        assert_eq!(uplink.latency(), Some(QUICK));
    }

    #[test]
    fn a_round_is_good_with_quorum_answers() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(2, 1, 2)), true, start);
        let events = play(&mut uplink, start, &[2, 1, 1, 3, 2, 2]);
        assert_eq!(
            events,
            [(1090, UplinkEvent::Down(DownReason::NoAnswer)), (4020, UplinkEvent::Up)]
        );
    }

    #[test]
    fn answers_slower_than_the_interval_keep_an_uplink_healthy() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        for second in 0..20 {
            let began = start + SECOND * second;
            let round = uplink.begin_round(began);
            if let Some(before) = round.checked_sub(1) {
                assert_eq!(uplink.answered(before, SECOND + QUICK), None);
            }
            assert_eq!(uplink.tick(began + SECOND - QUICK), None, "second {second}");
        }
    }

    #[test]
    fn a_failed_uplink_with_answers_slower_than_the_interval_recovers() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(
            play(&mut uplink, start, &[0, 0, 0, 0]),
            [(3090, UplinkEvent::Down(DownReason::NoAnswer))]
        );
        let mut events = Vec::new();
        for second in 4..10 {
            let began = start + SECOND * second;
            let round = uplink.begin_round(began);
            // The answer to a round comes after the next round has begun. The answer to the round
            // of second 5 is lost.
            if second != 6 && second > 4 {
                events.extend(
                    uplink.answered(round - 1, SECOND + QUICK).map(|event| (second, event)),
                );
            }
        }
        assert_eq!(events, [(8, UplinkEvent::Up)], "good: 4, then 6 and 7 in a row");
    }

    #[test]
    fn a_pause_of_the_whole_machine_does_not_fail_an_uplink() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(play(&mut uplink, start, &[1, 1]), []);
        let later = start + SECOND * 60;
        uplink.begin_round(later);
        assert_eq!(uplink.tick(later + QUICK), None);
        assert_eq!(
            uplink.tick(later + SECOND * 3),
            Some(UplinkEvent::Down(DownReason::NoAnswer)),
            "after the pause, the deadline counts"
        );
    }

    #[test]
    fn an_uplink_whose_link_is_not_ready_fails_at_once_and_recovers_by_good_rounds() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(play(&mut uplink, start, &[1, 1]), []);
        let later = start + SECOND * 2;
        assert_eq!(uplink.set_link_ready(false), Some(UplinkEvent::Down(DownReason::LinkNotReady)));
        assert_eq!(uplink.set_link_ready(false), None);
        assert_eq!(
            play(&mut uplink, later, &[1, 1, 1]),
            [],
            "an answer while the link is not ready is an old one"
        );
        assert_eq!(uplink.set_link_ready(true), None);
        assert_eq!(play(&mut uplink, later + SECOND * 3, &[1, 1]), [(1020, UplinkEvent::Up)]);
    }

    #[test]
    fn an_uplink_without_a_health_check_follows_its_link() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(None, false, start);
        assert!(!uplink.is_healthy());
        assert_eq!(uplink.set_link_ready(true), Some(UplinkEvent::Up));
        assert_eq!(uplink.set_link_ready(true), None);
        assert_eq!(uplink.set_link_ready(false), Some(UplinkEvent::Down(DownReason::LinkNotReady)));
        assert_eq!((uplink.deadline(), uplink.loss()), (None, None));
    }

    #[test]
    fn the_loss_is_that_of_the_last_hundred_probes() {
        let start = Instant::now();
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        (0..100).for_each(|_| uplink.unanswered());
        let round = uplink.begin_round(start);
        for _ in 0..25 {
            uplink.answered(round, QUICK);
        }
        assert_eq!(uplink.loss(), Some(0.75));
    }
}

//! What is known of one line: a pure state machine, told the time and what the probes find.
//!
//! ```text
//!            `fall` intervals without a good round, or no carrier
//!   healthy ──────────────────────────────────────────────────────▶ failed
//!      ▲                                                               │
//!      └───────────────── `rise` good rounds in a row ◀─────────────────┘
//! ```
//!
//! A line begins healthy: nothing speaks against it yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Health;

/// One line.
#[derive(Debug)]
pub(in crate::control) struct UplinkHealth {
    check: Option<Check>,
    carrier: bool,
    healthy: bool,
    since: Instant,
}

/// How a line is asked.
#[derive(Debug)]
struct Check {
    interval: Duration,
    fall: u32,
    rise: u32,
    quorum: u32,
    /// The last ones, oldest first.
    rounds: VecDeque<Round>,
    next_round: u64,
    /// When the last good round began; at first, when the line began to be watched.
    last_good: Instant,
    /// Good rounds in a row, and the number of the last one.
    wins: u32,
    last_won: Option<u64>,
    /// Smoothed.
    latency: Option<Duration>,
    /// Whether each of the last probes was answered.
    answers: VecDeque<bool>,
}

#[derive(Debug)]
struct Round {
    number: u64,
    began: Instant,
    answers: u32,
}

/// A line has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum UplinkEvent {
    /// It is healthy again.
    Up,
    /// It has failed, for this reason.
    Down(DownReason),
}

/// Why a line has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum DownReason {
    /// Its interface is down or gone, or has no address.
    NoCarrier,
    /// Too few targets answered for too long.
    NoAnswer,
}

impl UplinkHealth {
    /// A line, watched from now on.
    pub(super) fn new(health: Option<&Health>, carrier: bool, now: Instant) -> Self {
        let check = health.map(|health| Check {
            interval: health.interval,
            fall: health.fall,
            rise: health.rise,
            quorum: health.quorum,
            rounds: VecDeque::new(),
            next_round: 0,
            last_good: now,
            wins: 0,
            last_won: None,
            latency: None,
            answers: VecDeque::new(),
        });
        Self { check, carrier, healthy: carrier, since: now }
    }

    /// Whether it may be used.
    pub(in crate::control) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether its interface is up.
    pub(in crate::control) fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// Since when it has been as it is.
    pub(in crate::control) fn since(&self) -> Instant {
        self.since
    }

    /// Smoothed time of an answer; None: there was none yet.
    pub(in crate::control) fn latency(&self) -> Option<Duration> {
        self.check.as_ref()?.latency
    }

    /// Share of the last probes, at most 100, that were not answered, 0 to 1; None: none is over yet.
    pub(in crate::control) fn loss(&self) -> Option<f64> {
        let answers = &self.check.as_ref()?.answers;
        let lost = answers.iter().filter(|answered| !**answered).count();
        (!answers.is_empty()).then(|| lost as f64 / answers.len() as f64)
    }

    /// When the line fails if nothing good comes until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let check = self.check.as_ref().filter(|_| self.healthy)?;
        Some(check.last_good + check.interval * check.fall + GRACE)
    }

    /// Begins a round; its number.
    pub(super) fn begin_round(&mut self, now: Instant) -> u64 {
        let Some(check) = &mut self.check else { return 0 };
        if let Some(before) = check.rounds.back() {
            let not_asked = now.saturating_duration_since(before.began + check.interval);
            if not_asked > check.interval {
                check.last_good += not_asked;
            }
        }
        let number = check.next_round;
        check.next_round += 1;
        check.rounds.push_back(Round { number, began: now, answers: 0 });
        if check.rounds.len() > ROUNDS {
            check.rounds.pop_front();
        }
        number
    }

    /// Takes in that a target has answered in a round.
    pub(super) fn answered(
        &mut self,
        round: u64,
        latency: Duration,
        now: Instant,
    ) -> Option<UplinkEvent> {
        let check = self.check.as_mut()?;
        check.note(true);
        check.latency = Some(check.latency.map_or(latency, |known| (known * 7 + latency) / 8));
        let round = check.rounds.iter_mut().find(|known| known.number == round)?;
        let number = round.number;
        round.answers += 1;
        if round.answers != check.quorum {
            return None;
        }
        check.last_good = check.last_good.max(round.began);
        check.count_good_round(number);
        let recovers = self.carrier && !self.healthy && check.wins >= check.rise;
        recovers.then(|| self.turn(UplinkEvent::Up, now))
    }

    /// Takes in that a target has not answered.
    pub(super) fn unanswered(&mut self) {
        if let Some(check) = &mut self.check {
            check.note(false);
        }
    }

    /// Looks at the clock.
    pub(super) fn tick(&mut self, now: Instant) -> Option<UplinkEvent> {
        self.deadline()
            .is_some_and(|deadline| now >= deadline)
            .then(|| self.turn(UplinkEvent::Down(DownReason::NoAnswer), now))
    }

    /// Takes in whether packets can leave by it. A line that is checked must prove itself afterwards.
    pub(super) fn set_carrier(&mut self, carrier: bool, now: Instant) -> Option<UplinkEvent> {
        if std::mem::replace(&mut self.carrier, carrier) == carrier {
            return None;
        }
        if let Some(check) = &mut self.check {
            check.wins = 0;
        }
        if !carrier {
            return self.healthy.then(|| self.turn(UplinkEvent::Down(DownReason::NoCarrier), now));
        }
        (self.check.is_none() && !self.healthy).then(|| self.turn(UplinkEvent::Up, now))
    }

    fn turn(&mut self, turn: UplinkEvent, now: Instant) -> UplinkEvent {
        self.healthy = turn == UplinkEvent::Up;
        self.since = now;
        if let Some(check) = &mut self.check {
            check.wins = 0;
        }
        turn
    }
}

impl Check {
    /// Takes in a good round. An answer may take longer than the rounds are apart, so one that is still under way is not lost;
    /// one that a later round has overtaken is.
    fn count_good_round(&mut self, number: u64) {
        let in_a_row = self.last_won.is_some_and(|last| last + 1 == number);
        if self.last_won.is_none_or(|last| last < number) {
            self.wins = if in_a_row { self.wins.saturating_add(1) } else { 1 };
            self.last_won = Some(number);
        }
    }

    fn note(&mut self, answered: bool) {
        self.answers.push_back(answered);
        if self.answers.len() > REMEMBERED {
            self.answers.pop_front();
        }
    }
}

/// The last round of the intervals has this long to be answered.
const GRACE: Duration = Duration::from_millis(90);
/// Rounds whose answers may still come.
const ROUNDS: usize = 64;
/// Probes that the loss is reckoned from.
const REMEMBERED: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(20);

    fn health(quorum: u32, fall: u32, rise: u32) -> Health {
        Health { ping: vec![], tcp: vec![], http: vec![], quorum, interval: SECOND, fall, rise }
    }

    /// Rounds of a second each, in which so many targets answer at once; what came of it, with the second.
    fn play(line: &mut UplinkHealth, start: Instant, answers: &[u32]) -> Vec<(u128, UplinkEvent)> {
        let mut turns = Vec::new();
        for (second, count) in answers.iter().enumerate() {
            let began = start + SECOND * second as u32;
            let round = line.begin_round(began);
            for _ in 0..*count {
                turns.extend(
                    line.answered(round, QUICK, began + QUICK).map(|turn| (began + QUICK, turn)),
                );
            }
            // The clock is looked at when the line says.
            if let Some(deadline) = line.deadline().filter(|deadline| *deadline < began + SECOND) {
                turns.extend(line.tick(deadline).map(|turn| (deadline, turn)));
            }
        }
        turns.into_iter().map(|(when, turn)| ((when - start).as_millis(), turn)).collect()
    }

    #[test]
    fn it_fails_within_the_intervals_and_a_tenth_of_a_second_and_comes_back_after_wins() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        let turns = play(&mut line, start, &[1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1]);
        assert_eq!(
            turns,
            [(4090, UplinkEvent::Down(DownReason::NoAnswer)), (11_020, UplinkEvent::Up)]
        );
    }

    #[test]
    fn single_losses_do_no_harm() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 2, 1)), true, start);
        assert_eq!(play(&mut line, start, &[1, 0, 1, 0, 1, 0, 1]), []);
        assert_eq!(line.latency(), Some(QUICK));
    }

    #[test]
    fn so_many_of_the_targets_must_answer_in_one_round() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(2, 1, 2)), true, start);
        let turns = play(&mut line, start, &[2, 1, 1, 3, 2, 2]);
        assert_eq!(
            turns,
            [(1090, UplinkEvent::Down(DownReason::NoAnswer)), (4020, UplinkEvent::Up)]
        );
    }

    #[test]
    fn answers_slower_than_the_interval_keep_a_line_up() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        for second in 0..20 {
            let began = start + SECOND * second;
            let round = line.begin_round(began);
            if let Some(before) = round.checked_sub(1) {
                assert_eq!(line.answered(before, SECOND + QUICK, began + QUICK), None);
            }
            assert_eq!(line.tick(began + SECOND - QUICK), None, "second {second}");
        }
    }

    #[test]
    fn a_failed_line_with_answers_slower_than_the_interval_comes_back() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(
            play(&mut line, start, &[0, 0, 0, 0]),
            [(3090, UplinkEvent::Down(DownReason::NoAnswer))]
        );
        let mut turns = Vec::new();
        for second in 4..10 {
            let began = start + SECOND * second;
            let round = line.begin_round(began);
            // The answer to the round before comes after this one has begun; the one of second 5 is lost.
            if second != 6 && second > 4 {
                let when = began + QUICK;
                turns.extend(
                    line.answered(round - 1, SECOND + QUICK, when).map(|turn| (second, turn)),
                );
            }
        }
        assert_eq!(turns, [(8, UplinkEvent::Up)], "won: 4, then 6 and 7 in a row");
    }

    #[test]
    fn a_pause_of_the_whole_machine_is_not_the_fault_of_a_line() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(play(&mut line, start, &[1, 1]), []);
        let later = start + SECOND * 60;
        line.begin_round(later);
        assert_eq!(line.tick(later + QUICK), None);
        assert_eq!(
            line.tick(later + SECOND * 3),
            Some(UplinkEvent::Down(DownReason::NoAnswer)),
            "and from then on it is"
        );
    }

    #[test]
    fn without_carrier_it_fails_at_once_and_must_prove_itself_again() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 2)), true, start);
        assert_eq!(play(&mut line, start, &[1, 1]), []);
        let later = start + SECOND * 2;
        assert_eq!(line.set_carrier(false, later), Some(UplinkEvent::Down(DownReason::NoCarrier)));
        assert_eq!(line.set_carrier(false, later), None);
        assert_eq!(
            play(&mut line, later, &[1, 1, 1]),
            [],
            "an answer without a carrier is an old one"
        );
        assert_eq!(line.set_carrier(true, later + SECOND * 3), None);
        assert_eq!(play(&mut line, later + SECOND * 3, &[1, 1]), [(1020, UplinkEvent::Up)]);
    }

    #[test]
    fn an_unchecked_line_follows_its_interface() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(None, false, start);
        assert!(!line.is_healthy());
        assert_eq!(line.set_carrier(true, start), Some(UplinkEvent::Up));
        assert_eq!(line.set_carrier(true, start), None);
        assert_eq!(line.set_carrier(false, start), Some(UplinkEvent::Down(DownReason::NoCarrier)));
        assert_eq!((line.deadline(), line.loss()), (None, None));
    }

    #[test]
    fn the_loss_is_that_of_the_last_hundred() {
        let start = Instant::now();
        let mut line = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        (0..100).for_each(|_| line.unanswered());
        let round = line.begin_round(start);
        for _ in 0..25 {
            line.answered(round, QUICK, start);
        }
        assert_eq!(line.loss(), Some(0.75));
    }
}

//! An uplink with the default limits under traces of loss: it fails in time, and it does not flap.

use proptest::prelude::*;

use super::*;
use crate::config::HoldTimes;

const QUICK: Duration = Duration::from_millis(20);

/// Round, target, and whether the target answered.
type ProbeResult = (u64, usize, bool);

/// Plays a trace of rounds at their intervals: true is an answer, false none within `fall`
/// intervals. Returns the changes with their times in milliseconds.
fn play(health: &Health, trace: impl IntoIterator<Item = bool>) -> Vec<(u128, UplinkEvent)> {
    play_targets(health, &trace.into_iter().map(|answered| vec![answered]).collect::<Vec<_>>())
}

/// Plays a trace with the answers of all targets.
fn play_targets(health: &Health, trace: &[Vec<bool>]) -> Vec<(u128, UplinkEvent)> {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(health), true, start);
    let timeout = health.interval * health.fall;
    // Results that are still to come, with their times.
    let mut results: Vec<(Instant, ProbeResult)> = Vec::new();
    let mut changes = Vec::new();
    for (index, answers) in trace.iter().enumerate() {
        let began = start + health.interval * index as u32;
        let mut happened: Vec<(Instant, Option<ProbeResult>)> = Vec::new();
        results.retain(|&(at, result)| {
            let is_due = at <= began;
            if is_due {
                happened.push((at, Some(result)));
            }
            !is_due
        });
        happened.extend(uplink.deadline().filter(|at| *at <= began).map(|at| (at, None)));
        happened.sort_by_key(|(at, _)| *at);
        for (at, what) in happened {
            let change = match what {
                Some((round, target, true)) => uplink.answered(round, target, QUICK, at),
                Some((round, target, false)) => uplink.unanswered(round, target, at),
                None => uplink.tick(at),
            };
            changes.extend(change.map(|change| ((at - start).as_millis(), change)));
        }
        let round = uplink.begin_round(began);
        results.extend(answers.iter().enumerate().map(|(target, &answered)| {
            (began + if answered { QUICK } else { timeout }, (round, target, answered))
        }));
    }
    changes
}

fn failures(changes: &[(u128, UplinkEvent)]) -> usize {
    changes.iter().filter(|(_, change)| *change != UplinkEvent::Up).count()
}

/// Returns a trace with this share of loss.
fn random(rounds: usize, percent: u32, seed: u64) -> Vec<bool> {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    (0..rounds).map(|_| random.random_range(0..100) >= percent).collect()
}

fn usual() -> Health {
    Health::of_pings(1)
}

#[test]
fn a_dead_uplink_fails_once_in_time_and_returns_at_once() {
    let trace = [[true; 50], [false; 50], [true; 50]].concat();
    let down = UplinkEvent::Down(DownReason::NoAnswer);
    assert_eq!(play(&usual(), trace), [(52_090, down), (102_020, UplinkEvent::Up)]);
    assert_eq!(play(&usual(), [false; 200]), [(3090, down)]);
    assert_eq!(play(&usual(), [true; 200]), []);
}

/// Half of the packets are lost: as on an uplink that failed 4 times in 150 rounds.
#[test]
fn an_uplink_that_loses_half_of_its_rounds_fails_and_stays_out() {
    let mut returned = 0;
    for seed in 0..1000 {
        let changes = play(&usual(), random(150, 50, seed));
        assert!((1..=2).contains(&failures(&changes)), "seed {seed}: {changes:?}");
        returned += usize::from(changes.len() > 1);
    }
    // Only an uplink whose first rounds are good by chance returns, and only once.
    assert!(returned < 60, "{returned} of 1000");
}

/// Rounds of three targets are seldom lost, but half of the packets are.
#[test]
fn an_uplink_that_loses_half_of_its_packets_fails_whatever_the_number_of_targets() {
    for targets in [2, 3, 5] {
        let (mut in_time, mut returned) = (0, 0);
        for seed in 0..200 {
            let answers = random(150 * targets, 50, seed);
            let trace: Vec<_> = answers.chunks(targets).map(<[bool]>::to_vec).collect();
            let changes = play_targets(&Health::of_pings(targets as u32), &trace);
            in_time += usize::from(changes.first().is_some_and(|(at, _)| *at < 60_000));
            returned += usize::from(changes.len() > 1);
        }
        assert!(in_time > 180 && returned < 12, "{targets}: {in_time}, {returned} of 200");
    }
}

#[test]
fn loss_of_one_target_does_not_fail_an_uplink() {
    for seed in 0..200 {
        let lossy = random(150, 60, seed);
        let trace: Vec<_> = lossy.iter().map(|answered| vec![*answered, true]).collect();
        assert_eq!(play_targets(&Health::of_pings(2), &trace), [], "seed {seed}");
    }
}

#[test]
fn loss_that_packets_survive_does_not_fail_an_uplink() {
    for (percent, most) in [(0, 0), (5, 25), (10, 200)] {
        let failed =
            (0..1000).filter(|seed| !play(&usual(), random(150, percent, *seed)).is_empty());
        let failed = failed.count();
        assert!(failed <= most, "{percent} %: {failed} of 1000");
    }
}

#[test]
fn every_steady_loss_changes_an_uplink_a_few_times_in_an_hour() {
    for percent in [20, 30, 40, 50, 60, 80, 90, 100] {
        for seed in 0..20 {
            let changes = play(&usual(), random(3600, percent, seed));
            let most = if percent < 40 { 18 } else { 3 };
            assert!(failures(&changes) <= most, "{percent} %, seed {seed}: {changes:?}");
            assert!(percent < 40 || failures(&changes) >= 1, "{percent} %, seed {seed}");
        }
    }
}

proptest! {
    /// The hold bounds the changes of any trace: 0, 10, 20, 40, 80, 160, then 300 s at a time.
    #[test]
    fn no_trace_makes_an_uplink_flap(
        runs in prop::collection::vec((any::<bool>(), 1..40usize), 1..120),
    ) {
        let trace: Vec<bool> = runs
            .iter()
            .flat_map(|(answers, rounds)| std::iter::repeat_n(*answers, *rounds))
            .take(1200)
            .collect();
        let changes = play(&usual(), trace);
        prop_assert!(failures(&changes) <= 10, "{changes:?}");
        let alternates = changes.windows(2).all(|pair| {
            (pair[0].1 == UplinkEvent::Up) != (pair[1].1 == UplinkEvent::Up)
        });
        prop_assert!(alternates, "{changes:?}");
    }

    /// Without limits and without a hold, an uplink fails and returns by `fall` and `rise` alone.
    #[test]
    fn without_limits_only_fall_and_rise_decide(
        trace in prop::collection::vec(any::<bool>(), 1..200),
        fall in 1..5u32,
        rise in 1..5u32,
    ) {
        let health = Health {
            fall,
            rise,
            loss: LossLimits { fail: 100, r#return: 99 },
            hold: HoldTimes { max: Duration::ZERO, ..HoldTimes::default() },
            ..usual()
        };
        let changes = play(&health, trace.clone());
        prop_assert_eq!(changes, by_fall_and_rise(&trace, fall, rise));
    }
}

/// The naive model: runs of good rounds, and times since the last one.
fn by_fall_and_rise(trace: &[bool], fall: u32, rise: u32) -> Vec<(u128, UplinkEvent)> {
    let (mut is_up, mut last_good, mut row) = (true, 0_u128, 0);
    let mut changes = Vec::new();
    let end = (trace.len() as u128 - 1) * 1000;
    for (index, answered) in trace.iter().enumerate() {
        let began = index as u128 * 1000;
        let deadline = last_good + u128::from(fall) * 1000 + 90;
        if is_up && deadline <= began {
            (is_up, row) = (false, 0);
            changes.push((deadline, UplinkEvent::Down(DownReason::NoAnswer)));
        }
        if *answered {
            (row, last_good) = (row + 1, began);
            if !is_up && row >= rise {
                (is_up, row) = (true, 0);
                changes.push((began + 20, UplinkEvent::Up));
            }
        } else {
            row = 0;
        }
    }
    // The trace ends before the last answer.
    changes.retain(|(at, _)| *at <= end);
    changes
}

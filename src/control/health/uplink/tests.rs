//! The state machine of an uplink, round by round.

use super::*;
use crate::config::HoldTimes;

const SECOND: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(20);

/// A check of three targets. Nothing holds the uplink.
fn health(quorum: u32, fall: u32, rise: u32) -> Health {
    let hold = HoldTimes { max: Duration::ZERO, ..HoldTimes::default() };
    Health { quorum, fall, rise, hold, ..Health::of_pings(3) }
}

/// Plays as [`play`] does. In each round all targets answer, or none does.
fn play_lossy(
    uplink: &mut UplinkHealth,
    start: Instant,
    answers: &[bool],
    latency: Duration,
) -> Vec<(u64, UplinkEvent)> {
    let mut events = Vec::new();
    for (second, answers) in answers.iter().enumerate() {
        let began = start + SECOND * second as u32;
        let round = uplink.begin_round(began);
        let end = began + latency;
        for target in 0..3 {
            let event = match answers {
                true => uplink.answered(round, target, latency, end),
                false => uplink.unanswered(round, target, end),
            };
            events.extend(event.map(|event| (second as u64, event)));
        }
        events.extend(uplink.tick(began + SECOND).map(|event| (second as u64 + 1, event)));
    }
    events
}

/// Plays rounds of a second each. `answers`: how many targets answer at once in each round.
/// Returns the events with their times in milliseconds.
fn play(uplink: &mut UplinkHealth, start: Instant, answers: &[u32]) -> Vec<(u128, UplinkEvent)> {
    let mut events = Vec::new();
    for (second, count) in answers.iter().enumerate() {
        let began = start + SECOND * second as u32;
        let round = uplink.begin_round(began);
        for target in 0..*count {
            let event = uplink.answered(round, target as usize, QUICK, began + QUICK);
            events.extend(event.map(|event| (began + QUICK, event)));
        }
        // The caller looks at the clock at the deadline.
        if let Some(deadline) = uplink.deadline().filter(|deadline| *deadline < began + SECOND) {
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
    assert_eq!(events, [(1090, UplinkEvent::Down(DownReason::NoAnswer)), (4020, UplinkEvent::Up)]);
}

#[test]
fn answers_slower_than_the_interval_keep_an_uplink_healthy() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
    for second in 0..20 {
        let began = start + SECOND * second;
        let round = uplink.begin_round(began);
        if let Some(before) = round.checked_sub(1) {
            assert_eq!(uplink.answered(before, 0, SECOND + QUICK, began + QUICK), None);
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
            let event = uplink.answered(round - 1, 0, SECOND + QUICK, began + QUICK);
            events.extend(event.map(|event| (second, event)));
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
    assert_eq!(
        uplink.set_link_ready(false, later),
        Some(UplinkEvent::Down(DownReason::LinkNotReady))
    );
    assert_eq!(uplink.set_link_ready(false, later), None);
    assert_eq!(
        play(&mut uplink, later, &[1, 1, 1]),
        [],
        "an answer while the link is not ready is an old one"
    );
    assert_eq!(uplink.set_link_ready(true, later), None);
    assert_eq!(play(&mut uplink, later + SECOND * 3, &[1, 1]), [(1020, UplinkEvent::Up)]);
}

#[test]
fn an_uplink_without_a_health_check_follows_its_link() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(None, false, start);
    assert!(!uplink.is_healthy());
    assert_eq!(uplink.set_link_ready(true, start), Some(UplinkEvent::Up));
    assert_eq!(uplink.set_link_ready(true, start), None);
    assert_eq!(
        uplink.set_link_ready(false, start),
        Some(UplinkEvent::Down(DownReason::LinkNotReady))
    );
    assert_eq!((uplink.deadline(), uplink.loss()), (None, None));
}

#[test]
fn loss_and_latency_are_those_of_the_window() {
    let start = Instant::now();
    let health = Health { window: 4, ..health(1, 9, 1) };
    let mut uplink = UplinkHealth::new(Some(&health), true, start);
    assert_eq!((uplink.loss(), uplink.latency()), (None, None));
    play_lossy(&mut uplink, start, &[true, true, true, false], QUICK);
    assert_eq!((uplink.loss(), uplink.latency()), (Some(0.25), Some(QUICK)));
    play_lossy(&mut uplink, start + SECOND * 4, &[true; 2], 10 * QUICK);
    assert_eq!(uplink.latency(), Some(10 * QUICK), "the median of 20, 200 and 200");
    play_lossy(&mut uplink, start + SECOND * 6, &[true; 2], QUICK);
    assert_eq!((uplink.loss(), uplink.latency()), (Some(0.0), Some(10 * QUICK)));
}

#[test]
fn a_dead_target_beside_one_that_answers_is_no_loss() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
    for second in 0..100 {
        let began = start + SECOND * second;
        let round = uplink.begin_round(began);
        assert_eq!(uplink.answered(round, 0, QUICK, began + QUICK), None);
        assert_eq!(uplink.unanswered(round, 1, began + SECOND), None);
    }
    assert_eq!(uplink.loss(), Some(0.0));
}

/// In every round one target answers, and each target loses two of three probes.
#[test]
fn an_uplink_without_a_lost_round_fails_by_the_loss_of_its_probes() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
    let mut events = Vec::new();
    for second in 0..30 {
        let began = start + SECOND * second;
        let round = uplink.begin_round(began);
        for target in 0..3 {
            let event = match second % 3 == target {
                true => uplink.answered(round, target as usize, QUICK, began + QUICK),
                false => uplink.unanswered(round, target as usize, began + QUICK),
            };
            events.extend(event.map(|event| (second, event)));
        }
        assert_eq!(uplink.tick(began + SECOND), None);
    }
    assert_eq!(events, [(17, UplinkEvent::Down(DownReason::Loss { lost: 12, of: 18 }))]);
    assert_eq!(uplink.loss(), Some(2.0 / 3.0));
}

#[test]
fn a_failed_uplink_is_a_last_resort_while_a_target_answers() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(2, 3, 3)), true, start);
    assert_eq!(play(&mut uplink, start, &[0, 0, 0, 0]).len(), 1);
    assert_eq!(uplink.answers(start + SECOND * 4), Answers::None);
    let again = start + SECOND * 4;
    play(&mut uplink, again, &[1]);
    assert_eq!(uplink.answers(again), Answers::Poor, "one answer of two");
    play(&mut uplink, again + SECOND, &[2]);
    assert_eq!(uplink.answers(again + SECOND), Answers::Good, "one of three good rounds");
    assert_eq!(play(&mut uplink, again + SECOND * 2, &[1, 1, 1, 1]), []);
    let end = again + SECOND * 6;
    assert_eq!(uplink.answers(end), Answers::Poor, "three rounds without a quorum");
    play(&mut uplink, end, &[0, 0, 0, 0]);
    assert_eq!(uplink.answers(end + SECOND * 4), Answers::None, "no answer for three intervals");
    assert_eq!(uplink.deadline(), None, "nothing is due");

    // Loss, and then no link.
    let mut uplink = UplinkHealth::new(Some(&health(1, 9, 3)), true, start);
    assert_eq!(play_lossy(&mut uplink, start, &[true, false].repeat(12), QUICK).len(), 1);
    let now = start + SECOND * 24;
    play(&mut uplink, now, &[1]);
    assert_eq!(uplink.answers(now), Answers::Poor);
    uplink.set_link_ready(false, now);
    assert_eq!(uplink.answers(now), Answers::None);
    play(&mut uplink, now, &[1]);
    assert_eq!(uplink.answers(now), Answers::None, "an old answer");
    uplink.set_link_ready(true, now);
    assert_eq!(uplink.answers(now), Answers::None);
}

#[test]
fn an_uplink_fails_by_loss_and_returns_when_the_loss_is_small() {
    let start = Instant::now();
    let lossy = |rounds: usize| (0..rounds).map(|round| round % 2 == 0).collect::<Vec<_>>();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
    let events = play_lossy(&mut uplink, start, &lossy(60), QUICK);
    let down = DownReason::Loss { lost: 12, of: 24 };
    assert_eq!(events, [(23, UplinkEvent::Down(down))], "40 % of 30 rounds, and then it stays out");
    assert_eq!((uplink.down(), down.to_string().as_str()), (Some(down), "loss: 12 of 24 probes"));
    // 15 of the window are lost. Up to 3 may be left.
    let events = play_lossy(&mut uplink, start + SECOND * 60, &[true; 60], QUICK);
    assert_eq!(events, [(23, UplinkEvent::Up)]);
    let mut never = UplinkHealth::new(
        Some(&Health { loss: LossLimits { fail: 100, r#return: 99 }, ..health(1, 3, 3) }),
        true,
        start,
    );
    assert_eq!(play_lossy(&mut never, start, &lossy(200), QUICK), []);
}

#[test]
fn an_outage_does_not_delay_the_return_and_loss_before_it_does() {
    let start = Instant::now();
    let after = |before: &[bool], outage: usize| {
        let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
        let mut answers = before.to_vec();
        answers.extend(std::iter::repeat_n(false, outage));
        assert_eq!(play_lossy(&mut uplink, start, &answers, QUICK).len(), 1);
        let back = start + SECOND * answers.len() as u32;
        play_lossy(&mut uplink, back, &[true; 60], QUICK)
    };
    for outage in [4, 10, 100] {
        assert_eq!(after(&[true; 20], outage), [(2, UplinkEvent::Up)], "{outage} rounds");
        assert_eq!(after(&[], outage), [(2, UplinkEvent::Up)], "dead from the start");
        let lossy = [true, false].repeat(8);
        let [(second, UplinkEvent::Up)] = after(&lossy, outage)[..] else { panic!() };
        assert!(second > 20, "{second}");
    }
}

#[test]
fn an_uplink_fails_by_latency_and_returns_when_the_latency_is_short() {
    let start = Instant::now();
    let latency = Some(LatencyLimits { fail: 10 * QUICK, back: 5 * QUICK });
    let mut uplink = UplinkHealth::new(Some(&Health { latency, ..health(1, 3, 3) }), true, start);
    let mut now = start;
    let mut play = |latency: Duration, rounds: usize| {
        let events = play_lossy(&mut uplink, now, &vec![true; rounds], latency);
        now += SECOND * rounds as u32;
        events
    };
    assert_eq!(play(9 * QUICK, 60), []);
    // One slow answer is none.
    assert_eq!(play(40 * QUICK, 5), []);
    assert_eq!(play(QUICK, 40), []);
    let down = UplinkEvent::Down(DownReason::Latency(11 * QUICK));
    assert_eq!(play(11 * QUICK, 60), [(14, down)], "the median of 30");
    assert_eq!(play(6 * QUICK, 60), [], "between the limits nothing changes");
    assert_eq!(play(4 * QUICK, 60), [(15, UplinkEvent::Up)]);
}

#[test]
fn the_second_return_is_held_and_an_outage_begins_the_hold_anew() {
    let start = Instant::now();
    let loss = LossLimits { fail: 100, r#return: 99 };
    let held = Health { hold: HoldTimes::default(), loss, ..health(1, 3, 3) };
    let mut uplink = UplinkHealth::new(Some(&held), true, start);
    let mut now = start;
    let mut play = |answers: &[bool]| {
        let events = play_lossy(&mut uplink, now, answers, QUICK);
        now += SECOND * answers.len() as u32;
        let held = uplink.held_until(now).map(|until| (until - now).as_secs_f64().round());
        (events.iter().map(|(second, _)| *second).collect::<Vec<_>>(), held)
    };
    assert_eq!(play(&[&[false; 5][..], &[true; 5]].concat()), (vec![4, 7], None));
    assert_eq!(play(&[false; 5]), (vec![3], Some(10.0)));
    assert_eq!(play(&[true; 4]), (vec![], Some(6.0)));
    assert_eq!(play(&[false; 4]), (vec![], Some(2.0)), "an outage shows with the next answer");
    assert_eq!(play(&[true; 4]), (vec![], Some(6.0)));
    assert_eq!(play(&[true; 30]).0, [6]);
}

#[test]
fn a_failed_uplink_says_why() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 3)), true, start);
    assert_eq!(uplink.down(), None);
    uplink.set_link_ready(false, start);
    assert_eq!(uplink.down(), Some(DownReason::LinkNotReady));
    uplink.set_link_ready(true, start);
    assert_eq!(uplink.down(), Some(DownReason::NoAnswer), "the link is ready, no answer yet");
    let unlinked = UplinkHealth::new(None, false, start).down();
    assert_eq!(unlinked, Some(DownReason::LinkNotReady));
}

#[test]
fn a_changed_check_begins_again_and_a_failed_uplink_stays_failed_until_it_succeeds() {
    let start = Instant::now();
    let mut uplink = UplinkHealth::new(Some(&health(1, 3, 1)), true, start);
    play(&mut uplink, start, &[1, 0, 0, 0, 0, 0]);
    assert!(!uplink.is_healthy());
    let changed = start + 10 * SECOND;
    let mut uplink = uplink.with_settings(Some(&health(1, 5, 2)), changed);
    assert!(!uplink.is_healthy());
    let events = play(&mut uplink, changed, &[0, 1, 1]);
    assert_eq!(events, [(2020, UplinkEvent::Up)], "the rounds before the change do not count");
    let mut uplink = uplink.with_settings(Some(&health(1, 2, 1)), changed + 10 * SECOND);
    assert!(uplink.is_healthy(), "it has just begun");
    assert_eq!(play(&mut uplink, changed + 10 * SECOND, &[0, 0, 0, 0]).len(), 1);
    let uplink = uplink.with_settings(None, changed + 20 * SECOND);
    assert!(uplink.is_healthy(), "without a check only the link counts");
}

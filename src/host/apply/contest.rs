//! How often natbox sets a setting again that another program removes.
//!
//! natbox answers the first [`FREE`] removals in a row at once. Before each further answer natbox
//! waits, twice as long each time. A setting that stays for [`FORGET`] counts as undisputed again.

use std::time::{Duration, Instant};

use crate::host::model::step::Step;

/// Number of times that natbox sets a setting again at once.
const FREE: u32 = 5;
/// First pause before a setting is set again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Time after which natbox forgets removals.
const FORGET: Duration = Duration::from_secs(60);

/// The settings that natbox has set again.
#[derive(Debug, Default)]
pub(super) struct Contest {
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    step: Step,
    /// Times that natbox has set the setting again.
    times: u32,
    last: Instant,
}

impl Record {
    fn pause(&self) -> Duration {
        match self.times.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(exponent) => FIRST_PAUSE.saturating_mul(1 << exponent.min(16)).min(LONGEST_PAUSE),
        }
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.last) < FORGET.max(2 * self.pause())
    }
}

impl Contest {
    /// Returns true when a missing setting may be set again now. A setting on which the host's own
    /// reachability depends never waits.
    pub(super) fn allows(&self, step: &Step, now: Instant) -> bool {
        let record = self.records.iter().find(|record| record.step == *step);
        step.keeps_host_reachable()
            || record.is_none_or(|record| now.duration_since(record.last) >= record.pause())
    }

    /// Records that a setting was set again. Returns true when the setting is disputed.
    pub(super) fn record(&mut self, step: &Step, now: Instant) -> bool {
        self.records.retain(|record| record.is_recent(now));
        match self.records.iter_mut().find(|record| record.step == *step) {
            Some(record) => {
                record.times = record.times.saturating_add(1);
                record.last = now;
                record.times >= FREE
            }
            None => {
                self.records.push(Record { step: step.clone(), times: 1, last: now });
                false
            }
        }
    }

    /// Lists the settings that another program has removed again and again, with the number of
    /// removals.
    pub(super) fn disputed(&self, now: Instant) -> impl Iterator<Item = (&Step, u32)> {
        let disputed = move |record: &&Record| record.times >= FREE && record.is_recent(now);
        self.records.iter().filter(disputed).map(|record| (&record.step, record.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::model::step::{Rule, RuleAction};

    fn rule() -> Step {
        Step::Rule(Rule::new(1000, RuleAction::Lookup(7100)))
    }

    #[test]
    fn pauses_grow_with_each_removal_up_to_a_minute() {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let start = now;
            while !contest.allows(&rule(), now) {
                now += Duration::from_secs(1);
            }
            pauses.push(now.duration_since(start).as_secs());
            contest.record(&rule(), now);
        }
        assert_eq!(pauses, [0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(contest.disputed(now).count(), 1);
    }

    #[test]
    fn a_setting_that_stays_is_undisputed_again() {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        let disputed: Vec<bool> = (0..6).map(|_| contest.record(&rule(), now)).collect();
        assert_eq!(disputed, [false, false, false, false, true, true]);
        now += FORGET;
        assert_eq!(contest.disputed(now).count(), 0);
        assert!(!contest.record(&rule(), now));
        assert!(contest.allows(&rule(), now));
    }

    #[test]
    fn the_hosts_own_rules_never_wait() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        (0..9).for_each(|_| _ = contest.record(&Step::SetLocalRuleAside, now));
        assert!(contest.allows(&Step::SetLocalRuleAside, now));
        (0..9).for_each(|_| _ = contest.record(&rule(), now));
        assert!(!contest.allows(&rule(), now));
    }
}

//! How often natbox sets a setting again that another program removes.
//!
//! A setting is disputed when another program has removed it [`DISPUTED`] times within
//! [`MEMORY`], until it has stayed for as long. The memory is longer than the interval of most
//! timers, so that natbox notices a program which runs once in a few minutes.
//!
//! natbox answers the first [`FREE`] removals in a row at once. Before each further answer natbox
//! waits, twice as long each time. If a setting stays for [`ROW_ENDS`], the next removal begins a
//! new row.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::step::{RouteKind, Step};

/// Number of removals that make a dispute.
const DISPUTED: usize = 3;
/// Time for which natbox remembers a removal.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Number of times that natbox sets a setting again at once.
const FREE: u32 = 5;
/// First pause before a setting is set again.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Longest pause.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Time without a removal after which natbox answers at once again.
const ROW_ENDS: Duration = Duration::from_secs(60);

/// Something that natbox keeps as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A step is in place.
    Step(Step),
    /// A table of natbox has no route of another program.
    Table(u32),
    /// The TUN has its name of the configuration.
    TunName(String),
}

impl Setting {
    fn keeps_host_reachable(&self) -> bool {
        match self {
            // The host's replies leave by the default route of an uplink as well.
            Self::Step(Step::Route(route)) => {
                let is_default = route.kind == RouteKind::Unicast && route.to.prefix_len() == 0;
                is_default && RoutingIds::is_table_of_uplink(route.table)
            }
            Self::Step(step) => step.keeps_host_reachable(),
            Self::Table(_) | Self::TunName(_) => false,
        }
    }
}

/// The settings that natbox has set again.
#[derive(Debug, Default)]
pub(super) struct Contest {
    records: Vec<Removals>,
}

#[derive(Debug)]
struct Removals {
    setting: Setting,
    /// Times that natbox has set the setting again, each within [`MEMORY`] of the one before.
    times: u32,
    /// Times in a row.
    row: u32,
    /// The last [`DISPUTED`] times, the oldest first.
    last: VecDeque<Instant>,
    /// True from the last of [`DISPUTED`] removals within [`MEMORY`] on.
    is_disputed: bool,
}

impl Removals {
    fn new(setting: &Setting) -> Self {
        let setting = setting.clone();
        Self { setting, times: 0, row: 0, last: VecDeque::new(), is_disputed: false }
    }

    fn add(&mut self, now: Instant) {
        let row_ends = ROW_ENDS.max(2 * self.pause());
        if self.last.back().is_some_and(|last| now.duration_since(*last) >= row_ends) {
            self.row = 0;
        }
        self.row = self.row.saturating_add(1);
        self.times = self.times.saturating_add(1);
        self.last.push_back(now);
        if self.last.len() > DISPUTED {
            self.last.pop_front();
        }
        self.is_disputed |=
            self.last.len() == DISPUTED && now.duration_since(self.last[0]) < MEMORY;
    }

    /// Returns the time to wait after the last removal.
    fn pause(&self) -> Duration {
        match self.row.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(exponent) => {
                MIN_RETRY_INTERVAL.saturating_mul(1 << exponent.min(16)).min(MAX_RETRY_INTERVAL)
            }
        }
    }

    fn is_remembered(&self, now: Instant) -> bool {
        self.last.back().is_some_and(|last| now.duration_since(*last) < MEMORY)
    }
}

impl Contest {
    /// Returns true when a missing setting may be set again now. A setting on which the host's own
    /// reachability depends never waits.
    pub(super) fn allows(&self, setting: &Setting, now: Instant) -> bool {
        let record = self.records.iter().find(|record| record.setting == *setting);
        let has_waited = |record: &Removals| {
            record.last.back().is_none_or(|last| now.duration_since(*last) >= record.pause())
        };
        setting.keeps_host_reachable() || record.is_none_or(has_waited)
    }

    /// Records that a setting was set again. Returns true when the setting is disputed.
    pub(super) fn record(&mut self, setting: &Setting, now: Instant) -> bool {
        self.records.retain(|record| record.is_remembered(now));
        let place = self.records.iter().position(|record| record.setting == *setting);
        let place = place.unwrap_or_else(|| {
            self.records.push(Removals::new(setting));
            self.records.len() - 1
        });
        self.records[place].add(now);
        self.records[place].is_disputed
    }

    /// Lists the settings that another program has removed again and again, with the number of
    /// removals.
    pub(super) fn disputed(&self, now: Instant) -> impl Iterator<Item = (&Setting, u32)> {
        let is_disputed = move |record: &&Removals| record.is_disputed && record.is_remembered(now);
        let disputed = self.records.iter().filter(is_disputed);
        disputed.map(|record| (&record.setting, record.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::model::step::{Route, Rule, RuleAction};

    fn rule() -> Setting {
        Setting::Step(Step::Rule(Rule::new(1000, RuleAction::Lookup(7100))))
    }

    fn is_disputed(contest: &Contest, now: Instant) -> bool {
        contest.disputed(now).next().is_some()
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
        assert!(is_disputed(&contest, now));
    }

    /// Regression: natbox forgot a removal after a minute, so a timer could remove a setting for
    /// ever without a dispute.
    #[test]
    fn a_removal_in_each_of_some_minutes_is_a_dispute_without_a_pause() {
        for minutes in [1, 5, 7] {
            let (mut contest, start) = (Contest::default(), Instant::now());
            let mut now = start;
            let mut disputed = Vec::new();
            for _ in 0..9 {
                assert!(contest.allows(&rule(), now), "at once, every {minutes} minutes");
                disputed.push(contest.record(&rule(), now));
                now += Duration::from_secs(60 * minutes);
            }
            assert_eq!(disputed, [[false; 2].as_slice(), &[true; 7]].concat());
            assert_eq!(contest.disputed(now).next(), Some((&rule(), 9)));
        }
        let (mut contest, start) = (Contest::default(), Instant::now());
        let hourly = (0..9).map(|hour| start + Duration::from_secs(3600 * hour));
        hourly.for_each(|now| assert!(!contest.record(&rule(), now)));
    }

    #[test]
    fn a_setting_that_stays_is_undisputed_again() {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        let disputed: Vec<bool> = (0..6).map(|_| contest.record(&rule(), now)).collect();
        assert_eq!(disputed, [false, false, true, true, true, true]);
        now += MEMORY - Duration::from_secs(1);
        assert!(is_disputed(&contest, now) && contest.allows(&rule(), now));
        now += Duration::from_secs(1);
        assert!(!is_disputed(&contest, now));
        assert!(!contest.record(&rule(), now));
        assert!(contest.allows(&rule(), now));
    }

    #[test]
    fn the_hosts_own_rules_never_wait() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        let local = Setting::Step(Step::SetLocalRuleAside);
        (0..9).for_each(|_| _ = contest.record(&local, now));
        assert!(contest.allows(&local, now));
        (0..9).for_each(|_| _ = contest.record(&rule(), now));
        assert!(!contest.allows(&rule(), now));
        for (table, allows) in [(7100, false), (7102, false), (7103, true), (7105, true)] {
            let default = Route::new(table, RouteKind::Unicast, "0.0.0.0/0".parse().unwrap());
            let default = Setting::Step(Step::Route(default));
            (0..9).for_each(|_| _ = contest.record(&default, now));
            assert_eq!(contest.allows(&default, now), allows, "table {table}");
        }
    }
}

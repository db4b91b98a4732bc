//! The loss of one uplink: lost probes of all probes that have ended, target by target.
//!
//! The loss of the uplink is that of its best target; with `quorum: N`, that of its N-th best one.
//! An uplink that loses packets loses them towards every target. A target that is dead, or that
//! answers only some probes, does not count while enough other targets answer.

use std::collections::VecDeque;

use crate::config::Health;

/// The results of the probes of one uplink.
#[derive(Clone, Debug)]
pub(super) struct ProbeResults {
    targets: Vec<TargetResults>,
    quorum: usize,
    /// Probes of each target in the window.
    window: usize,
}

#[derive(Clone, Debug, Default)]
struct TargetResults {
    /// The results of the window, by round, after the same number of older ones. An older result
    /// moves into the window when the window forgets an outage.
    ended: VecDeque<ProbeEnd>,
    /// The last results, outages included, up to the length of the window: true for an answer.
    recent: VecDeque<bool>,
}

#[derive(Clone, Copy, Debug)]
struct ProbeEnd {
    round: u64,
    answered: bool,
}

/// Lost probes of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Lost probes.
    pub(super) lost: u32,
    /// Probes that have ended, at least 1.
    pub(super) of: u32,
}

impl ProbeResults {
    pub(super) fn new(health: &Health) -> Self {
        Self {
            targets: vec![TargetResults::default(); health.targets()],
            quorum: health.quorum as usize,
            window: health.window as usize,
        }
    }

    /// Records the result of the probe of a target in a round. `counts`: whether the result counts
    /// in the window.
    pub(super) fn record(&mut self, target: usize, round: u64, answered: bool, counts: bool) {
        let window = self.window;
        let Some(target) = self.targets.get_mut(target) else { return };
        target.recent.push_back(answered);
        if target.recent.len() > window {
            target.recent.pop_front();
        }
        if counts {
            target.insert(ProbeEnd { round, answered }, window);
        }
    }

    /// Forgets the lost probes of the rounds between two others: an outage, which does not count in
    /// the window.
    pub(super) fn forget(&mut self, is_outage: impl Fn(u64) -> bool) {
        for target in &mut self.targets {
            target.ended.retain(|probe| probe.answered || !is_outage(probe.round));
        }
    }

    /// Returns the loss of the window; None: too few targets have a result.
    pub(super) fn of_window(&self) -> Option<Loss> {
        self.of_uplink(|target| {
            let window = target.ended.iter().rev().take(self.window);
            Loss::of(window.map(|probe| probe.answered))
        })
    }

    /// Returns the loss of the last probes, outages included; None: too few targets have a result.
    pub(super) fn recent(&self) -> Option<Loss> {
        self.of_uplink(|target| Loss::of(target.recent.iter().copied()))
    }

    fn of_uplink(&self, of_target: impl Fn(&TargetResults) -> Option<Loss>) -> Option<Loss> {
        let mut losses: Vec<Loss> = self.targets.iter().filter_map(of_target).collect();
        losses.sort_by_key(|one| (u64::from(one.lost) << 32) / u64::from(one.of));
        losses.get(self.quorum.saturating_sub(1)).copied()
    }
}

impl TargetResults {
    fn insert(&mut self, probe: ProbeEnd, window: usize) {
        let later = self.ended.iter().rev().take_while(|other| other.round > probe.round).count();
        self.ended.insert(self.ended.len() - later, probe);
        if self.ended.len() > 2 * window {
            // An outage must not displace the results before it: the window will forget the outage.
            let lost = self.ended.iter().rev().take_while(|probe| !probe.answered).count();
            self.ended.remove(if lost > window { self.ended.len() - lost } else { 0 });
        }
    }
}

impl Loss {
    /// Counts the lost probes; true is an answer. Returns None for no probe.
    fn of(results: impl Iterator<Item = bool>) -> Option<Self> {
        let (mut lost, mut of) = (0, 0);
        for answered in results {
            lost += u32::from(!answered);
            of += 1;
        }
        (of != 0).then_some(Self { lost, of })
    }

    /// Returns the lost share, 0 to 1.
    pub(super) fn share(self) -> f64 {
        f64::from(self.lost) / f64::from(self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(targets: u32, quorum: u32) -> ProbeResults {
        ProbeResults::new(&Health { quorum, window: 4, ..Health::of_pings(targets) })
    }

    #[test]
    fn the_loss_is_that_of_the_best_target_or_of_the_best_of_the_quorum() {
        // Of four probes, the targets lose 1, 2 and 4.
        let lost: [&[u64]; 3] = [&[3], &[0, 1], &[0, 1, 2, 3]];
        for (quorum, wanted) in [(1, 1), (2, 2), (3, 4)] {
            let mut results = results(3, quorum);
            assert_eq!(results.of_window(), None);
            for round in 0..4 {
                for (target, lost) in lost.iter().enumerate() {
                    results.record(target, round, !lost.contains(&round), true);
                }
            }
            let loss = Some(Loss { lost: wanted, of: 4 });
            assert_eq!((results.of_window(), results.recent()), (loss, loss), "quorum {quorum}");
        }
    }

    #[test]
    fn results_count_by_their_rounds_however_late_they_come() {
        let mut results = results(1, 1);
        for (round, answered) in [(0, false), (2, true), (3, true), (4, true), (5, true)] {
            results.record(0, round, answered, true);
        }
        assert_eq!(results.of_window(), Some(Loss { lost: 0, of: 4 }));
        results.record(0, 1, false, true);
        assert_eq!(results.of_window(), Some(Loss { lost: 0, of: 4 }), "older than the window");
        assert_eq!(results.recent(), Some(Loss { lost: 1, of: 4 }), "the last one to arrive");
    }

    #[test]
    fn a_long_outage_leaves_the_results_before_it_for_the_time_after_it() {
        let mut results = results(1, 1);
        for round in 0..4 {
            results.record(0, round, round != 1, true);
        }
        for round in 4..100 {
            results.record(0, round, false, round < 98);
        }
        assert_eq!(results.recent().map(Loss::share), Some(1.0));
        results.forget(|round| round > 3);
        assert_eq!(results.of_window(), Some(Loss { lost: 1, of: 4 }));
        assert_eq!(results.recent().map(Loss::share), Some(1.0), "outages count here");
    }
}

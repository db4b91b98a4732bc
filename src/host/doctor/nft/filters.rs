//! What the filters of nftables do with a packet. iptables-nft uses the same rules.
//!
//! The evaluation follows the first packet of a connection, or the first reply. Some conditions
//! depend on more than the packet: a named set, a limit, an unknown match. Such a condition makes
//! the outcome uncertain. [`super::rules`] evaluates a single rule.

use std::collections::BTreeSet;

use super::conditions::MatchResult;
use super::packet::{FilteredPacket, Tracking};
use super::rules::{Ending, RuleVerdict, verdicts};
use super::ruleset::{Chain, ChainRule};
use super::tracking::uses_tracking;

/// Priority of connection tracking (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK_PRIORITY: i64 = -200;
/// Largest depth of jumps that the kernel allows.
const MAX_JUMPS: usize = 16;

/// The filters of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filters {
    pub(crate) chains: Vec<Chain>,
    /// Reason why natbox could not read nftables.
    pub(crate) unreadable: Option<String>,
    /// True when the old iptables has tables. natbox does not read their rules.
    pub(crate) legacy: bool,
    /// None when nf_conntrack is not loaded.
    pub(crate) conntrack: Option<ConntrackUsage>,
}

/// Usage of the connection tracking table of this namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConntrackUsage {
    /// Number of tracked connections.
    pub(crate) count: u64,
    /// Largest number of connections.
    pub(crate) max: u64,
}

/// What one chain does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterOutcome {
    Passes,
    Dropped,
    /// The chain rewrites an address.
    Rewritten,
    /// The rules do not determine the outcome.
    Uncertain,
}

/// What the rules as a whole do with connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackingUse {
    /// True when some rule or NAT chain makes the kernel track connections.
    pub(crate) tracks: bool,
    /// True when some rule matches the state of a connection.
    pub(crate) matches_state: bool,
}

impl Filters {
    /// Lists the chains of a hook that do not simply let a packet pass.
    ///
    /// `doubts` collects the numbers of the rules that drop the packet under conditions that the
    /// evaluation cannot check.
    pub(crate) fn obstacles(
        &self,
        hook: &str,
        packet: &FilteredPacket<'_>,
        doubts: &mut BTreeSet<usize>,
    ) -> Vec<(&Chain, FilterOutcome)> {
        let mut obstacles = Vec::new();
        let after_conntrack = self.tracking(packet);
        for chain in self.at(hook) {
            // Before its priority, connection tracking has not seen the packet.
            let is_early =
                chain.priority <= CONNTRACK_PRIORITY || ["ingress", "egress"].contains(&hook);
            let tracking = if is_early { Tracking::Unknown } else { after_conntrack };
            // NAT needs tracking, and replies do not reach NAT chains.
            if chain.nat && (packet.reply || tracking == Tracking::Untracked) {
                continue;
            }
            let sees_packet = chain.sees(hook, packet);
            if sees_packet == MatchResult::No {
                continue;
            }
            match self.outcome(chain, &FilteredPacket { tracking, ..packet.clone() }, doubts) {
                FilterOutcome::Passes => {}
                _ if sees_packet == MatchResult::Maybe => {
                    obstacles.push((chain, FilterOutcome::Uncertain));
                }
                outcome @ (FilterOutcome::Dropped
                | FilterOutcome::Rewritten
                | FilterOutcome::Uncertain) => obstacles.push((chain, outcome)),
            }
        }
        obstacles
    }

    fn at(&self, hook: &str) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |chain| {
            chain.hook.as_deref() == Some(hook)
                && ["ip", "inet", "netdev"].contains(&chain.family.as_str())
        })
    }

    /// Determines whether connection tracking handles a packet, if any rule makes the kernel track.
    pub(crate) fn tracking(&self, packet: &FilteredPacket<'_>) -> Tracking {
        let (hook, packet) = match packet.iif {
            Some(_) => ("prerouting", FilteredPacket { oif: None, ..packet.clone() }),
            None => ("output", packet.clone()),
        };
        let packet = FilteredPacket { tracking: Tracking::Unknown, ..packet };
        let mut tracking = Tracking::Tracked;
        for chain in self.at(hook).filter(|chain| chain.priority < CONNTRACK_PRIORITY) {
            match self.walk(chain, &packet, 0).untracked {
                MatchResult::Yes => return Tracking::Untracked,
                MatchResult::Maybe => tracking = Tracking::Unknown,
                MatchResult::No => {}
            }
        }
        tracking
    }

    fn outcome(
        &self,
        chain: &Chain,
        packet: &FilteredPacket<'_>,
        doubts: &mut BTreeSet<usize>,
    ) -> FilterOutcome {
        let walked = self.walk(chain, packet, 0);
        let outcome = match walked.end {
            Some(Ending::Rewrite) => FilterOutcome::Rewritten,
            Some(Ending::Drop) if walked.uncertain => FilterOutcome::Uncertain,
            Some(Ending::Drop) => FilterOutcome::Dropped,
            None if chain.drops && walked.uncertain => FilterOutcome::Uncertain,
            None if chain.drops => FilterOutcome::Dropped,
            Some(Ending::Accept) | None if walked.may_rewrite => FilterOutcome::Uncertain,
            Some(Ending::Accept) | None => FilterOutcome::Passes,
        };
        if outcome == FilterOutcome::Passes {
            doubts.extend(walked.may_drop);
        }
        outcome
    }

    fn walk(&self, chain: &Chain, packet: &FilteredPacket<'_>, depth: usize) -> ChainOutcome {
        let mut outcome = ChainOutcome::default();
        if depth > MAX_JUMPS {
            return ChainOutcome { uncertain: true, may_rewrite: true, ..outcome };
        }
        for rule in &chain.rules {
            for (verdict, matched) in verdicts(&rule.expressions, packet) {
                let is_over = match verdict {
                    _ if matched == MatchResult::No => false,
                    RuleVerdict::Jump { target, returns } => {
                        let below = self
                            .target(chain, target)
                            .map(|target| self.walk(target, packet, depth + 1))
                            .unwrap_or_default();
                        outcome.include(below, matched, returns, rule)
                    }
                    RuleVerdict::Untrack
                    | RuleVerdict::Unknown
                    | RuleVerdict::Return
                    | RuleVerdict::End(_) => outcome.record(verdict, matched, rule),
                };
                if is_over {
                    return outcome;
                }
            }
        }
        outcome
    }

    fn target(&self, from: &Chain, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|other| {
            (&other.family, &other.table, other.name.as_str()) == (&from.family, &from.table, name)
        })
    }

    /// Determines whether the rules make the kernel track connections.
    pub(crate) fn tracking_use(&self) -> TrackingUse {
        let of_ip =
            || self.chains.iter().filter(|chain| ["ip", "inet"].contains(&chain.family.as_str()));
        let mut expressions =
            of_ip().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions);
        let matches_state = expressions.any(uses_tracking);
        let tracks = matches_state || of_ip().any(|chain| chain.nat);
        TrackingUse { tracks, matches_state }
    }
}

impl Chain {
    /// Determines whether a chain of a hook sees the packets of a device.
    fn sees(&self, hook: &str, packet: &FilteredPacket<'_>) -> MatchResult {
        let device = match hook {
            "ingress" => packet.iif,
            "egress" => packet.oif,
            _ => return MatchResult::Yes,
        };
        match (&self.devices, device) {
            (Some(devices), Some(device)) => Some(devices.iter().any(|name| name == device)).into(),
            (None, _) | (_, None) => MatchResult::Maybe,
        }
    }
}

/// What the rules of one chain do with a packet.
#[derive(Clone, Debug, Default)]
struct ChainOutcome {
    /// None when no rule ends the evaluation for certain.
    end: Option<Ending>,
    /// True when a rule may have ended the evaluation earlier.
    uncertain: bool,
    /// True when a rule may have rewritten the packet, or does something unknown.
    may_rewrite: bool,
    /// Numbers of the rules that may have dropped the packet.
    may_drop: BTreeSet<usize>,
    untracked: MatchResult,
}

impl ChainOutcome {
    /// Records a verdict that matches at least perhaps. Returns true when the evaluation is over.
    fn record(&mut self, verdict: RuleVerdict<'_>, matched: MatchResult, rule: &ChainRule) -> bool {
        match (verdict, matched) {
            (RuleVerdict::Untrack, _) => self.untrack(matched),
            (RuleVerdict::Unknown, _) => (self.uncertain, self.may_rewrite) = (true, true),
            (RuleVerdict::Return, MatchResult::Yes) => return true,
            (RuleVerdict::End(end), MatchResult::Yes) => {
                self.end = Some(end);
                return true;
            }
            (RuleVerdict::End(end), MatchResult::Maybe) => self.may_end(end, rule.number),
            (RuleVerdict::Return, _) => self.uncertain = true,
            (RuleVerdict::End(_) | RuleVerdict::Jump { .. }, _) => {}
        }
        false
    }

    /// Includes the outcome of a called chain. Returns true when the evaluation is over.
    fn include(
        &mut self,
        below: ChainOutcome,
        matched: MatchResult,
        returns: bool,
        rule: &ChainRule,
    ) -> bool {
        self.uncertain |= below.uncertain;
        self.may_rewrite |= below.may_rewrite;
        self.may_drop.extend(below.may_drop);
        match below.untracked {
            MatchResult::Yes => self.untrack(matched),
            MatchResult::Maybe => self.untrack(MatchResult::Maybe),
            MatchResult::No => {}
        }
        match (matched, below.end) {
            (MatchResult::Yes, end) if end.is_some() || !returns => {
                self.end = end;
                return true;
            }
            (MatchResult::Maybe, Some(end)) => self.may_end(end, rule.number),
            (_, _) => {}
        }
        false
    }

    fn may_end(&mut self, end: Ending, rule: usize) {
        self.uncertain = true;
        match end {
            Ending::Accept => {}
            Ending::Drop => drop(self.may_drop.insert(rule)),
            Ending::Rewrite => self.may_rewrite = true,
        }
    }

    fn untrack(&mut self, matched: MatchResult) {
        let matched = if self.uncertain { MatchResult::Maybe } else { matched };
        if self.untracked != MatchResult::Yes {
            self.untracked = matched;
        }
    }
}

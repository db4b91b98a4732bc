//! What `natbox top` shows: differences between two looks at an instance.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::api::{
    GroupTotals, Request, SessionCursor, SessionGroup, SessionPage, SessionView, Status,
};
use crate::cli::exit::Failure;
use crate::cli::sessions::count_matching;
use crate::cli::target::InstanceSelector;

/// A look at an instance, with the rates since the look before.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) status: Status,
    /// Packets a second that natbox read, and that it wrote.
    pub(super) packets: [u64; 2],
    /// Sessions that began in a second.
    pub(super) opened: u64,
    /// In the order of the configuration.
    pub(super) uplinks: Vec<UplinkRates>,
    /// Forwards by rate, the busiest first. The empty name stands for sessions without a forward.
    pub(super) forwards: Vec<Group>,
    /// Inside hosts by rate, the busiest first.
    pub(super) hosts: Vec<Group>,
    /// Sessions by rate, the busiest first, each with its bytes a second.
    pub(super) sessions: Vec<(SessionView, u64)>,
    /// Drop reasons with packets a second and in all, the highest rate first.
    pub(super) drops: Vec<(String, u64, u64)>,
}

/// The rates of an uplink, in bytes a second.
#[derive(Clone, Debug, Default)]
pub(super) struct UplinkRates {
    pub(super) inbound: u64,
    pub(super) outbound: u64,
    /// Part of the bytes of all uplinks, in percent.
    pub(super) share: u64,
    /// Sums of both directions of the last looks, the oldest first.
    pub(super) history: VecDeque<u64>,
}

/// A forward or an inside host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) sessions: u64,
    /// Bytes a second.
    pub(super) rate: u64,
}

/// The reader of an instance, with what it saw at the look before.
pub(super) struct Sampler<'a> {
    instance: &'a InstanceSelector,
    filter: String,
    before: Option<(Instant, Status)>,
    history: HashMap<String, VecDeque<u64>>,
    /// The groups of the last walk over the table.
    forwards: Walked,
    hosts: Walked,
    session_bytes: HashMap<u64, u64>,
    /// When the next walk over the table may begin: a walk over a large table takes time of the
    /// instance's machine.
    next_walk: Instant,
}

/// The groups of a walk over the table.
#[derive(Default)]
struct Walked {
    at: Option<Instant>,
    totals: HashMap<String, GroupTotals>,
    groups: Vec<Group>,
}

impl<'a> Sampler<'a> {
    /// Makes a reader. `filter` restricts forwards, hosts and sessions.
    pub(super) fn new(instance: &'a InstanceSelector, filter: String) -> Self {
        Self {
            instance,
            filter,
            before: None,
            history: HashMap::new(),
            forwards: Walked::default(),
            hosts: Walked::default(),
            session_bytes: HashMap::new(),
            next_walk: Instant::now(),
        }
    }

    /// Looks at the instance.
    ///
    /// # Errors
    /// The instance does not answer, or rejects the filter.
    pub(super) fn look(&mut self) -> Result<View, Failure> {
        let status: Status = self.instance.ask(&Request::Status)?;
        let now = Instant::now();
        if now >= self.next_walk {
            self.walk()?;
            self.next_walk = Instant::now() + WALK_SHARE * now.elapsed().as_millis() as u32;
        }
        let sessions =
            if status.sessions.accounting { self.busiest_sessions()? } else { Vec::new() };
        let mut view = self.rates(&status, now);
        view.sessions = sessions;
        view.forwards.clone_from(&self.forwards.groups);
        view.hosts.clone_from(&self.hosts.groups);
        self.before = Some((now, status.clone()));
        view.status = status;
        Ok(view)
    }

    fn rates(&mut self, status: &Status, now: Instant) -> View {
        let (then, before) =
            self.before.as_ref().map_or((now, status), |(then, before)| (*then, before));
        let passed = now - then;
        let rate = |after: u64, before: u64| per_second(after.saturating_sub(before), passed);
        let total = |name: &str| {
            let value = |status: &Status| status.totals.get(name).copied().unwrap_or(0);
            rate(value(status), value(before))
        };
        let mut uplinks: Vec<UplinkRates> = Vec::new();
        for uplink in &status.uplinks {
            let old = before.uplinks.iter().find(|old| old.name == uplink.name);
            let old = old.map_or(uplink.traffic, |old| old.traffic);
            let inbound = rate(uplink.traffic.bytes_in, old.bytes_in);
            let outbound = rate(uplink.traffic.bytes_out, old.bytes_out);
            let history = self.history.entry(uplink.name.clone()).or_default();
            if passed != Duration::ZERO {
                history.push_back(inbound + outbound);
            }
            if history.len() > HISTORY {
                history.pop_front();
            }
            uplinks.push(UplinkRates { inbound, outbound, share: 0, history: history.clone() });
        }
        let all: u64 = uplinks.iter().map(|uplink| uplink.inbound + uplink.outbound).sum();
        for uplink in &mut uplinks {
            uplink.share = ((uplink.inbound + uplink.outbound) * 100).checked_div(all).unwrap_or(0);
        }
        let mut drops: Vec<(String, u64, u64)> = status
            .drops
            .iter()
            .map(|(reason, count)| {
                let old = before.drops.get(reason).copied().unwrap_or(0);
                (reason.clone(), rate(*count, old), *count)
            })
            .collect();
        drops.sort_by_key(|(_, rate, count)| std::cmp::Reverse((*rate, *count)));
        View {
            packets: [total("packets_in"), total("packets_out")],
            opened: total("sessions_created"),
            uplinks,
            drops,
            ..View::default()
        }
    }

    /// Sums up the sessions of each forward and of each host.
    fn walk(&mut self) -> Result<(), Failure> {
        for (group, walked) in
            [(SessionGroup::Forward, &mut self.forwards), (SessionGroup::Host, &mut self.hosts)]
        {
            let counted = count_matching(self.instance, &self.filter, Some(group))?;
            walked.advance(counted.groups, Instant::now());
        }
        Ok(())
    }

    /// Returns the sessions that carried most since the look before.
    fn busiest_sessions(&mut self) -> Result<Vec<(SessionView, u64)>, Failure> {
        let since = self.before.as_ref().map(|(then, _)| *then);
        let (mut found, mut bytes) = (Vec::new(), HashMap::new());
        let mut next = Some(SessionCursor::default());
        let filter = format!("({}) idle<={}s", either(&self.filter), ACTIVE_SECONDS);
        while let Some(from) = next.filter(|_| found.len() < MAX_ACTIVE) {
            let filter = filter.clone();
            let page: SessionPage = self.instance.ask(&Request::Sessions { from, filter })?;
            next = page.next;
            let now = Instant::now();
            for session in page.sessions {
                let Some(traffic) = session.traffic else { continue };
                let sum = traffic.bytes + traffic.reply_bytes;
                bytes.insert(session.id, sum);
                let rate = match (self.session_bytes.get(&session.id), since) {
                    (Some(before), Some(then)) => {
                        per_second(sum.saturating_sub(*before), now - then)
                    }
                    _ => sum / u64::from(traffic.age_seconds.max(1)),
                };
                found.push((session, rate));
            }
        }
        self.session_bytes = bytes;
        found.sort_by_key(|(session, rate)| (std::cmp::Reverse(*rate), session.id));
        found.truncate(SHOWN);
        Ok(found)
    }
}

impl Walked {
    /// Takes the sums of a new walk.
    fn advance(&mut self, totals: HashMap<String, GroupTotals>, now: Instant) {
        let passed = self.at.map(|at| now - at);
        let mut groups: Vec<Group> = totals
            .iter()
            .map(|(name, GroupTotals { sessions, bytes })| {
                // A group whose sessions ended meanwhile may have less than before.
                let before = self.totals.get(name).map_or(*bytes, |before| before.bytes);
                let more = bytes.saturating_sub(before);
                let rate = passed.map_or(0, |passed| per_second(more, passed));
                Group { name: name.clone(), sessions: *sessions, rate }
            })
            .collect();
        groups.sort_by(|first, second| {
            let key = |group: &Group| std::cmp::Reverse((group.rate, group.sessions));
            key(first).cmp(&key(second)).then(first.name.cmp(&second.name))
        });
        groups.truncate(SHOWN);
        *self = Self { at: Some(now), totals, groups };
    }
}

/// Returns the filter, or for an empty one a filter that matches everything.
fn either(filter: &str) -> &str {
    if filter.trim().is_empty() { "0.0.0.0/0" } else { filter }
}

fn per_second(count: u64, passed: Duration) -> u64 {
    let seconds = passed.as_secs_f64();
    if seconds == 0.0 { 0 } else { (count as f64 / seconds).round() as u64 }
}

/// Looks that a history holds.
const HISTORY: usize = 120;
/// Entries of each list.
const SHOWN: usize = 50;
/// Most sessions that are compared with the look before.
const MAX_ACTIVE: usize = 8192;
/// Sessions that were idle for longer are not compared.
const ACTIVE_SECONDS: u32 = 3;
/// Pause after a walk over the table, as a multiple of its time: a walk takes a fifth of the time
/// of one core at most.
const WALK_SHARE: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_ordered_by_what_they_carried_since_the_walk_before() {
        let totals = |bytes: [u64; 3]| {
            let names = ["a", "b", ""];
            let totals = names.iter().zip(bytes);
            totals
                .map(|(name, bytes)| ((*name).to_owned(), GroupTotals { sessions: 2, bytes }))
                .collect::<HashMap<_, _>>()
        };
        let (mut walked, start) = (Walked::default(), Instant::now());
        walked.advance(totals([9_000_000, 0, 5]), start);
        assert!(walked.groups.iter().all(|group| group.rate == 0));
        // The sessions of `a` have ended but for small ones.
        walked.advance(totals([100, 4_000, 1_005]), start + Duration::from_secs(2));
        let found: Vec<(&str, u64)> =
            walked.groups.iter().map(|group| (group.name.as_str(), group.rate)).collect();
        assert_eq!(found, [("b", 2000), ("", 500), ("a", 0)]);
    }
}

//! Limits of inside hosts: the sessions that each has, and the sessions that each opens in a
//! second.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;

use crate::nat::seed::HashKey;
use crate::nat::verdict::DropReason;
use crate::time::{Span, Tick};

/// Usage of every inside host. Without limits there are no entries.
pub(crate) struct HostLimiter {
    usage: DashMap<Ipv4Addr, HostUsage, HashKey>,
    /// Limit of sessions; 0: none. Relaxed, as the other limit: a session or two by the old value
    /// do no harm.
    sessions: AtomicU32,
    /// Limit of new sessions a second; 0: none.
    new_sessions: AtomicU32,
    /// True once there was a limit. From then on every session counts, so that a later limit finds
    /// the right numbers.
    counts: AtomicBool,
    /// Number of entries above which [`Self::prune_idle`] looks for idle ones.
    prune_threshold: AtomicUsize,
}

/// Usage of one inside host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostUsage {
    sessions: u32,
    second: Tick,
    opened: u32,
}

impl HostLimiter {
    /// Makes a limiter of sessions and of new sessions a second; None: no limit.
    pub(crate) fn new(
        sessions: Option<NonZeroU32>,
        new_sessions: Option<NonZeroU32>,
        key: HashKey,
    ) -> Self {
        let limiter = Self {
            usage: DashMap::with_hasher(key),
            sessions: AtomicU32::new(0),
            new_sessions: AtomicU32::new(0),
            counts: AtomicBool::new(false),
            prune_threshold: AtomicUsize::new(MIN_PRUNE),
        };
        limiter.set(sessions, new_sessions);
        limiter
    }

    /// Changes the limits. Sessions that began while no limit was ever set do not count.
    pub(crate) fn set(&self, sessions: Option<NonZeroU32>, new_sessions: Option<NonZeroU32>) {
        self.sessions.store(sessions.map_or(0, NonZeroU32::get), Relaxed);
        self.new_sessions.store(new_sessions.map_or(0, NonZeroU32::get), Relaxed);
        if sessions.is_some() || new_sessions.is_some() {
            self.counts.store(true, Relaxed);
        }
    }

    /// Counts one more session of `host`, unless a limit forbids it.
    pub(crate) fn try_acquire(&self, host: Ipv4Addr, now: Tick) -> Result<(), DropReason> {
        if !self.is_tracked(host) {
            return Ok(());
        }
        let mut used =
            self.usage.entry(host).or_insert(HostUsage { sessions: 0, second: now, opened: 0 });
        *used = self.with_one_more(*used, now)?;
        Ok(())
    }

    /// Returns the usage of a host. None: no limit applies to the host.
    pub(crate) fn usage(&self, host: Ipv4Addr, now: Tick) -> Option<HostUsage> {
        let new = HostUsage { sessions: 0, second: now, opened: 0 };
        self.is_tracked(host).then(|| self.usage.get(&host).map_or(new, |used| *used))
    }

    /// Returns the usage of a host after one more session, unless a limit forbids it.
    pub(crate) fn with_one_more(
        &self,
        mut used: HostUsage,
        now: Tick,
    ) -> Result<HostUsage, DropReason> {
        if is_reached(&self.sessions, used.sessions) {
            return Err(DropReason::HostSessionLimit);
        }
        if now.since(used.second) >= SECOND {
            used.second = now;
            used.opened = 0;
        }
        if is_reached(&self.new_sessions, used.opened) {
            return Err(DropReason::HostSessionRate);
        }
        used.sessions += 1;
        used.opened += 1;
        Ok(used)
    }

    /// Counts a session of another translator for `host`, whatever the limits: the session exists.
    pub(crate) fn restore(&self, host: Ipv4Addr, now: Tick) {
        if self.is_tracked(host) {
            let new = HostUsage { sessions: 0, second: now, opened: 0 };
            self.usage.entry(host).or_insert(new).sessions += 1;
        }
    }

    /// Counts one session of `host` less.
    pub(crate) fn release(&self, host: Ipv4Addr) {
        if self.is_tracked(host) {
            self.usage.remove_if_mut(&host, |_, used| {
                // The session may have begun before the first limit.
                used.sessions = used.sessions.saturating_sub(1);
                // With a rate limit the entry must outlive its sessions, or opening and closing
                // would reset the rate.
                used.sessions == 0 && self.new_sessions.load(Relaxed) == 0
            });
        }
    }

    /// Removes entries that are idle: with a rate limit they outlive their sessions. Does nothing
    /// until the number of entries has doubled since the last removal.
    pub(crate) fn prune_idle(&self, now: Tick) {
        if self.usage.len() <= self.prune_threshold.load(Relaxed) {
            return;
        }
        self.usage.retain(|_, used| used.sessions != 0 || now.since(used.second) < SECOND);
        self.prune_threshold.store((2 * self.usage.len()).max(MIN_PRUNE), Relaxed);
    }

    /// Number of sessions that count for a host.
    #[cfg(test)]
    pub(crate) fn sessions_of(&self, host: Ipv4Addr) -> u32 {
        self.usage.get(&host).map_or(0, |used| used.sessions)
    }

    /// Reports whether a host has live sessions that it opened; without limits always false.
    pub(crate) fn has_sessions(&self, host: Ipv4Addr) -> bool {
        self.usage.get(&host).is_some_and(|used| used.sessions != 0)
    }

    /// Reports whether a host has an entry. The box's own addresses, which are link-local, have
    /// none.
    fn is_tracked(&self, host: Ipv4Addr) -> bool {
        self.counts.load(Relaxed) && !host.is_link_local()
    }
}

fn is_reached(limit: &AtomicU32, used: u32) -> bool {
    let limit = limit.load(Relaxed);
    limit != 0 && used >= limit
}

impl HostUsage {
    /// Counts one session less.
    pub(crate) fn release(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
    }
}

/// Interval over which new sessions are counted.
const SECOND: Span = Span::seconds(1);
/// Number of entries that may stay, idle or not.
const MIN_PRUNE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn a_host_at_its_limit_is_refused_until_a_session_ends() {
        let hosts = HostLimiter::new(NonZeroU32::new(2), None, HashKey::of(1));
        let now = Tick(0);
        for _ in 0..1000 {
            assert_eq!(
                (hosts.try_acquire(HOST, now), hosts.try_acquire(HOST, now)),
                (Ok(()), Ok(()))
            );
            assert_eq!(hosts.try_acquire(HOST, now), Err(DropReason::HostSessionLimit));
            assert_eq!(hosts.try_acquire(Ipv4Addr::new(10, 0, 0, 6), now), Ok(()));
            hosts.release(Ipv4Addr::new(10, 0, 0, 6));
            hosts.release(HOST);
            hosts.release(HOST);
        }
        assert!(hosts.usage.is_empty());
    }

    /// An inside host that sends from ever other addresses must not fill the memory with their
    /// entries.
    #[test]
    fn entries_of_hosts_that_are_gone_are_removed() {
        let hosts = HostLimiter::new(None, NonZeroU32::new(2), HashKey::of(1));
        let (mut most, talker) = (0, Ipv4Addr::new(10, 255, 0, 1));
        assert_eq!(hosts.try_acquire(talker, Tick(0)), Ok(()));
        for number in 0..100_000 {
            let now = Tick(number / 10);
            let host = Ipv4Addr::from_bits(0x0a00_0000 + number);
            assert_eq!(hosts.try_acquire(host, now), Ok(()));
            hosts.release(host);
            if number % 1000 == 0 {
                hosts.prune_idle(now);
            }
            most = most.max(hosts.usage.len());
        }
        assert!(hosts.has_sessions(talker), "an entry in use stays");
        assert!(
            most < 25_000,
            "{most} entries at one time, of which 10,000 were used within the last second"
        );
    }

    #[test]
    fn a_hosts_rate_is_counted_by_the_second_and_not_reset_by_ending_sessions() {
        let hosts = HostLimiter::new(None, NonZeroU32::new(2), HashKey::of(1));
        for second in 0..3 {
            let now = Tick(second * 1000);
            for _ in 0..2 {
                assert_eq!(hosts.try_acquire(HOST, now), Ok(()));
                hosts.release(HOST);
            }
            assert_eq!(
                hosts.try_acquire(HOST, now.after(Span(999))),
                Err(DropReason::HostSessionRate)
            );
        }
    }
}

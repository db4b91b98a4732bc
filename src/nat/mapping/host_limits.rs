//! Accounts of inside hosts: how many sessions each has opened, and how fast.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;

use crate::nat::seed::HashKey;
use crate::nat::verdict::DropReason;
use crate::time::{Span, Tick};

/// The accounts. Without limits none are kept.
pub(crate) struct HostLimiter {
    accounts: DashMap<Ipv4Addr, HostUsage, HashKey>,
    sessions: Option<NonZeroU32>,
    new_sessions: Option<NonZeroU32>,
    /// More accounts than this are worth a look at those that are idle.
    look_above: AtomicUsize,
}

struct HostUsage {
    sessions: u32,
    second: Tick,
    opened: u32,
}

impl HostLimiter {
    /// Limits on sessions and on new sessions a second; None: no limit.
    pub(crate) fn new(
        sessions: Option<NonZeroU32>,
        new_sessions: Option<NonZeroU32>,
        key: HashKey,
    ) -> Self {
        let look_above = AtomicUsize::new(FEW);
        Self { accounts: DashMap::with_hasher(key), sessions, new_sessions, look_above }
    }

    /// Books one more session of `host`.
    pub(crate) fn try_acquire(&self, host: Ipv4Addr, now: Tick) -> Result<(), DropReason> {
        if !self.is_tracked(host) {
            return Ok(());
        }
        let mut account =
            self.accounts.entry(host).or_insert(HostUsage { sessions: 0, second: now, opened: 0 });
        if self.sessions.is_some_and(|limit| account.sessions >= limit.get()) {
            return Err(DropReason::HostSessionLimit);
        }
        if now.since(account.second) >= SECOND {
            account.second = now;
            account.opened = 0;
        }
        if self.new_sessions.is_some_and(|limit| account.opened >= limit.get()) {
            return Err(DropReason::HostSessionRate);
        }
        account.sessions += 1;
        account.opened += 1;
        Ok(())
    }

    /// Counts a session of another translator for `host`, whatever the limits: the session exists.
    pub(crate) fn restore(&self, host: Ipv4Addr, now: Tick) {
        if self.is_tracked(host) {
            let new = HostUsage { sessions: 0, second: now, opened: 0 };
            self.accounts.entry(host).or_insert(new).sessions += 1;
        }
    }

    /// Books one session of `host` out.
    pub(crate) fn release(&self, host: Ipv4Addr) {
        if self.is_tracked(host) {
            self.accounts.remove_if_mut(&host, |_, account| {
                account.sessions -= 1;
                // With a rate limit the account must outlive its sessions, or opening and closing would reset it.
                account.sessions == 0 && self.new_sessions.is_none()
            });
        }
    }

    /// Closes accounts that say nothing any more: with a rate limit they outlive their sessions. Costs nothing until they
    /// have doubled since the last time.
    pub(crate) fn prune_idle(&self, now: Tick) {
        if self.accounts.len() <= self.look_above.load(Relaxed) {
            return;
        }
        self.accounts
            .retain(|_, account| account.sessions != 0 || now.since(account.second) < SECOND);
        self.look_above.store((2 * self.accounts.len()).max(FEW), Relaxed);
    }

    /// Number of sessions that count for a host.
    #[cfg(test)]
    pub(crate) fn sessions_of(&self, host: Ipv4Addr) -> u32 {
        self.accounts.get(&host).map_or(0, |account| account.sessions)
    }

    /// Whether a host is known to have opened sessions that live; without limits none is.
    pub(crate) fn has_sessions(&self, host: Ipv4Addr) -> bool {
        self.accounts.get(&host).is_some_and(|account| account.sessions != 0)
    }

    /// The box's own endpoints, which are link-local, have none.
    fn is_tracked(&self, host: Ipv4Addr) -> bool {
        (self.sessions.is_some() || self.new_sessions.is_some()) && !host.is_link_local()
    }
}

/// The time in which new sessions are counted.
const SECOND: Span = Span::seconds(1);
/// So many accounts may stay, idle or not.
const FEW: usize = 1024;

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
        assert!(hosts.accounts.is_empty());
    }

    /// Whoever sends from ever other addresses of the inside cannot fill the memory with their accounts.
    #[test]
    fn accounts_of_hosts_that_are_gone_are_closed() {
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
            most = most.max(hosts.accounts.len());
        }
        assert!(hosts.has_sessions(talker), "an account in use stays");
        assert!(
            most < 25_000,
            "{most} accounts at one time, of which 10,000 have spoken within the last second"
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

//! Accounts of inside hosts: how many sessions each has opened, and how fast.

use std::hash::RandomState;
use std::net::Ipv4Addr;

use dashmap::DashMap;

use crate::time::{Span, Tick};

use super::verdict::DropReason;

/// The accounts. Without limits none are kept.
pub(super) struct Hosts {
    accounts: DashMap<Ipv4Addr, Account, RandomState>,
    sessions: u32,
    new_sessions: u32,
}

struct Account {
    sessions: u32,
    second: Tick,
    opened: u32,
}

impl Hosts {
    /// Limits on sessions and on new sessions a second; 0: none.
    pub(super) fn new(sessions: u32, new_sessions: u32) -> Self {
        Self { accounts: DashMap::default(), sessions, new_sessions }
    }

    /// Books one more session of `host`.
    pub(super) fn book(&self, host: Ipv4Addr, now: Tick) -> Result<(), DropReason> {
        if !self.keeps_accounts() {
            return Ok(());
        }
        let mut account =
            self.accounts.entry(host).or_insert(Account { sessions: 0, second: now, opened: 0 });
        if self.sessions != 0 && account.sessions >= self.sessions {
            return Err(DropReason::HostLimit);
        }
        if now.since(account.second) >= Span::seconds(1) {
            account.second = now;
            account.opened = 0;
        }
        if self.new_sessions != 0 && account.opened >= self.new_sessions {
            return Err(DropReason::HostRate);
        }
        account.sessions += 1;
        account.opened += 1;
        Ok(())
    }

    /// Books one session of `host` out.
    pub(super) fn release(&self, host: Ipv4Addr) {
        if self.keeps_accounts() {
            self.accounts.remove_if_mut(&host, |_, account| {
                account.sessions -= 1;
                // With a rate limit the account must outlive its sessions, or opening and closing would reset it.
                account.sessions == 0 && self.new_sessions == 0
            });
        }
    }

    /// Whether a host is known to have opened sessions that live; without limits none is.
    pub(super) fn has_sessions(&self, host: Ipv4Addr) -> bool {
        self.accounts.get(&host).is_some_and(|account| account.sessions != 0)
    }

    fn keeps_accounts(&self) -> bool {
        self.sessions != 0 || self.new_sessions != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn a_host_at_its_limit_is_refused_until_a_session_ends() {
        let hosts = Hosts::new(2, 0);
        let now = Tick(0);
        for _ in 0..1000 {
            assert_eq!((hosts.book(HOST, now), hosts.book(HOST, now)), (Ok(()), Ok(())));
            assert_eq!(hosts.book(HOST, now), Err(DropReason::HostLimit));
            assert_eq!(hosts.book(Ipv4Addr::new(10, 0, 0, 6), now), Ok(()));
            hosts.release(Ipv4Addr::new(10, 0, 0, 6));
            hosts.release(HOST);
            hosts.release(HOST);
        }
        assert!(hosts.accounts.is_empty());
    }

    #[test]
    fn a_hosts_rate_is_counted_by_the_second_and_not_reset_by_ending_sessions() {
        let hosts = Hosts::new(0, 2);
        for second in 0..3 {
            let now = Tick(second * 1000);
            for _ in 0..2 {
                assert_eq!(hosts.book(HOST, now), Ok(()));
                hosts.release(HOST);
            }
            assert_eq!(hosts.book(HOST, now.after(Span(999))), Err(DropReason::HostRate));
        }
    }
}

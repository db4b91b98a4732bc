//! Limits of the sessions that clients outside open over dynamic mappings.
//!
//! With filtering that admits many remote endpoints, every packet with another source opens such a
//! session, and a sender can forge sources. So an inside host may have a share of the table for
//! them, apart from the sessions that the host opens itself: a flood to one host's mapping neither
//! fills the table nor uses up the limit of that host.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dashmap::DashMap;

use crate::nat::policy::limits::Limits;
use crate::nat::seed::HashKey;
use crate::nat::verdict::DropReason;

/// Number of sessions from outside over mappings, of each inside host and of all.
pub(crate) struct InboundLimiter {
    by_host: DashMap<Ipv4Addr, u32, HashKey>,
    /// Relaxed: no other data depends on the count.
    all: AtomicU32,
    most_by_host: AtomicU32,
    most: u32,
}

impl InboundLimiter {
    /// Makes a limiter. One host gets half of its own limit, at most an eighth of the table; all
    /// hosts get half of the table.
    pub(crate) fn new(limits: &Limits, key: HashKey) -> Self {
        Self {
            by_host: DashMap::with_hasher(key),
            all: AtomicU32::new(0),
            most_by_host: AtomicU32::new(most_by_host(limits)),
            most: (limits.sessions / 2).max(1),
        }
    }

    /// Changes the limits. The size of the table is the same.
    pub(crate) fn set(&self, limits: &Limits) {
        self.most_by_host.store(most_by_host(limits), Relaxed);
    }

    /// Counts one more session of `host`, unless a limit forbids it.
    pub(crate) fn try_acquire(&self, host: Ipv4Addr) -> Result<(), DropReason> {
        let mut sessions = self.by_host.entry(host).or_insert(0);
        if *sessions >= self.most_by_host.load(Relaxed) || self.all.load(Relaxed) >= self.most {
            return Err(DropReason::InboundLimit);
        }
        *sessions += 1;
        self.all.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Returns the result that [`Self::try_acquire`] would have.
    pub(crate) fn would_acquire(&self, host: Ipv4Addr) -> Result<(), DropReason> {
        let sessions = self.by_host.get(&host).map_or(0, |sessions| *sessions);
        match sessions >= self.most_by_host.load(Relaxed) || self.all.load(Relaxed) >= self.most {
            true => Err(DropReason::InboundLimit),
            false => Ok(()),
        }
    }

    /// Counts a session of another translator for `host`, whatever the limits: the session exists.
    pub(crate) fn restore(&self, host: Ipv4Addr) {
        *self.by_host.entry(host).or_insert(0) += 1;
        self.all.fetch_add(1, Relaxed);
    }

    /// Counts one session of `host` less.
    pub(crate) fn release(&self, host: Ipv4Addr) {
        self.all.fetch_sub(1, Relaxed);
        self.by_host.remove_if_mut(&host, |_, sessions| {
            *sessions -= 1;
            *sessions == 0
        });
    }
}

/// Returns the share of one host.
fn most_by_host(limits: &Limits) -> u32 {
    let eighth = (limits.sessions / 8).max(1);
    let own = limits.sessions_per_host.map_or(eighth, |limit| (limit.get() / 2).max(1));
    own.min(eighth)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    fn limiter(sessions: u32, per_host: u32) -> InboundLimiter {
        let inside = "10.0.0.0/24".parse().expect("a prefix");
        let sessions_per_host = NonZeroU32::new(per_host);
        let limits = Limits { sessions, sessions_per_host, ..Limits::new(inside) };
        InboundLimiter::new(&limits, HashKey::of(1))
    }

    fn admitted(limiter: &InboundLimiter, host: Ipv4Addr) -> usize {
        (0..1000).filter(|_| limiter.try_acquire(host).is_ok()).count()
    }

    #[test]
    fn a_host_gets_half_of_its_limit_and_an_eighth_of_the_table_at_most() {
        assert_eq!(admitted(&limiter(800, 0), HOST), 100);
        assert_eq!(admitted(&limiter(800, 60), HOST), 30);
        assert_eq!(admitted(&limiter(800, 600), HOST), 100);
        assert_eq!(admitted(&limiter(1, 1), HOST), 1);
    }

    #[test]
    fn all_hosts_together_get_half_of_the_table_and_an_ended_session_makes_room() {
        let limiter = limiter(800, 0);
        let hosts = (0..10).map(|last| Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(hosts.map(|host| admitted(&limiter, host)).sum::<usize>(), 400);
        let first = Ipv4Addr::new(10, 0, 0, 0);
        limiter.release(first);
        assert_eq!(admitted(&limiter, first), 1);
        for _ in 0..100 {
            limiter.release(first);
        }
        assert!(!limiter.by_host.contains_key(&first));
    }
}

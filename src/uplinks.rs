//! The states of the uplinks, in one channel.
//!
//! ```text
//!   health checks, links, addresses ── update ─▶ Uplinks ── watch ─┬─▶ failover
//!                                                                  ├─▶ name server, updates, hook
//!                                                                  └─▶ status
//! ```
//!
//! A follower that is slow misses intermediate states, never the last one.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// One uplink at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UplinkState {
    /// Name of the uplink.
    pub name: String,
    /// First external address, by which clients reach published services; None: the uplink has no
    /// address.
    pub address: Option<Ipv4Addr>,
    /// Source address that makes packets of this host leave by the uplink; None: there is none.
    pub source: Option<Ipv4Addr>,
    /// Share of the sessions and of the DNS clients of its tier, at least 1.
    pub weight: u32,
    /// Tier, at least 1. The uplink is used while no lower tier has an uplink that is up.
    pub tier: u32,
    /// Whether new sessions may use the uplink.
    pub up: bool,
    /// Time of the last change of `up`.
    pub since: Instant,
    /// Whether the interface is up, has an address and has a next hop.
    pub link_ready: bool,
    /// Median round-trip time of the health check; None: no answer yet.
    pub latency: Option<Duration>,
    /// Lost share of the last rounds of the health check, 0 to 1; None: no round has ended yet.
    pub loss: Option<f64>,
    /// Reason why the uplink is not up, for people; None: it is up.
    pub reason: Option<String>,
    /// Time until which the uplink must answer before it is up again; None: nothing holds it.
    pub held_until: Option<Instant>,
}

impl UplinkState {
    /// Makes the state of an uplink that is up, of tier 1, with weight 1 and without addresses.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: None,
            source: None,
            weight: 1,
            tier: 1,
            up: true,
            since: Instant::now(),
            link_ready: true,
            latency: None,
            loss: None,
            reason: None,
            held_until: None,
        }
    }
}

/// All uplinks at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UplinkStates {
    /// Uplinks in the order of the configuration.
    pub uplinks: Vec<UplinkState>,
    /// Serial number for DNS: the seconds since 1970 at the last change of [`UplinkState::up`],
    /// [`UplinkState::tier`] or [`UplinkState::address`], and larger than every serial number
    /// before.
    pub serial: u32,
}

impl UplinkStates {
    /// Returns the uplinks of `among` that have an address, are up, and belong to the lowest tier
    /// of these.
    pub(crate) fn addresses_in_use(&self, among: &[usize]) -> Vec<(&UplinkState, Ipv4Addr)> {
        let up = || self.addressed(among).filter(|(uplink, _)| uplink.up);
        let tier = up().map(|(uplink, _)| uplink.tier).min();
        up().filter(|(uplink, _)| Some(uplink.tier) == tier).collect()
    }

    /// Does the same. If none of them is up, returns those that are down, of every tier: an old
    /// address serves a client better than no address.
    pub(crate) fn addresses_to_serve(&self, among: &[usize]) -> Vec<(&UplinkState, Ipv4Addr)> {
        let in_use = self.addresses_in_use(among);
        if in_use.is_empty() { self.addressed(among).collect() } else { in_use }
    }

    /// Returns the lowest tier that has an uplink which is up.
    pub(crate) fn tier_in_use(&self) -> Option<u32> {
        self.uplinks.iter().filter(|uplink| uplink.up).map(|uplink| uplink.tier).min()
    }

    /// Returns the uplinks that are up and of the lowest tier that has one.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &UplinkState> {
        let tier = self.tier_in_use();
        self.uplinks.iter().filter(move |uplink| uplink.up && Some(uplink.tier) == tier)
    }

    fn addressed(&self, among: &[usize]) -> impl Iterator<Item = (&UplinkState, Ipv4Addr)> {
        let uplinks = among.iter().filter_map(|index| self.uplinks.get(*index));
        uplinks.filter_map(|uplink| Some((uplink, uplink.address?)))
    }
}

/// The channel: control writes, everyone else follows.
#[derive(Debug)]
pub(crate) struct Uplinks(watch::Sender<UplinkStates>);

impl Uplinks {
    /// Makes the channel with the first states.
    pub(crate) fn new(uplinks: Vec<UplinkState>) -> Self {
        Self(watch::Sender::new(UplinkStates { uplinks, serial: seconds_since_1970() }))
    }

    /// Changes the state of an uplink. Wakes the followers if [`UplinkState::up`],
    /// [`UplinkState::tier`] or [`UplinkState::address`] is another one afterwards. Does nothing if
    /// no uplink has this index.
    pub(crate) fn update(&self, uplink: usize, change: impl FnOnce(&mut UplinkState)) {
        self.0.send_if_modified(|states| {
            let Some(state) = states.uplinks.get_mut(uplink) else { return false };
            let (up, tier, address) = (state.up, state.tier, state.address);
            change(state);
            if state.up != up {
                state.since = Instant::now();
            }
            let is_news = (state.up, state.tier, state.address) != (up, tier, address);
            if is_news {
                states.serial = seconds_since_1970().max(states.serial.wrapping_add(1));
            }
            is_news
        });
    }

    /// Adds a follower.
    pub(crate) fn watch(&self) -> watch::Receiver<UplinkStates> {
        self.0.subscribe()
    }
}

fn seconds_since_1970() -> u32 {
    // Serial numbers wrap by design (RFC 1982).
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Uplinks {
        let uplink = |number: u8| UplinkState {
            address: Some(Ipv4Addr::new(203, 0, 113, number)),
            ..UplinkState::new(format!("isp{number}"))
        };
        Uplinks::new((1..=3).map(uplink).collect())
    }

    #[test]
    fn followers_wake_for_news_only() {
        let uplinks = three();
        let mut follower = uplinks.watch();
        uplinks.update(1, |uplink| uplink.up = true);
        uplinks.update(7, |uplink| uplink.up = false);
        uplinks.update(0, |uplink| uplink.address = Some(Ipv4Addr::new(203, 0, 113, 1)));
        uplinks.update(0, |uplink| uplink.latency = Some(Duration::from_millis(3)));
        assert!(!follower.has_changed().unwrap());
        assert_eq!(follower.borrow().uplinks[0].latency, Some(Duration::from_millis(3)));
        let before = follower.borrow().serial;
        uplinks.update(1, |uplink| uplink.up = false);
        assert!(follower.has_changed().unwrap());
        assert!(!follower.borrow_and_update().uplinks[1].up);
        uplinks.update(1, |uplink| uplink.up = true);
        assert!(follower.borrow().serial >= before + 2, "two changes within one second");
    }

    #[test]
    fn the_time_of_a_state_is_that_of_its_last_change() {
        let uplinks = three();
        let since = |index: usize| uplinks.watch().borrow().uplinks[index].since;
        let before = since(1);
        std::thread::sleep(Duration::from_millis(2));
        uplinks.update(1, |uplink| uplink.link_ready = false);
        assert_eq!(since(1), before);
        uplinks.update(1, |uplink| uplink.up = false);
        assert!(since(1) > before);
    }

    #[test]
    fn if_every_uplink_of_a_name_is_down_all_of_them_are_served() {
        let uplinks = three();
        let names = || -> Vec<String> {
            let states = uplinks.watch().borrow().clone();
            let served = states.addresses_to_serve(&[0, 2]);
            served.iter().map(|(uplink, _)| uplink.name.clone()).collect()
        };
        assert_eq!(names(), ["isp1", "isp3"]);
        uplinks.update(0, |uplink| uplink.up = false);
        assert_eq!(names(), ["isp3"]);
        uplinks.update(2, |uplink| uplink.up = false);
        assert_eq!(names(), ["isp1", "isp3"], "isp2 is up, but no uplink of this name");
        uplinks.update(0, |uplink| uplink.address = None);
        assert_eq!(names(), ["isp3"], "an uplink without an address cannot be served");
    }

    #[test]
    fn only_the_lowest_tier_with_an_uplink_that_is_up_is_in_use() {
        let uplinks = three();
        let mut follower = uplinks.watch();
        uplinks.update(0, |uplink| uplink.tier = 3);
        assert!(follower.has_changed().unwrap(), "another tier is a change");
        uplinks.update(1, |uplink| uplink.tier = 2);
        let names = |states: &UplinkStates| -> Vec<String> {
            states.in_use().map(|uplink| uplink.name.clone()).collect()
        };
        let served = |states: &UplinkStates, among: &[usize]| -> Vec<String> {
            let served = states.addresses_to_serve(among);
            served.iter().map(|(uplink, _)| uplink.name.clone()).collect()
        };
        let mut now = || follower.borrow_and_update().clone();
        assert_eq!((now().tier_in_use(), names(&now())), (Some(1), vec!["isp3".to_owned()]));
        assert_eq!(served(&now(), &[0, 1]), ["isp2"], "the lowest tier among these");
        assert_eq!(served(&now(), &[0]), ["isp1"]);
        uplinks.update(2, |uplink| uplink.up = false);
        assert_eq!((now().tier_in_use(), names(&now())), (Some(2), vec!["isp2".to_owned()]));
        assert_eq!(served(&now(), &[0, 1, 2]), ["isp2"]);
        uplinks.update(1, |uplink| uplink.address = None);
        assert_eq!(served(&now(), &[0, 1, 2]), ["isp1"], "isp2 has no address to serve");
        uplinks.update(0, |uplink| uplink.up = false);
        uplinks.update(1, |uplink| uplink.up = false);
        assert_eq!((now().tier_in_use(), names(&now()).len()), (None, 0));
        assert_eq!(served(&now(), &[0, 1, 2]), ["isp1", "isp3"], "as without tiers");
    }
}

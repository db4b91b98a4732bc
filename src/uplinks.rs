//! The states of the uplinks, in one channel.
//!
//! ```text
//!   health checks, links, addresses ── update ─▶ Uplinks ─┬─ apply first ─▶ translator
//!                                                         └─ watch ─┬─▶ failover
//!                                                                   ├─▶ name server, updates, hook
//!                                                                   └─▶ status
//! ```
//!
//! A follower that is slow misses intermediate states, never the last one. The translator knows a
//! state before a follower or a reader sees the state: who reads that an uplink is healthy can use
//! the uplink.
//!
//! This module also says which uplinks are *in use*: those of the best [`Rank`] that an uplink has,
//! and of these the ones of the lowest tier. Failover, DNS and the status follow this choice.

use std::cell::OnceCell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// How well an uplink can be used, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The uplink is up.
    Healthy,
    /// The uplink is not up, but targets of its health check answer: it loses packets, is slow, or
    /// must answer for a while before it is up again. It is used while no uplink is healthy.
    LastResort,
    /// All others. If every uplink has this rank, natbox uses all of them.
    Unusable,
}

/// What the targets of an uplink's health check have answered lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    /// No target has answered for `fall` intervals, or there is no health check.
    #[default]
    None,
    /// A target answers, but fewer than `quorum` do, or loss or latency are above their limits.
    Poor,
    /// Enough targets answer, within the limits at which the uplink may return.
    Good,
}

/// One uplink at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UplinkState {
    /// Name of the uplink.
    pub name: String,
    /// Its number, which stays the same while its place may change.
    pub number: u8,
    /// Its interface.
    pub interface: String,
    /// First external address, by which clients reach published services; None: the uplink has no
    /// address.
    pub address: Option<Ipv4Addr>,
    /// Source address that makes packets of this host leave by the uplink; None: there is none.
    pub source: Option<Ipv4Addr>,
    /// Share of the sessions and of the DNS clients of its tier, at least 1.
    pub weight: u32,
    /// Tier, at least 1. The uplink is used while no lower tier has an uplink of the same rank.
    pub tier: u32,
    /// Whether new sessions may use the uplink.
    pub up: bool,
    /// Time of the last change of `up`.
    pub since: Instant,
    /// What the targets of the health check have answered lately.
    pub answers: Answers,
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
    pub(crate) fn new(name: impl Into<String>, number: u8) -> Self {
        Self {
            name: name.into(),
            number,
            interface: String::new(),
            address: None,
            source: None,
            weight: 1,
            tier: 1,
            up: true,
            since: Instant::now(),
            answers: Answers::None,
            link_ready: true,
            latency: None,
            loss: None,
            reason: None,
            held_until: None,
        }
    }

    /// Returns how well the uplink can be used.
    pub(crate) fn rank(&self) -> Rank {
        match self.answers {
            _ if self.up => Rank::Healthy,
            Answers::Poor | Answers::Good if self.link_ready && self.address.is_some() => {
                Rank::LastResort
            }
            Answers::None | Answers::Poor | Answers::Good => Rank::Unusable,
        }
    }
}

/// All uplinks at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UplinkStates {
    /// Uplinks in the order of the configuration.
    pub uplinks: Vec<UplinkState>,
    /// Serial number for DNS: the seconds since 1970 at the last change of [`UplinkState::rank`],
    /// [`UplinkState::tier`] or [`UplinkState::address`], and larger than every serial number
    /// before.
    pub serial: u32,
}

impl UplinkStates {
    /// Returns the uplinks with the numbers of `among` that have an address and are in use among
    /// these. If none of them is usable, returns all that have an address: an old address serves a
    /// client better than no address.
    pub(crate) fn addresses_to_serve(&self, among: &[u8]) -> Vec<(&UplinkState, Ipv4Addr)> {
        let uplinks = || self.addressed(among);
        let Some((rank, tier)) = rank_and_tier_in_use(uplinks().map(|(uplink, _)| uplink)) else {
            return uplinks().collect();
        };
        uplinks().filter(|(uplink, _)| (uplink.rank(), uplink.tier) == (rank, tier)).collect()
    }

    /// Returns the lowest tier that has an uplink of the best rank; None: no uplink is usable.
    pub(crate) fn tier_in_use(&self) -> Option<u32> {
        rank_and_tier_in_use(self.uplinks.iter()).map(|(_, tier)| tier)
    }

    /// Returns the uplinks that are in use: those of the best rank, and of these the ones of the
    /// lowest tier. Returns none if no uplink is usable.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &UplinkState> {
        self.uplinks.iter().filter(|uplink| self.is_in_use(uplink))
    }

    /// Reports whether an uplink is in use.
    pub(crate) fn is_in_use(&self, uplink: &UplinkState) -> bool {
        rank_and_tier_in_use(self.uplinks.iter()) == Some((uplink.rank(), uplink.tier))
    }

    /// Returns the uplink with a number.
    pub(crate) fn with_number(&self, number: u8) -> Option<&UplinkState> {
        self.uplinks.iter().find(|uplink| uplink.number == number)
    }

    /// Returns the uplink of a name.
    pub(crate) fn named(&self, name: &str) -> Option<&UplinkState> {
        self.uplinks.iter().find(|uplink| uplink.name == name)
    }

    fn addressed(&self, among: &[u8]) -> impl Iterator<Item = (&UplinkState, Ipv4Addr)> {
        let uplinks = among.iter().filter_map(|number| self.with_number(*number));
        uplinks.filter_map(|uplink| Some((uplink, uplink.address?)))
    }
}

/// Returns rank and tier of the uplinks in use among these; None: none of them is usable.
fn rank_and_tier_in_use<'a>(uplinks: impl Iterator<Item = &'a UplinkState>) -> Option<(Rank, u32)> {
    let best = uplinks.map(|uplink| (uplink.rank(), uplink.tier)).min();
    best.filter(|(rank, _)| *rank != Rank::Unusable)
}

/// The channel: control writes, everyone else follows.
pub(crate) struct Uplinks {
    states: watch::Sender<UplinkStates>,
    /// See [`Self::apply_first`].
    first: OnceCell<Box<Apply>>,
}

/// Applies new states of the uplinks.
type Apply = dyn Fn(&UplinkStates);

impl Uplinks {
    /// Makes the channel with the first states.
    pub(crate) fn new(uplinks: Vec<UplinkState>) -> Self {
        let states = UplinkStates { uplinks, serial: seconds_since_1970() };
        Self { states: watch::Sender::new(states), first: OnceCell::new() }
    }

    /// Calls `apply` with each new state, before a follower or a reader sees the state. `apply`
    /// must not read the channel. Only the first call of this method has an effect.
    pub(crate) fn apply_first(&self, apply: impl Fn(&UplinkStates) + 'static) {
        let _ = self.first.set(Box::new(apply));
    }

    /// Changes the state of an uplink. Wakes the followers if [`UplinkState::rank`],
    /// [`UplinkState::tier`] or [`UplinkState::address`] is another one afterwards. Does nothing if
    /// no uplink has this index.
    pub(crate) fn update(&self, uplink: usize, change: impl FnOnce(&mut UplinkState)) {
        self.states.send_if_modified(|states| {
            let Some(state) = states.uplinks.get_mut(uplink) else { return false };
            let (up, before) = (state.up, (state.rank(), state.tier, state.address));
            change(state);
            if state.up != up {
                state.since = Instant::now();
            }
            let is_news = (state.rank(), state.tier, state.address) != before;
            if is_news {
                states.serial = seconds_since_1970().max(states.serial.wrapping_add(1));
                self.first.get().into_iter().for_each(|apply| apply(states));
            }
            is_news
        });
    }

    /// Replaces the uplinks after a reload, and wakes the followers. An uplink that stays keeps the
    /// time of its last change.
    pub(crate) fn replace(&self, uplinks: Vec<UplinkState>) {
        self.states.send_modify(|states| {
            let keep_time = |new: UplinkState| {
                let known = states.named(&new.name).filter(|known| known.up == new.up);
                let since = known.map_or(new.since, |known| known.since);
                UplinkState { since, ..new }
            };
            states.uplinks = uplinks.into_iter().map(keep_time).collect();
            states.serial = seconds_since_1970().max(states.serial.wrapping_add(1));
            self.first.get().into_iter().for_each(|apply| apply(states));
        });
    }

    /// Adds a follower.
    pub(crate) fn watch(&self) -> watch::Receiver<UplinkStates> {
        self.states.subscribe()
    }
}

fn seconds_since_1970() -> u32 {
    // Serial numbers wrap by design (RFC 1982).
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn three() -> Uplinks {
        let uplink = |number: u8| UplinkState {
            address: Some(Ipv4Addr::new(203, 0, 113, number)),
            ..UplinkState::new(format!("isp{number}"), number - 1)
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
    fn news_are_applied_before_a_reader_sees_them() {
        let uplinks = three();
        let applied = Rc::new(Cell::new((0, true)));
        let count = Rc::clone(&applied);
        uplinks.apply_first(move |states| count.set((count.get().0 + 1, states.uplinks[1].up)));
        uplinks.update(1, |uplink| uplink.latency = Some(Duration::from_millis(3)));
        assert_eq!(applied.get(), (0, true), "no news");
        uplinks.update(1, |uplink| uplink.up = false);
        assert_eq!(applied.get(), (1, false));
        uplinks.update(1, |uplink| uplink.up = true);
        assert_eq!(applied.get(), (2, true));
    }

    #[test]
    fn replaced_uplinks_are_applied_before_a_reader_sees_them_and_keep_their_time() {
        let uplinks = three();
        let mut follower = uplinks.watch();
        let applied = Rc::new(Cell::new(0));
        let count = Rc::clone(&applied);
        uplinks.apply_first(move |states| count.set(states.uplinks.len()));
        let before = uplinks.watch().borrow().clone();
        std::thread::sleep(Duration::from_millis(2));
        let (first, third) = (&before.uplinks[0], &before.uplinks[2]);
        let new = UplinkState::new("isp4", 3);
        let first = UplinkState { up: false, since: new.since, ..first.clone() };
        let third = UplinkState { since: new.since, ..third.clone() };
        uplinks.replace(vec![third, first, new]);
        assert!(follower.has_changed().unwrap());
        let now = follower.borrow_and_update().clone();
        assert_eq!(applied.get(), 3);
        assert!(now.serial > before.serial);
        assert_eq!(now.named("isp3").map(|it| it.since), Some(before.uplinks[2].since));
        assert!(now.named("isp1").is_some_and(|it| it.since > before.uplinks[0].since));
        assert_eq!(now.with_number(3).map(|it| &*it.name), Some("isp4"));
        assert!(now.with_number(1).is_none() && now.named("isp2").is_none());
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
    fn an_uplink_that_answers_is_the_last_resort_whatever_its_tier() {
        let uplinks = three();
        let mut follower = uplinks.watch();
        uplinks.update(2, |uplink| uplink.tier = 2);
        let names = |served: Vec<&UplinkState>| -> Vec<String> {
            served.iter().map(|uplink| uplink.name.clone()).collect()
        };
        let in_use = || names(uplinks.watch().borrow().in_use().collect());
        let served = |among: &[u8]| {
            let states = uplinks.watch().borrow().clone();
            names(states.addresses_to_serve(among).iter().map(|(uplink, _)| *uplink).collect())
        };
        for index in 0..3 {
            uplinks.update(index, |uplink| uplink.up = false);
        }
        assert_eq!((in_use().len(), served(&[0, 1, 2]).len()), (0, 3), "none is better");
        follower.borrow_and_update();
        uplinks.update(2, |uplink| uplink.answers = Answers::Poor);
        assert!(follower.has_changed().unwrap(), "another rank is a change");
        assert_eq!((in_use(), served(&[0, 1, 2])), (vec!["isp3".into()], vec!["isp3".into()]));
        assert_eq!(served(&[0, 1]), ["isp1", "isp2"], "isp3 is no uplink of this name");
        assert_eq!(uplinks.watch().borrow().tier_in_use(), Some(2));
        follower.borrow_and_update();
        uplinks.update(2, |uplink| uplink.answers = Answers::Good);
        assert!(!follower.has_changed().unwrap(), "the same rank");
        uplinks.update(1, |uplink| uplink.answers = Answers::Good);
        assert_eq!((in_use(), served(&[0, 1, 2])), (vec!["isp2".into()], vec!["isp2".into()]));
        uplinks.update(0, |uplink| uplink.up = true);
        assert_eq!(in_use(), ["isp1"], "a healthy uplink comes first");
        uplinks.update(0, |uplink| uplink.up = false);
        uplinks.update(1, |uplink| uplink.link_ready = false);
        uplinks.update(2, |uplink| uplink.address = None);
        assert!(in_use().is_empty(), "no link, or no address");
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
        let served = |states: &UplinkStates, among: &[u8]| -> Vec<String> {
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

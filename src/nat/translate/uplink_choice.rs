//! Selects the uplink of a new session.
//!
//! Each inside endpoint gets a pseudo-random score for every uplink, from a keyed hash and the
//! uplink's weight. Of the uplinks that the session may use, the most usable ones remain: those
//! that admit all new sessions, else those of last resort, else all. Of these, the ones of the
//! lowest tier remain, and of these the best score wins (rendezvous hashing). So sessions are
//! spread by weight, an endpoint always gets the same uplink of a tier, and a failing uplink moves
//! only its own sessions. A rule may hash the inside address instead, or the inside address with
//! the remote one.

use std::net::Ipv4Addr;

use crate::nat::policy::rules::OutboundRule;
use crate::nat::shared::uplink_states::{AdmitNew, Usability};
use crate::nat::table::related::RelatedPlace;
use crate::nat::translate::decide::has_ports;
use crate::nat::translator::Translator;
use crate::packet::Tuple;
use crate::values::nat::HashBy;

impl Translator {
    /// Sets the MTU of an inside leg, in bytes.
    ///
    /// # Panics
    /// If the policy has no such leg.
    pub fn set_leg_mtu(&self, leg: usize, mtu: u16) {
        self.uplink_states.set_leg_mtu(leg, mtu);
    }

    /// Sets the MTU of an uplink, in bytes.
    ///
    /// # Panics
    /// If the policy has no such uplink.
    pub fn set_uplink_mtu(&self, uplink: u8, mtu: u16) {
        self.uplink_states.set_uplink_mtu(uplink, mtu);
    }

    /// Sets which new sessions an uplink admits from now on.
    pub fn set_admission(&self, uplink: u8, admission: AdmitNew) {
        self.uplink_states.set_admission(uplink, admission);
    }

    /// Sets whether an uplink that does not admit all new sessions is a last resort: sessions use
    /// it while none of the uplinks that they may use admits all. A translator begins without one.
    pub fn set_last_resort(&self, uplink: u8, is_last_resort: bool) {
        self.uplink_states.set_last_resort(uplink, is_last_resort);
    }

    /// Returns the uplink of a session that `tuple` opens from inside. The first choice is the
    /// uplink of the inbound session to which the session is related, the second one an uplink
    /// where its endpoint has a mapping, the third one the best of the uplinks that admit new
    /// sessions. Of several uplinks with a mapping, one that admits new sessions comes first. If no
    /// uplink admits new sessions, returns the best of the last resorts, or of all.
    ///
    /// A mapping on a tier above that of the best uplink does not count: a backup uplink gets no
    /// new session after a lower tier has recovered.
    pub(crate) fn select_uplink(&self, tuple: &Tuple, related: Option<RelatedPlace>) -> Option<u8> {
        if let Some(own) = self.uplink_of_probe_address(tuple.source.address) {
            return Some(own).filter(|own| self.has_address(*own));
        }
        let rule = self.outbound_rule(tuple.source.address, tuple.destination.address)?;
        if let Some(place) = related {
            return Some(place.uplink);
        }
        if let [only] = rule.uplinks[..] {
            return Some(only).filter(|only| self.has_address(*only));
        }
        let admission = |uplink: &u8| self.uplink_states.admission(*uplink);
        let most_usable = self.most_usable(rule);
        let begins = |uplink: &u8| self.uplink_states.usability(*uplink) == most_usable;
        // The host's own packets leave a failed uplink at once, whatever their mapping.
        let is_host = self.policy.host_address == Some(tuple.source.address);
        let continues = |uplink: &u8| admission(uplink) == AdmitNew::KnownEndpoints && !is_host;
        let may_begin = rule.uplinks.iter().filter(|uplink| self.has_address(**uplink));
        let tier = may_begin.filter(|uplink| begins(uplink)).map(|uplink| self.tier(*uplink)).min();
        let has_mapping = |uplink: &u8| {
            let key = self.mappings.key(tuple.protocol, *uplink, tuple.source, tuple.destination);
            has_ports(tuple.protocol)
                && tier.is_none_or(|tier| self.tier(*uplink) <= tier)
                && self.mappings.contains(key)
        };
        let hash = self.spread_hash(rule, tuple);
        self.highest_score(rule, hash, |uplink| begins(uplink) && has_mapping(uplink))
            .or_else(|| {
                self.highest_score(rule, hash, |uplink| continues(uplink) && has_mapping(uplink))
            })
            .or_else(|| self.highest_score(rule, hash, begins))
    }

    /// Returns the uplink of a rule that a session from inside would get now if its endpoint had no
    /// mapping, and if its present uplink `own` admitted new sessions.
    pub(crate) fn preferred_uplink(
        &self,
        rule: &OutboundRule,
        tuple: &Tuple,
        own: u8,
    ) -> Option<u8> {
        self.highest_score(rule, self.spread_hash(rule, tuple), |uplink| {
            *uplink == own || self.uplink_states.admission(*uplink) == AdmitNew::All
        })
    }

    /// Hashes the part of a tuple that spreads sessions over the uplinks of a rule.
    fn spread_hash(&self, rule: &OutboundRule, tuple: &Tuple) -> u64 {
        let (inside, remote) = (tuple.source, tuple.destination);
        let address = u64::from(inside.address.to_bits()) << 24;
        match rule.hash_by {
            HashBy::SourcePort if has_ports(tuple.protocol) => {
                address | u64::from(inside.port) << 8
            }
            HashBy::SourcePort | HashBy::SourceAddress => address,
            HashBy::AddressPair => address ^ self.mix64(u64::from(remote.address.to_bits())) << 8,
        }
    }

    /// Returns the usability of the uplinks of a rule that new sessions may use now.
    fn most_usable(&self, rule: &OutboundRule) -> Usability {
        let uplinks = rule.uplinks.iter().filter(|uplink| self.has_address(**uplink));
        let usability = uplinks.map(|uplink| self.uplink_states.usability(*uplink));
        usability.min().unwrap_or(Usability::Closed)
    }

    /// Reports whether an uplink of a rule is an alternative to `uplink`.
    pub(crate) fn has_alternative(&self, rule: &OutboundRule, uplink: u8) -> bool {
        rule.uplinks.iter().any(|other| self.is_alternative(*other, uplink))
    }

    /// Reports whether the sessions of an uplink could begin again over another one: `other` admits
    /// new sessions, or is a last resort and `uplink` is none.
    pub(crate) fn is_alternative(&self, other: u8, uplink: u8) -> bool {
        let usability = |uplink: u8| self.uplink_states.usability(uplink);
        other != uplink
            && self.has_address(other)
            && (usability(other) == Usability::Open || usability(other) < usability(uplink))
    }

    /// Reports whether an uplink admits new sessions of any endpoint, or is a last resort.
    pub(crate) fn is_usable(&self, uplink: u8) -> bool {
        self.has_address(uplink) && self.uplink_states.usability(uplink) < Usability::Closed
    }

    /// Reports whether an uplink admits new sessions of any endpoint.
    pub(crate) fn admits_new(&self, uplink: u8) -> bool {
        self.has_address(uplink) && self.uplink_states.admission(uplink) == AdmitNew::All
    }

    /// Reports whether any uplink other than `uplink` admits new sessions.
    pub(crate) fn has_other_open_uplink(&self, uplink: u8) -> bool {
        let uplinks = self.policy.uplinks.iter().enumerate();
        let mut others = uplinks
            .filter(|(_, other)| !other.is_vacant())
            .map(|(number, _)| number as u8)
            .filter(|other| *other != uplink);
        others.any(|other| self.uplink_states.admission(other) == AdmitNew::All)
    }

    /// Reports whether an uplink has an external address. An uplink with dynamic addresses may have
    /// none.
    fn has_address(&self, uplink: u8) -> bool {
        !self.dynamic[usize::from(uplink)].is_empty()
    }

    /// Returns the tier of an uplink.
    pub(crate) fn tier(&self, uplink: u8) -> u8 {
        self.policy.uplinks[usize::from(uplink)].tier
    }

    /// Returns the uplink of the lowest tier, and of this tier the one with the highest score.
    fn highest_score(
        &self,
        rule: &OutboundRule,
        hash: u64,
        may_take: impl Fn(&u8) -> bool,
    ) -> Option<u8> {
        let may_take = |uplink: &u8| self.has_address(*uplink) && may_take(uplink);
        let uplinks = rule.uplinks.iter().copied().filter(may_take);
        uplinks.min_by(|one, other| {
            self.tier(*one).cmp(&self.tier(*other)).then_with(|| {
                self.rendezvous_score(hash, *one).total_cmp(&self.rendezvous_score(hash, *other))
            })
        })
    }

    /// An exponentially distributed number with the uplink's weight as its rate. The probability
    /// that an uplink has the smallest number is proportional to its weight. The lowest 8 bits of
    /// `hash` are zero.
    fn rendezvous_score(&self, hash: u64, uplink: u8) -> f64 {
        // In (0, 1].
        let uniform =
            ((self.mix64(hash | u64::from(uplink)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln() / f64::from(self.policy.uplinks[usize::from(uplink)].weight.max(1))
    }

    /// The rule by which an inside host may reach a destination: the longest source prefix first,
    /// then the longest destination prefix.
    pub(crate) fn outbound_rule(
        &self,
        host: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Option<&OutboundRule> {
        let rules = self.policy.outbound.iter().filter(|rule| rule.from.contains(&host));
        let reaching = rules.filter_map(|rule| {
            let to = rule.to.iter().filter(|prefix| prefix.contains(&destination));
            let length = to.map(ipnet::Ipv4Net::prefix_len).max();
            let length = if rule.to.is_empty() { Some(0) } else { length };
            length.map(|length| ((rule.from.prefix_len(), length), rule))
        });
        reaching.max_by_key(|(lengths, _)| *lengths).map(|(_, rule)| rule)
    }

    /// Reports whether the host itself sends from a link-local address over an uplink.
    pub(crate) fn is_hosts_own(&self, address: Ipv4Addr) -> bool {
        address.is_link_local()
            && (self.policy.host_address == Some(address)
                || self.uplink_of_probe_address(address).is_some())
    }

    /// The uplink that has this probe address.
    pub(crate) fn uplink_of_probe_address(&self, address: Ipv4Addr) -> Option<u8> {
        if !address.is_link_local() {
            return None;
        }
        self.policy
            .uplinks
            .iter()
            .position(|uplink| uplink.probe_address == Some(address))
            .map(|uplink| uplink as u8)
    }
}

#[cfg(test)]
mod tests {
    use crate::packet::{Protocol, builder};
    use crate::time::Tick;

    use super::*;
    use crate::nat::policy::limits::Limits;
    use crate::nat::policy::rules::Policy;
    use crate::nat::seed::Seed;

    const INSIDE: [u8; 4] = [10, 0, 0, 0];

    fn box_with(weights: &[u32], change: impl FnOnce(&mut Policy)) -> Translator {
        let inside = ipnet::Ipv4Net::new_assert(INSIDE.into(), 8);
        let mut policy = Policy::one_uplink(inside, Ipv4Addr::new(203, 0, 113, 1));
        let first = policy.uplinks.remove(0);
        for (number, weight) in weights.iter().enumerate() {
            let mut uplink = first.clone();
            uplink.weight = *weight;
            uplink.addresses[0].address = Ipv4Addr::new(203, 0, 113, number as u8 + 1);
            policy.uplinks.push(uplink);
        }
        policy.outbound[0].uplinks = (0..weights.len() as u8).collect();
        change(&mut policy);
        Translator::new(Limits::new(inside), policy, 1, Seed::random(), Tick(0)).expect("memory")
    }

    fn choices(nat: &Translator) -> Vec<u8> {
        let endpoints =
            (0..20_000u32).map(|n| ([10, 1, (n >> 8) as u8, n as u8], 1024 + (n % 7) as u16));
        endpoints.map(|source| choose(nat, source).expect("a rule")).collect()
    }

    fn choose(nat: &Translator, source: ([u8; 4], u16)) -> Option<u8> {
        choose_towards(nat, source, [192, 0, 2, 1])
    }

    fn choose_towards(nat: &Translator, source: ([u8; 4], u16), remote: [u8; 4]) -> Option<u8> {
        nat.select_uplink(&builder::tuple(Protocol::UDP, source, (remote, 53)), None)
    }

    fn share(choices: &[u8], uplink: u8) -> f64 {
        choices.iter().filter(|choice| **choice == uplink).count() as f64 / choices.len() as f64
    }

    #[test]
    fn endpoints_are_spread_by_weight_and_always_alike() {
        let nat = box_with(&[1, 3, 6], |_| {});
        let chosen = choices(&nat);
        for (uplink, wanted) in [(0, 0.1), (1, 0.3), (2, 0.6)] {
            let share = share(&chosen, uplink);
            assert!((share - wanted).abs() < 0.02, "uplink {uplink}: {share}");
        }
        assert_eq!(choices(&nat), chosen);
    }

    #[test]
    fn only_endpoints_of_a_failed_uplink_move_and_they_move_by_weight() {
        let nat = box_with(&[1, 3, 6], |_| {});
        let before = choices(&nat);
        for admission in [AdmitNew::KnownEndpoints, AdmitNew::None] {
            nat.set_admission(2, admission);
            let after = choices(&nat);
            let moved: Vec<u8> = before
                .iter()
                .zip(&after)
                .filter(|(one, _)| **one == 2)
                .map(|(_, other)| *other)
                .collect();
            assert!(before.iter().zip(&after).all(|(one, other)| *one == 2 || one == other));
            assert!((share(&moved, 1) - 0.75).abs() < 0.03 && !moved.contains(&2));
        }
        nat.set_admission(2, AdmitNew::All);
        assert_eq!(choices(&nat), before);
    }

    #[test]
    fn without_an_open_uplink_the_choice_is_as_if_all_were_open() {
        let nat = box_with(&[1, 1], |_| {});
        let before = choices(&nat);
        nat.set_admission(0, AdmitNew::None);
        nat.set_admission(1, AdmitNew::KnownEndpoints);
        assert_eq!(choices(&nat), before);
    }

    #[test]
    fn without_an_open_uplink_the_last_resorts_get_all_endpoints_whatever_their_tier() {
        let nat = box_with(&[1, 1, 3], |policy| policy.uplinks[0].tier = 2);
        for uplink in 0..3 {
            nat.set_admission(uplink, AdmitNew::KnownEndpoints);
        }
        let is_all_over = |uplink: u8| choices(&nat).iter().all(|chosen| *chosen == uplink);
        nat.set_last_resort(0, true);
        assert!(is_all_over(0), "a higher tier");
        nat.set_last_resort(1, true);
        assert!(is_all_over(1), "the lowest tier of the last resorts");
        nat.set_last_resort(2, true);
        assert!((share(&choices(&nat), 2) - 0.75).abs() < 0.02, "by weight");
        nat.set_admission(0, AdmitNew::All);
        assert!(is_all_over(0), "an open uplink comes first");
    }

    #[test]
    fn the_last_resort_of_a_rule_is_used_although_another_uplink_is_open() {
        let nat = box_with(&[1, 1, 1], |policy| policy.outbound[0].uplinks = vec![1, 2]);
        nat.set_admission(1, AdmitNew::None);
        nat.set_admission(2, AdmitNew::None);
        nat.set_last_resort(2, true);
        assert!(choices(&nat).iter().all(|chosen| *chosen == 2));
    }

    #[test]
    fn the_lowest_tier_with_an_open_uplink_gets_all_endpoints_by_weight() {
        let nat = box_with(&[1, 3, 1, 2], |policy| {
            for (uplink, tier) in policy.uplinks.iter_mut().zip([2, 2, 1, 3]) {
                uplink.tier = tier;
            }
        });
        let all_over = |uplink: u8| choices(&nat).iter().all(|chosen| *chosen == uplink);
        assert!(all_over(2));
        for admission in [AdmitNew::KnownEndpoints, AdmitNew::None] {
            nat.set_admission(2, admission);
            let chosen = choices(&nat);
            let shares = [share(&chosen, 0), share(&chosen, 1), share(&chosen, 3)];
            assert!((shares[0] - 0.25).abs() < 0.02 && (shares[1] - 0.75).abs() < 0.02);
            assert!(shares[2] == 0.0, "{shares:?}");
        }
        nat.set_admission(0, AdmitNew::None);
        assert!(all_over(1));
        nat.set_admission(1, AdmitNew::KnownEndpoints);
        assert!(all_over(3));
        nat.set_admission(3, AdmitNew::None);
        assert!(all_over(2), "without an open uplink the choice is as if all were open");
        nat.set_admission(1, AdmitNew::All);
        nat.set_admission(2, AdmitNew::All);
        assert!(all_over(2), "a lower tier is used again at once");
    }

    #[test]
    fn tiers_count_among_the_uplinks_of_a_rule() {
        let nat = box_with(&[1, 1, 1], |policy| {
            for (uplink, tier) in policy.uplinks.iter_mut().zip([1, 2, 3]) {
                uplink.tier = tier;
            }
            policy.outbound[0].uplinks = vec![1, 2];
        });
        assert!(choices(&nat).iter().all(|chosen| *chosen == 1));
        nat.set_admission(1, AdmitNew::None);
        assert!(choices(&nat).iter().all(|chosen| *chosen == 2));
    }

    #[test]
    fn a_host_uses_one_uplink_when_the_rule_hashes_by_address() {
        let nat = box_with(&[1, 1], |policy| policy.outbound[0].hash_by = HashBy::SourceAddress);
        let uplinks = |host: u8| (1..200).map(move |port| ([10, 0, 0, host], port));
        let mut both = std::collections::HashSet::new();
        for host in 0..100 {
            let first = choose(&nat, ([10, 0, 0, host], 1));
            both.insert(first);
            assert!(uplinks(host).all(|source| choose(&nat, source) == first));
        }
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn a_host_spreads_its_destinations_and_keeps_each_on_one_uplink_when_the_rule_hashes_both() {
        let hash_by = HashBy::AddressPair;
        let nat = box_with(&[1, 3], |policy| policy.outbound[0].hash_by = hash_by);
        let mut chosen = Vec::new();
        for remote in 0..4000u16 {
            let remote = [192, 0, (remote >> 8) as u8, remote as u8];
            let first = choose_towards(&nat, ([10, 0, 0, 1], 1), remote).expect("a rule");
            let all = (2..9).map(|port| choose_towards(&nat, ([10, 0, 0, 1], port), remote));
            assert!(all.into_iter().all(|uplink| uplink == Some(first)));
            chosen.push(first);
        }
        assert!((share(&chosen, 1) - 0.75).abs() < 0.03, "{}", share(&chosen, 1));
        let hosts = (0..200).map(|host| choose(&nat, ([10, 0, 0, host], 1)));
        assert_eq!(
            hosts.collect::<std::collections::HashSet<_>>().len(),
            2,
            "hosts spread as well"
        );
    }

    #[test]
    fn the_longest_source_and_then_the_longest_destination_decide() {
        let net = |text: &str| text.parse::<ipnet::Ipv4Net>().expect("a prefix");
        let rule = |from: &str, to: &[&str], uplink: u8| OutboundRule {
            from: net(from),
            to: to.iter().map(|to| net(to)).collect(),
            uplinks: vec![uplink],
            hash_by: HashBy::SourcePort,
        };
        let nat = box_with(&[1, 1, 1, 1], |policy| {
            policy.outbound = vec![
                rule("10.0.0.0/8", &["192.0.2.0/24", "198.51.100.0/25"], 0),
                rule("10.0.0.0/8", &["192.0.2.128/25"], 1),
                rule("10.0.0.0/8", &[], 2),
                rule("10.9.0.0/16", &["192.0.2.0/24"], 3),
            ];
        });
        let uplink = |source: [u8; 4], destination: [u8; 4]| {
            let tuple = builder::tuple(Protocol::TCP, (source, 1), (destination, 80));
            nat.select_uplink(&tuple, None)
        };
        assert_eq!(uplink([10, 0, 0, 1], [192, 0, 2, 1]), Some(0));
        assert_eq!(uplink([10, 0, 0, 1], [198, 51, 100, 127]), Some(0));
        assert_eq!(uplink([10, 0, 0, 1], [192, 0, 2, 129]), Some(1));
        assert_eq!(uplink([10, 0, 0, 1], [198, 51, 100, 128]), Some(2));
        assert_eq!(uplink([10, 9, 0, 1], [192, 0, 2, 129]), Some(3));
        assert_eq!(uplink([10, 9, 0, 1], [8, 8, 8, 8]), Some(2));
        assert_eq!(uplink([11, 0, 0, 1], [8, 8, 8, 8]), None);
    }
}

//! What depends on a setting of the host.
//!
//! While a setting is missing, only the uplinks that need it have failed. Some settings serve no
//! translated packet: they keep ARP of other interfaces off the uplinks, or lead packets of the
//! host itself.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::routing_ids::RoutingIds;
use super::step::{Route, Rule, RuleAction, Step, TABLE_LOCAL, TABLE_MAIN};
use crate::config::Config;

/// Sysctls that only set how many ICMP errors the kernel sends.
const LIMITS_OF_ERRORS: [&str; 2] = ["net/ipv4/icmp_msgs_per_sec", "net/ipv4/icmp_msgs_burst"];
/// Directories of sysctls that count for every interface.
const OF_EVERY_INTERFACE: [&str; 2] = ["all", "default"];

/// What depends on a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependents {
    /// Positions of the uplinks that fail without the setting.
    pub(crate) uplinks: BTreeSet<usize>,
    /// The dependents, as text.
    pub(crate) words: String,
}

/// Finds what depends on the settings of an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dependencies<'a> {
    pub(crate) config: &'a Config,
    pub(crate) ids: RoutingIds,
}

/// Part of the traffic that needs a setting.
enum Part<'a> {
    Everything,
    Uplinks(BTreeSet<usize>),
    /// The hosts behind one inside leg of several.
    Leg(&'a str),
    /// The host's own packets.
    Host,
    /// No translated packet and no packet of the host.
    Nothing,
}

impl<'a> Dependencies<'a> {
    /// Finds what depends on a step.
    pub(crate) fn of_step(self, step: &'a Step) -> Dependents {
        self.dependents(match step {
            Step::Sysctl { path, .. } => match step.interface() {
                Some(interface) if !OF_EVERY_INTERFACE.contains(&interface) => {
                    self.of_interface(interface)
                }
                Some(_) | None if LIMITS_OF_ERRORS.contains(&path.as_str()) => Part::Nothing,
                Some(_) | None => Part::Everything,
            },
            Step::BringUpTun { .. } | Step::SetLocalRuleAside | Step::KeepMainRule => {
                Part::Everything
            }
            Step::Address { address, .. } if *address == self.ids.host_address() => Part::Host,
            Step::Address { address, .. } => {
                let places = 0..self.config.uplinks.len();
                self.of_uplinks(places.filter(|place| {
                    self.ids.probe_address(self.config.uplinks[*place].numbers.uplink) == *address
                }))
            }
            Step::ProxyNeighbour { address, .. } => self.of_addresses((*address).into()),
            Step::Route(route) => self.of_route(route),
            Step::Rule(rule) => self.of_rule(rule),
        })
    }

    /// Finds what depends on a table that has natbox's routes alone.
    pub(crate) fn of_table(self, table: u32) -> Dependents {
        self.dependents(self.part_of_table(table))
    }

    /// Returns the dependents of what every translated packet needs.
    pub(crate) fn of_everything(self) -> Dependents {
        self.dependents(Part::Everything)
    }

    fn of_route(self, route: &Route) -> Part<'a> {
        match route.table {
            TABLE_MAIN | TABLE_LOCAL => self.of_addresses(route.to),
            table => self.part_of_table(table),
        }
    }

    fn of_rule(self, rule: &'a Rule) -> Part<'a> {
        let of_interface = |part| match rule.iif.as_deref() {
            Some(name) if !self.is_tun(name) && name != "lo" => self.of_interface(name),
            Some(_) | None => part,
        };
        match rule.action {
            _ if rule.suppress_prefix_length.is_some() => Part::Host,
            RuleAction::Lookup(TABLE_LOCAL) => {
                rule.to.map_or(Part::Everything, |to| self.of_addresses(to))
            }
            RuleAction::Lookup(TABLE_MAIN) => {
                rule.from.map_or(Part::Everything, |from| self.of_addresses(from))
            }
            RuleAction::Lookup(table) => {
                let part = self.part_of_table(table);
                if matches!(part, Part::Everything) { of_interface(part) } else { part }
            }
            RuleAction::Blackhole => of_interface(Part::Everything),
        }
    }

    fn part_of_table(self, table: u32) -> Part<'a> {
        let places = 0..self.config.uplinks.len();
        let uplinks = &self.config.uplinks;
        let outside =
            uplinks.iter().find(|uplink| self.ids.outside_table(uplink.numbers.interface) == table);
        match (outside, table) {
            (Some(uplink), _) => self.on_interface(&uplink.interface),
            (None, table) if self.ids.is_of_host(table) => Part::Host,
            (None, table) => {
                let own =
                    |place: &usize| self.ids.uplink_table(uplinks[*place].numbers.uplink) == table;
                self.of_uplinks(places.filter(own))
            }
        }
    }

    /// Returns the uplinks of some external addresses.
    fn of_addresses(self, addresses: Ipv4Net) -> Part<'a> {
        let uplinks = self.config.uplinks.iter().enumerate();
        let has = |address| addresses.contains(address);
        self.of_uplinks(
            uplinks.filter(|(_, uplink)| uplink.addresses.iter().any(has)).map(|(place, _)| place),
        )
    }

    fn of_interface(self, name: &'a str) -> Part<'a> {
        let legs = &self.config.inside.legs;
        let is_leg = legs.iter().any(|leg| leg.interface == name);
        let is_uplink = self.config.uplinks.iter().any(|uplink| uplink.interface == name);
        match (is_leg, is_uplink) {
            _ if self.is_tun(name) => Part::Everything,
            (true, _) if legs.len() == 1 => Part::Everything,
            (_, true) => self.on_interface(name),
            (true, false) => Part::Leg(name),
            (false, false) => Part::Nothing,
        }
    }

    fn on_interface(self, name: &str) -> Part<'a> {
        let uplinks = self.config.uplinks.iter().enumerate();
        let here = uplinks.filter(|(_, uplink)| uplink.interface == name);
        self.of_uplinks(here.map(|(place, _)| place))
    }

    /// A setting that belongs to no single uplink serves them all.
    fn of_uplinks(self, places: impl Iterator<Item = usize>) -> Part<'a> {
        let places: BTreeSet<usize> = places.collect();
        if places.is_empty() { Part::Everything } else { Part::Uplinks(places) }
    }

    fn is_tun(self, name: &str) -> bool {
        self.config.tun.name == name
    }

    fn dependents(self, part: Part<'_>) -> Dependents {
        let all = self.config.uplinks.len();
        let none = BTreeSet::new();
        let (uplinks, words) = match part {
            Part::Uplinks(places) if places.len() < all => {
                let names = places.iter().map(|place| self.config.uplinks[*place].name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                let words = match places.len() {
                    1 => format!("uplink {names} depends on it"),
                    _ => format!("uplinks {names} depend on it"),
                };
                (places, words)
            }
            Part::Everything | Part::Uplinks(_) => {
                ((0..all).collect(), "every uplink depends on it".to_owned())
            }
            Part::Leg(name) => (none, format!("the hosts behind {name} depend on it")),
            Part::Host => (none, "packets of the host itself depend on it".to_owned()),
            Part::Nothing => (none, "no translated packet depends on it".to_owned()),
        };
        Dependents { uplinks, words }
    }
}

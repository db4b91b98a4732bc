//! The numbers of the uplinks. Sessions, routing tables and probe addresses name an uplink by its
//! number, and the number stays the same while the box runs, whatever its place in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::model::Config;
use super::sections::{Uplink, UplinkNumbers};

/// No number is free: the uplinks before and after a reload are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoFreeNumber;

/// Numbers the uplinks in the order of the file.
pub(crate) fn number_in_order(uplinks: &mut [Uplink]) {
    let mut interfaces: Vec<String> = Vec::new();
    for (place, uplink) in uplinks.iter_mut().enumerate() {
        let known = interfaces.iter().position(|known| *known == uplink.interface);
        let interface = known.unwrap_or_else(|| {
            interfaces.push(uplink.interface.clone());
            interfaces.len() - 1
        });
        uplink.numbers = UplinkNumbers { uplink: place as u8, interface: interface as u8 };
    }
}

impl Config {
    /// Gives the uplinks and interfaces that `before` has the numbers that they have there, and
    /// all others numbers that `before` does not use.
    ///
    /// # Errors
    /// When no number is free.
    pub(crate) fn keep_uplink_numbers(&mut self, before: &Self) -> Result<(), NoFreeNumber> {
        let names = |uplink: &Uplink| (uplink.name.clone(), uplink.numbers.uplink);
        let interfaces = |uplink: &Uplink| (uplink.interface.clone(), uplink.numbers.interface);
        let mut by_name = Numbers::of(before.uplinks.iter().map(names));
        let mut by_interface = Numbers::of(before.uplinks.iter().map(interfaces));
        for uplink in &mut self.uplinks {
            uplink.numbers = UplinkNumbers {
                uplink: by_name.number(&uplink.name)?,
                interface: by_interface.number(&uplink.interface)?,
            };
        }
        Ok(())
    }

    /// Returns the numbers of the uplinks, by their names.
    pub(crate) fn uplink_numbers(&self) -> BTreeMap<String, UplinkNumbers> {
        self.uplinks.iter().map(|uplink| (uplink.name.clone(), uplink.numbers)).collect()
    }

    /// Gives the uplinks of these names their numbers.
    pub(crate) fn set_uplink_numbers(&mut self, numbers: &BTreeMap<String, UplinkNumbers>) {
        for uplink in &mut self.uplinks {
            uplink.numbers = numbers.get(&uplink.name).copied().unwrap_or(uplink.numbers);
        }
    }

    /// Returns the names of the uplinks by their numbers. The name of a number without an uplink is
    /// empty.
    pub(crate) fn uplink_names_by_number(&self) -> Vec<String> {
        let mut names = Vec::new();
        for uplink in &self.uplinks {
            let number = usize::from(uplink.numbers.uplink);
            names.resize(names.len().max(number + 1), String::new());
            names[number].clone_from(&uplink.name);
        }
        names
    }

    /// Returns this configuration with what only `before` has: the addresses of each uplink behind
    /// its own addresses, and the uplinks behind the other uplinks. An address that an uplink of
    /// this configuration has is not theirs any more.
    pub(crate) fn with_removed_uplinks(&self, before: &Self) -> Self {
        let mut both = self.clone();
        let is_taken =
            |address: &Ipv4Addr| self.uplinks.iter().any(|own| own.addresses.contains(address));
        for removed in &before.uplinks {
            let free = removed.addresses.iter().filter(|address| !is_taken(address));
            let free = free.copied().collect();
            match both.uplinks.iter_mut().find(|own| own.name == removed.name) {
                Some(own) if own.follows_interface || removed.follows_interface => {}
                Some(own) => own.addresses.extend::<Vec<_>>(free),
                None if !removed.follows_interface => {
                    both.uplinks.push(Uplink { addresses: free, ..removed.clone() });
                }
                None => {
                    let mut own = self.uplinks.iter().filter(|own| own.follows_interface);
                    if !own.any(|own| own.interface == removed.interface) {
                        both.uplinks.push(removed.clone());
                    }
                }
            }
        }
        both
    }
}

/// Numbers that are in use, by what has them.
struct Numbers {
    known: BTreeMap<String, u8>,
    taken: BTreeSet<u8>,
}

impl Numbers {
    fn of(known: impl Iterator<Item = (String, u8)>) -> Self {
        let known: BTreeMap<String, u8> = known.collect();
        let taken = known.values().copied().collect();
        Self { known, taken }
    }

    /// Returns the number of a name, or the lowest free number.
    fn number(&mut self, name: &str) -> Result<u8, NoFreeNumber> {
        if let Some(number) = self.known.get(name) {
            return Ok(*number);
        }
        let free = (0..Uplink::MAX as u8).find(|number| !self.taken.contains(number));
        let number = free.ok_or(NoFreeNumber)?;
        self.taken.insert(number);
        self.known.insert(name.to_owned(), number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(uplinks: &[(&str, &str, u8)]) -> Config {
        let uplinks: Vec<String> = uplinks
            .iter()
            .map(|(name, interface, last)| {
                format!(
                    "{{ name: {name}, interface: {interface}, addresses: [203.0.113.{last}], \
                     gateway: 203.0.113.254 }}"
                )
            })
            .collect();
        let text = format!(
            "name: a\ninside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\nuplinks: [{}]\n",
            uplinks.join(", ")
        );
        parse("f.yaml", &text).expect("a good file").config
    }

    fn numbers(config: &Config) -> Vec<(u8, u8)> {
        let numbers = config.uplinks.iter().map(|uplink| uplink.numbers);
        numbers.map(|UplinkNumbers { uplink, interface }| (uplink, interface)).collect()
    }

    #[test]
    fn an_uplink_keeps_its_number_and_no_other_gets_it_in_the_same_step() {
        let first = config(&[("a", "w0", 1), ("b", "w0", 2), ("c", "w1", 3)]);
        assert_eq!(numbers(&first), [(0, 0), (1, 0), (2, 1)]);
        let mut second = config(&[("d", "w2", 4), ("c", "w1", 3)]);
        second.keep_uplink_numbers(&first).unwrap();
        assert_eq!(numbers(&second), [(3, 2), (2, 1)]);
        assert_eq!(second.uplink_names_by_number(), ["", "", "c", "d"]);
        let mut third = config(&[("c", "w1", 3), ("e", "w0", 5), ("d", "w2", 4)]);
        third.keep_uplink_numbers(&second).unwrap();
        assert_eq!(numbers(&third), [(2, 1), (0, 0), (3, 2)], "the next reload may use them");
        let mut parsed = config(&[("d", "w2", 4), ("c", "w1", 3)]);
        parsed.set_uplink_numbers(&second.uplink_numbers());
        assert_eq!(parsed, second);
    }

    #[test]
    fn the_numbers_end() {
        let all: Vec<(String, u8)> =
            (0..Uplink::MAX as u8).map(|number| (format!("u{number}"), number)).collect();
        let of = |list: &[(String, u8)]| {
            let list: Vec<_> = list.iter().map(|(name, last)| (&**name, "w0", *last)).collect();
            config(&list)
        };
        let full = of(&all);
        let mut fewer = of(&all[1..]);
        fewer.keep_uplink_numbers(&full).unwrap();
        let mut other = config(&[("new", "w0", 100)]);
        assert_eq!(other.keep_uplink_numbers(&full), Err(NoFreeNumber));
        other.keep_uplink_numbers(&fewer).unwrap();
        assert_eq!(numbers(&other), [(0, 0)]);
    }

    #[test]
    fn removed_uplinks_come_last_without_the_addresses_of_others() {
        let before = config(&[("a", "w0", 1), ("b", "w1", 2)]);
        let after = config(&[("c", "w0", 1)]);
        let both = after.with_removed_uplinks(&before);
        let names: Vec<&str> = both.uplinks.iter().map(|uplink| &*uplink.name).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert!(both.uplinks[1].addresses.is_empty());
        assert_eq!(both.uplinks[2].addresses, before.uplinks[1].addresses);
        let both = config(&[("a", "w0", 3), ("b", "w1", 1)]).with_removed_uplinks(&before);
        let last = |place: usize| -> Vec<u8> {
            both.uplinks[place].addresses.iter().map(|address| address.octets()[3]).collect()
        };
        assert_eq!((last(0), last(1)), (vec![3], vec![1, 2]), "the own addresses come first");
    }
}

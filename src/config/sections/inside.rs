//! `inside`: the private network, which is one inside leg or several.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueTypeExt as _, section};
use crate::config::types::{Items, network, some};

/// The private network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inside {
    /// Inside legs, at least one, each with an interface of its own. No prefix of one overlaps a
    /// prefix of another.
    pub legs: Vec<InsideLeg>,
}

/// An inside leg: an interface towards the private network, and the prefixes behind the interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InsideLeg {
    /// Interface towards the private network.
    pub interface: String,
    /// The box's own address on that interface, the next hop of the servers; within
    /// [`Self::prefixes`]. None: the configuration does not say, and only a running box knows it.
    pub address: Option<Ipv4Addr>,
    /// Private prefixes behind the interface, at least one; no two overlap.
    pub prefixes: Vec<Ipv4Net>,
}

section! {
    /// The private network behind the box. Several inside legs, such as VLANs, a DMZ or a network
    /// for guests, are a list of such mappings. The host routes packets between inside legs, and
    /// natbox does not see them.
    #[derive(Debug)]
    pub(in crate::config) struct FileInsideLeg {
        /// Interface towards the private network. Each inside leg has an interface of its own.
        pub interface: Required<String> = network::interface()
            .required(
                "the interface towards the private network",
                "add `interface: NAME`; `ip link` lists the names",
            )
            .needs_restart()
            .example("lan0"),
        /// The box's own address on the interface, which is the next hop of the servers. Without
        /// it, `plan` and `doctor` on another host do not know the address.
        pub address: Unresolved<Ipv4Addr> = network::address()
            .optional("the address that a running instance finds on the interface")
            .example("10.0.0.1"),
        /// Private prefixes behind the interface. No two may overlap, even those of different
        /// inside legs.
        pub prefixes: Required<Items<Ipv4Net>> = some(network::unicast_prefix(), MAX_PREFIXES, "prefixes")
            .required(
                "the private prefixes behind the interface",
                "add `prefixes: [10.0.0.0/24]` with your own",
            )
            .example("[10.0.0.0/24]"),
    }
}

impl Inside {
    /// Most inside legs. The kernel compares each packet with the rules of each.
    pub(crate) const MAX_LEGS: usize = 32;

    /// Lists the private prefixes of all legs.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Ipv4Net> {
        self.legs.iter().flat_map(|leg| leg.prefixes.iter().copied())
    }

    /// Returns true for an address of the private network.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.leg_of(address).is_some()
    }

    /// Returns the leg whose prefixes hold an address.
    pub(crate) fn leg_of(&self, address: Ipv4Addr) -> Option<&InsideLeg> {
        self.legs.iter().find(|leg| leg.prefix_of(address).is_some())
    }

    /// Returns the prefix that holds an address.
    pub(crate) fn prefix_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        self.leg_of(address)?.prefix_of(address)
    }

    /// Returns the path of a key of the `place`-th leg as the file writes it: `inside.interface`,
    /// or `inside[1].interface` with several legs.
    pub(crate) fn key_path(&self, place: usize, key: &str) -> String {
        match self.legs.len() {
            1 => format!("inside.{key}"),
            _ => format!("inside[{place}].{key}"),
        }
    }
}

impl InsideLeg {
    /// Returns the prefix of the leg that holds an address.
    pub(crate) fn prefix_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        self.prefixes.iter().find(|prefix| prefix.contains(&address)).copied()
    }
}

impl From<&InsideLeg> for FileInsideLeg {
    fn from(leg: &InsideLeg) -> Self {
        Self {
            interface: Some(Located::without_location(leg.interface.clone())),
            address: Unresolved::from_option(leg.address),
            prefixes: Some(Located::without_location(Items::of(leg.prefixes.iter().copied()))),
        }
    }
}

/// Most private prefixes of one inside leg. Bounds the time of the checks.
const MAX_PREFIXES: usize = 256;

//! `inside`: the private network.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueTypeExt as _, section};
use crate::config::types::{Items, network, some};

/// The private network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inside {
    /// Interface towards the private network.
    pub interface: String,
    /// The box's own address on that interface, the next hop of the servers; within
    /// [`Self::prefixes`]. None: the configuration does not say, and only a running box knows it.
    pub address: Option<Ipv4Addr>,
    /// Private prefixes behind the interface, at least one; no two overlap.
    pub prefixes: Vec<Ipv4Net>,
}

section! {
    /// The private network behind the box.
    #[derive(Debug)]
    pub(in crate::config) struct FileInside {
        /// Interface towards the private network.
        pub interface: Required<String> = network::interface()
            .required(
                "the interface towards the private network",
                "add `interface: NAME`; `ip link` lists the names",
            )
            .example("lan0"),
        /// The box's own address on the interface, which is the next hop of the servers. Without
        /// it, `plan` and `doctor` on another host do not know the address.
        pub address: Unresolved<Ipv4Addr> = network::address()
            .optional("the address that a running box finds on the interface")
            .example("10.0.0.1"),
        /// Private prefixes behind the interface. No two may overlap.
        pub prefixes: Required<Items<Ipv4Net>> = some(network::unicast_prefix(), MAX_PREFIXES, "prefixes")
            .required(
                "the private prefixes behind the interface",
                "add `prefixes: [10.0.0.0/24]` with your own",
            )
            .example("[10.0.0.0/24]"),
    }
}

impl Inside {
    /// Returns the longest prefix that holds an address.
    pub(crate) fn prefix_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let prefixes = self.prefixes.iter().filter(|prefix| prefix.contains(&address));
        prefixes.max_by_key(|prefix| prefix.prefix_len()).copied()
    }
}

impl FileInside {
    /// Returns the prefixes; None if one could not be read.
    pub(crate) fn all_prefixes(&self) -> Option<&[Located<Ipv4Net>]> {
        self.prefixes.as_ref()?.all()
    }

    /// Returns the first of the addresses that an inside prefix holds, with the prefix.
    pub(crate) fn first_inside(&self, addresses: &[Ipv4Addr]) -> Option<(Ipv4Addr, Ipv4Net)> {
        let prefixes = self.all_prefixes()?;
        addresses.iter().find_map(|address| {
            let prefix = prefixes.iter().find(|prefix| prefix.contains(address))?;
            Some((*address, prefix.value))
        })
    }
}

impl From<&Inside> for FileInside {
    fn from(inside: &Inside) -> Self {
        Self {
            interface: Some(Located::without_location(inside.interface.clone())),
            address: Unresolved::from_option(inside.address),
            prefixes: Some(Located::without_location(Items::of(inside.prefixes.iter().copied()))),
        }
    }
}

/// Most private prefixes. Bounds the time of the checks.
const MAX_PREFIXES: usize = 256;

//! What all parts of the step list derive from configuration and facts.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::Config;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::step::Step;

/// The inputs of the step list.
pub(super) struct StepPlanner<'a> {
    pub(super) config: &'a Config,
    pub(super) facts: &'a HostFacts,
    pub(super) ids: &'a RoutingIds,
    /// Name of the TUN.
    pub(super) tun: &'a str,
}

/// An interface and the uplinks that use it.
pub(super) struct OutsideInterface<'a> {
    pub(super) name: &'a str,
    /// Number of the interface, which names its routing table.
    pub(super) number: u8,
    /// Positions of the uplinks in the configuration.
    pub(super) uplinks: Vec<usize>,
}

impl StepPlanner<'_> {
    /// Iterates over the external addresses, each with the position of its uplink.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        let uplinks = self.config.uplinks.iter().enumerate();
        uplinks.flat_map(|(place, uplink)| {
            uplink.addresses.iter().map(move |address| (place, *address))
        })
    }

    /// Lists the interfaces of the uplinks without repeats.
    pub(super) fn outside_interfaces(&self) -> Vec<OutsideInterface<'_>> {
        let mut interfaces: Vec<OutsideInterface<'_>> = Vec::new();
        for (place, uplink) in self.config.uplinks.iter().enumerate() {
            match interfaces.iter_mut().find(|known| known.name == uplink.interface) {
                Some(known) => known.uplinks.push(place),
                None => interfaces.push(OutsideInterface {
                    name: &uplink.interface,
                    number: uplink.numbers.interface,
                    uplinks: vec![place],
                }),
            }
        }
        interfaces
    }

    /// Table for packets that leave by the uplink at a place.
    pub(super) fn table_of(&self, place: usize) -> u32 {
        self.ids.uplink_table(self.config.uplinks[place].numbers.uplink)
    }

    pub(super) fn assigned_to_host(&self, uplink: usize, address: Ipv4Addr) -> bool {
        self.flag(&self.facts.assigned_to_host, uplink, address)
    }

    pub(super) fn on_link(&self, uplink: usize, address: Ipv4Addr) -> bool {
        self.flag(&self.facts.on_link, uplink, address)
    }

    fn flag(&self, flags: &[Vec<bool>], uplink: usize, address: Ipv4Addr) -> bool {
        let mut addresses = self.config.uplinks[uplink].addresses.iter();
        addresses.position(|other| *other == address).is_some_and(|place| flags[uplink][place])
    }
}

/// Makes a sysctl step that every supported kernel knows.
pub(super) fn sysctl(path: impl Into<String>, value: u32) -> Step {
    Step::Sysctl { path: path.into(), value: value.to_string(), optional: false }
}

/// Returns the /32 prefix of an address.
pub(super) fn host_prefix(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

/// Returns the prefix of a default route.
pub(super) fn default_prefix() -> Ipv4Net {
    Ipv4Net::default()
}

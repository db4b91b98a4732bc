//! What the translator would do with another configuration.
//!
//! The host is not read for this: an uplink that stays has its present facts. One that is new has
//! no sessions, so its facts do not matter.

use super::Reloader;
use crate::config::{Config, DynamicAddress, Uplink};
use crate::control::settings;
use crate::host::{self, HostFacts};
use crate::nat::PolicyPreview;

impl Reloader {
    /// Prepares to count the sessions that a configuration would end.
    pub(in crate::control) fn preview(&self, new: &Config) -> PolicyPreview {
        let (before, host) = (self.config(), self.host.borrow());
        let mut new = new.clone();
        // With too many uplinks the reload is refused, and some numbers are those of the file.
        let _ = new.keep_uplink_numbers(&before);
        let place = |uplink: &Uplink| {
            let of_interface = |known: &Uplink| known.interface == uplink.interface;
            let same = |known: &Uplink| known.name == uplink.name && of_interface(known);
            let uplinks = &before.uplinks;
            uplinks.iter().position(same).or_else(|| uplinks.iter().position(of_interface))
        };
        let places: Vec<Option<usize>> = new.uplinks.iter().map(place).collect();
        let address = |place: &Option<usize>| host.addresses.get((*place)?).copied().flatten();
        let addresses: Vec<Option<DynamicAddress>> = places.iter().map(address).collect();
        let resolved = new.resolve(&addresses);
        let probe_addresses = host::probe_addresses(&resolved, &self.routing_ids());
        let facts =
            HostFacts { probe_addresses, ..facts_for(&resolved, &places, &before, &host.facts) };
        let policy = settings::policy(&resolved, &facts, &self.dns_ports.borrow());
        self.parts.engine.preview(settings::limits(&resolved), policy)
    }
}

/// Returns the facts in the order of the uplinks of another configuration. `places`: where the
/// uplinks are in the present one.
fn facts_for(
    new: &Config,
    places: &[Option<usize>],
    before: &Config,
    facts: &HostFacts,
) -> HostFacts {
    let is_assigned = |address: &std::net::Ipv4Addr| {
        facts.addresses_of_host(before).contains(address)
            || facts.legs.iter().chain(&facts.uplinks).any(|one| one.addresses.contains(address))
    };
    let assigned = |uplink: &Uplink| uplink.addresses.iter().map(is_assigned).collect();
    let present = |place: &Option<usize>| place.unwrap_or_default();
    HostFacts {
        uplinks: places.iter().map(|place| facts.uplinks[present(place)].clone()).collect(),
        assigned_to_host: new.uplinks.iter().map(assigned).collect(),
        ..facts.clone()
    }
}

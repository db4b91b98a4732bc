//! The states of the uplinks as the host shows them, at the start and after a reload.

use std::net::Ipv4Addr;

use super::health;
use crate::config::{Config, Uplink};
use crate::host::HostFacts;
use crate::uplinks::{UplinkState, UplinkStates};

/// Returns the states of the uplinks on the host. An uplink is up if packets can leave by it.
pub(super) fn first_states(config: &Config, facts: &HostFacts) -> Vec<UplinkState> {
    let uplinks = config.uplinks.iter().zip(&facts.probe_addresses).enumerate();
    let state = |(index, (uplink, source)): (usize, (&Uplink, &Option<Ipv4Addr>))| {
        let ready = facts.is_ready(config, index);
        UplinkState {
            interface: uplink.interface.clone(),
            address: uplink.addresses.first().copied(),
            source: *source,
            weight: uplink.weight,
            tier: uplink.tier,
            up: ready,
            link_ready: ready,
            reason: (!ready).then(health::link_not_ready),
            ..UplinkState::new(&uplink.name, uplink.numbers.uplink)
        }
    };
    uplinks.map(state).collect()
}

/// Returns the states of the uplinks of a configuration: those that stay as they are now, except
/// the values of the configuration, and the others as at a start.
pub(super) fn states_after_reload(
    config: &Config,
    facts: &HostFacts,
    present: &UplinkStates,
) -> Vec<UplinkState> {
    let state = |new: UplinkState| {
        let known = present.named(&new.name).filter(|known| known.number == new.number);
        let Some(known) = known.cloned() else { return new };
        let UplinkState { interface, address, source, weight, tier, .. } = new;
        UplinkState { interface, address, source, weight, tier, ..known }
    };
    first_states(config, facts).into_iter().map(state).collect()
}

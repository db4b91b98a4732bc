//! Messages about a host that does not fit the configuration.

use super::facts::{HostFacts, InterfaceFacts};
use super::presence::InterfaceState;
use super::snapshot::Snapshot;
use super::target_warnings::target_warnings;
use crate::config::{Config, InsideLeg, Uplink};

/// Lists the conditions that need a person's attention.
pub(super) fn warnings(facts: &HostFacts, config: &Config, snapshot: &Snapshot) -> Vec<String> {
    let mut warnings = Vec::new();
    for (place, (leg, found)) in config.inside.legs.iter().zip(&facts.legs).enumerate() {
        warnings.extend(of_leg(place, leg, found, config, snapshot));
    }
    for (place, (uplink, found)) in config.uplinks.iter().zip(&facts.uplinks).enumerate() {
        let interface_key = format!("uplinks[{place}].interface");
        warnings.extend(state(found).map(|problem| format!("{interface_key}: {problem}")));
        if matches!(found.state, InterfaceState::Missing | InterfaceState::Down) {
            continue;
        }
        warnings.extend(
            unusable_address(uplink, found).map(|problem| format!("{interface_key}: {problem}")),
        );
        warnings.extend(next_hop(place, facts, config));
    }
    warnings.extend(target_warnings(facts, config, snapshot));
    warnings
}

/// Lists what keeps inside hosts from using an inside leg.
fn of_leg(
    place: usize,
    leg: &InsideLeg,
    found: &InterfaceFacts,
    config: &Config,
    snapshot: &Snapshot,
) -> Option<String> {
    let key = |key| config.inside.key_path(place, key);
    let interface = &found.interface;
    match (found.state, leg.address) {
        (InterfaceState::Missing, _) => Some(format!(
            "{}: interface {interface} does not exist, so inside hosts behind it have no next hop",
            key("interface")
        )),
        (InterfaceState::Down, _) => Some(format!(
            "{}: {interface} is down; bring the interface up: ip link set {interface} up",
            key("interface")
        )),
        (_, Some(address)) if !snapshot.has_address(address) => {
            let length = leg.prefix_of(address).map_or(32, |prefix| prefix.prefix_len());
            Some(format!(
                "{}: {address} is not assigned to this host ({interface} has {}), so \
                 the servers' next hop does not answer; correct the key, or run: ip address add \
                 {address}/{length} dev {interface}",
                key("address"),
                found.address.map_or("none".into(), |address| address.to_string()),
            ))
        }
        (_, _) if found.address.is_none() => Some(format!(
            "{}: {interface} has no IPv4 address, so no server can use this box as \
             its next hop; assign an address of {:?}",
            key("interface"),
            leg.prefixes
        )),
        (_, _) => None,
    }
}

fn state(found: &InterfaceFacts) -> Option<String> {
    let name = &found.interface;
    match found.state {
        InterfaceState::Missing => Some(format!(
            "interface {name} does not exist; the uplink is down until the interface exists"
        )),
        InterfaceState::Down => Some(format!(
            "{name} is down, and so is the uplink; bring the interface up: ip link set {name} up"
        )),
        InterfaceState::NoCarrier => {
            Some(format!("{name} has no carrier; check its cable and its peer"))
        }
        InterfaceState::Up => None,
    }
}

/// Reports an uplink that follows its interface and cannot use the interface's address.
fn unusable_address(uplink: &Uplink, found: &InterfaceFacts) -> Option<String> {
    let address = found.address.filter(|_| uplink.follows_interface)?;
    uplink.addresses.is_empty().then(|| {
        format!(
            "{address} of {} cannot be an external address, because it is link-local, of an inside \
             prefix, or of another uplink; give the interface another address",
            found.interface
        )
    })
}

fn next_hop(place: usize, facts: &HostFacts, config: &Config) -> Option<String> {
    let (uplink, found) = (&config.uplinks[place], &facts.uplinks[place]);
    let interface = &found.interface;
    match uplink.gateway {
        Some(gateway) if !found.reaches(gateway) => Some(format!(
            "uplinks[{place}].gateway: {gateway} is on no network of {interface} ({:?}), and \
             natbox treats it as on-link; if no packet leaves, correct the key or the interface's address",
            found.on_link
        )),
        None if !facts.has_way_out(config, place) => Some(format!(
            "uplinks[{place}]: no gateway is configured and {interface} has no default route, so \
             no packet can leave by this uplink; set uplinks[{place}].gateway"
        )),
        Some(_) | None => None,
    }
}

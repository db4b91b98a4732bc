//! The box's own inside addresses that hosts on an outside segment reach.

use std::net::Ipv4Addr;

use super::facts::HostFacts;
use crate::config::Config;

/// An inside address that an outside segment reaches, unless a rule of the host drops the packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExposedAddress {
    /// Interface to the outside segment.
    pub(crate) outside: String,
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// Interface that has the address.
    pub(crate) inside: String,
}

/// Lists the inside addresses that natbox's own filter does not protect.
pub(crate) fn exposed_addresses(config: &Config, facts: &HostFacts) -> Vec<ExposedAddress> {
    if config.host.manage && config.host.block_private {
        return Vec::new();
    }
    let mut exposed = Vec::new();
    for uplink in &config.uplinks {
        for (leg, found) in config.inside.legs.iter().zip(&facts.legs) {
            let Some(address) = leg.address.or(found.address) else { continue };
            let (outside, inside) = (uplink.interface.clone(), leg.interface.clone());
            let address = ExposedAddress { outside, address, inside };
            if !exposed.contains(&address) {
                exposed.push(address);
            }
        }
    }
    exposed
}

/// Returns the commands that close an address. A second run of all but the last does no harm.
pub(crate) fn commands(exposed: &ExposedAddress) -> [String; 3] {
    let ExposedAddress { outside, address, .. } = exposed;
    [
        "nft add table inet outside-filter".to_owned(),
        "nft 'add chain inet outside-filter input { type filter hook input priority -5; }'"
            .to_owned(),
        format!(
            "nft 'add rule inet outside-filter input iifname \"{outside}\" ip daddr {address} drop'"
        ),
    ]
}

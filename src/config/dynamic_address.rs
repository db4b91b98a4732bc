//! Addresses of uplinks that follow their interface, filled in once they are known.

use std::net::Ipv4Addr;

use super::model::Config;
use super::sections::Uplink;

/// The present address of an interface that an uplink follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DynamicAddress {
    /// The interface's own address.
    pub address: Ipv4Addr,
    /// The next hop of the default route through the interface.
    pub gateway: Option<Ipv4Addr>,
}

impl Config {
    /// Returns the addresses that [`Self::resolve`] filled in, one for each uplink; None: the
    /// uplink has fixed addresses, or its interface has none.
    pub(crate) fn dynamic_addresses(&self) -> Vec<Option<DynamicAddress>> {
        let of = |uplink: &Uplink| {
            let address = uplink.addresses.first().filter(|_| uplink.follows_interface)?;
            Some(DynamicAddress { address: *address, gateway: uplink.gateway })
        };
        self.uplinks.iter().map(of).collect()
    }

    /// Returns the configuration with the addresses of the interfaces filled in that uplinks
    /// follow.
    ///
    /// `addresses` has one item for each uplink. None: the interface has no address, so the uplink
    /// publishes nothing.
    pub(crate) fn resolve(&self, addresses: &[Option<DynamicAddress>]) -> Self {
        let mut config = self.clone();
        for (uplink, found) in config.uplinks.iter_mut().zip(addresses) {
            if uplink.follows_interface {
                uplink.addresses = found.iter().map(|found| found.address).collect();
                uplink.gateway = uplink.gateway.or(found.and_then(|found| found.gateway));
            }
        }
        let uplinks = &config.uplinks;
        config.forwards.retain_mut(|forward| {
            let uplink = &uplinks[forward.uplink];
            if uplink.follows_interface {
                forward.address =
                    uplink.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
            }
            !forward.address.is_unspecified()
        });
        config
    }
}

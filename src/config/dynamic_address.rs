//! Where the interfaces are that are followed, and what the configuration amounts to then.

use std::net::Ipv4Addr;

use super::model::Config;
use super::sections::Uplink;

/// Where an interface that is followed is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicAddress {
    /// Its own address.
    pub address: Ipv4Addr,
    /// The next hop of the default route through it.
    pub gateway: Option<Ipv4Addr>,
}

impl Config {
    /// Where the interfaces that are followed are, by [`Self::resolve`].
    pub fn dynamic_addresses(&self) -> Vec<Option<DynamicAddress>> {
        let of = |uplink: &Uplink| {
            let address = uplink.addresses.first().filter(|_| uplink.follows_interface)?;
            Some(DynamicAddress { address: *address, gateway: uplink.gateway })
        };
        self.uplinks.iter().map(of).collect()
    }

    /// The same with the addresses of interfaces that are followed filled in. `whereabouts`: one for each uplink; None: it has
    /// no address at the moment, and publishes nothing.
    pub fn resolve(&self, whereabouts: &[Option<DynamicAddress>]) -> Self {
        let mut config = self.clone();
        for (uplink, found) in config.uplinks.iter_mut().zip(whereabouts) {
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

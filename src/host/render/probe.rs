//! Reads this machine, and decides which of the configurations describe it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Config, InsideLeg};
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::snapshot::Snapshot;

/// How well a configuration fits this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostMatch {
    /// The inside does not fit.
    None,
    /// The interface of an inside leg has a network of the leg's prefixes.
    Inside,
    /// The inside and the interfaces of all uplinks fit.
    All,
}

impl HostMatch {
    pub(super) fn of(config: &Config, snapshot: Option<&Snapshot>) -> Self {
        let Some(snapshot) = snapshot else { return Self::None };
        let networks =
            |name: &str| snapshot.link(name).map(|link| snapshot.on_link(link)).unwrap_or_default();
        let fits = |name: &str, address: &Ipv4Addr| {
            networks(name).iter().any(|network| network.contains(address))
        };
        let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
        let leg_fits = |leg: &InsideLeg| {
            let networks = networks(&leg.interface);
            networks
                .iter()
                .any(|network| leg.prefixes.iter().any(|prefix| overlap(prefix, network)))
        };
        let inside_fits = config.inside.legs.iter().any(leg_fits);
        let uplinks_fit = config.uplinks.iter().all(|uplink| {
            let mut known = uplink.addresses.iter().chain(&uplink.gateway);
            snapshot.link(&uplink.interface).is_some()
                && (known.any(|address| fits(&uplink.interface, address))
                    || uplink.gateway.is_none())
        });
        match (inside_fits, uplinks_fit) {
            (false, _) => Self::None,
            (true, false) => Self::Inside,
            (true, true) => Self::All,
        }
    }
}

/// Reads this machine; None when the kernel does not answer.
///
/// The function uses a thread of its own, because the caller may be inside a tokio runtime.
pub(super) fn probe_host() -> Option<Snapshot> {
    let read = || -> Option<Snapshot> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let snapshot: Result<Snapshot, HostError> =
            runtime.block_on(async { Kernel::connect()?.snapshot().await });
        snapshot.ok()
    };
    std::thread::scope(|scope| scope.spawn(read).join().ok().flatten())
}

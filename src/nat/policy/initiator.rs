//! Who opens a session from inside: an inside host, or the box itself.
//!
//! If an uplink has no answers to its probes, it fails. So probes must get a record and a port even
//! when inside hosts have taken all that they can get. Some of both are kept back for the box.

use std::net::Ipv4Addr;

use crate::nat::policy::rules::Policy;

/// Initiator of a session from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// An inside host.
    InsideHost,
    /// The host of the box, from [`Policy::host_address`].
    Host,
    /// A probe of the box, from a probe address.
    Probe,
}

impl Initiator {
    /// Returns how many of `kept` records or ports that are kept for the box the initiator must
    /// leave free. The host must leave half of them to the probes.
    pub(crate) fn must_leave(self, kept: u32) -> u32 {
        match self {
            Self::InsideHost => kept,
            Self::Host => kept.div_ceil(2),
            Self::Probe => 0,
        }
    }
}

impl Policy {
    /// Reports whether the box itself may open sessions.
    pub(crate) fn has_own_sessions(&self) -> bool {
        self.host_address.is_some()
            || self.uplinks.iter().any(|uplink| uplink.probe_address.is_some())
    }

    /// Returns the initiator of a session whose source is inside.
    #[inline]
    pub(crate) fn initiator(&self, source: Ipv4Addr) -> Initiator {
        // The miss path has dropped packets from link-local addresses that are not the box's.
        if !source.is_link_local() {
            Initiator::InsideHost
        } else if self.host_address == Some(source) {
            Initiator::Host
        } else {
            Initiator::Probe
        }
    }
}

//! Filtering (RFC 4787 section 5): which remote endpoints may send to a mapping without a session
//! of their own.

use crate::nat::mapping::mappings::Mappings;
use crate::packet::{Endpoint, Protocol};
use crate::time::Tick;
use crate::values::nat::EndpointDependence;

impl Mappings {
    /// Whether filtering allows `remote` to send to the mapping at `external` without a session of
    /// its own.
    pub(crate) fn allows(
        &self,
        protocol: Protocol,
        external: Endpoint,
        remote: Endpoint,
        now: Tick,
    ) -> bool {
        let has_pinhole = || {
            let until = self.hairpin_pinholes.get(&(protocol, external, self.filter_scope(remote)));
            until.is_some_and(|until| !now.reached(*until))
        };
        match self.filtering {
            EndpointDependence::EndpointIndependent => true,
            EndpointDependence::AddressDependent => {
                self.peers.contains_key(&(protocol, external, remote.address)) || has_pinhole()
            }
            EndpointDependence::AddressAndPortDependent => has_pinhole(),
        }
    }

    /// Notes that an inside host sent from `external` to the mapping at `target`, and filtering
    /// dropped the packet. Until the pinhole expires, `target` may send back.
    pub(crate) fn open_pinhole(
        &self,
        protocol: Protocol,
        external: Endpoint,
        target: Endpoint,
        now: Tick,
    ) {
        let timeouts = self.settings().timeouts;
        let lifetime = if protocol == Protocol::TCP { timeouts.tcp_syn } else { timeouts.udp };
        if self.hairpin_pinholes.len() < MAX_PINHOLES {
            self.hairpin_pinholes
                .insert((protocol, external, self.filter_scope(target)), now.after(lifetime));
        }
    }

    /// Removes the pinholes whose time is over.
    pub(crate) fn expire_pinholes(&self, now: Tick) {
        if !self.hairpin_pinholes.is_empty() {
            self.hairpin_pinholes.retain(|_, until| !now.reached(*until));
        }
    }

    /// Part of a remote endpoint that filtering compares.
    fn filter_scope(&self, remote: Endpoint) -> Endpoint {
        match self.filtering {
            EndpointDependence::EndpointIndependent
            | EndpointDependence::AddressAndPortDependent => remote,
            EndpointDependence::AddressDependent => Endpoint::new(remote.address, 0),
        }
    }

    /// Counts a session between `external` and `remote`, so that the remote address may send.
    pub(crate) fn add_peer(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == EndpointDependence::AddressDependent {
            *self.peers.entry((protocol, external, remote.address)).or_insert(0) += 1;
        }
    }

    /// Removes one session that [`Self::add_peer`] counted.
    pub(crate) fn remove_peer(&self, protocol: Protocol, external: Endpoint, remote: Endpoint) {
        if self.filtering == EndpointDependence::AddressDependent {
            self.peers.remove_if_mut(&(protocol, external, remote.address), |_, sessions| {
                *sessions -= 1;
                *sessions == 0
            });
        }
    }
}

/// Maximum number of pinholes. When they are in use, filtering drops further packets without a
/// pinhole.
const MAX_PINHOLES: usize = 4096;

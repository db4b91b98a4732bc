//! Filters: predicates over sessions as plain values.

use std::net::Ipv4Addr;

use crate::nat::table::session::{SessionInfo, SessionKind};
use crate::nat::tracking::state::State;
use crate::packet::{Endpoint, Protocol};

/// Predicate over sessions. A session matches when it meets every condition that is set; the
/// default matches every session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Index of the session's uplink.
    pub uplink: Option<u8>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Address of an inside host; a hairpin session has two.
    pub inside_host: Option<Ipv4Addr>,
    /// External endpoint of an inside host.
    pub external: Option<EndpointFilter>,
    /// Remote endpoint. A hairpin session has none, so it does not match.
    pub remote: Option<EndpointFilter>,
    /// State. A session matches when its state has the same name in listings.
    pub state: Option<State>,
    /// Kinds of the two endpoints. A session matches when its kind has the same name in listings.
    pub kind: Option<SessionKind>,
    /// Name of a forward that the session uses.
    pub forward: Option<String>,
    /// Condition that depends on the policy and on the state of the uplinks.
    pub condition: PolicyCondition,
}

/// Predicate over an endpoint. The default matches every endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    /// Address.
    pub address: Option<Ipv4Addr>,
    /// Port; for ICMP the identifier of the query.
    pub port: Option<u16>,
}

/// Condition on a session that depends on the translator's policy and on the state of the uplinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyCondition {
    /// No condition.
    #[default]
    None,
    /// The session could begin again over another uplink that admits new sessions. Hairpin sessions
    /// and sessions of probe addresses never meet this condition.
    HasAlternative,
    /// The session was opened from inside over another uplink, and would use this uplink if it
    /// began now.
    Prefers(u8),
    /// The session meets [`Self::Prefers`], its own uplink is of a higher tier, and it is no TCP
    /// session: its next packet begins a session over this uplink without an error at either end.
    ReturnsFromBackup(u8),
    /// An external address of the session is no longer configured.
    AddressRemoved,
    /// The policy does not allow the session.
    Disallowed,
}

impl Filter {
    /// Sessions over an uplink that could begin again over another one.
    pub fn movable_from(uplink: u8) -> Self {
        let condition = PolicyCondition::HasAlternative;
        Self { uplink: Some(uplink), condition, ..Self::default() }
    }

    /// Sessions from inside over other uplinks that would use this uplink if they began now.
    pub fn preferring(uplink: u8) -> Self {
        Self { condition: PolicyCondition::Prefers(uplink), ..Self::default() }
    }

    /// Sessions of [`Self::preferring`] over uplinks of a higher tier, except TCP sessions.
    pub fn returning_from_backup(uplink: u8) -> Self {
        Self { condition: PolicyCondition::ReturnsFromBackup(uplink), ..Self::default() }
    }

    /// Sessions over external addresses that are no longer configured.
    pub fn address_removed() -> Self {
        Self { condition: PolicyCondition::AddressRemoved, ..Self::default() }
    }

    /// Sessions that the policy does not allow.
    pub fn disallowed() -> Self {
        Self { condition: PolicyCondition::Disallowed, ..Self::default() }
    }

    /// Whether a session meets the conditions on its own values: all but [`Self::forward`] and
    /// [`Self::condition`], which the translator checks.
    pub(crate) fn matches_values(&self, session: &SessionInfo) -> bool {
        let is = |filter: &Option<EndpointFilter>, found: [Option<Endpoint>; 2]| {
            filter.is_none_or(|filter| found.into_iter().flatten().any(|one| filter.matches(one)))
        };
        self.uplink.is_none_or(|uplink| session.uplink == uplink)
            && self.protocol.is_none_or(|protocol| session.original.protocol == protocol)
            && self.inside_host.is_none_or(|host| {
                session.inside_endpoints().into_iter().flatten().any(|end| end.address == host)
            })
            && is(&self.external, session.external_endpoints())
            && is(&self.remote, [session.remote_endpoint(), None])
            && self.state.is_none_or(|state| session.state.name() == state.name())
            && self.kind.is_none_or(|kind| session.origin.name() == kind.name())
    }
}

impl EndpointFilter {
    /// Whether an endpoint matches.
    pub fn matches(self, endpoint: Endpoint) -> bool {
        self.address.is_none_or(|address| endpoint.address == address)
            && self.port.is_none_or(|port| endpoint.port == port)
    }
}

#[cfg(test)]
mod tests;

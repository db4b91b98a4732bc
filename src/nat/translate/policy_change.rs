//! A new policy for a translator whose sessions continue.
//!
//! ```text
//!   with_limits   the same table, mappings, host limits and fragments under new limits and a new
//!                 policy
//!   (the engine swaps the translators; from now on no session begins by the old policy)
//!   enforce       slice by slice: sessions that the policy does not allow end;
//!                 at last ports move between mappings and forwards
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::Policy;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::table::{EndReason, Filter, SessionInfo, TableCursor};
use crate::nat::translator::{Translator, dynamic_addresses, externals, idle_timeouts};
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

/// Remaining work of [`Translator::enforce`] after [`Translator::with_policy`].
#[derive(Debug)]
#[must_use = "sessions that the new policy does not allow go on until it is enforced"]
pub struct Transition {
    /// Endpoints that a forward owns now and none owned before; those that are claimed are removed.
    published: Vec<(Protocol, Endpoint)>,
    /// Endpoints that a forward owned before and none owns now.
    withdrawn: Vec<(Protocol, Endpoint)>,
    /// Start of the next slice; None: the work is complete.
    next: Option<TableCursor>,
    /// Passes over the table that are left for mappings that win a race for a port.
    passes: usize,
}

impl Transition {
    /// Reports whether no work remains.
    pub fn is_complete(&self) -> bool {
        self.next.is_none()
    }
}

impl Translator {
    /// Makes a translator with the same sessions, mappings and limits, and another policy; see
    /// [`Self::with_limits`].
    ///
    /// # Panics
    /// As [`Self::with_limits`].
    pub fn with_policy(&self, policy: Policy) -> (Self, Transition) {
        self.with_rules(Arc::clone(&self.limits), policy)
    }

    /// Makes a translator with the same sessions and mappings, and other limits and another policy.
    ///
    /// Put the translator to work in place of this one, then pass the transition to
    /// [`Self::enforce`]. MTUs stay as [`Self::set_leg_mtu`] and [`Self::set_uplink_mtu`] have set
    /// them, except that of an uplink with a number that was vacant. No other uplink may get the
    /// number of a removed one before the transition is complete: sessions name their uplink by its
    /// number.
    ///
    /// # Panics
    /// If `policy` has another number of legs or too many uplinks. If it has several external
    /// addresses and neither the first policy nor the first limits allow for these. If `limits` has
    /// another `mapping`, `filtering`, `port_overlapping`, `sessions`, `accounting` or
    /// `addresses_may_grow`.
    pub fn with_limits(&self, limits: Limits, policy: Policy, now: Tick) -> (Self, Transition) {
        assert!(limits.can_replace(&self.limits), "these limits are fixed at the start");
        self.table.set_idle_timeouts(&idle_timeouts(&limits));
        self.mappings.set_limits(&limits);
        self.hosts.set(limits.sessions_per_host, limits.new_sessions_per_host);
        self.inbound.set(&limits);
        self.fragments.set(limits.fragments, limits.timeouts.fragment);
        let rate = limits.icmp_errors_per_host;
        let has_same_rate = rate == self.limits.icmp_errors_per_host;
        let (mut translator, transition) = self.with_rules(Arc::new(limits), policy);
        if !has_same_rate {
            translator.icmp_errors = Arc::new(self.icmp_errors.with_rate(rate, now));
        }
        (translator, transition)
    }

    fn with_rules(&self, limits: Arc<Limits>, policy: Policy) -> (Self, Transition) {
        assert_eq!(policy.legs.len(), self.policy.legs.len(), "the number of legs is fixed");
        assert!(policy.uplinks.len() <= Policy::MAX_UPLINKS, "too many uplinks");
        let addresses = policy.uplinks.iter().map(|uplink| uplink.addresses.len());
        assert!(
            self.table.has_related() || addresses.sum::<usize>() <= 1,
            "the table was made for one external address"
        );
        for (number, uplink) in policy.uplinks.iter().enumerate() {
            let before = self.policy.uplinks.get(number);
            if before.is_none_or(|before| before.is_vacant() || before.name != uplink.name) {
                self.uplink_states.set_uplink_mtu(number as u8, uplink.mtu);
            }
        }
        let forwards = Forwards::new(&policy.forwards);
        self.mappings.set_addresses(&policy, &forwards);
        let (had, has) = (owned_ports(&self.policy), owned_ports(&policy));
        let transition = Transition {
            published: has.difference(&had).copied().collect(),
            withdrawn: had.difference(&has).copied().collect(),
            next: Some(TableCursor::default()),
            passes: CLAIM_PASSES,
        };
        let translator = Self {
            table: Arc::clone(&self.table),
            mappings: Arc::clone(&self.mappings),
            hosts: Arc::clone(&self.hosts),
            inbound: Arc::clone(&self.inbound),
            fragments: Arc::clone(&self.fragments),
            identifications: Arc::clone(&self.identifications),
            uplink_states: Arc::clone(&self.uplink_states),
            icmp_errors: Arc::clone(&self.icmp_errors),
            delayed_rejects: Arc::clone(&self.delayed_rejects),
            notifications: Arc::clone(&self.notifications),
            forwards,
            externals: externals(&policy),
            dynamic: dynamic_addresses(&policy),
            hash_seed: self.hash_seed,
            worker_seed: self.worker_seed,
            limits,
            policy,
        };
        (translator, transition)
    }

    /// Does a slice of a transition: ends the sessions that the policy does not allow, and notifies
    /// the inside hosts of those that lost their external address. The last slice moves ports
    /// between dynamic mappings and forwards. Returns the number of ended sessions.
    ///
    /// Call this method until the transition [is complete](Transition::is_complete), and only when
    /// no worker uses the translator before any more. A forward wins over a mapping that has its
    /// port.
    pub fn enforce(&self, transition: &mut Transition, now: Tick) -> usize {
        let Some(from) = transition.next else { return 0 };
        let removed = (Filter::address_removed(), EndReason::AddressRemoved);
        let disallowed = (Filter::disallowed(), EndReason::PolicyChanged);
        let slice = self.end_first_match(&[removed, disallowed], from, now);
        transition.next = slice.next;
        if transition.is_complete() {
            let has_port = |(protocol, endpoint): &(Protocol, Endpoint)| {
                !self.mappings.claim_for_forward(*protocol, *endpoint)
            };
            transition.published.retain(has_port);
            // A mapping may have got a port between its slice and now, since the port was not
            // claimed.
            if !transition.published.is_empty() && transition.passes > 1 {
                transition.passes -= 1;
                transition.next = Some(TableCursor::default());
            } else {
                for (protocol, endpoint) in transition.withdrawn.drain(..) {
                    self.mappings.return_from_forward(protocol, endpoint);
                }
            }
        }
        slice.ended
    }

    /// Reports whether the policy would allow the session if it began now with the same tuples.
    pub(crate) fn permits(&self, session: &SessionInfo) -> bool {
        let is_inside =
            |end: Endpoint| self.is_inside(end.address) || self.is_hosts_own(end.address);
        let mut inside_endpoints = session.inside_endpoints().into_iter().flatten();
        if self.address_removed(session) || !inside_endpoints.all(is_inside) {
            return false;
        }
        let Tuple { protocol, source, destination } = session.original;
        let (inside_end, external_end) = (session.reply.source, session.reply.destination);
        let is_owned = |external| self.forwards.owns(protocol, external);
        let may_go_out = |inside: Endpoint, remote: Endpoint| {
            let rule = self.outbound_rule(inside.address, remote.address);
            let tuple = Tuple { protocol, source: inside, destination: remote };
            self.uplink_of_probe_address(inside.address) == Some(session.uplink)
                || rule.is_some_and(|rule| {
                    rule.uplinks.contains(&session.uplink)
                        || self.is_related_on(tuple, session.uplink, session.last_seen)
                })
        };
        let is_published_source =
            || self.forwards.publishes(protocol, source, session.uplink, external_end);
        let SessionKind { initiator, responder } = session.origin;
        let is_hairpin = initiator.is_inside() && responder.is_inside();
        let from_is_allowed = match initiator {
            EndpointKind::Outside => true,
            // Inside hosts may reach each other without an outbound rule.
            EndpointKind::Mapping | EndpointKind::Address => {
                (is_hairpin || may_go_out(source, destination)) && !is_owned(external_end)
            }
            EndpointKind::Forward => is_published_source(),
            // The session keeps the port of an exposed host as its own.
            EndpointKind::Port => {
                is_published_source()
                    || (is_hairpin || may_go_out(source, destination)) && !is_owned(external_end)
            }
        };
        let to_is_allowed = match responder {
            EndpointKind::Outside => true,
            EndpointKind::Mapping | EndpointKind::Address => {
                may_go_out(inside_end, source) && !is_owned(destination)
            }
            EndpointKind::Forward | EndpointKind::Port => {
                self.forwards.target(protocol, destination) == Some(inside_end)
            }
        };
        let is_bypassed = || {
            let remote = session.remote_endpoint();
            let inside = session.inside_endpoints().into_iter().flatten().next();
            let tuple = inside.zip(remote).map(|(source, destination)| Tuple {
                protocol,
                source,
                destination,
            });
            tuple.is_some_and(|tuple| self.inside_end_of_bypass(tuple).is_some())
        };
        from_is_allowed && to_is_allowed && (self.policy.hairpin || !is_hairpin) && !is_bypassed()
    }
}

/// The ports that forwards own, with the protocols that have ports for services.
fn owned_ports(policy: &Policy) -> HashSet<(Protocol, Endpoint)> {
    let mut published = HashSet::new();
    for forward in policy.forwards.iter().filter(|forward| !forward.is_shared()) {
        for protocol in
            [Protocol::TCP, Protocol::UDP].into_iter().filter(|one| forward.protocol.covers(*one))
        {
            let endpoint = |port| (protocol, Endpoint::new(forward.address, port));
            published.extend(forward.ports.iter().map(endpoint));
        }
    }
    published
}

/// Passes over the table. Each one fails only when a mapping wins a port in a short race. If all
/// fail, the forward still wins every packet.
const CLAIM_PASSES: usize = 16;

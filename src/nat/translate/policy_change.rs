//! New rules for a box whose sessions live on.
//!
//! ```text
//!   with_rules   the same table, mappings, accounts and fragments under other forwards and outbound rules
//!   (the engine puts it to work; from now on nothing new begins by the old rules)
//!   settle       sessions that the new rules do not allow end; ports change hands between mappings and forwards
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::rules::Policy;
use crate::nat::table::session::{EndpointKind, SessionKind};
use crate::nat::table::{SessionId, SessionInfo};
use crate::nat::translator::{Translator, dynamic_addresses, externals};
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

/// What [`Translator::enforce`] has left to do after [`Translator::with_policy`].
#[derive(Debug)]
#[must_use = "sessions that the new policy does not allow go on until it is enforced"]
pub struct Transition {
    /// Endpoints that a forward has now and none had before.
    published: Vec<(Protocol, Endpoint)>,
    /// Endpoints that a forward had before and none has now.
    withdrawn: Vec<(Protocol, Endpoint)>,
}

impl Translator {
    /// Makes a translator with the same sessions, mappings and limits, and another policy.
    ///
    /// Put the translator to work in place of this one, then pass the transition to [`Self::enforce`]. MTUs stay as
    /// [`Self::set_mtu`] has set them.
    ///
    /// # Panics
    /// If `policy` has another number of uplinks: sessions name their uplink by its index.
    pub fn with_policy(&self, policy: Policy) -> (Self, Transition) {
        assert_eq!(
            policy.uplinks.len(),
            self.policy.uplinks.len(),
            "the number of uplinks is fixed"
        );
        self.mappings.set_addresses(&policy);
        let (had, has) = (published_ports(&self.policy), published_ports(&policy));
        let transition = Transition {
            published: has.difference(&had).copied().collect(),
            withdrawn: had.difference(&has).copied().collect(),
        };
        let translator = Self {
            table: Arc::clone(&self.table),
            mappings: Arc::clone(&self.mappings),
            hosts: Arc::clone(&self.hosts),
            fragments: Arc::clone(&self.fragments),
            identifications: Arc::clone(&self.identifications),
            uplink_states: Arc::clone(&self.uplink_states),
            icmp_errors: Arc::clone(&self.icmp_errors),
            delayed_rejects: Arc::clone(&self.delayed_rejects),
            notifications: Arc::clone(&self.notifications),
            forwards: Forwards::new(&policy.forwards),
            externals: externals(&policy),
            dynamic: dynamic_addresses(&policy),
            hash_seed: self.hash_seed,
            worker_seed: self.worker_seed,
            limits: Arc::clone(&self.limits),
            policy,
        };
        (translator, transition)
    }

    /// Ends the sessions that the policy does not allow, and moves ports between dynamic mappings and forwards.
    ///
    /// Call it when no worker uses the translator before any more. A forward wins over a mapping that has its port.
    /// Returns the number of ended sessions.
    pub fn enforce(&self, transition: Transition, now: Tick) -> usize {
        let mut ended = self.end_disallowed(now);
        for (protocol, endpoint) in transition.published {
            // A mapping may have got the port between the purge and now, since it was not kept yet.
            for _ in 0..RESERVE_TRIES {
                if self.mappings.claim_for_forward(protocol, endpoint) {
                    break;
                }
                ended += self.end_disallowed(now);
            }
        }
        for (protocol, endpoint) in transition.withdrawn {
            self.mappings.return_from_forward(protocol, endpoint);
        }
        ended
    }

    /// Ends every session that the rules do not allow.
    fn end_disallowed(&self, now: Tick) -> usize {
        let mut doomed: Vec<SessionId> = Vec::new();
        let mut ended = 0;
        let mut place = Some((0, 0));
        while let Some(from) = place {
            place = self.table.list(from, SLICE, |session| {
                if !self.permits(&session) {
                    doomed.push(session.id);
                }
            });
            for id in doomed.drain(..) {
                if let Some(session) = self.table.end(id) {
                    self.release(&session, now);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Whether a session could begin, as it is, by the rules.
    fn permits(&self, session: &SessionInfo) -> bool {
        if self.address_removed(session) {
            return false;
        }
        let Tuple { protocol, source, destination } = session.original;
        let (inside_end, external_end) = (session.reply.source, session.reply.destination);
        let is_published = |external| self.forwards.target(protocol, external).is_some();
        let may_go_out = |inside: Endpoint, remote: Endpoint| {
            let rule = self.outbound_rule(inside.address, remote.address);
            self.uplink_of_probe_address(inside.address) == Some(session.uplink)
                || rule.is_some_and(|rule| rule.uplinks.contains(&session.uplink))
        };
        let SessionKind { initiator, responder } = session.origin;
        let is_hairpin = initiator.is_inside() && responder.is_inside();
        let from_is_allowed = match initiator {
            EndpointKind::Outside => true,
            // Inside hosts reach one another whether they may go out or not.
            EndpointKind::Mapping | EndpointKind::Address => {
                (is_hairpin || may_go_out(source, destination)) && !is_published(external_end)
            }
            EndpointKind::Forward => {
                let published = self.forwards.published(protocol, source, Some(session.uplink));
                published == Some((session.uplink, external_end))
            }
        };
        let to_is_allowed = match responder {
            EndpointKind::Outside => true,
            EndpointKind::Mapping | EndpointKind::Address => {
                may_go_out(inside_end, source) && !is_published(destination)
            }
            EndpointKind::Forward => {
                self.forwards.target(protocol, destination) == Some(inside_end)
            }
        };
        from_is_allowed && to_is_allowed && (self.policy.hairpin || !is_hairpin)
    }
}

/// The ports that forwards own, with the protocols that have ports for services.
fn published_ports(policy: &Policy) -> HashSet<(Protocol, Endpoint)> {
    let mut published = HashSet::new();
    for forward in &policy.forwards {
        for protocol in
            [Protocol::TCP, Protocol::UDP].into_iter().filter(|one| forward.protocol.covers(*one))
        {
            let endpoint = |port| (protocol, Endpoint::new(forward.address, port));
            published.extend(forward.ports.iter().map(endpoint));
        }
    }
    published
}

/// Each fails only when a mapping wins the port in a moment's race. If all do, the forward still wins every packet.
const RESERVE_TRIES: usize = 16;
/// Records looked at under one lock.
const SLICE: u32 = 1024;

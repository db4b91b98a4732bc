//! Decides what happens to a packet. Nothing here changes any state.
//!
//! ```text
//!                      destination is external                destination is not
//!   source inside      hairpin                                outbound
//!   source outside     forward, mapping, or the host          dropped
//! ```
//!
//! [`Translator::decide`] decides about a packet that might arrive. The miss path decides by the
//! same rules about a packet that has arrived, and then commits the decision (see
//! [`crate::nat::translate::slow_path`]). The commit reserves ports and records, which another
//! worker may take first.
//!
//! The functions of the miss path are inlined into one: a `Decision` that passes through memory
//! costs 5 ns a new session (`cargo bench --bench engine new-forward`).

mod decision;
mod foresight;
mod precedence;
#[cfg(test)]
pub(in crate::nat::translate) mod tests;

use std::net::Ipv4Addr;

use crate::nat::policy::forwards::PublishedEndpoint;
use crate::nat::table::key::Key;
use crate::nat::translator::{External, Translator};
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

use decision::Receiver;
pub use decision::{
    Content, Decision, ErrorRewrite, ExternalEndpoint, FragmentRewrite, Opening, Path, Query,
    Rewrite, Server,
};

impl Translator {
    /// Decides about a packet without a session.
    #[inline(always)]
    pub(crate) fn decide_unmatched(&self, query: &Query, now: Tick) -> Decision {
        let Tuple { source, destination, .. } = query.tuple;
        let (source, destination) = (source.address, destination.address);
        let is_hosts = self.is_hosts_own(source);
        if is_martian(source) && !is_hosts || is_martian(destination) || source == destination {
            return Decision::Drop(DropReason::Martian);
        }
        if self.inside_end_of_bypass(query.tuple).is_some() {
            return Decision::Bypass(query.tuple);
        }
        let decision = match (self.is_inside(source) || is_hosts, self.external(destination)) {
            (true, None) => self.decide_outbound(query, now),
            (true, Some(external)) => self.decide_hairpin(query, external),
            (false, Some(external)) => self.decide_inbound(query, external, now),
            (false, None) => Err(DropReason::SourceNotAllowed),
        };
        match decision {
            Ok(decision) => decision,
            Err(reason) => self.decide_dropped(destination, reason),
        }
    }

    /// Decides about a packet that is dropped for `reason` unless the host has the destination
    /// address.
    fn decide_dropped(&self, destination: Ipv4Addr, reason: DropReason) -> Decision {
        let may_be_hosts = matches!(reason, DropReason::NoMapping | DropReason::Filtered);
        if may_be_hosts && self.is_assigned(destination) {
            Decision::PassToHost
        } else {
            Decision::Drop(reason)
        }
    }

    #[inline(always)]
    fn decide_outbound(&self, query: &Query, now: Tick) -> Result<Decision, DropReason> {
        let tuple = query.tuple;
        let related = self.related_place(tuple, now);
        let chosen = self.select_uplink(&tuple, related);
        let of_related = match related {
            Some(place) => self.forwards.published_at(tuple.protocol, tuple.source, place.address),
            None => None,
        };
        let published =
            of_related.or_else(|| self.forwards.published(tuple.protocol, tuple.source, chosen));
        if let Some(PublishedEndpoint { uplink, external, .. }) = published
            && self.answers_without_session(tuple.protocol, tuple.source)
        {
            let to = Tuple { source: external, ..tuple };
            return Ok(Decision::Stateless(Rewrite { to, inside: false, uplink }));
        }
        let state = query.opening_state();
        let (uplink, state, external) = match (published, state) {
            (None, state) => {
                let uplink = chosen.ok_or(DropReason::NoOutboundRule)?;
                let address = related.map(|place| place.address);
                (uplink, state?, self.dynamic_endpoint(tuple, uplink, address)?)
            }
            (Some(published), Ok(state)) if of_related.is_some() => {
                self.source_at(tuple, state, &published)
            }
            (Some(published), Ok(state)) => {
                self.source_of_server(tuple, state, published, chosen)?
            }
            // After a restart, the server of a forward continues a connection midstream.
            (
                Some(published),
                Err(DropReason::TcpWithoutSession | DropReason::IcmpUnsolicitedReply),
            ) => return self.decide_midstream(query, &published),
            (Some(_), Err(reason)) => return Err(reason),
        };
        let remote = related.map_or(tuple.destination, |place| place.remote);
        Ok(Decision::Open(Opening {
            tuple,
            uplink,
            state,
            path: Path::Outbound { external, remote },
        }))
    }

    /// Decides about a midstream packet of a published server that has no session.
    ///
    /// If the server has several published endpoints, only the client's next packet shows which one
    /// the connection uses. Until then the server's packets are dropped, because they could leave
    /// from a wrong address.
    fn decide_midstream(
        &self,
        query: &Query,
        published: &PublishedEndpoint,
    ) -> Result<Decision, DropReason> {
        let PublishedEndpoint { uplink, external, is_shared } = *published;
        if self.is_published_more_than_once(query.tuple) {
            return Err(DropReason::UplinkUnknown);
        }
        if is_shared && self.mappings.exists(query.tuple.protocol, external) {
            return Err(DropReason::TcpWithoutSession);
        }
        Ok(match query.midstream_state() {
            Some(state) => Decision::Open(Opening {
                tuple: query.tuple,
                uplink,
                state,
                path: Path::Midstream { published: external },
            }),
            None => Decision::Stateless(Rewrite {
                to: Tuple { source: external, ..query.tuple },
                inside: false,
                uplink,
            }),
        })
    }

    fn decide_hairpin(&self, query: &Query, external: External) -> Result<Decision, DropReason> {
        let tuple = query.tuple;
        let is_mapped = || self.mappings.exists(tuple.protocol, tuple.destination);
        let server = match self.receiver(query, external) {
            Receiver::Server(server) => Some(server),
            Receiver::Mapping if !external.assigned_to_host || is_mapped() => None,
            // A packet from inside to an address of the host is for the host itself, even
            // midstream: the host's replies do not pass the translator.
            Receiver::Host | Receiver::Mapping => return Ok(Decision::PassToHost),
        };
        if !self.policy.hairpin {
            return Err(DropReason::HairpinDisabled);
        }
        let state = query.opening_state()?;
        let uplink = external.uplink;
        let external = match self.forwards.published(tuple.protocol, tuple.source, Some(uplink)) {
            Some(published) if published.uplink == uplink => {
                self.published_source(tuple, &published)
            }
            Some(_) | None => self.dynamic_endpoint(tuple, uplink, None)?,
        };
        Ok(Decision::Open(Opening {
            tuple,
            uplink,
            state,
            path: Path::Hairpin { external, server },
        }))
    }

    #[inline(always)]
    fn decide_inbound(
        &self,
        query: &Query,
        external: External,
        now: Tick,
    ) -> Result<Decision, DropReason> {
        let Tuple { protocol, source, destination } = query.tuple;
        if self.external(source.address).is_some() {
            return Err(DropReason::Martian);
        }
        match self.receiver(query, external) {
            Receiver::Server(server) => {
                return self.decide_forward(query, external.uplink, server, now);
            }
            Receiver::Host => return Ok(Decision::PassToHost),
            Receiver::Mapping => {}
        }
        let state = query.opening_state().map_err(|reason| {
            // The packet may answer the host, which has picked the port of a mapping meanwhile.
            match self.mappings.exists(protocol, destination)
                && !self.mappings.is_hosts(protocol, destination)
            {
                true => reason,
                false => self.without_mapping(),
            }
        })?;
        let mapping = self
            .mappings
            .at_external(protocol, destination, source)
            .ok_or_else(|| self.without_mapping())?;
        let refreshed = self.refreshed(protocol, mapping.refreshed, now);
        self.admit(protocol, destination, source, refreshed, now)?;
        let path = Path::Mapping { inside: mapping.key.inside };
        Ok(Decision::Open(Opening { tuple: query.tuple, uplink: external.uplink, state, path }))
    }

    #[inline(always)]
    fn decide_forward(
        &self,
        query: &Query,
        uplink: u8,
        server: Server,
        now: Tick,
    ) -> Result<Decision, DropReason> {
        if self.answers_without_session(query.tuple.protocol, server.endpoint) {
            let to = Tuple { destination: server.endpoint, ..query.tuple };
            return Ok(Decision::Stateless(Rewrite { to, inside: true, uplink }));
        }
        match (query.opening_state(), query.midstream_state()) {
            (Ok(state), _) | (Err(DropReason::TcpWithoutSession), Some(state)) => {
                Ok(Decision::Open(Opening {
                    tuple: query.tuple,
                    uplink,
                    state,
                    path: Path::Forward { server },
                }))
            }
            // An RST or FIN of a connection whose session is lost. The server still has the
            // connection.
            (Err(reason @ DropReason::TcpWithoutSession), None) => {
                let to = Tuple { destination: server.endpoint, ..query.tuple };
                self.stateless_request(to, uplink, reason, now).map(Decision::Stateless)
            }
            (Err(reason), _) => Err(reason),
        }
    }

    /// Decides about a client's packet that cannot have a session: the packet is forwarded to the
    /// server as `to`.
    ///
    /// If a session over another published endpoint has this tuple, the packet is dropped for
    /// `reason`: the server would reply over that session.
    pub(crate) fn stateless_request(
        &self,
        to: Tuple,
        uplink: u8,
        reason: DropReason,
        now: Tick,
    ) -> Result<Rewrite, DropReason> {
        match self.table.lookup(Key::of(to.reversed()), now) {
            Some(_) => Err(reason),
            None => Ok(Rewrite { to, inside: true, uplink }),
        }
    }

    /// Returns the external endpoint of an inside endpoint without a forward: on the address
    /// `related`, otherwise on the address of the host.
    fn dynamic_endpoint(
        &self,
        tuple: Tuple,
        uplink: u8,
        related: Option<Ipv4Addr>,
    ) -> Result<ExternalEndpoint, DropReason> {
        let address = related.or_else(|| self.external_address(uplink, tuple.source.address));
        let address = address.ok_or(DropReason::PortsExhausted)?;
        Ok(match has_ports(tuple.protocol) {
            true => ExternalEndpoint::Mapping(address),
            false => ExternalEndpoint::Address(address),
        })
    }

    /// Reports whether packets of this published endpoint need no session: it is a UDP service of
    /// the host itself at a probe address, such as the name server. The address identifies the
    /// uplink, and the only published endpoint gives the source of the answer. So a flood of
    /// queries with forged sources takes no record.
    fn answers_without_session(&self, protocol: Protocol, server: Endpoint) -> bool {
        protocol == Protocol::UDP
            && self.uplink_of_probe_address(server.address).is_some()
            && !self.forwards.published_more_than_once(protocol, server)
    }

    /// Reports whether the source of a tuple is a server with more than one published endpoint.
    pub(crate) fn is_published_more_than_once(&self, tuple: Tuple) -> bool {
        self.forwards.published_more_than_once(tuple.protocol, tuple.source)
    }
}

/// Reports whether the sessions of a protocol have ports or identifiers.
pub(crate) fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP)
}

/// Reports whether an address is never translated: an address of no single host (RFC 1812 section
/// 5.3.7), or a link-local address (RFC 3927 section 7).
pub(crate) fn is_martian(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}

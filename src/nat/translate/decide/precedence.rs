//! Chooses the receiver of a packet to an external endpoint without a session, and the external
//! endpoint from which a published server sends.
//!
//! ```text
//!   1  a forward that owns its ports: a single port or a narrow range
//!   2  the host, if it has the address as well and uses the port itself
//!   3  a live mapping of an inside host, or of a probe of the box
//!   4  a forward that shares its ports: a very wide range, then an exposed host
//! ```
//!
//! A session of rank 4 holds its external port, so that no mapping gets the port while the session
//! lives. Clients outside cannot hold the ports that the pool keeps back for mappings.

use crate::nat::policy::forwards::PublishedEndpoint;
use crate::nat::shared::uplink_states::{AdmitNew, Usability};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::translate::decide::decision::Receiver;
use crate::nat::translate::decide::{Content, ExternalEndpoint, Query, Server, has_ports};
use crate::nat::translator::{External, Translator};
use crate::nat::verdict::DropReason;
use crate::packet::{Endpoint, Protocol, Tuple};

impl Translator {
    /// Returns the receiver of a packet to an external address.
    #[inline(always)]
    pub(super) fn receiver(&self, query: &Query, external: External) -> Receiver {
        let Tuple { protocol, destination, .. } = query.tuple;
        match self.forwards.at(protocol, destination) {
            None => Receiver::Mapping,
            Some(server) if !server.is_shared => {
                Receiver::Server(Server { endpoint: server.inside, holds_port: false })
            }
            Some(server) => self.receiver_of_shared(query, external, server.inside),
        }
    }

    /// Returns the receiver of a packet to an endpoint that a forward shares with mappings.
    #[cold]
    fn receiver_of_shared(&self, query: &Query, external: External, server: Endpoint) -> Receiver {
        let Tuple { protocol, destination, .. } = query.tuple;
        if external.assigned_to_host && self.is_for_host(query) {
            return Receiver::Host;
        }
        let has_services = matches!(protocol, Protocol::TCP | Protocol::UDP);
        if has_services && self.mappings.exists(protocol, destination) {
            return Receiver::Mapping;
        }
        let holds_port = has_services
            && !self.mappings.is_kept_back(protocol, destination)
            && self.mappings.may_hold(protocol, destination);
        Receiver::Server(Server { endpoint: server, holds_port })
    }

    /// Reports whether a packet without a session to an address of the host is for the host itself:
    /// it may answer a packet of the host, or go to a program there.
    fn is_for_host(&self, query: &Query) -> bool {
        let Tuple { protocol, destination, .. } = query.tuple;
        let opens = match query.content {
            Content::Tcp(flags) => TcpState::opening(flags).is_some(),
            Content::IcmpReply => return true,
            Content::Udp | Content::IcmpRequest | Content::Other | Content::FirstFragment => false,
        };
        match protocol {
            Protocol::ICMP => query.opening_state().is_err(),
            // A SYN in the host's own range answers nothing.
            Protocol::TCP if opens => self.mappings.has_listener(protocol, destination),
            _ if self.mappings.exists(protocol, destination) => {
                self.mappings.is_used_by_host(protocol, destination)
            }
            _ => self.mappings.is_hosts(protocol, destination),
        }
    }

    /// Reports whether packets from an external endpoint that a forward publishes may also come
    /// from another sender: a mapping that shares the port, or the host.
    pub(crate) fn has_other_sender(&self, protocol: Protocol, external: Endpoint) -> bool {
        let is_hosts = match protocol {
            Protocol::ICMP => external.port != 0,
            _ => self.mappings.is_hosts(protocol, external),
        };
        self.mappings.exists(protocol, external) || is_hosts && self.is_assigned(external.address)
    }

    /// Returns the uplink, the first state and the external endpoint of a session that a published
    /// server opens.
    ///
    /// The session leaves by `chosen` if the server is published there, otherwise by an uplink
    /// where it is published, so that it keeps its published address. If `chosen` is more usable
    /// than all of these uplinks, or all are backups, the session uses a mapping there. `first` is
    /// one of the published endpoints.
    pub(super) fn source_of_server(
        &self,
        tuple: Tuple,
        state: State,
        first: PublishedEndpoint,
        chosen: Option<u8>,
    ) -> Result<(u8, State, ExternalEndpoint), DropReason> {
        let alternative = chosen.filter(|chosen| self.is_usable(*chosen));
        let usable_as = |usability: Usability| {
            self.preferred_endpoint(tuple.protocol, tuple.source, chosen, |published| {
                self.begins_at(tuple.protocol, published, usability)
                    && !self.is_backup(published, alternative)
            })
        };
        let least = alternative.map_or(Usability::LastResort, |chosen| self.usability(chosen));
        let published = usable_as(Usability::Open).or_else(|| usable_as(least));
        if let (None, Some(uplink)) = (published, alternative) {
            return Ok((uplink, state, self.dynamic_endpoint(tuple, uplink, None)?));
        }
        Ok(self.source_at(tuple, state, &published.unwrap_or(first)))
    }

    /// Returns the uplink, the first state and the external endpoint of a session that a server
    /// opens at a published endpoint.
    pub(super) fn source_at(
        &self,
        tuple: Tuple,
        state: State,
        published: &PublishedEndpoint,
    ) -> (u8, State, ExternalEndpoint) {
        let external = self.published_source(tuple, published);
        // The packet may open a session, or reply to a request whose session is lost.
        let may_reply = state == State::Udp
            && !matches!(external, ExternalEndpoint::Mapping(_))
            && self.is_published_more_than_once(tuple);
        let state = if may_reply { State::Tentative } else { state };
        (published.uplink, state, external)
    }

    /// Returns the published endpoint from which a server opens sessions: on `chosen` if it is
    /// published there, otherwise the first one. Only endpoints that meet `may_begin` count.
    pub(crate) fn preferred_endpoint(
        &self,
        protocol: Protocol,
        server: Endpoint,
        chosen: Option<u8>,
        may_begin: impl Fn(&PublishedEndpoint) -> bool,
    ) -> Option<PublishedEndpoint> {
        let endpoints = self.forwards.published_endpoints(protocol, server).filter(may_begin);
        endpoints.min_by_key(|published| Some(published.uplink) != chosen)
    }

    /// Reports whether an exposed host does not open sessions at a published endpoint, because the
    /// uplink is a backup for `alternative`. A single published port is for replies as well.
    pub(crate) fn is_backup(&self, published: &PublishedEndpoint, alternative: Option<u8>) -> bool {
        published.is_shared
            && alternative.is_some_and(|other| {
                self.tier(other) < self.tier(published.uplink)
                    && self.usability(other) <= self.usability(published.uplink)
            })
    }

    /// Reports whether new sessions may begin at a published endpoint: its uplink is as usable as
    /// `least`, or admits known endpoints and this one has a live session.
    fn begins_at(
        &self,
        protocol: Protocol,
        published: &PublishedEndpoint,
        least: Usability,
    ) -> bool {
        let is_known = || {
            self.uplink_states.admission(published.uplink) == AdmitNew::KnownEndpoints
                && self.mappings.is_held(protocol, published.external)
        };
        self.usability(published.uplink) <= least || is_known()
    }

    fn usability(&self, uplink: u8) -> Usability {
        self.uplink_states.usability(uplink)
    }

    /// Returns the external endpoint of a session that a server opens at a published endpoint. If
    /// the endpoint shares its ports, the server may have a mapping instead, or need one because
    /// another host has the port.
    pub(super) fn published_source(
        &self,
        tuple: Tuple,
        published: &PublishedEndpoint,
    ) -> ExternalEndpoint {
        let PublishedEndpoint { uplink, external, is_shared } = *published;
        let Tuple { protocol, source, destination } = tuple;
        if !is_shared || !has_ports(protocol) {
            return ExternalEndpoint::Published(external);
        }
        let key = self.mappings.key(protocol, uplink, source, destination);
        if self.mappings.contains(key) || !self.mappings.may_hold(protocol, external) {
            ExternalEndpoint::Mapping(external.address)
        } else {
            ExternalEndpoint::Port(external)
        }
    }
}

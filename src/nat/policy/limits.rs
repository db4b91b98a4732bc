//! Sizes, timeouts and the behaviour of mappings.

use std::num::NonZeroU32;

use ipnet::Ipv4Net;

use crate::time::Span;
use crate::values::nat::{EndpointDependence, PortRange};

/// Sizes, timeouts and behaviour of a translator.
///
/// [`Translator::with_limits`](crate::nat::Translator::with_limits) changes those that do not
/// decide what the records of live sessions mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Prefixes of the private realm.
    pub inside: Vec<Ipv4Net>,
    /// Mapping behaviour (RFC 4787 section 4.1).
    pub mapping: EndpointDependence,
    /// Filtering behaviour (RFC 4787 section 5).
    pub filtering: EndpointDependence,
    /// External ports for dynamic mappings.
    pub ports: PortRange,
    /// True: a host whose external address has no free port may use another address of the uplink
    /// (RFC 7857 section 4).
    pub paired_soft: bool,
    /// True: UDP mappings keep the lowest bit of the port (RFC 4787 REQ-4).
    pub port_parity: bool,
    /// True: mappings towards different destinations may share an external port (RFC 7857 section
    /// 3).
    pub port_overlapping: bool,
    /// True: packets from outside refresh dynamic UDP mappings (RFC 4787 REQ-6a).
    pub inbound_refresh: bool,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Capacity of the session table, in sessions, exact.
    pub sessions: u32,
    /// True: a later policy may have several external addresses, even if the first one has one. The
    /// table then reserves 12 to 16 bytes a session for the lists of related sessions.
    pub addresses_may_grow: bool,
    /// True: the table counts packets and bytes of each session, at 64 bytes of memory a session.
    pub accounting: bool,
    /// Maximum number of open sessions of one inside host. None: no limit.
    pub sessions_per_host: Option<NonZeroU32>,
    /// Maximum number of new sessions per second of one inside host. None: no limit.
    pub new_sessions_per_host: Option<NonZeroU32>,
    /// Maximum number of fragmented datagrams that are tracked at the same time.
    pub fragments: u32,
    /// Maximum number of freed ports that wait for their last holders, on each external address and
    /// for each protocol.
    pub delayed_ports: u32,
    /// Maximum number of ICMP errors per second to one host. None: no limit.
    pub icmp_errors_per_host: Option<NonZeroU32>,
}

impl Limits {
    /// Makes limits for one inside prefix: 1,024 sessions, the default timeouts of the
    /// configuration, and no limit for a single host.
    pub fn new(inside: Ipv4Net) -> Self {
        Self {
            inside: vec![inside],
            mapping: EndpointDependence::EndpointIndependent,
            filtering: EndpointDependence::AddressAndPortDependent,
            ports: PortRange { first: 1024, last: 65535 },
            paired_soft: false,
            port_parity: true,
            port_overlapping: false,
            inbound_refresh: true,
            timeouts: Timeouts {
                tcp_established: Span::seconds(7440),
                tcp_transitory: Span::seconds(240),
                tcp_syn: Span::seconds(30),
                udp: Span::seconds(300),
                udp_dns: Span::seconds(10),
                icmp: Span::seconds(60),
                fragment: Span::seconds(15),
                port_reuse_delay: None,
            },
            sessions: 1024,
            addresses_may_grow: false,
            accounting: false,
            sessions_per_host: None,
            new_sessions_per_host: None,
            fragments: 64,
            delayed_ports: 0,
            icmp_errors_per_host: None,
        }
    }

    /// Reports whether a running translator can take these limits in place of `before`. The values
    /// that must be the same decide how much memory is reserved and what a record means.
    pub(crate) fn can_replace(&self, before: &Self) -> bool {
        let fixed = |limits: &Self| {
            let Self { mapping, filtering, port_overlapping, sessions, .. } = *limits;
            let reserved = (sessions, limits.accounting, limits.addresses_may_grow);
            (mapping, filtering, port_overlapping, reserved)
        };
        fixed(self) == fixed(before)
    }
}

/// Idle timeouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp_established: Span,
    /// TCP connections that open, close or were reset.
    pub tcp_transitory: Span,
    /// TCP connections of which only one side has sent a SYN.
    pub tcp_syn: Span,
    /// UDP.
    pub udp: Span,
    /// UDP to port 53 after the reply.
    pub udp_dns: Span,
    /// ICMP queries.
    pub icmp: Span,
    /// Datagrams of which fragments are missing.
    pub fragment: Span,
    /// Time during which a freed port waits for its last holder (RFC 6888 REQ-8). None: the port is
    /// free at once.
    pub port_reuse_delay: Option<Span>,
}

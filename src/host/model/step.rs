//! One change on the host, as plain data.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Protocol number of natbox's routes and rules (`rtm_protocol`, `FRA_PROTOCOL`).
///
/// The number tells natbox's entries from those of other programs. iproute2's `rt_protos` does not
/// list it, and the kernel's own numbers (up to `RTPROT_STATIC`) are lower.
pub(crate) const RTPROT_NATBOX: u8 = 110;

/// The kernel's main table.
pub(crate) const TABLE_MAIN: u32 = 254;
/// The kernel's table of the host's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;

/// MTU of the TUN in bytes: the largest IPv4 packet, so that the kernel never fragments into the
/// TUN.
pub(crate) const TUN_MTU: u32 = 65535;
/// Length of the TUN's transmit queue, in packets. A super-packet counts once.
pub(crate) const TUN_QUEUE_LENGTH: u32 = 1000;

/// One change, complete enough to be made, compared, removed and printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Sets MTU and queue length of the TUN and brings the TUN up. The settings vanish with the
    /// device, so nothing has to be removed.
    BringUpTun {
        /// Interface name.
        device: String,
    },
    /// Gives an interface a /32 address of link scope.
    Address {
        /// Interface name.
        device: String,
        /// Address.
        address: Ipv4Addr,
    },
    /// Writes a sysctl.
    Sysctl {
        /// Path below `/proc/sys`, with slashes, since interface names may contain dots.
        path: String,
        /// Wanted value.
        value: String,
        /// True when some kernels lack the sysctl. A missing optional sysctl counts as set.
        optional: bool,
    },
    /// Adds a route.
    Route(Route),
    /// Adds a policy rule.
    Rule(Rule),
    /// Answers ARP for an address on an interface.
    ProxyNeighbour {
        /// Address to answer for.
        address: Ipv4Addr,
        /// Interface on which to answer.
        device: String,
    },
    /// Deletes the kernel's `local` rule at priority 0. An earlier step has added a `local` rule
    /// after natbox's rules, so the host has such a rule at every moment.
    RemoveDefaultLocalRule,
}

impl Step {
    /// Returns true for a step that all natbox instances of a network namespace have in common.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Step::Sysctl { .. } | Step::RemoveDefaultLocalRule => true,
            // The rules that only these two tables determine.
            Step::Rule(rule) => match rule.action {
                RuleAction::Lookup(TABLE_LOCAL) => rule.to.is_none(),
                RuleAction::Lookup(table) => table == TABLE_MAIN,
                RuleAction::Blackhole => false,
            },
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::ProxyNeighbour { .. } => false,
        }
    }

    /// Returns the interface that the change lives and dies with. A rule survives its interface.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Step::BringUpTun { device }
            | Step::Address { device, .. }
            | Step::ProxyNeighbour { device, .. } => Some(device),
            Step::Route(route) => route.device.as_deref(),
            Step::Sysctl { .. } | Step::Rule(_) | Step::RemoveDefaultLocalRule => None,
        }
    }
}

/// An IPv4 route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Table.
    pub table: u32,
    /// Effect on matching packets.
    pub kind: RouteKind,
    /// Destination.
    pub to: Ipv4Net,
    /// Outgoing interface; only for [`RouteKind::Unicast`].
    pub device: Option<String>,
    /// Next hop.
    pub via: Option<Ipv4Addr>,
    /// True when the next hop counts as reachable on the interface without a connected prefix.
    pub onlink: bool,
    /// Source address that the host's own packets prefer.
    pub source: Option<Ipv4Addr>,
    /// Metric; 0 means none.
    pub metric: u32,
    /// Size of the largest packet, in bytes. None: as large as the interface allows.
    pub mtu: Option<u32>,
}

impl Route {
    /// Makes a route with only a table, a kind and a destination.
    pub(crate) fn new(table: u32, kind: RouteKind, to: Ipv4Net) -> Self {
        Self {
            table,
            kind,
            to,
            device: None,
            via: None,
            onlink: false,
            source: None,
            metric: 0,
            mtu: None,
        }
    }
}

/// Effect of a route on matching packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RouteKind {
    /// Forwards.
    Unicast,
    /// Drops without an ICMP error.
    Blackhole,
    /// Ends the look-up in this table; the kernel continues with the next rule.
    Throw,
    /// Drops and answers with ICMP host unreachable.
    Unreachable,
}

/// An IPv4 policy rule. A packet must match all selectors that are present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Priority; the kernel tries lower numbers first.
    pub priority: u32,
    /// Incoming interface; `lo` for the host's own packets.
    pub iif: Option<String>,
    /// Source prefix. `0.0.0.0/32` selects the host's own packets that have no source yet.
    pub from: Option<Ipv4Net>,
    /// Destination prefix.
    pub to: Option<Ipv4Net>,
    /// UDP ports.
    pub udp: Option<UdpPorts>,
    /// Effect on matching packets.
    pub action: RuleAction,
    /// A route with a prefix of this length or a shorter one does not count, and the kernel
    /// continues with the next rule.
    pub suppress_prefix_length: Option<u32>,
}

impl Rule {
    /// Makes a rule without selectors.
    pub(crate) fn new(priority: u32, action: RuleAction) -> Self {
        Self {
            priority,
            iif: None,
            from: None,
            to: None,
            udp: None,
            action,
            suppress_prefix_length: None,
        }
    }

    /// Returns the rule of the local table that the kernel installs (net/ipv4/fib_rules.c).
    pub(crate) fn default_local() -> Self {
        Self::new(0, RuleAction::Lookup(TABLE_LOCAL))
    }
}

/// Both ports of a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UdpPorts {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

/// Effect of a rule on matching packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RuleAction {
    /// Looks up the route in a table.
    Lookup(u32),
    /// Drops without an ICMP error.
    Blackhole,
}

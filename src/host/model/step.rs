//! One change on the host, as plain data.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Protocol number of natbox's routes and rules (`rtm_protocol`, `FRA_PROTOCOL`).
///
/// The number tells natbox's entries from those of other programs. iproute2's `rt_protos` does not
/// list it, and the kernel's own numbers (up to `RTPROT_STATIC`) are lower.
pub(crate) const RTPROT_NATBOX: u8 = 110;

/// Protocol number of the kernel's own rules (`RTPROT_KERNEL`). Programs that remove foreign rules
/// spare this number (systemd: networkd-routing-policy-rule.c).
pub(crate) const RTPROT_KERNEL: u8 = 2;

/// The kernel's main table.
pub(crate) const TABLE_MAIN: u32 = 254;
/// The kernel's table of the host's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;

/// MTU of the TUN in bytes: the largest IPv4 packet, so that the kernel never fragments into the
/// TUN.
pub(crate) const TUN_MTU: u32 = 65535;
/// Length of each transmit queue of the TUN, in packets, unless the queues hold packets for the
/// next process (`state.hold`).
pub(crate) const TUN_QUEUE_LENGTH: u32 = 1000;

/// Length in the journal of a natbox that knew no other.
fn default_queue_length() -> u32 {
    TUN_QUEUE_LENGTH
}

/// Interface group of the TUNs (`ip link set group`), by which the local rule recognises their
/// routes. Group 0 is the default of every interface.
pub(crate) const TUN_GROUP: u32 = 7100;

/// Priority of the main table's rule (net/ipv4/fib_rules.c).
pub(crate) const MAIN_PRIORITY: u32 = 32766;

/// One change, complete enough to be made, compared, removed and printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Sets MTU, queue length and group of the TUN and brings the TUN up. The settings vanish with
    /// the device, so nothing has to be removed.
    BringUpTun {
        /// Interface name.
        device: String,
        /// Length of each transmit queue, in packets. A super-packet counts once.
        #[serde(default = "default_queue_length")]
        queue_length: u32,
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
    /// Replaces the kernel's local rule at priority 0 by one that passes over the routes of
    /// [`TUN_GROUP`]. The new rule comes first, so the host has a local rule at every moment.
    // Journals of older versions have the former name.
    #[serde(alias = "RemoveDefaultLocalRule")]
    SetLocalRuleAside,
    /// Keeps the kernel's rule of the main table, which other programs may flush. natbox never
    /// removes the rule.
    KeepMainRule,
}

impl Step {
    /// Returns true for a step that all natbox instances of a network namespace have in common.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Step::Sysctl { .. } | Step::SetLocalRuleAside | Step::KeepMainRule => true,
            // The host's own packets to known networks.
            Step::Rule(rule) => rule.suppress_prefix_length.is_some(),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::ProxyNeighbour { .. } => false,
        }
    }

    /// Returns the interface that the change lives and dies with. A rule survives its interface.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Step::BringUpTun { device, .. }
            | Step::Address { device, .. }
            | Step::ProxyNeighbour { device, .. } => Some(device),
            Step::Route(route) => route.device.as_deref(),
            Step::Sysctl { .. } | Step::Rule(_) | Step::SetLocalRuleAside | Step::KeepMainRule => {
                None
            }
        }
    }

    /// Returns the interface whose setting the change is: that of [`Self::device`], or of a sysctl.
    pub(crate) fn interface(&self) -> Option<&str> {
        let Step::Sysctl { path, .. } = self else { return self.device() };
        let of_interfaces = ["net/ipv4/conf/", "net/ipv4/neigh/", "net/ipv6/conf/"];
        let rest = of_interfaces.iter().find_map(|start| path.strip_prefix(start))?;
        rest.split_once('/').map(|(interface, _)| interface)
    }

    /// Returns true for two steps that write one sysctl.
    pub(crate) fn sets_same(&self, other: &Self) -> bool {
        let (Step::Sysctl { path, .. }, Step::Sysctl { path: same, .. }) = (self, other) else {
            return false;
        };
        path == same
    }

    /// Returns true for a step without which the host itself may be unreachable.
    pub(crate) fn keeps_host_reachable(&self) -> bool {
        match self {
            Step::SetLocalRuleAside | Step::KeepMainRule => true,
            Step::Rule(rule) => rule.action == RuleAction::Lookup(TABLE_LOCAL),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Sysctl { .. }
            | Step::Route(_)
            | Step::ProxyNeighbour { .. } => false,
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
    /// Outgoing interface; not for kinds that drop or continue.
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
    #[serde(default)]
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
    /// Counts the destination as a broadcast address, to which a program may not send without
    /// `SO_BROADCAST`.
    Broadcast,
    /// Delivers to the host. natbox puts such a route before the kernel's own.
    Local,
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
    /// Outgoing interface of a look-up that names one: of a socket bound to a device.
    #[serde(default)]
    pub oif: Option<String>,
    /// UDP ports.
    pub udp: Option<UdpPorts>,
    /// UDP source ports, whatever the destination port is. None together with [`Self::udp`].
    #[serde(default)]
    pub udp_source: Option<SourcePorts>,
    /// Interface group whose routes the rule does not take (`suppress_ifgroup`).
    #[serde(default)]
    pub suppress_group: Option<u32>,
    /// Effect on matching packets.
    pub action: RuleAction,
    /// A route with a prefix of this length or a shorter one does not count, and the kernel
    /// continues with the next rule.
    #[serde(default)]
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
            oif: None,
            udp: None,
            udp_source: None,
            suppress_group: None,
            suppress_prefix_length: None,
            action,
        }
    }

    /// Returns the rule of the local table that the kernel installs (net/ipv4/fib_rules.c).
    pub(crate) fn default_local() -> Self {
        Self::new(0, RuleAction::Lookup(TABLE_LOCAL))
    }

    /// Returns the rule that replaces [`Self::default_local`]; see [`Step::SetLocalRuleAside`].
    pub(crate) fn local_aside() -> Self {
        Self { suppress_group: Some(TUN_GROUP), ..Self::default_local() }
    }

    /// Returns the rule of the main table that the kernel installs.
    pub(crate) fn default_main() -> Self {
        Self::new(MAIN_PRIORITY, RuleAction::Lookup(TABLE_MAIN))
    }

    /// Returns the protocol number with which natbox adds the rule. Rules of the local table count
    /// as the kernel's, so that programs that remove foreign rules leave the host reachable.
    pub(crate) fn protocol(&self) -> u8 {
        let is_kernels =
            self.action == RuleAction::Lookup(TABLE_LOCAL) || *self == Self::default_main();
        if is_kernels { RTPROT_KERNEL } else { RTPROT_NATBOX }
    }

    /// Returns true for a rule without selectors.
    pub(crate) fn takes_every_packet(&self) -> bool {
        let Rule {
            priority: _,
            iif,
            from,
            to,
            oif,
            udp,
            udp_source,
            suppress_group: _,
            suppress_prefix_length: _,
            action: _,
        } = self;
        iif.is_none()
            && from.is_none()
            && to.is_none()
            && oif.is_none()
            && udp.is_none()
            && udp_source.is_none()
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

/// A range of source ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourcePorts {
    /// First port, from 1 on.
    pub first: u16,
    /// Last port, up to 65534.
    pub last: u16,
}

/// Effect of a rule on matching packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RuleAction {
    /// Looks up the route in a table.
    Lookup(u32),
    /// Drops without an ICMP error.
    Blackhole,
}

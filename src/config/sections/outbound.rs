//! `outbound` and `no_nat`: which inside hosts reach the outside, and what is not translated.

use ipnet::Ipv4Net;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueTypeExt as _, section};
use crate::config::types::{Items, config_words, names, network, some, word};
use crate::values::nat::{ForwardProtocol, HashBy, PortRange};

use super::uplinks::Uplink;

/// Sources that may go out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutboundRule {
    /// Sources, within an inside prefix.
    pub from: Ipv4Net,
    /// Destinations; none: all.
    pub to: Vec<Ipv4Net>,
    /// Indices into [`super::super::Config::uplinks`], at least one, no repeats.
    pub uplinks: Vec<usize>,
    /// Selector of the uplink of a mapping.
    pub hash_by: HashBy,
}

section! {
    /// A rule for sessions from the private network to the outside. The rule with the longest
    /// `from` that fits applies, and among these the one with the longest `to`.
    #[derive(Debug)]
    pub(in crate::config) struct FileOutboundRule {
        /// Sources, within an inside prefix.
        pub from: Required<Ipv4Net> = network::unicast_prefix()
            .required(
                "the sources that may go out",
                "add `from: PREFIX`, such as `from: 10.0.0.0/24`",
            )
            .example("10.0.0.0/24"),
        /// Destinations. A prefix within that of another inside leg makes natbox translate the
        /// packets to that leg; without it, the host routes them.
        pub to: Unresolved<Items<Ipv4Net>> = some(network::prefix(), MAX_DESTINATIONS, "prefixes")
            .optional("all")
            .example("[192.0.2.0/24]"),
        /// Names of the uplinks to use. natbox chooses by weight among the healthy ones of the
        /// lowest tier that has one. If none is healthy, it chooses in the same way among those
        /// that answer health checks. If none answers, it chooses among all.
        pub uplinks: Unresolved<Items<String>> = some(names::label(), Uplink::MAX, "uplinks")
            .optional("all")
            .example("[isp1]"),
        /// Selector of the uplink of a new mapping.
        pub hash_by: HashBy = word().default(HashBy::SourcePort),
    }
}

config_words! {
    HashBy {
        /// The inside address and port: the mappings of one host use different uplinks.
        SourcePort = "source-port",
        /// The inside address: all mappings of one host use the same uplink.
        SourceAddress = "source-address",
        /// The inside address and the remote address: the sessions of one host to different servers
        /// use different uplinks, and those to one server use the same uplink.
        AddressPair = "source-and-destination",
    }
}

/// Destinations that inside hosts reach without translation. Their own packets reach the inside as
/// they are. Packets to them leave by the host's routes, not by those of an uplink's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoNatRule {
    /// Addresses of the destinations.
    pub to: Ipv4Net,
    /// Protocols.
    pub protocol: ForwardProtocol,
    /// Ports at the destination; [`PortRange::ALL`] for [`ForwardProtocol::Icmp`] and
    /// [`ForwardProtocol::Any`].
    pub ports: PortRange,
}

section! {
    /// Destinations that inside hosts reach without translation (RFC 6888 REQ-6). Their own packets
    /// reach the inside as they are. Packets to them leave by the host's routes.
    #[derive(Debug)]
    pub(in crate::config) struct FileNoNatRule {
        /// Addresses of the destinations: a /8 or longer, neither in the inside nor the box's own.
        pub to: Required<Ipv4Net> = network::prefix()
            .required(
                "the destinations that are not translated",
                "add `to: PREFIX`, such as `to: 192.0.2.0/24`",
            )
            .example("192.0.2.0/24"),
        /// Protocols.
        pub protocol: Unresolved<ForwardProtocol> = word::<ForwardProtocol>()
            .optional("`any`")
            .example("tcp"),
        /// Port or range of ports at the destination. Only `tcp`, `udp` and `tcp+udp` take one.
        pub port: Unresolved<PortRange> = network::ports()
            .optional("all")
            .example("443"),
    }
}

impl FileOutboundRule {
    /// Returns the rule as the file writes it.
    pub(crate) fn of(rule: &OutboundRule, uplinks: &[Uplink]) -> Self {
        let to = (!rule.to.is_empty()).then(|| Items::of(rule.to.iter().copied()));
        let names = rule.uplinks.iter().map(|index| uplinks[*index].name.clone());
        Self {
            from: Some(Located::without_location(rule.from)),
            to: Unresolved::from_option(to),
            uplinks: Unresolved::from_option(Some(Items::of(names))),
            hash_by: rule.hash_by,
        }
    }
}

impl From<&NoNatRule> for FileNoNatRule {
    fn from(rule: &NoNatRule) -> Self {
        Self {
            to: Some(Located::without_location(rule.to)),
            protocol: Unresolved::from_option(Some(rule.protocol)),
            port: Unresolved::from_option((rule.ports != PortRange::ALL).then_some(rule.ports)),
        }
    }
}

/// Most destinations of a rule. Bounds the time of the checks.
const MAX_DESTINATIONS: usize = 256;

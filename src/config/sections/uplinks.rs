//! `uplinks`: the uplinks to the outside, and the treatment of their sessions after a failure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::config::document::Document;
use crate::config::reader::cursor::{Cursor, Located};
use crate::config::schema::{
    Required, TypeInfo, TypeShape, Unresolved, ValueType, ValueTypeExt as _, mapping, section,
};
use crate::config::types::{Items, config_enum, names, network, number, some, word};

use super::health::{FileHealth, Health};

/// One uplink.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Uplink {
    /// Unique among the uplinks.
    pub name: String,
    /// Interface towards the provider; never the inside interface.
    pub interface: String,
    /// External addresses, at least one, at most 1024. None lies in an inside prefix or belongs to
    /// another uplink. If they follow the interface: the addresses that
    /// [`super::super::Config::resolve`] filled in, before that `0.0.0.0`.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether the external address is the interface's own, followed as it changes.
    pub follows_interface: bool,
    /// Next hop. With several uplinks, every one that does not follow its interface has it.
    pub gateway: Option<Ipv4Addr>,
    /// Share of new outbound mappings, 1 to 1000.
    pub weight: u32,
    /// Tier, 1 to 255. The uplink is used while no lower tier has an uplink of the same rank.
    pub tier: u32,
    /// Health check, if any.
    pub health: Option<Health>,
    /// Treatment of its sessions when it fails while another uplink is healthy.
    pub on_failure: OnFailure,
    /// Treatment of outbound sessions when it is healthy again.
    pub failback: Failback,
    /// Its numbers, by the place in the file or as a reload has kept them.
    pub numbers: UplinkNumbers,
}

/// The numbers of one uplink, below [`Uplink::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkNumbers {
    /// Number of the uplink.
    pub uplink: u8,
    /// Number of its interface, which several uplinks may share.
    pub interface: u8,
}

section! {
    /// An uplink to the outside, with its external addresses.
    #[derive(Debug)]
    pub(in crate::config) struct FileUplink {
        /// Name, unique among the uplinks.
        pub name: Unresolved<String> = names::label()
            .optional("the name of the interface")
            .example("isp1"),
        /// Interface towards the provider. It must not be the inside interface.
        pub interface: Required<String> = network::interface()
            .required(
                "the interface towards the provider",
                "add `interface: NAME`; `ip link` lists the names",
            )
            .example("wan0"),
        /// External addresses. The word `interface` stands for the interface's own address, which
        /// natbox follows as it changes. The word `dhcp` means the same.
        pub addresses: Required<ExternalAddresses> = AddressesOrWord
            .required("the uplink's external addresses", "add `addresses: [203.0.113.10]` with your own")
            .example("[203.0.113.10]"),
        /// Next hop towards the provider. Several uplinks need one each, unless `addresses` is
        /// `interface`.
        pub gateway: Unresolved<Ipv4Addr> = network::address()
            .optional("the next hop of the host's default route through the interface, as it changes")
            .example("203.0.113.254"),
        /// Share of new outbound mappings, relative to the other uplinks of the tier.
        pub weight: u32 = number(1..=1000).default(1),
        /// Tier. New sessions, DNS answers and DNS updates use the lowest tier that has a healthy
        /// uplink. While a lower tier has one, an uplink of a higher tier carries only health
        /// checks, announcements of its addresses, TCP sessions that began before, and the services
        /// published on it. These services answer, open sessions to their clients, and open
        /// sessions from a single published port.
        pub tier: u32 = number(1..=255).default(1),
        /// Health check.
        pub health: Unresolved<FileHealth> = mapping::<FileHealth>()
            .optional("natbox watches only the state of the interface"),
        /// Treatment of the uplink's sessions when it fails while another uplink is healthy.
        pub on_failure: OnFailure = word().default(OnFailure::Keep),
        /// Treatment of outbound sessions when the uplink is healthy again.
        pub failback: Failback = word().default(Failback::NewSessions),
    }
}

config_enum! {
    /// Treatment of the sessions of an uplink that fails.
    pub(crate) enum OnFailure {
        /// Sessions stay, and inside endpoints with a mapping on the uplink keep using it.
        Keep = "keep",
        /// Sessions stay. New ones use other uplinks, even from inside endpoints with a mapping
        /// here.
        Drain = "drain",
        /// Sessions end. natbox sends the inside host a TCP reset or an ICMP error, so that it
        /// reconnects at once.
        Reset = "reset",
    }
}

config_enum! {
    /// Treatment of outbound sessions when an uplink is healthy again.
    pub(crate) enum Failback {
        /// New sessions may use the uplink. Sessions on an uplink of a higher tier move to this one
        /// with their next packet, except TCP sessions, which stay until they end.
        NewSessions = "new-sessions",
        /// Outbound sessions that would prefer the uplink end as with `on_failure: reset`, and
        /// begin again on it.
        Reset = "reset",
    }
}

impl Uplink {
    /// Most external addresses of one uplink.
    pub(crate) const MAX_ADDRESSES: usize = network::MAX_ADDRESSES;
    /// Most uplinks of one box: its block of routing tables has as many.
    pub(crate) const MAX: usize = 31;

    /// Returns true when natbox itself sends over this uplink, and so needs a probe address on it.
    pub(crate) fn needs_probe_address(&self) -> bool {
        self.health.is_some()
    }
}

impl FileUplink {
    /// Returns the name. It is the interface's name if the file leaves it out.
    pub(crate) fn name(&self) -> Option<&Located<String>> {
        match &self.name {
            Unresolved::Absent => self.interface.as_ref(),
            Unresolved::Unreadable => None,
            Unresolved::Given(name) => Some(name),
        }
    }

    /// Returns the external addresses, item by item; None if one could not be read.
    pub(crate) fn addresses(&self) -> Option<&[Located<Vec<Ipv4Addr>>]> {
        self.addresses.as_ref()?.ranges.all()
    }

    /// Whether the external address is the interface's own.
    pub(crate) fn follows_interface(&self) -> bool {
        self.addresses.as_ref().is_some_and(|addresses| addresses.follows_interface)
    }
}

impl From<&Uplink> for FileUplink {
    fn from(uplink: &Uplink) -> Self {
        Self {
            name: Unresolved::from_option(Some(uplink.name.clone())),
            interface: Some(Located::without_location(uplink.interface.clone())),
            addresses: Some(Located::without_location(ExternalAddresses {
                follows_interface: uplink.follows_interface,
                ranges: Items::of(network::runs(&uplink.addresses)),
            })),
            gateway: Unresolved::from_option(uplink.gateway),
            weight: uplink.weight,
            tier: uplink.tier,
            health: Unresolved::from_option(uplink.health.as_ref().map(FileHealth::from)),
            on_failure: uplink.on_failure,
            failback: uplink.failback,
        }
    }
}

/// The external addresses as the file has them.
#[derive(Clone, Debug)]
pub(in crate::config) struct ExternalAddresses {
    /// Whether the address is the interface's own. Then the only item is `0.0.0.0`.
    pub follows_interface: bool,
    /// The addresses of each item of the list.
    pub ranges: Items<Vec<Ipv4Addr>>,
}

/// The type of `addresses`: a list, or a word for the interface's own address.
struct AddressesOrWord;

impl AddressesOrWord {
    /// Both words mean the same: how the interface gets its address does not concern natbox.
    const FOLLOWED: [&str; 2] = ["interface", "dhcp"];

    fn list() -> impl ValueType<Value = Items<Vec<Ipv4Addr>>> {
        some(network::addresses(), Uplink::MAX_ADDRESSES, "addresses")
    }
}

impl ValueType for AddressesOrWord {
    type Value = ExternalAddresses;

    fn read(&self, cursor: &Cursor<'_>) -> Option<ExternalAddresses> {
        let is_word =
            |item: &Cursor<'_>| item.scalar().is_some_and(|word| Self::FOLLOWED.contains(&word));
        if let Some(item) = cursor.sole_item().filter(is_word) {
            let unspecified = item.locate(vec![Ipv4Addr::UNSPECIFIED]);
            let ranges = Items { readable: vec![unspecified], complete: true };
            return Some(ExternalAddresses { follows_interface: true, ranges });
        }
        Some(ExternalAddresses { follows_interface: false, ranges: Self::list().read(cursor)? })
    }

    fn emit(&self, value: &ExternalAddresses) -> Document {
        match value.follows_interface {
            true => Document::texts(["interface"]),
            false => Self::list().emit(&value.ranges),
        }
    }

    fn describe(&self) -> TypeInfo {
        let mut info = Self::list().describe();
        info.name = format!("`interface`, `dhcp` or {}", info.name);
        if let TypeShape::List { instead, .. } = &mut info.shape {
            *instead = &Self::FOLLOWED;
        }
        info
    }
}

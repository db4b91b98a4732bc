//! `forwards`: the published services.

use std::net::Ipv4Addr;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueTypeExt as _, section};
use crate::config::types::network::ForwardTarget;
use crate::config::types::{config_words, names, network, word};
use crate::values::nat::{ForwardProtocol, PortRange};

use super::uplinks::Uplink;

/// One published service on one external address. Where the file leaves out the uplink, the box has
/// one forward for each uplink, so `uplink` and `address` are always definite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forward {
    /// Name from the file. Several forwards share it if the file leaves out the uplink.
    pub name: String,
    /// Index into [`super::super::Config::uplinks`].
    pub uplink: usize,
    /// Published protocols.
    pub protocol: ForwardProtocol,
    /// Published external address, one of the uplink's; `0.0.0.0` if that follows its interface.
    pub address: Ipv4Addr,
    /// Published ports; 0-65535 for [`ForwardProtocol::Icmp`] and [`ForwardProtocol::Any`].
    pub ports: PortRange,
    /// The server.
    pub to_address: Ipv4Addr,
    /// The server's port that the first published port maps to. The rest keep their offset, and the
    /// last one fits below 65536. Equal to `ports.first` for [`ForwardProtocol::Icmp`] and
    /// [`ForwardProtocol::Any`].
    pub to_port: u16,
}

section! {
    /// A published service: a static mapping from an external address to a server on the private
    /// network.
    #[derive(Debug)]
    pub(in crate::config) struct FileForward {
        /// Name, unique on each uplink.
        pub name: Unresolved<String> = names::label()
            .optional("`forward-1`, `forward-2` and so on, by position")
            .example("web"),
        /// Name of the uplink to publish on.
        pub uplink: Unresolved<String> = names::label()
            .optional("the uplink that `address` belongs to, or every uplink")
            .example("isp1"),
        /// Protocols to publish.
        pub protocol: Required<ForwardProtocol> = word::<ForwardProtocol>()
            .required("the protocols to publish", "add `protocol: tcp` (or udp, tcp+udp, icmp, any)")
            .example("tcp"),
        /// Port or range of ports to publish. `icmp` and `any` take none, the other protocols need
        /// it. If one range contains another, the narrower one has its ports. A range of 1,024
        /// ports or more shares its ports with mappings, as `any` does.
        pub port: Unresolved<PortRange> = network::ports()
            .optional("none")
            .example("80"),
        /// External address to publish on.
        pub address: Unresolved<Ipv4Addr> = network::address()
            .optional("the only address of the uplink")
            .example("203.0.113.10"),
        /// The server. With a range of ports, the port here is that of the first one, and the rest
        /// keep their offset. Without a port the server has the published ports. The address lies
        /// in an inside prefix. The box's own address there publishes a service of the box.
        pub to: Required<ForwardTarget> = network::target()
            .required("the server", "add `to: ADDRESS:PORT`, such as `to: 10.0.0.101:80`")
            .example("10.0.0.101:80"),
    }
}

config_words! {
    ForwardProtocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// TCP and UDP.
        TcpUdp = "tcp+udp",
        /// ICMP echo requests.
        Icmp = "icmp",
        /// Every protocol and port, ports unchanged. In `forwards` this is an exposed host: other
        /// forwards of the address and live mappings come first.
        Any = "any",
    }
}

impl Forward {
    /// Smallest number of ports that a forward shares with mappings.
    pub(crate) const SHARED_PORTS: u16 = 1024;

    /// Returns whether mappings may get the forward's ports.
    pub(in crate::config) fn is_shared(&self) -> bool {
        self.ports.last - self.ports.first >= Self::SHARED_PORTS - 1
    }
}

impl ForwardProtocol {
    /// Whether the protocol has ports to choose from.
    pub(in crate::config) fn has_ports(self) -> bool {
        match self {
            Self::Tcp | Self::Udp | Self::TcpUdp => true,
            Self::Icmp | Self::Any => false,
        }
    }
}

impl FileForward {
    /// Returns the forward as the file writes it.
    pub(crate) fn of(forward: &Forward, uplinks: &[Uplink]) -> Self {
        let has_ports = forward.protocol.has_ports();
        let first = PortRange { first: forward.to_port, last: forward.to_port };
        let to = ForwardTarget { address: forward.to_address, ports: has_ports.then_some(first) };
        let address = Some(forward.address).filter(|address| !address.is_unspecified());
        Self {
            name: Unresolved::from_option(Some(forward.name.clone())),
            uplink: Unresolved::from_option(Some(uplinks[forward.uplink].name.clone())),
            protocol: Some(Located::without_location(forward.protocol)),
            port: Unresolved::from_option(has_ports.then_some(forward.ports)),
            address: Unresolved::from_option(address),
            to: Some(Located::without_location(to)),
        }
    }
}

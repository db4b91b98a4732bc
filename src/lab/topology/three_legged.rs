//! One box with several uplinks, one private interface, and servers without policy routing.
//!
//! ```text
//!                     client: 192.0.2.11, .12, ... on lo
//!                isp1 │                        │ isp2 ...
//!              172.16.1.0/30            172.16.2.0/30
//!                net0 │                        │ net0
//!               provider 1                provider 2        the Internet's end of each line
//!                box0 │ 203.0.113.254          │ box0 198.51.100.254
//!                     │                        │            shaped in both directions
//!                wan0 │ 203.0.113.1            │ wan1 198.51.100.1
//!                     └───────── box ──────────┘            publishes 203.0.113.10 and 198.51.100.10
//!                           lan0 │ 10.0.0.1
//!                               lan                         one bridge
//!                                │
//!                 servers: 10.0.0.101, .111, ...            one address each, and the box as default route
//! ```
//!
//! No host has the published addresses: the box must answer for them, and send each reply to its
//! uplink. The box's own default route leads to the first uplink.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{ServerHost, Topology, TopologyUplink, address, clients, name_and_network};
use crate::lab::{Lab, LabError, Namespace, hardware_address};

/// The size and the kind of the setup.
#[derive(Clone, Copy, Debug)]
pub struct ThreeLeggedPlan {
    /// Number of uplinks, 1 to [`super::MAX_UPLINKS`].
    pub uplinks: u8,
    /// Number of servers, 1 to [`super::MAX_SERVERS`].
    pub servers: u8,
    /// Rate of each uplink in Mbit/s, both directions; `None`: unlimited. Uplinks that share an
    /// interface are not shaped.
    pub mbit: Option<u32>,
    /// All uplinks are in one network, 203.0.113.0/24, each with a gateway of its own.
    pub one_network: bool,
}

impl ThreeLeggedPlan {
    /// Two uplinks in networks of their own, one server, no limit of the rate.
    pub const TWO_UPLINKS: Self = Self { uplinks: 2, servers: 1, mbit: None, one_network: false };
}

/// The attachment of an uplink to the box.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Interface of the box; several uplinks may share it.
    pub interface: String,
    /// Hardware address of that interface.
    pub sender: [u8; 6],
}

/// Address of the box on the private network.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Joins box and provider of an uplink (0, 1, ...) by interfaces of their own: `wan0`, `wan1`, ...
/// and `box0`.
///
/// # Errors
/// A command of iproute2 failed.
pub fn own_interface(
    lab: &Lab,
    number: u8,
    natbox: &Namespace,
    provider: &Namespace,
) -> Result<Attachment, LabError> {
    let interface = format!("wan{number}");
    lab.veth(number, (natbox, &interface), (provider, "box0"))?;
    Ok(Attachment { interface, sender: hardware_address(number, 1) })
}

impl Topology {
    /// Builds one box with several uplinks. `attach` joins box and provider of each uplink; the
    /// provider's end is `box0`. [`own_interface`] is the plain way.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn three_legged(
        lab: &Lab,
        plan: ThreeLeggedPlan,
        mut attach: impl FnMut(&Lab, u8, &Namespace, &Namespace) -> Result<Attachment, LabError>,
    ) -> Result<Topology, LabError> {
        let client = clients(lab)?;
        let natbox = lab.namespace("box")?;
        let mut uplinks: Vec<TopologyUplink> = Vec::new();
        for number in 0..plan.uplinks {
            let provider = lab.namespace(&format!("isp{}", number + 1))?;
            let Attachment { interface, sender } = attach(lab, number, &natbox, &provider)?;
            let uplink =
                uplink(number, plan.one_network, natbox.clone(), provider, interface, sender);
            let is_known = uplinks.iter().any(|other| other.outside == uplink.outside);
            let is_shared = uplinks.iter().any(|other| other.interface == uplink.interface);
            if !is_known {
                natbox.address(&uplink.interface, uplink.outside, 24)?;
            }
            let reached = if plan.one_network { 32 } else { 24 };
            let Ok(destination) = Ipv4Net::new(uplink.published, reached) else {
                unreachable!("a length of 24 or 32 is one")
            };
            uplink.provide(lab, &client, number, &destination.trunc().to_string())?;
            if let Some(mbit) = plan.mbit.filter(|_| !is_shared) {
                uplink.shape(mbit)?;
            }
            uplinks.push(uplink);
        }
        natbox.route("default", uplinks[0].gateway)?;

        let lan = lab.namespace("lan")?;
        lab.veth(20, (&natbox, "lan0"), (&lan, "box1"))?;
        natbox.address("lan0", INSIDE, 24)?;
        let servers = (0..plan.servers)
            .map(|number| build_server(lab, &lan, number, uplinks.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let ports: Vec<String> = (1..=plan.servers).map(|number| format!("srv{number}")).collect();
        lan.bridge("br0", &ports.iter().map(String::as_str).chain(["box1"]).collect::<Vec<_>>())?;
        Ok(Topology { client, uplinks, servers, lans: vec![lan] })
    }
}

fn uplink(
    number: u8,
    one_network: bool,
    natbox: Namespace,
    provider: Namespace,
    interface: String,
    sender: [u8; 6],
) -> TopologyUplink {
    let (name, own_network) = name_and_network(number);
    let (network, apart) =
        if one_network { (name_and_network(0).1, number) } else { (own_network, 0) };
    TopologyUplink {
        name,
        published: address(network, 10 + apart),
        outside: address(network, 1),
        gateway: address(network, 254 - apart),
        inside: INSIDE,
        prefix: "10.0.0.0/24".into(),
        natbox,
        interface,
        provider,
        sender,
    }
}

fn build_server(
    lab: &Lab,
    lan: &Namespace,
    number: u8,
    uplinks: usize,
) -> Result<ServerHost, LabError> {
    let namespace = lab.namespace(&format!("srv{}", number + 1))?;
    lab.veth(30 + number, (&namespace, "eth0"), (lan, &format!("srv{}", number + 1)))?;
    let address = address([10, 0, 0], 101 + 10 * number);
    namespace.address("eth0", address, 24)?;
    namespace.route("default", INSIDE)?;
    Ok(ServerHost { namespace, addresses: vec![address; uplinks] })
}

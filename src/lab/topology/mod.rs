//! Uplinks, boxes and servers as namespaces. [`two_uplinks`] and [`three_legged`] show the
//! pictures.

mod three_legged;
mod two_uplinks;

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::lab::{Lab, LabError, Namespace};

pub use three_legged::{Attachment, ThreeLeggedPlan, own_interface};
pub use two_uplinks::{MAX_SERVERS, Private, TwoBoxPlan};

/// Client addresses on the Internet side.
pub const CLIENTS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(192, 0, 2, 11),
    Ipv4Addr::new(192, 0, 2, 12),
    Ipv4Addr::new(192, 0, 2, 13),
    Ipv4Addr::new(192, 0, 2, 14),
    Ipv4Addr::new(192, 0, 2, 15),
    Ipv4Addr::new(192, 0, 2, 16),
];

/// Most uplinks that the address plan allows.
pub const MAX_UPLINKS: u8 = 4;

/// The namespaces of one setup.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Namespace of the clients.
    pub client: Namespace,
    /// Uplinks, in order.
    pub uplinks: Vec<TopologyUplink>,
    /// Servers, in order.
    pub servers: Vec<ServerHost>,
    /// Private networks: one in all, or one for each uplink.
    pub lans: Vec<Namespace>,
}

/// One uplink with its box.
#[derive(Clone, Debug)]
pub struct TopologyUplink {
    /// `uplink 1`, ...
    pub name: &'static str,
    /// Namespace of the box: `lan0` inside, [`TopologyUplink::interface`] outside, a default route,
    /// and nothing else.
    pub natbox: Namespace,
    /// Interface of the box to the uplink.
    pub interface: String,
    /// Namespace of the provider's end: `box0` towards the box, `net0` towards the clients.
    pub provider: Namespace,
    /// Address that the box publishes.
    pub published: Ipv4Addr,
    /// Address of the box on the uplink.
    pub outside: Ipv4Addr,
    /// Next hop of the box: the provider.
    pub gateway: Ipv4Addr,
    /// Address of the box on the private network.
    pub inside: Ipv4Addr,
    /// Private network, as `a.b.c.d/24`.
    pub prefix: String,
    /// Hardware address of [`TopologyUplink::interface`].
    pub sender: [u8; 6],
}

/// One server.
#[derive(Clone, Debug)]
pub struct ServerHost {
    /// Namespace of the server.
    pub namespace: Namespace,
    /// Private address of the server for each uplink; behind a three-legged box always the same.
    pub addresses: Vec<Ipv4Addr>,
}

impl TopologyUplink {
    /// Returns a published endpoint.
    pub fn endpoint(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.published, port)
    }

    /// Returns the number of frames that the provider has received from the box.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub fn frames(&self) -> Result<u64, LabError> {
        self.provider.received_frames("box0")
    }

    /// Sets up the provider, whose `box0` already exists, and the clients' route to `destination`.
    fn provide(
        &self,
        lab: &Lab,
        client: &Namespace,
        number: u8,
        destination: &str,
    ) -> Result<(), LabError> {
        let (transit, leg) = ([172, 16, number + 1], format!("isp{}", number + 1));
        self.provider.address("box0", self.gateway, 24)?;
        lab.veth(10 + number, (&self.provider, "net0"), (client, &leg))?;
        self.provider.address("net0", address(transit, 1), 30)?;
        client.address(&leg, address(transit, 2), 30)?;
        self.provider.sysctl("net/ipv4/ip_forward", "1")?;
        self.provider.route("192.0.2.0/24", address(transit, 2))?;
        let (via, source) = (address(transit, 1).to_string(), CLIENTS[0].to_string());
        client.ip(&["route", "add", destination, "via", &via, "src", &source])
    }

    /// Shapes the uplink in both directions.
    fn shape(&self, mbit: u32) -> Result<(), LabError> {
        self.natbox.shape(&self.interface, mbit)?;
        self.provider.shape("box0", mbit)
    }
}

/// Makes a namespace with the addresses of all clients.
fn clients(lab: &Lab) -> Result<Namespace, LabError> {
    let client = lab.namespace("client")?;
    for address in CLIENTS {
        client.address("lo", address, 32)?;
    }
    Ok(client)
}

/// Returns the name of an uplink and the first three octets of its network.
fn name_and_network(uplink: u8) -> (&'static str, [u8; 3]) {
    match uplink {
        0 => ("uplink 1", [203, 0, 113]),
        1 => ("uplink 2", [198, 51, 100]),
        2 => ("uplink 3", [198, 18, 3]),
        _ => ("uplink 4", [198, 18, 4]),
    }
}

fn address([a, b, c]: [u8; 3], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, last)
}

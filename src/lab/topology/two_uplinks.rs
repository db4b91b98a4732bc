//! Two uplinks with a box each.
//!
//! ```text
//!                     client: 192.0.2.11, .12, ... on lo
//!                isp1 │                        │ isp2
//!              172.16.1.0/30            172.16.2.0/30
//!                net0 │                        │ net0
//!               provider 1                provider 2        the Internet's end of each line
//!                box0 │ 203.0.113.254          │ box0 198.51.100.254
//!                     │                        │            shaped in both directions
//!                wan0 │ 203.0.113.1            │ wan0 198.51.100.1
//!                  box 1                     box 2          publish 203.0.113.10 and 198.51.100.10
//!                lan0 │ .100                   │ lan0 .200
//!                     └───────── lan ──────────┘            one bridge (shared) or one per uplink (separate)
//!                               │
//!                 servers: .101 and .202, .111 and .212, ...
//! ```
//!
//! No host has the published addresses: the boxes must answer for them. Only the servers' policy
//! routing sends replies to the right box.

use std::net::Ipv4Addr;

use super::{ServerHost, Topology, TopologyUplink, address, clients, name_and_network};
use crate::lab::{Lab, LabError, Namespace, hardware_address};

/// Most servers that the address plan allows.
pub const MAX_SERVERS: u8 = 5;

/// The size and the kind of the setup.
#[derive(Clone, Copy, Debug)]
pub struct TwoBoxPlan {
    /// Layout of the private side.
    pub private: Private,
    /// Number of servers, 1 to [`MAX_SERVERS`].
    pub servers: u8,
    /// Rate of each uplink in Mbit/s, both directions; `None`: unlimited.
    pub mbit: Option<u32>,
}

/// Layout of the private side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// Both boxes and all servers on 10.0.0.0/24.
    Shared,
    /// Uplink 1 on 10.1.0.0/24 (interface eth0 of the servers), uplink 2 on 10.2.0.0/24 (eth1).
    Separate,
}

/// Number of the first routing table of the servers; each uplink has one.
const FIRST_TABLE: u32 = 101;

/// The addresses of an uplink, 0 or 1.
struct Figures {
    name: &'static str,
    /// First three octets of the uplink's network.
    uplink: [u8; 3],
    /// First three octets of the private network.
    private: [u8; 3],
    /// Last octet of the box's private address; those of the servers follow.
    inside: u8,
}

impl Figures {
    fn of(uplink: u8, private: Private) -> Figures {
        let (name, octets) = name_and_network(uplink);
        let private = match private {
            Private::Shared => [10, 0, 0],
            Private::Separate => [10, uplink + 1, 0],
        };
        Figures { name, uplink: octets, private, inside: 100 * (uplink + 1) }
    }

    /// Returns the address of a server on the private network of this uplink.
    fn server(&self, uplink: u8, server: u8) -> Ipv4Addr {
        address(self.private, self.inside + 1 + uplink + 10 * server)
    }
}

impl Topology {
    /// Builds two uplinks with a box each.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn two_uplinks(lab: &Lab, plan: TwoBoxPlan) -> Result<Topology, LabError> {
        let client = clients(lab)?;
        let uplinks =
            vec![build_uplink(lab, plan, &client, 0)?, build_uplink(lab, plan, &client, 1)?];

        let lan_names: &[&str] = match plan.private {
            Private::Shared => &["lan"],
            Private::Separate => &["lan1", "lan2"],
        };
        let lans =
            lan_names.iter().map(|name| lab.namespace(name)).collect::<Result<Vec<_>, _>>()?;
        let servers = (0..plan.servers)
            .map(|server| build_server(lab, plan.private, &uplinks, &lans, server))
            .collect::<Result<Vec<_>, _>>()?;
        for (number, uplink) in (0_u8..).zip(&uplinks) {
            let lan = &lans[usize::from(number).min(lans.len() - 1)];
            lab.veth(20 + number, (&uplink.natbox, "lan0"), (lan, &format!("box{}", number + 1)))?;
            uplink.natbox.address("lan0", uplink.inside, 24)?;
        }
        for (number, lan) in lans.iter().enumerate() {
            let boxes = match plan.private {
                Private::Shared => vec!["box1".to_owned(), "box2".to_owned()],
                Private::Separate => vec![format!("box{}", number + 1)],
            };
            let ports: Vec<String> =
                boxes.into_iter().chain((1..=plan.servers).map(|n| format!("srv{n}"))).collect();
            lan.bridge("br0", &ports.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(Topology { client, uplinks, servers, lans })
    }
}

fn build_uplink(
    lab: &Lab,
    plan: TwoBoxPlan,
    client: &Namespace,
    number: u8,
) -> Result<TopologyUplink, LabError> {
    let figures = Figures::of(number, plan.private);
    let natbox = lab.namespace(&format!("box{}", number + 1))?;
    let provider = lab.namespace(&format!("isp{}", number + 1))?;
    let uplink = TopologyUplink {
        name: figures.name,
        published: address(figures.uplink, 10),
        outside: address(figures.uplink, 1),
        gateway: address(figures.uplink, 254),
        inside: address(figures.private, figures.inside),
        prefix: format!("{}/24", address(figures.private, 0)),
        sender: hardware_address(number, 1),
        natbox,
        interface: "wan0".into(),
        provider,
    };
    lab.veth(number, (&uplink.natbox, "wan0"), (&uplink.provider, "box0"))?;
    uplink.natbox.address("wan0", uplink.outside, 24)?;
    uplink.natbox.route("default", uplink.gateway)?;
    uplink.provide(lab, client, number, &format!("{}/24", address(figures.uplink, 0)))?;
    if let Some(mbit) = plan.mbit {
        uplink.shape(mbit)?;
    }
    Ok(uplink)
}

fn build_server(
    lab: &Lab,
    private: Private,
    uplinks: &[TopologyUplink],
    lans: &[Namespace],
    number: u8,
) -> Result<ServerHost, LabError> {
    let namespace = lab.namespace(&format!("srv{}", number + 1))?;
    for (interface, lan) in lans.iter().enumerate() {
        let index = 30 + 2 * number + u8::from(interface > 0);
        lab.veth(
            index,
            (&namespace, &format!("eth{interface}")),
            (lan, &format!("srv{}", number + 1)),
        )?;
    }
    let mut addresses = Vec::new();
    for (uplink, through) in (0_u8..).zip(uplinks) {
        let address = Figures::of(uplink, private).server(uplink, number);
        let interface = match private {
            Private::Shared => "eth0",
            Private::Separate => ["eth0", "eth1"][usize::from(uplink)],
        };
        namespace.address(interface, address, 24)?;
        namespace.source_route(address, through.inside, FIRST_TABLE + u32::from(uplink))?;
        addresses.push(address);
    }
    Ok(ServerHost { namespace, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_published_configuration() {
        let (one, two) = (Figures::of(0, Private::Shared), Figures::of(1, Private::Shared));
        assert_eq!(one.server(0, 0), Ipv4Addr::new(10, 0, 0, 101));
        assert_eq!(two.server(1, 0), Ipv4Addr::new(10, 0, 0, 202));
        assert_eq!(two.server(1, MAX_SERVERS - 1), Ipv4Addr::new(10, 0, 0, 242));
        let separate = Figures::of(1, Private::Separate);
        assert_eq!(separate.server(1, 1), Ipv4Addr::new(10, 2, 0, 212));
    }
}

//! The two lines, the boxes and the servers, as namespaces.
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
//!                     └───────── lan ──────────┘            one bridge (shared) or one for each line (separate)
//!                               │
//!                 servers: .101 and .202, .111 and .212, ...
//! ```
//!
//! The published addresses belong to nobody here: the boxes must answer for them. Replies are sent to the right
//! box by the servers' policy routing alone.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::lab::{Lab, LabError, Namespace, hardware_address};

/// Client addresses on the Internet side.
pub const CLIENTS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(192, 0, 2, 11),
    Ipv4Addr::new(192, 0, 2, 12),
    Ipv4Addr::new(192, 0, 2, 13),
    Ipv4Addr::new(192, 0, 2, 14),
    Ipv4Addr::new(192, 0, 2, 15),
    Ipv4Addr::new(192, 0, 2, 16),
];

/// Most servers that the address plan has room for.
pub const SERVERS_LIMIT: u8 = 5;

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How the private side is laid out.
    pub private: Private,
    /// Number of servers, 1 to [`SERVERS_LIMIT`].
    pub servers: u8,
    /// Rate of each line, in Mbit/s, both directions; `None`: as fast as the machine.
    pub mbit: Option<u32>,
}

/// Layout of the private side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// Both boxes and all servers on 10.0.0.0/24.
    Shared,
    /// Line 1 on 10.1.0.0/24 (interface eth0 of the servers), line 2 on 10.2.0.0/24 (eth1).
    Separate,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct TwoLines {
    /// Where the clients are.
    pub client: Namespace,
    /// The lines, in order.
    pub lines: [Line; 2],
    /// The servers, in order.
    pub servers: Vec<Server>,
    /// The private networks: one, or one for each line.
    pub lans: Vec<Namespace>,
}

/// One line with its box.
#[derive(Clone, Debug)]
pub struct Line {
    /// `line 1` or `line 2`.
    pub name: &'static str,
    /// Namespace of the box: `lan0` inside, `wan0` outside, a default route, and nothing else set up.
    pub natbox: Namespace,
    /// Namespace of the provider's end: `box0` towards the box, `net0` towards the clients.
    pub provider: Namespace,
    /// The address that the box publishes.
    pub published: Ipv4Addr,
    /// Address of the box on the line.
    pub outside: Ipv4Addr,
    /// The box's next hop: the provider.
    pub gateway: Ipv4Addr,
    /// Address of the box on the private network.
    pub inside: Ipv4Addr,
    /// The private network, as `a.b.c.d/24`.
    pub prefix: String,
    /// Hardware address of the box's `wan0`.
    pub sender: [u8; 6],
}

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its private address for each line.
    pub addresses: [Ipv4Addr; 2],
}

impl Line {
    /// A published endpoint.
    pub fn endpoint(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.published, port)
    }
}

/// Number of the first routing table that the servers use, one for each line.
const FIRST_TABLE: u32 = 101;

/// The plan's figures for a line, 0 or 1.
struct Figures {
    name: &'static str,
    /// First three octets of the line's network.
    line: [u8; 3],
    /// First three octets of the private network.
    private: [u8; 3],
    /// Last octet of the box's private address; the servers' follow it.
    inside: u8,
}

impl Figures {
    fn of(line: u8, private: Private) -> Figures {
        let (name, octets, inside) = match line {
            0 => ("line 1", [203, 0, 113], 100),
            _ => ("line 2", [198, 51, 100], 200),
        };
        let private = match private {
            Private::Shared => [10, 0, 0],
            Private::Separate => [10, line + 1, 0],
        };
        Figures { name, line: octets, private, inside }
    }

    /// Address of a server on this line's private network.
    fn server(&self, line: u8, server: u8) -> Ipv4Addr {
        address(self.private, self.inside + 1 + line + 10 * server)
    }
}

fn address([a, b, c]: [u8; 3], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, last)
}

impl TwoLines {
    /// Builds it.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn build(lab: &Lab, plan: Plan) -> Result<TwoLines, LabError> {
        let client = lab.namespace("client")?;
        for address in CLIENTS {
            client.address("lo", address, 32)?;
        }
        let lines = [build_line(lab, plan, &client, 0)?, build_line(lab, plan, &client, 1)?];

        let lan_names: &[&str] = match plan.private {
            Private::Shared => &["lan"],
            Private::Separate => &["lan1", "lan2"],
        };
        let lans = lan_names.iter().map(|name| lab.namespace(name)).collect::<Result<Vec<_>, _>>()?;
        let servers = (0..plan.servers)
            .map(|server| build_server(lab, plan.private, &lines, &lans, server))
            .collect::<Result<Vec<_>, _>>()?;
        for (number, line) in (0_u8..).zip(&lines) {
            let lan = &lans[usize::from(number).min(lans.len() - 1)];
            lab.veth(20 + number, (&line.natbox, "lan0"), (lan, &format!("box{}", number + 1)))?;
            line.natbox.address("lan0", line.inside, 24)?;
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
        Ok(TwoLines { client, lines, servers, lans })
    }
}

fn build_line(lab: &Lab, plan: Plan, client: &Namespace, number: u8) -> Result<Line, LabError> {
    let figures = Figures::of(number, plan.private);
    let natbox = lab.namespace(&format!("box{}", number + 1))?;
    let provider = lab.namespace(&format!("isp{}", number + 1))?;
    let (transit, leg) = ([172, 16, number + 1], format!("isp{}", number + 1));
    let line = Line {
        name: figures.name,
        published: address(figures.line, 10),
        outside: address(figures.line, 1),
        gateway: address(figures.line, 254),
        inside: address(figures.private, figures.inside),
        prefix: format!("{}/24", address(figures.private, 0)),
        sender: hardware_address(number, 1),
        natbox,
        provider,
    };
    lab.veth(number, (&line.natbox, "wan0"), (&line.provider, "box0"))?;
    line.natbox.address("wan0", line.outside, 24)?;
    line.natbox.route("default", line.gateway)?;
    line.provider.address("box0", line.gateway, 24)?;

    lab.veth(10 + number, (&line.provider, "net0"), (client, &leg))?;
    line.provider.address("net0", address(transit, 1), 30)?;
    client.address(&leg, address(transit, 2), 30)?;
    line.provider.sysctl("net/ipv4/ip_forward", "1")?;
    line.provider.route("192.0.2.0/24", address(transit, 2))?;
    let (network, via) = (format!("{}/24", address(figures.line, 0)), address(transit, 1).to_string());
    client.ip(&["route", "add", &network, "via", &via, "src", &CLIENTS[0].to_string()])?;

    if let Some(mbit) = plan.mbit {
        line.natbox.shape("wan0", mbit)?;
        line.provider.shape("box0", mbit)?;
    }
    Ok(line)
}

fn build_server(
    lab: &Lab,
    private: Private,
    lines: &[Line; 2],
    lans: &[Namespace],
    number: u8,
) -> Result<Server, LabError> {
    let namespace = lab.namespace(&format!("srv{}", number + 1))?;
    for (interface, lan) in lans.iter().enumerate() {
        let index = 30 + 2 * number + u8::from(interface > 0);
        lab.veth(index, (&namespace, &format!("eth{interface}")), (lan, &format!("srv{}", number + 1)))?;
    }
    let mut addresses = [Ipv4Addr::UNSPECIFIED; 2];
    for (line, slot) in (0_u8..).zip(&mut addresses) {
        *slot = Figures::of(line, private).server(line, number);
        let interface = match private {
            Private::Shared => "eth0",
            Private::Separate => ["eth0", "eth1"][usize::from(line)],
        };
        namespace.address(interface, *slot, 24)?;
        namespace.source_route(*slot, lines[usize::from(line)].inside, FIRST_TABLE + u32::from(line))?;
    }
    Ok(Server { namespace, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_published_configuration() {
        let (one, two) = (Figures::of(0, Private::Shared), Figures::of(1, Private::Shared));
        assert_eq!(one.server(0, 0), Ipv4Addr::new(10, 0, 0, 101));
        assert_eq!(two.server(1, 0), Ipv4Addr::new(10, 0, 0, 202));
        assert_eq!(two.server(1, SERVERS_LIMIT - 1), Ipv4Addr::new(10, 0, 0, 242));
        let separate = Figures::of(1, Private::Separate);
        assert_eq!(separate.server(1, 1), Ipv4Addr::new(10, 2, 0, 212));
    }
}

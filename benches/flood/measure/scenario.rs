//! The scenarios: the limits of the box, the packets of the flood, and what must hold.

use std::net::{Ipv4Addr, SocketAddrV4};

use natbox::packet::{Protocol, TcpFlags, builder};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::testbed::{SINK, WEB};

/// A way to overload the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// SYNs from random sources to the published web server.
    SynForward,
    /// SYNs from random sources to ports that no forward publishes.
    SynClosed,
    /// Inside hosts open sessions until the table is full.
    TableFull,
    /// Inside hosts open mappings until no external port is free.
    PortsExhausted,
    /// Later fragments without a first one, and first fragments without a later one.
    Fragments,
    /// Datagrams from random sources to a mapping that admits every source.
    UdpMapping,
    /// One inside host opens sessions without end.
    InsideHost,
    /// ICMP errors about packets of no session.
    IcmpErrors,
    /// Datagrams whose tuples collide under hashes without a secret key.
    OneBucket,
}

/// The segment on which the sender of a flood is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Outside,
    Inside,
}

/// Sections of the configuration that a scenario sets.
pub(crate) struct Keys {
    pub nat: String,
    pub limits: String,
}

/// Addresses at which a flood aims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    /// The address of the published server.
    pub server: Ipv4Addr,
    /// The external endpoint of a mapping.
    pub mapped: SocketAddrV4,
}

impl Scenario {
    /// Capacity of the session table.
    pub(crate) const CAPACITY: u32 = 4096;
    pub(crate) const ALL: [Self; 9] = [
        Self::SynForward,
        Self::SynClosed,
        Self::TableFull,
        Self::PortsExhausted,
        Self::Fragments,
        Self::UdpMapping,
        Self::InsideHost,
        Self::IcmpErrors,
        Self::OneBucket,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SynForward => "syn-forward",
            Self::SynClosed => "syn-closed",
            Self::TableFull => "table-full",
            Self::PortsExhausted => "ports-exhausted",
            Self::Fragments => "fragments",
            Self::UdpMapping => "udp-mapping",
            Self::InsideHost => "inside-host",
            Self::IcmpErrors => "icmp-errors",
            Self::OneBucket => "one-bucket",
        }
    }

    pub(crate) fn side(self) -> Side {
        match self {
            Self::TableFull | Self::PortsExhausted | Self::InsideHost => Side::Inside,
            Self::SynForward
            | Self::SynClosed
            | Self::Fragments
            | Self::UdpMapping
            | Self::IcmpErrors
            | Self::OneBucket => Side::Outside,
        }
    }

    pub(crate) fn keys(self) -> Keys {
        let per_host = if self == Self::InsideHost { HOST_LIMIT } else { 0 };
        let nat = match self {
            Self::PortsExhausted => format!("ports: 40000-{}", 40_000 + PORTS - 1),
            Self::UdpMapping => "filtering: endpoint-independent".to_owned(),
            Self::SynForward
            | Self::SynClosed
            | Self::TableFull
            | Self::Fragments
            | Self::InsideHost
            | Self::IcmpErrors
            | Self::OneBucket => String::new(),
        };
        let capacity = Self::CAPACITY;
        let limits =
            format!("sessions: {capacity}, sessions_per_host: {per_host}, fragments: {FRAGMENTS}");
        Keys { nat, limits }
    }

    /// Returns the reasons for which packets of the flood are dropped. The flood has reached its
    /// goal once the first one has occurred.
    pub(crate) fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::SynForward | Self::OneBucket => &[],
            Self::SynClosed => &["no-mapping"],
            Self::TableFull => &["table-full"],
            Self::PortsExhausted => &["ports-exhausted"],
            Self::Fragments => &[
                "fragment-table-full",
                "fragment-timeout",
                "fragment-duplicate",
                "fragment-overlap",
            ],
            Self::UdpMapping => &["inbound-limit"],
            Self::InsideHost => &["host-session-limit"],
            Self::IcmpErrors => &["icmp-error-no-session"],
        }
    }

    /// Returns the number of sessions that the flood may hold.
    pub(crate) fn most_sessions(self) -> u32 {
        match self {
            Self::SynForward | Self::TableFull | Self::Fragments | Self::OneBucket => {
                Self::CAPACITY
            }
            Self::SynClosed | Self::IcmpErrors => 0,
            Self::PortsExhausted => PORTS,
            Self::UdpMapping => Self::CAPACITY / 8,
            Self::InsideHost => HOST_LIMIT,
        }
    }

    /// Returns the number of sessions that the flood opens at least: some are open when others end.
    pub(crate) fn least_opened(self) -> u64 {
        if self == Self::SynForward { 4 * u64::from(Self::CAPACITY) } else { 0 }
    }

    /// Builds the packets of the flood.
    pub(crate) fn packets(self, targets: Targets, seed: u64) -> Vec<Vec<u8>> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..PACKETS).map(|number| self.packet(number, targets, &mut random)).collect()
    }

    fn packet(self, number: u32, targets: Targets, random: &mut StdRng) -> Vec<u8> {
        let (host, port) = (outside_host(random), random.random_range(1024..=u16::MAX));
        let server = targets.server;
        let udp = |from, to| builder::udp(builder::tuple(Protocol::UDP, from, to), PAYLOAD);
        match self {
            Self::SynForward => syn((host, port), (server, WEB), random),
            Self::SynClosed => {
                let to = (server, random.random_range(10_000..60_000));
                syn((host, port), to, random)
            }
            Self::TableFull => {
                let from = (inside_host(number), 5000 + random.random_range(0..64));
                udp(from, (host, port))
            }
            Self::PortsExhausted => {
                udp((inside_host(number), port), (Ipv4Addr::new(11, 0, 0, 1), 53))
            }
            Self::Fragments => fragment(number, (host, port), server, random),
            Self::UdpMapping => udp((host, port), (*targets.mapped.ip(), targets.mapped.port())),
            Self::InsideHost => udp((inside_host(0), port), (host, 53)),
            Self::IcmpErrors => {
                let from = (server, random.random_range(10_000..60_000));
                builder::icmp_error(3, 1, host, server, &udp(from, (host, port)))
            }
            Self::OneBucket => udp(colliding(number), (server, SINK)),
        }
    }
}

fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), random: &mut StdRng) -> Vec<u8> {
    let tuple = builder::tuple(Protocol::TCP, from, to);
    builder::tcp(tuple, TcpFlags::SYN, random.random(), 0, &[2, 4, 5, 180], b"")
}

/// Returns a source whose tuple collides with many others: every second one has the same address
/// and the next port, the others have the same exclusive or of their halves.
fn colliding(number: u32) -> (Ipv4Addr, u16) {
    let low = (number / 2) as u16;
    match number % 2 {
        0 => (Ipv4Addr::new(11, 0, 0, 1), low.max(1)),
        _ => (Ipv4Addr::from_bits(0x0b01_0000 | u32::from(low)), (low ^ 0x5555).max(1)),
    }
}

/// Returns a first fragment without a later one, or a later one without a first one.
fn fragment(number: u32, from: (Ipv4Addr, u16), server: Ipv4Addr, random: &mut StdRng) -> Vec<u8> {
    let tuple = builder::tuple(Protocol::UDP, from, (server, SINK));
    let mut whole = builder::udp(tuple, &[7; 120]);
    builder::set_identification(&mut whole, random.random());
    builder::fragments(&whole, 64).swap_remove(number as usize % 2)
}

/// Returns an address that no network of the testbed has.
fn outside_host(random: &mut StdRng) -> Ipv4Addr {
    Ipv4Addr::new(random.random_range(11..100), random.random(), random.random(), random.random())
}

/// Returns one of the inside hosts that send floods. None of them answers ARP.
fn inside_host(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 64 + (number % 64) as u8)
}

/// Limit of the sessions of one inside host, where a scenario has one.
const HOST_LIMIT: u32 = 1000;
/// Fragmented datagrams that are tracked: few, so that a slow machine reaches the limit.
const FRAGMENTS: u32 = 256;
/// External ports, where a scenario has few.
const PORTS: u32 = 512;
/// Number of different packets of a flood.
const PACKETS: u32 = 32 * Scenario::CAPACITY;
/// Payload of small datagrams.
const PAYLOAD: &[u8] = b"overload";

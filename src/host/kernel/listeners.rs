//! Ports that programs of this host use. A mapping of an address that is assigned to the host must
//! not use these ports.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use crate::config::Config;
use crate::host::error::HostError;
use crate::host::model::facts::HostFacts;

/// The kernel's tables of sockets, each with the state of a listening socket: TCP_LISTEN, and
/// TCP_CLOSE for UDP without a peer.
const TABLES: [SocketTable; 4] = [
    SocketTable { name: "tcp", udp: false, listening: "0A" },
    SocketTable { name: "tcp6", udp: false, listening: "0A" },
    SocketTable { name: "udp", udp: true, listening: "07" },
    SocketTable { name: "udp6", udp: true, listening: "07" },
];

struct SocketTable {
    /// File below `/proc/net`.
    name: &'static str,
    udp: bool,
    /// State of a listening socket, in hexadecimal.
    listening: &'static str,
}

/// A line of a table: one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SocketLine<'l> {
    /// Local address; None for any address.
    address: Option<Ipv4Addr>,
    /// Local port; 0 for a UDP socket that is not bound.
    port: u16,
    /// State, in hexadecimal.
    state: &'l str,
}

/// A listening TCP socket, or a UDP socket without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) udp: bool,
    /// None for any address. The IPv6 wildcard counts as any address, because it includes IPv4
    /// unless the program says otherwise.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) port: u16,
}

/// Ports that programs of the host use on external addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsedPorts {
    pub(crate) tcp: PortsByUse,
    pub(crate) udp: PortsByUse,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortsByUse {
    /// Ports of listening TCP sockets, or of UDP sockets without a peer.
    pub(crate) listening: Vec<u16>,
    /// Ports of all other sockets: connections in any state.
    pub(crate) connected: Vec<u16>,
}

/// Lists the ports that the host's own programs use on the external addresses that are assigned to
/// the host, or on any address; empty when no external address is assigned to the host.
///
/// # Errors
/// When the kernel's tables of sockets cannot be read.
pub(crate) fn used_ports(config: &Config, facts: &HostFacts) -> Result<UsedPorts, HostError> {
    if !facts.any_assigned_to_host() {
        return Ok(UsedPorts::default());
    }
    let uplinks = config.uplinks.iter().zip(&facts.assigned_to_host);
    let assigned = uplinks.flat_map(|(uplink, assigned)| {
        let addresses = uplink.addresses.iter().zip(assigned);
        addresses.filter(|(_, assigned)| **assigned).map(|(address, _)| *address)
    });
    ports_on(&assigned.collect())
}

/// Lists the ports of the sockets that are bound to one of these addresses, or to any address.
fn ports_on(addresses: &BTreeSet<Ipv4Addr>) -> Result<UsedPorts, HostError> {
    let mut sets: [[BTreeSet<u16>; 2]; 2] = Default::default();
    for_each_socket(|table, socket| {
        if socket.address.is_none_or(|address| addresses.contains(&address)) {
            let listens = socket.state == table.listening;
            sets[usize::from(table.udp)][usize::from(listens)].insert(socket.port);
        }
    })?;
    let [tcp, udp] = sets.map(|[connected, listening]| PortsByUse {
        listening: listening.into_iter().collect(),
        connected: connected.into_iter().collect(),
    });
    Ok(UsedPorts { tcp, udp })
}

/// Lists the sockets that listen for IPv4.
///
/// # Errors
/// When the kernel's tables of sockets cannot be read.
pub(crate) fn listeners() -> Result<Vec<Listener>, HostError> {
    let mut found = Vec::new();
    for_each_socket(|table, socket| {
        if socket.state == table.listening {
            let SocketLine { address, port, .. } = socket;
            found.push(Listener { udp: table.udp, address, port });
        }
    })?;
    Ok(found)
}

/// Calls `visit` for the sockets of IPv4, and for those of IPv6 that include IPv4.
fn for_each_socket(mut visit: impl FnMut(&SocketTable, SocketLine<'_>)) -> Result<(), HostError> {
    for table in &TABLES {
        let path = format!("/proc/thread-self/net/{}", table.name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let sockets = text.lines().skip(1).filter_map(socket_of);
                sockets.for_each(|socket| visit(table, socket));
            }
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(HostError::sysctl(path.as_ref(), "a table of sockets", error));
            }
        }
    }
    Ok(())
}

/// Reads the IPv4 address of a table's line. The inner None is a wildcard, the outer None an
/// address of IPv6 alone.
fn address_of(hexadecimal: &str) -> Option<Option<Ipv4Addr>> {
    let word = |at: usize| u32::from_str_radix(hexadecimal.get(8 * at..8 * (at + 1))?, 16).ok();
    // The kernel prints words of network order in host order.
    let octets = |word: u32| {
        Some(Ipv4Addr::from(word.to_ne_bytes())).filter(|address| !address.is_unspecified())
    };
    if hexadecimal.len() == 8 {
        return word(0).map(octets);
    }
    let (high, mapped, low) = ((word(0)?, word(1)?), word(2)?.to_ne_bytes(), word(3)?);
    match (high, mapped) {
        ((0, 0), [0, 0, 0, 0]) if low == 0 => Some(None),
        ((0, 0), [0, 0, 0xff, 0xff]) => Some(octets(low)),
        (_, _) => None,
    }
}

/// Reads a table's line (proc_net_tcp.rst of the kernel's docs). None: the socket is of IPv6 alone.
fn socket_of(line: &str) -> Option<SocketLine<'_>> {
    let mut words = line.split_whitespace();
    let (_slot, local, _remote, state) =
        (words.next()?, words.next()?, words.next()?, words.next()?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketLine { address: address_of(address)?, port, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_local_endpoint_and_a_state() {
        let line = |address, state| {
            format!("   0: {address}:0050 0100007F:9C40 {state} 00000000:00000000 00:0 0 0 0 1 1")
        };
        let localhost = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        for (address, wanted) in [("00000000", None), (&localhost, Some(Ipv4Addr::LOCALHOST))] {
            for state in ["0A", "01", "06"] {
                let wanted = SocketLine { address: wanted, port: 80, state };
                assert_eq!(socket_of(&line(address, state)), Some(wanted));
            }
        }
        assert_eq!(socket_of(&line(&"20".repeat(16), "0A")), None, "IPv6 alone");
        assert_eq!(socket_of(""), None);
    }

    #[test]
    fn ports_of_all_sockets_on_the_address_are_in_use() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bound = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        let elsewhere = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let found = ports_on(&[Ipv4Addr::LOCALHOST].into()).unwrap();
        let [listener, client, elsewhere] = [
            listener.local_addr().unwrap().port(),
            client.local_addr().unwrap().port(),
            elsewhere.local_addr().unwrap().port(),
        ];
        assert!(found.tcp.listening.contains(&listener) && found.tcp.connected.contains(&client));
        assert!(!found.tcp.listening.contains(&elsewhere));
        assert!(found.udp.listening.contains(&bound.local_addr().unwrap().port()));
        assert!(found.udp.connected.contains(&connected.local_addr().unwrap().port()));
    }

    #[test]
    fn a_listener_has_its_bound_address() {
        let (socket, datagrams) = (
            std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            std::net::UdpSocket::bind("0.0.0.0:0").unwrap(),
        );
        let found = listeners().unwrap();
        let (tcp, udp) =
            (socket.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
        assert!(found.contains(&Listener {
            udp: false,
            address: Some(Ipv4Addr::LOCALHOST),
            port: tcp
        }));
        assert!(found.contains(&Listener { udp: true, address: None, port: udp }));
        let mapped = |last: u32| {
            let words = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), last];
            words.map(|word| format!("{word:08X}")).concat()
        };
        let localhost = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(address_of(&mapped(localhost)), Some(Some(Ipv4Addr::LOCALHOST)));
        assert_eq!(address_of(&"0".repeat(32)), Some(None));
        assert_eq!(address_of(&format!("{}{localhost:08X}", "20".repeat(12))), None, "IPv6 alone");
    }
}

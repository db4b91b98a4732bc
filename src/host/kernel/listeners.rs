//! Ports on which programs of this host listen. A mapping of an address that is assigned to the
//! host must not use these ports.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

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

/// A listening TCP socket, or a UDP socket without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) udp: bool,
    /// None for any address. The IPv6 wildcard counts as any address, because it includes IPv4
    /// unless the program says otherwise.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) port: u16,
}

/// Lists the ports on which the host's own programs listen; empty when no external address is
/// assigned to the host.
///
/// # Errors
/// When the kernel's tables of sockets cannot be read.
pub(crate) fn listening_ports(facts: &HostFacts) -> Result<Vec<u16>, HostError> {
    if facts.any_assigned_to_host() { ports() } else { Ok(Vec::new()) }
}

/// Lists the ports of all listening sockets, whatever their addresses.
fn ports() -> Result<Vec<u16>, HostError> {
    let mut ports = BTreeSet::new();
    for_each_socket(|table, line| ports.extend(port_of(line, table.listening)))?;
    Ok(ports.into_iter().collect())
}

/// Lists the sockets that listen for IPv4.
///
/// # Errors
/// When the kernel's tables of sockets cannot be read.
pub(crate) fn listeners() -> Result<Vec<Listener>, HostError> {
    let mut found = Vec::new();
    for_each_socket(|table, line| {
        let local =
            line.split_whitespace().nth(1).and_then(|local| address_of(local.split_once(':')?.0));
        let port = port_of(line, table.listening);
        let udp = table.udp;
        found.extend(local.zip(port).map(|(address, port)| Listener { udp, address, port }));
    })?;
    Ok(found)
}

fn for_each_socket(mut visit: impl FnMut(&SocketTable, &str)) -> Result<(), HostError> {
    for table in &TABLES {
        let path = format!("/proc/thread-self/net/{}", table.name);
        match fs::read_to_string(&path) {
            Ok(text) => text.lines().skip(1).for_each(|line| visit(table, line)),
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

/// Reads the local port of a table's line if the socket is in the state `listening`
/// (proc_net_tcp.rst of the kernel's docs).
fn port_of(line: &str, listening: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let (_slot, local, _remote, state) =
        (words.next()?, words.next()?, words.next()?, words.next()?);
    let (_, port) = local.split_once(':')?;
    (state == listening).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_has_a_port_and_a_connection_has_none() {
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let connected =
            "   1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 1 1";
        assert_eq!(
            (port_of(listening, "0A"), port_of(connected, "0A"), port_of("", "0A")),
            (Some(80), None, None)
        );
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = ports().unwrap();
        for port in [socket.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port()] {
            assert!(found.contains(&port), "{port} in {found:?}");
        }
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

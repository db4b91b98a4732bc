//! Ports at which programs of this host wait: an address of the host's own must not give them to anybody else.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use crate::host::error::HostError;

/// A socket at which a program waits: listening TCP, or UDP without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) udp: bool,
    /// None: whatever address; also that of IPv6, which takes IPv4 with it unless the program says otherwise.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) port: u16,
}

/// The ports of listening TCP sockets and unconnected UDP sockets, whatever address they are bound to.
pub(crate) fn ports() -> Result<Vec<u16>, HostError> {
    let mut ports = BTreeSet::new();
    lines(|_, line, waiting| ports.extend(port_of(line, waiting)))?;
    Ok(ports.into_iter().collect())
}

/// The sockets that wait for IPv4.
///
/// # Errors
/// The kernel's tables of sockets cannot be read.
pub(crate) fn listeners() -> Result<Vec<Listener>, HostError> {
    let mut found = Vec::new();
    lines(|table, line, waiting| {
        let local =
            line.split_whitespace().nth(1).and_then(|local| address_of(local.split_once(':')?.0));
        let udp = table.starts_with("udp");
        found.extend(local.zip(port_of(line, waiting)).map(|(address, port)| Listener {
            udp,
            address,
            port,
        }));
    })?;
    Ok(found)
}

fn lines(mut each: impl FnMut(&str, &str, &str)) -> Result<(), HostError> {
    for (table, waiting) in TABLES {
        let path = format!("/proc/thread-self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => text.lines().skip(1).for_each(|line| each(table, line, waiting)),
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(HostError::sysctl(path.as_ref(), "a table of sockets", error));
            }
        }
    }
    Ok(())
}

/// The IPv4 address in a table's words: of a wildcard none within; outer None: of IPv6 alone.
fn address_of(hexadecimal: &str) -> Option<Option<Ipv4Addr>> {
    let word = |at: usize| u32::from_str_radix(hexadecimal.get(8 * at..8 * (at + 1))?, 16).ok();
    // The kernel prints words of network order as if they were its own.
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

/// The local port of a line of the table if the socket is in the state `waiting` (proc_net_tcp.rst of the kernel's docs).
fn port_of(line: &str, waiting: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let (_slot, local, _remote, state) =
        (words.next()?, words.next()?, words.next()?, words.next()?);
    let (_, port) = local.split_once(':')?;
    (state == waiting).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

/// Tables and the state of a socket that waits: TCP_LISTEN, and TCP_CLOSE for UDP without a peer.
const TABLES: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_a_connection_is_not() {
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
    fn a_listener_has_the_address_that_it_is_bound_to() {
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

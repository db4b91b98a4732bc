//! Ports at which programs of this host wait: an address of the host's own must not give them to anybody else.

use std::collections::BTreeSet;
use std::fs;

use super::error::HostError;

/// The ports of listening TCP sockets and unconnected UDP sockets, whatever address they are bound to.
pub(super) fn ports() -> Result<Vec<u16>, HostError> {
    let mut ports = BTreeSet::new();
    for (table, waiting) in TABLES {
        let path = format!("/proc/thread-self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => ports.extend(text.lines().skip(1).filter_map(|line| port_of(line, waiting))),
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(HostError::sysctl(path.as_ref(), "a table of sockets", error)),
        }
    }
    Ok(ports.into_iter().collect())
}

/// The local port of a line of the table if the socket is in the state `waiting` (proc_net_tcp.rst of the kernel's docs).
fn port_of(line: &str, waiting: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let (_slot, local, _remote, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
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
        let listening = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let connected = "   1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 1 1";
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
}

//! The external ports that forwards leave to the other inside hosts and to the box's own probes.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use crate::config::checks::checker::Checker;
use crate::config::sections::Forward;
use crate::values::nat::{ForwardProtocol, PortRange};

/// Warns of each uplink on which forwards leave no port for outbound TCP or UDP sessions. `ports`:
/// the dynamic ports of the configuration.
pub(super) fn check(forwards: &[Forward], ports: PortRange, checker: &Checker<'_>) {
    for (uplink, file) in checker.uplinks().iter().enumerate() {
        let addresses = file.addresses().unwrap_or_default();
        let addresses: Vec<Ipv4Addr> =
            addresses.iter().flat_map(|item| item.value.iter().copied()).collect();
        for protocol in [ForwardProtocol::Tcp, ForwardProtocol::Udp] {
            let is_full =
                |address: &Ipv4Addr| leaves_none(forwards, uplink, *address, protocol, ports);
            if !addresses.is_empty() && addresses.iter().all(is_full) {
                let found = format!("no {protocol} port of {ports} left by the forwards");
                let wanted = "ports for outbound sessions and health checks";
                let advice = "publish fewer ports, or widen `nat.ports`";
                checker.diagnostics.warn(&file.location.field("addresses"), found, wanted, advice);
            }
        }
    }
}

/// Reports whether forwards that share no port own all of an address.
fn leaves_none(
    forwards: &[Forward],
    uplink: usize,
    address: Ipv4Addr,
    protocol: ForwardProtocol,
    ports: PortRange,
) -> bool {
    let owned: HashSet<u16> = forwards
        .iter()
        .filter(|forward| (forward.uplink, forward.address) == (uplink, address))
        .filter(|forward| !forward.is_shared())
        .filter(|forward| {
            forward.protocol == protocol || forward.protocol == ForwardProtocol::TcpUdp
        })
        .flat_map(|forward| forward.ports.first..=forward.ports.last)
        .collect();
    (ports.first..=ports.last).all(|port| owned.contains(&port))
}

//! Forwards that publish the same ports, or lead to the same ports of a server.

use std::collections::BTreeMap;

use crate::config::sections::Forward;

use super::published::Published;
use crate::config::checks::checker::Checker;
use crate::values::nat::{ForwardProtocol, PortRange};

/// Reports forwards that clash, and warns of those with a common target.
pub(super) fn check(published: &[Published<'_>], checker: &Checker<'_>) {
    check_published_once(published, checker);
    warn_of_shared_targets(published, checker);
}

/// Returns the single protocols that a forward publishes, one bit each.
fn protocols(protocol: ForwardProtocol) -> u8 {
    const TCP: u8 = 1;
    const UDP: u8 = 2;
    const ICMP: u8 = 4;
    match protocol {
        ForwardProtocol::Tcp => TCP,
        ForwardProtocol::Udp => UDP,
        ForwardProtocol::TcpUdp => TCP | UDP,
        ForwardProtocol::Icmp => ICMP,
        ForwardProtocol::Any => TCP | UDP | ICMP,
    }
}

/// Reports each forward that publishes a protocol, address and port of an earlier one, unless one
/// of the two is the narrower one and has these ports. Each report names the first such forward.
///
/// The search sweeps over the ports of each address and remembers the forwards whose ports have not
/// ended yet.
fn check_published_once(published: &[Published<'_>], checker: &Checker<'_>) {
    let mut order: Vec<usize> = (0..published.len()).collect();
    order.sort_by_key(|index| {
        let forward = &published[*index].forward;
        (forward.uplink, forward.address, forward.ports.first)
    });
    let mut open: Vec<usize> = Vec::new();
    let mut first_clashes: BTreeMap<usize, usize> = BTreeMap::new();
    for index in order {
        let one = &published[index].forward;
        open.retain(|other| {
            let other = &published[*other].forward;
            (other.uplink, other.address) == (one.uplink, one.address)
                && other.ports.last >= one.ports.first
        });
        for other in open.iter().copied() {
            if clash(&published[other].forward, one) {
                // The later of the two in the file gets the report.
                let (first, second) = (other.min(index), other.max(index));
                first_clashes
                    .entry(second)
                    .and_modify(|known| *known = first.min(*known))
                    .or_insert(first);
            }
        }
        open.push(index);
    }
    for (second, first) in first_clashes {
        let (first, second) = (&published[first], &published[second]);
        let found = format!(
            "{}, which `{}` ({}) publishes already",
            described(&second.forward),
            first.forward.name,
            first.item.location.key
        );
        checker.diagnostics.report(
            &second.item.location,
            found,
            "each protocol, address and port published once",
            "change or remove one of the two",
        );
    }
}

/// Reports whether neither of two forwards on one address, whose ports overlap, is the narrower
/// one.
fn clash(one: &Forward, other: &Forward) -> bool {
    let is_whole = |forward: &Forward| forward.protocol == ForwardProtocol::Any;
    let contains =
        |wide: PortRange, narrow: PortRange| wide.first <= narrow.first && narrow.last <= wide.last;
    let (ports, others) = (one.ports, other.ports);
    share_protocol(one.protocol, other.protocol)
        && is_whole(one) == is_whole(other)
        && (ports == others || !contains(ports, others) && !contains(others, ports))
}

fn share_protocol(one: ForwardProtocol, other: ForwardProtocol) -> bool {
    protocols(one) & protocols(other) != 0
}

/// Reports whether two forwards publish each port of the server at the same endpoint.
fn have_same_ports(one: &Forward, other: &Forward) -> bool {
    let offset = |forward: &Forward| i32::from(forward.ports.first) - i32::from(forward.to_port);
    one.address == other.address && offset(one) == offset(other)
}

fn described(forward: &Forward) -> String {
    match forward.protocol {
        ForwardProtocol::Icmp | ForwardProtocol::Any => {
            format!("{} on {}", forward.protocol, forward.address)
        }
        ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp => {
            format!("{} port {} on {}", forward.protocol, forward.ports, forward.address)
        }
    }
}

/// Warns of two forwards of one uplink that lead to the same port of the server. Without a session,
/// a packet from that port may belong to either. An exposed host may have forwards of its own.
fn warn_of_shared_targets(published: &[Published<'_>], checker: &Checker<'_>) {
    let is_single = |one: &&Published<'_>| one.forward.protocol != ForwardProtocol::Any;
    let mut order: Vec<&Published<'_>> = published.iter().filter(is_single).collect();
    order.sort_by_key(|one| (one.forward.uplink, one.forward.to_address, one.forward.to_port));
    let last_target =
        |forward: &Forward| forward.to_port + (forward.ports.last - forward.ports.first);
    for pair in order.windows(2) {
        let [one, other] = pair else { continue };
        let (a, b) = (&one.forward, &other.forward);
        if a.uplink == b.uplink
            && a.to_address == b.to_address
            && last_target(a) >= b.to_port
            && share_protocol(a.protocol, b.protocol)
            && !have_same_ports(a, b)
        {
            let found = format!("the target of `{}` ({})", a.name, one.item.location.key);
            let advice =
                "give the server a second address or port if it opens sessions from this one";
            checker.diagnostics.warn(&other.item.location, found, "a target of its own", advice);
        }
    }
}

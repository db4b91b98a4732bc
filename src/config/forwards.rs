//! What the items under `forwards` publish: which uplinks, addresses and ports each stands for, and that no two clash.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::checks::uplink_index;
use super::model::{Forward, ForwardProtocol, PortRange};
use super::problem::{Diagnostics, Location};
use super::reader::cursor::Located;
use super::reader::nearest;
use super::sections::{DraftForward, DraftInside, DraftUplink, Unresolved};

/// The forwards of the configuration; incomplete if the diagnostics holds a problem.
pub(super) fn check(
    drafts: &[DraftForward],
    uplinks: &[DraftUplink],
    inside: &DraftInside,
    diagnostics: &Diagnostics,
) -> Vec<Forward> {
    let published: Vec<Published<'_>> =
        drafts.iter().flat_map(|draft| publish(draft, uplinks, inside, diagnostics)).collect();
    check_names(&published, diagnostics);
    check_published_once(&published, diagnostics);
    warn_of_shared_targets(&published, diagnostics);
    published.into_iter().map(|published| published.forward).collect()
}

/// A forward of the configuration and the place of the item it comes from.
struct Published<'d> {
    forward: Forward,
    draft: &'d DraftForward,
}

/// The forwards that one item of the list stands for: one per uplink that it concerns.
fn publish<'d>(
    draft: &'d DraftForward,
    uplinks: &[DraftUplink],
    inside: &DraftInside,
    diagnostics: &Diagnostics,
) -> Vec<Published<'d>> {
    let endpoints = published_endpoints(draft, uplinks, diagnostics);
    let ports = ports_and_target(draft, diagnostics);
    let to_address = draft.to.as_ref().map(|to| {
        check_target_inside(to, inside, diagnostics);
        to.value.0
    });
    let (Some(protocol), Some((ports, to_port)), Some(to_address)) =
        (draft.protocol, ports, to_address)
    else {
        return Vec::new();
    };
    let publish = |(uplink, address)| Published {
        forward: Forward {
            name: draft.name.value.clone(),
            uplink,
            protocol,
            address,
            ports,
            to_address,
            to_port,
        },
        draft,
    };
    endpoints.into_iter().map(publish).collect()
}

/// Uplinks and addresses that the forward publishes on.
fn published_endpoints(
    draft: &DraftForward,
    uplinks: &[DraftUplink],
    diagnostics: &Diagnostics,
) -> Vec<(usize, Ipv4Addr)> {
    let concerned: Vec<usize> = match &draft.uplink {
        Unresolved::Absent => (0..uplinks.len()).collect(),
        Unresolved::Unreadable => return Vec::new(),
        Unresolved::Given(name) => match uplink_index(name, uplinks, diagnostics) {
            Some(index) => vec![index],
            None => return Vec::new(),
        },
    };
    // Where some uplink could not be read, what the forward would mean on it is unknown.
    if uplinks.iter().any(|uplink| uplink.addresses.is_none()) {
        return Vec::new();
    }
    let addresses = |index: usize| -> Vec<Ipv4Addr> {
        uplinks[index]
            .addresses
            .iter()
            .flatten()
            .flat_map(|some| some.value.iter().copied())
            .collect()
    };
    match &draft.address {
        Unresolved::Unreadable => Vec::new(),
        Unresolved::Given(address) => {
            // An external address belongs to one uplink only, so it also says which.
            let owner =
                concerned.iter().copied().find(|index| addresses(*index).contains(&address.value));
            if owner.is_none() && !uplinks.is_empty() {
                let known: Vec<String> = concerned
                    .iter()
                    .flat_map(|index| addresses(*index))
                    .filter(|address| !address.is_unspecified())
                    .map(|address| address.to_string())
                    .collect();
                let whose = match &draft.uplink {
                    Unresolved::Given(name) => format!("an address of uplink `{}`", name.value),
                    Unresolved::Absent | Unresolved::Unreadable => "an address of an uplink".into(),
                };
                let advice = match known.as_slice() {
                    [] => "leave it out: the uplink has the address of its interface".to_owned(),
                    some => {
                        format!("choose one of {}", nearest::list(some.iter().map(String::as_str)))
                    }
                };
                diagnostics.report(&address.place, address.value.to_string(), whose, advice);
            }
            owner.map(|index| (index, address.value)).into_iter().collect()
        }
        Unresolved::Absent => concerned
            .into_iter()
            .filter_map(|index| match addresses(index).as_slice() {
                [only] => Some((index, *only)),
                several => {
                    let name = uplinks[index].name.as_ref().map_or("", |name| &name.value);
                    let wanted =
                        format!("one of the {} addresses of uplink `{name}`", several.len());
                    let known: Vec<String> = several.iter().map(Ipv4Addr::to_string).collect();
                    let advice = format!(
                        "add `address:` with one of {}",
                        nearest::list(known.iter().map(String::as_str))
                    );
                    diagnostics.report(
                        &draft.place.field("address"),
                        "no such key",
                        wanted,
                        advice,
                    );
                    None
                }
            })
            .collect(),
    }
}

/// Published ports and the first port of the target.
fn ports_and_target(draft: &DraftForward, diagnostics: &Diagnostics) -> Option<(PortRange, u16)> {
    let to = draft.to.as_ref();
    match draft.protocol? {
        protocol @ (ForwardProtocol::Icmp | ForwardProtocol::Any) => {
            if let Unresolved::Given(port) = &draft.port {
                let wanted =
                    format!("no `port`, because `protocol: {protocol}` publishes no single ports");
                diagnostics.report(
                    &port.place,
                    port.value.to_string(),
                    wanted,
                    "take it out, or choose tcp, udp or tcp+udp",
                );
            }
            let to = to?;
            if let Some(port) = to.value.1 {
                let wanted = format!("an address without port, because of `protocol: {protocol}`");
                diagnostics.report(
                    &to.place,
                    format!("port {port}"),
                    wanted,
                    format!("write `to: {}`", to.value.0),
                );
            }
            Some((PortRange { first: 0, last: u16::MAX }, 0))
        }
        ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp => {
            let ports = match &draft.port {
                Unresolved::Given(ports) => ports.value,
                Unresolved::Unreadable => return None,
                Unresolved::Absent => {
                    let advice = "add `port: 80` or `port: 8000-8099` with your own";
                    diagnostics.report(
                        &draft.place.field("port"),
                        "no such key",
                        "the port to publish",
                        advice,
                    );
                    return None;
                }
            };
            let to = to?;
            target_port(ports, to, diagnostics).map(|to_port| (ports, to_port))
        }
    }
}

fn target_port(
    ports: PortRange,
    to: &Located<(Ipv4Addr, Option<PortRange>)>,
    diagnostics: &Diagnostics,
) -> Option<u16> {
    let Some(target) = to.value.1 else { return Some(ports.first) };
    let length = ports.last - ports.first;
    if target.first != target.last && target.last - target.first != length {
        let found = format!("{} ports ({target})", u32::from(target.last - target.first) + 1);
        let wanted = format!("as many as are published: {} ({ports})", u32::from(length) + 1);
        diagnostics.report(
            &to.place,
            found,
            wanted,
            "write the first port only, the rest keep their offset",
        );
        return None;
    }
    if target.first.checked_add(length).is_none() {
        let found = format!(
            "port {} for the first of {} published ports",
            target.first,
            u32::from(length) + 1
        );
        let advice = format!("lower it to {} at most, or publish fewer", u16::MAX - length);
        diagnostics.report(&to.place, found, "a range that ends at 65535 or before", advice);
        return None;
    }
    Some(target.first)
}

fn check_target_inside(
    to: &Located<(Ipv4Addr, Option<PortRange>)>,
    inside: &DraftInside,
    diagnostics: &Diagnostics,
) {
    let Some(prefixes) = inside.prefixes.as_deref() else { return };
    let address = to.value.0;
    match prefixes.iter().find(|prefix| prefix.contains(&address)) {
        None => {
            let known: Vec<String> =
                prefixes.iter().map(|prefix| prefix.value.to_string()).collect();
            let wanted =
                format!("an address within {}", nearest::list(known.iter().map(String::as_str)));
            diagnostics.report(
                &to.place,
                address.to_string(),
                wanted,
                "correct it, or add its prefix to `inside.prefixes`",
            );
        }
        Some(prefix)
            if prefix.prefix_len() < 31
                && (address == prefix.network() || address == prefix.broadcast()) =>
        {
            let found = format!("{address}, the network or broadcast address of {}", prefix.value);
            diagnostics.report(&to.place, found, "a host's address", "write the server's address");
        }
        Some(_) => {}
    }
}

fn check_names(published: &[Published<'_>], diagnostics: &Diagnostics) {
    let mut seen: HashMap<(&str, usize), &Published<'_>> = HashMap::new();
    let mut reported: Option<&Location> = None;
    for one in published {
        match seen.entry((&one.forward.name, one.forward.uplink)) {
            Entry::Vacant(vacant) => {
                vacant.insert(one);
            }
            // An item without `uplink` meets the same other item on every uplink; once is enough.
            Entry::Occupied(_) if reported == Some(&one.draft.place) => {}
            Entry::Occupied(first) => {
                let found = format!(
                    "a second forward `{}` (the first is {})",
                    one.forward.name,
                    first.get().draft.place.key
                );
                diagnostics.report(
                    &one.draft.name.place,
                    found,
                    "one of each name on an uplink",
                    "give this one another `name`",
                );
                reported = Some(&one.draft.place);
            }
        }
    }
}

/// Protocols as a set; a forward publishes one or several.
fn protocols(protocol: ForwardProtocol) -> &'static [usize] {
    const TCP: usize = 0;
    const UDP: usize = 1;
    const ICMP: usize = 2;
    match protocol {
        ForwardProtocol::Tcp => &[TCP],
        ForwardProtocol::Udp => &[UDP],
        ForwardProtocol::TcpUdp => &[TCP, UDP],
        ForwardProtocol::Icmp => &[ICMP],
        ForwardProtocol::Any => &[TCP, UDP, ICMP],
    }
}

/// Reports each forward that publishes what another one, earlier in the file, does too: with the first such one.
///
/// A sweep over the ports of each address, which remembers the forwards that have not ended yet.
fn check_published_once(published: &[Published<'_>], diagnostics: &Diagnostics) {
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
            if share_protocol(published[other].forward.protocol, one.protocol) {
                // The later of the two in the file is the one to mend.
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
            "{}, which `{}` publishes too ({})",
            described(&second.forward),
            first.forward.name,
            first.draft.place.key
        );
        diagnostics.report(
            &second.draft.place,
            found,
            "each protocol, address and port published once",
            "change or remove one of the two",
        );
    }
}

fn share_protocol(one: ForwardProtocol, other: ForwardProtocol) -> bool {
    protocols(one).iter().any(|protocol| protocols(other).contains(protocol))
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

/// Warns where two forwards of one uplink lead to the same port of the server: without a session, a packet from
/// there does not tell which of the two it belongs to.
fn warn_of_shared_targets(published: &[Published<'_>], diagnostics: &Diagnostics) {
    let mut order: Vec<&Published<'_>> = published.iter().collect();
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
        {
            let found =
                format!("a target that `{}` ({}) leads to as well", a.name, one.draft.place.key);
            let advice = "give the server a second address or port if it starts traffic from there";
            diagnostics.warn(&other.draft.place, found, "a target of its own", advice);
        }
    }
}

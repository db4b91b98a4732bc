//! What of the section depends on several keys at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use super::super::checks::uplink_index;
use super::super::model::{Forward, ForwardProtocol};
use super::super::problem::{Diagnostics, Location};
use super::super::reader::cursor::Located;
use super::super::sections::{DraftUplink, Unresolved};
use super::read::{DraftDns, DraftServer, DraftUpdate};
use super::{Dns, DnsName, DnsServer, DnsUpdate};
use crate::dns::Name;

/// Checks the draft; None if the diagnostics holds the reason.
pub(in super::super) fn check(
    draft: DraftDns,
    uplinks: &[DraftUplink],
    forwards: &[Forward],
    diagnostics: &Diagnostics,
) -> Option<Dns> {
    let zone = draft.zone.as_ref();
    let mut seen: HashMap<Name, Location> = HashMap::new();
    let mut absolute = |name: &Option<Located<Name>>| {
        let absolute = within(name.as_ref()?, zone?, diagnostics)?;
        match seen.entry(absolute.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(name.as_ref()?.place.clone());
                Some(absolute)
            }
            Entry::Occupied(first) => {
                let found = format!("{} again (first in {})", shown(&absolute), first.get().key);
                diagnostics.report(
                    &name.as_ref()?.place,
                    found,
                    "each name once",
                    "give one of the two another name",
                );
                None
            }
        }
    };
    let names: Option<Vec<DnsName>> = draft.names.as_ref().and_then(|names| {
        let names: Vec<_> = names
            .iter()
            .map(|draft| {
                let uplinks = chosen_uplinks(&draft.uplinks, uplinks, diagnostics);
                Some(DnsName { name: absolute(&draft.name)?, uplinks: uplinks? })
            })
            .collect();
        names.into_iter().collect()
    });
    let name_servers: Option<Vec<DnsServer>> = draft.name_servers.as_ref().and_then(|servers| {
        let servers: Vec<_> = servers
            .iter()
            .map(|server| {
                let (name, address) = (absolute(&server.name), server.address.as_ref()?.value);
                Some(DnsServer { name: name?, address })
            })
            .collect();
        servers.into_iter().collect()
    });
    warn_of_one_address(draft.name_servers.as_deref().unwrap_or_default(), diagnostics);
    if draft.listen {
        check_listening(&draft, uplinks, forwards, diagnostics);
    } else if draft.update.is_none() && draft.hook.is_none() {
        let found = "`false`, and neither `update` nor `hook`";
        diagnostics.report(
            &draft.listen_place,
            found,
            "something to do",
            "add one of them, or take `dns` out",
        );
    }
    let update = draft
        .update
        .map(|update| update.and_then(|update| check_update(update, zone, diagnostics)));
    let zone = draft.zone?.value;
    Some(Dns {
        names: names?,
        name_servers: name_servers?,
        mailbox: match draft.mailbox {
            Unresolved::Absent => zone.prepend_label("hostmaster").unwrap_or_else(|_| zone.clone()),
            Unresolved::Unreadable => return None,
            Unresolved::Given(mailbox) => mailbox.value,
        },
        zone,
        ttl: draft.ttl,
        negative_ttl: draft.negative_ttl,
        answers_per_second: draft.answers_per_second,
        listen: draft.listen,
        update: match update {
            None => None,
            Some(update) => Some(update?),
        },
        hook: match draft.hook {
            None => None,
            Some(hook) => Some(hook?),
        },
    })
}

/// The absolute name.
fn within(name: &Located<Name>, zone: &Located<Name>, diagnostics: &Diagnostics) -> Option<Name> {
    let mut as_absolute = name.value.clone();
    as_absolute.set_fqdn(true);
    if name.value.num_labels() > 0 && zone.value.zone_of(&as_absolute) {
        let wanted = format!("a name within {}, without it", shown(&zone.value));
        diagnostics.report(
            &name.place,
            shown(&as_absolute),
            wanted,
            "leave out the zone, or write \"@\" for itself",
        );
        return None;
    }
    let absolute = name.value.clone().append_domain(&zone.value);
    if absolute.is_err() {
        let found = format!("a name that makes more than 255 bytes with {}", shown(&zone.value));
        diagnostics.report(&name.place, found, "a shorter name", "shorten it");
    }
    absolute.ok()
}

fn chosen_uplinks(
    wish: &Unresolved<Vec<Located<String>>>,
    uplinks: &[DraftUplink],
    diagnostics: &Diagnostics,
) -> Option<Vec<usize>> {
    let names = match wish {
        Unresolved::Unreadable => return None,
        Unresolved::Absent => return Some((0..uplinks.len()).collect()),
        Unresolved::Given(names) => &names.value,
    };
    let mut chosen: Vec<usize> = Vec::new();
    for name in names {
        let Some(index) = uplink_index(name, uplinks, diagnostics) else { continue };
        if chosen.contains(&index) {
            diagnostics.report(
                &name.place,
                format!("`{}` again", name.value),
                "each uplink once",
                "take one out",
            );
        } else {
            chosen.push(index);
        }
    }
    Some(chosen)
}

/// Two names of one server die together.
fn warn_of_one_address(servers: &[DraftServer], diagnostics: &Diagnostics) {
    let mut seen: HashMap<Ipv4Addr, &Location> = HashMap::new();
    for address in servers.iter().filter_map(|server| server.address.as_ref()) {
        if let Some(first) = seen.get(&address.value) {
            let found = format!("{} again (first in {})", address.value, first.key);
            let advice = "write that of another line, so that they do not fail together";
            diagnostics.warn(
                &address.place,
                found,
                "an address of its own for each name server",
                advice,
            );
        } else {
            seen.insert(address.value, &address.place);
        }
    }
}

/// The box's own name server must be reachable, and somebody must be sent to it.
fn check_listening(
    draft: &DraftDns,
    uplinks: &[DraftUplink],
    forwards: &[Forward],
    diagnostics: &Diagnostics,
) {
    if draft.name_servers.as_ref().is_some_and(Vec::is_empty) {
        let advice = "add `name_servers: [{ name: ns1, address: 203.0.113.10 }]`, one for each line, or `listen: false`";
        diagnostics.report(
            &draft.place.field("name_servers"),
            "no such key",
            "who answers for the zone",
            advice,
        );
    }
    let own: Vec<_> = uplinks
        .iter()
        .filter_map(|uplink| uplink.addresses.as_ref()?.first()?.value.first().copied())
        .collect();
    for address in &own {
        let shadows = |forward: &&Forward| {
            let Forward { protocol, ports, .. } = forward;
            let has_ports = match protocol {
                ForwardProtocol::Tcp
                | ForwardProtocol::Udp
                | ForwardProtocol::TcpUdp
                | ForwardProtocol::Any => true,
                ForwardProtocol::Icmp => false,
            };
            forward.address == *address
                && has_ports
                && (ports.first..=ports.last).contains(&Dns::PORT)
        };
        if let Some(forward) = forwards.iter().find(shadows) {
            let found = format!(
                "a name server at port {} of {address}, which forward `{}` publishes",
                Dns::PORT,
                forward.name
            );
            let advice = "take that port out of the forward, or set `listen: false`";
            diagnostics.report(&draft.listen_place, found, "a port of its own", advice);
        }
    }
    let is_own = |server: &DraftServer| {
        server.address.as_ref().is_none_or(|address| own.contains(&address.value))
    };
    let servers = draft.name_servers.as_deref().unwrap_or_default();
    // The address of an interface is not known here.
    let known = !uplinks.iter().any(|uplink| uplink.follows_interface);
    if known && !own.is_empty() && !servers.is_empty() && !servers.iter().any(is_own) {
        let found = "no first address of an uplink";
        let advice = "without it nobody asks this box; add the name server that it is";
        diagnostics.warn(&draft.place.field("name_servers"), found, "this box among them", advice);
    }
}

fn check_update(
    draft: DraftUpdate,
    zone: Option<&Located<Name>>,
    diagnostics: &Diagnostics,
) -> Option<DnsUpdate> {
    let update_zone = match draft.zone {
        Unresolved::Absent => zone?.value.clone(),
        Unresolved::Unreadable => return None,
        Unresolved::Given(given) => {
            if !given.value.zone_of(&zone?.value) {
                let wanted = format!("{} or a zone above it", shown(&zone?.value));
                diagnostics.report(
                    &given.place,
                    shown(&given.value),
                    wanted,
                    "the published names must lie in it",
                );
            }
            given.value
        }
    };
    Some(DnsUpdate {
        server: draft.server?,
        zone: update_zone,
        key: draft.key?,
        algorithm: draft.algorithm,
        secret_file: draft.secret_file?,
        replace: draft.replace,
    })
}

/// A name as the file writes it.
pub(super) fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

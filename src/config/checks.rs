//! What depends on several keys at once: a draft becomes the configuration, or the contradictions are named.
//!
//! A check keeps silent where one of its inputs could not be read, so that no problem is a mere echo of another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::dns;
use super::forwards;
use super::model::{Config, Inside, OutboundRule, Uplink};
use super::problem::{Diagnostics, Location};
use super::reader::cursor::Located;
use super::reader::nearest;
use super::sections::{Draft, DraftInside, DraftRule, DraftUplink, Unresolved};

/// Checks the draft as a whole; None if the diagnostics holds the reason.
pub(super) fn check(draft: Draft, diagnostics: &Diagnostics) -> Option<Config> {
    check_prefixes(draft.inside.prefixes.as_deref().unwrap_or_default(), diagnostics);
    check_interfaces(&draft, diagnostics);
    let uplinks = draft.uplinks.as_deref().unwrap_or_default();
    check_uplink_names(uplinks, diagnostics);
    check_followed(uplinks, diagnostics);
    check_inside_address(&draft.inside, diagnostics);
    check_addresses(uplinks, &draft.inside, diagnostics);
    check_gateways(uplinks, &draft.inside, diagnostics);
    check_targets(uplinks, &draft.inside, diagnostics);
    let forwards = forwards::check(&draft.forwards, uplinks, &draft.inside, diagnostics);
    check_rules(&draft.outbound, diagnostics);
    let dns = match draft.dns {
        None => Some(None),
        Some(dns) => dns::check(dns, uplinks, &forwards, diagnostics).map(Some),
    };
    let outbound: Option<Vec<OutboundRule>> = draft
        .outbound
        .iter()
        .map(|rule| outbound_rule(rule, uplinks, &draft.inside, diagnostics))
        .collect::<Vec<_>>()
        .into_iter()
        .collect();

    Some(Config {
        name: draft.name?,
        tun: draft.tun,
        inside: Inside {
            interface: draft.inside.interface?.value,
            address: draft.inside.address.map(|address| address.value),
            prefixes: values(draft.inside.prefixes?),
        },
        uplinks: draft.uplinks?.into_iter().map(uplink).collect::<Option<_>>()?,
        forwards,
        outbound: outbound?,
        no_nat: draft.no_nat,
        nat: draft.nat,
        timeouts: draft.timeouts,
        limits: draft.limits,
        host: draft.host,
        admin: draft.admin?,
        state: draft.state,
        log: draft.log,
        dns: dns?,
    })
}

fn uplink(draft: DraftUplink) -> Option<Uplink> {
    Some(Uplink {
        name: draft.name?.value,
        interface: draft.interface?.value,
        addresses: values(draft.addresses?).concat(),
        follows_interface: draft.follows_interface,
        gateway: match draft.gateway {
            None => None,
            Some(gateway) => Some(gateway?.value),
        },
        weight: draft.weight,
        health: draft.health,
        on_failure: draft.on_failure,
        failback: draft.failback,
    })
}

fn values<T>(located: Vec<Located<T>>) -> Vec<T> {
    located.into_iter().map(|item| item.value).collect()
}

fn check_prefixes(prefixes: &[Located<Ipv4Net>], diagnostics: &Diagnostics) {
    for (index, prefix) in prefixes.iter().enumerate() {
        let other = prefixes[..index]
            .iter()
            .find(|other| other.contains(&prefix.value) || prefix.contains(&other.value));
        if let Some(other) = other {
            let wanted = format!("a prefix apart from {} ({})", other.value, other.place.key);
            diagnostics.report(
                &prefix.place,
                prefix.value.to_string(),
                wanted,
                "leave out the smaller of the two",
            );
        }
    }
}

fn check_interfaces(draft: &Draft, diagnostics: &Diagnostics) {
    let inside = draft.inside.interface.as_ref();
    let uplinks = draft.uplinks.iter().flatten().filter_map(|uplink| uplink.interface.as_ref());
    for outside in uplinks.clone() {
        if inside.is_some_and(|inside| inside.value == outside.value) {
            let found = format!("`{}`, which is the inside interface too", outside.value);
            diagnostics.report(
                &outside.place,
                found,
                "another interface",
                "give each leg its own, a VLAN interface will do",
            );
        }
    }
    if let Some(taken) = inside.into_iter().chain(uplinks).find(|leg| leg.value == draft.tun.name) {
        let found =
            format!("`{}`, which is the interface of {}", draft.tun.name, leg_of(&taken.place));
        diagnostics.report(
            &draft.tun_name,
            found,
            "a name of its own",
            "choose another, such as `nb1`: natbox makes this device",
        );
    }
}

/// `uplinks[0]` of `uplinks[0].interface`.
fn leg_of(place: &Location) -> String {
    let (leg, _) = place.key.rsplit_once('.').unwrap_or((&place.key, ""));
    format!("`{leg}`")
}

/// Two uplinks cannot both have the one address of an interface.
fn check_followed(uplinks: &[DraftUplink], diagnostics: &Diagnostics) {
    let mut seen: HashMap<&str, &Location> = HashMap::new();
    for uplink in uplinks.iter().filter(|uplink| uplink.follows_interface) {
        let Some(interface) = &uplink.interface else { continue };
        if let Some(first) = seen.insert(&interface.value, &uplink.place) {
            let found =
                format!("the address of {}, which {} has already", interface.value, first.key);
            let wanted = "an interface of its own, or fixed addresses";
            diagnostics.report(
                &uplink.place.field("addresses"),
                found,
                wanted,
                "correct one of the two",
            );
        }
    }
}

fn check_uplink_names(uplinks: &[DraftUplink], diagnostics: &Diagnostics) {
    let mut seen: HashMap<&str, &Location> = HashMap::new();
    for name in uplinks.iter().filter_map(|uplink| uplink.name.as_ref()) {
        match seen.entry(&name.value) {
            Entry::Vacant(vacant) => {
                vacant.insert(&name.place);
            }
            Entry::Occupied(first) => {
                let found =
                    format!("a second uplink `{}` (the first is {})", name.value, first.get().key);
                diagnostics.report(
                    &name.place,
                    found,
                    "one of each name",
                    "give this one a `name` of its own",
                );
            }
        }
    }
}

fn check_addresses(uplinks: &[DraftUplink], inside: &DraftInside, diagnostics: &Diagnostics) {
    let mut seen: HashMap<Ipv4Addr, &Location> = HashMap::new();
    let fixed = uplinks.iter().filter(|uplink| !uplink.follows_interface);
    for addresses in fixed.filter_map(|uplink| uplink.addresses.as_ref()).flatten() {
        // One problem per item of the list is enough, even where it stands for many addresses.
        let mut twice = None;
        for &address in &addresses.value {
            match seen.entry(address) {
                Entry::Vacant(vacant) => {
                    vacant.insert(&addresses.place);
                }
                Entry::Occupied(first) => {
                    twice = twice.or(Some((address, first.get().key.clone())))
                }
            }
        }
        if let Some((address, first)) = twice {
            let found = format!("{address}, which is in {first} too");
            diagnostics.report(
                &addresses.place,
                found,
                "each external address once",
                "take it out of one of the two",
            );
        }
        if let Some((address, prefix)) = first_inside(&addresses.value, inside) {
            let found = format!("{address}, which lies in the inside prefix {prefix}");
            let advice = "write the line's own address here, or correct `inside.prefixes`";
            diagnostics.report(&addresses.place, found, "an external address", advice);
        }
    }
    for uplink in uplinks {
        let number: usize = uplink.addresses.iter().flatten().map(|some| some.value.len()).sum();
        if number > Uplink::MAX_ADDRESSES {
            let wanted = format!("at most {}", Uplink::MAX_ADDRESSES);
            diagnostics.report(
                &uplink.place.field("addresses"),
                format!("{number} addresses"),
                wanted,
                "publish fewer",
            );
        }
    }
}

fn check_inside_address(inside: &DraftInside, diagnostics: &Diagnostics) {
    let (Some(address), Some(_)) = (&inside.address, &inside.prefixes) else { return };
    if first_inside(&[address.value], inside).is_none() {
        let advice =
            "write the box's own address on the private network, or correct `inside.prefixes`";
        diagnostics.report(
            &address.place,
            address.value.to_string(),
            "an address in one of `inside.prefixes`",
            advice,
        );
    }
}

fn check_gateways(uplinks: &[DraftUplink], inside: &DraftInside, diagnostics: &Diagnostics) {
    for uplink in uplinks {
        match &uplink.gateway {
            None if uplinks.len() > 1 && !uplink.follows_interface => {
                let wanted = format!("the next hop, because there are {} uplinks", uplinks.len());
                diagnostics.report(
                    &uplink.place.field("gateway"),
                    "no such key",
                    wanted,
                    "add `gateway: ADDRESS`",
                );
            }
            None | Some(None) => {}
            Some(Some(gateway)) => {
                let own = uplinks.iter().filter_map(|uplink| uplink.addresses.as_ref()).flatten();
                if let Some(own) =
                    own.into_iter().find(|addresses| addresses.contains(&gateway.value))
                {
                    let found = format!(
                        "{}, which is an address of this box ({})",
                        gateway.value, own.place.key
                    );
                    diagnostics.report(
                        &gateway.place,
                        found,
                        "the provider's router",
                        "ask the provider for its address",
                    );
                }
                if let Some((address, prefix)) = first_inside(&[gateway.value], inside) {
                    let found = format!("{address}, which lies in the inside prefix {prefix}");
                    diagnostics.report(
                        &gateway.place,
                        found,
                        "the provider's router",
                        "write its address on the line's side",
                    );
                }
            }
        }
    }
}

/// A target that this box or its private side answers for says nothing of a line.
fn check_targets(uplinks: &[DraftUplink], inside: &DraftInside, diagnostics: &Diagnostics) {
    let wanted = "a target that the line leads to";
    let advice = "ask the provider's router, or a host beyond it";
    for asked in uplinks.iter().flat_map(|uplink| &uplink.asked) {
        let mut own = uplinks.iter().filter_map(|uplink| uplink.addresses.as_ref()).flatten();
        if let Some(own) = own.find(|addresses| addresses.contains(&asked.value)) {
            let found =
                format!("{}, which is an address of this box ({})", asked.value, own.place.key);
            diagnostics.report(&asked.place, found, wanted, advice);
        } else if let Some((address, prefix)) = first_inside(&[asked.value], inside) {
            let found = format!("{address}, which lies in the inside prefix {prefix}");
            diagnostics.report(&asked.place, found, wanted, advice);
        }
    }
}

fn first_inside(addresses: &[Ipv4Addr], inside: &DraftInside) -> Option<(Ipv4Addr, Ipv4Net)> {
    let prefixes = inside.prefixes.as_deref()?;
    addresses.iter().find_map(|address| {
        let prefix = prefixes.iter().find(|prefix| prefix.contains(address))?;
        Some((*address, prefix.value))
    })
}

fn check_rules(rules: &[DraftRule], diagnostics: &Diagnostics) {
    let mut seen: HashMap<(Ipv4Net, Vec<Ipv4Net>), &Location> = HashMap::new();
    for (from, to) in rules.iter().filter_map(|rule| rule.from.as_ref().zip(rule.to.as_ref())) {
        let mut destinations: Vec<Ipv4Net> = to.iter().map(|to| to.value).collect();
        destinations.sort();
        match seen.entry((from.value, destinations)) {
            Entry::Vacant(vacant) => {
                vacant.insert(&from.place);
            }
            Entry::Occupied(first) => {
                let found = format!("{} again (first in {})", from.value, first.get().key);
                let wanted = match to.is_empty() {
                    true => "one rule for each prefix",
                    false => "one rule for each prefix and its destinations",
                };
                diagnostics.report(&from.place, found, wanted, "join the two");
            }
        }
    }
}

fn outbound_rule(
    draft: &DraftRule,
    uplinks: &[DraftUplink],
    inside: &DraftInside,
    diagnostics: &Diagnostics,
) -> Option<OutboundRule> {
    if let (Some(from), Some(prefixes)) = (&draft.from, &inside.prefixes)
        && !prefixes.iter().any(|prefix| prefix.contains(&from.value))
    {
        let known: Vec<String> = prefixes.iter().map(|prefix| prefix.value.to_string()).collect();
        let wanted = format!("a prefix within {}", nearest::list(known.iter().map(String::as_str)));
        diagnostics.report(
            &from.place,
            from.value.to_string(),
            wanted,
            "correct it, or add it to `inside.prefixes`",
        );
    }
    let chosen = match &draft.uplinks {
        Unresolved::Unreadable => None,
        Unresolved::Absent => Some((0..uplinks.len()).collect()),
        Unresolved::Given(names) => {
            let mut chosen: Vec<usize> = Vec::new();
            for name in &names.value {
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
    };
    Some(OutboundRule {
        from: draft.from.as_ref()?.value,
        to: draft.to.as_ref()?.iter().map(|to| to.value).collect(),
        uplinks: chosen?,
        hash_by: draft.hash_by,
    })
}

/// The uplink of this name; keeps silent while some uplink's own name is unknown.
pub(super) fn uplink_index(
    name: &Located<String>,
    uplinks: &[DraftUplink],
    diagnostics: &Diagnostics,
) -> Option<usize> {
    let names: Option<Vec<&str>> =
        uplinks.iter().map(|uplink| uplink.name.as_ref().map(|name| name.value.as_str())).collect();
    let names = names.filter(|names| !names.is_empty())?;
    let index = names.iter().position(|known| *known == name.value);
    if index.is_none() {
        let advice = nearest::advise(&name.value, names.iter().copied());
        diagnostics.report(
            &name.place,
            super::problem::quoted(&name.value),
            "the name of an uplink",
            advice,
        );
    }
    index
}

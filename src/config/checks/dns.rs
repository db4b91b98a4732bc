//! `dns`: names, name servers, and what the box announces.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

use crate::config::problem::Location;
use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved};
use crate::config::sections::{
    Dns, DnsName, DnsServer, DnsUpdate, FileDns, FileDnsName, FileDnsServer, FileDnsUpdate,
    FileUplink, Forward,
};
use crate::config::types::Items;
use crate::config::types::domain::without_dot;
use crate::values::dns::Name;
use crate::values::nat::ForwardProtocol;

use super::checker::Checker;

/// Checks the section; None if a problem was reported.
pub(super) fn check(
    dns: &Located<FileDns>,
    forwards: &[Forward],
    checker: &Checker<'_>,
) -> Option<Dns> {
    let zone = dns.zone.as_ref();
    let servers = dns.name_servers.given().map_or(&[][..], |servers| &servers.value.readable);
    let mut published = PublishedNames { zone, known: HashMap::new(), checker };
    let names = published.names(&dns.names);
    let name_servers = match &dns.name_servers {
        Unresolved::Unreadable => None,
        Unresolved::Absent => Some(Vec::new()),
        Unresolved::Given(servers) => published.servers(servers),
    };
    warn_of_one_address(servers, checker);
    if dns.listen {
        check_listening(dns, servers, forwards, checker);
    } else if matches!((&dns.update, &dns.hook), (Unresolved::Absent, Unresolved::Absent)) {
        let found = "`false`, and neither `update` nor `hook`";
        let advice = "add one of them, or remove `dns`";
        checker.diagnostics.report(
            &checker.location_of("dns.listen"),
            found,
            "a way to announce addresses",
            advice,
        );
    }
    let update = match &dns.update {
        Unresolved::Absent => Some(None),
        Unresolved::Unreadable => None,
        Unresolved::Given(update) => check_update(update, zone, checker).map(Some),
    };
    let zone = zone?.value.clone();
    let hostmaster = zone.prepend_label("hostmaster").unwrap_or_else(|_| zone.clone());
    Some(Dns {
        names: names?,
        name_servers: name_servers?,
        mailbox: dns.mailbox.clone().or_default(hostmaster)?,
        zone,
        ttl: dns.ttl,
        negative_ttl: dns.negative_ttl,
        answers_per_second: dns.answers_per_second,
        listen: dns.listen,
        update: update?,
        hook: dns.hook.clone().into_option()?,
    })
}

/// Makes names absolute, and reports those that come twice.
struct PublishedNames<'c> {
    zone: Option<&'c Located<Name>>,
    known: HashMap<Name, Location>,
    checker: &'c Checker<'c>,
}

impl PublishedNames<'_> {
    /// Returns the published names; None if one is not complete.
    fn names(&mut self, names: &Required<Items<FileDnsName>>) -> Option<Vec<DnsName>> {
        let names = names.as_ref()?.value.all()?.iter().map(|published| {
            let uplinks = self.checker.chosen_uplinks(&published.uplinks);
            Some(DnsName { name: self.absolute(&published.name)?, uplinks: uplinks? })
        });
        let names: Vec<_> = names.collect();
        names.into_iter().collect()
    }

    /// Returns the name servers; None if one is not complete.
    fn servers(&mut self, servers: &Items<FileDnsServer>) -> Option<Vec<DnsServer>> {
        let servers = servers.all()?.iter().map(|server| {
            let (name, address) = (self.absolute(&server.name), server.address.as_ref()?.value);
            Some(DnsServer { name: name?, address })
        });
        let servers: Vec<_> = servers.collect();
        servers.into_iter().collect()
    }

    fn absolute(&mut self, name: &Required<Name>) -> Option<Name> {
        let name = name.as_ref()?;
        let absolute = within(name, self.zone?, self.checker)?;
        match self.known.entry(absolute.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(name.location.clone());
                Some(absolute)
            }
            Entry::Occupied(first) => {
                let found =
                    format!("{} again (first in {})", without_dot(&absolute), first.get().key);
                let advice = "give one of the two another name";
                self.checker.diagnostics.report(&name.location, found, "each name once", advice);
                None
            }
        }
    }
}

/// Returns the absolute form of a name that the file writes without the zone.
fn within(name: &Located<Name>, zone: &Located<Name>, checker: &Checker<'_>) -> Option<Name> {
    let mut as_absolute = name.value.clone();
    as_absolute.set_fqdn(true);
    let zone_text = without_dot(&zone.value);
    if name.value.num_labels() > 0 && zone.value.zone_of(&as_absolute) {
        let wanted = format!("a name within {zone_text}, without it");
        let advice = "leave out the zone, or write \"@\" for itself";
        checker.diagnostics.report(&name.location, without_dot(&as_absolute), wanted, advice);
        return None;
    }
    let absolute = name.value.clone().append_domain(&zone.value);
    if absolute.is_err() {
        let found = format!("a name that makes more than 255 bytes with {zone_text}");
        checker.diagnostics.report(&name.location, found, "a shorter name", "shorten it");
    }
    absolute.ok()
}

/// Warns of two name servers with one address: they fail together.
fn warn_of_one_address(servers: &[Located<FileDnsServer>], checker: &Checker<'_>) {
    let mut known: HashMap<Ipv4Addr, &Location> = HashMap::new();
    for address in servers.iter().filter_map(|server| server.address.as_ref()) {
        if let Some(first) = known.get(&address.value) {
            let found = format!("{} again (first in {})", address.value, first.key);
            let wanted = "an address of its own for each name server";
            let advice = "write the address of another uplink, so that they do not fail together";
            checker.diagnostics.warn(&address.location, found, wanted, advice);
        } else {
            known.insert(address.value, &address.location);
        }
    }
}

/// Checks that clients reach the box's own name server, and that the zone refers to it.
fn check_listening(
    dns: &Located<FileDns>,
    servers: &[Located<FileDnsServer>],
    forwards: &[Forward],
    checker: &Checker<'_>,
) {
    let location = dns.location.field("name_servers");
    if matches!(dns.name_servers, Unresolved::Absent) {
        let advice = "add `name_servers: [{ name: ns1, address: 203.0.113.10 }]`, one for each uplink, or `listen: false`";
        checker.diagnostics.report(
            &location,
            "no such key",
            "the name servers of the zone",
            advice,
        );
    }
    let first = |uplink: &Located<FileUplink>| uplink.addresses()?.first()?.value.first().copied();
    let own: Vec<Ipv4Addr> = checker.uplinks().iter().filter_map(first).collect();
    own.iter().for_each(|address| check_port(*address, forwards, checker));
    let is_own = |server: &Located<FileDnsServer>| {
        server.address.as_ref().is_none_or(|address| own.contains(&address.value))
    };
    // The address of an interface is not known here.
    let known = !checker.uplinks().iter().any(|uplink| uplink.follows_interface());
    if known && !own.is_empty() && !servers.is_empty() && !servers.iter().any(is_own) {
        let found = "no first address of an uplink";
        let advice = "clients find this box only through a name server of the zone; add this box";
        checker.diagnostics.warn(&location, found, "this box among the name servers", advice);
    }
}

/// Reports a forward of the name server's port. A wider forward leaves the port to the name server,
/// and a range that does so gets a warning.
fn check_port(address: Ipv4Addr, forwards: &[Forward], checker: &Checker<'_>) {
    let covers = |forward: &&Forward| {
        forward.address == address
            && matches!(
                forward.protocol,
                ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp
            )
            && (forward.ports.first..=forward.ports.last).contains(&Dns::PORT)
    };
    let Some(forward) = forwards.iter().find(covers) else { return };
    let found = format!(
        "a name server at port {} of {address}, which forward `{}` publishes",
        Dns::PORT,
        forward.name
    );
    let location = checker.location_of("dns.listen");
    if forward.ports.first == forward.ports.last {
        let advice = "remove the forward, or set `listen: false`";
        checker.diagnostics.report(&location, found, "a port of its own", advice);
    } else {
        let advice = "the name server gets the port; leave it out of the forward's range";
        checker.diagnostics.warn(&location, found, "a port of its own", advice);
    }
}

fn check_update(
    update: &FileDnsUpdate,
    zone: Option<&Located<Name>>,
    checker: &Checker<'_>,
) -> Option<DnsUpdate> {
    let update_zone = match &update.zone {
        Unresolved::Absent => zone?.value.clone(),
        Unresolved::Unreadable => return None,
        Unresolved::Given(given) => {
            if !given.value.zone_of(&zone?.value) {
                let wanted = format!("{} or a zone above it", without_dot(&zone?.value));
                let advice = "the published names must lie in it";
                checker.diagnostics.report(
                    &given.location,
                    without_dot(&given.value),
                    wanted,
                    advice,
                );
            }
            given.value.clone()
        }
    };
    Some(DnsUpdate {
        server: update.server.as_ref()?.value,
        zone: update_zone,
        key: update.key.as_ref()?.value.clone(),
        algorithm: update.algorithm,
        secret_file: update.secret_file.as_ref()?.value.clone(),
        replace: update.replace,
    })
}

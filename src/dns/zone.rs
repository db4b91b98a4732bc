//! The zone that a box answers for, as plain data.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;

/// What is published, under which names, and who answers for it. Every name is absolute and lies in the zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The apex.
    pub origin: Name,
    /// Names that lead to lines, each once.
    pub published: Vec<PublishedName>,
    /// The zone's name servers, the first of which stands in the SOA record. Their names are not published ones.
    pub name_servers: Vec<NameServer>,
    /// Where the zone's owner gets mail, as the SOA record writes it.
    pub mailbox: Name,
    /// Seconds for which an address may be kept.
    pub ttl: u32,
    /// Seconds for which it may be kept that something is not there (RFC 2308).
    pub negative_ttl: u32,
}

/// A name that leads to lines.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedName {
    /// The name.
    pub name: Name,
    /// Its lines, by their numbers, at least one.
    pub lines: Vec<usize>,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq)]
pub struct NameServer {
    /// Its name.
    pub name: Name,
    /// Its address, which stays the same whatever becomes of the lines.
    pub address: Ipv4Addr,
}

/// What the zone has at a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'z> {
    /// Whether it is the apex.
    pub is_apex: bool,
    /// The lines that it leads to.
    pub published: Option<&'z PublishedName>,
    /// The name server of this name.
    pub name_server: Option<&'z NameServer>,
}

impl Zone {
    /// What stands at a name of the zone, be it only names below it (an empty non-terminal); None: no such name.
    pub(super) fn node(&self, name: &Name) -> Option<Node<'_>> {
        let node = Node {
            is_apex: self.origin == *name,
            published: self.published.iter().find(|published| published.name == *name),
            name_server: self.name_servers.iter().find(|server| server.name == *name),
        };
        let names = self.published.iter().map(|published| &published.name);
        let mut names = names.chain(self.name_servers.iter().map(|server| &server.name));
        let is_there = node.is_apex || names.any(|below| name.zone_of(below));
        is_there.then_some(node)
    }
}

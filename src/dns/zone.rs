//! The zone that the name server answers for, as plain data.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;

/// What is published, under which names, and the zone's name servers. Every name is absolute and
/// lies in the zone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Zone {
    /// Apex of the zone.
    pub origin: Name,
    /// Published names, each once.
    pub published: Vec<PublishedName>,
    /// Name servers of the zone; the first one stands in the SOA record. Their names are not
    /// published names.
    pub name_servers: Vec<NameServer>,
    /// Mailbox of the zone's owner, as the SOA record writes it.
    pub mailbox: Name,
    /// Time to live of an address, in seconds.
    pub ttl: u32,
    /// Time to live of a negative answer, in seconds (RFC 2308).
    pub negative_ttl: u32,
}

/// A name whose addresses are those of uplinks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublishedName {
    /// The name.
    pub name: Name,
    /// Numbers of the uplinks, at least one.
    pub uplinks: Vec<u8>,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NameServer {
    /// Name of the server.
    pub name: Name,
    /// Address of the server. The address does not depend on the state of an uplink.
    pub address: Ipv4Addr,
}

/// What the zone has at a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeAtName<'z> {
    /// Whether the name is the apex.
    pub is_apex: bool,
    /// The published name.
    pub published: Option<&'z PublishedName>,
    /// The name server of this name.
    pub name_server: Option<&'z NameServer>,
}

impl Zone {
    /// Returns what the zone has at a name. A name with nothing but names below it (an empty
    /// non-terminal) exists. None: the name does not exist.
    pub(super) fn node(&self, name: &Name) -> Option<NodeAtName<'_>> {
        let node = NodeAtName {
            is_apex: self.origin == *name,
            published: self.published.iter().find(|published| published.name == *name),
            name_server: self.name_servers.iter().find(|server| server.name == *name),
        };
        let names = self.published.iter().map(|published| &published.name);
        let mut names = names.chain(self.name_servers.iter().map(|server| &server.name));
        let exists = node.is_apex || names.any(|below| name.zone_of(below));
        exists.then_some(node)
    }
}

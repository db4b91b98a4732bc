//! `dns`: DNS that follows the uplinks.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::reader::cursor::Located;
use crate::config::schema::{Required, Unresolved, ValueTypeExt as _, mapping, section};
use crate::config::types::{
    Items, boolean, config_words, count, domain, names, network, some, whole_seconds, word,
};
use crate::values::dns::{Algorithm, Name, Replace};

use super::uplinks::Uplink;

/// DNS that follows the uplinks. All names are absolute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dns {
    /// The zone that the box answers for.
    pub zone: Name,
    /// Published names within the zone, at least one, each once.
    pub names: Vec<DnsName>,
    /// Name servers of the zone, within it. None has a published name. At least one if `listen` is
    /// set.
    pub name_servers: Vec<DnsServer>,
    /// Mail address of the zone's owner as a name (RFC 1035 section 8).
    pub mailbox: Name,
    /// Time for which an address may be cached, whole seconds from 1 s to 1 day.
    pub ttl: Duration,
    /// Time for which the absence of an address may be cached, whole seconds from 1 s to 1 day.
    pub negative_ttl: Duration,
    /// Answers by UDP for the clients of one /24 in a second, 1 to 1 M.
    pub answers_per_second: u32,
    /// Whether the box answers at port 53 of each uplink's first address.
    pub listen: bool,
    /// A server elsewhere that gets updates.
    pub update: Option<DnsUpdate>,
    /// A program that runs when an uplink comes or goes: an absolute path.
    pub hook: Option<PathBuf>,
}

/// A published name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DnsName {
    /// The name.
    pub name: Name,
    /// Indices into [`super::super::Config::uplinks`], at least one, no repeats.
    pub uplinks: Vec<usize>,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DnsServer {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A server that takes updates (RFC 2136) signed with a shared key (RFC 8945).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DnsUpdate {
    /// The server.
    pub server: SocketAddr,
    /// The zone there: [`Dns::zone`] or one above it.
    pub zone: Name,
    /// Name of the key.
    pub key: Name,
    /// Algorithm of the key.
    pub algorithm: Algorithm,
    /// File with the secret in base64: an absolute path.
    pub secret_file: PathBuf,
    /// Records that an update replaces.
    pub replace: Replace,
}

section! {
    /// DNS that follows the uplinks: a name server for published names, updates of a zone
    /// elsewhere, and a hook.
    #[derive(Debug)]
    pub(in crate::config) struct FileDns {
        /// The zone that the box answers for.
        pub zone: Required<Name> = domain::domain()
            .required("the zone to answer for", "add `zone: example.org` with your own")
            .example("example.org"),
        /// Names to publish.
        pub names: Required<Items<FileDnsName>> = some(mapping::<FileDnsName>(), MAX_NAMES, "names")
            .required("the names to publish", "add `names: [{ name: www }]` with your own"),
        /// All name servers of the zone, one for each uplink. Needed unless `listen` is `false`.
        pub name_servers: Unresolved<Items<FileDnsServer>> =
            some(mapping::<FileDnsServer>(), MAX_NAME_SERVERS, "name servers").optional("none"),
        /// Mail address of the zone's owner, for the SOA record.
        pub mailbox: Unresolved<Name> = domain::mailbox()
            .optional("`hostmaster@`, followed by the zone")
            .example("hostmaster@example.org"),
        /// Time for which an address may be cached.
        pub ttl: Duration = whole_seconds(TTL).default(Duration::from_secs(30)),
        /// Time for which the absence of an address may be cached.
        pub negative_ttl: Duration = whole_seconds(TTL).default(Duration::from_secs(30)),
        /// Answers by UDP for the clients of one /24 in a second. Beyond that natbox sends clients
        /// to TCP or does not answer.
        pub answers_per_second: u32 = count(1..=1_000_000).default(20),
        /// Whether the box answers at port 53 of each uplink's first address. Without it, `update`
        /// or `hook` is needed.
        pub listen: bool = boolean().default(true),
        /// A server elsewhere that gets updates (RFC 2136), over an uplink that is up.
        pub update: Unresolved<FileDnsUpdate> = mapping::<FileDnsUpdate>().optional("none"),
        /// Program that runs when an uplink comes or goes, for 10 s at most. It must exist at the
        /// start.
        pub hook: Unresolved<PathBuf> = names::absolute_path()
            .optional("none")
            .needs_restart()
            .example("/usr/local/bin/uplink-changed"),
    }
}

section! {
    /// A published name.
    #[derive(Debug)]
    pub(in crate::config) struct FileDnsName {
        /// The name. `@` stands for the zone itself.
        pub name: Required<Name> = domain::relative()
            .required("a name within the zone", "add `name: www`, or `name: \"@\"` for the zone itself")
            .example("www"),
        /// Names of the uplinks whose first addresses the name has, by their weights.
        pub uplinks: Unresolved<Items<String>> = some(names::label(), Uplink::MAX, "uplinks")
            .optional("all")
            .example("[isp1]"),
    }
}

section! {
    /// A name server of the zone.
    #[derive(Debug)]
    pub(in crate::config) struct FileDnsServer {
        /// The name.
        pub name: Required<Name> = domain::relative()
            .required("a name within the zone", "add `name: ns1` with your own")
            .example("ns1"),
        /// The address.
        pub address: Required<Ipv4Addr> = network::address()
            .required("the name server's address", "add `address: 203.0.113.10` with your own")
            .example("203.0.113.10"),
    }
}

section! {
    /// A server elsewhere that gets updates (RFC 2136), signed with a shared key (TSIG, RFC 8945).
    #[derive(Debug)]
    pub(in crate::config) struct FileDnsUpdate {
        /// Address of the server. The port is 53 unless given.
        pub server: Required<SocketAddr> = domain::name_server()
            .required("the server that takes updates", "add `server: 192.0.2.53` with your own")
            .example("192.0.2.53:53"),
        /// The zone on that server: `dns.zone` or one above it.
        pub zone: Unresolved<Name> = domain::domain().optional("the zone of `dns.zone`").example("example.org"),
        /// Name of the key, the same on both sides.
        pub key: Required<Name> = domain::domain()
            .required("the key's name", "add `key: natbox` with the name that both sides give the key")
            .example("natbox"),
        /// Algorithm of the key.
        pub algorithm: Algorithm = word().default(Algorithm::HmacSha256),
        /// File that holds the secret in base64, and nothing else.
        pub secret_file: Required<PathBuf> = names::absolute_path()
            .required(
                "the file with the key's secret",
                "add `secret_file: /etc/natbox/dns.secret` with your own",
            )
            .example("/etc/natbox/dns.secret"),
        /// Records that an update replaces.
        pub replace: Replace = word().default(Replace::All),
    }
}

config_words! {
    Algorithm {
        /// HMAC with SHA-256.
        HmacSha256 = "hmac-sha256",
        /// HMAC with SHA-512.
        HmacSha512 = "hmac-sha512",
    }
}

config_words! {
    Replace {
        /// Every address of a name. Only this box publishes it.
        All = "all",
        /// The addresses that this box has announced. Other boxes publish the name as well.
        Own = "own",
    }
}

impl Dns {
    /// Port of a name server.
    pub(crate) const PORT: u16 = domain::DNS_PORT;
}

impl FileDns {
    /// Returns the section as the file writes it.
    pub(crate) fn of(dns: &Dns, uplinks: &[Uplink]) -> Self {
        let within = |name: &Name| Some(Located::without_location(relative_to(name, &dns.zone)));
        let names = dns.names.iter().map(|published| {
            let uplinks = published.uplinks.iter().map(|index| uplinks[*index].name.clone());
            FileDnsName {
                name: within(&published.name),
                uplinks: Unresolved::from_option(Some(Items::of(uplinks))),
            }
        });
        let servers = dns.name_servers.iter().map(|server| FileDnsServer {
            name: within(&server.name),
            address: Some(Located::without_location(server.address)),
        });
        let servers = (!dns.name_servers.is_empty()).then(|| Items::of(servers));
        Self {
            zone: Some(Located::without_location(dns.zone.clone())),
            names: Some(Located::without_location(Items::of(names))),
            name_servers: Unresolved::from_option(servers),
            mailbox: Unresolved::from_option(Some(dns.mailbox.clone())),
            ttl: dns.ttl,
            negative_ttl: dns.negative_ttl,
            answers_per_second: dns.answers_per_second,
            listen: dns.listen,
            update: Unresolved::from_option(dns.update.as_ref().map(FileDnsUpdate::from)),
            hook: Unresolved::from_option(dns.hook.clone()),
        }
    }
}

impl From<&DnsUpdate> for FileDnsUpdate {
    fn from(update: &DnsUpdate) -> Self {
        Self {
            server: Some(Located::without_location(update.server)),
            zone: Unresolved::from_option(Some(update.zone.clone())),
            key: Some(Located::without_location(update.key.clone())),
            algorithm: update.algorithm,
            secret_file: Some(Located::without_location(update.secret_file.clone())),
            replace: update.replace,
        }
    }
}

/// Returns a name of the zone without the zone.
fn relative_to(name: &Name, zone: &Name) -> Name {
    let labels = name.num_labels().saturating_sub(zone.num_labels());
    let mut relative = Name::new();
    for label in name.iter().take(labels.into()) {
        relative =
            relative.append_label(label).expect("a part of a name is no longer than the name");
    }
    relative.set_fqdn(false);
    relative
}

const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const MAX_NAMES: usize = 256;
/// Most name servers: more do not fit into one answer of the parent zone.
const MAX_NAME_SERVERS: usize = 8;

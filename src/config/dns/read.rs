//! The section's keys and how each becomes a typed value of the draft.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::model::Uplink;
use super::super::problem::Location;
use super::super::reader::cursor::{Cursor, Fields, Located, Section};
use super::super::sections::{SCHEMA, Unresolved, collect_all, located, unresolved};
use super::super::types::network;
use super::super::types::values::{self, ValueError};
use super::{Dns, DnsUpdate};
use crate::dns::{Algorithm, Name, Replace};

pub(in super::super) static DNS: Section = Section {
    path: "dns",
    keys: &[
        "zone",
        "names",
        "name_servers",
        "mailbox",
        "ttl",
        "negative_ttl",
        "answers_per_second",
        "listen",
        "update",
        "hook",
    ],
};
pub(in super::super) static DNS_NAME: Section =
    Section { path: "dns.names[]", keys: &["name", "uplinks"] };
pub(in super::super) static DNS_SERVER: Section =
    Section { path: "dns.name_servers[]", keys: &["name", "address"] };
pub(in super::super) static DNS_UPDATE: Section = Section {
    path: "dns.update",
    keys: &["server", "zone", "key", "algorithm", "secret_file", "replace"],
};

/// `dns`.
#[derive(Debug)]
pub(in super::super) struct DraftDns {
    pub place: Location,
    pub zone: Option<Located<Name>>,
    /// None: some could not be read at all.
    pub names: Option<Vec<DraftName>>,
    pub name_servers: Option<Vec<DraftServer>>,
    pub mailbox: Unresolved<Name>,
    pub ttl: Duration,
    pub negative_ttl: Duration,
    pub answers_per_second: u32,
    pub listen: bool,
    /// Where `listen` stands, or would.
    pub listen_place: Location,
    /// None: absent; `Some(None)`: not readable.
    pub update: Option<Option<DraftUpdate>>,
    /// Like `update`.
    pub hook: Option<Option<PathBuf>>,
}

/// One of `names`.
#[derive(Debug)]
pub(in super::super) struct DraftName {
    pub name: Option<Located<Name>>,
    pub uplinks: Unresolved<Vec<Located<String>>>,
}

/// One of `name_servers`.
#[derive(Debug)]
pub(in super::super) struct DraftServer {
    pub name: Option<Located<Name>>,
    pub address: Option<Located<Ipv4Addr>>,
}

/// `update`.
#[derive(Debug)]
pub(in super::super) struct DraftUpdate {
    pub server: Option<SocketAddr>,
    pub zone: Unresolved<Name>,
    pub key: Option<Name>,
    pub algorithm: Algorithm,
    pub secret_file: Option<PathBuf>,
    pub replace: Replace,
}

/// Reads the section; None if it is not even a mapping.
pub(in super::super) fn read(cursor: &Cursor<'_>) -> Option<DraftDns> {
    let fields = cursor.fields(&DNS, &SCHEMA)?;
    let seconds = |key, default| fields.value(key, whole_seconds).unwrap_or(default);
    Some(DraftDns {
        place: fields.place().clone(),
        zone: fields
            .required("zone", "the zone to answer for", "add `zone: example.org` with your own")
            .and_then(|zone| located(&zone, |zone| zone.text(domain))),
        names: fields
            .required("names", "the names to publish", "add `names: [{ name: www }]` with your own")
            .and_then(|list| list.some_items(MAX_NAMES, "names"))
            .and_then(|items| collect_all(items.iter().map(published).collect())),
        name_servers: match fields.get("name_servers") {
            None => Some(Vec::new()),
            Some(list) => list
                .some_items(MAX_NAME_SERVERS, "name servers")
                .and_then(|items| collect_all(items.iter().map(name_server).collect())),
        },
        mailbox: unresolved(&fields, "mailbox", |mailbox| mailbox.text(self::mailbox)),
        ttl: seconds("ttl", Dns::DEFAULT_TTL),
        negative_ttl: seconds("negative_ttl", Dns::DEFAULT_NEGATIVE_TTL),
        answers_per_second: fields
            .value("answers_per_second", values::count(1..=1_000_000))
            .unwrap_or(Dns::DEFAULT_ANSWERS_PER_SECOND),
        listen: fields.bool("listen").unwrap_or(Dns::DEFAULT_LISTEN),
        listen_place: fields
            .get("listen")
            .map_or_else(|| fields.place().field("listen"), |listen| listen.place().clone()),
        update: fields.get("update").map(|update| self::update(&update)),
        hook: fields.get("hook").map(|hook| hook.text(absolute_path)),
    })
}

fn published(cursor: &Cursor<'_>) -> Option<DraftName> {
    let fields = cursor.fields(&DNS_NAME, &SCHEMA)?;
    Some(DraftName {
        name: relative_name(&fields, "add `name: www`, or `name: \"@\"` for the zone itself"),
        uplinks: unresolved(&fields, "uplinks", |list| {
            let items = list.some_items(Uplink::MAX, "uplinks")?;
            collect_all(
                items.iter().map(|item| located(item, |item| item.text(values::label))).collect(),
            )
        }),
    })
}

fn name_server(cursor: &Cursor<'_>) -> Option<DraftServer> {
    let fields = cursor.fields(&DNS_SERVER, &SCHEMA)?;
    Some(DraftServer {
        name: relative_name(&fields, "add `name: ns1` with your own"),
        address: fields
            .required(
                "address",
                "the name server's address",
                "add `address: 203.0.113.10` with your own",
            )
            .and_then(|address| located(&address, |address| address.value(network::address))),
    })
}

fn relative_name(fields: &Fields<'_>, advice: &str) -> Option<Located<Name>> {
    let name = fields.required("name", "a name within the zone", advice)?;
    located(&name, |name| name.text(relative))
}

fn update(cursor: &Cursor<'_>) -> Option<DraftUpdate> {
    let fields = cursor.fields(&DNS_UPDATE, &SCHEMA)?;
    let key_advice = "add `key: natbox` with the name that both sides give the key";
    let secret_advice = "add `secret_file: /etc/natbox/dns.secret` with your own";
    Some(DraftUpdate {
        server: fields
            .required(
                "server",
                "the server that takes updates",
                "add `server: 192.0.2.53` with your own",
            )
            .and_then(|server| server.value(self::server)),
        zone: unresolved(&fields, "zone", |zone| zone.text(domain)),
        key: fields.required("key", "the key's name", key_advice).and_then(|key| key.text(domain)),
        algorithm: fields.value("algorithm", values::word).unwrap_or(DnsUpdate::DEFAULT_ALGORITHM),
        secret_file: fields
            .required("secret_file", "the file with the key's secret", secret_advice)
            .and_then(|path| path.text(absolute_path)),
        replace: fields.value("replace", values::word).unwrap_or(DnsUpdate::DEFAULT_REPLACE),
    })
}

/// A domain name; it is absolute, whether it ends in a dot or not.
fn domain(text: &str) -> Result<Name, ValueError> {
    let labels = labels(text.strip_suffix('.').unwrap_or(text))?;
    if labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(ValueError::new(WANTED_DOMAIN, "numbers alone are no name"));
    }
    let too_long = |_| ValueError::new(WANTED_DOMAIN, "a name has at most 255 bytes");
    let mut name =
        Name::from_labels(labels.iter().map(|label| label.as_bytes())).map_err(too_long)?;
    name.set_fqdn(true);
    Ok(name)
}

/// A name within a zone whose own name is left out, or `@` for that itself.
fn relative(text: &str) -> Result<Name, ValueError> {
    if text == "@" {
        return Ok(Name::new());
    }
    if text.ends_with('.') {
        return Err(ValueError::new(
            "a name within the zone, without the zone's own",
            "take out the last dot",
        ));
    }
    let too_long = |_| ValueError::new(WANTED_DOMAIN, "a name has at most 255 bytes");
    let mut name =
        Name::from_labels(labels(text)?.iter().map(|label| label.as_bytes())).map_err(too_long)?;
    name.set_fqdn(false);
    Ok(name)
}

fn labels(text: &str) -> Result<Vec<String>, ValueError> {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    if labels.iter().all(|label| fits(label)) {
        return Ok(labels.into_iter().map(str::to_ascii_lowercase).collect());
    }
    let advice = if text.contains('*') {
        "write out each name: there are no wildcards here"
    } else if !text.is_ascii() {
        "write it in the form that begins with xn--"
    } else {
        "each part has 1 to 63 letters, digits, `-` or `_`"
    };
    Err(ValueError::new(WANTED_DOMAIN, advice))
}

/// A mail address as the SOA record has it: the part before the `@` is one label (RFC 1035 section 8).
fn mailbox(text: &str) -> Result<Name, ValueError> {
    const WANTED: &str = "a mail address such as hostmaster@example.org";
    let fits = |part: &str| {
        let plain = |letter: char| {
            letter.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(letter)
        };
        (1..=63).contains(&part.len()) && part.chars().all(plain)
    };
    let (part, domain) = text
        .split_once('@')
        .filter(|(part, _)| fits(part))
        .ok_or_else(|| ValueError::new(WANTED, "write NAME@DOMAIN, the name in plain letters"))?;
    let domain = self::domain(domain).map_err(|error| ValueError::new(WANTED, error.advice))?;
    domain
        .prepend_label(part.as_bytes())
        .map_err(|_| ValueError::new(WANTED, "it has at most 255 bytes in all"))
}

/// An address, with a port or without.
fn server(text: &str) -> Result<SocketAddr, ValueError> {
    let address = text
        .parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, Dns::PORT)));
    address.filter(|address| address.port() > 0 && !address.ip().is_unspecified()).ok_or_else(
        || {
            ValueError::new(
                "ADDRESS or ADDRESS:PORT such as 192.0.2.53",
                "write the address itself: names cannot be looked up before there is DNS",
            )
        },
    )
}

fn whole_seconds(text: &str) -> Result<Duration, ValueError> {
    let duration = values::duration(Duration::from_secs(1)..=LONGEST_TTL)(text)?;
    if duration.subsec_nanos() == 0 {
        return Ok(duration);
    }
    Err(ValueError::new("whole seconds", "leave out the milliseconds"))
}

fn absolute_path(text: &str) -> Result<PathBuf, ValueError> {
    if text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains(char::is_control)
        && text.len() < 4096
    {
        return Ok(text.into());
    }
    Err(ValueError::new(
        "the absolute path of a file",
        "write it from the root, with a leading `/`",
    ))
}

const WANTED_DOMAIN: &str = "a domain name such as example.org";

const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_NAMES: usize = 256;
/// More would not fit into what a parent zone hands out with one answer.
const MAX_NAME_SERVERS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_absolute_or_within_the_zone() {
        assert_eq!(domain("Example.ORG").unwrap().to_ascii(), "example.org.");
        assert_eq!(domain("example.org.").unwrap(), domain("example.org").unwrap());
        assert_eq!(relative("a.b").unwrap().to_ascii(), "a.b");
        assert_eq!(relative("@").unwrap().num_labels(), 0);
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "*",
            "ä",
            "a b",
            "a/b",
            &"a".repeat(64),
            &"abcdefg.".repeat(32),
        ] {
            assert!(domain(text).is_err(), "{text:?}");
            assert!(relative(text).is_err(), "{text:?}");
        }
        assert!(domain("192.0.2.1").is_err() && domain("org").is_ok() && relative("1").is_ok());
        assert!(relative("www.").is_err());
    }

    #[test]
    fn mail_addresses_become_names() {
        assert_eq!(
            mailbox("host.master@example.org").unwrap().to_ascii(),
            "host\\.master.example.org."
        );
        for text in ["hostmaster.example.org", "@example.org", "a@", "a b@example.org", "a@b@c"] {
            assert!(mailbox(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn servers_are_addresses() {
        assert_eq!(server("192.0.2.53").unwrap(), ([192, 0, 2, 53], 53).into());
        assert_eq!(server("127.0.0.1:5353").unwrap(), ([127, 0, 0, 1], 5353).into());
        assert_eq!(server("[2001:db8::1]:53").unwrap(), server("2001:db8::1").unwrap());
        for text in ["ns.example.org", "0.0.0.0", "192.0.2.53:0", "192.0.2.53:"] {
            assert!(server(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:.@_-]{0,24}") {
            let _ = (domain(&text), relative(&text), mailbox(&text), server(&text));
            let _ = (whole_seconds(&text), absolute_path(&text));
        }
    }
}

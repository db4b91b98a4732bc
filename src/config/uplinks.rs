//! The section `uplinks`: the lines, how their health is told, and what happens when one fails.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::model::{Health, Uplink, WebTarget};
use super::problem::Location;
use super::reader::cursor::{Cursor, Fields, Located, Section};
use super::sections::{self, DraftUplink, SCHEMA};
use super::types::network;
use super::types::values::{self, ValueError};

pub(super) static UPLINK: Section = Section {
    path: "uplinks[]",
    keys: &[
        "name",
        "interface",
        "addresses",
        "gateway",
        "weight",
        "health",
        "on_failure",
        "failback",
    ],
};
pub(super) static HEALTH: Section = Section {
    path: "uplinks[].health",
    keys: &["ping", "tcp", "http", "quorum", "interval", "fall", "rise"],
};

/// In the place of an address: the interface's own, whatever it is. Who gives it one is not natbox's affair, so both words
/// mean the same.
const FOLLOWED: [&str; 2] = ["interface", "dhcp"];

/// Reads all of them.
pub(super) fn uplinks(file: &Fields<'_>) -> Option<Vec<DraftUplink>> {
    let advice = "add `uplinks:` and under it `- { interface: wan0, addresses: [203.0.113.10] }` with your own values";
    let list =
        file.required("uplinks", "at least one line: its interface and addresses", advice)?;
    let items = list.items(Uplink::MAX, "uplinks")?;
    if items.is_empty() {
        list.reject(
            "at least one uplink",
            "add `- { interface: wan0, addresses: [203.0.113.10] }` with your own values",
        );
        return None;
    }
    sections::collect_all(items.iter().map(uplink).collect())
}

fn uplink(cursor: &Cursor<'_>) -> Option<DraftUplink> {
    let fields = cursor.fields(&UPLINK, &SCHEMA)?;
    let interface = sections::interface(&fields, "the interface towards the line");
    let name = match fields.get("name") {
        Some(name) => sections::located(&name, |name| name.text(values::label)),
        None => interface.clone(),
    };
    let advice = "add `addresses: [203.0.113.10]` with your own";
    let items = fields
        .required("addresses", "the line's external addresses", advice)
        .and_then(|list| list.some_items(Uplink::MAX_ADDRESSES, "addresses"));
    let follows_interface = matches!(items.as_deref(), Some([only]) if only.word().is_some_and(|word| FOLLOWED.contains(&word)));
    let addresses = items.and_then(|items| match follows_interface {
        true => Some(items.iter().map(|item| item.locate(vec![Ipv4Addr::UNSPECIFIED])).collect()),
        false => sections::all_located(&items, network::addresses(Uplink::MAX_ADDRESSES)),
    });
    let health = fields.get("health").and_then(|health| self::health(&health));
    Some(DraftUplink {
        place: fields.place().clone(),
        name,
        interface,
        addresses,
        follows_interface,
        gateway: fields
            .get("gateway")
            .map(|gateway| sections::located(&gateway, |gateway| gateway.value(network::address))),
        weight: fields.value("weight", values::number(1..=1000)).unwrap_or(Uplink::DEFAULT_WEIGHT),
        asked: health.as_ref().map(|(_, asked)| asked.clone()).unwrap_or_default(),
        health: health.map(|(health, _)| health),
        on_failure: fields.value("on_failure", values::word).unwrap_or_default(),
        failback: fields.value("failback", values::word).unwrap_or_default(),
    })
}

/// With the addresses that are asked, as far as the file has them.
fn health(cursor: &Cursor<'_>) -> Option<(Health, Vec<Located<Ipv4Addr>>)> {
    let fields = cursor.fields(&HEALTH, &SCHEMA)?;
    let ping = targets(&fields, "ping", "addresses", network::address);
    let tcp = targets(&fields, "tcp", "addresses with ports", network::endpoint);
    let http = targets(&fields, "http", "addresses of pages", web_target);
    let interval = Duration::from_millis(100)..=Duration::from_secs(3600);
    let interval =
        fields.value("interval", values::duration(interval)).unwrap_or(Health::DEFAULT_INTERVAL);
    let fall = fields.value("fall", values::number(1..=1000)).unwrap_or(Health::DEFAULT_FALL);
    let rise = fields.value("rise", values::number(1..=1000)).unwrap_or(Health::DEFAULT_RISE);
    let quorum = fields
        .value("quorum", values::number(1..=Health::MAX_TARGETS))
        .unwrap_or(Health::DEFAULT_QUORUM);
    let (ping, tcp, http) = (ping?, tcp?, http?);
    let at = |place: &Location, address| Located { value: address, place: place.clone() };
    let asked = ping
        .iter()
        .map(|target| at(&target.place, target.value))
        .chain(tcp.iter().map(|target| at(&target.place, *target.value.ip())))
        .chain(http.iter().filter_map(|target| Some(at(&target.place, literal(&target.value)?))));
    let asked = asked.collect();
    let health = Health {
        ping: values_of(ping),
        tcp: values_of(tcp),
        http: values_of(http),
        quorum,
        interval,
        fall,
        rise,
    };
    match health.targets() {
        0 => {
            cursor.reject(
                "whom to ask: `ping`, `tcp` or `http`",
                "add `ping: [203.0.113.254]` with an address that the line leads to",
            );
            None
        }
        targets if (targets as u32) < quorum => {
            let wanted = format!("a number of answers from 1 to {targets}, as many as are asked");
            fields.get("quorum")?.reject(&wanted, "lower it, or ask more");
            None
        }
        _ => Some((health, asked)),
    }
}

fn values_of<T>(located: Vec<Located<T>>) -> Vec<T> {
    located.into_iter().map(|item| item.value).collect()
}

/// A list of targets; empty when the key is absent.
fn targets<T>(
    fields: &Fields<'_>,
    key: &str,
    what: &str,
    read: impl Fn(&str) -> Result<T, ValueError>,
) -> Option<Vec<Located<T>>> {
    let Some(list) = fields.get(key) else { return Some(Vec::new()) };
    let items = list.some_items(Health::MAX_TARGETS as usize, what)?;
    sections::all_located(&items, read)
}

/// The address of a page that is named by it.
fn literal(WebTarget(page): &WebTarget) -> Option<Ipv4Addr> {
    page.host_str()?.parse().ok()
}

/// A page, by `http` or `https`.
fn web_target(text: &str) -> Result<WebTarget, ValueError> {
    const WANTED: &str =
        "the address of a page such as https://example.org/ or http://192.0.2.80/alive";
    let error = |advice| ValueError::new(WANTED, advice);
    let url: reqwest::Url = text.parse().map_err(|_| error("begin it with http:// or https://"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(error("begin it with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error("leave out the user and the password"));
    }
    match url.host_str() {
        Some(host) if host.starts_with('[') => {
            Err(error("natbox's lines are IPv4: take a name or an IPv4 address"))
        }
        Some("localhost") => Err(error("name a host that the line leads to")),
        // The reader of pages has made four plain numbers of whatever stands for an address.
        Some(host) if host.parse::<Ipv4Addr>().is_ok() => {
            network::address(host)
                .map_err(|ValueError { advice, .. }| ValueError::new(WANTED, advice))?;
            Ok(WebTarget(url))
        }
        Some(_) => Ok(WebTarget(url)),
        None => Err(error("name the host")),
    }
}

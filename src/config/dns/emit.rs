//! The section written back.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::super::model::Uplink;
use super::super::types::values::Span;
use super::super::types::words::ConfigEnum as _;
use super::check::shown;
use super::{Dns, DnsUpdate};
use crate::dns::Name;

/// `dns` as the file has it.
#[derive(Serialize)]
pub(in super::super) struct DnsForm<'c> {
    zone: String,
    names: Vec<NameForm<'c>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    name_servers: Vec<ServerForm>,
    mailbox: String,
    ttl: String,
    negative_ttl: String,
    answers_per_second: u32,
    listen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<UpdateForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<String>,
}

#[derive(Serialize)]
struct NameForm<'c> {
    name: String,
    uplinks: Vec<&'c str>,
}

#[derive(Serialize)]
struct ServerForm {
    name: String,
    address: Ipv4Addr,
}

#[derive(Serialize)]
struct UpdateForm {
    server: String,
    zone: String,
    key: String,
    algorithm: &'static str,
    secret_file: String,
    replace: &'static str,
}

impl<'c> DnsForm<'c> {
    pub fn new(dns: &Dns, uplinks: &'c [Uplink]) -> Self {
        let names = dns.names.iter().map(|published| NameForm {
            name: relative(&published.name, &dns.zone),
            uplinks: published.uplinks.iter().map(|index| uplinks[*index].name.as_str()).collect(),
        });
        let name_servers = dns.name_servers.iter().map(|server| ServerForm {
            name: relative(&server.name, &dns.zone),
            address: server.address,
        });
        Self {
            zone: shown(&dns.zone),
            names: names.collect(),
            name_servers: name_servers.collect(),
            mailbox: mail_address(&dns.mailbox),
            ttl: Span(dns.ttl).to_string(),
            negative_ttl: Span(dns.negative_ttl).to_string(),
            answers_per_second: dns.answers_per_second,
            listen: dns.listen,
            update: dns.update.as_ref().map(UpdateForm::from),
            hook: dns.hook.as_ref().map(|path| path.display().to_string()),
        }
    }
}

impl From<&DnsUpdate> for UpdateForm {
    fn from(update: &DnsUpdate) -> Self {
        Self {
            server: update.server.to_string(),
            zone: shown(&update.zone),
            key: shown(&update.key),
            algorithm: update.algorithm.word(),
            secret_file: update.secret_file.display().to_string(),
            replace: update.replace.word(),
        }
    }
}

/// A name of the zone without the zone.
fn relative(name: &Name, zone: &Name) -> String {
    if name == zone {
        return "@".to_owned();
    }
    let name = shown(name);
    name.strip_suffix(&format!(".{}", shown(zone))).unwrap_or(&name).to_owned()
}

/// `hostmaster@example.org` of the name that stands for it.
fn mail_address(mailbox: &Name) -> String {
    let part = String::from_utf8_lossy(mailbox.iter().next().unwrap_or_default());
    format!("{part}@{}", shown(&mailbox.base_name()))
}

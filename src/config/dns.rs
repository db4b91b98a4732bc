//! The section `dns`: what it holds, and its defaults.

mod check;
mod emit;
mod read;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::dns::{Algorithm, Name, Replace};

pub(super) use check::check;
pub(super) use emit::DnsForm;
pub(super) use read::{DNS, DNS_NAME, DNS_SERVER, DNS_UPDATE, DraftDns, read};

/// DNS that follows the lines. All names are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The zone that the box answers for.
    pub zone: Name,
    /// Published names within it, at least one, each once.
    pub names: Vec<DnsName>,
    /// Its name servers within it, none of which has a published name; at least one where `listen` is set.
    pub name_servers: Vec<DnsServer>,
    /// Its owner's mail address as a name (RFC 1035 section 8); default `hostmaster@` the zone.
    pub mailbox: Name,
    /// How long an address may be kept, whole seconds from 1 s to 1 day; default 30 s.
    pub ttl: Duration,
    /// How long it may be kept that there is none, like `ttl`; default 30 s.
    pub negative_ttl: Duration,
    /// Answers by UDP for each /24 of clients; 1 to 1 M; default 20.
    pub answers_per_second: u32,
    /// Whether the box answers at port 53 of each uplink's first address; default true.
    pub listen: bool,
    /// Who else is told which lines are usable.
    pub update: Option<DnsUpdate>,
    /// A program that is run when a line comes or goes: an absolute path.
    pub hook: Option<PathBuf>,
}

/// A published name.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsName {
    /// The name.
    pub name: Name,
    /// Indices into [`super::Config::uplinks`], at least one, no repeats; default all.
    pub uplinks: Vec<usize>,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsServer {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A server that takes updates (RFC 2136) signed with a shared key (RFC 8945).
#[derive(Clone, Debug, PartialEq)]
pub struct DnsUpdate {
    /// The server; its port is 53 if the file gives none.
    pub server: SocketAddr,
    /// The zone there: [`Dns::zone`], which is the default, or one above it.
    pub zone: Name,
    /// Name of the key.
    pub key: Name,
    /// Its algorithm; default hmac-sha256.
    pub algorithm: Algorithm,
    /// File with its secret in base64: an absolute path.
    pub secret_file: PathBuf,
    /// What an update replaces; default all addresses of a name.
    pub replace: Replace,
}

impl Dns {
    /// [`Dns::ttl`] if the file gives none.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30);
    /// [`Dns::negative_ttl`] if the file gives none.
    pub const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(30);
    /// [`Dns::answers_per_second`] if the file gives none.
    pub const DEFAULT_ANSWERS_PER_SECOND: u32 = 20;
    /// [`Dns::listen`] if the file gives none.
    pub const DEFAULT_LISTEN: bool = true;
    /// Port of the name server.
    pub const PORT: u16 = 53;
}

impl DnsUpdate {
    /// [`DnsUpdate::algorithm`] if the file gives none.
    pub const DEFAULT_ALGORITHM: Algorithm = Algorithm::HmacSha256;
    /// [`DnsUpdate::replace`] if the file gives none.
    pub const DEFAULT_REPLACE: Replace = Replace::All;
}

#[cfg(test)]
pub(super) mod tests;

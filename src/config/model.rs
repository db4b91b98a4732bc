//! The effective configuration: every value present, checked and in its own type.
//!
//! Only [`load`](super::load()) makes one from a file, so the holder of a [`Config`] may rely on
//! the docs of the fields.

use super::sections::{
    Admin, Dns, Forward, Host, Inside, Limits, Log, Nat, NoNatRule, OutboundRule, Persistence,
    Timeouts, Tun, Uplink,
};

/// The configuration of one box.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Name of the box: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The TUN device and its workers.
    pub tun: Tun,
    /// The private network behind the box.
    pub inside: Inside,
    /// The uplinks, at least one, names unique.
    pub uplinks: Vec<Uplink>,
    /// Published services. No two publish the same protocol, address and port, unless one of them
    /// is narrower.
    pub forwards: Vec<Forward>,
    /// Rules for sessions from the private network to the outside; the longest matching prefix
    /// decides.
    pub outbound: Vec<OutboundRule>,
    /// Destinations that inside hosts reach without translation (RFC 6888 REQ-6), at most 64.
    pub no_nat: Vec<NoNatRule>,
    /// Behaviour of the translator.
    pub nat: Nat,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Bounds of memory and of what one host may use.
    pub limits: Limits,
    /// The host that natbox runs on.
    pub host: Host,
    /// Admin interfaces.
    pub admin: Admin,
    /// Session state.
    pub state: Persistence,
    /// Log output.
    pub log: Log,
    /// DNS that follows the uplinks, if the file asks for it.
    pub dns: Option<Dns>,
}

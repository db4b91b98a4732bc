//! The sections of the file: which keys there are, and how each becomes a typed value of the draft.
//!
//! A *draft* is what could be read: values with their places, absent where the file has none or a problem was
//! reported. What depends on several keys is left to the checks.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::dns::{self, DraftDns};
use super::model::{
    Admin, EndpointDependence, Failback, ForwardProtocol, HashBy, Health, Host, Limits, Log, Nat,
    NoNatRule, OnFailure, OutboundRule, PortRange, State, Timeouts, Tun, Uplink,
};
use super::problem::{Diagnostics, Location};
use super::reader::cursor::{Cursor, Fields, Located, Section};
use super::reader::tree::{Node, Value};
use super::types::network;
use super::types::values;
use super::uplinks;

/// Every mapping of the file with its keys.
pub(super) const SCHEMA: [&Section; 19] = [
    &ROOT,
    &TUN,
    &INSIDE,
    &uplinks::UPLINK,
    &uplinks::HEALTH,
    &FORWARD,
    &OUTBOUND,
    &EXEMPT,
    &NAT,
    &TIMEOUTS,
    &LIMITS,
    &HOST,
    &ADMIN,
    &STATE,
    &LOG,
    &dns::DNS,
    &dns::DNS_NAME,
    &dns::DNS_SERVER,
    &dns::DNS_UPDATE,
];

static ROOT: Section = Section {
    path: "",
    keys: &[
        "name", "tun", "inside", "uplinks", "forwards", "outbound", "no_nat", "nat", "timeouts",
        "limits", "host", "admin", "state", "log", "dns",
    ],
};
static TUN: Section =
    Section { path: "tun", keys: &["name", "workers", "io", "offload", "busy_poll"] };
static INSIDE: Section = Section { path: "inside", keys: &["interface", "address", "prefixes"] };
static FORWARD: Section =
    Section { path: "forwards[]", keys: &["name", "uplink", "protocol", "port", "address", "to"] };
static OUTBOUND: Section =
    Section { path: "outbound[]", keys: &["from", "to", "uplinks", "hash_by"] };
static EXEMPT: Section = Section { path: "no_nat[]", keys: &["to", "protocol", "port"] };
static NAT: Section = Section {
    path: "nat",
    keys: &[
        "mapping",
        "filtering",
        "hairpin",
        "ports",
        "mss_clamp",
        "address_pooling",
        "port_parity",
        "port_overlapping",
        "inbound_refresh",
        "reject_with",
        "unsolicited_syn",
    ],
};
static TIMEOUTS: Section = Section {
    path: "timeouts",
    keys: &[
        "tcp_established",
        "tcp_transitory",
        "tcp_syn",
        "udp",
        "udp_dns",
        "icmp",
        "fragment",
        "port_reuse_delay",
    ],
};
static LIMITS: Section = Section {
    path: "limits",
    keys: &[
        "sessions",
        "sessions_per_host",
        "new_sessions_per_host",
        "fragments",
        "delayed_ports",
        "icmp_errors_per_host",
    ],
};
static HOST: Section = Section { path: "host", keys: &["manage"] };
static ADMIN: Section = Section { path: "admin", keys: &["socket", "http"] };
static STATE: Section = Section { path: "state", keys: &["keep"] };
static LOG: Section = Section { path: "log", keys: &["level", "format", "mappings"] };

/// What could be read of the file.
#[derive(Debug)]
pub(super) struct Draft {
    pub name: Option<String>,
    pub tun: Tun,
    /// Where the TUN device's name stands, or would.
    pub tun_name: Location,
    pub inside: DraftInside,
    /// None: no uplink could be read at all.
    pub uplinks: Option<Vec<DraftUplink>>,
    pub forwards: Vec<DraftForward>,
    pub outbound: Vec<DraftRule>,
    pub no_nat: Vec<NoNatRule>,
    pub nat: Nat,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub host: Host,
    pub admin: Option<Admin>,
    pub state: State,
    pub log: Log,
    /// None: absent, or nothing of it could be read.
    pub dns: Option<DraftDns>,
}

/// `inside`.
#[derive(Debug)]
pub(super) struct DraftInside {
    pub interface: Option<Located<String>>,
    pub address: Option<Located<Ipv4Addr>>,
    /// None if one of them could not be read, so that nothing is said to lie outside them.
    pub prefixes: Option<Vec<Located<Ipv4Net>>>,
}

/// One of `uplinks`.
#[derive(Debug)]
pub(super) struct DraftUplink {
    pub place: Location,
    pub name: Option<Located<String>>,
    pub interface: Option<Located<String>>,
    /// None if some could not be read; `0.0.0.0` if they follow the interface.
    pub addresses: Option<Vec<Located<Vec<Ipv4Addr>>>>,
    pub follows_interface: bool,
    /// None: absent; `Some(None)`: not readable.
    pub gateway: Option<Option<Located<Ipv4Addr>>>,
    pub weight: u32,
    pub health: Option<Health>,
    /// The addresses among the targets of `health`.
    pub asked: Vec<Located<Ipv4Addr>>,
    pub on_failure: OnFailure,
    pub failback: Failback,
}

/// One of `forwards`.
#[derive(Debug)]
pub(super) struct DraftForward {
    pub place: Location,
    pub name: Located<String>,
    pub uplink: Unresolved<String>,
    pub protocol: Option<ForwardProtocol>,
    pub port: Unresolved<PortRange>,
    pub address: Unresolved<Ipv4Addr>,
    pub to: Option<Located<(Ipv4Addr, Option<PortRange>)>>,
}

/// One of `outbound`.
#[derive(Debug)]
pub(super) struct DraftRule {
    pub from: Option<Located<Ipv4Net>>,
    /// None if one of them could not be read.
    pub to: Option<Vec<Located<Ipv4Net>>>,
    pub hash_by: HashBy,
    pub uplinks: Unresolved<Vec<Located<String>>>,
}

/// An optional key whose absence has a meaning of its own.
#[derive(Debug)]
pub(super) enum Unresolved<T> {
    /// The key is absent.
    Absent,
    /// It is there but could not be read.
    Unreadable,
    /// It is there.
    Given(Located<T>),
}

/// Reads the whole file; None if it is not even a mapping.
pub(super) fn decode(root: &Node, file_name: &str, diagnostics: &Diagnostics) -> Option<Draft> {
    let cursor = Cursor::root(root, diagnostics);
    if matches!(&root.value, Value::Mapping(entries) if entries.is_empty()) {
        let advice = "begin with `inside:` and `uplinks:`; configs/natbox1.yaml is an example";
        diagnostics.report(cursor.place(), "an empty file", "a configuration", advice);
        return None;
    }
    let file = cursor.fields(&ROOT, &SCHEMA)?;
    let section = |key, section| file.section(key, section, &SCHEMA);
    let name = box_name(&file, file_name, diagnostics);
    let tun_fields = section("tun", &TUN);
    Some(Draft {
        admin: admin(&section("admin", &ADMIN), name.as_deref()),
        name,
        tun: tun(&tun_fields),
        tun_name: tun_fields
            .get("name")
            .map_or_else(|| tun_fields.place().field("name"), |name| name.place().clone()),
        inside: inside(&file),
        uplinks: uplinks::uplinks(&file),
        forwards: items(&file, "forwards", MAX_FORWARDS)
            .iter()
            .enumerate()
            .filter_map(forward)
            .collect(),
        outbound: items(&file, "outbound", MAX_RULES).iter().filter_map(rule).collect(),
        no_nat: items(&file, "no_nat", MAX_NO_NAT).iter().filter_map(no_nat_rule).collect(),
        nat: nat(&section("nat", &NAT)),
        timeouts: timeouts(&section("timeouts", &TIMEOUTS)),
        limits: limits(&section("limits", &LIMITS)),
        host: Host {
            manage: section("host", &HOST).bool("manage").unwrap_or(Host::default().manage),
        },
        state: State {
            keep: section("state", &STATE).bool("keep").unwrap_or(State::default().keep),
        },
        log: log(&section("log", &LOG)),
        dns: file.get("dns").and_then(|dns| dns::read(&dns)),
    })
}

fn box_name(file: &Fields<'_>, file_name: &str, diagnostics: &Diagnostics) -> Option<String> {
    if let Some(name) = file.get("name") {
        return name.text(values::box_name);
    }
    let stem = Path::new(file_name).file_stem().unwrap_or_default().to_string_lossy();
    let name = values::box_name(&stem);
    if let Err(error) = &name {
        let found = format!(
            "no such key, and the file's name {} cannot stand in",
            super::problem::quoted(&stem)
        );
        diagnostics.report(&file.place().field("name"), found, &error.wanted, "add `name: NAME`");
    }
    name.ok()
}

fn tun(fields: &Fields<'_>) -> Tun {
    let default = Tun::default();
    Tun {
        name: fields
            .get("name")
            .and_then(|name| name.text(network::tun_interface))
            .unwrap_or(default.name),
        workers: fields.value("workers", values::workers).unwrap_or(default.workers),
        io: fields.value("io", values::word).unwrap_or(default.io),
        offload: fields.value("offload", values::word).unwrap_or(default.offload),
        busy_poll: fields
            .value("busy_poll", values::duration(Duration::ZERO..=Duration::from_millis(1)))
            .unwrap_or(default.busy_poll),
    }
}

fn inside(file: &Fields<'_>) -> DraftInside {
    let wanted = "the private leg: its interface and prefixes";
    let Some(fields) = file
        .required(
            "inside",
            wanted,
            "add `inside: { interface: lan0, prefixes: [10.0.0.0/24] }` with your own values",
        )
        .and_then(|inside| inside.fields(&INSIDE, &SCHEMA))
    else {
        return DraftInside { interface: None, address: None, prefixes: None };
    };
    let prefixes = fields
        .required(
            "prefixes",
            "the private prefixes behind the interface",
            "add `prefixes: [10.0.0.0/24]` with your own",
        )
        .and_then(|list| list.some_items(MAX_PREFIXES, "prefixes"))
        .and_then(|items| all_located(&items, network::unicast_prefix));
    DraftInside {
        interface: interface(&fields, "the interface towards the private network"),
        address: fields
            .get("address")
            .and_then(|address| located(&address, |address| address.value(network::address))),
        prefixes,
    }
}

fn forward((index, cursor): (usize, &Cursor<'_>)) -> Option<DraftForward> {
    let fields = cursor.fields(&FORWARD, &SCHEMA)?;
    let default_name =
        || Located { value: format!("forward-{}", index + 1), place: fields.place().field("name") };
    let advice = "add `protocol: tcp` (or udp, tcp+udp, icmp, any)";
    Some(DraftForward {
        place: fields.place().clone(),
        name: fields
            .get("name")
            .and_then(|name| located(&name, |name| name.text(values::label)))
            .unwrap_or_else(default_name),
        uplink: unresolved(&fields, "uplink", |uplink| uplink.text(values::label)),
        protocol: fields
            .required("protocol", "what to publish", advice)
            .and_then(|cursor| cursor.value(values::word)),
        port: unresolved(&fields, "port", |port| port.value(network::ports)),
        address: unresolved(&fields, "address", |address| address.value(network::address)),
        to: fields
            .required("to", "the server", "add `to: ADDRESS:PORT`, such as `to: 10.0.0.101:80`")
            .and_then(|to| located(&to, |to| to.value(network::target))),
    })
}

fn rule(cursor: &Cursor<'_>) -> Option<DraftRule> {
    let fields = cursor.fields(&OUTBOUND, &SCHEMA)?;
    Some(DraftRule {
        from: fields
            .required(
                "from",
                "the sources that may go out",
                "add `from: PREFIX`, such as `from: 10.0.0.0/24`",
            )
            .and_then(|from| located(&from, |from| from.value(network::unicast_prefix))),
        to: match fields.get("to") {
            None => Some(Vec::new()),
            Some(list) => list
                .some_items(MAX_DESTINATIONS, "prefixes")
                .and_then(|items| all_located(&items, network::prefix)),
        },
        hash_by: fields.value("hash_by", values::word).unwrap_or(OutboundRule::DEFAULT_HASH_BY),
        uplinks: unresolved(&fields, "uplinks", |list| {
            let items = list.some_items(Uplink::MAX, "uplinks")?;
            collect_all(
                items.iter().map(|item| located(item, |item| item.text(values::label))).collect(),
            )
        }),
    })
}

fn no_nat_rule(cursor: &Cursor<'_>) -> Option<NoNatRule> {
    let fields = cursor.fields(&EXEMPT, &SCHEMA)?;
    let protocol = match fields.get("protocol") {
        None => Some(NoNatRule::DEFAULT_PROTOCOL),
        Some(protocol) => protocol.value(values::word),
    };
    let ports = fields.get("port").map_or(Some(PortRange::ALL), |port| match protocol {
        None | Some(ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp) => {
            port.value(network::ports)
        }
        Some(ForwardProtocol::Icmp | ForwardProtocol::Any) => {
            port.reject(
                "no port without a protocol that has them",
                "add `protocol: tcp` (or udp, tcp+udp)",
            );
            None
        }
    });
    let to = fields
        .required(
            "to",
            "the destinations that are not translated",
            "add `to: PREFIX`, such as `to: 192.0.2.0/24`",
        )
        .and_then(|to| to.value(network::prefix));
    Some(NoNatRule { to: to?, protocol: protocol?, ports: ports? })
}

fn nat(fields: &Fields<'_>) -> Nat {
    let default = Nat::default();
    let mapping = fields.value("mapping", values::word).unwrap_or(default.mapping);
    Nat {
        mapping,
        filtering: fields.value("filtering", values::word).unwrap_or(default.filtering),
        hairpin: fields.bool("hairpin").unwrap_or(default.hairpin),
        ports: fields.value("ports", network::ports).unwrap_or(default.ports),
        mss_clamp: fields.value("mss_clamp", values::mss_clamp).unwrap_or(default.mss_clamp),
        address_pooling: fields
            .value("address_pooling", values::word)
            .unwrap_or(default.address_pooling),
        port_parity: fields.bool("port_parity").unwrap_or(default.port_parity),
        port_overlapping: port_overlapping(fields, mapping).unwrap_or(default.port_overlapping),
        inbound_refresh: fields.bool("inbound_refresh").unwrap_or(default.inbound_refresh),
        reject_with: fields.value("reject_with", values::word).unwrap_or(default.reject_with),
        unsolicited_syn: fields
            .value("unsolicited_syn", values::word)
            .unwrap_or(default.unsolicited_syn),
    }
}

/// One external port for several mappings can work only where the remote endpoint tells them apart.
fn port_overlapping(fields: &Fields<'_>, mapping: EndpointDependence) -> Option<bool> {
    let wished = fields.bool("port_overlapping")?;
    if wished && mapping == EndpointDependence::EndpointIndependent {
        let advice = "set `mapping: address-and-port-dependent` as well, or leave this key out";
        fields.get("port_overlapping")?.reject("false with endpoint-independent mapping", advice);
        return None;
    }
    Some(wished)
}

fn timeouts(fields: &Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    let timeout = |key, default| {
        let range = Duration::from_secs(1)..=Timeouts::MAX;
        fields.value(key, values::duration(range)).unwrap_or(default)
    };
    Timeouts {
        tcp_established: timeout("tcp_established", default.tcp_established),
        tcp_transitory: timeout("tcp_transitory", default.tcp_transitory),
        tcp_syn: timeout("tcp_syn", default.tcp_syn),
        udp: timeout("udp", default.udp),
        udp_dns: timeout("udp_dns", default.udp_dns),
        icmp: timeout("icmp", default.icmp),
        fragment: timeout("fragment", default.fragment),
        port_reuse_delay: fields
            .value("port_reuse_delay", values::duration(Duration::ZERO..=Timeouts::MAX))
            .unwrap_or(default.port_reuse_delay),
    }
}

fn limits(fields: &Fields<'_>) -> Limits {
    let default = Limits::default();
    let count = |key, least, most, default| {
        fields.value(key, values::count(least..=most)).unwrap_or(default)
    };
    let most = Limits::MAX_SESSIONS;
    Limits {
        sessions: count("sessions", 1, most, default.sessions),
        sessions_per_host: count("sessions_per_host", 0, most, default.sessions_per_host),
        new_sessions_per_host: count(
            "new_sessions_per_host",
            0,
            most,
            default.new_sessions_per_host,
        ),
        fragments: count("fragments", 1, Limits::MAX_FRAGMENTS, default.fragments),
        delayed_ports: count("delayed_ports", 0, Limits::MAX_PORTS, default.delayed_ports),
        icmp_errors_per_host: count(
            "icmp_errors_per_host",
            0,
            1_000_000,
            default.icmp_errors_per_host,
        ),
    }
}

/// None if the default socket would be named after a box without a name.
fn admin(fields: &Fields<'_>, name: Option<&str>) -> Option<Admin> {
    let socket = match fields.get("socket") {
        Some(socket) => socket.text(values::socket_path),
        None => name.map(Admin::default_socket),
    };
    let http = fields.value("http", network::listener);
    Some(Admin { socket: socket?, http })
}

fn log(fields: &Fields<'_>) -> Log {
    let default = Log::default();
    Log {
        level: fields.value("level", values::word).unwrap_or(default.level),
        format: fields.value("format", values::word).unwrap_or(default.format),
        mappings: fields.bool("mappings").unwrap_or(default.mappings),
    }
}

/// The items of an optional list at the top level.
fn items<'t>(file: &Fields<'t>, key: &str, most: usize) -> Vec<Cursor<'t>> {
    file.get(key).and_then(|list| list.items(most, key)).unwrap_or_default()
}

pub(super) fn interface(fields: &Fields<'_>, wanted: &str) -> Option<Located<String>> {
    let field =
        fields.required("interface", wanted, "add `interface: NAME`; `ip link` lists the names")?;
    located(&field, |field| field.text(network::interface))
}

pub(super) fn located<T>(
    cursor: &Cursor<'_>,
    read: impl FnOnce(&Cursor<'_>) -> Option<T>,
) -> Option<Located<T>> {
    read(cursor).map(|value| cursor.locate(value))
}

/// All values of a list, or None after naming each that could not be read.
pub(super) fn all_located<T>(
    items: &[Cursor<'_>],
    read: impl Fn(&str) -> Result<T, values::ValueError>,
) -> Option<Vec<Located<T>>> {
    collect_all(items.iter().map(|item| located(item, |item| item.value(&read))).collect())
}

/// Takes a list that was read to its end, so that every item has named its problem.
pub(super) fn collect_all<T>(items: Vec<Option<T>>) -> Option<Vec<T>> {
    items.into_iter().collect()
}

pub(super) fn unresolved<T>(
    fields: &Fields<'_>,
    key: &str,
    read: impl FnOnce(&Cursor<'_>) -> Option<T>,
) -> Unresolved<T> {
    match fields.get(key) {
        None => Unresolved::Absent,
        Some(cursor) => located(&cursor, read).map_or(Unresolved::Unreadable, Unresolved::Given),
    }
}

/// Bounds of the lists: far above use, low enough that no file makes checking slow.
const MAX_FORWARDS: usize = 4096;
const MAX_RULES: usize = 1024;
/// Each is compared with every packet that has no session, and is a rule of the kernel.
const MAX_NO_NAT: usize = 64;
const MAX_PREFIXES: usize = 256;
const MAX_DESTINATIONS: usize = 256;

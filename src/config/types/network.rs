//! Addresses, prefixes, ports and interfaces.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use ipnet::Ipv4Net;

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::values::nat::PortRange;

use super::constraint::{any_of, integer, pattern};
use super::numbers::plain_digits;
use super::scalar::{Format, shown};

/// The server of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct ForwardTarget {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its ports, if the file gives them.
    pub ports: Option<PortRange>,
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            None => write!(formatter, "{}", self.address),
            Some(ports) => write!(formatter, "{}:{ports}", self.address),
        }
    }
}

macro_rules! octet {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}

macro_rules! ipv4 {
    () => {
        concat!(octet!(), "\\.", octet!(), "\\.", octet!(), "\\.", octet!())
    };
}

/// Returns the type of an IPv4 address that one host may have.
pub(in crate::config) fn address() -> Format<Ipv4Addr> {
    Format::new("IPv4 address", parse_address, || pattern(concat!("^", ipv4!(), "$")))
}

/// Returns the type of external addresses: one, a range `a.b.c.d-e` or `a.b.c.d-a.b.c.e`, or every
/// address of a block `a.b.c.0/28`; at most [`MAX_ADDRESSES`].
pub(in crate::config) fn addresses() -> Format<Vec<Ipv4Addr>> {
    Format {
        parse: parse_addresses,
        emit: emit_addresses,
        name: "`a.b.c.d`, `a.b.c.d-e` or `a.b.c.0/28`",
        constraint: || {
            const LAST: &str = concat!("(", ipv4!(), "|", octet!(), ")");
            pattern(&format!(concat!("^", ipv4!(), "(-{}|/(3[0-2]|[12]?[0-9]))?$"), LAST))
        },
        free_text: false,
    }
}

/// Returns the type of a prefix `a.b.c.d/length` without host bits.
pub(in crate::config) fn prefix() -> Format<Ipv4Net> {
    Format::new("IPv4 prefix", parse_prefix, || pattern(PREFIX))
}

/// Returns the type of a prefix of hosts: without host bits, and apart from the ranges that no host
/// may have.
pub(in crate::config) fn unicast_prefix() -> Format<Ipv4Net> {
    Format::new("IPv4 prefix", parse_unicast_prefix, || pattern(PREFIX))
}

const PREFIX: &str = concat!("^", ipv4!(), "/(3[0-2]|[12]?[0-9])$");

/// Returns the type of a port or an inclusive range of ports, from 1.
pub(in crate::config) fn ports() -> Format<PortRange> {
    Format {
        parse: parse_ports,
        emit: |range| match range.first == range.last {
            true => u32::from(range.first).into(),
            false => shown(range),
        },
        name: "port or range of ports from 1 to 65535",
        constraint: || {
            any_of([
                integer(&(1..=u16::MAX.into())),
                pattern("^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$"),
            ])
        },
        free_text: false,
    }
}

/// Returns the type of the server of a forward, with the port or ports if they are given.
pub(in crate::config) fn target() -> Format<ForwardTarget> {
    let constraint = || pattern(concat!("^", ipv4!(), "(:[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?)?$"));
    Format::new("`ADDRESS` or `ADDRESS:PORT`", parse_target, constraint)
}

/// Returns the type of a host's address with a port.
pub(in crate::config) fn endpoint() -> Format<SocketAddrV4> {
    let constraint = || pattern(concat!("^", ipv4!(), ":[1-9][0-9]{0,4}$"));
    Format::new("`ADDRESS:PORT`", parse_endpoint, constraint)
}

/// Returns the type of an interface name as the kernel allows it.
pub(in crate::config) fn interface() -> Format<String> {
    Format::text("interface name of 1 to 15 bytes", parse_interface, shown)
        .bounded(|| pattern("^(?!\\.{1,2}$)[^/:\\s\\u0000-\\u001f\\u007f-\\u009f]{1,15}$"))
}

/// Returns the type of the TUN device's name: an interface name in which the kernel finds no
/// pattern to fill in.
pub(in crate::config) fn tun_interface() -> Format<String> {
    Format::text("interface name of 1 to 15 bytes", parse_tun_interface, shown)
        .bounded(|| pattern("^(?!\\.{1,2}$)[^/:%\\s\\u0000-\\u001f\\u007f-\\u009f]{1,15}$"))
}

/// Returns the type of an address and port to listen on.
pub(in crate::config) fn listener() -> Format<SocketAddr> {
    Format::new("`ADDRESS:PORT`", parse_listener, || pattern("^.+:[1-9][0-9]{0,4}$"))
}

fn parse_address(text: &str) -> Result<Ipv4Addr, ValueError> {
    const WANTED: &str = "an IPv4 address such as 203.0.113.10";
    let address: Ipv4Addr = text.parse().map_err(|_| {
        let advice = if text.parse::<Ipv6Addr>().is_ok() {
            "natbox translates IPv4 only"
        } else if text.contains('/') {
            "leave out the prefix length"
        } else if text.contains(':') {
            "leave out the port"
        } else {
            "write four numbers from 0 to 255, without leading zeros"
        };
        ValueError::new(WANTED, advice)
    })?;
    match reserved(address) {
        None => Ok(address),
        Some(kind) => Err(ValueError::new(
            "an address that one host may have",
            format!("{kind} addresses cannot be used here"),
        )),
    }
}

fn parse_addresses(text: &str) -> Result<Vec<Ipv4Addr>, ValueError> {
    let (first, last) = first_and_last(text)?;
    let size = u64::from(u32::from(last) - u32::from(first)) + 1;
    if size > MAX_ADDRESSES as u64 {
        return Err(ValueError::new(
            format!("at most {MAX_ADDRESSES} addresses"),
            format!("these are {size}; publish fewer"),
        ));
    }
    let all: Vec<Ipv4Addr> = (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from).collect();
    let of_no_uplink = |address: Ipv4Addr| {
        reserved(address).or_else(|| address.is_link_local().then_some(LINK_LOCAL.2))
    };
    match all.iter().find_map(|address| of_no_uplink(*address)) {
        None => Ok(all),
        Some(kind) => Err(ValueError::new(
            "addresses that one host may have",
            format!("the range holds {kind} addresses"),
        )),
    }
}

fn first_and_last(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), ValueError> {
    const WANTED: &str = "external addresses as 203.0.113.10, 203.0.113.10-20 or 203.0.113.0/28";
    if text.contains('/') {
        let block = parse_prefix(text).map_err(|error| error.wanting(WANTED))?;
        return Ok((block.network(), block.broadcast()));
    }
    let Some((first, last)) = text.split_once('-') else {
        let only = parse_address(text).map_err(|error| match text.parse::<Ipv4Addr>() {
            Ok(_) => error,
            Err(_) => error.wanting(WANTED),
        })?;
        return Ok((only, only));
    };
    let first = parse_address(first).map_err(|error| error.wanting(WANTED))?;
    let [a, b, c, _] = first.octets();
    let last = match last.parse::<u8>() {
        Ok(octet) if plain_digits(last).is_some() => Ipv4Addr::new(a, b, c, octet),
        Ok(_) | Err(_) => parse_address(last).map_err(|error| error.wanting(WANTED))?,
    };
    match last < first {
        true => Err(ValueError::new(WANTED, "write the lower address first")),
        false => Ok((first, last)),
    }
}

fn emit_addresses(addresses: &Vec<Ipv4Addr>) -> Document {
    match addresses.as_slice() {
        [first, .., last] => Document::text(format_args!("{first}-{}", last.octets()[3])),
        some => Document::Text(some.iter().map(Ipv4Addr::to_string).collect()),
    }
}

/// Cuts addresses into runs within one last octet, each as [`addresses`] reads it, in their order.
pub(in crate::config) fn runs(addresses: &[Ipv4Addr]) -> impl Iterator<Item = Vec<Ipv4Addr>> {
    let follows = |one: &Ipv4Addr, next: &Ipv4Addr| {
        one.octets()[..3] == next.octets()[..3]
            && one.octets()[3].checked_add(1) == Some(next.octets()[3])
    };
    addresses.chunk_by(follows).map(<[Ipv4Addr]>::to_vec)
}

fn parse_prefix(text: &str) -> Result<Ipv4Net, ValueError> {
    const WANTED: &str = "an IPv4 prefix such as 10.0.0.0/24";
    let prefix: Ipv4Net = text.parse().map_err(|_| {
        let advice = match text.parse::<Ipv4Addr>() {
            Ok(_) => format!("add the prefix length: {text}/32 is this one host"),
            Err(_) if text.contains("::") => "natbox translates IPv4 only".into(),
            Err(_) => "write four numbers from 0 to 255, `/`, and a length from 0 to 32".into(),
        };
        ValueError::new(WANTED, advice)
    })?;
    if text.rsplit('/').next().is_some_and(|length| plain_digits(length).is_none()) {
        return Err(ValueError::new(WANTED, "leave out the zeros in front of the length"));
    }
    if prefix != prefix.trunc() {
        let advice = format!(
            "write {} for the network, or {}/32 for the one host",
            prefix.trunc(),
            prefix.addr()
        );
        return Err(ValueError::new("a prefix whose bits after the length are zero", advice));
    }
    Ok(prefix)
}

fn parse_unicast_prefix(text: &str) -> Result<Ipv4Net, ValueError> {
    let prefix = parse_prefix(text)?;
    let overlaps = |range: &Ipv4Net| range.contains(&prefix) || prefix.contains(range);
    match RESERVED
        .iter()
        .chain([&LINK_LOCAL])
        .map(|(address, length, kind)| (range(*address, *length), kind))
        .find(|(range, _)| overlaps(range))
    {
        None => Ok(prefix),
        Some((range, kind)) => Err(ValueError::new(
            "a prefix of hosts",
            format!("it overlaps the {kind} addresses {range}: narrow it"),
        )),
    }
}

/// Returns the kind of addresses if no host that a router reaches may have one of the prefix.
pub(in crate::config) fn kind_of_no_host(prefix: Ipv4Net) -> Option<&'static str> {
    let mut ranges = RESERVED.iter().chain([&LINK_LOCAL]);
    let around = ranges.find(|(network, length, _)| range(*network, *length).contains(&prefix));
    around.map(|(_, _, kind)| *kind)
}

/// Returns true for the network or broadcast address of a prefix.
pub(in crate::config) fn is_of_no_host(prefix: Ipv4Net, address: Ipv4Addr) -> bool {
    prefix.prefix_len() < 31 && (address == prefix.network() || address == prefix.broadcast())
}

/// Returns the kind of an address that no host may have.
fn reserved(address: Ipv4Addr) -> Option<&'static str> {
    RESERVED
        .iter()
        .find(|(network, length, _)| range(*network, *length).contains(&address))
        .map(|(_, _, kind)| *kind)
}

fn range(network: Ipv4Addr, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(network, length)
}

fn parse_ports(text: &str) -> Result<PortRange, ValueError> {
    const WANTED: &str = "a port or a range of ports such as 80 or 8000-8099, from 1 to 65535";
    let port = |text: &str| {
        let number = plain_digits(text).ok_or_else(|| {
            let advice = match text.starts_with('0') {
                true => "leave out the zeros in front",
                false => "write decimal digits, for a range with one `-`",
            };
            ValueError::new(WANTED, advice)
        })?;
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
            ValueError::new(
                WANTED,
                if number == 0 { "port 0 cannot be used" } else { "65535 is the last port" },
            )
        })
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(ValueError::new(WANTED, format!("write the lower port first: {last}-{first}")));
    }
    Ok(PortRange { first, last })
}

fn parse_target(text: &str) -> Result<ForwardTarget, ValueError> {
    const WANTED: &str = "the server as ADDRESS or ADDRESS:PORT, such as 10.0.0.101:80";
    let (host, ports) = match text.split_once(':') {
        Some((host, ports)) => (host, Some(ports)),
        None => (text, None),
    };
    if host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()) {
        return Err(ValueError::new(
            WANTED,
            "for a service of the box itself, write the address that the box has on the inside \
             interface, and make the program listen there",
        ));
    }
    Ok(ForwardTarget {
        address: parse_address(host).map_err(|error| error.wanting(WANTED))?,
        ports: ports.map(parse_ports).transpose().map_err(|error| error.wanting(WANTED))?,
    })
}

fn parse_endpoint(text: &str) -> Result<SocketAddrV4, ValueError> {
    const WANTED: &str = "an IPv4 address with a port such as 192.0.2.53:53";
    let restate = |error: ValueError| error.wanting(WANTED);
    let (host, port) =
        text.split_once(':').ok_or_else(|| ValueError::new(WANTED, "add `:` and the port"))?;
    let range = parse_ports(port).map_err(restate)?;
    if range.first != range.last {
        return Err(ValueError::new(WANTED, "choose one port"));
    }
    Ok(SocketAddrV4::new(parse_address(host).map_err(restate)?, range.first))
}

fn parse_interface(text: &str) -> Result<String, ValueError> {
    let advice = if text.is_empty() || text.len() > 15 {
        "`ip link` lists the names, which have 1 to 15 bytes"
    } else if matches!(text, "." | "..") {
        "the kernel allows no name of dots alone"
    } else if text.contains(['/', ':']) {
        "the kernel allows no `/` or `:` in it"
    } else if text.contains(char::is_whitespace) {
        "the kernel allows no blanks in it"
    } else if text.contains(char::is_control) {
        "leave out the control characters"
    } else {
        return Ok(text.into());
    };
    Err(ValueError::new("an interface name", advice))
}

fn parse_tun_interface(text: &str) -> Result<String, ValueError> {
    if text.contains('%') {
        return Err(ValueError::new(
            "an interface name",
            "leave out the `%`: natbox makes the device of exactly this name",
        ));
    }
    parse_interface(text)
}

fn parse_listener(text: &str) -> Result<SocketAddr, ValueError> {
    const WANTED: &str = "ADDRESS:PORT such as 127.0.0.1:9640";
    let has_plain_port = text.rsplit(':').next().is_some_and(|port| plain_digits(port).is_some());
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(ValueError::new(WANTED, "choose a port from 1 to 65535"))
        }
        Ok(_) if !has_plain_port => {
            Err(ValueError::new(WANTED, "leave out the zeros in front of the port"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(ValueError::new(
            WANTED,
            "127.0.0.1 keeps it on this host, 0.0.0.0 is every address",
        )),
    }
}

/// Addresses of one link, which no router forwards (RFC 3927 section 7).
const LINK_LOCAL: (Ipv4Addr, u8, &str) = (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local");

/// Most external addresses of an uplink.
pub(in crate::config) const MAX_ADDRESSES: usize = 1024;

/// Ranges of addresses that cannot be a host's (RFC 1122 section 3.2.1.3, RFC 1112).
const RESERVED: [(Ipv4Addr, u8, &str); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "\"this network\""),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved and broadcast"),
];

#[cfg(test)]
mod tests;

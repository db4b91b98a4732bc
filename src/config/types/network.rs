//! Values of the network: addresses, prefixes, ports, interfaces; read from their text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::values::{ValueError, digits};
use crate::config::model::PortRange;

/// An IPv4 address that one host may have.
pub(in crate::config) fn address(text: &str) -> Result<Ipv4Addr, ValueError> {
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

/// External addresses: one, a range `a.b.c.d-e` or `a.b.c.d-a.b.c.e`, or every address of a block `a.b.c.0/28`; at
/// most `most`.
pub(in crate::config) fn addresses(
    most: usize,
) -> impl Fn(&str) -> Result<Vec<Ipv4Addr>, ValueError> {
    const WANTED: &str = "external addresses as 203.0.113.10, 203.0.113.10-20 or 203.0.113.0/28";
    move |text| {
        let (first, last) = if text.contains('/') {
            let block = prefix(text).map_err(|error| ValueError::new(WANTED, error.advice))?;
            (block.network(), block.broadcast())
        } else if let Some((first, last)) = text.split_once('-') {
            let first = address(first).map_err(|error| ValueError::new(WANTED, error.advice))?;
            let [a, b, c, _] = first.octets();
            let last = match last.parse::<u8>() {
                Ok(octet) if digits(last).is_some() => Ipv4Addr::new(a, b, c, octet),
                Ok(_) | Err(_) => {
                    address(last).map_err(|error| ValueError::new(WANTED, error.advice))?
                }
            };
            if last < first {
                return Err(ValueError::new(WANTED, "write the lower address first"));
            }
            (first, last)
        } else {
            let only = address(text).map_err(|error| match error {
                ValueError { wanted, advice } if text.parse::<Ipv4Addr>().is_ok() => {
                    ValueError { wanted, advice }
                }
                ValueError { advice, .. } => ValueError::new(WANTED, advice),
            })?;
            (only, only)
        };
        let size = u64::from(u32::from(last) - u32::from(first)) + 1;
        if size > most as u64 {
            return Err(ValueError::new(
                format!("at most {most} addresses"),
                format!("these are {size}: publish fewer"),
            ));
        }
        let all: Vec<Ipv4Addr> = (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from).collect();
        match all.iter().find_map(|address| reserved(*address)) {
            None => Ok(all),
            Some(kind) => Err(ValueError::new(
                "addresses that one host may have",
                format!("the range holds {kind} addresses"),
            )),
        }
    }
}

/// A prefix `a.b.c.d/length` without host bits.
pub(in crate::config) fn prefix(text: &str) -> Result<Ipv4Net, ValueError> {
    const WANTED: &str = "an IPv4 prefix such as 10.0.0.0/24";
    let prefix: Ipv4Net = text.parse().map_err(|_| {
        let advice = match text.parse::<Ipv4Addr>() {
            Ok(_) => format!("add the prefix length: {text}/32 is this one host"),
            Err(_) if text.contains("::") => "natbox translates IPv4 only".into(),
            Err(_) => "write four numbers from 0 to 255, `/`, and a length from 0 to 32".into(),
        };
        ValueError::new(WANTED, advice)
    })?;
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

/// A prefix of private hosts: without host bits, and apart from the ranges that no host may have.
pub(in crate::config) fn unicast_prefix(text: &str) -> Result<Ipv4Net, ValueError> {
    let prefix = prefix(text)?;
    let overlaps = |range: &Ipv4Net| range.contains(&prefix) || prefix.contains(range);
    match RESERVED
        .iter()
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

/// Which kind of address that no host may have this is, if any.
fn reserved(address: Ipv4Addr) -> Option<&'static str> {
    RESERVED
        .iter()
        .find(|(network, length, _)| range(*network, *length).contains(&address))
        .map(|(_, _, kind)| *kind)
}

fn range(network: Ipv4Addr, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(network, length)
}

/// A port or an inclusive range of ports, from 1.
pub(in crate::config) fn ports(text: &str) -> Result<PortRange, ValueError> {
    const WANTED: &str = "a port or a range of ports such as 80 or 8000-8099, from 1 to 65535";
    let port = |text: &str| {
        let number = digits(text).ok_or_else(|| {
            ValueError::new(WANTED, "write decimal digits, for a range with one `-`")
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

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

/// The server of a forward, with the port or ports if they are given.
pub(in crate::config) fn target(text: &str) -> Result<(Ipv4Addr, Option<PortRange>), ValueError> {
    const WANTED: &str = "the server as ADDRESS or ADDRESS:PORT, such as 10.0.0.101:80";
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let anew = |error: ValueError| ValueError::new(WANTED, error.advice);
    Ok((address(host).map_err(anew)?, port.map(ports).transpose().map_err(anew)?))
}

/// A host's address with a port.
pub(in crate::config) fn endpoint(text: &str) -> Result<SocketAddrV4, ValueError> {
    const WANTED: &str = "an IPv4 address with a port such as 192.0.2.53:53";
    let anew = |error: ValueError| ValueError::new(WANTED, error.advice);
    let (host, port) =
        text.split_once(':').ok_or_else(|| ValueError::new(WANTED, "add `:` and the port"))?;
    let range = ports(port).map_err(anew)?;
    if range.first != range.last {
        return Err(ValueError::new(WANTED, "choose one port"));
    }
    Ok(SocketAddrV4::new(address(host).map_err(anew)?, range.first))
}

/// An interface name as the kernel allows it.
pub(in crate::config) fn interface(text: &str) -> Result<String, ValueError> {
    let advice = if text.is_empty() || text.len() > 15 {
        "`ip link` lists the names, which have 1 to 15 bytes"
    } else if matches!(text, "." | "..") || text.contains(['/', ':']) {
        "the kernel allows no `/` or `:` in it"
    } else if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        "the kernel allows no blanks in it"
    } else {
        return Ok(text.into());
    };
    Err(ValueError::new("an interface name", advice))
}

/// The name of the TUN device: an interface name in which the kernel finds no pattern to fill in.
pub(in crate::config) fn tun_interface(text: &str) -> Result<String, ValueError> {
    if text.contains('%') {
        return Err(ValueError::new(
            "an interface name",
            "leave out the `%`: natbox makes the device of exactly this name",
        ));
    }
    interface(text)
}

/// An address and port to listen on.
pub(in crate::config) fn listener(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(|| {
        ValueError::new(
            "ADDRESS:PORT such as 127.0.0.1:9640",
            "127.0.0.1 keeps it on this host, 0.0.0.0 is every address",
        )
    })
}

/// Ranges of addresses that cannot be a host's (RFC 1122 section 3.2.1.3, RFC 1112).
const RESERVED: [(Ipv4Addr, u8, &str); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "\"this network\""),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved and broadcast"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_come_as_one_a_range_or_a_block() {
        let last_octets = |text| {
            addresses(1024)(text).map(|all| all.iter().map(|a| a.octets()[3]).collect::<Vec<_>>())
        };
        assert_eq!(last_octets("203.0.113.10").unwrap(), [10]);
        assert_eq!(last_octets("203.0.113.10-12").unwrap(), [10, 11, 12]);
        assert_eq!(last_octets("203.0.113.10-203.0.113.12").unwrap(), [10, 11, 12]);
        assert_eq!(last_octets("203.0.112.255-203.0.113.1").unwrap(), [255, 0, 1]);
        assert_eq!(last_octets("203.0.113.4/30").unwrap(), [4, 5, 6, 7]);
        for text in [
            "203.0.113.12-10",
            "203.0.113.5/30",
            "203.0.113.1-",
            "203.0.113.1-+5",
            "203.0.0.0/16",
            "0.0.0.0/0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "223.255.255.250-224.0.0.3",
            "::1",
            "",
        ] {
            assert!(last_octets(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_both_readings() {
        let error = prefix("10.0.0.1/24").unwrap_err();
        assert_eq!(
            error.advice,
            "write 10.0.0.0/24 for the network, or 10.0.0.1/32 for the one host"
        );
    }

    #[test]
    fn inside_prefixes_keep_off_reserved_ranges() {
        for text in [
            "0.0.0.0/0",
            "127.0.0.0/8",
            "127.1.0.0/16",
            "224.0.0.0/4",
            "192.0.0.0/2",
            "255.255.255.255/32",
        ] {
            assert!(unicast_prefix(text).is_err(), "{text:?}");
        }
        assert!(unicast_prefix("10.0.0.0/8").is_ok() && unicast_prefix("192.168.1.7/32").is_ok());
    }

    #[test]
    fn ports_start_at_one_and_ranges_run_upwards() {
        assert_eq!(ports("80"), Ok(PortRange { first: 80, last: 80 }));
        assert_eq!(ports("8000-8099"), Ok(PortRange { first: 8000, last: 8099 }));
        for text in ["0", "0-10", "65536", "90-80", "80-", "-80", "http", "80-90-99", "+80", ""] {
            assert!(ports(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn interface_names_are_what_the_kernel_allows() {
        assert!(interface("wan0.100").is_ok() && interface("a23456789012345").is_ok());
        for text in ["", "a234567890123456", "a/b", "a b", "a:b", ".", "..", "a\tb", "a\0b"] {
            assert!(interface(text).is_err(), "{text:?}");
        }
        assert!(tun_interface("tun%d").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:./%-]{0,24}") {
            let _ = (addresses(1024)(&text), unicast_prefix(&text), ports(&text), target(&text));
            let _ = (interface(&text), tun_interface(&text), listener(&text));
        }
    }
}

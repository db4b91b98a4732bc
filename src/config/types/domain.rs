//! Values of the DNS: names, mail addresses, servers.

use std::net::{IpAddr, SocketAddr};

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::values::dns::Name;

use super::constraint::pattern;
use super::numbers::plain_digits;
use super::scalar::Format;

macro_rules! label {
    () => {
        "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    };
}

/// Port of a name server.
pub(in crate::config) const DNS_PORT: u16 = 53;

/// Returns the type of a domain name. It is absolute, whether it ends in a dot or not.
pub(in crate::config) fn domain() -> Format<Name> {
    Format::text("domain name", parse_domain, |name| Document::Text(without_dot(name)))
        .bounded(|| pattern(concat!("^(?![0-9.]+$)", label!(), "([.]", label!(), ")*[.]?$")))
}

/// Returns the type of a name within a zone whose own name is left out, or `@` for the zone itself.
pub(in crate::config) fn relative() -> Format<Name> {
    let emit = |name: &Name| match name.num_labels() {
        0 => Document::text('@'),
        _ => Document::Text(without_dot(name)),
    };
    Format::text("name without the zone's own, or `@`", parse_relative, emit)
        .bounded(|| pattern(concat!("^(@|", label!(), "([.]", label!(), ")*)$")))
}

/// Returns the type of a mail address as the SOA record has it: the part before the `@` is one
/// label (RFC 1035 section 8).
pub(in crate::config) fn mailbox() -> Format<Name> {
    let emit = |mailbox: &Name| {
        let part = String::from_utf8_lossy(mailbox.iter().next().unwrap_or_default());
        Document::text(format_args!("{part}@{}", without_dot(&mailbox.base_name())))
    };
    Format::text("mail address", parse_mailbox, emit).bounded(|| pattern("^[^@]{1,63}@[^@]+$"))
}

/// Returns the type of the address of a name server, with a port or without.
pub(in crate::config) fn name_server() -> Format<SocketAddr> {
    Format::new("`ADDRESS` or `ADDRESS:PORT`", parse_name_server, || {
        pattern("^[0-9]{1,3}([.][0-9]{1,3}){3}(:[1-9][0-9]{0,4})?$")
    })
}

/// Returns the text of a name without its last dot.
pub(in crate::config) fn without_dot(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn parse_domain(text: &str) -> Result<Name, ValueError> {
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

fn parse_relative(text: &str) -> Result<Name, ValueError> {
    if text == "@" {
        return Ok(Name::new());
    }
    if text.ends_with('.') {
        return Err(ValueError::new(
            "a name within the zone, without the zone's own",
            "remove the last dot",
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

fn parse_mailbox(text: &str) -> Result<Name, ValueError> {
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
    let domain = parse_domain(domain).map_err(|error| error.wanting(WANTED))?;
    domain
        .prepend_label(part.as_bytes())
        .map_err(|_| ValueError::new(WANTED, "it has at most 255 bytes in all"))
}

fn parse_name_server(text: &str) -> Result<SocketAddr, ValueError> {
    let address =
        text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT)));
    let zero_in_front = text.rsplit_once(':').is_some_and(|(_, port)| plain_digits(port).is_none());
    let advice = match address {
        None => "write the address itself: names cannot be looked up before there is DNS",
        Some(address) if address.is_ipv6() => {
            "write an IPv4 address: natbox sends updates over an uplink, by IPv4"
        }
        Some(address) if address.ip().is_unspecified() => "write the address of the server",
        Some(address) if address.port() == 0 => "choose a port from 1 to 65535",
        Some(_) if zero_in_front => "leave out the zeros in front of the port",
        Some(address) => return Ok(address),
    };
    Err(ValueError::new("ADDRESS or ADDRESS:PORT such as 192.0.2.53", advice))
}

const WANTED_DOMAIN: &str = "a domain name such as example.org";

#[cfg(test)]
mod tests;

//! Whether the conditions of a rule match a packet.
//!
//! In this file a `None` means that the packet's known fields do not determine the answer.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::packet::{FilteredPacket, Tracking};

const SYN: u64 = 2;
const ACK: u64 = 16;
/// Names of the TCP flags, from the lowest bit on.
const FLAG_NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];

/// Whether a condition matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MatchResult {
    Yes,
    #[default]
    No,
    Maybe,
}

impl From<Option<bool>> for MatchResult {
    fn from(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Maybe,
        }
    }
}

/// Evaluates a `match` expression.
pub(super) fn matches(expression: &Value, packet: &FilteredPacket<'_>) -> MatchResult {
    let (left, right) = (&expression["left"], &expression["right"]);
    let depends = depends(left, packet);
    if depends == Some(false) {
        return MatchResult::No;
    }
    let operator = expression["op"].as_str().unwrap_or("==");
    if let Some(flags) = tcp_flags(left, packet) {
        return flags
            .zip(flag_bits(right))
            .and_then(|(flags, wanted)| compare(operator, flags, wanted))
            .into();
    }
    let known = match operator {
        "==" | "in" => is_among(left, right, packet),
        "!=" => is_among(left, right, packet).map(|known| !known),
        _ => port(left, packet)
            .zip(right.as_u64())
            .and_then(|(port, wanted)| compare(operator, port.into(), wanted)),
    };
    // A packet of unknown protocol may have another protocol than the condition's.
    if depends.is_none() && known == Some(true) { MatchResult::Maybe } else { known.into() }
}

/// Returns whether the packet has the field of a condition.
pub(super) fn depends(left: &Value, packet: &FilteredPacket<'_>) -> Option<bool> {
    if let Some(parts) = left["concat"].as_array() {
        return every(parts.iter().map(|part| depends(part, packet)));
    }
    let inner = if left.get("&").is_some() { &left["&"][0] } else { left };
    match inner["payload"]["protocol"].as_str() {
        Some("ip6" | "arp" | "icmpv6") => Some(false),
        Some("th") => packet.protocol.map(|_| true),
        Some(protocol @ ("tcp" | "udp" | "icmp")) => packet.protocol.map(|other| other == protocol),
        Some("igmp" | "esp" | "ah" | "comp" | "udplite" | "dccp" | "sctp" | "gre") => {
            packet.protocol.map(|_| false)
        }
        Some(_) | None => Some(true),
    }
}

/// Combines answers: true if all are true, false if one is false.
fn every(each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    each.reduce(|all, one| match (all, one) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        (_, _) => None,
    })
    .unwrap_or(Some(true))
}

/// Returns whether one of the values fits.
fn is_among(left: &Value, right: &Value, packet: &FilteredPacket<'_>) -> Option<bool> {
    let set = right.get("set").unwrap_or(right);
    let Some(values) = set.as_array() else { return fits(left, set, packet) };
    let each: Vec<Option<bool>> = values.iter().map(|value| fits(left, value, packet)).collect();
    if each.contains(&Some(true)) {
        Some(true)
    } else if each.contains(&None) {
        None
    } else {
        Some(false)
    }
}

/// Returns whether one value fits the field of the packet.
pub(super) fn fits(left: &Value, value: &Value, packet: &FilteredPacket<'_>) -> Option<bool> {
    // An element with a counter or a timeout holds its value one level deeper.
    let value = value.get("elem").and_then(|element| element.get("val")).unwrap_or(value);
    if let (Some(lefts), Some(values)) = (left["concat"].as_array(), value["concat"].as_array()) {
        return every(lefts.iter().zip(values).map(|(left, value)| fits(left, value, packet)));
    }
    if value.as_str().is_some_and(|word| word.starts_with('@')) {
        return None;
    }
    let is_word = |word: &str| value.as_str().map(|value| value == word);
    let key = |what: &str| left[what]["key"].as_str();
    match (
        key("meta"),
        left["payload"]["protocol"].as_str(),
        left["payload"]["field"].as_str(),
        key("ct"),
    ) {
        (Some("iifname" | "iif"), ..) => is_name(value, packet.iif?),
        (Some("oifname" | "oif"), ..) => is_name(value, packet.oif?),
        (Some("nfproto"), ..) => is_word("ipv4"),
        (Some("protocol"), ..) | (_, Some("ether"), Some("type"), _) => is_word("ip"),
        (Some("l4proto"), ..) | (_, Some("ip"), Some("protocol"), _) => is_word(packet.protocol?),
        (_, Some("ip"), Some("saddr"), _) => is_address(value, packet.from?),
        (_, Some("ip"), Some("daddr"), _) => is_address(value, packet.to?),
        (_, Some("tcp" | "udp" | "th"), Some("dport" | "sport"), _) => {
            is_port(value, port(left, packet)?)
        }
        (.., Some("state")) => is_word(match packet.tracking {
            Tracking::Tracked if packet.reply => "established",
            Tracking::Tracked => "new",
            Tracking::Untracked => "untracked",
            Tracking::Unknown => return None,
        }),
        (.., Some("direction")) if packet.tracking == Tracking::Tracked => {
            is_word(if packet.reply { "reply" } else { "original" })
        }
        _ => None,
    }
}

fn is_name(value: &Value, name: &str) -> Option<bool> {
    let word = value.as_str()?;
    match word.strip_suffix('*') {
        Some(stem) => Some(name.starts_with(stem)),
        None => Some(word == name),
    }
}

fn is_address(value: &Value, address: Ipv4Addr) -> Option<bool> {
    let parsed = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok();
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        return Some(Ipv4Net::new(parsed(prefix.get("addr")?)?, length).ok()?.contains(&address));
    }
    if let Some(range) = value.get("range") {
        return Some((parsed(&range[0])?..=parsed(&range[1])?).contains(&address));
    }
    parsed(value).map(|one| one == address)
}

fn is_port(value: &Value, port: u16) -> Option<bool> {
    if let Some(range) = value.get("range") {
        return Some((range[0].as_u64()?..=range[1].as_u64()?).contains(&u64::from(port)));
    }
    value.as_u64().map(|one| one == u64::from(port))
}

/// Returns the packet's value of the port that a condition names.
fn port(left: &Value, packet: &FilteredPacket<'_>) -> Option<u16> {
    match left["payload"]["field"].as_str()? {
        "dport" => packet.port,
        "sport" => packet.source_port,
        _ => None,
    }
}

/// Returns the packet's TCP flags under the condition's mask.
///
/// The outer None means that the condition is not about TCP flags. The first packet of a connection
/// has SYN, the first reply has SYN and ACK.
fn tcp_flags(left: &Value, packet: &FilteredPacket<'_>) -> Option<Option<u64>> {
    let (inner, mask) = match left["&"].as_array() {
        Some(parts) => (parts.first()?, flag_bits(parts.get(1)?)),
        None => (left, Some(u64::MAX)),
    };
    let is_flags = inner["payload"]["protocol"] == "tcp" && inner["payload"]["field"] == "flags";
    let set = if packet.reply { SYN | ACK } else { SYN };
    is_flags.then(|| mask.filter(|_| packet.protocol.is_some()).map(|mask| mask & set))
}

/// Reads TCP flags: one name, several names, or a number.
fn flag_bits(value: &Value) -> Option<u64> {
    if let Some(word) = value.as_str() {
        let place = FLAG_NAMES.iter().position(|flag| *flag == word)?;
        return Some(1 << place);
    }
    let several = value.as_array().or_else(|| value["|"].as_array());
    several.map_or(value.as_u64(), |several| {
        several.iter().try_fold(0, |all, one| Some(all | flag_bits(one)?))
    })
}

fn compare(operator: &str, found: u64, wanted: u64) -> Option<bool> {
    Some(match operator {
        "==" => found == wanted,
        "!=" => found != wanted,
        // For flags: at least one of the wanted flags.
        "in" => found & wanted != 0,
        "<" => found < wanted,
        ">" => found > wanted,
        "<=" => found <= wanted,
        ">=" => found >= wanted,
        _ => return None,
    })
}

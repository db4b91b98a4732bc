//! What one rule of nftables does with a packet.
//!
//! A rule is a row of expressions: those that ask end it when the answer is no, and the first verdict decides. What is not known here
//! is taken for something that may do anything, so that nothing is said for certain which is not.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::host::doctor::nft::filters::{Packet, Tracking};

/// What a rule does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleVerdict<'a> {
    Return,
    End(End),
    /// Another chain goes on.
    To {
        name: &'a str,
        back: bool,
    },
    /// The packet is taken out of connection tracking, and goes on.
    Untrack,
    /// It does something to the packet that is not known here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Accept,
    Drop,
    Rewrite,
}

/// Whether a rule does it.
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

/// What a rule does with a packet, in order; with a map of verdicts that cannot be told, each of them perhaps.
pub(crate) fn verdicts<'a>(
    rule: &'a [Value],
    packet: &Packet<'_>,
) -> Vec<(RuleVerdict<'a>, MatchResult)> {
    let mut all = Vec::new();
    let mut truth = MatchResult::Yes;
    for expression in rule {
        let Some((word, value)) = expression.as_object().and_then(|object| object.iter().next())
        else {
            all.push((RuleVerdict::Unknown, truth));
            truth = MatchResult::Maybe;
            continue;
        };
        match asks(word, value, packet) {
            Some(MatchResult::Yes) => continue,
            Some(MatchResult::Maybe) => {
                truth = MatchResult::Maybe;
                continue;
            }
            Some(MatchResult::No) => return all,
            None => {}
        }
        if word == "vmap" {
            let (found, which) = of_map(value, packet);
            let truth = if which == MatchResult::Yes { truth } else { which };
            all.extend(found.into_iter().map(|verdict| (verdict, truth)));
            return all;
        }
        if let Some(verdict) = verdict(word, value) {
            // What the old iptables calls CT untracks or does something else.
            let perhaps = verdict == RuleVerdict::Untrack && word == "xt";
            all.push((verdict, if perhaps { MatchResult::Maybe } else { truth }));
            match verdict {
                RuleVerdict::Unknown => truth = MatchResult::Maybe,
                RuleVerdict::Return | RuleVerdict::End(_) | RuleVerdict::To { .. } => return all,
                RuleVerdict::Untrack => {}
            }
        }
    }
    all
}

/// The answer of an expression that asks; None: it does not.
fn asks(word: &str, value: &Value, packet: &Packet<'_>) -> Option<MatchResult> {
    match word {
        "match" => Some(matches(value, packet)),
        // A set that takes the packet may be full.
        "limit" | "quota" | "ct count" | "meter" | "set" | "map" => Some(MatchResult::Maybe),
        "xt" if value["type"] == "match" => {
            Some(if value["name"] == "comment" { MatchResult::Yes } else { MatchResult::Maybe })
        }
        _ => None,
    }
}

/// What an expression does to the packet; None: nothing that matters.
fn verdict<'a>(word: &str, value: &'a Value) -> Option<RuleVerdict<'a>> {
    let target = || value.get("target").and_then(Value::as_str).unwrap_or_default();
    Some(match word {
        "accept" => RuleVerdict::End(End::Accept),
        "drop" | "reject" => RuleVerdict::End(End::Drop),
        "masquerade" | "snat" | "dnat" | "redirect" => RuleVerdict::End(End::Rewrite),
        "return" => RuleVerdict::Return,
        "jump" => RuleVerdict::To { name: target(), back: true },
        "goto" => RuleVerdict::To { name: target(), back: false },
        "notrack" => RuleVerdict::Untrack,
        "mangle" if changes_address(value) => RuleVerdict::End(End::Rewrite),
        "continue" | "counter" | "log" | "mangle" | "ct helper" | "ct timeout"
        | "ct expectation" | "flow" | "dup" | "last" | "secmark" => return None,
        "xt" => return of_iptables(value.get("name").and_then(Value::as_str)),
        _ => RuleVerdict::Unknown,
    })
}

fn changes_address(mangle: &Value) -> bool {
    let payload = &mangle["key"]["payload"];
    payload["protocol"] == "ip" && (payload["field"] == "saddr" || payload["field"] == "daddr")
}

/// Targets that iptables-nft leaves in its own words (iptables-extensions(8)).
fn of_iptables(target: Option<&str>) -> Option<RuleVerdict<'static>> {
    Some(match target {
        Some("ACCEPT") => RuleVerdict::End(End::Accept),
        Some("DROP" | "REJECT") => RuleVerdict::End(End::Drop),
        Some("RETURN") => RuleVerdict::Return,
        Some("MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP") => {
            RuleVerdict::End(End::Rewrite)
        }
        Some("CT" | "NOTRACK") => RuleVerdict::Untrack,
        Some(
            "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "SECMARK" | "CONNSECMARK" | "TCPMSS"
            | "CHECKSUM" | "CLASSIFY" | "TOS" | "DSCP" | "TRACE" | "AUDIT" | "SET" | "TEE" | "LED"
            | "RATEEST" | "IDLETIMER" | "HMARK",
        ) => return None,
        Some(_) | None => RuleVerdict::Unknown,
    })
}

/// The verdict of a map for a packet, or all of them if it cannot be told which.
fn of_map<'a>(map: &'a Value, packet: &Packet<'_>) -> (Vec<RuleVerdict<'a>>, MatchResult) {
    let Some(pairs) = map["data"]["set"].as_array() else {
        return (vec![RuleVerdict::Unknown], MatchResult::Maybe);
    };
    let of = |pair: &'a Value| {
        let (word, value) = pair[1].as_object().and_then(|object| object.iter().next())?;
        verdict(word, value)
    };
    match depends(&map["key"], packet) {
        Some(true) => {}
        Some(false) => return (Vec::new(), MatchResult::No),
        None => return (pairs.iter().filter_map(of).collect(), MatchResult::Maybe),
    }
    let mut unsure = false;
    // What fits nothing else fits the star.
    for pair in pairs.iter().filter(|pair| pair[0] != "*") {
        match fits(&map["key"], &pair[0], packet) {
            Some(true) => return (of(pair).into_iter().collect(), MatchResult::Yes),
            Some(false) => {}
            None => unsure = true,
        }
    }
    if unsure {
        return (pairs.iter().filter_map(of).collect(), MatchResult::Maybe);
    }
    (pairs.iter().filter(|pair| pair[0] == "*").filter_map(of).collect(), MatchResult::Yes)
}

fn matches(one: &Value, packet: &Packet<'_>) -> MatchResult {
    let (left, right) = (&one["left"], &one["right"]);
    let depends = depends(left, packet);
    if depends == Some(false) {
        return MatchResult::No;
    }
    let operator = one["op"].as_str().unwrap_or("==");
    if let Some(flags) = flags(left, packet) {
        return flags
            .zip(bits(right))
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
    // A protocol that is not known may be another one.
    if depends.is_none() && known == Some(true) { MatchResult::Maybe } else { known.into() }
}

/// Whether the packet has what is asked about; None: cannot be told.
fn depends(left: &Value, packet: &Packet<'_>) -> Option<bool> {
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

/// Yes if all are, no if one is not.
fn every(each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    each.reduce(|all, one| match (all, one) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        (_, _) => None,
    })
    .unwrap_or(Some(true))
}

/// Whether one of the values fits; None: cannot be told.
fn is_among(left: &Value, right: &Value, packet: &Packet<'_>) -> Option<bool> {
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

/// Whether one value fits; None: cannot be told.
fn fits(left: &Value, value: &Value, packet: &Packet<'_>) -> Option<bool> {
    // With a counter or a timeout of its own.
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
        (.., Some("state")) => is_word(match packet.followed {
            Tracking::Tracked if packet.reply => "established",
            Tracking::Tracked => "new",
            Tracking::Untracked => "untracked",
            Tracking::Unknown => return None,
        }),
        (.., Some("direction")) if packet.followed == Tracking::Tracked => {
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

/// The port that is asked about, if it is known.
fn port(left: &Value, packet: &Packet<'_>) -> Option<u16> {
    match left["payload"]["field"].as_str()? {
        "dport" => packet.port,
        "sport" => packet.source_port,
        _ => None,
    }
}

/// The flags of TCP that are asked about, if they are what is asked about: SYN of what begins a connection, SYN and ACK of the
/// first answer.
fn flags(left: &Value, packet: &Packet<'_>) -> Option<Option<u64>> {
    let (inner, mask) = match left["&"].as_array() {
        Some(parts) => (parts.first()?, bits(parts.get(1)?)),
        None => (left, Some(u64::MAX)),
    };
    let is_flags = inner["payload"]["protocol"] == "tcp" && inner["payload"]["field"] == "flags";
    let set = if packet.reply { SYN | ACK } else { SYN };
    is_flags.then(|| mask.filter(|_| packet.protocol.is_some()).map(|mask| mask & set))
}

const SYN: u64 = 2;
const ACK: u64 = 16;

/// Flags by name, alone or together.
fn bits(value: &Value) -> Option<u64> {
    if let Some(word) = value.as_str() {
        let place = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"]
            .iter()
            .position(|flag| *flag == word)?;
        return Some(1 << place);
    }
    let several = value.as_array().or_else(|| value["|"].as_array());
    several.map_or(value.as_u64(), |several| {
        several.iter().try_fold(0, |all, one| Some(all | bits(one)?))
    })
}

fn compare(operator: &str, found: u64, wanted: u64) -> Option<bool> {
    Some(match operator {
        "==" => found == wanted,
        "!=" => found != wanted,
        // Of flags: one of them.
        "in" => found & wanted != 0,
        "<" => found < wanted,
        ">" => found > wanted,
        "<=" => found <= wanted,
        ">=" => found >= wanted,
        _ => return None,
    })
}

/// Whether an expression needs connections to be tracked, or may.
pub(crate) fn uses_tracking(expression: &Value) -> bool {
    let Some((word, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
        return true;
    };
    match word.as_str() {
        "flow" | "synproxy" => true,
        "xt" => !value["name"].as_str().is_some_and(|name| STATELESS.contains(&name)),
        _ => has_key(expression, "ct"),
    }
}

/// Of iptables: what never asks for connections.
const STATELESS: [&str; 18] = [
    "comment",
    "tcp",
    "udp",
    "icmp",
    "multiport",
    "addrtype",
    "limit",
    "hashlimit",
    "set",
    "mark",
    "mac",
    "pkttype",
    "LOG",
    "NFLOG",
    "MARK",
    "TCPMSS",
    "REJECT",
    "DROP",
];

fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(object) => object.iter().any(|(name, inner)| {
            name == key
                || name.strip_prefix(key).is_some_and(|rest| rest.starts_with(' '))
                || has_key(inner, key)
        }),
        Value::Array(values) => values.iter().any(|inner| has_key(inner, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

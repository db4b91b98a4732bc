//! What one rule of nftables does with a packet.
//!
//! A rule is a list of expressions. A condition that does not match ends the rule, and the first
//! verdict decides. An unknown expression may do anything, so the result is never more certain than
//! the rules allow.

use serde_json::Value;

use super::conditions::{MatchResult, depends, fits, matches};
use super::packet::FilteredPacket;

/// What a rule does once its conditions match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleVerdict<'a> {
    /// The calling chain continues.
    Return,
    End(Ending),
    /// Another chain continues.
    Jump {
        target: &'a str,
        /// True for `jump`, after which this chain continues; false for `goto`.
        returns: bool,
    },
    /// Takes the packet out of connection tracking. The evaluation continues.
    Untrack,
    /// Does something unknown to the packet.
    Unknown,
}

/// How the evaluation of a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Accept,
    Drop,
    /// The rule rewrites an address.
    Rewrite,
}

/// Lists the verdicts of a rule for a packet, in order, each with its certainty.
///
/// If a verdict map depends on something unknown, the list holds each verdict of the map as a
/// possibility.
pub(super) fn verdicts<'a>(
    rule: &'a [Value],
    packet: &FilteredPacket<'_>,
) -> Vec<(RuleVerdict<'a>, MatchResult)> {
    let mut all = Vec::new();
    let mut matched = MatchResult::Yes;
    for expression in rule {
        let Some((word, value)) = expression.as_object().and_then(|object| object.iter().next())
        else {
            all.push((RuleVerdict::Unknown, matched));
            matched = MatchResult::Maybe;
            continue;
        };
        match condition(word, value, packet) {
            Some(MatchResult::Yes) => continue,
            Some(MatchResult::Maybe) => {
                matched = MatchResult::Maybe;
                continue;
            }
            Some(MatchResult::No) => return all,
            None => {}
        }
        if word == "vmap" {
            let (found, certainty) = map_verdicts(value, packet);
            let matched = if certainty == MatchResult::Yes { matched } else { certainty };
            all.extend(found.into_iter().map(|verdict| (verdict, matched)));
            return all;
        }
        if let Some(verdict) = verdict(word, value) {
            // The CT target of the old iptables untracks or does something else.
            let is_doubtful = verdict == RuleVerdict::Untrack && word == "xt";
            all.push((verdict, if is_doubtful { MatchResult::Maybe } else { matched }));
            match verdict {
                RuleVerdict::Unknown => matched = MatchResult::Maybe,
                RuleVerdict::Return | RuleVerdict::End(_) | RuleVerdict::Jump { .. } => return all,
                RuleVerdict::Untrack => {}
            }
        }
    }
    all
}

/// Evaluates an expression that is a condition; None for any other expression.
fn condition(word: &str, value: &Value, packet: &FilteredPacket<'_>) -> Option<MatchResult> {
    match word {
        "match" => Some(matches(value, packet)),
        // A set that the rule adds the packet to may be full.
        "limit" | "quota" | "ct count" | "meter" | "set" | "map" => Some(MatchResult::Maybe),
        "xt" if value["type"] == "match" => {
            Some(if value["name"] == "comment" { MatchResult::Yes } else { MatchResult::Maybe })
        }
        _ => None,
    }
}

/// Reads the verdict of an expression; None if the expression does not affect the packet's path.
fn verdict<'a>(word: &str, value: &'a Value) -> Option<RuleVerdict<'a>> {
    let target = || value.get("target").and_then(Value::as_str).unwrap_or_default();
    Some(match word {
        "accept" => RuleVerdict::End(Ending::Accept),
        "drop" | "reject" => RuleVerdict::End(Ending::Drop),
        "masquerade" | "snat" | "dnat" | "redirect" => RuleVerdict::End(Ending::Rewrite),
        "return" => RuleVerdict::Return,
        "jump" => RuleVerdict::Jump { target: target(), returns: true },
        "goto" => RuleVerdict::Jump { target: target(), returns: false },
        "notrack" => RuleVerdict::Untrack,
        "mangle" if changes_address(value) => RuleVerdict::End(Ending::Rewrite),
        "continue" | "counter" | "log" | "mangle" | "ct helper" | "ct timeout"
        | "ct expectation" | "flow" | "dup" | "last" | "secmark" => return None,
        "xt" => return iptables_target(value.get("name").and_then(Value::as_str)),
        _ => RuleVerdict::Unknown,
    })
}

fn changes_address(mangle: &Value) -> bool {
    let payload = &mangle["key"]["payload"];
    payload["protocol"] == "ip" && (payload["field"] == "saddr" || payload["field"] == "daddr")
}

/// Reads a target that iptables-nft stores in its own form (iptables-extensions(8)).
fn iptables_target(target: Option<&str>) -> Option<RuleVerdict<'static>> {
    Some(match target {
        Some("ACCEPT") => RuleVerdict::End(Ending::Accept),
        Some("DROP" | "REJECT") => RuleVerdict::End(Ending::Drop),
        Some("RETURN") => RuleVerdict::Return,
        Some("MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP") => {
            RuleVerdict::End(Ending::Rewrite)
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

/// Reads the verdict of a map for a packet. If the key is unknown, returns all verdicts with
/// [`MatchResult::Maybe`].
fn map_verdicts<'a>(
    map: &'a Value,
    packet: &FilteredPacket<'_>,
) -> (Vec<RuleVerdict<'a>>, MatchResult) {
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
    let mut uncertain = false;
    // The star matches packets that no other key matches.
    for pair in pairs.iter().filter(|pair| pair[0] != "*") {
        match fits(&map["key"], &pair[0], packet) {
            Some(true) => return (of(pair).into_iter().collect(), MatchResult::Yes),
            Some(false) => {}
            None => uncertain = true,
        }
    }
    if uncertain {
        return (pairs.iter().filter_map(of).collect(), MatchResult::Maybe);
    }
    let star = pairs.iter().filter(|pair| pair[0] == "*");
    (star.filter_map(of).collect(), MatchResult::Yes)
}

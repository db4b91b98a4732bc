//! What the host's own filters do with a packet: nftables (iptables-nft is the same), as far as its rules tell.
//!
//! Rules are followed for a packet that begins a connection, or for an answer to one. What cannot be told (a set by name, a limit, a match that is
//! not known here) makes the outcome unsure, and nothing else.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use ipnet::Ipv4Net;
use serde_json::Value;

/// What was found of filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filters {
    pub(super) chains: Vec<Chain>,
    /// Why nftables could not be looked at.
    pub(super) not_looked: Option<String>,
    /// The old iptables, whose rules are not looked at, has tables.
    pub(super) legacy: bool,
    /// Connections that nf_conntrack follows in this namespace, and its limit; None: it is not there.
    pub(super) conntrack: Option<(u64, u64)>,
}

/// A chain of nftables.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    /// Its rules are asked only for what begins a connection.
    pub(super) nat: bool,
    /// Where packets come from; None: from other chains.
    pub(super) hook: Option<String>,
    /// What is not decided is dropped.
    pub(super) drops: bool,
    /// The expressions of each rule.
    pub(super) rules: Vec<Vec<Value>>,
}

/// A packet as far as rules may ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet<'a> {
    pub(super) iif: Option<&'a str>,
    pub(super) oif: Option<&'a str>,
    pub(super) from: Option<Ipv4Addr>,
    pub(super) to: Option<Ipv4Addr>,
    /// `tcp` or `udp`.
    pub(super) protocol: Option<&'a str>,
    /// At the destination.
    pub(super) port: Option<u16>,
    /// It belongs to a connection that the other side has begun.
    pub(super) reply: bool,
}

/// What becomes of a packet in one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Passes,
    Dropped,
    /// Its address is rewritten.
    Rewritten,
    /// Perhaps one, perhaps the other.
    Unsure,
}

impl Filters {
    /// Looks; needs root for most of it.
    pub(super) fn look() -> Self {
        let number = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse::<u64>().ok()
        };
        let conntrack = number("nf_conntrack_count").zip(number("nf_conntrack_max"));
        let legacy = fs::read_to_string("/proc/thread-self/net/ip_tables_names")
            .is_ok_and(|names| names.split_whitespace().any(|name| ["filter", "nat"].contains(&name)));
        let mut filters = Self { legacy, conntrack, ..Self::default() };
        match Command::new("nft").args(["-j", "list", "ruleset"]).output() {
            Ok(output) if output.status.success() => match parse(&String::from_utf8_lossy(&output.stdout)) {
                Some(chains) => filters.chains = chains,
                None => filters.not_looked = Some("nft says something that is not understood".into()),
            },
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                filters.not_looked = Some(format!("nft: {}", said.lines().next().unwrap_or("failed").trim()));
            }
            Err(error) => filters.not_looked = Some(format!("nft cannot be started ({error})")),
        }
        filters
    }

    /// The chains at a hook that do not simply let a packet pass.
    pub(super) fn obstacles(&self, hook: &str, packet: &Packet<'_>) -> Vec<(&Chain, Fate)> {
        let chains = self.chains.iter().filter(|chain| {
            chain.hook.as_deref() == Some(hook)
                && ["ip", "inet"].contains(&chain.family.as_str())
                && !(chain.nat && packet.reply)
        });
        chains
            .map(|chain| (chain, self.fate(chain, packet)))
            .filter(|(_, fate)| *fate != Fate::Passes)
            .collect()
    }

    fn fate(&self, chain: &Chain, packet: &Packet<'_>) -> Fate {
        let walked = self.walk(chain, packet, 0);
        match walked.end {
            Some(End::Accept) => Fate::Passes,
            Some(End::Rewrite) => Fate::Rewritten,
            Some(End::Drop) if walked.unsure => Fate::Unsure,
            Some(End::Drop) => Fate::Dropped,
            None if !chain.drops => {
                if walked.unsure_rewrite {
                    Fate::Unsure
                } else {
                    Fate::Passes
                }
            }
            None if walked.unsure => Fate::Unsure,
            None => Fate::Dropped,
        }
    }

    fn walk(&self, chain: &Chain, packet: &Packet<'_>, depth: usize) -> Walked {
        let mut walked = Walked::default();
        // The kernel allows 16 jumps.
        if depth > 16 {
            return Walked { unsure: true, ..walked };
        }
        for rule in &chain.rules {
            let truth = truth(rule, packet);
            if truth == Truth::No {
                continue;
            }
            match (statement(rule), truth) {
                (Statement::None, _) => {}
                (Statement::Return, Truth::Yes) => return walked,
                (Statement::End(end), Truth::Yes) => return Walked { end: Some(end), ..walked },
                (Statement::End(end), _) => {
                    walked.unsure = true;
                    walked.unsure_rewrite |= end == End::Rewrite;
                }
                (Statement::Return, _) => walked.unsure = true,
                (Statement::To { name, back }, _) => {
                    let target = self.chains.iter().find(|other| {
                        (&other.family, &other.table, other.name.as_str())
                            == (&chain.family, &chain.table, name)
                    });
                    let below = target.map(|target| self.walk(target, packet, depth + 1)).unwrap_or_default();
                    walked.unsure |= below.unsure || (truth == Truth::Maybe && below.end.is_some());
                    walked.unsure_rewrite |= below.unsure_rewrite;
                    if truth == Truth::Yes && (below.end.is_some() || !back) {
                        return Walked { end: below.end, ..walked };
                    }
                    walked.unsure_rewrite |= below.end == Some(End::Rewrite);
                }
            }
        }
        walked
    }
}

/// What has come of a chain.
#[derive(Clone, Copy, Debug, Default)]
struct Walked {
    end: Option<End>,
    /// A rule may have ended it earlier.
    unsure: bool,
    unsure_rewrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    Rewrite,
}

/// What a rule does in the end.
enum Statement<'a> {
    /// It counts, logs and the like.
    None,
    Return,
    End(End),
    To {
        name: &'a str,
        back: bool,
    },
}

fn statement(rule: &[Value]) -> Statement<'_> {
    for expression in rule {
        let Some((word, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        let target = || value.get("target").and_then(Value::as_str).unwrap_or_default();
        match word.as_str() {
            "accept" => return Statement::End(End::Accept),
            "drop" | "reject" | "queue" => return Statement::End(End::Drop),
            "masquerade" | "snat" | "dnat" | "redirect" => return Statement::End(End::Rewrite),
            "return" => return Statement::Return,
            "jump" => return Statement::To { name: target(), back: true },
            "goto" => return Statement::To { name: target(), back: false },
            _ => {}
        }
    }
    Statement::None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

impl From<Option<bool>> for Truth {
    fn from(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Maybe,
        }
    }
}

fn truth(rule: &[Value], packet: &Packet<'_>) -> Truth {
    let mut all = Truth::Yes;
    for expression in rule {
        let one = match (expression.get("match"), expression.get("limit"), expression.get("xt")) {
            (Some(one), _, _) => matches(one, packet),
            (None, None, None) => continue,
            (None, _, _) => Truth::Maybe,
        };
        match one {
            Truth::No => return Truth::No,
            Truth::Maybe => all = Truth::Maybe,
            Truth::Yes => {}
        }
    }
    all
}

fn matches(one: &Value, packet: &Packet<'_>) -> Truth {
    let (left, right) = (&one["left"], &one["right"]);
    let key = |what: &str, of: &str| left.get(what).and_then(|object| object.get(of)).and_then(Value::as_str);
    let known =
        match (key("meta", "key"), key("payload", "protocol"), key("payload", "field"), key("ct", "key")) {
            (Some("iifname" | "iif"), ..) => {
                packet.iif.and_then(|name| is_among(right, &|value| is_name(value, name)))
            }
            (Some("oifname" | "oif"), ..) => {
                packet.oif.and_then(|name| is_among(right, &|value| is_name(value, name)))
            }
            (Some("l4proto"), ..) | (_, Some("ip"), Some("protocol"), _) => packet
                .protocol
                .and_then(|protocol| is_among(right, &|value| value.as_str().map(|word| word == protocol))),
            (_, Some("ip"), Some("saddr"), _) => {
                packet.from.and_then(|address| is_among(right, &|value| is_address(value, address)))
            }
            (_, Some("ip"), Some("daddr"), _) => {
                packet.to.and_then(|address| is_among(right, &|value| is_address(value, address)))
            }
            (_, Some(protocol @ ("tcp" | "udp")), field, _) => match packet.protocol {
                Some(other) if other != protocol => return Truth::No,
                Some(_) if field == Some("dport") => {
                    packet.port.and_then(|port| is_among(right, &|value| is_port(value, port)))
                }
                Some(_) | None => None,
            },
            (.., Some("state")) => {
                let state = if packet.reply { "established" } else { "new" };
                is_among(right, &|value| value.as_str().map(|word| word == state))
            }
            _ => None,
        };
    let negated = one.get("op").and_then(Value::as_str) == Some("!=");
    known.map(|known| known != negated).into()
}

/// Whether one of the values fits; None: cannot be told.
fn is_among(right: &Value, fits: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
    let set = right.get("set").unwrap_or(right);
    match set.as_array() {
        Some(values) => {
            let each: Vec<Option<bool>> = values.iter().map(fits).collect();
            if each.contains(&Some(true)) {
                Some(true)
            } else if each.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        None => fits(set),
    }
}

fn is_name(value: &Value, name: &str) -> Option<bool> {
    let word = value.as_str()?;
    match (word.strip_prefix('@'), word.strip_suffix('*')) {
        (Some(_), _) => None,
        (None, Some(stem)) => Some(name.starts_with(stem)),
        (None, None) => Some(word == name),
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

/// The chains in what `nft -j list ruleset` prints.
pub(super) fn parse(text: &str) -> Option<Vec<Chain>> {
    let whole: Value = serde_json::from_str(text).ok()?;
    let text_of = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut chains: Vec<Chain> = Vec::new();
    for item in whole.get("nftables")?.as_array()? {
        if let Some(chain) = item.get("chain") {
            chains.push(Chain {
                family: text_of(chain, "family")?,
                table: text_of(chain, "table")?,
                name: text_of(chain, "name")?,
                nat: text_of(chain, "type").as_deref() == Some("nat"),
                hook: text_of(chain, "hook"),
                drops: text_of(chain, "policy").as_deref() == Some("drop"),
                rules: Vec::new(),
            });
        } else if let Some(rule) = item.get("rule") {
            let of = |chain: &&mut Chain| {
                Some((&chain.family, &chain.table, &chain.name))
                    == text_of(rule, "family")
                        .as_ref()
                        .zip(text_of(rule, "table").as_ref())
                        .zip(text_of(rule, "chain").as_ref())
                        .map(|((family, table), name)| (family, table, name))
            };
            if let Some(chain) = chains.iter_mut().find(of) {
                chain.rules.push(rule.get("expr")?.as_array()?.clone());
            }
        }
    }
    Some(chains)
}

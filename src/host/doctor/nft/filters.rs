//! What the host's own filters do with a packet: nftables (iptables-nft is the same), as far as its rules tell.
//!
//! Rules are followed for the first packet of a connection, or for the first answer. What cannot be told (a set by name, a limit, a match
//! that is not known here) makes the outcome unsure. [`crate::host::doctor::nft::rules`] knows what a single rule says.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::Value;

use crate::host::doctor::Finding;
use crate::host::doctor::nft::rules::{End, MatchResult, RuleVerdict, uses_tracking, verdicts};

/// What was found of filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filters {
    pub(crate) chains: Vec<Chain>,
    /// Why nftables could not be looked at.
    pub(crate) not_looked: Option<String>,
    /// The old iptables, whose rules are not looked at, has tables.
    pub(crate) legacy: bool,
    /// Connections that nf_conntrack follows in this namespace, and its limit; None: it is not there.
    pub(crate) conntrack: Option<(u64, u64)>,
}

/// A chain of nftables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chain {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Its rules are asked only for what begins a connection.
    pub(crate) nat: bool,
    /// Where packets come from; None: from other chains.
    pub(crate) hook: Option<String>,
    /// Lower comes first.
    pub(crate) priority: i64,
    /// Of the hooks of devices; None: it is not said.
    pub(crate) devices: Option<Vec<String>>,
    /// What is not decided is dropped.
    pub(crate) drops: bool,
    pub(crate) rules: Vec<Rule>,
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// In the whole ruleset.
    number: usize,
    pub(crate) expressions: Vec<Value>,
}

/// A packet as far as rules may ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packet<'a> {
    pub(crate) iif: Option<&'a str>,
    pub(crate) oif: Option<&'a str>,
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) to: Option<Ipv4Addr>,
    /// `tcp`, `udp` or `icmp`.
    pub(crate) protocol: Option<&'a str>,
    /// At the destination.
    pub(crate) port: Option<u16>,
    pub(crate) source_port: Option<u16>,
    /// It belongs to a connection that the other side has begun.
    pub(crate) reply: bool,
    pub(crate) followed: Tracking,
}

/// Whether connection tracking follows a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tracking {
    #[default]
    Tracked,
    Untracked,
    Unknown,
}

/// What becomes of a packet in one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterOutcome {
    Passes,
    Dropped,
    /// Its address is rewritten.
    Rewritten,
    /// Perhaps one, perhaps the other.
    Unsure,
}

impl Filters {
    /// Looks; needs root for most of it.
    pub(crate) fn look() -> Self {
        let number = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        let conntrack = number("nf_conntrack_count").zip(number("nf_conntrack_max"));
        let legacy =
            fs::read_to_string("/proc/thread-self/net/ip_tables_names").is_ok_and(|names| {
                names.split_whitespace().any(|name| ["filter", "nat"].contains(&name))
            });
        let mut filters = Self { legacy, conntrack, ..Self::default() };
        match Command::new("nft").args(["-j", "list", "ruleset"]).output() {
            Ok(output) if output.status.success() => {
                match parse(&String::from_utf8_lossy(&output.stdout)) {
                    Some(chains) => filters.chains = chains,
                    None => {
                        filters.not_looked =
                            Some("nft says something that is not understood".into())
                    }
                }
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                filters.not_looked =
                    Some(format!("nft: {}", said.lines().next().unwrap_or("failed").trim()));
            }
            Err(error) => filters.not_looked = Some(format!("nft cannot be started ({error})")),
        }
        filters
    }

    /// The chains at a hook that do not simply let a packet pass. `doubts` takes the numbers of rules that may drop it, by what cannot
    /// be told here.
    pub(crate) fn ask(
        &self,
        hook: &str,
        packet: &Packet<'_>,
        doubts: &mut BTreeSet<usize>,
    ) -> Vec<(&Chain, FilterOutcome)> {
        let mut obstacles = Vec::new();
        let late = self.followed(packet);
        for chain in self.at(hook) {
            // Before that priority nothing is known of connections yet.
            let early =
                chain.priority <= CONNECTION_TRACKING || ["ingress", "egress"].contains(&hook);
            let followed = if early { Tracking::Unknown } else { late };
            // What is not tracked is not translated, and an answer does not begin a connection.
            if chain.nat && (packet.reply || followed == Tracking::Untracked) {
                continue;
            }
            let Some(is_there) = chain.is_at(hook, packet) else { continue };
            match self.fate(chain, &Packet { followed, ..packet.clone() }, doubts) {
                FilterOutcome::Passes => {}
                _ if !is_there => obstacles.push((chain, FilterOutcome::Unsure)),
                fate @ (FilterOutcome::Dropped
                | FilterOutcome::Rewritten
                | FilterOutcome::Unsure) => obstacles.push((chain, fate)),
            }
        }
        obstacles
    }

    fn at(&self, hook: &str) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |chain| {
            chain.hook.as_deref() == Some(hook)
                && ["ip", "inet", "netdev"].contains(&chain.family.as_str())
        })
    }

    /// Whether the connection that a packet belongs to is tracked, if anything is.
    pub(crate) fn followed(&self, packet: &Packet<'_>) -> Tracking {
        let (hook, packet) = match packet.iif {
            Some(_) => ("prerouting", Packet { oif: None, ..packet.clone() }),
            None => ("output", packet.clone()),
        };
        let packet = Packet { followed: Tracking::Unknown, ..packet };
        let mut followed = Tracking::Tracked;
        for chain in self.at(hook).filter(|chain| chain.priority < CONNECTION_TRACKING) {
            match self.walk(chain, &packet, 0).untracked {
                MatchResult::Yes => return Tracking::Untracked,
                MatchResult::Maybe => followed = Tracking::Unknown,
                MatchResult::No => {}
            }
        }
        followed
    }

    fn fate(
        &self,
        chain: &Chain,
        packet: &Packet<'_>,
        doubts: &mut BTreeSet<usize>,
    ) -> FilterOutcome {
        let walked = self.walk(chain, packet, 0);
        let fate = match walked.end {
            Some(End::Rewrite) => FilterOutcome::Rewritten,
            Some(End::Drop) if walked.unsure => FilterOutcome::Unsure,
            Some(End::Drop) => FilterOutcome::Dropped,
            None if chain.drops && walked.unsure => FilterOutcome::Unsure,
            None if chain.drops => FilterOutcome::Dropped,
            Some(End::Accept) | None if walked.grave => FilterOutcome::Unsure,
            Some(End::Accept) | None => FilterOutcome::Passes,
        };
        if fate == FilterOutcome::Passes {
            doubts.extend(walked.may_drop);
        }
        fate
    }

    fn walk(&self, chain: &Chain, packet: &Packet<'_>, depth: usize) -> ChainOutcome {
        let mut walked = ChainOutcome::default();
        // The kernel allows 16 jumps.
        if depth > 16 {
            return ChainOutcome { unsure: true, grave: true, ..walked };
        }
        for rule in &chain.rules {
            for (verdict, truth) in verdicts(&rule.expressions, packet) {
                match (verdict, truth) {
                    (_, MatchResult::No) => {}
                    (RuleVerdict::Untrack, _) => walked.untrack(truth),
                    (RuleVerdict::Unknown, _) => (walked.unsure, walked.grave) = (true, true),
                    (RuleVerdict::Return, MatchResult::Yes) => return walked,
                    (RuleVerdict::Return, MatchResult::Maybe) => walked.unsure = true,
                    (RuleVerdict::End(end), MatchResult::Yes) => {
                        return ChainOutcome { end: Some(end), ..walked };
                    }
                    (RuleVerdict::End(end), MatchResult::Maybe) => walked.perhaps(end, rule.number),
                    (RuleVerdict::To { name, back }, _) => {
                        let below = self
                            .target(chain, name)
                            .map(|target| self.walk(target, packet, depth + 1));
                        let below = below.unwrap_or_default();
                        walked.unsure |= below.unsure;
                        walked.grave |= below.grave;
                        walked.may_drop.extend(below.may_drop.iter().copied());
                        match below.untracked {
                            MatchResult::Yes => walked.untrack(truth),
                            MatchResult::Maybe => walked.untrack(MatchResult::Maybe),
                            MatchResult::No => {}
                        }
                        match (truth, below.end) {
                            (MatchResult::Yes, end) if end.is_some() || !back => {
                                return ChainOutcome { end, ..walked };
                            }
                            (MatchResult::Maybe, Some(end)) => walked.perhaps(end, rule.number),
                            (_, _) => {}
                        }
                    }
                }
            }
        }
        walked
    }

    fn target(&self, from: &Chain, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|other| {
            (&other.family, &other.table, other.name.as_str()) == (&from.family, &from.table, name)
        })
    }

    /// Whether rules have connections tracked, and whether some rule asks about them.
    pub(crate) fn tracking(&self) -> (bool, bool) {
        let of_ip =
            || self.chains.iter().filter(|chain| ["ip", "inet"].contains(&chain.family.as_str()));
        let mut expressions =
            of_ip().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions);
        let asks = expressions.any(uses_tracking);
        (asks || of_ip().any(|chain| chain.nat), asks)
    }
}

impl Chain {
    /// Whether the packets of a device come here; None: they do not, and false: perhaps.
    fn is_at(&self, hook: &str, packet: &Packet<'_>) -> Option<bool> {
        let device = match hook {
            "ingress" => packet.iif,
            "egress" => packet.oif,
            _ => return Some(true),
        };
        match (&self.devices, device) {
            (Some(devices), Some(device)) => {
                devices.iter().any(|name| name == device).then_some(true)
            }
            (None, _) | (_, None) => Some(false),
        }
    }
}

/// Priority at which connections are looked up (`NF_IP_PRI_CONNTRACK`).
const CONNECTION_TRACKING: i64 = -200;

/// What has come of a chain.
#[derive(Clone, Debug, Default)]
struct ChainOutcome {
    end: Option<End>,
    /// A rule may have ended it earlier.
    unsure: bool,
    /// A rule may have rewritten it, or done what nobody knows.
    grave: bool,
    /// RoutingIds of the rules that may have dropped it.
    may_drop: BTreeSet<usize>,
    untracked: MatchResult,
}

impl ChainOutcome {
    fn perhaps(&mut self, end: End, rule: usize) {
        self.unsure = true;
        match end {
            End::Accept => {}
            End::Drop => drop(self.may_drop.insert(rule)),
            End::Rewrite => self.grave = true,
        }
    }

    fn untrack(&mut self, truth: MatchResult) {
        let truth = if self.unsure { MatchResult::Maybe } else { truth };
        if self.untracked != MatchResult::Yes {
            self.untracked = truth;
        }
    }
}

/// What is thought of rules that could not be looked at.
pub(crate) fn not_looked_at(filters: &Filters) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(why) = &filters.not_looked {
        findings.push(
            Finding::warning(
                "firewall",
                format!("the rules of nftables were not looked at: {why}"),
                "a rule may drop or rewrite packets",
            )
            .advice("run it as root, with nftables installed"),
        );
    }
    if filters.legacy {
        findings.push(
            Finding::warning(
                "firewall",
                "the old iptables has tables here, whose rules were not looked at",
                "a rule may drop or rewrite packets",
            )
            .advice("see: iptables-legacy-save"),
        );
    }
    findings
}

/// What is said where no rule is an obstacle. `doubts`: the rules of which it cannot be told.
pub(crate) fn no_obstacle(filters: &Filters, doubts: &BTreeSet<usize>) -> Option<Finding> {
    if filters.not_looked.is_some() {
        return None;
    }
    let found = match doubts.len() {
        0 => "no rule of nftables is in the way".to_owned(),
        count => format!(
            "no rule of nftables drops or rewrites all of what has to pass; {count} may drop some of it, by what cannot be told here \
             (who sends it, how much, marks)"
        ),
    };
    Some(Finding::ok("firewall", found))
}

/// The chains in what `nft -j list ruleset` prints.
pub(crate) fn parse(text: &str) -> Option<Vec<Chain>> {
    let whole: Value = serde_json::from_str(text).ok()?;
    let text_of =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut chains: Vec<Chain> = Vec::new();
    for (number, item) in whole.get("nftables")?.as_array()?.iter().enumerate() {
        if let Some(chain) = item.get("chain") {
            chains.push(Chain {
                family: text_of(chain, "family")?,
                table: text_of(chain, "table")?,
                name: text_of(chain, "name")?,
                nat: text_of(chain, "type").as_deref() == Some("nat"),
                hook: text_of(chain, "hook"),
                priority: chain.get("prio").and_then(Value::as_i64).unwrap_or(0),
                devices: chain.get("dev").map(names),
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
                chain
                    .rules
                    .push(Rule { number, expressions: rule.get("expr")?.as_array()?.clone() });
            }
        }
    }
    Some(chains)
}

/// One name or several.
fn names(value: &Value) -> Vec<String> {
    let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    several.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

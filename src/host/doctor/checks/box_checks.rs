//! What is thought of the host of a box.

use std::net::Ipv4Addr;

use super::{box_firewall, conntrack};
use crate::config::MssClamp;
use crate::host::doctor::facts::box_facts::{BoxFacts, Passage, State};
use crate::host::doctor::facts::links::{Leg, offload_checks};
use crate::host::doctor::nft::filters::not_looked_at;
use crate::host::doctor::{Finding, Severity};
use crate::host::error::HostError;
use crate::host::kernel::route_lookup::{NeighbourState, RouteResult};
use crate::host::model::snapshot::FoundRule;
use crate::host::model::steps::{Rule, Step};
use crate::host::render::plan::{command, rule_words};

/// An interface is missing or down, so nothing else was looked at.
pub(crate) fn missing_interface(error: &HostError) -> Finding {
    let why = "without it nothing passes, and nothing else was looked at";
    let finding = Finding::error("interface", error.to_string(), why);
    if let HostError::InterfaceDown { name, .. } = error {
        finding.fix([format!("ip link set {name} up")])
    } else {
        finding
    }
}

pub(crate) fn evaluate(seen: &BoxFacts) -> Vec<Finding> {
    let mut findings = configuration(seen);
    let bare = bare_lines(seen);
    // The settings that fit such a line are others than those that fit it with its address.
    let comparable = bare.is_empty();
    findings.extend(bare);
    let complete = findings.iter().all(|finding| finding.severity != Severity::Error);
    if seen.runs && comparable {
        let steps = steps(seen);
        let sound = steps.is_empty();
        findings.extend(steps);
        if sound {
            findings.push(Finding::ok(
                "host",
                format!("all {} settings of the host are in place", seen.steps.len()),
            ));
        }
        findings.extend(assigned_since_start(seen));
        // A leg without its address explains wrong ways, too.
        findings.extend(passages(seen, sound && complete));
    }
    findings.extend(mtu(seen));
    findings.extend(offload_checks(&seen.legs, true));
    findings.push(conntrack::of_box(seen));
    findings.extend(not_looked_at(&seen.filters));
    findings.extend(box_firewall::evaluate(seen));
    findings.extend(gateways(seen));
    findings.extend(taken(seen));
    findings
}

/// What is missing, a finding for each kind.
fn steps(seen: &BoxFacts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for kind in KINDS {
        let of_kind: Vec<&(Step, State)> =
            seen.steps.iter().filter(|(step, _)| Kind::of(step) == kind).collect();
        let wrong: Vec<&(Step, State)> =
            of_kind.iter().copied().filter(|(step, state)| !is_good(seen, step, state)).collect();
        let unknown = wrong.iter().filter_map(|(_, state)| match state {
            State::Unknown(why) => Some(why),
            State::InPlace | State::Missing(_) | State::InTheWay(_) => None,
        });
        if let Some(why) = unknown.clone().next() {
            findings.push(Finding::warning(kind.id(), format!("not looked at: {why}"), kind.why()));
        }
        let wrong: Vec<_> =
            wrong.into_iter().filter(|(_, state)| !matches!(state, State::Unknown(_))).collect();
        if wrong.is_empty() {
            continue;
        }
        let shown: Vec<String> =
            wrong.iter().take(MOST_SHOWN).map(|(step, state)| found(step, state)).collect();
        let more = if wrong.len() > MOST_SHOWN {
            format!("; and {} more", wrong.len() - MOST_SHOWN)
        } else {
            String::new()
        };
        let text = format!(
            "{} of {}: {}{more}",
            wrong.len(),
            kind.of_many(of_kind.len()),
            shown.join("; ")
        );
        let severe = wrong.iter().any(|(step, _)| is_severe(step));
        let make = if severe { Finding::error } else { Finding::warning };
        findings.push(
            make(kind.id(), text, kind.why().to_owned())
                .fix(wrong.iter().map(|(step, _)| command(step))),
        );
    }
    findings
}

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tun,
    Rule,
    Route,
    Sysctl,
    Proxy,
}

/// The device first: what hangs on it can be set only then.
const KINDS: [Kind; 5] = [Kind::Tun, Kind::Route, Kind::Rule, Kind::Sysctl, Kind::Proxy];
const MOST_SHOWN: usize = 3;

impl Kind {
    fn of(step: &Step) -> Self {
        match step {
            Step::BringUpTun { .. } | Step::Address { .. } => Self::Tun,
            Step::Sysctl { .. } => Self::Sysctl,
            Step::Route(_) => Self::Route,
            Step::Rule(_) | Step::RemoveDefaultLocalRule => Self::Rule,
            Step::ProxyNeighbour { .. } => Self::Proxy,
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Rule => "rules",
            Self::Route => "routes",
            Self::Sysctl => "sysctls",
            Self::Proxy => "proxy-arp",
        }
    }

    fn of_many(self, count: usize) -> String {
        match self {
            Self::Tun => format!("{count} settings of the TUN are missing or different"),
            Self::Rule => format!("{count} rules are missing"),
            Self::Route => format!("{count} routes are missing or different"),
            Self::Sysctl => format!("{count} sysctls have another value"),
            Self::Proxy => format!("{count} proxy entries are missing"),
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Tun => {
                "all packets go through the TUN, whole, and the kernel's errors about them carry its address"
            }
            Self::Rule => {
                "the rules take packets to natbox and replies to their line, and keep the outside from passing it by"
            }
            Self::Route => {
                "the rules lead to tables with these routes; without one packets are lost or leave untranslated"
            }
            Self::Sysctl => {
                "with other values the kernel does not forward, or drops packets whose source it finds strange"
            }
            Self::Proxy => {
                "nobody answers ARP for the published address, so the line's router cannot deliver to it"
            }
        }
    }
}

/// A filter of sources that is off is as good as a loose one, and what counts is the greater of two values.
fn is_good(seen: &BoxFacts, step: &Step, state: &State) -> bool {
    match (step, state) {
        (_, State::InPlace) => true,
        (Step::Sysctl { path, .. }, State::Missing(Some(found)))
            if path.ends_with("/rp_filter") =>
        {
            found.parse().unwrap_or(0).max(seen.facts.rp_filter_all) != STRICT
        }
        (_, State::Missing(_) | State::InTheWay(_) | State::Unknown(_)) => false,
    }
}

/// Value of rp_filter: a source must be reached by the interface that the packet came in by.
pub(crate) const STRICT: u8 = 1;

fn is_severe(step: &Step) -> bool {
    match step {
        Step::Sysctl { path, optional, .. } => !optional && !path.ends_with("/proxy_delay"),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Route(_)
        | Step::Rule(_)
        | Step::ProxyNeighbour { .. }
        | Step::RemoveDefaultLocalRule => true,
    }
}

fn found(step: &Step, state: &State) -> String {
    match (step, state) {
        (Step::Sysctl { path, value, .. }, State::Missing(found)) => {
            format!("{} is {}, not {value}", path, found.as_deref().unwrap_or("not there"))
        }
        (Step::RemoveDefaultLocalRule, _) => {
            "the kernel's rule of local addresses is asked first".into()
        }
        (_, State::InTheWay(other)) => {
            format!("`{other}` stands where `{}` belongs", command(step))
        }
        (_, _) => format!("`{}`", command(step)),
    }
}

fn assigned_since_start(seen: &BoxFacts) -> Option<Finding> {
    (!seen.assigned_since_start.is_empty()).then(|| {
        let addresses: Vec<String> =
            seen.assigned_since_start.iter().map(Ipv4Addr::to_string).collect();
        Finding::error(
            "owned-address",
            format!("{} became the host's own after natbox had started", addresses.join(", ")),
            "the host takes packets for its own addresses before natbox sees them",
        )
        .advice(format!(
            "restart natbox {}, or take the address away from the host",
            seen.config.name
        ))
    })
}

/// Ways that differ though every setting is in place.
fn passages(seen: &BoxFacts, sound: bool) -> Vec<Finding> {
    let wrong: Vec<&Passage> =
        seen.passages.iter().filter(|passage| !goes_right(passage)).collect();
    if wrong.is_empty() {
        let text = format!(
            "packets take the {} ways through natbox that they should",
            seen.passages.len()
        );
        return if seen.passages.is_empty() { Vec::new() } else { vec![Finding::ok("path", text)] };
    }
    // Then that is what is wrong with them.
    if !sound {
        return Vec::new();
    }
    let shown = wrong.iter().take(MOST_SHOWN).map(|passage| {
        let Passage { what, question, way, device, .. } = passage;
        let by = question.by.as_deref().unwrap_or("lo");
        format!(
            "{what} ({} to {}, in by {by}, wanted out by {device}) {way}",
            question.from, question.to
        )
    });
    let finding = Finding::error(
        "path",
        shown.collect::<Vec<_>>().join("; "),
        "the kernel takes these packets elsewhere than natbox needs them",
    );
    if seen.foreign.is_empty() {
        return vec![finding.advice("see: ip rule show; ip route show table all")];
    }
    let last = seen.steps.iter().filter_map(|(step, _)| match step {
        Step::Rule(rule) => Some(rule.priority),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Sysctl { .. }
        | Step::Route(_)
        | Step::ProxyNeighbour { .. }
        | Step::RemoveDefaultLocalRule => None,
    });
    let behind = last.max().unwrap_or(0) + 1;
    let rules: Vec<String> = seen.foreign.iter().map(|found| words(&found.rule)).collect();
    let mut commands = Vec::new();
    // What comes out of the TUN for the inside goes by the main table.
    let (tun, inside) = (&seen.config.tun.name, &seen.config.inside.interface);
    if wrong
        .iter()
        .any(|passage| passage.question.by.as_ref() == Some(tun) && passage.device == *inside)
    {
        let prefixes = seen.config.inside.prefixes.iter();
        commands.extend(
            prefixes
                .map(|to| format!("ip rule add priority {behind} to {to} iif {tun} lookup main")),
        );
    }
    let before = seen.foreign.iter().filter(|found| !found.more && found.rule.priority < behind);
    commands.extend(before.flat_map(|found| moved(found, behind)));
    let advice = format!(
        "rules of others are asked first ({}); they have to spare natbox's interfaces",
        rules.join("; ")
    );
    vec![finding.advice(advice).fix(commands)]
}

fn goes_right(passage: &Passage) -> bool {
    match &passage.way {
        RouteResult::Unicast { device, via } => {
            *device == passage.device && passage.via.is_none_or(|wanted| *via == Some(wanted))
        }
        RouteResult::Local | RouteResult::Dropped(_) => false,
    }
}

fn words(rule: &Rule) -> String {
    format!("priority {} {}", rule.priority, rule_words(rule))
}

/// A rule of somebody else's behind ours: added there first, so that it is never missing.
fn moved(found: &FoundRule, behind: u32) -> [String; 2] {
    let moved = Rule { priority: behind + found.rule.priority, ..found.rule.clone() };
    [format!("ip rule add {}", words(&moved)), format!("ip rule del {}", words(&found.rule))]
}

fn mtu(seen: &BoxFacts) -> Vec<Finding> {
    let Some((inside, outside)) = seen.legs.split_first() else { return Vec::new() };
    let smaller: Vec<&Leg> = outside.iter().filter(|leg| leg.mtu < inside.mtu).collect();
    let tiny: Vec<&Leg> = seen.legs.iter().filter(|leg| leg.mtu < SMALLEST_MTU).collect();
    let text = |legs: &[&Leg]| {
        legs.iter()
            .map(|leg| format!("{} has MTU {}", leg.interface, leg.mtu))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut findings = Vec::new();
    if !tiny.is_empty() {
        let why = format!(
            "less than {SMALLEST_MTU} is hardly ever meant: much of the Internet does not cope with it"
        );
        let commands = tiny.iter().map(|leg| format!("ip link set dev {} mtu 1500", leg.interface));
        findings.push(Finding::warning("mtu", text(&tiny), why).fix(commands));
    }
    let clamp = match seen.config.nat.mss_clamp {
        MssClamp::Off => outside.iter().map(|leg| leg.mtu).min().filter(|mtu| *mtu < inside.mtu),
        MssClamp::To(mss) => outside
            .iter()
            .map(|leg| leg.mtu)
            .min()
            .filter(|mtu| u32::from(mss) + TCP_HEADERS > *mtu),
        MssClamp::Auto => None,
    };
    if let Some(mtu) = clamp {
        findings.push(
            Finding::warning(
                "mtu",
                format!("{}, {} has {}, and nat.mss_clamp does not fit {mtu}", text(&smaller), inside.interface, inside.mtu),
                "connections agree on segments that are too long for the line, and hang where ICMP errors get lost",
            )
            .advice("set nat.mss_clamp: auto, then: natbox reload"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("mtu", text(&seen.legs.iter().collect::<Vec<_>>())));
    }
    findings
}

/// What every IPv6 link carries (RFC 8200), and every IPv4 one in practice.
pub(crate) const SMALLEST_MTU: u32 = 1280;
/// Of IPv4 and TCP without options.
pub(crate) const TCP_HEADERS: u32 = 40;

fn gateways(seen: &BoxFacts) -> Vec<Finding> {
    let lines = seen.config.uplinks.iter().zip(&seen.gateways);
    let mut findings = Vec::new();
    for (uplink, gateway) in lines {
        let Some((gateway, answers)) = gateway else { continue };
        let (name, interface) = (&uplink.name, &uplink.interface);
        let see = format!(
            "is the line's router on, its cable in, and uplinks.gateway its address? See: ip neighbour show dev {interface}"
        );
        findings.push(match answers {
            Some(NeighbourState::Reachable) => Finding::ok("gateway", format!("{name}: {gateway} answers on {interface}")),
            Some(NeighbourState::Failed) | None => Finding::error(
                "gateway",
                format!("{name}: nobody answers for the gateway {gateway} on {interface}"),
                "nothing leaves by this line",
            )
            .advice(see),
            Some(NeighbourState::Unconfirmed) => Finding::warning(
                "gateway",
                format!("{name}: whether the gateway {gateway} answers on {interface} cannot be told: it is still being asked"),
                "if it does not, nothing leaves by this line",
            )
            .advice(see),
        });
    }
    findings
}

fn taken(seen: &BoxFacts) -> Vec<Finding> {
    let theirs =
        seen.taken.iter().filter(|(.., somebody)| *somebody).map(|(address, interface, _)| {
            Finding::error(
            "duplicate-address",
            format!("somebody else on {interface} answers for {address}, which natbox publishes"),
            "the line's router delivers to whoever answers last",
        )
        .advice(format!(
            "find the machine by its hardware address: ip neighbour show {address} dev {interface}"
        ))
        });
    let findings: Vec<Finding> = theirs.collect();
    match (seen.taken.len(), findings.is_empty()) {
        (0, _) | (_, false) => findings,
        (count, true) => vec![Finding::ok(
            "duplicate-address",
            format!("nobody else answers for the {count} addresses that natbox answers for"),
        )],
    }
}

/// What was seen of the configuration; without its inside address nothing works at all.
fn configuration(seen: &BoxFacts) -> Vec<Finding> {
    let each = seen.facts.warnings.iter().map(|warning| {
        if !warning.starts_with("inside.") {
            let why = "what the configuration wants and what the host has do not go together";
            return Finding::warning("configuration", warning, why);
        }
        let why = "the servers' replies and all that leaves the inside goes to this address; without it they ask in vain";
        let finding = Finding::error("configuration", warning, why);
        let inside = &seen.config.inside;
        match inside.address {
            Some(address) => {
                let length = inside.prefix_of(address).map_or(32, |prefix| prefix.prefix_len());
                finding.fix([format!("ip address add {address}/{length} dev {}", inside.interface)])
            }
            None => finding.advice(format!(
                "give it the address that the servers have as their next hop: ip address add ADDRESS/LENGTH dev {}",
                inside.interface
            )),
        }
    });
    each.collect()
}

/// An interface that has lost the address which the file gives it. Where the address follows the interface, the line tells.
fn bare_lines(seen: &BoxFacts) -> Vec<Finding> {
    let legs = seen.facts.uplinks.iter().zip(&seen.facts.assigned_to_host).zip(&seen.facts.on_link);
    let lines = seen.config.uplinks.iter().zip(legs);
    let mut findings = Vec::new();
    for (uplink, ((leg, assigned_to_host), on_link)) in lines {
        let is_bare = leg.takes_routes()
            && leg.arp
            && !leg.assumed
            && leg.address.is_none()
            && !uplink.follows_interface;
        let here = assigned_to_host
            .iter()
            .zip(on_link)
            .map(|(assigned_to_host, on_link)| *assigned_to_host || *on_link);
        let missing: Vec<String> = uplink
            .addresses
            .iter()
            .zip(here)
            .filter(|(_, here)| !here)
            .map(|(address, _)| address.to_string())
            .collect();
        if is_bare && !missing.is_empty() {
            let interface = &leg.interface;
            let found = format!(
                "{interface} has no address, so nobody answers there for {}",
                missing.join(", ")
            );
            findings.push(
                Finding::error("address", found, "the line's router finds nobody to deliver to").advice(format!(
                    "give {interface} its address back, and see what has taken it (its DHCP client, networkd): ip address add \
                     {}/LENGTH dev {interface}",
                    missing[0]
                )),
            );
        }
    }
    findings
}

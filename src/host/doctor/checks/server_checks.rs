//! What is thought of a server behind boxes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::conntrack;
use crate::config::{Config, Forward, MssClamp};
use crate::host::doctor::Finding;
use crate::host::doctor::checks::box_checks::{SMALLEST_MTU, TCP_HEADERS};
use crate::host::doctor::facts::box_facts::protocols;
use crate::host::doctor::facts::first_hop::FirstHop;
use crate::host::doctor::facts::links::offload_checks;
use crate::host::doctor::facts::server_facts::{Line, ServerFacts};
use crate::host::doctor::nft::filters::{FilterOutcome, Packet, no_obstacle, not_looked_at};
use crate::host::kernel::listeners::Listener;
use crate::host::kernel::route_lookup::{NeighbourState, RouteResult};
use crate::host::model::snapshot::FoundRule;
use crate::host::model::steps::{RouteKind, RuleAction, TABLE_LOCAL, TABLE_MAIN};
use crate::host::render::server_plan::server_table;

/// `default` of rt_tables, the last table that the kernel asks.
const TABLE_DEFAULT: u32 = 253;

pub(crate) fn evaluate(seen: &ServerFacts) -> Vec<Finding> {
    if seen.lines.is_empty() {
        return vec![no_server(seen)];
    }
    let mut findings = Vec::new();
    let mut doubts = BTreeSet::new();
    for line in &seen.lines {
        findings.extend(shared(seen, line));
        findings.push(address(seen, line));
        if line.way.is_some() {
            findings.push(replies(seen, line));
            findings.extend(next_hop(seen, line));
            findings.extend(arrival(seen, line));
        }
        findings.extend(services(seen, line));
        findings.extend(firewall(seen, line, &mut doubts));
    }
    if findings.iter().all(|finding| finding.id != "firewall") {
        findings.extend(no_obstacle(&seen.filters, &doubts));
    }
    findings.extend(mtu(seen));
    findings.extend(offload_checks(&seen.legs, false));
    findings.push(conntrack::of_server(&seen.filters));
    findings.extend(not_looked_at(&seen.filters));
    findings
}

fn no_server(seen: &ServerFacts) -> Finding {
    let addresses: Vec<String> = seen.servers.iter().map(Ipv4Addr::to_string).collect();
    let found = match addresses.is_empty() {
        true => "the configurations forward to nobody".to_owned(),
        false => {
            format!("none of the servers' addresses ({}) is on this machine", addresses.join(", "))
        }
    };
    Finding::error("server", found, "there is nothing to look at")
        .advice("run it on the server, with the configurations of all its boxes")
}

impl ServerFacts {
    fn through(&self, line: &Line) -> &Config {
        &self.configs[line.through]
    }

    fn expected(&self, line: &Line) -> Option<Ipv4Addr> {
        self.through(line).inside.address
    }

    /// Replies are told apart by their source; behind a single box there is nothing to tell.
    fn policy_routing(&self) -> bool {
        self.configs.len() > 1
    }

    /// The private network of an address.
    fn network(&self, line: &Line) -> Ipv4Net {
        self.through(line).inside.prefix_of(line.address).unwrap_or(Ipv4Net::from(line.address))
    }

    /// The interface that has the address, or should have it.
    fn interface(&self, line: &Line) -> String {
        let network = self.network(line);
        let beside = || {
            let lines = self.lines.iter().filter(|other| self.network(other) == network);
            lines.filter_map(|other| other.interface.clone()).next()
        };
        let connected = || {
            let links = self.snapshot.links.iter().filter(|link| link.arp);
            let mut fits = links.filter(|link| self.snapshot.on_link(link).contains(&network));
            fits.next().map(|link| link.name.clone())
        };
        line.interface.clone().or_else(beside).or_else(connected).unwrap_or_else(|| {
            format!(
                "\"${{DEV:?set it to the interface of this machine in {network}, such as eth0}}\""
            )
        })
    }
}

fn shared(seen: &ServerFacts, line: &Line) -> Option<Finding> {
    let others: Vec<&str> =
        line.also.iter().map(|place| seen.configs[*place].name.as_str()).collect();
    (!others.is_empty()).then(|| {
        Finding::error(
            "shared-address",
            format!(
                "{} is the server's address of {} and of {}",
                line.address,
                seen.through(line).name,
                others.join(", ")
            ),
            "a reply from it cannot tell which box the request came through",
        )
        .advice(
            "give the server an address for each box, or make the boxes one with several uplinks",
        )
    })
}

fn address(seen: &ServerFacts, line: &Line) -> Finding {
    let (address, name) = (line.address, &seen.through(line).name);
    let why = format!("{name} sends its clients' requests there");
    match &line.interface {
        None => {
            let length = seen.network(line).prefix_len();
            Finding::error("address", format!("{address} is missing"), why).fix([format!(
                "ip address replace {address}/{length} dev {}",
                seen.interface(line)
            )])
        }
        Some(interface) if !line.up => {
            Finding::error("address", format!("{address} is on {interface}, which is down"), why)
                .fix([format!("ip link set {interface} up")])
                .advice("if it is up already, see to its cable")
        }
        Some(interface) => {
            Finding::ok("address", format!("{address} for {name} is on {interface}"))
        }
    }
}

/// Whether what is sent from the address goes to its box: by the kernel's word, and by a packet.
fn replies(seen: &ServerFacts, line: &Line) -> Finding {
    let (address, name, stranger) = (line.address, &seen.through(line).name, seen.stranger);
    let why = format!(
        "replies from {address} have to leave through {name}, whose line the client knows; by another they come from a stranger"
    );
    let Some(way) = &line.way else { unreachable!("asked only for lines with a way") };
    let via = match way {
        RouteResult::Unicast { via, .. } => *via,
        RouteResult::Local | RouteResult::Dropped(_) => None,
    };
    let expected = seen.expected(line);
    let first_hop = line.first_hop.as_ref().map(|found| &found.first_hop);
    let proof = match first_hop {
        Some(FirstHop::Is(router)) => format!("; a packet that lives for one hop dies at {router}"),
        Some(FirstHop::Silent) => "; a packet that lives for one hop is answered by nobody".into(),
        Some(FirstHop::NotAsked(_)) | None => String::new(),
    };
    let wrong = || format!("what is sent from {address} (to {stranger}) {way}, not to {name}");
    if via.is_none() || expected.is_some_and(|expected| via != Some(expected)) {
        let at = expected.map(|expected| format!(" ({expected})")).unwrap_or_default();
        let finding = Finding::error("replies", format!("{}{at}{proof}", wrong()), why);
        return route(seen, line, finding);
    }
    let same = seen.lines.iter().find(|other| {
        other.through != line.through
            && matches!(&other.way, Some(RouteResult::Unicast { via: theirs, .. }) if *theirs == via)
    });
    if let (None, Some(other)) = (expected, same) {
        let found = format!(
            "what is sent from {address} {way}, as does what is sent from {} for {}",
            other.address,
            seen.through(other).name
        );
        return route(seen, line, Finding::error("replies", found, why));
    }
    if expected.is_none() {
        let found = format!(
            "what is sent from {address} {way}{proof}; whether that is {name} cannot be told"
        );
        return Finding::warning("replies", found, why)
            .advice(format!("write inside.address in the configuration of {name}"));
    }
    let right = format!("what is sent from {address} {way}, which is {name}");
    let others = seen.configs.iter().filter_map(|config| config.inside.address);
    match first_hop {
        Some(FirstHop::Is(router)) if Some(*router) == via => Finding::ok(
            "replies",
            format!("{right}; proven: a packet from there that lives for one hop died at {router}"),
        ),
        Some(FirstHop::Is(router)) if others.into_iter().any(|other| other == *router) => {
            let found = format!("{right}, says the kernel, but a packet that lives for one hop died at {router}, another box");
            Finding::error("replies", found, why).advice(format!("see on {name}: ip address show; and between: ip neighbour show"))
        }
        Some(FirstHop::Is(router)) => Finding::warning(
            "replies",
            format!("{right}; a packet that lives for one hop died at {router}, an address that no configuration has"),
            why,
        )
        .advice(format!("is {router} an address of {name}, too? Then all is well")),
        Some(FirstHop::Silent) => Finding::warning(
            "replies",
            format!("{right}; but a packet from there that lives for one hop was answered by nobody"),
            format!("{name} may be off, may not forward, or may be kept from sending ICMP errors"),
        )
        .advice(format!("run natbox doctor on {name}")),
        Some(FirstHop::NotAsked(error)) => Finding::warning(
            "replies",
            format!("{right}, says the kernel; a packet to prove it was not sent: {error}"),
            why,
        )
        .advice("run it as root"),
        None => Finding::ok("replies", format!("{right}, says the kernel; no packet was sent to prove it")),
    }
}

/// The commands that lead an address to its box.
fn route(seen: &ServerFacts, line: &Line, finding: Finding) -> Finding {
    let name = &seen.through(line).name;
    let gateway = match seen.expected(line) {
        Some(address) => address.to_string(),
        None => format!("\"${{BOX:?set it to the inside address of {name}}}\""),
    };
    let device = seen.interface(line);
    if !seen.policy_routing() {
        return finding.fix([format!("ip route replace default via {gateway} dev {device}")]);
    }
    let rule = rule_of(seen, line.address);
    let table = rule.map_or(server_table(line.through), |(_, table)| table);
    let leads_there = seen.snapshot.routes.iter().any(|found| {
        (found.route.table, found.route.kind, found.route.to.prefix_len())
            == (table, RouteKind::Unicast, 0)
            && found.route.via == seen.expected(line)
            && found.route.via.is_some()
    });
    let mut commands = Vec::new();
    if rule.is_none() {
        let private: BTreeSet<Ipv4Net> =
            seen.configs.iter().flat_map(|config| config.inside.prefixes.iter().copied()).collect();
        commands.extend(
            private.iter().map(|network| format!("ip route replace throw {network} table {table}")),
        );
    }
    if !leads_there {
        commands.push(format!("ip route replace default via {gateway} dev {device} table {table}"));
    }
    let lowest = seen
        .snapshot
        .rules
        .iter()
        .map(|found| found.rule.priority)
        .filter(|priority| *priority > 0)
        .min();
    match rule {
        None => commands.push(format!(
            "ip rule add from {} lookup {table} priority {}",
            line.address,
            lowest.map_or(table, |lowest| table.min(lowest.saturating_sub(1)))
        )),
        // It is right and is not asked: another comes before it.
        Some((found, _)) if leads_there => commands.push(format!(
            "ip rule add from {} lookup {table} priority {}",
            line.address,
            lowest.unwrap_or(found.rule.priority).saturating_sub(1)
        )),
        Some(_) => {}
    }
    finding.fix(commands)
}

/// The rule for what is sent from exactly this address, and its table, which serves no other rule: a route in it may be replaced.
fn rule_of(seen: &ServerFacts, address: Ipv4Addr) -> Option<(&FoundRule, u32)> {
    let rules = &seen.snapshot.rules;
    rules.iter().find_map(|found| {
        let rule = &found.rule;
        let is_plain = !found.more && rule.iif.is_none() && rule.to.is_none() && rule.udp.is_none();
        let RuleAction::Lookup(table) = rule.action else { return None };
        let is_of_all = [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT].contains(&table);
        let serves_others = || {
            rules
                .iter()
                .any(|other| other.rule.action == rule.action && other.rule.from != rule.from)
        };
        let is_its = is_plain && rule.from == Some(Ipv4Net::from(address));
        (is_its && !is_of_all && !serves_others()).then_some((found, table))
    })
}

fn next_hop(seen: &ServerFacts, line: &Line) -> Option<Finding> {
    let Some(RouteResult::Unicast { device, via: Some(via) }) = &line.way else { return None };
    let of = line.address;
    let finding = match line.answers {
        Some(NeighbourState::Reachable) => return None,
        Some(NeighbourState::Failed) | None => Finding::error(
            "next-hop",
            format!("nobody answers for {via} on {device}, the next hop of {of}"),
            "replies get lost on the private network",
        ),
        Some(NeighbourState::Unconfirmed) => Finding::warning(
            "next-hop",
            format!(
                "whether {via} answers on {device}, the next hop of {of}, cannot be told: it is still being asked"
            ),
            "if it does not, replies get lost on the private network",
        ),
    };
    let name = &seen.through(line).name;
    Some(finding.advice(format!(
        "is {name} on, and is {via} its address there? See: ip neighbour show dev {device}"
    )))
}

fn arrival(seen: &ServerFacts, line: &Line) -> Option<Finding> {
    let (interface, Some(RouteResult::Dropped(reason))) = (line.interface.as_ref()?, &line.arrival)
    else {
        return None;
    };
    let found = format!(
        "a request from {} to {} in by {interface} is dropped: {reason}",
        seen.stranger, line.address
    );
    let finding = Finding::error(
        "arrival",
        found,
        "the kernel drops the clients' requests before any program sees them",
    );
    let leg = seen.legs.iter().find(|leg| leg.interface == *interface);
    let strict =
        leg.is_some_and(|leg| leg.rp_filter == crate::host::doctor::checks::box_checks::STRICT);
    Some(match strict {
        true => finding.fix([format!("sysctl -w net/ipv4/conf/{interface}/rp_filter=2")]),
        false => finding.advice("there is no way back to where it comes from: mend the replies"),
    })
}

/// Whether somebody waits at each port that is forwarded to.
fn services(seen: &ServerFacts, line: &Line) -> Vec<Finding> {
    let address = line.address;
    let mut findings = Vec::new();
    for forward in seen.forwards(address) {
        for protocol in protocols(forward) {
            findings.push(service(seen, address, forward, protocol));
        }
    }
    findings
}

fn service(seen: &ServerFacts, address: Ipv4Addr, forward: &Forward, protocol: &str) -> Finding {
    let count = forward.ports.last - forward.ports.first;
    let ports = forward.to_port..=forward.to_port.saturating_add(count);
    let udp = protocol == "udp";
    let at = |listener: &&Listener| listener.udp == udp && ports.contains(&listener.port);
    let there = || seen.listeners.iter().filter(at);
    let here = |listener: &Listener| listener.address.is_none_or(|own| own == address);
    let shown = match count {
        0 => format!("{address}:{}", forward.to_port),
        _ => format!("{address}:{}-{}", ports.start(), ports.end()),
    };
    let name = &forward.name;
    let bound = there().any(|listener| listener.address == Some(address));
    if !there().any(here) {
        let elsewhere: Vec<String> = there()
            .filter_map(|listener| Some(format!("{}:{}", listener.address?, listener.port)))
            .take(3)
            .collect();
        let only = if elsewhere.is_empty() {
            String::new()
        } else {
            format!(", only at {}", elsewhere.join(", "))
        };
        return Finding::error(
            "service",
            format!("nobody waits at {shown} ({protocol}), where {name} leads{only}"),
            "clients are refused",
        )
        .advice(format!(
            "start the program, or have it listen at {shown} or at every address; see: ss -nl{}p",
            if udp { 'u' } else { 't' }
        ));
    }
    if udp && !bound && seen.lines.len() > 1 {
        return Finding::warning(
            "service",
            format!("at {shown} (udp) a program waits at every address at once"),
            "unless it answers from the address that it was asked at (IP_PKTINFO), its answers leave by the wrong box",
        )
        .advice("have it listen at each address by itself, or see that it knows IP_PKTINFO; a client tells: dig, or the program's own");
    }
    Finding::ok("service", format!("{name}: somebody waits at {shown} ({protocol})"))
}

fn firewall(seen: &ServerFacts, line: &Line, doubts: &mut BTreeSet<usize>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let interface = line.interface.as_deref();
    for forward in seen.forwards(line.address) {
        for protocol in protocols(forward) {
            let port = forward.to_port;
            let packet = Packet {
                iif: interface,
                to: Some(line.address),
                protocol: Some(protocol),
                port: Some(port),
                ..Packet::default()
            };
            let reply = Packet {
                oif: interface,
                from: Some(line.address),
                protocol: Some(protocol),
                source_port: Some(port),
                reply: true,
                ..Packet::default()
            };
            let places = [
                ("ingress", &packet),
                ("prerouting", &packet),
                ("input", &packet),
                ("output", &reply),
                ("postrouting", &reply),
                ("egress", &reply),
            ];
            for (hook, packet) in places {
                for (chain, fate) in seen.filters.ask(hook, packet, doubts) {
                    let name = format!("{} {} {}", chain.family, chain.table, chain.name);
                    let (text, make): (_, fn(&str, String, &'static str) -> Finding) = match fate {
                        FilterOutcome::Passes => continue,
                        FilterOutcome::Dropped => {
                            ("drops", |id, found, why| Finding::error(id, found, why))
                        }
                        FilterOutcome::Rewritten => {
                            ("rewrites the addresses of", |id, found, why| {
                                Finding::error(id, found, why)
                            })
                        }
                        FilterOutcome::Unsure => ("may drop or rewrite", |id, found, why| {
                            Finding::warning(id, found, why)
                        }),
                    };
                    let (whose, selector) = match packet.reply {
                        false => (
                            "requests to",
                            format!("ip daddr {} {protocol} dport {port}", line.address),
                        ),
                        true => (
                            "replies from",
                            format!("ip saddr {} {protocol} sport {port}", line.address),
                        ),
                    };
                    let found = format!(
                        "the chain `{name}` {text} {whose} {}:{port} ({protocol})",
                        line.address
                    );
                    let why = "clients get no answer, or one that they do not take for one";
                    findings.push(
                        make("firewall", found, why)
                            .fix([format!("nft 'insert rule {name} {selector} accept'")]),
                    );
                }
            }
        }
    }
    findings
}

fn mtu(seen: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for leg in &seen.legs {
        let (interface, mtu) = (&leg.interface, leg.mtu);
        if mtu < SMALLEST_MTU {
            findings.push(
                Finding::warning(
                    "mtu",
                    format!("{interface} has MTU {mtu}"),
                    format!("less than {SMALLEST_MTU} is hardly ever meant, and what the boxes send in larger packets gets lost"),
                )
                .fix([format!("ip link set dev {interface} mtu 1500")]),
            );
        }
        let clamp = seen.configs.iter().filter_map(|config| match config.nat.mss_clamp {
            MssClamp::To(mss) if u32::from(mss) + TCP_HEADERS > mtu => Some((&config.name, mss)),
            MssClamp::To(_) | MssClamp::Auto | MssClamp::Off => None,
        });
        findings.extend(clamp.map(|(name, mss)| {
            Finding::warning(
                "mtu",
                format!("{interface} has MTU {mtu}, and nat.mss_clamp of {name} is {mss}"),
                "clients send segments that are too long for the private network",
            )
            .advice(format!(
                "set nat.mss_clamp of {name} to auto or to at most {}",
                mtu.saturating_sub(TCP_HEADERS)
            ))
        }));
    }
    for line in &seen.lines {
        let lost =
            line.first_hop.as_ref().and_then(|found| Some((&found.first_hop, found.no_more_than?)));
        if let (Some(RouteResult::Unicast { device, .. }), Some((FirstHop::Is(router), size))) =
            (&line.way, lost)
        {
            let mtu = seen.snapshot.link(device).map_or(0, |link| link.mtu);
            findings.push(
                Finding::error(
                    "mtu",
                    format!("{device} has MTU {mtu}, and a packet of that size from {} does not get to {router}; one of {size} bytes does", line.address),
                    "large replies vanish without a word: connections open, and hang as soon as a page is sent",
                )
                .fix([format!("ip link set dev {device} mtu {size}")])
                .advice(format!("if {device} is right, raise the MTU of what lies between, and of {router}")),
            );
        }
    }
    if findings.is_empty() && !seen.legs.is_empty() {
        let each: Vec<String> =
            seen.legs.iter().map(|leg| format!("{} has MTU {}", leg.interface, leg.mtu)).collect();
        findings.push(Finding::ok("mtu", each.join(", ")));
    }
    findings
}

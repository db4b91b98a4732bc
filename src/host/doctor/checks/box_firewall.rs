//! What the host's own filters do with what has to pass a box.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::config::Uplink;
use crate::host::doctor::Finding;
use crate::host::doctor::facts::box_facts::{BoxFacts, protocols};
use crate::host::doctor::nft::filters::{FilterOutcome, Packet, no_obstacle};

/// Rules of others that keep packets from passing, or change them.
pub(crate) fn evaluate(seen: &BoxFacts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut doubts = BTreeSet::new();
    let mut packets = forwarded(seen);
    packets.extend(own(seen));
    for Passing { packet, hooks, what } in packets {
        for hook in hooks {
            let packet = match *hook {
                "ingress" | "prerouting" => Packet { oif: None, ..packet.clone() },
                _ => packet.clone(),
            };
            for (chain, fate) in seen.filters.ask(hook, &packet, &mut doubts) {
                let name = format!("{} {} {}", chain.family, chain.table, chain.name);
                let (text, why) = match fate {
                    FilterOutcome::Passes => continue,
                    FilterOutcome::Dropped => (
                        "drops",
                        "what the host's filter drops never reaches natbox, or never leaves it",
                    ),
                    FilterOutcome::Rewritten => (
                        "rewrites the addresses of",
                        "natbox has translated already: a second translation breaks replies",
                    ),
                    FilterOutcome::Unsure => (
                        "may drop or rewrite",
                        "what the host's filter drops never reaches natbox, or never leaves it",
                    ),
                };
                let command =
                    format!("nft 'insert rule {name} {} accept'", selector(seen, hook, &packet));
                if let Some(known) =
                    findings.iter_mut().find(|known| known.found.contains(&format!("`{name}`")))
                {
                    if !known.fix.contains(&command) {
                        known.fix.push(command);
                    }
                    continue;
                }
                let found = format!("the chain `{name}` {text} {what}");
                let make =
                    if fate == FilterOutcome::Unsure { Finding::warning } else { Finding::error };
                findings.push(make("firewall", found, why.to_owned()).fix([command]));
            }
        }
    }
    if findings.is_empty() {
        findings.extend(no_obstacle(&seen.filters, &doubts));
    }
    findings
}

/// What a rule has to ask for, to let a packet pass and as few others as possible.
fn selector(seen: &BoxFacts, hook: &str, packet: &Packet<'_>) -> String {
    let tun = seen.config.tun.name.as_str();
    match (packet.iif, packet.oif) {
        (Some(iif), _) if iif == tun && hook != "egress" => format!("iifname \"{tun}\""),
        (Some(iif), None) => {
            let to = packet.to.map(|to| format!(" ip daddr {to}")).unwrap_or_default();
            format!("iifname \"{iif}\"{to}")
        }
        (_, Some(oif)) if oif == tun => format!("oifname \"{tun}\""),
        (_, Some(oif)) => {
            let from = packet.from.map(|from| format!(" ip saddr {from}")).unwrap_or_default();
            format!("oifname \"{oif}\"{from}")
        }
        (None, None) => format!("oifname \"{tun}\""),
    }
}

/// A packet that has to pass, and where the host's filters see it.
struct Passing<'a> {
    packet: Packet<'a>,
    hooks: &'static [&'static str],
    /// For people.
    what: String,
}

/// From one interface to another.
const THROUGH: &[&str] = &["ingress", "prerouting", "forward", "postrouting", "egress"];
/// To the host itself, and from it.
const TO_HOST: &[&str] = &["ingress", "prerouting", "input"];
const FROM_HOST: &[&str] = &["output", "postrouting", "egress"];

fn through(packet: Packet<'_>, what: String) -> Passing<'_> {
    Passing { packet, hooks: THROUGH, what }
}

/// Of those outside and inside.
fn forwarded(seen: &BoxFacts) -> Vec<Passing<'_>> {
    let (tun, inside) = (seen.config.tun.name.as_str(), seen.config.inside.interface.as_str());
    let mut all = Vec::new();
    for forward in &seen.config.forwards {
        let line = seen.config.uplinks[forward.uplink].interface.as_str();
        let protocols = protocols(forward).iter().map(|protocol| Some(*protocol));
        for protocol in if protocols.len() == 0 { vec![None] } else { protocols.collect() } {
            let way =
                |iif, oif| Packet { iif: Some(iif), oif: Some(oif), protocol, ..Packet::default() };
            let reply = |iif, oif| Packet { reply: true, ..way(iif, oif) };
            let port = |first| protocol.map(|_| first);
            let (outer, inner) = (port(forward.ports.first), port(forward.to_port));
            let (address, server) = (Some(forward.address), Some(forward.to_address));
            all.push(through(
                Packet { to: address, port: outer, ..way(line, tun) },
                format!("requests of {} from {line}", forward.name),
            ));
            all.push(through(
                Packet { to: server, port: inner, ..way(tun, inside) },
                format!("requests of {} to {}", forward.name, forward.to_address),
            ));
            all.push(through(
                Packet { from: server, source_port: inner, ..reply(inside, tun) },
                format!("replies of {}", forward.to_address),
            ));
            all.push(through(
                Packet { from: address, source_port: outer, ..reply(tun, line) },
                format!("replies of {} by {line}", forward.address),
            ));
        }
    }
    for rule in &seen.config.outbound {
        let way = |iif, oif| Packet { iif: Some(iif), oif: Some(oif), ..Packet::default() };
        let from = Some(rule.from.addr());
        all.push(through(
            Packet { from, ..way(inside, tun) },
            format!("what leaves {}", rule.from),
        ));
        for place in &rule.uplinks {
            let uplink = &seen.config.uplinks[*place];
            let from = uplink.addresses.first().copied();
            let packet = Packet { from, ..way(tun, &uplink.interface) };
            all.push(through(packet, format!("what leaves by {}", uplink.name)));
        }
    }
    all
}

/// Of the box itself: questions to its name server come back out of the TUN for the host, and so do answers to its health checks.
fn own(seen: &BoxFacts) -> Vec<Passing<'_>> {
    let tun = seen.config.tun.name.as_str();
    let to_host = |packet, what| Passing { packet, hooks: TO_HOST, what };
    let from_host = |packet, what| Passing { packet, hooks: FROM_HOST, what };
    let comes = |to: Ipv4Addr| Packet { iif: Some(tun), to: Some(to), ..Packet::default() };
    let goes = |from: Ipv4Addr| Packet { oif: Some(tun), from: Some(from), ..Packet::default() };
    let listens = seen.config.dns.as_ref().is_some_and(|dns| dns.listen);
    let lines = seen
        .config
        .uplinks
        .iter()
        .zip(&seen.facts.probe_addresses)
        .zip(&seen.facts.assigned_to_host);
    let mut all = Vec::new();
    for ((uplink, endpoint), assigned_to_host) in lines {
        let (line, name) = (uplink.interface.as_str(), &uplink.name);
        let asks = endpoint
            .iter()
            .flat_map(|endpoint| asked_by(uplink).map(|protocol| (*endpoint, protocol)));
        for (endpoint, protocol) in asks {
            let of = |packet| Packet { protocol: Some(protocol), ..packet };
            all.push(from_host(of(goes(endpoint)), format!("health checks of {name}")));
            let answers = Packet { reply: true, ..comes(endpoint) };
            all.push(to_host(of(answers), format!("answers to the health checks of {name}")));
        }
        let Some(address) = uplink.addresses.first().copied().filter(|_| listens) else { continue };
        // Where the address is the host's own for good, the name server waits there; else at an endpoint, at a port that the
        // kernel has chosen: one stands for all of them.
        let is_owned = assigned_to_host.first() == Some(&true) && !uplink.follows_interface;
        let chosen = seen.facts.ephemeral_ports.last;
        let place = if is_owned {
            Some((address, DNS))
        } else {
            endpoint.map(|endpoint| (endpoint, chosen))
        };
        let Some((at, port)) = place else { continue };
        let port = Some(port);
        for protocol in ["udp", "tcp"] {
            let of = |packet| Packet { protocol: Some(protocol), ..packet };
            let (question, answer) = (
                format!("questions ({protocol}) to the name server at {address}"),
                format!("answers ({protocol}) of the name server at {address}"),
            );
            let outside = Packet {
                iif: Some(line),
                oif: Some(tun),
                to: Some(address),
                port: Some(DNS),
                ..Packet::default()
            };
            let back = Packet {
                iif: Some(tun),
                oif: Some(line),
                from: Some(address),
                source_port: Some(DNS),
                reply: true,
                ..Packet::default()
            };
            all.push(through(of(outside), question.clone()));
            all.push(to_host(of(Packet { port, ..comes(at) }), question));
            all.push(from_host(
                of(Packet { source_port: port, reply: true, ..goes(at) }),
                answer.clone(),
            ));
            all.push(through(of(back), answer));
        }
    }
    all
}

/// The protocols of a line's health checks.
fn asked_by(uplink: &Uplink) -> impl Iterator<Item = &'static str> {
    let health = uplink.health.as_ref();
    let pings = health.is_some_and(|health| !health.ping.is_empty());
    let connects = health.is_some_and(|health| !health.tcp.is_empty() || !health.http.is_empty());
    pings.then_some("icmp").into_iter().chain(connects.then_some("tcp"))
}

const DNS: u16 = crate::config::Dns::PORT;

//! Checks that programs listen where the boxes forward to, and that filters let their packets pass.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::transports::protocols;
use crate::config::Forward;
use crate::host::doctor::facts::server_facts::{AddressFacts, ServerFacts};
use crate::host::doctor::finding::{Finding, Severity};
use crate::host::doctor::nft::filters::FilterOutcome;
use crate::host::doctor::nft::packet::FilteredPacket;
use crate::host::kernel::listeners::Listener;

/// Largest number of other listeners that one finding names.
const MAX_SHOWN: usize = 3;
/// Hooks of a request to the server.
const REQUEST_HOOKS: [&str; 3] = ["ingress", "prerouting", "input"];
/// Hooks of a reply of the server.
const REPLY_HOOKS: [&str; 3] = ["output", "postrouting", "egress"];

/// Checks that a program listens at each port of the forwards to an address.
pub(super) fn listeners(facts: &ServerFacts, entry: &AddressFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for forward in facts.forwards(entry.address) {
        for protocol in protocols(forward) {
            findings.push(listener(facts, entry.address, forward, protocol));
        }
    }
    findings
}

/// Lists the listeners at the ports to which a forward leads.
fn at_ports<'l>(
    listeners: &'l [Listener],
    forward: &Forward,
    protocol: &str,
) -> impl Iterator<Item = &'l Listener> {
    let count = forward.ports.last - forward.ports.first;
    let ports = forward.to_port..=forward.to_port.saturating_add(count);
    let udp = protocol == "udp";
    listeners.iter().filter(move |listener| listener.udp == udp && ports.contains(&listener.port))
}

/// Formats the target of a forward.
fn target_words(forward: &Forward) -> String {
    let Forward { to_address: address, to_port: port, .. } = forward;
    match forward.ports.last - forward.ports.first {
        0 => format!("{address}:{port}"),
        count => format!("{address}:{port}-{}", port.saturating_add(count)),
    }
}

/// Reports that no program listens at the target of a forward.
pub(super) fn missing_listener(
    listeners: &[Listener],
    forward: &Forward,
    protocol: &str,
) -> Option<Finding> {
    let address = forward.to_address;
    let is_here = |listener: &Listener| listener.address.is_none_or(|own| own == address);
    if at_ports(listeners, forward, protocol).any(is_here) {
        return None;
    }
    let elsewhere: Vec<String> = at_ports(listeners, forward, protocol)
        .filter_map(|listener| Some(format!("{}:{}", listener.address?, listener.port)))
        .take(MAX_SHOWN)
        .collect();
    let only = match elsewhere.is_empty() {
        true => String::new(),
        false => format!(", only at {}", elsewhere.join(", ")),
    };
    let (shown, name) = (target_words(forward), &forward.name);
    let found = format!("no program listens at {shown} ({protocol}), the target of {name}{only}");
    let table = if protocol == "udp" { 'u' } else { 't' };
    Some(Finding::error("service", found, "the server refuses clients").advice(format!(
        "start the program, or make it listen at {shown} or at any address; check: ss -nl{table}p"
    )))
}

fn listener(facts: &ServerFacts, address: Ipv4Addr, forward: &Forward, protocol: &str) -> Finding {
    if let Some(missing) = missing_listener(&facts.listeners, forward, protocol) {
        return missing;
    }
    let at_port: Vec<&Listener> = at_ports(&facts.listeners, forward, protocol).collect();
    let (shown, name, udp) = (target_words(forward), &forward.name, protocol == "udp");
    let is_bound = at_port.iter().any(|listener| listener.address == Some(address));
    if udp && !is_bound && facts.addresses.len() > 1 {
        return Finding::warning(
            "service",
            format!("a program listens at {shown} (udp) with a wildcard address"),
            "unless the program answers from the address of the request (IP_PKTINFO), its answers \
             leave by the wrong box",
        )
        .advice(
            "make the program listen at each address, or check with a client (such as dig) that \
             the program uses IP_PKTINFO",
        );
    }
    Finding::ok("service", format!("{name}: a program listens at {shown} ({protocol})"))
}

/// Checks that the filters let the packets of the forwards to an address pass. `doubts` collects
/// the numbers of rules that drop packets under conditions that the evaluation cannot check.
pub(super) fn firewall(
    facts: &ServerFacts,
    entry: &AddressFacts,
    doubts: &mut BTreeSet<usize>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let interface = entry.interface.as_deref();
    for forward in facts.forwards(entry.address) {
        for protocol in protocols(forward) {
            let port = Some(forward.to_port);
            let request = FilteredPacket {
                iif: interface,
                to: Some(entry.address),
                protocol: Some(protocol),
                port,
                ..FilteredPacket::default()
            };
            let reply = FilteredPacket {
                oif: interface,
                from: Some(entry.address),
                protocol: Some(protocol),
                source_port: port,
                reply: true,
                ..FilteredPacket::default()
            };
            let service = ServedPort { address: entry.address, protocol, port: forward.to_port };
            let requests = REQUEST_HOOKS.map(|hook| (hook, &request));
            let replies = REPLY_HOOKS.map(|hook| (hook, &reply));
            for (hook, packet) in requests.into_iter().chain(replies) {
                findings.extend(obstacles(facts, hook, packet, &service, doubts));
            }
        }
    }
    findings
}

/// A port of the server.
struct ServedPort<'a> {
    address: Ipv4Addr,
    protocol: &'a str,
    port: u16,
}

fn obstacles(
    facts: &ServerFacts,
    hook: &str,
    packet: &FilteredPacket<'_>,
    service: &ServedPort<'_>,
    doubts: &mut BTreeSet<usize>,
) -> Vec<Finding> {
    let ServedPort { address, protocol, port } = service;
    let (packets, selector) = match packet.reply {
        false => ("requests to", format!("ip daddr {address} {protocol} dport {port}")),
        true => ("replies from", format!("ip saddr {address} {protocol} sport {port}")),
    };
    let mut findings = Vec::new();
    for (chain, outcome) in facts.filters.obstacles(hook, packet, doubts) {
        let name = format!("{} {} {}", chain.family, chain.table, chain.name);
        let (verb, severity) = match outcome {
            FilterOutcome::Passes => continue,
            FilterOutcome::Dropped => ("drops", Severity::Error),
            FilterOutcome::Rewritten => ("rewrites the addresses of", Severity::Error),
            FilterOutcome::Uncertain => ("may drop or rewrite", Severity::Warning),
        };
        let found = format!("the chain `{name}` {verb} {packets} {address}:{port} ({protocol})");
        let why = "clients get no reply, or a reply from an address that they do not know";
        let fix = format!("nft 'insert rule {name} {selector} accept'");
        findings.push(Finding::new("firewall", severity, found, why).fix([fix]));
    }
    findings
}

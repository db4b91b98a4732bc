//! The packets that have to pass the host's filters.

use std::net::Ipv4Addr;

use super::transports::protocols;
use crate::config::{Dns, Forward, OutboundRule, Uplink};
use crate::host::doctor::facts::box_facts::FilteredBox;
use crate::host::doctor::nft::packet::FilteredPacket;

/// Port of the name server.
const DNS: u16 = Dns::PORT;
/// Hooks of a packet from one interface to another.
const FORWARDED: &[&str] = &["ingress", "prerouting", "forward", "postrouting", "egress"];
/// Hooks of a packet to the host itself.
pub(super) const TO_HOST: &[&str] = &["ingress", "prerouting", "input"];
/// Hooks of a packet from the host itself.
const FROM_HOST: &[&str] = &["output", "postrouting", "egress"];

/// A packet that has to pass, and the hooks that see it.
pub(super) struct PassingPacket<'a> {
    pub(super) packet: FilteredPacket<'a>,
    pub(super) hooks: &'static [&'static str],
    /// Name of such packets, as a plural noun for messages.
    pub(super) name: String,
}

impl<'a> PassingPacket<'a> {
    fn forwarded(packet: FilteredPacket<'a>, name: String) -> Self {
        Self { packet, hooks: FORWARDED, name }
    }

    fn to_host(packet: FilteredPacket<'a>, name: String) -> Self {
        Self { packet, hooks: TO_HOST, name }
    }

    fn from_host(packet: FilteredPacket<'a>, name: String) -> Self {
        Self { packet, hooks: FROM_HOST, name }
    }
}

/// Lists all packets that have to pass.
pub(super) fn packets(facts: FilteredBox<'_>) -> Vec<PassingPacket<'_>> {
    let config = facts.config;
    let mut all: Vec<PassingPacket<'_>> =
        config.forwards.iter().flat_map(|forward| of_forward(facts, forward)).collect();
    all.extend(config.outbound.iter().flat_map(|rule| of_outbound(facts, rule)));
    for (place, uplink) in config.uplinks.iter().enumerate() {
        all.extend(of_health_checks(facts, place, uplink));
        all.extend(of_name_server(facts, place, uplink));
    }
    all.extend(of_host(facts));
    all
}

fn between<'a>(iif: &'a str, oif: &'a str) -> FilteredPacket<'a> {
    FilteredPacket { iif: Some(iif), oif: Some(oif), ..FilteredPacket::default() }
}

/// Lists the requests and replies of a forward.
fn of_forward<'a>(facts: FilteredBox<'a>, forward: &'a Forward) -> Vec<PassingPacket<'a>> {
    let Some(leg) = facts.config.inside.leg_of(forward.to_address) else { return Vec::new() };
    let (tun, inside) = (facts.config.tun.name.as_str(), leg.interface.as_str());
    let outside = facts.config.uplinks[forward.uplink].interface.as_str();
    let mut protocols: Vec<Option<&str>> =
        protocols(forward).iter().map(|protocol| Some(*protocol)).collect();
    if protocols.is_empty() {
        protocols.push(None);
    }
    let (address, server) = (Some(forward.address), Some(forward.to_address));
    let is_own = facts.host.own_traffic.has_target(forward);
    let mut all = Vec::new();
    for protocol in protocols {
        let request = |iif, oif| FilteredPacket { protocol, ..between(iif, oif) };
        let reply = |iif, oif| FilteredPacket { reply: true, ..request(iif, oif) };
        let port = |port| protocol.map(|_| port);
        let (outer, inner) = (port(forward.ports.first), port(forward.to_port));
        all.push(PassingPacket::forwarded(
            FilteredPacket { to: address, port: outer, ..request(outside, tun) },
            format!("requests of {} from {outside}", forward.name),
        ));
        let requests = format!("requests of {} to {}", forward.name, forward.to_address);
        let replies = format!("replies of {}", forward.to_address);
        if is_own {
            let request =
                FilteredPacket { protocol, port: inner, ..from_tun(tun, forward.to_address) };
            let reply = FilteredPacket {
                protocol,
                source_port: inner,
                reply: true,
                ..into_tun(tun, forward.to_address)
            };
            all.push(PassingPacket::to_host(request, requests));
            all.push(PassingPacket::from_host(reply, replies));
        } else {
            let request = FilteredPacket { to: server, port: inner, ..request(tun, inside) };
            let reply = FilteredPacket { from: server, source_port: inner, ..reply(inside, tun) };
            all.push(PassingPacket::forwarded(request, requests));
            all.push(PassingPacket::forwarded(reply, replies));
        }
        all.push(PassingPacket::forwarded(
            FilteredPacket { from: address, source_port: outer, ..reply(tun, outside) },
            format!("replies of {} by {outside}", forward.address),
        ));
    }
    all
}

/// Lists the packets of an outbound rule.
fn of_outbound<'a>(facts: FilteredBox<'a>, rule: &'a OutboundRule) -> Vec<PassingPacket<'a>> {
    let Some(leg) = facts.config.inside.leg_of(rule.from.addr()) else { return Vec::new() };
    let (tun, inside) = (facts.config.tun.name.as_str(), leg.interface.as_str());
    let from_inside = FilteredPacket { from: Some(rule.from.addr()), ..between(inside, tun) };
    let name = format!("outbound packets from {}", rule.from);
    let mut all = vec![PassingPacket::forwarded(from_inside, name)];
    for place in &rule.uplinks {
        let uplink = &facts.config.uplinks[*place];
        let from = uplink.addresses.first().copied();
        let packet = FilteredPacket { from, ..between(tun, &uplink.interface) };
        all.push(PassingPacket::forwarded(packet, format!("packets out by {}", uplink.name)));
    }
    all
}

/// A packet that comes out of the TUN for the host.
fn from_tun(tun: &str, to: Ipv4Addr) -> FilteredPacket<'_> {
    FilteredPacket { iif: Some(tun), to: Some(to), ..FilteredPacket::default() }
}

/// A packet from the host into the TUN.
fn into_tun(tun: &str, from: Ipv4Addr) -> FilteredPacket<'_> {
    FilteredPacket { oif: Some(tun), from: Some(from), ..FilteredPacket::default() }
}

/// Lists the packets of an uplink's health checks.
fn of_health_checks<'a>(
    facts: FilteredBox<'a>,
    place: usize,
    uplink: &'a Uplink,
) -> Vec<PassingPacket<'a>> {
    let (tun, name) = (facts.config.tun.name.as_str(), &uplink.name);
    let Some(probe) = facts.host.probe_addresses[place] else { return Vec::new() };
    let mut all = Vec::new();
    for protocol in health_protocols(uplink) {
        let protocol = Some(protocol);
        let request = FilteredPacket { protocol, ..into_tun(tun, probe) };
        all.push(PassingPacket::from_host(request, format!("health checks of {name}")));
        let reply = FilteredPacket { protocol, reply: true, ..from_tun(tun, probe) };
        let name = format!("replies to the health checks of {name}");
        all.push(PassingPacket::to_host(reply, name));
    }
    all
}

/// Lists the host's own packets with `host.default_route: follow`.
fn of_host(facts: FilteredBox<'_>) -> Vec<PassingPacket<'_>> {
    let tun = facts.config.tun.name.as_str();
    let Some(address) = facts.host.host_address else { return Vec::new() };
    let reply = FilteredPacket { reply: true, ..from_tun(tun, address) };
    vec![
        PassingPacket::from_host(into_tun(tun, address), "the host's own packets".to_owned()),
        PassingPacket::to_host(reply, "replies to the host's own packets".to_owned()),
    ]
}

/// Lists the protocols of an uplink's health checks.
fn health_protocols(uplink: &Uplink) -> impl Iterator<Item = &'static str> {
    let health = uplink.health.as_ref();
    let pings = health.is_some_and(|health| !health.ping.is_empty());
    let connects = health.is_some_and(|health| !health.tcp.is_empty() || !health.http.is_empty());
    pings.then_some("icmp").into_iter().chain(connects.then_some("tcp"))
}

/// Lists the packets of the name server at an uplink's address. Queries come out of the TUN for the
/// host.
fn of_name_server<'a>(
    facts: FilteredBox<'a>,
    place: usize,
    uplink: &'a Uplink,
) -> Vec<PassingPacket<'a>> {
    let (tun, outside) = (facts.config.tun.name.as_str(), uplink.interface.as_str());
    let listens = facts.config.dns.as_ref().is_some_and(|dns| dns.listen);
    let address = uplink.addresses.first().copied().filter(|_| listens);
    let socket = address.and_then(|address| name_server_socket(facts, place, uplink, address));
    let (Some(address), Some((at, port))) = (address, socket) else { return Vec::new() };
    let mut all = Vec::new();
    for protocol in ["udp", "tcp"] {
        let transport = Some(protocol);
        let query = format!("queries ({protocol}) to the name server at {address}");
        let response = format!("responses ({protocol}) of the name server at {address}");
        let to_address = FilteredPacket {
            protocol: transport,
            to: Some(address),
            port: Some(DNS),
            ..between(outside, tun)
        };
        let from_address = FilteredPacket {
            protocol: transport,
            from: Some(address),
            source_port: Some(DNS),
            reply: true,
            ..between(tun, outside)
        };
        let to_socket =
            FilteredPacket { protocol: transport, port: Some(port), ..from_tun(tun, at) };
        let from_socket = FilteredPacket {
            protocol: transport,
            source_port: Some(port),
            reply: true,
            ..into_tun(tun, at)
        };
        all.push(PassingPacket::forwarded(to_address, query.clone()));
        all.push(PassingPacket::to_host(to_socket, query));
        all.push(PassingPacket::from_host(from_socket, response.clone()));
        all.push(PassingPacket::forwarded(from_address, response));
    }
    all
}

/// Returns address and port of the name server's socket for an uplink.
///
/// Where the address is assigned to the host for good, the socket has that address. Elsewhere the
/// socket has the probe address and a port that the kernel chose; one port stands for all of them.
fn name_server_socket(
    facts: FilteredBox<'_>,
    place: usize,
    uplink: &Uplink,
    address: Ipv4Addr,
) -> Option<(Ipv4Addr, u16)> {
    let is_assigned = facts.host.assigned_to_host[place].first() == Some(&true);
    if is_assigned && !uplink.follows_interface {
        return Some((address, DNS));
    }
    let probe = facts.host.probe_addresses[place]?;
    Some((probe, facts.host.ephemeral_ports.last))
}

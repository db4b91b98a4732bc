//! From the configuration and the host's facts to the limits and the policy of the translator.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use crate::host::HostFacts;
use crate::nat;
use crate::time::Span;

use crate::config::{
    AddressPooling, Config, Dns, Forward, ForwardProtocol, HashBy, PortPreservation, PortRange,
    RejectWith, UnsolicitedSyn,
};

/// Returns the limits of the translator.
pub(super) fn limits(config: &Config) -> nat::Limits {
    nat::Limits {
        inside: config.inside.prefixes().collect(),
        mapping: config.nat.mapping,
        filtering: config.nat.filtering,
        ports: config.nat.ports,
        paired_soft: config.nat.address_pooling == AddressPooling::PairedSoft,
        port_parity: config.nat.port_parity,
        port_overlapping: config.nat.port_overlapping,
        inbound_refresh: config.nat.inbound_refresh,
        timeouts: nat::Timeouts {
            tcp_established: config.timeouts.tcp_established.into(),
            tcp_transitory: config.timeouts.tcp_transitory.into(),
            tcp_syn: config.timeouts.tcp_syn.into(),
            udp: config.timeouts.udp.into(),
            udp_dns: config.timeouts.udp_dns.into(),
            icmp: config.timeouts.icmp.into(),
            fragment: config.timeouts.fragment.into(),
            port_reuse_delay: Some(config.timeouts.port_reuse_delay.into())
                .filter(|delay| *delay != Span(0)),
        },
        sessions: config.limits.sessions,
        addresses_may_grow: true,
        accounting: config.limits.accounting,
        sessions_per_host: NonZeroU32::new(config.limits.sessions_per_host),
        new_sessions_per_host: NonZeroU32::new(config.limits.new_sessions_per_host),
        fragments: config.limits.fragments,
        delayed_ports: config.limits.delayed_ports,
        icmp_errors_per_host: NonZeroU32::new(config.limits.icmp_errors_per_host),
    }
}

/// Ports of the name server at the probe addresses, by the numbers of the uplinks. An uplink where
/// the name server does not listen at a probe address has none.
pub(super) type DnsPorts = BTreeMap<u8, u16>;

/// Returns the policy of the translator.
pub(super) fn policy(config: &Config, facts: &HostFacts, dns: &DnsPorts) -> nat::Policy {
    nat::Policy {
        legs: legs(config, facts),
        tun_address: Some(facts.tun_address),
        host_address: facts.host_address,
        uplinks: uplinks(config, facts),
        forwards: config
            .forwards
            .iter()
            .map(|forward| nat::Forward {
                name: forward.name.clone(),
                uplink: number(config, forward.uplink),
                protocol: forward.protocol,
                address: forward.address,
                ports: forward.ports,
                to_address: forward.to_address,
                to_port: forward.to_port,
            })
            .chain(name_servers(config, facts, dns))
            .collect(),
        outbound: outbound(config, facts),
        no_nat: config
            .no_nat
            .iter()
            .map(|rule| nat::NoNatRule { to: rule.to, protocol: rule.protocol, ports: rule.ports })
            .collect(),
        kept_ports: match &config.nat.port_preservation {
            PortPreservation::Off => Vec::new(),
            PortPreservation::All => vec![PortRange::ALL],
            PortPreservation::Listed(listed) => listed.clone(),
        },
        hairpin: config.nat.hairpin,
        mss_clamp: config.nat.mss_clamp,
        reject_with: match config.nat.reject_with {
            RejectWith::AdminProhibited => Some(13),
            RejectWith::HostUnreachable => Some(1),
            RejectWith::None => None,
        },
        delayed_reject: config.nat.unsolicited_syn == UnsolicitedSyn::DelayedReject,
    }
}

fn legs(config: &Config, facts: &HostFacts) -> Vec<nat::Leg> {
    let legs = config.inside.legs.iter().zip(&facts.legs).map(|(leg, found)| nat::Leg {
        prefixes: leg.prefixes.clone(),
        address: found.address,
        routers: found.next_hops.clone(),
        mtu: mtu(found.mtu),
    });
    legs.collect()
}

fn uplinks(config: &Config, facts: &HostFacts) -> Vec<nat::Uplink> {
    let probe_addresses = facts.assigned_to_host.iter().zip(&facts.probe_addresses);
    let uplinks = config.uplinks.iter().zip(&facts.uplinks).zip(probe_addresses);
    let address = |address: &Ipv4Addr, assigned_to_host: bool| nat::ExternalAddress {
        address: *address,
        assigned_to_host,
        reserved: Some(facts.ephemeral_ports).filter(|_| assigned_to_host).into_iter().collect(),
    };
    let of_config = uplinks.map(|((uplink, interface), (assigned, probe_address))| {
        let number = usize::from(uplink.numbers.uplink);
        let uplink = nat::Uplink {
            probe_address: *probe_address,
            name: uplink.name.clone(),
            mtu: mtu(interface.mtu),
            weight: uplink.weight,
            tier: tier(uplink.tier),
            addresses: uplink
                .addresses
                .iter()
                .zip(assigned)
                .map(|(external, assigned)| address(external, *assigned))
                .collect(),
        };
        (number, uplink)
    });
    let mut by_number = Vec::new();
    for (number, uplink) in of_config {
        by_number.resize(by_number.len().max(number + 1), nat::Uplink::vacant());
        by_number[number] = uplink;
    }
    by_number
}

fn outbound(config: &Config, facts: &HostFacts) -> Vec<nat::OutboundRule> {
    let rules = config.outbound.iter().map(|rule| nat::OutboundRule {
        from: rule.from,
        to: rule.to.clone(),
        uplinks: rule.uplinks.iter().map(|place| number(config, *place)).collect(),
        hash_by: rule.hash_by,
    });
    // The host's own packets may use every uplink.
    let host = facts.host_address.map(|address| nat::OutboundRule {
        from: address.into(),
        to: Vec::new(),
        uplinks: config.uplinks.iter().map(|uplink| uplink.numbers.uplink).collect(),
        hash_by: HashBy::SourcePort,
    });
    rules.chain(host).collect()
}

/// Returns the forwards from port 53 of the uplinks to the name server.
fn name_servers<'c>(
    config: &'c Config,
    facts: &'c HostFacts,
    dns: &'c DnsPorts,
) -> impl Iterator<Item = nat::Forward> + 'c {
    let uplinks = config.uplinks.iter().zip(&facts.probe_addresses);
    uplinks.filter_map(|(uplink, probe_address)| {
        let number = uplink.numbers.uplink;
        Some(nat::Forward {
            name: "name server".to_owned(),
            uplink: number,
            protocol: ForwardProtocol::TcpUdp,
            address: *uplink.addresses.first()?,
            ports: PortRange::single(Dns::PORT),
            to_address: (*probe_address)?,
            to_port: *dns.get(&number)?,
        })
    })
}

/// `natbox check` and the translator agree on the forwards that share their ports.
const _: () = assert!(Forward::SHARED_PORTS == nat::Forward::SHARED_PORTS);

/// Limits an MTU to the length of an IPv4 packet. An interface may have a longer one (`lo`: 65536).
pub(super) fn mtu(bytes: u32) -> u16 {
    bytes.min(u32::from(u16::MAX)) as u16
}

fn tier(tier: u32) -> u8 {
    u8::try_from(tier).expect("the configuration allows no larger one")
}

/// Returns the number of the uplink at a place of the configuration.
fn number(config: &Config, place: usize) -> u8 {
    config.uplinks[place].numbers.uplink
}

//! The configuration written back in the file's own schema, every value present.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use super::dns::DnsForm;
use super::model::{
    Config, Forward, ForwardProtocol, Health, MssClamp, PortRange, Uplink, Workers,
};
use super::types::values::Span;
use super::types::words::ConfigEnum;

/// The effective configuration as a file; [`super::parse`] reads it back to an equal one.
pub fn to_yaml(config: &Config) -> String {
    serde_yaml_ng::to_string(&FileForm::from(config))
        .expect("texts, numbers and lists of them always serialise")
}

/// The same as JSON, on several lines; JSON is YAML, so [`super::parse`] reads this too.
pub fn to_json(config: &Config) -> String {
    serde_json::to_string_pretty(&FileForm::from(config))
        .expect("texts, numbers and lists of them always serialise")
}

#[derive(Serialize)]
struct FileForm<'c> {
    name: &'c str,
    tun: TunForm<'c>,
    inside: InsideForm<'c>,
    uplinks: Vec<UplinkForm<'c>>,
    forwards: Vec<ForwardForm<'c>>,
    outbound: Vec<RuleForm<'c>>,
    no_nat: Vec<NoNatForm>,
    nat: NatForm,
    timeouts: TimeoutsForm,
    limits: LimitsForm,
    host: HostForm,
    admin: AdminForm,
    state: StateForm,
    log: LogForm,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<DnsForm<'c>>,
}

#[derive(Serialize)]
struct TunForm<'c> {
    name: &'c str,
    workers: NumberOrWord,
    io: &'static str,
    offload: &'static str,
    busy_poll: String,
}

#[derive(Serialize)]
struct InsideForm<'c> {
    interface: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    prefixes: Vec<String>,
}

#[derive(Serialize)]
struct UplinkForm<'c> {
    name: &'c str,
    interface: &'c str,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Ipv4Addr>,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthForm<'c>>,
    on_failure: &'static str,
    failback: &'static str,
}

#[derive(Serialize)]
struct HealthForm<'c> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ping: &'c [Ipv4Addr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tcp: &'c [SocketAddrV4],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http: Vec<&'c str>,
    quorum: u32,
    interval: String,
    fall: u32,
    rise: u32,
}

#[derive(Serialize)]
struct ForwardForm<'c> {
    name: &'c str,
    uplink: &'c str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<NumberOrWord>,
    #[serde(skip_serializing_if = "Ipv4Addr::is_unspecified")]
    address: Ipv4Addr,
    to: String,
}

#[derive(Serialize)]
struct RuleForm<'c> {
    from: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<String>,
    uplinks: Vec<&'c str>,
    hash_by: &'static str,
}

#[derive(Serialize)]
struct NoNatForm {
    to: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<NumberOrWord>,
}

#[derive(Serialize)]
struct NatForm {
    mapping: &'static str,
    filtering: &'static str,
    hairpin: bool,
    ports: NumberOrWord,
    mss_clamp: NumberOrWord,
    address_pooling: &'static str,
    port_parity: bool,
    port_overlapping: bool,
    inbound_refresh: bool,
    reject_with: &'static str,
    unsolicited_syn: &'static str,
}

#[derive(Serialize)]
struct TimeoutsForm {
    tcp_established: String,
    tcp_transitory: String,
    tcp_syn: String,
    udp: String,
    udp_dns: String,
    icmp: String,
    fragment: String,
    port_reuse_delay: String,
}

#[derive(Serialize)]
struct LimitsForm {
    sessions: u32,
    sessions_per_host: u32,
    new_sessions_per_host: u32,
    fragments: u32,
    delayed_ports: u32,
    icmp_errors_per_host: u32,
}

#[derive(Serialize)]
struct HostForm {
    manage: bool,
}

#[derive(Serialize)]
struct AdminForm {
    socket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
}

#[derive(Serialize)]
struct StateForm {
    keep: bool,
}

#[derive(Serialize)]
struct LogForm {
    level: &'static str,
    format: &'static str,
    mappings: bool,
}

/// A number where one will do, or else a word.
#[derive(Serialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u16),
    Word(String),
}

impl<'c> From<&'c Config> for FileForm<'c> {
    fn from(config: &'c Config) -> Self {
        let Config { tun, inside, nat, timeouts, limits, .. } = config;
        Self {
            name: &config.name,
            tun: TunForm {
                name: &tun.name,
                workers: match tun.workers {
                    Workers::Auto => NumberOrWord::Word("auto".into()),
                    Workers::Count(number) => NumberOrWord::Number(number),
                },
                io: tun.io.word(),
                offload: tun.offload.word(),
                busy_poll: Span(tun.busy_poll).to_string(),
            },
            inside: InsideForm {
                interface: &inside.interface,
                address: inside.address,
                prefixes: inside.prefixes.iter().map(ToString::to_string).collect(),
            },
            uplinks: config.uplinks.iter().map(UplinkForm::from).collect(),
            forwards: config
                .forwards
                .iter()
                .map(|forward| ForwardForm::new(forward, &config.uplinks))
                .collect(),
            outbound: config
                .outbound
                .iter()
                .map(|rule| RuleForm {
                    from: rule.from.to_string(),
                    to: rule.to.iter().map(ToString::to_string).collect(),
                    hash_by: rule.hash_by.word(),
                    uplinks: rule
                        .uplinks
                        .iter()
                        .map(|index| config.uplinks[*index].name.as_str())
                        .collect(),
                })
                .collect(),
            no_nat: config
                .no_nat
                .iter()
                .map(|rule| NoNatForm {
                    to: rule.to.to_string(),
                    protocol: rule.protocol.word(),
                    port: (rule.ports != PortRange::ALL).then(|| rule.ports.into()),
                })
                .collect(),
            nat: NatForm {
                mapping: nat.mapping.word(),
                filtering: nat.filtering.word(),
                hairpin: nat.hairpin,
                ports: nat.ports.into(),
                mss_clamp: match nat.mss_clamp {
                    MssClamp::Auto => NumberOrWord::Word("auto".into()),
                    MssClamp::Off => NumberOrWord::Word("off".into()),
                    MssClamp::To(bytes) => NumberOrWord::Number(bytes),
                },
                address_pooling: nat.address_pooling.word(),
                port_parity: nat.port_parity,
                port_overlapping: nat.port_overlapping,
                inbound_refresh: nat.inbound_refresh,
                reject_with: nat.reject_with.word(),
                unsolicited_syn: nat.unsolicited_syn.word(),
            },
            timeouts: TimeoutsForm {
                tcp_established: Span(timeouts.tcp_established).to_string(),
                tcp_transitory: Span(timeouts.tcp_transitory).to_string(),
                tcp_syn: Span(timeouts.tcp_syn).to_string(),
                udp: Span(timeouts.udp).to_string(),
                udp_dns: Span(timeouts.udp_dns).to_string(),
                icmp: Span(timeouts.icmp).to_string(),
                fragment: Span(timeouts.fragment).to_string(),
                port_reuse_delay: Span(timeouts.port_reuse_delay).to_string(),
            },
            limits: LimitsForm {
                sessions: limits.sessions,
                sessions_per_host: limits.sessions_per_host,
                new_sessions_per_host: limits.new_sessions_per_host,
                fragments: limits.fragments,
                delayed_ports: limits.delayed_ports,
                icmp_errors_per_host: limits.icmp_errors_per_host,
            },
            host: HostForm { manage: config.host.manage },
            admin: AdminForm {
                socket: config.admin.socket.display().to_string(),
                http: config.admin.http.map(|listener| listener.to_string()),
            },
            state: StateForm { keep: config.state.keep },
            log: LogForm {
                level: config.log.level.word(),
                format: config.log.format.word(),
                mappings: config.log.mappings,
            },
            dns: config.dns.as_ref().map(|dns| DnsForm::new(dns, &config.uplinks)),
        }
    }
}

impl<'c> From<&'c Uplink> for UplinkForm<'c> {
    fn from(uplink: &'c Uplink) -> Self {
        let health = |health: &'c Health| HealthForm {
            ping: &health.ping,
            tcp: &health.tcp,
            http: health.http.iter().map(|page| page.0.as_str()).collect(),
            quorum: health.quorum,
            interval: Span(health.interval).to_string(),
            fall: health.fall,
            rise: health.rise,
        };
        Self {
            name: &uplink.name,
            interface: &uplink.interface,
            addresses: match uplink.follows_interface {
                true => vec!["interface".to_owned()],
                false => ranges(&uplink.addresses),
            },
            gateway: uplink.gateway,
            weight: uplink.weight,
            health: uplink.health.as_ref().map(health),
            on_failure: uplink.on_failure.word(),
            failback: uplink.failback.word(),
        }
    }
}

impl<'c> ForwardForm<'c> {
    fn new(forward: &'c Forward, uplinks: &'c [Uplink]) -> Self {
        let (port, to) = match forward.protocol {
            ForwardProtocol::Icmp | ForwardProtocol::Any => (None, forward.to_address.to_string()),
            ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp => {
                (Some(forward.ports.into()), format!("{}:{}", forward.to_address, forward.to_port))
            }
        };
        Self {
            name: &forward.name,
            uplink: &uplinks[forward.uplink].name,
            protocol: forward.protocol.word(),
            port,
            address: forward.address,
            to,
        }
    }
}

impl From<PortRange> for NumberOrWord {
    fn from(ports: PortRange) -> Self {
        if ports.first == ports.last {
            Self::Number(ports.first)
        } else {
            Self::Word(ports.to_string())
        }
    }
}

/// Addresses in their order, runs within one last octet as `a.b.c.d-e`.
fn ranges(addresses: &[Ipv4Addr]) -> Vec<String> {
    let follows = |one: &Ipv4Addr, next: &Ipv4Addr| {
        one.octets()[..3] == next.octets()[..3]
            && one.octets()[3].checked_add(1) == Some(next.octets()[3])
    };
    addresses
        .chunk_by(follows)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{}", last.octets()[3]),
            [] | [_] => run.iter().map(Ipv4Addr::to_string).collect(),
        })
        .collect()
}

//! The effective configuration: every value present, checked and in its own type.
//!
//! Only [`super::load`] makes one from a file, so whoever holds a [`Config`] may rely on what the field docs say.
//! Defaults are written here, once, and nowhere else.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::dns::Dns;

/// One box.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the box: letters, digits, `-`, `_`, `.`; default: the file's name without its ending.
    pub name: String,
    /// The TUN device and its workers.
    pub tun: Tun,
    /// The private leg.
    pub inside: Inside,
    /// The public legs, at least one, names unique.
    pub uplinks: Vec<Uplink>,
    /// Published services. No two publish the same protocol, address and port.
    pub forwards: Vec<Forward>,
    /// Who may go out, and through which uplinks; the longest matching prefix decides.
    pub outbound: Vec<OutboundRule>,
    /// Destinations that inside hosts reach without translation (RFC 6888 REQ-6), at most 64.
    pub no_nat: Vec<NoNatRule>,
    /// Behaviour of the translator.
    pub nat: Nat,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Bounds of memory and of what one host may use.
    pub limits: Limits,
    /// What natbox may do to the host.
    pub host: Host,
    /// The admin interfaces.
    pub admin: Admin,
    /// Whether sessions outlive the process.
    pub state: State,
    /// Log output.
    pub log: Log,
    /// DNS that follows the lines; none: it is left alone.
    pub dns: Option<Dns>,
}

/// The TUN device and its workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tun {
    /// Interface name, 1 to 15 bytes; default `nb0`.
    pub name: String,
    /// Queues, one thread each.
    pub workers: Workers,
    /// I/O backend.
    pub io: IoBackend,
    /// Where on the ladder of offloads to start; `Auto` takes the best that the kernel grants.
    pub offload: OffloadLimit,
    /// How long to poll before sleeping while traffic flows; zero: never; at most 1 ms.
    pub busy_poll: Duration,
}

/// Number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Half as many as there are usable cores.
    Auto,
    /// 1 to 256.
    Count(u16),
}

/// I/O backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// The best that works here.
    Auto,
    /// io_uring.
    Uring,
    /// One read or write call a packet, and poll.
    Poll,
}

/// Upper bound on the offload ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadLimit {
    /// `auto`: whatever the kernel grants, best first.
    Auto,
    /// `tso+uso`: TCP and UDP segmentation and checksums; the same start as `Auto`.
    TsoUso,
    /// `tso`: TCP segmentation and checksums.
    Tso,
    /// `checksum`: checksums only.
    Checksum,
    /// `none`: plain packets of at most the interface's MTU, complete checksums.
    None,
}

/// The private leg.
#[derive(Clone, Debug, PartialEq)]
pub struct Inside {
    /// Interface towards the private network.
    pub interface: String,
    /// The box's own address there, the next hop of the servers; within [`Self::prefixes`]. None: whatever it is; then only the
    /// box itself knows.
    pub address: Option<Ipv4Addr>,
    /// Private prefixes behind it, at least one, not overlapping one another.
    pub prefixes: Vec<Ipv4Net>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Unique among the uplinks.
    pub name: String,
    /// Interface towards the line; never the inside interface.
    pub interface: String,
    /// External addresses, at least one, at most 1024, none inside an inside prefix, none shared between uplinks. Where they
    /// follow the interface: what it had when it was looked at last, [`Config::resolve`]; before that `0.0.0.0`.
    pub addresses: Vec<Ipv4Addr>,
    /// The address is the interface's own, whatever it is at the moment.
    pub follows_interface: bool,
    /// Next hop; present whenever there are several uplinks, but for those that follow their interface.
    pub gateway: Option<Ipv4Addr>,
    /// Share of new outbound mappings, 1 to 1000; default 1.
    pub weight: u32,
    /// Health check, if any.
    pub health: Option<Health>,
    /// What becomes of its sessions when it fails while another line is healthy; default [`OnFailure::Keep`].
    pub on_failure: OnFailure,
    /// What becomes of sessions that went elsewhere when it is back; default [`Failback::NewSessions`].
    pub failback: Failback,
}

/// Health check of an uplink. Every interval all targets are asked, over this line alone; a round is good when enough of
/// them answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Whom to send ICMP echo requests.
    pub ping: Vec<Ipv4Addr>,
    /// To whom to open a TCP connection.
    pub tcp: Vec<SocketAddrV4>,
    /// Pages to ask for with HEAD; good is an answer of status 200 to 399.
    pub http: Vec<WebTarget>,
    /// Answers that make a round good; default 1, at most the number of targets.
    pub quorum: u32,
    /// Time between rounds; default 1 s.
    pub interval: Duration,
    /// Intervals without a good round that take the line down; default 3.
    pub fall: u32,
    /// Good rounds in a row that bring it back; default 3.
    pub rise: u32,
}

/// A page with scheme `http` or `https`, and with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebTarget(pub reqwest::Url);

/// What becomes of the sessions of a line that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// `keep`: they go on; inside endpoints that have a mapping on the line stay on it.
    #[default]
    Keep,
    /// `drain`: they go on; whatever begins anew goes over other lines.
    Drain,
    /// `reset`: they end, and the inside is told (TCP reset, ICMP error), so that it can begin again at once.
    Reset,
}

/// What happens when a line is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// `new-sessions`: what begins from now on may take it.
    #[default]
    NewSessions,
    /// `reset`: sessions from inside that would take it end as with [`OnFailure::Reset`], so that they begin again on it.
    Reset,
}

/// One published service on one uplink address. Where the file leaves out the uplink, [`super::load`] has made one
/// entry per uplink, so `uplink` and `address` are always definite.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Name from the file; several entries share it when the file leaves out the uplink.
    pub name: String,
    /// Index into [`Config::uplinks`].
    pub uplink: usize,
    /// What is published.
    pub protocol: ForwardProtocol,
    /// Published external address, one of the uplink's; `0.0.0.0` if that follows its interface.
    pub address: Ipv4Addr,
    /// Published ports; 0-65535 for [`ForwardProtocol::Icmp`] and [`ForwardProtocol::Any`].
    pub ports: PortRange,
    /// The server.
    pub to_address: Ipv4Addr,
    /// Port of the server that the first published port maps to; the rest keep their offset. The last one fits
    /// below 65536. Equal to `ports.first` for [`ForwardProtocol::Icmp`] and [`ForwardProtocol::Any`].
    pub to_port: u16,
}

/// Protocols that a forward may publish, or that an exemption is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProtocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `tcp+udp`
    TcpUdp,
    /// `icmp`: echo requests to the address.
    Icmp,
    /// `any`: the whole address, every protocol and port, ports unchanged.
    Any,
}

/// An inclusive, non-empty range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
}

/// Sources that may go out.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundRule {
    /// Sources; lies within an inside prefix.
    pub from: Ipv4Net,
    /// Destinations; none: all.
    pub to: Vec<Ipv4Net>,
    /// Indices into [`Config::uplinks`], at least one, no repeats.
    pub uplinks: Vec<usize>,
    /// What is spread over them; default [`HashBy::SourcePort`].
    pub hash_by: HashBy,
}

/// What is spread over the uplinks of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// `source-port`: each inside address and port by itself.
    SourcePort,
    /// `source-address`: each inside address with all its ports.
    SourceAddress,
}

/// Destinations towards which nothing is translated, and whose packets reach the inside as they are. Packets for them
/// leave by the host's own routes, not by those of an uplink's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNatRule {
    /// Their addresses.
    pub to: Ipv4Net,
    /// Protocols; default any.
    pub protocol: ForwardProtocol,
    /// Ports at the destination; default [`PortRange::ALL`], and always that for [`ForwardProtocol::Icmp`] and
    /// [`ForwardProtocol::Any`].
    pub ports: PortRange,
}

impl NoNatRule {
    /// Protocols where the file says nothing.
    pub const DEFAULT_PROTOCOL: ForwardProtocol = ForwardProtocol::Any;
}

impl PortRange {
    /// Every port, and what protocols without ports have in their place.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };
}

/// Behaviour of the translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// RFC 4787 section 4.1; default endpoint-independent.
    pub mapping: EndpointDependence,
    /// RFC 4787 section 5; default address-and-port-dependent.
    pub filtering: EndpointDependence,
    /// Whether inside hosts reach one another through external addresses (RFC 4787 section 6); default true.
    pub hairpin: bool,
    /// Dynamic external ports; default 1024-65535.
    pub ports: PortRange,
    /// TCP MSS clamp.
    pub mss_clamp: MssClamp,
    /// What becomes of a host whose external address has no port left (RFC 7857 section 4); default strict.
    pub address_pooling: AddressPooling,
    /// Whether an even UDP port gets an even one, and an odd one an odd one (RFC 4787 REQ-4); default true.
    pub port_parity: bool,
    /// Whether mappings towards different destinations may share an external port (RFC 7857 section 3); default false.
    /// Needs a mapping behaviour that is not endpoint-independent.
    pub port_overlapping: bool,
    /// Whether packets from outside keep a dynamic UDP mapping alive (RFC 4787 REQ-6a); default true.
    pub inbound_refresh: bool,
    /// How an inside host learns that no mapping can be made for it (RFC 5508 REQ-8, RFC 6888 REQ-11).
    pub reject_with: RejectWith,
    /// What an outside host learns whose SYN nobody waits for (RFC 5382 REQ-4); default silence.
    pub unsolicited_syn: UnsolicitedSyn,
}

/// What becomes of a host whose external address has no port left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPooling {
    /// `strict`: its new sessions are refused.
    Paired,
    /// `soft`: they go out under another address of the line.
    PairedSoft,
}

/// How an inside host learns that no mapping can be made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectWith {
    /// `admin-prohibited`: ICMP type 3, code 13.
    AdminProhibited,
    /// `host-unreachable`: ICMP type 3, code 1.
    HostUnreachable,
    /// `none`: not at all.
    None,
}

/// What an outside host learns whose SYN nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsolicitedSyn {
    /// `silent`: nothing.
    Drop,
    /// `delayed-reject`: port unreachable after 6 s, unless the inside dials meanwhile.
    DelayedReject,
}

/// On what part of the remote endpoint a mapping or filter depends (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointDependence {
    /// `endpoint-independent`
    EndpointIndependent,
    /// `address-dependent`
    AddressDependent,
    /// `address-and-port-dependent`
    AddressAndPortDependent,
}

/// TCP MSS clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// `auto`: to the smaller of the two legs' MTU, less 40.
    Auto,
    /// `off`
    Off,
    /// A number of bytes, 88 to 65495.
    To(u16),
}

/// Idle timeouts, each 1 s to 24 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Open connections; default 2 h 4 min (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// Closing and reset connections; default 4 min (RFC 5382 REQ-5).
    pub tcp_transitory: Duration,
    /// First SYN without an answer; default 30 s.
    pub tcp_syn: Duration,
    /// UDP; default 5 min (RFC 4787 REQ-5).
    pub udp: Duration,
    /// UDP to port 53 once answered; default 10 s.
    pub udp_dns: Duration,
    /// ICMP queries; default 60 s (RFC 5508 REQ-2).
    pub icmp: Duration,
    /// Incomplete fragment sets; default 15 s.
    pub fragment: Duration,
    /// How long a freed port is kept for its last holder; zero: not at all; default 2 min (RFC 6888 REQ-8).
    pub port_reuse_delay: Duration,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at one time, exact; 1 to 512 M; default 1 M.
    pub sessions: u32,
    /// Sessions one inside host may have opened; 0: no limit; default 64 k.
    pub sessions_per_host: u32,
    /// New sessions a second one inside host may open; 0: no limit; default 0.
    pub new_sessions_per_host: u32,
    /// Datagrams in reassembly tracking at one time; default 4096.
    pub fragments: u32,
    /// Freed ports kept for their last holders, on each external address for each protocol; default 16 k.
    pub delayed_ports: u32,
    /// ICMP errors of natbox's own to one host in a second; 0: no limit; default 100 (RFC 1812 section 4.3.2.8).
    pub icmp_errors_per_host: u32,
}

/// What natbox may do to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Set routes, rules, sysctls and proxy ARP, and take back what was set; default true.
    pub manage: bool,
}

/// Admin interfaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Unix socket; default `/run/natbox/NAME.sock`.
    pub socket: PathBuf,
    /// HTTP listener; default none.
    pub http: Option<SocketAddr>,
}

/// Session state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Sessions outlive the process; default false.
    pub keep: bool,
}

/// Log output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe level printed; default info.
    pub level: LogLevel,
    /// Text or JSON lines; default text.
    pub format: LogFormat,
    /// Whether the beginning and end of each mapping is logged (RFC 6888 section 4); default false.
    pub mappings: bool,
}

/// Log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// A person should look.
    Warn,
    /// Start, stop, what was found.
    Info,
    /// With client addresses.
    Debug,
    /// Everything (debug builds have per-packet lines).
    Trace,
}

/// Log formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Inside {
    /// The longest prefix that an address is in.
    pub fn prefix_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let prefixes = self.prefixes.iter().filter(|prefix| prefix.contains(&address));
        prefixes.max_by_key(|prefix| prefix.prefix_len()).copied()
    }
}

impl Uplink {
    /// Most external addresses of one uplink.
    pub const MAX_ADDRESSES: usize = 1024;
    /// Whether the box itself speaks over this line, and so needs an endpoint of its own on it.
    pub fn has_own_endpoint(&self) -> bool {
        self.health.is_some()
    }

    /// Most uplinks of one box: as many as its block of routing tables has room for.
    pub const MAX: usize = 31;
    /// Weight of an uplink for which the file gives none.
    pub const DEFAULT_WEIGHT: u32 = 1;
}

impl OutboundRule {
    /// What is spread if the file does not say.
    pub const DEFAULT_HASH_BY: HashBy = HashBy::SourcePort;
}

impl Health {
    /// Time between probes if the file gives none.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
    /// Intervals without a good round that take the line down if the file gives no number.
    pub const DEFAULT_FALL: u32 = 3;
    /// Good rounds in a row that bring it back if the file gives no number.
    pub const DEFAULT_RISE: u32 = 3;
    /// Answers that make a round good if the file gives no number.
    pub const DEFAULT_QUORUM: u32 = 1;
    /// Most targets of each kind.
    pub const MAX_TARGETS: u32 = 16;

    /// How many are asked in a round.
    pub fn targets(&self) -> usize {
        self.ping.len() + self.tcp.len() + self.http.len()
    }
}

impl Timeouts {
    /// Longest timeout: what [`crate::time::Tick`]s can order.
    pub const MAX: Duration = Duration::from_secs(24 * 24 * 3600);
}

impl Limits {
    /// Largest value of [`Limits::sessions`] and of the limits per host.
    pub const MAX_SESSIONS: u32 = 512_000_000;
    /// Largest value of [`Limits::fragments`].
    pub const MAX_FRAGMENTS: u32 = 1_000_000;
    /// Largest value of [`Limits::delayed_ports`]: all there are.
    pub const MAX_PORTS: u32 = 65_536;
}

impl Admin {
    /// The socket of a box of this name if the file gives none.
    pub fn default_socket(name: &str) -> PathBuf {
        PathBuf::from(format!("/run/natbox/{name}.sock"))
    }
}

impl Default for Tun {
    fn default() -> Self {
        Self {
            name: "nb0".into(),
            workers: Workers::Auto,
            io: IoBackend::Auto,
            offload: OffloadLimit::Auto,
            busy_poll: Duration::from_micros(50),
        }
    }
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            mapping: EndpointDependence::EndpointIndependent,
            filtering: EndpointDependence::AddressAndPortDependent,
            hairpin: true,
            ports: PortRange { first: 1024, last: 65535 },
            mss_clamp: MssClamp::Auto,
            address_pooling: AddressPooling::Paired,
            port_parity: true,
            port_overlapping: false,
            inbound_refresh: true,
            reject_with: RejectWith::AdminProhibited,
            unsolicited_syn: UnsolicitedSyn::Drop,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            tcp_syn: Duration::from_secs(30),
            udp: Duration::from_secs(5 * 60),
            udp_dns: Duration::from_secs(10),
            icmp: Duration::from_secs(60),
            fragment: Duration::from_secs(15),
            port_reuse_delay: Duration::from_secs(2 * 60),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1_000_000,
            sessions_per_host: 64_000,
            new_sessions_per_host: 0,
            fragments: 4096,
            delayed_ports: 16_000,
            icmp_errors_per_host: 100,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self { manage: true }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text, mappings: false }
    }
}

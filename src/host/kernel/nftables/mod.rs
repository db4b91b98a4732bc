//! A table of nftables that belongs to this process: the filter of private addresses.
//!
//! natbox sends the messages itself and runs no `nft`, because the table belongs to the socket that
//! made it (`NFT_TABLE_F_OWNER`, Linux 5.12). So `nft flush ruleset` of another program spares the
//! table, and the kernel removes the table when the process ends, however it ends.
//!
//! If the sessions outlive the process, so does the table (`NFT_TABLE_F_PERSIST`, Linux 6.9): while
//! no process runs, the table filters, and the kernel spends no time on its removal. The next
//! process replaces the table.
//!
//! | file    | content                                       |
//! |---------|-----------------------------------------------|
//! | `batch` | messages to nftables                          |
//! | this    | the socket, and the rules of the filter       |

mod batch;

use std::io;
use std::os::fd::OwnedFd;

use ipnet::Ipv6Net;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use self::batch::{Base, Batch, Expression, HEADER, Hook, Meta};
use crate::host::error::HostError;
use crate::host::model::private_filter::{self, FilteredInterface, PRIVATE_IPV6, PrivateFilter};

/// Order of the chains among those of other programs: first on the way in, last on the way out.
const INGRESS_PRIORITY: i32 = -500;
const EGRESS_PRIORITY: i32 = 500;
/// Names of the chains for packets with a closed address.
const CLOSED_IN: &str = "closed-in";
const CLOSED_OUT: &str = "closed-out";
/// Name of the chain for packets with a private IPv6 source.
const CLOSED_OUT_IPV6: &str = "closed-out-ipv6";
/// Names of the sets for packets without translation.
const INSIDE: &str = "inside";
const NO_NAT: &str = "no-nat";
/// EtherTypes.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// The two addresses of an IPv4 header.
const SOURCE: Expression<'static> = Expression::Load { base: Base::Network, offset: 12, length: 4 };
const DESTINATION: Expression<'static> =
    Expression::Load { base: Base::Network, offset: 16, length: 4 };
/// The source in an IPv6 header.
const SOURCE_IPV6: Expression<'static> =
    Expression::Load { base: Base::Network, offset: 8, length: 16 };
/// The two addresses of an Ethernet header.
const HARDWARE_SOURCE: Expression<'static> =
    Expression::Load { base: Base::Link, offset: 6, length: 6 };
const HARDWARE_DESTINATION: Expression<'static> =
    Expression::Load { base: Base::Link, offset: 0, length: 6 };
/// `NLMSG_ERROR`: the kernel's answer, success included.
const ANSWER: u16 = 2;

/// The table of this process. The kernel removes the table when the value is dropped, unless the
/// table persists.
pub(crate) struct FilterTable {
    name: String,
    /// The table outlives the process.
    persists: bool,
    /// None until the table is first set.
    socket: Option<OwnedFd>,
    /// The filter as it is set.
    current: Option<PrivateFilter>,
    /// A process before this one may have left a table.
    may_be_left: bool,
}

impl FilterTable {
    /// Names the table of the instance with this TUN device. Changes nothing yet.
    pub(crate) fn new(tun: &str, persists: bool) -> Self {
        let (socket, current) = (None, None);
        Self { name: private_filter::table(tun), persists, socket, current, may_be_left: true }
    }

    /// Sets, replaces or removes the filter, unless it is as wanted. Packets never find a part of
    /// it.
    ///
    /// # Errors
    /// When the kernel refuses the filter. The previous one stays.
    pub(crate) fn set(&mut self, wanted: Option<PrivateFilter>) -> Result<(), HostError> {
        if self.current == wanted && !self.may_be_left {
            return Ok(());
        }
        let Some(filter) = &wanted else {
            let is_set = self.current.is_some();
            let removed = self.remove();
            // What another process has set there, or a kernel without nftables, does not matter.
            return if is_set { removed.map(drop) } else { Ok(()) };
        };
        let socket = self.connected()?;
        let sent = self.send(&socket, filter);
        self.socket = Some(socket);
        sent.map_err(|source| {
            let doing = format!("setting the table {} of nftables", self.name);
            HostError::Netlink { doing, source }
        })?;
        (self.current, self.may_be_left) = (wanted, false);
        Ok(())
    }

    /// Removes the table. Returns false if there is none.
    ///
    /// # Errors
    /// When the table belongs to another process.
    pub(crate) fn remove(&mut self) -> Result<bool, HostError> {
        let socket = self.connected()?;
        let mut batch = Batch::begin(&self.name);
        batch.delete_table();
        (self.current, self.may_be_left) = (None, false);
        match exchange(&socket, &batch.end()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                let doing = format!("removing the table {} of nftables", self.name);
                Err(HostError::Netlink { doing, source })
            }
        }
    }

    fn connected(&mut self) -> Result<OwnedFd, HostError> {
        let doing = "connecting to nftables";
        let connected = self.socket.take().map_or_else(connect, Ok);
        connected.map_err(|source| HostError::Netlink { doing: doing.to_owned(), source })
    }

    /// Sends a filter, with as much of it as the kernel knows.
    fn send(&self, socket: &OwnedFd, filter: &PrivateFilter) -> io::Result<()> {
        let mut result = Ok(());
        for options in Options::all(self.persists) {
            let send = |options| exchange(socket, &changes(&self.name, filter, options));
            result = match send(options) {
                Err(error) if is_missing(&error) && self.current.is_none() => {
                    send(Options { replaces: false, ..options })
                }
                result => result,
            };
            let is_unknown = |error: &io::Error| {
                error.raw_os_error() == Some(libc::EOPNOTSUPP) || is_missing(error)
            };
            if !result.as_ref().is_err_and(is_unknown) {
                break;
            }
        }
        result
    }
}

/// Returns true if the kernel has no such table, or no such expression.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The way of packets through an interface.
struct PacketWay {
    /// First part of the names of its base chains. The name of the interface follows.
    prefix: &'static str,
    hook: Hook,
    priority: i32,
    /// Chain for packets with a closed address.
    chain: &'static str,
    /// The address that may be closed.
    closed: Expression<'static>,
    /// The other address.
    other: Expression<'static>,
    /// The hardware address of the host.
    hardware: Expression<'static>,
}

const IN: PacketWay = PacketWay {
    prefix: "in",
    hook: Hook::Ingress,
    priority: INGRESS_PRIORITY,
    chain: CLOSED_IN,
    closed: DESTINATION,
    other: SOURCE,
    hardware: HARDWARE_DESTINATION,
};
const OUT: PacketWay = PacketWay {
    prefix: "out",
    hook: Hook::Egress,
    priority: EGRESS_PRIORITY,
    chain: CLOSED_OUT,
    closed: SOURCE,
    other: DESTINATION,
    hardware: HARDWARE_SOURCE,
};

/// How a filter is set.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// The table exists.
    replaces: bool,
    /// The table outlives the process: Linux 6.9.
    persists: bool,
    /// The kernel knows packets that came out of IPsec.
    has_ipsec: bool,
    /// The kernel can send a packet by another interface.
    sends: bool,
}

impl Options {
    /// Lists what a kernel may know, more of it first.
    fn all(persists: bool) -> impl Iterator<Item = Self> {
        let flags = [true, false];
        flags.into_iter().filter(move |flag| persists || !flag).flat_map(move |persists| {
            flags.into_iter().flat_map(move |has_ipsec| {
                flags.map(|sends| Self { replaces: true, persists, has_ipsec, sends })
            })
        })
    }
}

fn connect() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends a batch and reads the kernel's answer. The kernel has answered when the call for sending
/// returns.
fn exchange(socket: &OwnedFd, batch: &[u8]) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, batch, SendFlags::empty(), &kernel)?;
    let mut buffer = [0; 8192];
    // The first answer decides. Others are errors of later messages of the batch.
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    let outcome = outcome(&buffer[..length.min(buffer.len())]);
    while rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).is_ok() {}
    outcome
}

/// Reads an answer: `nlmsghdr`, then an error number, which is negative or zero.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let unknown = || io::Error::other("the kernel's answer is unknown");
    let (header, rest) = answer.split_at_checked(HEADER).ok_or_else(unknown)?;
    let number = rest.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or_else(unknown)?;
    match (u16::from_ne_bytes([header[4], header[5]]), number) {
        (ANSWER, 0) => Ok(()),
        (ANSWER, number) => Err(io::Error::from_raw_os_error(-number)),
        _ => Err(unknown()),
    }
}

/// Makes the batch of a filter.
///
/// A packet with an external address passes one comparison, or a few if there are several such
/// addresses. Another one passes a set on the way in, and on the way out one or two, and one for
/// each uplink by another interface.
fn changes(table: &str, filter: &PrivateFilter, options: Options) -> Vec<u8> {
    let mut batch = Batch::begin(table);
    if options.replaces {
        batch.delete_table();
    }
    batch.new_table(options.persists);
    let has_no_nat = !filter.no_nat.is_empty();
    if has_no_nat {
        batch.new_set(INSIDE, &filter.inside);
        batch.new_set(NO_NAT, &filter.no_nat);
    }
    for chain in [CLOSED_IN, CLOSED_OUT, CLOSED_OUT_IPV6] {
        batch.new_chain(chain);
        pass_other_vlans(&mut batch, chain);
    }
    if options.has_ipsec {
        // IPsec gives the inner packet the interface of the outer one.
        let from_ipsec = Expression::LoadMeta(Meta::FromIpsec);
        batch.new_rule(CLOSED_IN, &[from_ipsec, Expression::IsEqual(&[1]), Expression::Accept]);
    }
    for way in [&IN, &OUT] {
        if has_no_nat {
            let (is_inside, is_exempt) = (Expression::IsIn(INSIDE), Expression::IsIn(NO_NAT));
            let rule = [way.closed, is_inside, way.other, is_exempt, Expression::Accept];
            batch.new_rule(way.chain, &rule);
        }
        batch.new_rule(way.chain, &[Expression::Count, Expression::Drop]);
    }
    batch.new_rule(CLOSED_OUT_IPV6, &[Expression::Count, Expression::Drop]);
    for way in filter.ways_out.iter().filter(|_| options.sends) {
        let chain = chain_of_uplink(way.uplink);
        batch.new_chain(&chain);
        pass_other_vlans(&mut batch, &chain);
        let (interface, via) =
            (Expression::SetInterface(way.index), Expression::SetNextHop(way.via));
        batch.new_rule(&chain, &[Expression::Count, interface, via, Expression::Send]);
    }
    for interface in &filter.interfaces {
        add_interface(&mut batch, interface, options);
    }
    batch.end()
}

/// Names the chain that sends packets by an uplink.
fn chain_of_uplink(uplink: usize) -> String {
    format!("by-uplink-{}", uplink + 1)
}

/// Adds the chains of an interface.
fn add_interface(batch: &mut Batch<'_>, interface: &FilteredInterface, options: Options) {
    let name = &interface.name;
    let closed = format!("closed-{name}");
    batch.new_set(&closed, &interface.closed);
    // Each set of sources, with the chain for packets out.
    let mut out: Vec<(String, String)> = Vec::new();
    for (uplink, sources) in interface.astray.iter().filter(|_| options.sends) {
        let set = format!("of-uplink-{}-{name}", uplink + 1);
        batch.new_set(&set, sources);
        out.push((set, chain_of_uplink(*uplink)));
    }
    out.push((closed.clone(), CLOSED_OUT.to_owned()));
    if !interface.others.is_empty() {
        let others = format!("others-{name}");
        batch.new_set(&others, &interface.others);
        out.push((others, CLOSED_OUT.to_owned()));
    }
    let above = (!interface.networks_above.is_empty()).then(|| format!("above-{name}"));
    if let Some(above) = &above {
        batch.new_set(above, &interface.networks_above);
    }
    for (way, sets) in [(&IN, vec![(closed, CLOSED_IN.to_owned())]), (&OUT, out)] {
        let (base, address) = (format!("{}-{name}", way.prefix), way.closed);
        batch.new_base_chain(&base, way.hook, name, way.priority);
        // A comparison costs a packet less than a search. A packet that is no IPv4 has such bytes
        // there by accident at most.
        for external in &interface.external {
            let octets = external.octets();
            let rule = [address, Expression::IsEqual(&octets), Expression::Accept];
            batch.new_rule(&base, &rule);
        }
        for hardware in &interface.hardware_above {
            let rule = [way.hardware, Expression::IsEqual(hardware), Expression::Accept];
            batch.new_rule(&base, &rule);
        }
        let (protocol, is_ipv4) =
            (Expression::LoadMeta(Meta::Protocol), Expression::IsEqual(&IPV4));
        for (set, chain) in &sets {
            let is_in = [protocol, is_ipv4, address, Expression::IsIn(set)];
            if let Some(above) = &above {
                let is_above = [way.other, Expression::IsIn(above), Expression::Accept];
                batch.new_rule(&base, &[&is_in[..], &is_above].concat());
            }
            batch.new_rule(&base, &[&is_in[..], &[Expression::Goto(chain)]].concat());
        }
    }
    close_private_ipv6(batch, &format!("{}-{name}", OUT.prefix), &interface.private_ipv6);
}

/// Drops packets with a private IPv6 source, except those from these networks.
fn close_private_ipv6(batch: &mut Batch<'_>, base: &str, open: &[Ipv6Net]) {
    let networks = open.iter().map(|network| (network, Expression::Accept));
    let closed = PRIVATE_IPV6.iter().map(|network| (network, Expression::Goto(CLOSED_OUT_IPV6)));
    for (network, verdict) in networks.chain(closed) {
        let (mask, bits) = (network.netmask().octets(), network.network().octets());
        let is_ipv6 = [Expression::LoadMeta(Meta::Protocol), Expression::IsEqual(&IPV6)];
        let is_within = [SOURCE_IPV6, Expression::Mask(&mask), Expression::IsEqual(&bits)];
        batch.new_rule(base, &[&is_ipv6[..], &is_within, &[verdict]].concat());
    }
}

/// Lets packets of VLANs pass: an interface also carries the packets of the VLANs above it, and one
/// of them may be an inside leg. A packet of VLAN 0 belongs to the interface itself (IEEE 802.1Q).
fn pass_other_vlans(batch: &mut Batch<'_>, chain: &str) {
    let bytes = |offset| Expression::Load { base: Base::Link, offset, length: 2 };
    for tag in &VLAN {
        batch.new_rule(
            chain,
            &[
                bytes(12),
                Expression::IsEqual(tag),
                bytes(14),
                Expression::Mask(&[0x0f, 0xff]),
                Expression::IsNot(&[0, 0]),
                Expression::Accept,
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_is_success_or_an_error_number() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            bytes
        };
        assert!(outcome(&answer(2, 0)).is_ok());
        let refused = outcome(&answer(2, -libc::EPERM)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(outcome(&answer(3, 0)).is_err());
        assert!(outcome(&answer(2, 0)[..18]).is_err());
    }
}

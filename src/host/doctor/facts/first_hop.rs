//! Finds the router that really receives the packets from an address.
//!
//! A datagram with TTL 1 expires at the first router. That router sends an ICMP error from its
//! address on the sender's side (RFC 1812 section 5.3.1). No packet goes further, and natbox need
//! not interpret any rule or table.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Slice, Ipv4HeaderSlice, UdpHeaderSlice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

/// ICMP type of the error.
const TIME_EXCEEDED: u8 = 11;
/// First port of traceroute, on which no program listens.
const PORT: u16 = 33434;
/// Number of datagrams per probe. Routers limit their ICMP errors.
const MAX_TRIES: u32 = 3;
/// Longest wait for an ICMP error.
const TIMEOUT: Duration = Duration::from_millis(700);
/// Size of the largest ICMP error, in bytes, with all that a router may quote (RFC 1812 section
/// 4.3.2.3).
const MAX_ERROR_SIZE: usize = 2048;
/// Size of a datagram without content, in bytes.
const MIN_SIZE: u32 = 28;
/// Usual MTUs in bytes: jumbo frames, Ethernet, PPPoE, tunnels, and the IPv6 minimum.
const USUAL_SIZES: [u32; 6] = [9000, 1500, 1492, 1420, 1400, 1280];

/// The first router on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstHop {
    /// The router that received the packet.
    Router(Ipv4Addr),
    /// No router answered.
    Silent,
    /// natbox could not send the packet, for this reason.
    NotProbed(String),
}

/// The result of all probes from an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HopProbe {
    pub(crate) first_hop: FirstHop,
    /// Size of the largest packet that reaches the router, in bytes. None when a packet of the
    /// wanted size reaches it.
    pub(crate) largest: Option<u32>,
}

/// A probe to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeRequest {
    /// Source, an address of the host.
    pub(super) from: Ipv4Addr,
    /// Size of the larger packets, in bytes.
    pub(super) size: u32,
}

/// Sends small packets and packets of the wanted size from each address, one request after the
/// other. A silent router costs a few seconds.
pub(super) fn probe(requests: &[ProbeRequest], to: Ipv4Addr) -> Vec<HopProbe> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let errors =
        rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP));
    match errors {
        Ok(errors) => requests.iter().map(|request| all_sizes(&errors, *request, to)).collect(),
        Err(error) => {
            let why = format!("no raw socket ({})", io::Error::from(error));
            let not_probed = HopProbe { first_hop: FirstHop::NotProbed(why), largest: None };
            vec![not_probed; requests.len()]
        }
    }
}

fn all_sizes(errors: &OwnedFd, request: ProbeRequest, to: Ipv4Addr) -> HopProbe {
    let one = |size| one_size(errors, ProbeRequest { size, ..request }, to);
    let first_hop = one(MIN_SIZE).unwrap_or_else(|error| FirstHop::NotProbed(error.to_string()));
    let arrives = |size: &u32| !matches!(one(*size), Ok(FirstHop::Silent));
    let largest = match first_hop {
        FirstHop::Router(_) if !arrives(&request.size) => {
            USUAL_SIZES.into_iter().filter(|size| *size < request.size).find(arrives)
        }
        FirstHop::Router(_) | FirstHop::Silent | FirstHop::NotProbed(_) => None,
    };
    HopProbe { first_hop, largest }
}

/// Sends unfragmented packets of the requested size.
fn one_size(errors: &OwnedFd, request: ProbeRequest, to: Ipv4Addr) -> io::Result<FirstHop> {
    let socket = UdpSocket::bind((request.from, 0))?;
    socket.set_ttl(1)?;
    // The kernel's cached path MTU towards `to` must not count.
    rustix::net::sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    let port = socket.local_addr()?.port();
    for _ in 0..MAX_TRIES {
        socket.send_to(&vec![0; (request.size - MIN_SIZE) as usize], (to, PORT))?;
        let deadline = Instant::now() + TIMEOUT;
        while let Some(packet) = receive(errors, deadline)? {
            if let Some(router) = router(&packet, request.from, to, port) {
                return Ok(FirstHop::Router(router));
            }
        }
    }
    Ok(FirstHop::Silent)
}

/// Receives the next packet; None after the deadline.
fn receive(socket: &OwnedFd, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left))? == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0; MAX_ERROR_SIZE];
    match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((length, _)) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        // The kernel has dropped the packet because of a wrong checksum.
        Err(rustix::io::Errno::AGAIN) => Ok(Some(Vec::new())),
        Err(error) => Err(error.into()),
    }
}

/// Returns the sender of an ICMP error about the probe; None for any other packet.
fn router(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
    let outer = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let icmp = Icmpv4Slice::from_slice(&packet[outer.slice().len()..]).ok()?;
    if icmp.type_u8() != TIME_EXCEEDED {
        return None;
    }
    let quoted = Ipv4HeaderSlice::from_slice(icmp.payload()).ok()?;
    let datagram = UdpHeaderSlice::from_slice(&icmp.payload()[quoted.slice().len()..]).ok()?;
    let is_probe = (quoted.source_addr(), quoted.destination_addr(), datagram.source_port())
        == (from, to, port);
    is_probe.then(|| outer.source_addr())
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, PacketBuilder, icmpv4::TimeExceededCode};

    use super::*;

    #[test]
    fn only_the_error_about_the_probe_names_the_first_hop() {
        let [router_, own, other, far] = [1, 2, 3, 4].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let error = |from: Ipv4Addr, port: u16, kind| {
            let mut quoted = Vec::new();
            let probe = PacketBuilder::ipv4(from.octets(), far.octets(), 1).udp(port, PORT);
            probe.write(&mut quoted, &[]).unwrap();
            let mut packet = Vec::new();
            let answer = PacketBuilder::ipv4(router_.octets(), from.octets(), 64).icmpv4(kind);
            answer.write(&mut packet, &quoted).unwrap();
            packet
        };
        let exceeded = Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
        let unreachable =
            Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Network);
        assert_eq!(router(&error(own, 5000, exceeded.clone()), own, far, 5000), Some(router_));
        assert_eq!(router(&error(other, 5000, exceeded.clone()), own, far, 5000), None);
        assert_eq!(router(&error(own, 5001, exceeded.clone()), own, far, 5000), None);
        assert_eq!(router(&error(own, 5000, unreachable), own, far, 5000), None);
        let whole = error(own, 5000, exceeded);
        for length in 0..whole.len() {
            router(&whole[..length], own, far, 5000);
        }
    }
}

//! Who is the first on the way that packets of an address take: the real way, by packets that live for one hop.
//!
//! A datagram with TTL 1 dies at the first router, which says so in an ICMP error from the address that it has on the sender's
//! side (RFC 1812 section 5.3.1). No packet goes any further, and no rule or table has to be understood.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Slice, Ipv4HeaderSlice, UdpHeaderSlice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstHop {
    /// The router that a packet reached.
    Is(Ipv4Addr),
    /// Nobody said anything.
    Silent,
    /// It could not be asked, for this reason.
    NotAsked(String),
}

/// What came of all probes from an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HopProbe {
    pub(crate) first_hop: FirstHop,
    /// Bytes of the largest packet that gets there, where one of the size that was wanted does not.
    pub(crate) no_more_than: Option<u32>,
}

/// Asks from each of these addresses of the host, with small packets and with packets of so many bytes. Takes a few seconds
/// where somebody is silent.
pub(crate) fn ask(from: &[(Ipv4Addr, u32)], to: Ipv4Addr) -> Vec<HopProbe> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let errors =
        rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP));
    match errors {
        Ok(errors) => {
            from.iter().map(|(from, size)| all_sizes(&errors, *from, to, *size)).collect()
        }
        Err(error) => {
            let why = format!("no raw socket ({})", io::Error::from(error));
            let found = HopProbe { first_hop: FirstHop::NotAsked(why), no_more_than: None };
            vec![found; from.len()]
        }
    }
}

fn all_sizes(errors: &OwnedFd, from: Ipv4Addr, to: Ipv4Addr, wanted: u32) -> HopProbe {
    let one = |size| one(errors, from, to, size);
    let first_hop = one(SMALLEST).unwrap_or_else(|error| FirstHop::NotAsked(error.to_string()));
    let gets_there = |size: &u32| !matches!(one(*size), Ok(FirstHop::Silent));
    let no_more_than = match first_hop {
        FirstHop::Is(_) if !gets_there(&wanted) => {
            USUAL_SIZES.into_iter().filter(|size| *size < wanted).find(gets_there)
        }
        FirstHop::Is(_) | FirstHop::Silent | FirstHop::NotAsked(_) => None,
    };
    HopProbe { first_hop, no_more_than }
}

/// Asks with packets of `size` bytes in one piece.
fn one(errors: &OwnedFd, from: Ipv4Addr, to: Ipv4Addr, size: u32) -> io::Result<FirstHop> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_ttl(1)?;
    // What the kernel has learned of the way to `to` does not count.
    rustix::net::sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    let port = socket.local_addr()?.port();
    for _ in 0..TRIES {
        socket.send_to(&vec![0; (size - SMALLEST) as usize], (to, PORT))?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(packet) = receive(errors, deadline)? {
            if let Some(router) = router(&packet, from, to, port) {
                return Ok(FirstHop::Is(router));
            }
        }
    }
    Ok(FirstHop::Silent)
}

/// The next packet, or nothing when it is too late.
fn receive(socket: &OwnedFd, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left))? == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0; LARGEST];
    match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((length, _)) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        // Taken back by the kernel, for a wrong checksum.
        Err(rustix::io::Errno::AGAIN) => Ok(Some(Vec::new())),
        Err(error) => Err(error.into()),
    }
}

/// Who sent an ICMP error about the probe.
fn router(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
    let outer = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let icmp = Icmpv4Slice::from_slice(&packet[outer.slice().len()..]).ok()?;
    if icmp.type_u8() != TIME_EXCEEDED {
        return None;
    }
    let quoted = Ipv4HeaderSlice::from_slice(icmp.payload()).ok()?;
    let datagram = UdpHeaderSlice::from_slice(&icmp.payload()[quoted.slice().len()..]).ok()?;
    let is_ours = (quoted.source_addr(), quoted.destination_addr(), datagram.source_port())
        == (from, to, port);
    is_ours.then(|| outer.source_addr())
}

const TIME_EXCEEDED: u8 = 11;
/// The first port of traceroute, where nobody listens.
const PORT: u16 = 33434;
/// Routers bound how many errors they send.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(700);
/// Of an ICMP error: with all that a router may quote (RFC 1812 section 4.3.2.3).
const LARGEST: usize = 2048;
/// Bytes of a datagram without content.
const SMALLEST: u32 = 28;
/// Ethernet with large frames, Ethernet, PPPoE, tunnels, and what IPv6 takes everywhere.
const USUAL_SIZES: [u32; 6] = [9000, 1500, 1492, 1420, 1400, 1280];

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

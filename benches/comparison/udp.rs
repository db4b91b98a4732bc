//! Sends datagrams of many flows, packet by packet, as fast as one thread can.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use natbox::lab::Namespace;
use natbox::packet::{Protocol, builder};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketType, ipproto,
    sendmmsg, socket, sockopt::set_socket_send_buffer_size,
};

/// Payload of 18 bytes, which makes an Ethernet frame of 64 bytes.
const PAYLOAD: [u8; 18] = *b"natbox, compared. ";
/// Number of packets in a system call.
const BATCH_SIZE: usize = 64;

/// Builds a packet for each flow from one address to another, in a random order.
pub(crate) fn flows(
    from: (Ipv4Addr, impl Iterator<Item = u16> + Clone),
    to: (Ipv4Addr, impl Iterator<Item = u16>),
) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> =
        to.1.flat_map(|port| from.1.clone().map(move |source| (source, port)))
            .map(|(source, port)| {
                let mut packet = builder::udp(
                    builder::tuple(Protocol::UDP, (from.0, source), (to.0, port)),
                    &PAYLOAD,
                );
                // Sockets set DF as well.
                builder::set_dont_fragment(&mut packet, true);
                packet
            })
            .collect();
    packets.shuffle(&mut SmallRng::seed_from_u64(9693));
    packets
}

/// The result of a run.
pub(crate) struct Outcome {
    /// Number of frames that the receiver's interface counted.
    pub arrived: u64,
    pub took: Duration,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.arrived as f64 / self.took.as_secs_f64()
    }
}

/// Sends packets repeatedly for `time`, or each of them once if `time` is `None`.
pub(crate) fn send(
    sender: &Namespace,
    receiver: &Namespace,
    packets: &[Vec<u8>],
    time: Option<Duration>,
) -> Result<Outcome> {
    // Without these sockets the receiver's kernel would answer every packet with an ICMP error.
    let ports: std::collections::BTreeSet<u16> =
        packets.iter().map(|packet| u16::from_be_bytes([packet[22], packet[23]])).collect();
    let _sinks: Vec<UdpSocket> = receiver.enter(|| {
        let bind = |port: &u16| UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port));
        ports.iter().map(bind).collect::<std::io::Result<_>>()
    })??;
    let before = receiver.received_frames("eth0")?;
    let took = sender.enter(|| send_all(packets, time))??;
    // The rate of a run with a time leaves out the packets that are still on their way.
    let at_end = receiver.received_frames("eth0")?;
    let settled = settle(receiver)?;
    let arrived = if time.is_some() { at_end } else { settled } - before;
    Ok(Outcome { arrived, took })
}

/// Sends packets from the current namespace. Returns the time that it took.
fn send_all(packets: &[Vec<u8>], time: Option<Duration>) -> Result<Duration> {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    set_socket_send_buffer_size(&raw, 1 << 20)?;
    let addresses: Vec<SocketAddrAny> = packets.iter().map(|packet| destination(packet)).collect();
    let slices: Vec<[IoSlice<'_>; 1]> =
        packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
    let mut controls: Vec<_> = packets.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = addresses
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((address, slice), control)| MMsgHdr::new_with_addr(address, slice, control))
        .collect();
    let started = Instant::now();
    loop {
        for chunk in messages.chunks_mut(BATCH_SIZE) {
            send_chunk(&raw, chunk)?;
            if time.is_some_and(|time| started.elapsed() >= time) {
                return Ok(started.elapsed());
            }
        }
        if time.is_none() {
            return Ok(started.elapsed());
        }
    }
}

/// Waits until no more packets arrive.
fn settle(receiver: &Namespace) -> Result<u64> {
    let mut last = receiver.received_frames("eth0")?;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = receiver.received_frames("eth0")?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

fn destination(packet: &[u8]) -> SocketAddrAny {
    let address = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
    SocketAddrV4::new(address, 0).into()
}

fn send_chunk(raw: &OwnedFd, messages: &mut [MMsgHdr<'_>]) -> Result<()> {
    let mut done = 0;
    while done < messages.len() {
        match sendmmsg(raw, &mut messages[done..], SendFlags::empty()) {
            Ok(count) => done += count,
            // The queue of the interface is full: the first of the packets is lost.
            Err(Errno::NOBUFS | Errno::AGAIN) => done += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

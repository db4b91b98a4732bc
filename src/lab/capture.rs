//! Captures the IPv4 packets that arrive in a namespace, and counts those that a box sends to its
//! uplink.
//!
//! An AF_PACKET socket receives packets before the stack of the namespace does. The socket is bound
//! to no interface. The sender's hardware address identifies the origin of a frame.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt,
};

use super::{LabError, Namespace};

/// Bytes kept of each frame: enough for all headers.
const SNAP: usize = 192;

/// Receive buffer in bytes: one second of full-size frames at 400 Mbit/s, in case the thread does
/// not run.
const BUFFER: usize = 64 << 20;

/// Interval at which the thread checks whether it must stop.
const STOP_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Length of an Ethernet header, in bytes.
const ETHERNET: usize = 14;

/// A running capture of the frames that one namespace *receives*. Frames that the namespace sends
/// are not captured. The capture stops when it is dropped.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Passes the first bytes of every IPv4 and ARP frame, from the Ethernet header on, to `sink`
    /// on a thread of its own. Captures every frame that arrives after this function returns.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn start(
        namespace: &Namespace,
        mut sink: impl FnMut(&CapturedFrame<'_>) + Send + 'static,
    ) -> Result<Capture, LabError> {
        let failed =
            || LabError::system(format!("capture packets in namespace {}", namespace.name()));
        let sockets =
            namespace.enter(|| Ok([open(eth::IP)?, open(eth::ARP)?]))?.map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let work = move || {
            let mut buffer = [0; SNAP];
            loop {
                // Acquire: pairs with the store in Drop. The flag is read before the queue is
                // emptied, so that a frame that arrived before the drop is still counted.
                let last = flag.load(Ordering::Acquire);
                for socket in &sockets {
                    while let Ok((kept, length)) =
                        recv(socket, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)
                    {
                        if kept >= ETHERNET {
                            sink(&CapturedFrame { bytes: &buffer[..kept], length });
                        }
                    }
                }
                if last {
                    return;
                }
                let [ip, arp] = &sockets;
                let mut wait = [PollFd::new(ip, PollFlags::IN), PollFd::new(arp, PollFlags::IN)];
                let _ = poll(&mut wait, Some(&STOP_POLL));
            }
        };
        let thread = thread::Builder::new().name("capture".into()).spawn(work).map_err(failed())?;
        Ok(Capture { stop, thread: Some(thread) })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(protocol: Protocol) -> io::Result<std::os::fd::OwnedFd> {
    let socket =
        socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    Ok(socket)
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug)]
pub struct CapturedFrame<'a> {
    bytes: &'a [u8],
    /// Length of the whole frame in bytes; more than the MTU for super-packets.
    pub length: usize,
}

impl<'a> CapturedFrame<'a> {
    /// Returns the hardware address of the sender.
    pub fn sender(&self) -> [u8; 6] {
        self.array(6).unwrap_or_default()
    }

    /// Returns the IPv4 packet if the frame holds one with a complete header.
    pub fn ipv4(&self) -> Option<Ipv4Packet<'a>> {
        let packet = &self.bytes[ETHERNET..];
        let header = usize::from(packet.first()? & 0xf) * 4;
        let is_ipv4 = self.bytes[12..ETHERNET] == [8, 0] && packet[0] >> 4 == 4;
        (is_ipv4 && header >= 20 && packet.len() >= header).then_some(Ipv4Packet { packet, header })
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at + N)?.try_into().ok()
    }
}

/// The first bytes of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Packet<'a> {
    packet: &'a [u8],
    header: usize,
}

impl Ipv4Packet<'_> {
    /// Returns the source address.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.packet[12], self.packet[13], self.packet[14], self.packet[15])
    }

    /// Returns the destination address.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.packet[16], self.packet[17], self.packet[18], self.packet[19])
    }

    /// Returns the protocol number.
    pub fn protocol(&self) -> u8 {
        self.packet[9]
    }

    /// Returns the time to live.
    pub fn ttl(&self) -> u8 {
        self.packet[8]
    }

    /// Returns the captured bytes that follow the IP header.
    pub fn payload(&self) -> &[u8] {
        &self.packet[self.header..]
    }

    /// Returns source and destination port of a TCP or UDP packet. Returns `None` for other
    /// protocols and for later fragments.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let first_fragment = u16::from_be_bytes([self.packet[6], self.packet[7]]) & 0x1fff == 0;
        let ports = self.packet.get(self.header..self.header + 4)?;
        (first_fragment && matches!(self.protocol(), TCP | UDP)).then(|| {
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        })
    }
}

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// The packets that a box may send to its uplink when it only answers for published services.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedReplies {
    /// Hardware address of the box's outside interface.
    pub sender: [u8; 6],
    /// Outside address of the box itself. Packets from this address are not counted.
    pub own: Ipv4Addr,
    /// Published address.
    pub published: Ipv4Addr,
    /// Published ports, TCP and UDP. A packet from another port answers no request that arrived
    /// here. A box sends such a packet when it translates, as outbound traffic, a reply that was
    /// routed to the wrong box.
    pub ports: &'static [u16],
}

/// Counts of the packets that a box sent to its uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyCounts {
    /// Replies from the published endpoint of this uplink.
    pub replies: u64,
    /// Packets that belong on another uplink.
    pub wrong: u64,
    /// Frames of any kind from the box, for comparison with the interface's own counter.
    pub frames: u64,
    /// Description of the first wrong packet.
    pub first_wrong: Option<String>,
}

impl ReplyCounts {
    fn count(&mut self, expected: &ExpectedReplies, frame: &CapturedFrame<'_>) {
        if frame.sender() != expected.sender {
            return;
        }
        self.frames += 1;
        let Some(packet) = frame.ipv4() else { return };
        let source = packet.source();
        if source == expected.own {
            return;
        }
        let from_published = source == expected.published
            && match packet.protocol() {
                // A later fragment of a datagram has no port.
                TCP | UDP => packet.ports().is_none_or(|(port, _)| expected.ports.contains(&port)),
                // An ICMP error about a session of this uplink.
                ICMP => true,
                _ => false,
            };
        if from_published {
            self.replies += 1;
        } else {
            self.wrong += 1;
            self.first_wrong.get_or_insert_with(|| {
                let ports = packet
                    .ports()
                    .map(|(from, to)| format!(" ports {from} > {to}"))
                    .unwrap_or_default();
                format!("{source} > {} protocol {}{ports}", packet.destination(), packet.protocol())
            });
        }
    }
}

/// Counts the packets that a box sends to its uplink, at the provider's end.
#[derive(Debug)]
pub struct UplinkCapture {
    counts: Arc<Mutex<ReplyCounts>>,
    capture: Capture,
}

impl UplinkCapture {
    /// Starts counting in the provider's namespace.
    ///
    /// # Errors
    /// The capture cannot be started.
    pub fn start(
        provider: &Namespace,
        expected: ExpectedReplies,
    ) -> Result<UplinkCapture, LabError> {
        let counts = Arc::new(Mutex::new(ReplyCounts::default()));
        let shared = counts.clone();
        let capture = Capture::start(provider, move |frame| shared.lock().count(&expected, frame))?;
        Ok(UplinkCapture { counts, capture })
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> ReplyCounts {
        self.counts.lock().clone()
    }

    /// Stops, and returns the counts of all frames that arrived before.
    pub fn finish(self) -> ReplyCounts {
        drop(self.capture);
        self.counts.lock().clone()
    }
}

/// Longest time between a frame's count at the interface and its arrival at the capture.
pub const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: ExpectedReplies = ExpectedReplies {
        sender: [2, 0, 0, 0, 1, 1],
        own: Ipv4Addr::new(203, 0, 113, 1),
        published: Ipv4Addr::new(203, 0, 113, 10),
        ports: &[80],
    };

    fn counts(frames: &[Vec<u8>]) -> ReplyCounts {
        let mut counts = ReplyCounts::default();
        for bytes in frames {
            counts.count(&EXPECTED, &CapturedFrame { bytes, length: bytes.len() });
        }
        counts
    }

    fn tcp(sender: [u8; 6], source: [u8; 4], port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2(sender, [2, 0, 0, 0, 1, 2])
            .ipv4(source, [192, 0, 2, 11], 64)
            .tcp(port, 40_000, 1, 1000)
            .write(&mut bytes, &[])
            .unwrap();
        bytes
    }

    #[test]
    fn replies_from_the_published_endpoint_are_right() {
        let seen = counts(&[tcp(EXPECTED.sender, [203, 0, 113, 10], 80)]);
        assert_eq!(seen, ReplyCounts { replies: 1, frames: 1, ..ReplyCounts::default() });
    }

    #[test]
    fn another_source_or_port_is_wrong() {
        let seen = counts(&[
            tcp(EXPECTED.sender, [198, 51, 100, 10], 80),
            tcp(EXPECTED.sender, [10, 0, 0, 202], 80),
            tcp(EXPECTED.sender, [203, 0, 113, 10], 31_234),
        ]);
        assert_eq!((seen.replies, seen.wrong, seen.frames), (0, 3, 3));
        assert_eq!(
            seen.first_wrong.unwrap(),
            "198.51.100.10 > 192.0.2.11 protocol 6 ports 80 > 40000"
        );
    }

    #[test]
    fn the_box_itself_and_other_senders_are_not_judged() {
        let seen = counts(&[
            tcp(EXPECTED.sender, [203, 0, 113, 1], 22),
            tcp([2, 0, 0, 0, 9, 1], [198, 51, 100, 10], 80),
        ]);
        assert_eq!(seen, ReplyCounts { frames: 1, ..ReplyCounts::default() });
    }

    #[test]
    fn cut_off_frames_are_counted_but_not_judged() {
        let whole = tcp(EXPECTED.sender, [10, 0, 0, 202], 80);
        for length in ETHERNET..ETHERNET + 20 {
            assert_eq!(counts(&[whole[..length].to_vec()]).wrong, 0);
        }
    }
}

//! Sees every IPv4 packet that arrives in a namespace, and judges those that a box sends to its line.
//!
//! An AF_PACKET socket sees packets before the namespace's own stack does. It is bound to no interface; the hardware
//! address of the sender tells where a frame comes from.

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

/// Bytes kept of each frame: all headers, no more.
const SNAP: usize = 192;

/// Receive buffer, in bytes: room for a second of full-size frames at 400 Mbit/s should the thread not run.
const BUFFER: usize = 64 << 20;

/// How soon the thread notices that it should stop.
const STOP_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// A running capture of frames *received* in one namespace (what the namespace sends is not seen); stops when
/// dropped.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Hands the first bytes of every IPv4 and ARP frame, from the Ethernet header on, to `sink`, on a thread of its own. Frames
    /// that arrive after this returns are seen.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn start(
        namespace: &Namespace,
        mut sink: impl FnMut(&Frame<'_>) + Send + 'static,
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
                // Acquire: pairs with the store in Drop. Read before the queue is emptied, so that whatever arrived
                // before the capture was dropped is still counted.
                let last = flag.load(Ordering::Acquire);
                for socket in &sockets {
                    while let Ok((kept, length)) =
                        recv(socket, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)
                    {
                        if kept >= ETHERNET {
                            sink(&Frame { bytes: &buffer[..kept], length });
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

/// The beginning of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    /// Length of the whole frame; beyond the MTU for super-packets.
    pub length: usize,
}

impl<'a> Frame<'a> {
    /// Hardware address of the sender.
    pub fn sender(&self) -> [u8; 6] {
        self.array(6).unwrap_or_default()
    }

    /// The IPv4 packet, if it is one whose header is complete.
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

/// The beginning of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Packet<'a> {
    packet: &'a [u8],
    header: usize,
}

impl Ipv4Packet<'_> {
    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.packet[12], self.packet[13], self.packet[14], self.packet[15])
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.packet[16], self.packet[17], self.packet[18], self.packet[19])
    }

    /// Protocol number.
    pub fn protocol(&self) -> u8 {
        self.packet[9]
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.packet[8]
    }

    /// What follows the IP header, as far as it was kept.
    pub fn payload(&self) -> &[u8] {
        &self.packet[self.header..]
    }

    /// Source and destination port of a TCP or UDP packet; `None` for others and for later fragments.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let first_fragment = u16::from_be_bytes([self.packet[6], self.packet[7]]) & 0x1fff == 0;
        let ports = self.packet.get(self.header..self.header + 4)?;
        (first_fragment && matches!(self.protocol(), TCP | UDP)).then(|| {
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        })
    }
}

/// Protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

/// What a box may send to its line when it answers for published services.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Hardware address of the box's outside interface.
    pub sender: [u8; 6],
    /// The box's own outside address, whose packets are nobody's replies.
    pub own: Ipv4Addr,
    /// The published address.
    pub published: Ipv4Addr,
    /// The published ports, TCP and UDP. A reply from another port is not one to a request that came in here: it is what a
    /// box makes of a reply that was routed to the wrong box (outbound translation).
    pub ports: &'static [u16],
}

/// What was seen of a box on its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyCounts {
    /// Replies from the published endpoint of this line.
    pub replies: u64,
    /// Packets that this line should not have seen.
    pub wrong: u64,
    /// Frames of any kind from the box, for comparison with the interface's own counter.
    pub frames: u64,
    /// The first of the wrong ones, described.
    pub first_wrong: Option<String>,
}

impl ReplyCounts {
    fn count(&mut self, expected: &Expected, frame: &Frame<'_>) {
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
                // About a session of this line.
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

/// Watches what a box sends to its line, from the provider's end.
#[derive(Debug)]
pub struct UplinkCapture {
    counts: Arc<Mutex<ReplyCounts>>,
    capture: Capture,
}

impl UplinkCapture {
    /// Starts watching in the provider's namespace.
    ///
    /// # Errors
    /// The capture cannot be started.
    pub fn start(provider: &Namespace, expected: Expected) -> Result<UplinkCapture, LabError> {
        let counts = Arc::new(Mutex::new(ReplyCounts::default()));
        let shared = counts.clone();
        let capture = Capture::start(provider, move |frame| shared.lock().count(&expected, frame))?;
        Ok(UplinkCapture { counts, capture })
    }

    /// What was seen so far.
    pub fn counts(&self) -> ReplyCounts {
        self.counts.lock().clone()
    }

    /// Stops; what arrived before is counted.
    pub fn finish(self) -> ReplyCounts {
        drop(self.capture);
        self.counts.lock().clone()
    }
}

/// How long a frame may take from the interface's counter to the capture.
pub const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected {
        sender: [2, 0, 0, 0, 1, 1],
        own: Ipv4Addr::new(203, 0, 113, 1),
        published: Ipv4Addr::new(203, 0, 113, 10),
        ports: &[80],
    };

    fn counts(frames: &[Vec<u8>]) -> ReplyCounts {
        let mut counts = ReplyCounts::default();
        for bytes in frames {
            counts.count(&EXPECTED, &Frame { bytes, length: bytes.len() });
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

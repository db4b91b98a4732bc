//! A small network in memory: one outside host, the box, one inside host, and a link on each side
//! of the box. Each link loses, duplicates and delays packets with given probabilities. Time is
//! virtual and moves from event to event.
//!
//! ```text
//!   outside E1 ──link── box (Harness) ──link── inside S1     each link: 5 ms and faults, each way
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::engine::scenarios::{E1, Harness, S1, Setup};
use crate::nat::{State, TableCursor};
use crate::packet::Offload;
use crate::time::Span;

/// Probabilities of the faults of a link, for each packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// Extra delay of up to [`MAX_EXTRA_DELAY`], so that later packets overtake.
    pub(super) reordering: f64,
}

impl Faults {
    pub(super) const NONE: Self = Self { loss: 0.0, duplication: 0.0, reordering: 0.0 };
}

/// The destination of a packet on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Inside,
    Outside,
    Box,
}

/// Two hosts, the box between them, and the packets on the links.
pub(super) struct Network {
    /// Faults and seed, for the messages of failed assertions.
    pub(super) name: String,
    pub(super) harness: Harness,
    pub(super) outside: Host,
    pub(super) inside: Host,
    /// Number of packets that the box sent.
    pub(super) forwarded: u64,
    faults: Faults,
    random: StdRng,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    transmitted: u64,
    elapsed: u64,
}

/// A packet on a link, ordered by arrival and then by departure.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    due: u64,
    number: u64,
    to: Node,
    packet: Vec<u8>,
}

impl Network {
    pub(super) fn new(settings: Setup, faults: Faults, seed: u64) -> Self {
        Self {
            name: format!("{faults:?}, seed {seed}"),
            harness: Harness::new(settings),
            outside: Host::new(E1, seed),
            inside: Host::new(S1, seed + 1),
            forwarded: 0,
            faults,
            random: StdRng::seed_from_u64(seed),
            in_flight: BinaryHeap::new(),
            transmitted: 0,
            elapsed: 0,
        }
    }

    pub(super) fn host(&mut self, node: Node) -> &mut Host {
        match node {
            Node::Outside => &mut self.outside,
            Node::Inside => &mut self.inside,
            Node::Box => unreachable!("the box has no smoltcp stack"),
        }
    }

    /// Replaces the box by a new one without sessions.
    pub(super) fn restart_box(&mut self, settings: Setup) {
        let now = self.harness.now;
        self.harness = Harness::new(settings);
        self.harness.wait(now.since(self.harness.now));
    }

    /// Returns the milliseconds since the start.
    pub(super) fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// Returns the states of all sessions.
    pub(super) fn states(&self) -> Vec<State> {
        let mut states = Vec::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            next = self.harness.nat.table().list(from, 7, |listed| states.push(listed.state));
        }
        states
    }

    /// Processes what is due now, then moves the clock to the next event. Returns false if no
    /// packet is in flight and no host has a timer.
    pub(super) fn step(&mut self) -> bool {
        self.deliver_due();
        for node in [Node::Outside, Node::Inside] {
            let sent = {
                let elapsed = self.elapsed;
                self.host(node).poll(elapsed)
            };
            for packet in sent {
                self.transmit(Node::Box, packet);
            }
        }
        let arrival = self.in_flight.peek().map(|Reverse(flight)| flight.due);
        let timers =
            [self.outside.next_poll_at(self.elapsed), self.inside.next_poll_at(self.elapsed)];
        let Some(next) = timers.into_iter().flatten().chain(arrival).min() else { return false };
        // `poll_at` can return the current time although the stack has nothing to send.
        let next = next.max(self.elapsed + 1);
        self.harness.wait(Span((next - self.elapsed) as u32));
        self.elapsed = next;
        true
    }

    /// Delivers the packets that are due: to the box in one batch, to a host one by one.
    fn deliver_due(&mut self) {
        let mut batch = Vec::new();
        while self.in_flight.peek().is_some_and(|Reverse(flight)| flight.due <= self.elapsed) {
            let Some(Reverse(flight)) = self.in_flight.pop() else { break };
            match flight.to {
                Node::Box => batch.push((flight.packet, Offload::default())),
                host @ (Node::Inside | Node::Outside) => {
                    self.host(host).device.arrived.push_back(flight.packet)
                }
            }
        }
        for (packet, _) in self.harness.run(&batch) {
            self.forwarded += 1;
            let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
            let node = match destination {
                E1 => Node::Outside,
                S1 => Node::Inside,
                unexpected => panic!("the box sent a packet to {unexpected}"),
            };
            self.transmit(node, packet);
        }
    }

    /// Puts a packet on a link and applies the faults of the link.
    fn transmit(&mut self, to: Node, packet: Vec<u8>) {
        if self.random.random_bool(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(self.random.random_bool(self.faults.duplication));
        for _ in 0..copies {
            let extra_delay = if self.random.random_bool(self.faults.reordering) {
                self.random.random_range(1..=MAX_EXTRA_DELAY)
            } else {
                0
            };
            self.transmitted += 1;
            let due = self.elapsed + DELAY + extra_delay;
            self.in_flight.push(Reverse(InFlight {
                due,
                number: self.transmitted,
                to,
                packet: packet.clone(),
            }));
        }
    }
}

/// Milliseconds of one way over one link.
const DELAY: u64 = 5;
/// The longest extra delay in milliseconds.
const MAX_EXTRA_DELAY: u64 = 40;

/// A host with smoltcp's TCP/IP stack.
pub(super) struct Host {
    pub(super) sockets: SocketSet<'static>,
    pub(super) interface: Interface,
    device: LinkDevice,
}

impl Host {
    fn new(address: Ipv4Addr, seed: u64) -> Self {
        let mut device = LinkDevice::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(address), 24))
                .expect("space for one address");
        });
        let gateway = Ipv4Addr::from_bits(address.to_bits() | 0xfe);
        interface.routes_mut().add_default_ipv4_route(gateway).expect("space for one route");
        Self { sockets: SocketSet::new(Vec::new()), interface, device }
    }

    pub(super) fn socket<T: smoltcp::socket::AnySocket<'static>>(
        &mut self,
        handle: SocketHandle,
    ) -> &mut T {
        self.sockets.get_mut(handle)
    }

    /// Runs the stack of the host. Returns the packets that the stack sent.
    fn poll(&mut self, elapsed: u64) -> Vec<Vec<u8>> {
        self.interface.poll(instant(elapsed), &mut self.device, &mut self.sockets);
        std::mem::take(&mut self.device.sent)
    }

    /// Returns the time of the next timer of the stack, in milliseconds since the start.
    fn next_poll_at(&mut self, elapsed: u64) -> Option<u64> {
        let time = self.interface.poll_at(instant(elapsed), &self.sockets)?;
        // The timers of smoltcp are finer than the virtual clock.
        Some((time.total_micros().max(0) as u64).div_ceil(1000))
    }
}

fn instant(elapsed: u64) -> Instant {
    Instant::from_millis(elapsed as i64)
}

/// The network device of a host, at its end of a link.
#[derive(Default)]
struct LinkDevice {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for LinkDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

//! A small internet in memory: one host outside, the box, one host inside, and a link on either side of the box that
//! loses, doubles and delays packets with given probabilities. Time is virtual and jumps from event to event.
//!
//! ```text
//!   outside E1 ──link── box (Stage) ──link── inside S1        links: 5 ms, and the faults, each way
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

use crate::engine::scenarios::{E1, S1, Setup, Stage};
use crate::nat::{State, TableCursor};
use crate::packet::Offload;
use crate::time::Span;

/// What the links do to packets, as probabilities.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// Delayed by up to [`DETOUR`], so that later packets overtake.
    pub(super) reordering: f64,
}

impl Faults {
    pub(super) const NONE: Self = Self { loss: 0.0, duplication: 0.0, reordering: 0.0 };
}

/// Where a packet is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Inside,
    Outside,
    Box,
}

/// Two hosts, the box between them, and what is on the way.
pub(super) struct Network {
    /// Tells a failing run from the others.
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) outside: Host,
    pub(super) inside: Host,
    /// Packets that the box let through, in order.
    pub(super) passed: u64,
    faults: Faults,
    random: StdRng,
    flying: BinaryHeap<Reverse<Flight>>,
    launched: u64,
    elapsed: u64,
}

/// A packet on a link; ordered by arrival, then by departure.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: u64,
    number: u64,
    to: Place,
    packet: Vec<u8>,
}

impl Network {
    pub(super) fn new(settings: Setup, faults: Faults, seed: u64) -> Self {
        Self {
            name: format!("{faults:?}, seed {seed}"),
            stage: Stage::new(settings),
            outside: Host::new(E1, seed),
            inside: Host::new(S1, seed + 1),
            passed: 0,
            faults,
            random: StdRng::seed_from_u64(seed),
            flying: BinaryHeap::new(),
            launched: 0,
            elapsed: 0,
        }
    }

    pub(super) fn host(&mut self, place: Place) -> &mut Host {
        match place {
            Place::Outside => &mut self.outside,
            Place::Inside => &mut self.inside,
            Place::Box => unreachable!("the box is no host"),
        }
    }

    /// Puts a new box in the place of the old one, which takes all its sessions along.
    pub(super) fn restart_box(&mut self, settings: Setup) {
        let now = self.stage.now;
        self.stage = Stage::new(settings);
        self.stage.wait(now.since(self.stage.now));
    }

    /// Milliseconds since the start.
    pub(super) fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// States of the sessions, as the table lists them.
    pub(super) fn states(&self) -> Vec<State> {
        let mut states = Vec::new();
        let mut place = Some(TableCursor::default());
        while let Some(from) = place {
            place = self.stage.nat.table().list(from, 7, |listed| states.push(listed.state));
        }
        states
    }

    /// Lets everything happen that is due now, then jumps to the next moment at which something is. False when
    /// nothing is on the way and no host waits for anything.
    pub(super) fn step(&mut self) -> bool {
        self.arrive();
        for place in [Place::Outside, Place::Inside] {
            let sent = {
                let elapsed = self.elapsed;
                self.host(place).poll(elapsed)
            };
            for packet in sent {
                self.launch(Place::Box, packet);
            }
        }
        let arrival = self.flying.peek().map(|Reverse(flight)| flight.due);
        let timers = [self.outside.wakes_at(self.elapsed), self.inside.wakes_at(self.elapsed)];
        let Some(next) = timers.into_iter().flatten().chain(arrival).min() else { return false };
        // smoltcp may ask to be polled at once again without having anything to send.
        let next = next.max(self.elapsed + 1);
        self.stage.wait(Span((next - self.elapsed) as u32));
        self.elapsed = next;
        true
    }

    fn arrive(&mut self) {
        let mut batch = Vec::new();
        while self.flying.peek().is_some_and(|Reverse(flight)| flight.due <= self.elapsed) {
            let Some(Reverse(flight)) = self.flying.pop() else { break };
            match flight.to {
                Place::Box => batch.push((flight.packet, Offload::default())),
                host @ (Place::Inside | Place::Outside) => {
                    self.host(host).wire.arrived.push_back(flight.packet)
                }
            }
        }
        for (packet, _) in self.stage.run(&batch) {
            self.passed += 1;
            let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
            let place = match destination {
                E1 => Place::Outside,
                S1 => Place::Inside,
                stray => panic!("a packet for {stray} came out of the box"),
            };
            self.launch(place, packet);
        }
    }

    /// Puts a packet on a link, where fate awaits it.
    fn launch(&mut self, to: Place, packet: Vec<u8>) {
        if self.random.random_bool(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(self.random.random_bool(self.faults.duplication));
        for _ in 0..copies {
            let detour = if self.random.random_bool(self.faults.reordering) {
                self.random.random_range(1..=DETOUR)
            } else {
                0
            };
            self.launched += 1;
            let due = self.elapsed + DELAY + detour;
            self.flying.push(Reverse(Flight {
                due,
                number: self.launched,
                to,
                packet: packet.clone(),
            }));
        }
    }
}

/// One way over one link, in milliseconds.
const DELAY: u64 = 5;
/// The longest detour, in milliseconds.
const DETOUR: u64 = 40;

/// A host with smoltcp's TCP/IP stack.
pub(super) struct Host {
    pub(super) sockets: SocketSet<'static>,
    pub(super) interface: Interface,
    wire: Wire,
}

impl Host {
    fn new(address: Ipv4Addr, seed: u64) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(address), 24))
                .expect("room for one address");
        });
        let gateway = Ipv4Addr::from_bits(address.to_bits() | 0xfe);
        interface.routes_mut().add_default_ipv4_route(gateway).expect("room for one route");
        Self { sockets: SocketSet::new(Vec::new()), interface, wire }
    }

    pub(super) fn socket<T: smoltcp::socket::AnySocket<'static>>(
        &mut self,
        handle: SocketHandle,
    ) -> &mut T {
        self.sockets.get_mut(handle)
    }

    fn poll(&mut self, elapsed: u64) -> Vec<Vec<u8>> {
        self.interface.poll(instant(elapsed), &mut self.wire, &mut self.sockets);
        std::mem::take(&mut self.wire.sent)
    }

    fn wakes_at(&mut self, elapsed: u64) -> Option<u64> {
        let moment = self.interface.poll_at(instant(elapsed), &self.sockets)?;
        // Timers are finer than the clock here.
        Some((moment.total_micros().max(0) as u64).div_ceil(1000))
    }
}

fn instant(elapsed: u64) -> Instant {
    Instant::from_millis(elapsed as i64)
}

/// A host's end of its link.
#[derive(Default)]
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Wire {
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

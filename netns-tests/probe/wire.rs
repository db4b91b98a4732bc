//! One interface of the box: the test writes packets that arrive at the box, and reads those that
//! the box sends.
//!
//! The oracle checks every packet that is read. It recomputes all checksums and compares the
//! lengths. Outside no packet or quote may contain a private address. Inside no packet may have the
//! box's external address as destination.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::lab::Namespace;
use natbox::packet::{ChecksumMode, builder};
use tun_tap::{Iface, Mode};

use super::{G, G2, Seen};

/// A TAP device in the box's namespace. The test holds the other end.
pub(crate) struct Wire {
    tap: Iface,
    header: [u8; 14],
    is_outside: bool,
    /// Whether the oracle is off, because the test sends wrong checksums or has translation off.
    tolerant: Cell<bool>,
    /// The packets that a read skips, once the oracle has checked them.
    ignored: RefCell<PacketFilter>,
}

impl Wire {
    /// `number` is 0 inside, and the number of the uplink from 1 on.
    pub(super) fn new(
        natbox: &Namespace,
        name: &str,
        address: Ipv4Addr,
        mtu: u16,
        number: u8,
    ) -> Wire {
        let tap = natbox.enter(|| Iface::without_packet_info(name, Mode::Tap)).unwrap().unwrap();
        tap.set_non_blocking().unwrap();
        let mac = [2, 0, 0, 0, number, 1];
        let text = mac.map(|byte: u8| format!("{byte:02x}")).join(":");
        // Without ARP the box sends every packet at once.
        natbox
            .ip(&[
                "link",
                "set",
                name,
                "address",
                &text,
                "mtu",
                &mtu.to_string(),
                "arp",
                "off",
                "up",
            ])
            .unwrap();
        natbox.address(name, address, 24).unwrap();
        let mut header = [0; 14];
        header[..6].copy_from_slice(&mac);
        header[6..12].copy_from_slice(&[2, 0, 0, 0, number, 2]);
        header[12..].copy_from_slice(&[8, 0]);
        Wire {
            tap,
            header,
            is_outside: number > 0,
            tolerant: Cell::new(false),
            ignored: RefCell::new(Box::new(|_| false)),
        }
    }

    /// Sends a packet to the box.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.tap.send(&[&self.header[..], packet].concat()).unwrap();
    }

    /// Turns the oracle off.
    pub(crate) fn tolerate(&self) {
        self.tolerant.set(true);
    }

    /// Makes later reads skip these packets, such as those of a flood that a test does not count.
    pub(crate) fn ignore(&self, packets: impl Fn(&Seen) -> bool + 'static) {
        *self.ignored.borrow_mut() = Box::new(packets);
    }

    /// Returns the next packet that the box has already sent.
    pub(crate) fn poll(&self) -> Option<Seen> {
        let mut frame = vec![0; 70_000];
        while let Ok(length @ 14..) = self.tap.recv(&mut frame) {
            if frame[12..14] == [8, 0] {
                let seen = Seen(frame[14..length].to_vec());
                self.examine(&seen);
                if !(self.ignored.borrow())(&seen) {
                    return Some(seen);
                }
            }
        }
        None
    }

    /// Waits for the next packet from the box. Fails after [`TIMEOUT`].
    #[track_caller]
    pub(crate) fn expect(&self, what: &str) -> Seen {
        self.within(TIMEOUT).unwrap_or_else(|| panic!("{} never came {}", what, self.place()))
    }

    /// Waits for the next packet from the box, at most `timeout`.
    pub(crate) fn within(&self, timeout: Duration) -> Option<Seen> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(seen) = self.poll() {
                return Some(seen);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Returns all packets until none has come for [`QUIET`].
    pub(crate) fn drain(&self) -> Vec<Seen> {
        std::iter::from_fn(|| self.within(QUIET)).collect()
    }

    /// Discards all packets that have already come.
    pub(crate) fn drain_now(&self) {
        while self.poll().is_some() {}
    }

    /// Returns all packets until none has come for 20 ms, which is the end of a burst.
    pub(crate) fn drain_until_quiet(&self) -> Vec<Seen> {
        std::iter::from_fn(|| self.within(Duration::from_millis(20))).collect()
    }

    /// Waits for a number of packets and returns them in their order.
    #[track_caller]
    pub(crate) fn expect_all(&self, count: usize, what: &str) -> Vec<Seen> {
        (0..count)
            .map(|number| self.expect(&format!("{what} ({} of {count})", number + 1)))
            .collect()
    }

    /// Asserts that no packet comes for [`QUIET`].
    #[track_caller]
    pub(super) fn assert_silent(&self) {
        if let Some(seen) = self.within(QUIET) {
            panic!("not silent {}: {seen:?}", self.place());
        }
    }

    /// Asserts that no packet has come.
    #[track_caller]
    pub(super) fn assert_none(&self) {
        if let Some(seen) = self.poll() {
            panic!("not silent {}: {seen:?}", self.place());
        }
    }

    fn place(&self) -> &'static str {
        if self.is_outside { "outside" } else { "inside" }
    }

    #[track_caller]
    fn examine(&self, seen: &Seen) {
        if self.tolerant.get() {
            return;
        }
        builder::verify(&seen.0, ChecksumMode::Complete)
            .unwrap_or_else(|problem| panic!("{} {}: {seen:?}", problem, self.place()));
        assert_eq!(
            seen.total_length(),
            seen.0.len(),
            "bytes past the end {}: {seen:?}",
            self.place()
        );
        if self.is_outside {
            let private = |address: Ipv4Addr| address.is_private() || address.is_link_local();
            let mut addresses = vec![seen.source().address, seen.destination().address];
            if let Some(quote) = seen.quote() {
                addresses.extend([quote.source().address, quote.destination().address]);
            }
            assert!(!addresses.into_iter().any(private), "a private address outside: {seen:?}");
        } else {
            let destination = seen.destination().address;
            assert!(destination != G && destination != G2, "untranslated inside: {seen:?}");
        }
    }
}

/// Longest time for a packet on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time without a packet that counts as silence.
const QUIET: Duration = Duration::from_millis(200);

/// A choice of packets.
type PacketFilter = Box<dyn Fn(&Seen) -> bool>;

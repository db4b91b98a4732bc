//! One leg of the box: what is written to it arrives at the box, what the box sends can be read.
//!
//! The oracle for every packet read: checksums recomputed in full, lengths that agree; outside no private address
//! anywhere, quotes included; inside nothing that is still addressed to the box's external address.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::lab::Namespace;
use natbox::packet::{ChecksumMode, builder};
use tun_tap::{Iface, Mode};

use super::{G, G2, Seen};

/// A TAP device in the box's namespace whose other end is the test.
pub struct Wire {
    tap: Iface,
    header: [u8; 14],
    is_outside: bool,
    /// The test sends wrong checksums, or has translation off, and looks for itself.
    tolerant: Cell<bool>,
}

impl Wire {
    /// `number`: 0 inside, the lines from 1 on.
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
        // Without ARP the box sends at once, to whomever.
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
        Wire { tap, header, is_outside: number > 0, tolerant: Cell::new(false) }
    }

    /// Sends a packet to the box.
    pub fn send(&self, packet: &[u8]) {
        self.tap.send(&[&self.header[..], packet].concat()).unwrap();
    }

    /// From now on the oracle looks away.
    pub fn tolerate(&self) {
        self.tolerant.set(true);
    }

    /// What the box has sent and was not read yet.
    pub fn poll(&self) -> Option<Seen> {
        let mut frame = vec![0; 70_000];
        while let Ok(length @ 14..) = self.tap.recv(&mut frame) {
            if frame[12..14] == [8, 0] {
                let seen = Seen(frame[14..length].to_vec());
                self.examine(&seen);
                return Some(seen);
            }
        }
        None
    }

    /// The next packet from the box.
    #[track_caller]
    pub fn expect(&self, what: &str) -> Seen {
        self.within(TIMEOUT).unwrap_or_else(|| panic!("{} never came {}", what, self.place()))
    }

    /// The next packet from the box, if it comes in time.
    pub fn within(&self, timeout: Duration) -> Option<Seen> {
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

    /// Everything that comes until nothing has come for a moment.
    pub fn drain(&self) -> Vec<Seen> {
        std::iter::from_fn(|| self.within(QUIET)).collect()
    }

    /// Everything that has come already.
    pub fn drain_now(&self) {
        while self.poll().is_some() {}
    }

    /// Everything that comes until nothing has come for a tiny moment: the end of a burst.
    pub fn drain_until_quiet(&self) -> Vec<Seen> {
        std::iter::from_fn(|| self.within(Duration::from_millis(20))).collect()
    }

    /// So many packets, in their order.
    #[track_caller]
    pub fn expect_all(&self, count: usize, what: &str) -> Vec<Seen> {
        (0..count)
            .map(|number| self.expect(&format!("{what} ({} of {count})", number + 1)))
            .collect()
    }

    /// Nothing comes for a while.
    #[track_caller]
    pub(super) fn assert_silent(&self) {
        if let Some(seen) = self.within(QUIET) {
            panic!("not silent {}: {seen:?}", self.place());
        }
    }

    /// Nothing has come.
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

/// How long a packet may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing must come for a silence.
const QUIET: Duration = Duration::from_millis(200);

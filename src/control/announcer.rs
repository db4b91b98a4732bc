//! The subsystem that announces addresses by ARP (RFC 5227 section 3).
//!
//! ```text
//!   reconciler ─▶ Announcements: the addresses of now ─▶ Announcer ─▶ ARP requests for itself
//!   uplink is up again ───────────────────────────────▶
//! ```
//!
//! A router keeps a neighbour's hardware address for minutes. When a new box takes over an address,
//! the router would send to the old box for that long. natbox announces each address when it
//! starts, when the address or the interface appears, and when an uplink is up again.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use etherparse::{ArpEthIpv4Packet, ArpOperation};
use tokio::sync::Notify;

use super::subsystem::{Outcome, Subsystem};
use crate::host::Announcement;
use crate::io::ArpSocket;
use crate::timer::sleep_until;
use crate::uplinks::{UplinkStates, Uplinks};

/// The addresses of the host, and those that must be announced.
#[derive(Default)]
pub(super) struct Announcements {
    known: RefCell<HashSet<Announcement>>,
    fresh: RefCell<Vec<Announcement>>,
    changed: Notify,
}

impl Announcements {
    /// Takes the present addresses, and announces those that are new.
    pub(super) fn adopt(&self, now: Vec<Announcement>) {
        let before = self.known.replace(now.iter().cloned().collect());
        self.announce(now.into_iter().filter(|address| !before.contains(address)));
    }

    /// Forgets the addresses of an interface that went down, so that they count as new when it is
    /// up again.
    pub(super) fn forget(&self, interface: &str) {
        self.known.borrow_mut().retain(|known| known.interface != interface);
    }

    /// Announces the addresses of an interface again.
    fn repeat(&self, interface: &str) {
        let known = self.known.borrow();
        self.announce(known.iter().filter(|known| known.interface == interface).cloned());
    }

    fn announce(&self, fresh: impl Iterator<Item = Announcement>) {
        self.fresh.borrow_mut().extend(fresh);
        self.changed.notify_one();
    }
}

/// Sends the announcements.
pub(super) struct Announcer {
    socket: ArpSocket,
    announcements: Rc<Announcements>,
    pending: Vec<PendingAnnouncement>,
    /// Time before which no announcement leaves.
    pause: Instant,
    /// Names of the uplinks at the last change, and whether each was up.
    up: HashMap<String, bool>,
}

/// An address that has not been announced often enough.
struct PendingAnnouncement {
    announcement: Announcement,
    due: Instant,
    /// Number of announcements so far.
    sent: usize,
}

impl Announcer {
    pub(super) fn new(
        socket: ArpSocket,
        announcements: Rc<Announcements>,
        uplinks: &Uplinks,
    ) -> Self {
        let pause = Instant::now();
        Self {
            socket,
            announcements,
            pending: Vec::new(),
            pause,
            up: up(&uplinks.watch().borrow()),
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let due = self.pending.iter().map(|pending| pending.due).min()?;
        Some(due.max(self.pause))
    }

    /// Takes the new addresses. An address that is announced already begins again.
    fn take_fresh(&mut self) {
        let fresh: Vec<_> = self.announcements.fresh.borrow_mut().drain(..).collect();
        if fresh.is_empty() {
            return;
        }
        let known = self.announcements.known.borrow();
        let begun: HashSet<&Announcement> = fresh.iter().collect();
        self.pending.retain(|pending| {
            known.contains(&pending.announcement) && !begun.contains(&pending.announcement)
        });
        let due = Instant::now();
        let begin = |announcement| PendingAnnouncement { announcement, due, sent: 0 };
        self.pending.extend(fresh.into_iter().map(begin));
    }

    /// Sends a batch of the announcements that are due.
    fn send_due(&mut self) {
        let now = Instant::now();
        let known = self.announcements.known.borrow();
        let due = self.pending.iter_mut().filter(|pending| pending.due <= now);
        for pending in due.take(BATCH) {
            pending.sent += 1;
            pending.due = now + INTERVAL * pending.sent as u32;
            if known.contains(&pending.announcement) {
                send(&self.socket, &pending.announcement);
            }
        }
        self.pending.retain(|pending| pending.sent < TIMES);
        self.pause = now + ANNOUNCEMENT_INTERVAL;
    }
}

impl Subsystem for Announcer {
    type Event = ();
    const NAME: &'static str = "announcements";

    async fn next(&mut self) {
        let due = self.next_due();
        tokio::select! {
            () = self.announcements.changed.notified() => {}
            () = sleep_until(due) => {}
        }
    }

    async fn handle(&mut self, (): ()) -> Outcome {
        self.take_fresh();
        if self.pause <= Instant::now() {
            self.send_due();
        }
        Outcome::Continue(())
    }

    fn changed(&mut self, states: &UplinkStates) {
        let before = std::mem::replace(&mut self.up, up(states));
        let was_down = |name: &String| before.get(name).is_some_and(|was_up| !was_up);
        for uplink in states.uplinks.iter().filter(|uplink| uplink.up && was_down(&uplink.name)) {
            self.announcements.repeat(&uplink.interface);
        }
    }
}

fn up(states: &UplinkStates) -> HashMap<String, bool> {
    states.uplinks.iter().map(|uplink| (uplink.name.clone(), uplink.up)).collect()
}

/// Sends one announcement. A later one replaces an announcement that the interface does not take.
fn send(socket: &ArpSocket, announcement: &Announcement) {
    let Announcement { address, hardware, interface, index } = announcement;
    if let Err(error) = socket.broadcast(*index, &packet(announcement)) {
        tracing::debug!(%error, %address, ?hardware, interface, "address not announced");
    }
}

/// Returns an ARP announcement: a request whose sender and target are the same address.
fn packet(announcement: &Announcement) -> [u8; ArpEthIpv4Packet::LEN] {
    let address = announcement.address.octets();
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: announcement.hardware,
        sender_ipv4: address,
        target_mac: [0; 6],
        target_ipv4: address,
    };
    packet.to_bytes()
}

/// Number of announcements of an address. RFC 5227 asks for two. The others reach routers that lost
/// those, and routers whose switch was still learning.
const TIMES: usize = 4;
/// Time between the first two announcements; it grows by as much with each.
const INTERVAL: Duration = Duration::from_secs(1);
/// Announcements that leave at once.
const BATCH: usize = 64;
/// Pause between two batches.
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn announcement(interface: &str, last: u8) -> Announcement {
        Announcement {
            address: Ipv4Addr::new(203, 0, 113, last),
            hardware: [2, 0, 0, 0, 0, 1],
            interface: interface.to_owned(),
            index: 7,
        }
    }

    fn fresh(announcements: &Announcements) -> Vec<Announcement> {
        announcements.fresh.borrow_mut().drain(..).collect()
    }

    #[test]
    fn an_announcement_is_an_arp_request_for_its_own_address() {
        let bytes = packet(&announcement("wan0", 10));
        let expected = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &[2, 0, 0, 0, 0, 1, 203, 0, 113, 10],
            &[0, 0, 0, 0, 0, 0, 203, 0, 113, 10],
        ];
        assert_eq!(bytes[..], expected.concat());
    }

    #[test]
    fn only_new_addresses_are_announced_until_their_interface_was_down() {
        let announcements = Announcements::default();
        let [first, second] = [announcement("wan0", 10), announcement("wan1", 20)];
        announcements.adopt(vec![first.clone()]);
        assert_eq!(fresh(&announcements), std::slice::from_ref(&first));
        announcements.adopt(vec![first.clone(), second.clone()]);
        assert_eq!(fresh(&announcements), std::slice::from_ref(&second));
        announcements.forget("wan0");
        announcements.adopt(vec![first.clone(), second.clone()]);
        assert_eq!(fresh(&announcements), std::slice::from_ref(&first));
        announcements.repeat("wan1");
        assert_eq!(fresh(&announcements), [second]);
        let moved = Announcement { hardware: [2, 0, 0, 0, 0, 2], ..first };
        announcements.adopt(vec![moved.clone()]);
        assert_eq!(fresh(&announcements), [moved]);
    }
}

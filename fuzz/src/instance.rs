//! One worker of a box, with the checks that hold for every packet: right checksums, no private
//! address outside, and counters that account for each packet.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use natbox::fuzzing::{SentPackets, WireQueue};
use natbox::nat::{
    Counters, DropReason, Filter, Limits, Policy, Seed, SessionInfo, TableCursor, Translator,
};
use natbox::packet::{ChecksumMode, Offload, Payload, builder, parse};
use natbox::time::{Span, Tick};

use super::packets::Recent;
use super::world::{BYPASSED, EXTERNAL};

/// A worker over a queue in memory, with its clock.
pub struct Instance {
    queue: WireQueue,
    limits: Limits,
    /// Time of the next batch.
    pub now: Tick,
    /// The packets that left.
    pub recent: Recent,
    /// Reads of the device.
    reads: u64,
    /// Packets that left, and their bytes.
    sent: (u64, u64),
    /// False once a packet with a wrong checksum has arrived: it leaves equally wrong, and natbox
    /// may quote it later.
    is_strict: bool,
}

impl Instance {
    /// Starts a worker with batches of at most `batch` packets.
    pub fn new(limits: Limits, policy: Policy, batch: usize) -> Self {
        // The clock wraps soon.
        let now = Tick(u32::MAX - 5000);
        let nat = Translator::new(limits.clone(), policy, 1, Seed::from(7), now).expect("memory");
        let queue = WireQueue::new(nat, batch);
        Self {
            queue,
            limits,
            now,
            recent: Recent::default(),
            reads: 0,
            sent: (0, 0),
            is_strict: true,
        }
    }

    /// Returns the worker's queue, for everything that sends no packet.
    pub fn queue(&mut self) -> &mut WireQueue {
        &mut self.queue
    }

    /// Queues a packet behind a virtio header, as a read of the device returns them.
    pub fn push(&mut self, header: &[u8], packet: &[u8]) {
        self.reads += 1;
        let is_partial = header.first().is_some_and(|flags| flags & 1 == 1);
        let mode = if is_partial { ChecksumMode::Partial } else { ChecksumMode::Complete };
        self.is_strict &= header.len() == 10 && builder::verify(packet, mode).is_ok();
        self.queue.push(&[header, packet].concat());
    }

    /// Queues a complete packet.
    pub fn push_complete(&mut self, packet: &[u8]) {
        self.push(&[0; 10], packet);
    }

    /// Translates the packets that wait, and checks those that leave.
    ///
    /// # Panics
    /// If a packet leaves that must not, or the counters do not account for one.
    pub fn run(&mut self) -> SentPackets {
        let sent = self.queue.run(self.now);
        self.check(sent)
    }

    /// Lets time pass without packets, and checks those that leave.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn wait(&mut self, span: Span) -> SentPackets {
        self.now = self.now.after(span);
        let sent = self.queue.idle(self.now);
        self.check(sent)
    }

    /// Sends one complete packet. Returns those that leave.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn send(&mut self, packet: &[u8]) -> SentPackets {
        self.push_complete(packet);
        self.run()
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> u32 {
        self.queue.translator().table().len()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        self.queue.counters()
    }

    fn check(&mut self, sent: SentPackets) -> SentPackets {
        for (packet, offload) in &sent {
            self.check_packet(packet, *offload);
            self.recent.note(packet);
            self.sent.0 += 1;
            self.sent.1 += packet.len() as u64;
        }
        let waiting = self.waiting();
        assert!((0..=MAX_HELD).contains(&waiting), "{waiting} packets wait: {:?}", self.counters());
        sent
    }

    /// Returns the number of fragments that wait for the first one of their datagram, as the other
    /// counters leave it.
    fn waiting(&self) -> i64 {
        let counters = self.counters();
        let dropped: u64 = counters.drops.iter().map(|(_, count)| count).sum();
        let header = counters.drops.of(DropReason::BadVnetHeader);
        assert_eq!(counters.packets_in + header, self.reads, "a read is counted once");
        assert_eq!(counters.packets_out, self.sent.0, "a packet that leaves is counted once");
        if counters.drops.of(DropReason::TunWriteError) == 0 {
            assert_eq!(counters.bytes_out, self.sent.1, "bytes that leave are counted once");
        }
        let own = counters.icmp_errors_sent + counters.failover_notifications;
        (self.reads + own) as i64 - (counters.packets_out + dropped) as i64
    }

    fn check_packet(&self, packet: &[u8], offload: Offload) {
        let header_length = packet.first().map_or(0, |byte| u16::from(byte & 15) * 4);
        let is_partial = offload.checksum.is_some_and(|partial| partial.start == header_length);
        let mode = if is_partial { ChecksumMode::Partial } else { ChecksumMode::Complete };
        parse(packet, mode).expect("what leaves is well-formed");
        if self.is_strict {
            builder::verify(packet, mode).expect("every checksum is right");
        }
        self.check_privacy(packet);
    }

    /// Checks that a packet to the outside has no inside address in its header, in what its options
    /// have recorded, and in the packet that it quotes.
    fn check_privacy(&self, packet: &[u8]) {
        let parsed = parse(packet, ChecksumMode::Partial).expect("it was parsed before");
        let to = parsed.destination();
        if EXTERNAL.contains(&to) {
            let nat = self.queue.translator();
            let addresses = nat.policy().uplinks.iter().flat_map(|uplink| &uplink.addresses);
            let is_own = addresses.clone().any(|own| own.address == to && own.assigned_to_host);
            assert!(is_own, "a packet to {to} would arrive here again: {packet:?}");
            return;
        }
        let is_bypassed = to.octets()[..3] == BYPASSED.octets()[..3];
        if self.is_inside(to) || to.is_link_local() || is_bypassed {
            return;
        }
        let from = parsed.source();
        assert!(EXTERNAL.contains(&from), "a packet leaves from {from} to {to}");
        for address in recorded(&packet[20..parsed.header_length()]) {
            assert!(!self.is_inside(address), "{address} is in an option of a packet to {to}");
        }
        if let Payload::IcmpError(_) = parsed.payload() {
            let quote = &packet[parsed.header_length() + 8..];
            for at in [12, 16] {
                let address = Ipv4Addr::from(*quote[at..].first_chunk().expect("a quoted header"));
                assert!(!self.is_inside(address), "{address} is in an error to {to}");
            }
        }
    }

    fn is_inside(&self, address: Ipv4Addr) -> bool {
        self.limits.inside.iter().any(|prefix| prefix.contains(&address))
    }

    /// Lists the sessions.
    ///
    /// # Panics
    /// If two sessions have a tuple in common, or the table's own count differs.
    pub fn list(&self) -> Vec<SessionInfo> {
        list(&self.queue.translator())
    }

    /// Ends the run: after the longest timeout nothing is left, and every packet is accounted for.
    /// Returns the counters.
    ///
    /// # Panics
    /// If a session, a mapping or a packet is left.
    pub fn finish(mut self) -> Counters {
        self.list();
        for _ in 0..12 {
            self.wait(Span::seconds(30));
        }
        let nat = self.queue.translator();
        assert_eq!((nat.table().len(), nat.mappings()), (0, 0), "sessions and mappings are left");
        assert_eq!(self.waiting(), 0, "packets vanished: {:?}", self.counters());
        let counters = self.counters();
        assert!(counters.sessions_expired <= counters.sessions_created, "{counters:?}");
        counters.clone()
    }
}

/// Lists the sessions of a translator.
///
/// # Panics
/// If two sessions have a tuple in common, or the table's own count differs.
pub fn list(nat: &Translator) -> Vec<SessionInfo> {
    let (mut sessions, mut next) = (Vec::new(), Some(TableCursor::default()));
    while let Some(from) = next {
        let page = nat.sessions(from, &Filter::default());
        sessions.extend(page.items);
        next = page.next;
    }
    assert_eq!(sessions.len() as u32, nat.table().len(), "the list and the count differ");
    let tuples = sessions.iter().flat_map(|session| [session.original, session.reply]);
    let distinct: HashSet<_> = tuples.collect();
    assert_eq!(distinct.len(), 2 * sessions.len(), "two sessions have a tuple in common");
    sessions
}

/// Returns the addresses that options of an IP header have recorded: those of routes (RFC 791) and
/// those beside times.
fn recorded(mut options: &[u8]) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    while let [kind @ 2..=255, length, rest @ ..] = options {
        let Some(body) = rest.get(..usize::from(*length).saturating_sub(2)) else { break };
        let end = body.first().map_or(0, |pointer| usize::from(*pointer).saturating_sub(3));
        let slots = match (*kind, body.get(1)) {
            (7, _) => body.get(1..end).map(|slots| (slots, 4)),
            (68, Some(flags)) if matches!(flags & 15, 1 | 3) => {
                body.get(2..end).map(|slots| (slots, 8))
            }
            _ => None,
        };
        if let Some((slots, size)) = slots {
            let addresses = slots.chunks_exact(size).filter_map(<[u8]>::first_chunk::<4>);
            found.extend(addresses.map(|octets| Ipv4Addr::from(*octets)));
        }
        options = &rest[body.len()..];
        while let [1, more @ ..] = options {
            options = more;
        }
    }
    found
}

/// More fragments than a store of the limits here can hold.
const MAX_HELD: i64 = 24 * 128;

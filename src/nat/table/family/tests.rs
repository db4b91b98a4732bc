//! A second family with records of 128 bytes: whatever the table does must not depend on IPv4.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::*;
use crate::nat::policy::limits::Limits;
use crate::nat::table::common::RecordCommon;
use crate::nat::table::hash::{KeyHash, KeyHasher};
use crate::nat::table::lookup::Lookup;
use crate::nat::table::region::plain;
use crate::nat::table::session::{EndReason, NewSession, SessionKind};
use crate::nat::table::session_table::{InsertError, Table};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::{Span, Tick};

/// A family of wide addresses.
#[derive(Debug)]
enum Wide {}

impl sealed::Sealed for Wide {}

impl Family for Wide {
    type Key = WideKey;
    type Record = WideRecord;
}

/// A tuple of wide addresses: source and destination, two words each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct WideKey {
    addresses: [u64; 4],
    ports: u32,
    protocol: u8,
}

impl WideKey {
    fn of(tuple: Tuple<Ipv6Addr>) -> Self {
        let words = |address: Ipv6Addr| {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        };
        let ([a, b], [c, d]) = (words(tuple.source.address), words(tuple.destination.address));
        Self {
            addresses: [a, b, c, d],
            ports: u32::from(tuple.source.port) << 16 | u32::from(tuple.destination.port),
            protocol: tuple.protocol.0,
        }
    }
}

impl SessionKey for WideKey {
    type Tuple = Tuple<Ipv6Addr>;

    fn tuple(self) -> Tuple<Ipv6Addr> {
        let [a, b, c, d] = self.addresses;
        let address =
            |high: u64, low: u64| Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        Tuple {
            protocol: Protocol(self.protocol),
            source: Endpoint::new(address(a, b), (self.ports >> 16) as u16),
            destination: Endpoint::new(address(c, d), self.ports as u16),
        }
    }

    fn reversed_tuple(self) -> Tuple<Ipv6Addr> {
        self.tuple().reversed()
    }

    fn hash_with(self, hasher: &KeyHasher) -> KeyHash {
        let [a, b, c, d] = self.addresses;
        let KeyHash(source) = hasher.hash(a, b);
        let KeyHash(destination) = hasher.hash(c ^ source, d);
        hasher.hash(destination, u64::from(self.ports) << 8 | u64::from(self.protocol))
    }

    fn hash_hosts_with(self, hasher: &KeyHasher) -> KeyHash {
        let [a, b, c, d] = self.addresses;
        let KeyHash(source) = hasher.hash(a, b);
        hasher.hash(c ^ source, d)
    }
}

plain! {
    #[repr(C, align(64))]
    struct WideRecord {
        original: [AtomicU64; 4],
        reply: [AtomicU64; 4],
        original_ports: AtomicU32,
        reply_ports: AtomicU32,
        common: RecordCommon,
    }
}

const _: () = assert!(size_of::<WideRecord>() == 128);

impl SessionRecord for WideRecord {
    type Key = WideKey;

    fn common(&self) -> &RecordCommon {
        &self.common
    }

    fn fill(&self, new: &NewSession<WideKey>, now: Tick) {
        for (stored, key) in [(&self.original, &new.original), (&self.reply, &new.reply)] {
            for (word, value) in stored.iter().zip(key.addresses) {
                word.store(value, Relaxed);
            }
        }
        self.original_ports.store(new.original.ports, Relaxed);
        self.reply_ports.store(new.reply.ports, Relaxed);
        let NewSession { origin, uplink, state, idle, .. } = *new;
        self.common.fill(new.original.protocol, origin, uplink, state, idle, now);
    }

    fn key(&self, direction: Direction) -> WideKey {
        let (addresses, ports) = match direction {
            Direction::Original => (&self.original, &self.original_ports),
            Direction::Reply => (&self.reply, &self.reply_ports),
        };
        WideKey {
            addresses: std::array::from_fn(|word| addresses[word].load(Relaxed)),
            ports: ports.load(Relaxed),
            protocol: self.common.protocol(),
        }
    }

    fn is_dns(&self) -> bool {
        self.original_ports.load(Relaxed) & 0xffff == 53
    }

    fn is_blank(&self) -> bool {
        self.original.iter().chain(&self.reply).all(|word| word.load(Relaxed) == 0)
    }

    fn clear_keys(&self) {
        self.original.iter().chain(&self.reply).for_each(|word| word.store(0, Relaxed));
        self.original_ports.store(0, Relaxed);
        self.reply_ports.store(0, Relaxed);
    }
}

fn session(number: u16) -> NewSession<WideKey> {
    let endpoint = |text: &str, port| Endpoint::new(text.parse().expect("an address"), port);
    let (inside, remote) = (endpoint("fd00::5", number), endpoint("2001:db8::1", 53));
    let external = endpoint("2001:db8:1::1", number);
    let tuple = |source, destination| Tuple { protocol: Protocol::UDP, source, destination };
    NewSession {
        original: WideKey::of(tuple(inside, remote)),
        reply: WideKey::of(tuple(remote, external)),
        origin: SessionKind::OUTBOUND,
        uplink: 1,
        state: State::Udp,
        idle: Span(0),
    }
}

#[test]
fn a_table_of_another_family_finds_tracks_lists_and_ends_its_sessions() {
    const CAPACITY: u16 = 500;
    let timeouts = Limits::new("10.0.0.0/24".parse().expect("a prefix")).timeouts;
    let table: Table<Wide> =
        Table::of_family(CAPACITY.into(), 2, IdleTimeouts::new(&timeouts), [1, 2, 3, 4], Tick(0))
            .expect("memory");
    let ids: Vec<_> = (0..CAPACITY)
        .map(|number| table.insert(0, &session(number), None, Tick(0)).expect("space"))
        .collect();
    assert_eq!(table.insert(0, &session(CAPACITY), None, Tick(0)), Err(InsertError::Full));
    for number in 0..CAPACITY {
        let NewSession { original, reply, .. } = session(number);
        assert_eq!(WideKey::of(original.tuple()), original);
        let hit = table.lookup(original, Tick(0)).expect("it was inserted");
        assert_eq!(WideKey::of(hit.to.reversed()), reply);
        // A reply of a name server shortens the timeout.
        let found = table.lookup_and_update(reply, table.hash(reply), None, 0, Tick(1));
        let Lookup::Hit(hit) = found else { panic!("{found:?}") };
        assert_eq!((hit.direction, hit.to), (Direction::Reply, original.reversed_tuple()));
        table.reschedule(hit.reschedule.expect("it ends sooner"), Tick(1));
    }
    let info = table.session(ids[7]).expect("it lives");
    assert_eq!((info.original, info.state), (session(7).original.tuple(), State::DnsReplied));
    assert_eq!(info.deadline, Tick(1).after(timeouts.udp_dns));
    assert!(table.end(ids[7], EndReason::Requested, Tick(1)).is_some());
    assert_eq!(table.session(ids[7]), None);
    let mut ended = Vec::new();
    for worker in 0..2 {
        while !table.expire(worker, Tick(0).after(Span::seconds(12)), 1000, &mut ended) {}
    }
    assert_eq!((ended.len(), table.len()), (usize::from(CAPACITY) - 1, 0));
}

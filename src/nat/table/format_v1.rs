//! The reader of session files of the first format.
//!
//! Nothing here follows the present records: offsets, numbers, shape of the index and hash are
//! those of the format for ever. Files of this format may come from another release, and may be
//! damaged.
//!
//! ```text
//!   record (64 bytes)   0 original addresses u64   8 reply addresses u64      source in the upper half
//!                      16 original ports u32      20 reply ports u32         source in the upper half
//!                      24 protocol u8   25 kinds u8   26 uplink u8   27 state u8   28 last seen u32
//!                      32 next sequence 2 x u32   40 acknowledged 2 x u32   48 window word u32
//!                      52 links 2 x u32   60 slot of the wheel u16   62 generation u16
//!   bucket (64 bytes)   0 tags 8 x u16   16 entries 8 x u32   48 overflow u32   52 changing u32
//!   account (64 bytes)  0 start u32   8 packets 2 x u64   24 bytes 2 x u64
//! ```
//!
//! The eight bytes from 56 on of a bucket are zero in layout 1. In layout 2, the first four of them
//! are the overflow count again. Numbers are little-endian. After the records of the capacity come
//! 1,024 that are kept for the box itself.
//!
//! A record is *whole* if the index has both of its entries where a lookup finds them. In a shard
//! that a process was changing when it died, overflow counts may be wrong, so there the whole shard
//! is searched.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::nat::table::accounting::Accounting;
use crate::nat::table::files::{SessionFileSizes, SessionFiles};
use crate::nat::table::region::Region;
use crate::nat::table::session::{EndpointKind, SessionId, SessionInfo, SessionKind};
use crate::nat::tracking::state::State;
use crate::nat::tracking::tcp_state::TcpState;
use crate::nat::tracking::tcp_window::TcpSnapshot;
use crate::packet::{Endpoint, Protocol, Tuple};
use crate::time::Tick;

/// The layouts that this reader reads, as headers have them: number of the meaning, 1 for
/// little-endian, then sizes and offsets.
pub(super) const LAYOUTS: [&[u64]; 2] = [
    &[1, 1, 64, 40, 64, 0, 8, 16, 20, 24, 0, 1, 2, 3, 4, 8, 28, 32, 36, 38, 0, 16, 48, 52, 56],
    &[
        2, 1, 64, 40, 64, 64, 0, 8, 16, 20, 24, 0, 1, 2, 3, 4, 8, 28, 32, 36, 38, 0, 16, 48, 52,
        56, 60, 0, 4, 8, 24,
    ],
];

/// Files of the first format.
pub(crate) struct SessionsV1 {
    records: Region<AtomicU32>,
    index: Region<AtomicU32>,
    accounts: Option<Region<AtomicU32>>,
    capacity: u32,
    secret: [u64; 4],
    shape: IndexShape,
    /// For each shard: whether a process was changing it.
    torn: Vec<bool>,
}

/// Shape of an index.
#[derive(Clone, Copy)]
struct IndexShape {
    shards: u64,
    /// A power of two.
    shard_buckets: u64,
}

impl IndexShape {
    fn of(capacity: u32) -> Self {
        let wanted = (record_count(capacity) * 4).div_ceil(8);
        let least = wanted.min(1024);
        let shard_buckets = wanted.div_ceil(1024).max(least).next_power_of_two();
        Self { shards: wanted.div_ceil(shard_buckets), shard_buckets }
    }

    fn buckets(self) -> u64 {
        self.shards * self.shard_buckets
    }
}

/// Lengths of the files for `capacity` sessions.
pub(super) fn sizes(capacity: u32, accounting: bool) -> SessionFileSizes {
    let records = record_count(capacity) * LINE;
    SessionFileSizes {
        records,
        index: IndexShape::of(capacity).buckets() * LINE,
        accounts: if accounting { records } else { 0 },
    }
}

impl SessionsV1 {
    /// Maps files. `secret`: the key of the hash over tuples.
    ///
    /// # Errors
    /// A file is too short or cannot be mapped.
    pub(super) fn open(
        files: &SessionFiles,
        capacity: u32,
        accounting: bool,
        secret: [u64; 4],
    ) -> io::Result<Self> {
        let sizes = sizes(capacity, accounting);
        let words = |bytes: u64| usize::try_from(bytes / 4).map_err(io::Error::other);
        let shape = IndexShape::of(capacity);
        let index = Region::<AtomicU32>::map_file(&files.index, words(sizes.index)?)?;
        let shards = index.chunks(words(shape.shard_buckets * LINE)?);
        let is_torn = |shard: &[AtomicU32]| {
            shard.chunks(WORDS).any(|bucket| bucket[CHANGING / 4].load(Relaxed) != 0)
        };
        Ok(Self {
            torn: shards.map(is_torn).collect(),
            records: Region::map_file(&files.records, words(sizes.records)?)?,
            accounts: accounting
                .then(|| Region::map_file(&files.accounts, words(sizes.accounts)?))
                .transpose()?,
            secret: secret.map(|word| word | 1 << 63 | 1),
            index,
            capacity,
            shape,
        })
    }

    /// Number of records.
    pub(super) fn records(&self) -> u32 {
        self.capacity + RESERVE
    }

    /// Reports whether a record is kept for the box itself.
    pub(super) fn is_reserved(&self, slot: u32) -> bool {
        slot >= self.capacity
    }

    /// Fetches the buckets of a record into the cache.
    pub(super) fn prefetch(&self, slot: u32) {
        let record = self.record(slot);
        for number in 0..2 {
            let hash = self.hash(record, number);
            self.index.prefetch(self.home_bucket(hash) as usize * WORDS);
        }
    }

    /// Reads the session of a record. Its uplink is the number in the record, and its deadline is
    /// not in the record: it is the time of the last packet. None: the record has no session, is
    /// not whole, or has values that no session has.
    pub(super) fn session(&self, slot: u32) -> Option<SessionInfo> {
        let record = self.record(slot);
        let generation = u16_at(record, 62);
        if generation == 0 || u16_at(record, 60) == FREE || !self.is_whole(slot, record) {
            return None;
        }
        let [original, reply] = [0, 1].map(|number| tuple(record, number));
        let last_seen = Tick(u32_at(record, 28));
        let pair = |offset| [u32_at(record, offset), u32_at(record, offset + 4)];
        let tcp = TcpSnapshot {
            next_sequence: pair(32),
            acknowledged: pair(40),
            window: u32_at(record, 48),
        };
        (original != reply).then_some(SessionInfo {
            id: SessionId::new(slot, generation),
            original,
            reply,
            origin: kinds(u8_at(record, 25))?,
            uplink: u8_at(record, 26),
            state: state(u8_at(record, 27))?,
            tcp,
            last_seen,
            deadline: last_seen,
            accounting: self.accounting(slot),
        })
    }

    fn accounting(&self, slot: u32) -> Option<Accounting> {
        let account = line(self.accounts.as_ref()?, u64::from(slot));
        let pair = |offset| [u64_at(account, offset), u64_at(account, offset + 8)];
        Some(Accounting { start: Tick(u32_at(account, 0)), packets: pair(8), bytes: pair(24) })
    }

    fn record(&self, slot: u32) -> &[AtomicU32] {
        line(&self.records, u64::from(slot))
    }

    fn is_whole(&self, slot: u32, record: &[AtomicU32]) -> bool {
        (0..2).all(|number| self.has_entry(self.hash(record, number), slot << 1 | number as u32))
    }

    /// Reports whether the index has an entry of a hash.
    fn has_entry(&self, hash: u64, entry: u32) -> bool {
        let IndexShape { shard_buckets, .. } = self.shape;
        let tag = (hash as u16).max(1);
        let home = self.home_bucket(hash);
        let (shard, offset) = (home / shard_buckets, home % shard_buckets);
        for step in 0..shard_buckets {
            let bucket = shard * shard_buckets + (offset + step) % shard_buckets;
            let bucket = line(&self.index, bucket);
            let has = |slot: usize| {
                u16_at(bucket, 2 * slot) == tag && u32_at(bucket, 16 + 4 * slot) == entry
            };
            if (0..8).any(has) {
                return true;
            }
            if u32_at(bucket, 48) == 0 && !self.torn[shard as usize] {
                return false;
            }
        }
        false
    }

    fn home_bucket(&self, hash: u64) -> u64 {
        ((hash >> 32) * self.shape.buckets()) >> 32
    }

    /// Hash of a tuple of a record: that of the original (0) or of the reply (1).
    fn hash(&self, record: &[AtomicU32], number: usize) -> u64 {
        let addresses = u64_at(record, 8 * number);
        let ports = u64::from(u32_at(record, 16 + 4 * number));
        let second = ports << 8 | u64::from(u8_at(record, 24));
        let folded = |left: u64, right: u64| {
            let product = u128::from(left) * u128::from(right);
            product as u64 ^ (product >> 64) as u64
        };
        let [a, b, c, d] = self.secret;
        let round = folded(addresses ^ a, second ^ b);
        folded(round ^ c, d.wrapping_add(addresses.rotate_left(23)))
    }
}

fn tuple(record: &[AtomicU32], number: usize) -> Tuple {
    let (addresses, ports) = (u64_at(record, 8 * number), u32_at(record, 16 + 4 * number));
    let endpoint =
        |address: u64, port: u32| Endpoint::new(Ipv4Addr::from_bits(address as u32), port as u16);
    Tuple {
        protocol: Protocol(u8_at(record, 24)),
        source: endpoint(addresses >> 32, ports >> 16),
        destination: endpoint(addresses, ports),
    }
}

fn kinds(number: u8) -> Option<SessionKind> {
    let kind = |number: u8| {
        Some(match number {
            0 => EndpointKind::Outside,
            1 => EndpointKind::Mapping,
            2 => EndpointKind::Forward,
            3 => EndpointKind::Address,
            4 => EndpointKind::Port,
            _ => return None,
        })
    };
    Some(SessionKind { initiator: kind(number >> 3)?, responder: kind(number & 7)? })
}

fn state(number: u8) -> Option<State> {
    Some(match number {
        0 => State::Tcp(TcpState::SynOriginal),
        1 => State::Tcp(TcpState::SynReply),
        2 => State::Tcp(TcpState::SynBoth),
        3 => State::Tcp(TcpState::Midstream),
        4 => State::Tcp(TcpState::MidstreamFin),
        5 => State::Tcp(TcpState::Established),
        6 => State::Tcp(TcpState::FinOriginal),
        7 => State::Tcp(TcpState::FinReply),
        8 => State::Tcp(TcpState::FinBoth),
        9 => State::Tcp(TcpState::Reset),
        10 => State::Udp,
        11 => State::DnsReplied,
        12 => State::Icmp,
        13 => State::Other,
        14 => State::Tentative,
        _ => return None,
    })
}

fn line(words: &[AtomicU32], number: u64) -> &[AtomicU32] {
    let first = number as usize * WORDS;
    &words[first..first + WORDS]
}

fn u32_at(line: &[AtomicU32], offset: usize) -> u32 {
    line[offset / 4].load(Relaxed)
}

fn u16_at(line: &[AtomicU32], offset: usize) -> u16 {
    (u32_at(line, offset) >> (offset % 4 * 8)) as u16
}

fn u8_at(line: &[AtomicU32], offset: usize) -> u8 {
    (u32_at(line, offset) >> (offset % 4 * 8)) as u8
}

fn u64_at(line: &[AtomicU32], offset: usize) -> u64 {
    u64::from(u32_at(line, offset + 4)) << 32 | u64::from(u32_at(line, offset))
}

fn record_count(capacity: u32) -> u64 {
    u64::from(capacity) + u64::from(RESERVE)
}

/// Bytes of a record, a bucket and an account.
const LINE: u64 = 64;
/// Words of them.
const WORDS: usize = 16;
/// Records that are kept for the box itself.
const RESERVE: u32 = 1024;
/// Slot of the wheel of a record without a session.
const FREE: u16 = u16::MAX;
/// Offset of the mark of a bucket whose entries change.
const CHANGING: usize = 52;

//! The baseline of the session table: a DashMap, for ratios that hold on any machine.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;
use natbox::nat::{Key, KeyHash, Table};
use natbox::time::{Span, Tick};

/// A session table with a DashMap for its index: from hashed key to record, one record in a cache
/// line.
pub(crate) struct DashmapBaseline {
    index: DashMap<Hashed, u32, BuildHasherDefault<Ready>>,
    records: Vec<BaselineRecord>,
}

#[repr(align(64))]
struct BaselineRecord {
    keys: [Key; 2],
    last_seen: AtomicU32,
    state: AtomicU32,
    spare: AtomicU64,
}

/// A key with its hash, so that both indexes use the same hash function.
#[derive(PartialEq, Eq)]
struct Hashed {
    key: Key,
    hash: u64,
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Returns the hash that the key brings along.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a Hashed writes one word");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl DashmapBaseline {
    pub(crate) fn new(table: &Table, sessions: impl ExactSizeIterator<Item = [Key; 2]>) -> Self {
        let index = DashMap::with_capacity_and_hasher_and_shard_amount(
            2 * sessions.len(),
            BuildHasherDefault::default(),
            1024,
        );
        let mut records = Vec::with_capacity(sessions.len());
        for (id, keys) in sessions.enumerate() {
            for (direction, key) in keys.into_iter().enumerate() {
                let hash = table.hash(key).0;
                index.insert(Hashed { key, hash }, (id as u32) << 1 | direction as u32);
            }
            let [last_seen, state] = [0, 0].map(AtomicU32::new);
            records.push(BaselineRecord { keys, last_seen, state, spare: AtomicU64::new(0) });
        }
        Self { index, records }
    }

    pub(crate) fn lookup_and_update(&self, key: Key, hash: KeyHash, now: Tick) -> Option<Key> {
        // The guard is held while the record is in use, like the lock of a shard of the table.
        let entry = self.index.get(&Hashed { key, hash: hash.0 })?;
        let record = &self.records[(*entry >> 1) as usize];
        let age = now.since(Tick(record.last_seen.load(Relaxed)));
        if age > LIFETIME && record.state.load(Relaxed) != 0 {
            record.spare.fetch_add(1, Relaxed);
            return None;
        }
        record.last_seen.store(now.0, Relaxed);
        Some(record.keys[(*entry & 1 ^ 1) as usize])
    }
}

const LIFETIME: Span = Span::seconds(1);

//! The index: from the hash of a key to the slots of records, lock-sharded, of fixed size.
//!
//! A bucket is one cache line: eight 16-bit tags, eight entries, and an overflow count. The
//! overflow count says how many entries belong to this bucket and lie in a later one because this
//! one was full. A lookup reads the home bucket and continues with the next bucket only while that
//! count is not zero. So there are no tombstones, and a lookup finds an entry at any fill up to the
//! last slot.
//!
//! ```text
//!   bucket (64 bytes)   | tags 8 x u16 | entries 8 x u32 | overflow, changing, copy, spare: u32 |
//!   shard               bucket bucket bucket ... bucket      one lock; probing wraps inside the shard
//!   index               shard shard shard ... shard          upper half of the hash picks bucket and shard
//! ```
//!
//! The lock of a shard guards the shard's buckets and keeps every record alive that the buckets
//! name: before a worker frees a record, the worker removes the record's entries. The tag of an
//! empty slot is zero.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::compiler_fence;

use parking_lot::{Mutex, MutexGuard};

use crate::nat::table::atomic::{AtomicU32, AtomicU64};
use crate::nat::table::hash::KeyHash;
use crate::nat::table::region::{Region, plain};
use crate::nat::tracking::direction::Direction;

/// What an entry points at: a record's slot and which of the record's two tuples was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry(pub(crate) u32);

impl IndexEntry {
    /// Packs a record's slot and a direction.
    #[inline]
    pub(crate) fn new(slot: u32, direction: Direction) -> Self {
        Self(slot << 1 | direction.number() as u32)
    }

    /// Unpacks the record's slot and the direction.
    #[inline]
    pub(crate) fn split(self) -> (u32, Direction) {
        (self.0 >> 1, if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply })
    }
}

plain! {
    /// One cache line of the index. The shard's lock guards the fields; a read without the lock
    /// only guides prefetching.
    #[repr(C, align(64))]
    pub(crate) struct Bucket {
        tags: [AtomicU64; 2],
        entries: [AtomicU32; SLOTS],
        overflow: AtomicU32,
        /// Not zero while a worker changes the entries of keys with this home bucket. A process
        /// that dies in the meantime leaves the mark; see [`Index::condition`].
        changing: AtomicU32,
        /// The overflow count again: if both differ in a shard that no worker was changing, the
        /// bucket is damaged.
        overflow_copy: AtomicU32,
        /// Always zero: anything else is damage.
        spare: AtomicU32,
    }
}

const SLOTS: usize = 8;
const _: () = assert!(size_of::<Bucket>() == 64);

/// The index. See the module doc.
pub(crate) struct Index {
    buckets: Region<Bucket>,
    shards: Box<[Shard]>,
    /// Buckets per shard are a power of two.
    shard_shift: u32,
}

#[repr(align(64))]
struct Shard(Mutex<()>);

/// Number and size of the shards of an index.
struct Shape {
    shards: usize,
    /// A power of two.
    shard_buckets: usize,
}

impl Shape {
    fn of(entries: usize) -> Self {
        let wanted = (entries * 2).div_ceil(SLOTS).max(1);
        let shard_buckets =
            wanted.div_ceil(MAX_SHARDS).max(MIN_SHARD_BUCKETS.min(wanted)).next_power_of_two();
        Self { shards: wanted.div_ceil(shard_buckets), shard_buckets }
    }
}

/// Holds a shard, or the two shards of a session's keys.
pub(crate) struct Locked<'a> {
    index: &'a Index,
    _first: MutexGuard<'a, ()>,
    _second: Option<MutexGuard<'a, ()>>,
}

/// What a check of a shard has found.
pub(crate) struct ShardCondition {
    /// The shard needs a repair.
    pub(crate) is_torn: bool,
    /// Number of damaged buckets. In a shard that a worker was changing, a cut-off change looks
    /// like damage and does not count.
    pub(crate) damaged_buckets: u32,
}

/// No slot is left in the shard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShardFull;

impl Index {
    /// Makes an index that `entries` entries fill by half, so that no shard becomes full by chance.
    /// A small index has one shard. `file`: where the buckets live; None: in anonymous memory.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub(crate) fn new(entries: usize, file: Option<&File>) -> io::Result<Self> {
        let Shape { shards, shard_buckets } = Shape::of(entries);
        Ok(Self {
            buckets: Region::map_in(file, shards * shard_buckets)?,
            shards: (0..shards).map(|_| Shard(Mutex::new(()))).collect(),
            shard_shift: shard_buckets.trailing_zeros(),
        })
    }

    /// Bytes of the buckets of an index for `entries` entries.
    ///
    /// # Errors
    /// More bytes than an address space has.
    pub(crate) fn bytes(entries: usize) -> io::Result<u64> {
        let Shape { shards, shard_buckets } = Shape::of(entries);
        Region::<Bucket>::bytes(shards * shard_buckets)
    }

    /// Fetches the home bucket of `hash` into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.buckets.prefetch(self.home_bucket(hash));
    }

    /// Returns the first entry in the home bucket whose tag matches, most likely the one that a
    /// lookup will find. The read takes no lock, so the result is only a hint.
    #[inline]
    pub(crate) fn speculate(&self, hash: KeyHash) -> Option<IndexEntry> {
        let bucket = &self.buckets[self.home_bucket(hash)];
        bucket
            .matching_slots(tag(hash))
            .next()
            .map(|slot| IndexEntry(bucket.entries[slot].load(Relaxed)))
    }

    /// Locks the shard of a key.
    #[inline]
    pub(crate) fn lock(&self, hash: KeyHash) -> Locked<'_> {
        let shard = self.shard_of(self.home_bucket(hash));
        Locked { index: self, _first: self.shards[shard].0.lock(), _second: None }
    }

    /// Locks the shards of two keys in ascending order, so that two workers cannot wait for each
    /// other.
    pub(crate) fn lock_both(&self, one: KeyHash, other: KeyHash) -> Locked<'_> {
        let (one, other) =
            (self.shard_of(self.home_bucket(one)), self.shard_of(self.home_bucket(other)));
        let first = self.shards[one.min(other)].0.lock();
        let second = (one != other).then(|| self.shards[one.max(other)].0.lock());
        Locked { index: self, _first: first, _second: second }
    }

    /// Tells whether a shard needs a repair: a process was changing it when the process died, or a
    /// bucket is damaged. Its overflow counts may be wrong then, and it may have entries of records
    /// that are free. `records`: the number of records. No worker may have changed the shard yet.
    pub(crate) fn condition(&self, shard: usize, records: usize) -> ShardCondition {
        let first = shard << self.shard_shift;
        let buckets = &self.buckets[first..first + (1usize << self.shard_shift)];
        let is_changing = buckets.iter().any(|bucket| bucket.changing.load(Relaxed) != 0);
        let damaged = buckets.iter().filter(|bucket| bucket.is_damaged(records)).count();
        ShardCondition {
            is_torn: is_changing || damaged > 0,
            damaged_buckets: if is_changing { 0 } else { damaged as u32 },
        }
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Number of the shard of a key.
    pub(crate) fn shard_of_key(&self, hash: KeyHash) -> usize {
        self.shard_of(self.home_bucket(hash))
    }

    /// Repairs a shard: removes the entries for which `hash_of` returns no hash or that of another
    /// place, and counts the overflows again. `hash_of`: the hash of the key that an entry stands
    /// for; None: no live record has the entry.
    pub(crate) fn repair(&self, shard: usize, hash_of: impl Fn(IndexEntry) -> Option<KeyHash>) {
        let _guard = self.shards[shard].0.lock();
        let first = shard << self.shard_shift;
        let buckets = first..first + (1usize << self.shard_shift);
        for bucket in buckets.clone() {
            self.buckets[bucket].set_overflow(0);
            self.buckets[bucket].spare.store(0, Relaxed);
        }
        for bucket in buckets.clone() {
            let contents = &self.buckets[bucket];
            for slot in 0..SLOTS {
                let found = contents.tag(slot);
                if found == EMPTY {
                    continue;
                }
                let hash = hash_of(IndexEntry(contents.entries[slot].load(Relaxed)));
                let belongs = |hash: &KeyHash| {
                    tag(*hash) == found && self.shard_of(self.home_bucket(*hash)) == shard
                };
                match hash.filter(belongs) {
                    Some(hash) => self.change_overflow(self.home_bucket(hash), bucket, 1),
                    None => contents.set_tag(slot, EMPTY),
                }
            }
        }
        // Last: until here another death leaves the marks for the next process.
        compiler_fence(SeqCst);
        for bucket in buckets {
            self.buckets[bucket].changing.store(0, Relaxed);
        }
    }

    /// Adds `by` to the overflow count of every bucket from `home` up to, and without, `last`. The
    /// caller holds the shard.
    fn change_overflow(&self, home: usize, last: usize, by: i32) {
        let mut bucket = home;
        while bucket != last {
            let contents = &self.buckets[bucket];
            contents.set_overflow(contents.overflow.load(Relaxed).wrapping_add_signed(by));
            bucket = self.next_bucket(bucket);
        }
    }

    /// Sum of the overflow counts: 0 if every entry lies in its home bucket.
    #[cfg(test)]
    pub(crate) fn displacement(&self) -> u32 {
        (0..self.buckets.len()).map(|bucket| self.buckets[bucket].overflow.load(Relaxed)).sum()
    }

    /// Number of the home bucket of a key.
    #[cfg(test)]
    pub(crate) fn home_of(&self, hash: KeyHash) -> usize {
        self.home_bucket(hash)
    }

    /// Number of buckets of a shard.
    #[cfg(test)]
    pub(crate) fn shard_buckets(&self) -> usize {
        1 << self.shard_shift
    }

    /// Number of buckets that a look-up of a key reads if no entry matches.
    #[cfg(test)]
    pub(crate) fn buckets_read(&self, hash: KeyHash) -> usize {
        let mut bucket = self.home_bucket(hash);
        let mut count = 1;
        while count < self.shard_buckets() && self.buckets[bucket].overflow.load(Relaxed) != 0 {
            bucket = self.next_bucket(bucket);
            count += 1;
        }
        count
    }

    #[inline]
    fn home_bucket(&self, hash: KeyHash) -> usize {
        (((hash.0 >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn shard_of(&self, bucket: usize) -> usize {
        bucket >> self.shard_shift
    }

    /// The bucket after `bucket` in its shard's ring.
    #[inline]
    fn next_bucket(&self, bucket: usize) -> usize {
        let mask = (1 << self.shard_shift) - 1;
        (bucket & !mask) | ((bucket + 1) & mask)
    }
}

impl Locked<'_> {
    /// Finds the entry of `hash` that `is_match` accepts. The key must belong to a locked shard.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        mut is_match: impl FnMut(IndexEntry) -> bool,
    ) -> Option<IndexEntry> {
        let tag = tag(hash);
        let mut bucket = self.index.home_bucket(hash);
        for _ in 0..1usize << self.index.shard_shift {
            let contents = &self.index.buckets[bucket];
            for slot in contents.matching_slots(tag) {
                let entry = IndexEntry(contents.entries[slot].load(Relaxed));
                if is_match(entry) {
                    return Some(entry);
                }
            }
            if contents.overflow.load(Relaxed) == 0 {
                return None;
            }
            bucket = self.index.next_bucket(bucket);
        }
        None
    }

    /// Counts how often the index has an entry of `hash`. The key must belong to a locked shard.
    pub(crate) fn count(&self, hash: KeyHash, wanted: IndexEntry) -> usize {
        let mut count = 0;
        self.find(hash, |entry| {
            count += usize::from(entry == wanted);
            false
        });
        count
    }

    /// Adds an entry. The key must belong to a locked shard.
    pub(crate) fn insert(&self, hash: KeyHash, entry: IndexEntry) -> Result<(), ShardFull> {
        let home = self.index.home_bucket(hash);
        let _changing = Changing::begin(&self.index.buckets[home]);
        let mut bucket = home;
        for _ in 0..1usize << self.index.shard_shift {
            let contents = &self.index.buckets[bucket];
            if let Some(slot) = contents.matching_slots(EMPTY).next() {
                contents.entries[slot].store(entry.0, Relaxed);
                contents.set_tag(slot, tag(hash));
                self.index.change_overflow(home, bucket, 1);
                return Ok(());
            }
            bucket = self.index.next_bucket(bucket);
        }
        Err(ShardFull)
    }

    /// Removes an entry; false when the index has no such entry. The key must belong to a locked
    /// shard.
    pub(crate) fn remove(&self, hash: KeyHash, entry: IndexEntry) -> bool {
        let tag = tag(hash);
        let home = self.index.home_bucket(hash);
        let _changing = Changing::begin(&self.index.buckets[home]);
        let mut bucket = home;
        for _ in 0..1usize << self.index.shard_shift {
            let contents = &self.index.buckets[bucket];
            let found = contents
                .matching_slots(tag)
                .find(|slot| contents.entries[*slot].load(Relaxed) == entry.0);
            if let Some(slot) = found {
                contents.set_tag(slot, EMPTY);
                self.index.change_overflow(home, bucket, -1);
                return true;
            }
            if contents.overflow.load(Relaxed) == 0 {
                return false;
            }
            bucket = self.index.next_bucket(bucket);
        }
        false
    }
}

/// Marks a bucket while its entries change.
///
/// A killed thread has carried out every instruction up to one, and none after it. So only the
/// compiler may not move stores across the mark.
struct Changing<'a>(&'a Bucket);

impl<'a> Changing<'a> {
    #[inline]
    fn begin(home: &'a Bucket) -> Self {
        home.changing.store(1, Relaxed);
        compiler_fence(SeqCst);
        Self(home)
    }
}

impl Drop for Changing<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.0.changing.store(0, Relaxed);
    }
}

impl Bucket {
    /// Reports whether the bucket has what no worker leaves behind. `records`: the number of
    /// records.
    fn is_damaged(&self, records: usize) -> bool {
        let is_beyond = |slot: usize| {
            let (record, _) = IndexEntry(self.entries[slot].load(Relaxed)).split();
            self.tag(slot) != EMPTY && record as usize >= records
        };
        self.spare.load(Relaxed) != 0
            || self.overflow_copy.load(Relaxed) != self.overflow.load(Relaxed)
            || (0..SLOTS).any(is_beyond)
    }

    fn set_overflow(&self, count: u32) {
        self.overflow.store(count, Relaxed);
        self.overflow_copy.store(count, Relaxed);
    }

    /// Tag of a slot.
    fn tag(&self, slot: usize) -> u16 {
        (self.tags[slot / 4].load(Relaxed) >> (slot % 4 * 16)) as u16
    }

    /// Slots whose tag is `tag`, lowest first.
    #[inline]
    fn matching_slots(&self, tag: u16) -> impl Iterator<Item = usize> + use<> {
        let words = [self.tags[0].load(Relaxed), self.tags[1].load(Relaxed)];
        let mut candidates = equal_lanes(words[0], tag) | equal_lanes(words[1], tag) << 4;
        std::iter::from_fn(move || {
            (candidates != 0).then(|| {
                let slot = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                slot
            })
        })
    }

    fn set_tag(&self, slot: usize, tag: u16) {
        let word = &self.tags[slot / 4];
        let shift = slot % 4 * 16;
        word.store(word.load(Relaxed) & !(0xffff << shift) | u64::from(tag) << shift, Relaxed);
    }
}

/// Returns a bit for each of the four 16-bit lanes of `word` that equals `tag`, without false
/// positives.
#[inline]
fn equal_lanes(word: u64, tag: u16) -> u32 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    let difference = word ^ (u64::from(tag) * 0x0001_0001_0001_0001);
    // The top bit of a lane is clear only when all 16 bits of the difference are.
    let unequal = ((difference & LOW) + LOW) | difference;
    let equal = !unequal & !LOW;
    (equal.wrapping_mul(0x0000_2000_4000_8001) >> 60) as u32
}

#[inline]
fn tag(hash: KeyHash) -> u16 {
    (hash.0 as u16).max(1)
}

const EMPTY: u16 = 0;
const MAX_SHARDS: usize = 1024;
const MIN_SHARD_BUCKETS: usize = 1024;

#[cfg(test)]
mod tests;

//! The records of one pool: which are free, and a walk over those that are live.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::common::{FREE, NONE};
use crate::nat::table::record::SessionRecord;
use crate::nat::table::region::Region;
use crate::nat::table::session::SessionId;

/// A range of slots with a list of the free ones; guarded by the pool's lock.
pub(crate) struct Slab {
    first: u32,
    count: u32,
    /// Number of slots of the range that were used at least once. The rest are free without being
    /// in the list.
    used: u32,
    /// Head of the list of free slots.
    free: u32,
    /// Offset at which the next search for a victim starts.
    clock_hand: u32,
}

impl Slab {
    /// Makes a slab over `count` slots from `first` on.
    pub(crate) fn new(first: u32, count: u32) -> Self {
        Self { first, count, used: 0, free: NONE, clock_hand: 0 }
    }

    /// Takes a free slot and starts the next generation of its record.
    pub(crate) fn take<R: SessionRecord>(&mut self, records: &Region<R>) -> Option<u32> {
        let slot = if self.free != NONE {
            let slot = self.free;
            self.free = records[slot as usize].common().next.load(Relaxed);
            slot
        } else if self.used < self.count {
            self.used += 1;
            self.first + self.used - 1
        } else {
            return None;
        };
        records[slot as usize].common().renew();
        Some(slot)
    }

    /// Frees a slot that is in no list of the wheel.
    pub(crate) fn give_back<R: SessionRecord>(&mut self, records: &Region<R>, slot: u32) {
        let record = &records[slot as usize];
        record.common().wheel_slot.store(FREE, Relaxed);
        record.common().next.store(self.free, Relaxed);
        self.free = slot;
    }

    /// Whether an identifier names a live session of this slab.
    pub(crate) fn has<R: SessionRecord>(&self, records: &Region<R>, id: SessionId) -> bool {
        self.is_live(records, id.slot()) && records[id.slot() as usize].common().id(id.slot()) == id
    }

    /// Whether a slot of this slab is in use.
    fn is_live<R: SessionRecord>(&self, records: &Region<R>, slot: u32) -> bool {
        slot - self.first < self.used
            && records[slot as usize].common().wheel_slot.load(Relaxed) != FREE
    }

    /// Finds a live record that `is_victim` accepts among the next `scan` records of the slab.
    pub(crate) fn find_victim<R: SessionRecord>(
        &mut self,
        records: &Region<R>,
        scan: u32,
        is_victim: impl Fn(&R) -> bool,
    ) -> Option<u32> {
        for _ in 0..scan.min(self.used) {
            self.clock_hand = (self.clock_hand + 1) % self.used;
            let slot = self.first + self.clock_hand;
            if self.is_live(records, slot) && is_victim(&records[slot as usize]) {
                return Some(slot);
            }
        }
        None
    }

    /// Calls `visit` for the live records from the `from`-th on and looks at `limit` records at
    /// most. Returns where to continue.
    pub(crate) fn visit<R: SessionRecord>(
        &self,
        records: &Region<R>,
        from: u32,
        limit: u32,
        mut visit: impl FnMut(u32, &R),
    ) -> Option<u32> {
        let end = from.saturating_add(limit).min(self.used);
        for offset in from..end {
            let slot = self.first + offset;
            if self.is_live(records, slot) {
                visit(slot, &records[slot as usize]);
            }
        }
        (end < self.used).then_some(end)
    }
}

//! The records of one pool: which are free, and a walk over those that are live.
//!
//! The records of an *inherited* slab were filled by a process before this one. The slab adopts
//! them one by one, in order, and those that wait for others at last. Meanwhile new sessions get
//! records that are free already: those that the adoption has gone through, and those at the end of
//! the range, because a slab uses its records from the first one on.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::common::{FREE, NONE, WAITING};
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
    /// Number of slots of the range that the slab has adopted or put off: all, unless it is
    /// inherited.
    adopted: u32,
    /// Number of slots of the range that the slab adopts. The slots behind them were free.
    to_adopt: u32,
    /// Slots among them that the slab has put off.
    waiting: Vec<u32>,
}

impl Slab {
    /// Makes a slab over `count` slots from `first` on.
    pub(crate) fn new(first: u32, count: u32) -> Self {
        let (used, free, clock_hand, waiting) = (0, NONE, 0, Vec::new());
        let (adopted, to_adopt) = (count, count);
        Self { first, count, used, free, clock_hand, adopted, to_adopt, waiting }
    }

    /// Makes a slab over `count` slots from `first` on that a process before this one has used.
    pub(crate) fn inherited(first: u32, count: u32) -> Self {
        Self { used: count, adopted: 0, ..Self::new(first, count) }
    }

    /// Returns the next slot to adopt. The caller schedules its session, gives the slot back, or
    /// puts it off.
    pub(crate) fn next_to_adopt(&mut self) -> Option<u32> {
        let slot = self.first + self.adopted;
        (self.adopted < self.to_adopt).then(|| {
            self.adopted += 1;
            slot
        })
    }

    /// Puts off the adoption of a slot until the slab has gone through all others.
    pub(crate) fn put_off<R: SessionRecord>(&mut self, records: &Region<R>, slot: u32) {
        records[slot as usize].common().wheel_slot.store(WAITING, Relaxed);
        self.waiting.push(slot);
    }

    /// Returns a slot that was put off. The caller schedules its session or gives the slot back.
    pub(crate) fn next_waiting(&mut self) -> Option<u32> {
        self.waiting.pop()
    }

    /// Reports whether the slab has adopted a slot of its range.
    pub(crate) fn has_adopted<R: SessionRecord>(&self, records: &Region<R>, slot: u32) -> bool {
        let offset = slot - self.first;
        (offset < self.adopted || offset >= self.to_adopt)
            && !records[slot as usize].common().is_waiting()
    }

    /// Returns the last slot that the slab adopts. [`Self::take`] gives it away if it is free.
    pub(crate) fn last_to_adopt(&self) -> Option<u32> {
        (self.adopted < self.to_adopt).then(|| self.first + self.to_adopt - 1)
    }

    /// Takes a free slot and starts the next generation of its record. The record of
    /// [`Self::last_to_adopt`] must be checked.
    pub(crate) fn take<R: SessionRecord>(&mut self, records: &Region<R>) -> Option<u32> {
        let slot = if self.free != NONE {
            let slot = self.free;
            self.free = records[slot as usize].common().next.load(Relaxed);
            slot
        } else if self.used < self.count {
            self.used += 1;
            self.first + self.used - 1
        } else {
            let last = self.last_to_adopt()?;
            if records[last as usize].common().is_live() {
                return None;
            }
            self.to_adopt -= 1;
            last
        };
        records[slot as usize].common().renew();
        Some(slot)
    }

    /// Reports whether [`Self::take`] would find a free slot.
    pub(crate) fn has_free<R: SessionRecord>(&self, records: &Region<R>) -> bool {
        let is_live = |slot: u32| records[slot as usize].common().is_live();
        self.free != NONE
            || self.used < self.count
            || self.last_to_adopt().is_some_and(|last| !is_live(last))
    }

    /// Frees a slot that is in no list of the wheel.
    pub(crate) fn give_back<R: SessionRecord>(&mut self, records: &Region<R>, slot: u32) {
        let record = &records[slot as usize];
        record.common().wheel_slot.store(FREE, Relaxed);
        record.common().next.store(self.free, Relaxed);
        self.free = slot;
    }

    /// Marks a slot free that the slab has not adopted.
    pub(crate) fn abandon<R: SessionRecord>(&self, records: &Region<R>, slot: u32) {
        records[slot as usize].common().wheel_slot.store(FREE, Relaxed);
    }

    /// Whether an identifier names a live session of this slab.
    pub(crate) fn has<R: SessionRecord>(&self, records: &Region<R>, id: SessionId) -> bool {
        self.is_live(records, id.slot()) && records[id.slot() as usize].common().id(id.slot()) == id
    }

    /// Whether a slot of this slab is in use.
    fn is_live<R: SessionRecord>(&self, records: &Region<R>, slot: u32) -> bool {
        slot - self.first < self.used && records[slot as usize].common().is_live()
    }

    /// Finds a live record that `is_victim` accepts among the next `scan` records of the slab.
    pub(crate) fn find_victim<R: SessionRecord>(
        &mut self,
        records: &Region<R>,
        scan: u32,
        is_victim: impl Fn(&R) -> bool,
    ) -> Option<u32> {
        let (hand, victim) = self.victim_from(self.clock_hand, records, scan, is_victim);
        self.clock_hand = hand;
        victim
    }

    /// Finds what [`Self::find_victim`] would find in a search that starts at `hand`. Returns where
    /// the next search would start.
    pub(crate) fn victim_from<R: SessionRecord>(
        &self,
        mut hand: u32,
        records: &Region<R>,
        scan: u32,
        is_victim: impl Fn(&R) -> bool,
    ) -> (u32, Option<u32>) {
        let known = self.used.min(self.adopted);
        for _ in 0..scan.min(known) {
            hand = (hand + 1) % known;
            let slot = self.first + hand;
            let record = &records[slot as usize];
            if self.is_live(records, slot) && !record.common().is_waiting() && is_victim(record) {
                return (hand, Some(slot));
            }
        }
        (hand, None)
    }

    /// Returns where the next search for a victim starts.
    pub(crate) fn clock_hand(&self) -> u32 {
        self.clock_hand
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

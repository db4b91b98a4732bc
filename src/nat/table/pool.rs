//! Pools: which records are free, and when each live one is to be looked at again.
//!
//! Every worker has a pool of its own and takes records from the others' only when its own is empty. A pool owns a
//! range of ids, a list of free records, and a timing wheel in whose slots the live ones hang:
//!
//! ```text
//!   cursor
//!     v
//!   | slot | slot | slot | ... | slot |     one slot is 128 ms, the wheel 4 min 22 s
//!      |             |
//!    record        record <-> record        doubly linked through the records' own fields
//! ```
//!
//! A packet does not move its record: it only writes the time. When the cursor reaches a record, its real deadline
//! is computed; if that still lies ahead, the record is hung into the slot of that deadline, or the farthest slot.
//! So a record is looked at once per timeout or wheel turn, whichever comes first, and never all at once. A session
//! whose state comes to allow it less time is hung anew at that moment.

use crate::nat::table::record::Record;
use crate::nat::table::region::Region;
use crate::nat::tracking::state::IdleTimeouts;
use crate::time::{Span, Tick};

use std::sync::atomic::Ordering::Relaxed;

/// Free records and wheel of one pool; lives in a mutex.
pub(crate) struct Pool {
    first: u32,
    count: u32,
    /// Records of the range that were ever used; the rest are free without being listed.
    used: u32,
    free: u32,
    slots: Box<[u32]>,
    /// Number, in units of [`SLOT_SPAN`], of the slot to be looked at next.
    cursor: u32,
    /// Where the next search for a victim starts.
    clock_hand: u32,
}

/// What the wheel found.
pub(crate) enum Due {
    /// This record's deadline has passed. It is unlinked.
    Ended(u32),
    /// A record was looked at and hung again, or an empty slot was passed.
    Rescheduled,
    /// Nothing more is due.
    Nothing,
}

impl Pool {
    /// A pool over `count` records from `first` on.
    pub(crate) fn new(first: u32, count: u32, now: Tick) -> Self {
        let slots = vec![NONE; SLOTS as usize].into();
        Self { first, count, used: 0, free: NONE, slots, cursor: slot_number(now), clock_hand: 0 }
    }

    /// Takes a free record.
    pub(crate) fn take(&mut self, records: &Region<Record>) -> Option<u32> {
        if self.free != NONE {
            let id = self.free;
            self.free = records[id as usize].next.load(Relaxed);
            return Some(id);
        }
        (self.used < self.count).then(|| {
            self.used += 1;
            self.first + self.used - 1
        })
    }

    /// Gives back a record that hangs nowhere.
    pub(crate) fn give_back(&mut self, records: &Region<Record>, id: u32) {
        let record = &records[id as usize];
        record.slot.store(FREE, Relaxed);
        record.next.store(self.free, Relaxed);
        self.free = id;
    }

    /// Hangs a record where it will be looked at at `deadline`: at the soonest in the slot after `now`'s, at the
    /// latest in the last one before the cursor comes round again.
    pub(crate) fn schedule(
        &mut self,
        records: &Region<Record>,
        id: u32,
        deadline: Tick,
        now: Tick,
    ) {
        let after_now = slot_number(now).wrapping_sub(self.cursor).wrapping_add(1) & SLOT_NUMBERS;
        // The clock of another worker may be behind the one that has turned this wheel.
        let soonest = if after_now > SLOT_NUMBERS / 2 { 0 } else { after_now };
        let ahead = (soonest + deadline.since(now).0 / SLOT_SPAN.0).min(SLOTS - 1);
        let slot = self.cursor.wrapping_add(ahead) % SLOTS;
        let head = self.slots[slot as usize];
        let record = &records[id as usize];
        record.slot.store(slot as u16, Relaxed);
        record.previous.store(NONE, Relaxed);
        record.next.store(head, Relaxed);
        if head != NONE {
            records[head as usize].previous.store(id, Relaxed);
        }
        self.slots[slot as usize] = id;
    }

    /// Takes a hanging record out of its slot.
    pub(crate) fn cancel(&mut self, records: &Region<Record>, id: u32) {
        let record = &records[id as usize];
        let (next, previous) = (record.next.load(Relaxed), record.previous.load(Relaxed));
        if next != NONE {
            records[next as usize].previous.store(previous, Relaxed);
        }
        if previous != NONE {
            records[previous as usize].next.store(next, Relaxed);
        } else {
            self.slots[usize::from(record.slot.load(Relaxed))] = next;
        }
    }

    /// Whether a record of this pool is in use.
    pub(crate) fn is_live(&self, records: &Region<Record>, id: u32) -> bool {
        id - self.first < self.used && records[id as usize].slot.load(Relaxed) != FREE
    }

    /// Takes one step of the wheel.
    pub(crate) fn step(
        &mut self,
        records: &Region<Record>,
        now: Tick,
        idle_timeouts: &IdleTimeouts,
    ) -> Due {
        let current = slot_number(now);
        let behind = current.wrapping_sub(self.cursor) & SLOT_NUMBERS;
        if behind == 0 || behind > SLOT_NUMBERS / 2 {
            return Due::Nothing;
        }
        if behind > SLOTS {
            // After a long sleep one turn of the wheel sees every record.
            self.cursor = current.wrapping_sub(SLOTS) & SLOT_NUMBERS;
        }
        let id = self.slots[(self.cursor % SLOTS) as usize];
        if id == NONE {
            self.cursor = (self.cursor + 1) & SLOT_NUMBERS;
            return Due::Rescheduled;
        }
        self.cancel(records, id);
        let deadline = records[id as usize].deadline(idle_timeouts);
        if now.reached(deadline) {
            return Due::Ended(id);
        }
        self.schedule(records, id, deadline, now);
        Due::Rescheduled
    }

    /// Looks for a live record that `is_victim` accepts among the next [`EVICTION_SCAN`] of the pool.
    pub(crate) fn find_victim(
        &mut self,
        records: &Region<Record>,
        is_victim: impl Fn(&Record) -> bool,
    ) -> Option<u32> {
        for _ in 0..EVICTION_SCAN.min(self.used) {
            self.clock_hand = (self.clock_hand + 1) % self.used;
            let id = self.first + self.clock_hand;
            if self.is_live(records, id) && is_victim(&records[id as usize]) {
                return Some(id);
            }
        }
        None
    }

    /// Calls `visit` for the live records from the `from`-th on, at most `limit` looked at; returns where to go on.
    pub(crate) fn visit(
        &self,
        records: &Region<Record>,
        from: u32,
        limit: u32,
        mut visit: impl FnMut(u32, &Record),
    ) -> Option<u32> {
        let end = from.saturating_add(limit).min(self.used);
        for offset in from..end {
            let id = self.first + offset;
            if self.is_live(records, id) {
                visit(id, &records[id as usize]);
            }
        }
        (end < self.used).then_some(end)
    }
}

fn slot_number(tick: Tick) -> u32 {
    tick.0 / SLOT_SPAN.0
}

/// End of a list.
pub(crate) const NONE: u32 = u32::MAX;
/// Slot of a record that is free.
const FREE: u16 = u16::MAX;
/// Time that one slot stands for; a power of two, so that the wrap of [`Tick`] falls between slots.
const SLOT_SPAN: Span = Span(128);
const SLOTS: u32 = 2048;
/// Slot numbers are taken modulo this mask plus one, which is a multiple of [`SLOTS`].
const SLOT_NUMBERS: u32 = u32::MAX / SLOT_SPAN.0;
const EVICTION_SCAN: u32 = 64;

#[cfg(test)]
mod tests;

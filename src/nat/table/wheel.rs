//! The timing wheel of one pool: when each live record must be looked at again.
//!
//! ```text
//!   cursor
//!     v
//!   | slot | slot | slot | ... | slot |     one slot is 128 ms, the wheel 4 min 22 s
//!      |             |
//!    record        record <-> record        doubly linked through the records' own fields
//! ```
//!
//! A packet does not move its record: the packet only writes the time. When the cursor reaches a
//! record, the wheel computes the record's real deadline. If the deadline still lies ahead, the
//! wheel links the record into the slot of that deadline, or into the farthest slot. So the wheel
//! looks at each record once per timeout or wheel turn, whichever comes first, and never at all
//! records at once. When a change of state shortens a session's time, the worker reschedules it at
//! that moment.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::common::NONE;
use crate::nat::table::record::SessionRecord;
use crate::nat::table::region::Region;
use crate::nat::tracking::state::IdleTimeouts;
use crate::time::{Span, Tick};

/// The wheel; guarded by the pool's lock.
pub(crate) struct Wheel {
    slots: Box<[u32]>,
    /// Number, in units of [`SLOT_SPAN`], of the slot to look at next.
    cursor: u32,
}

/// Outcome of one step of the wheel.
pub(crate) enum Due {
    /// This record's deadline has passed. The record is unlinked.
    Ended(u32),
    /// The wheel rescheduled a record or passed an empty slot.
    Rescheduled,
    /// Nothing more is due.
    Nothing,
}

impl Wheel {
    /// Makes an empty wheel whose cursor is at `now`.
    pub(crate) fn new(now: Tick) -> Self {
        Self { slots: vec![NONE; SLOTS as usize].into(), cursor: slot_number(now) }
    }

    /// Links a record into the slot of `deadline`: at the soonest into the slot after `now`'s, at
    /// the latest into the last one before the cursor comes round again.
    pub(crate) fn schedule<R: SessionRecord>(
        &mut self,
        records: &Region<R>,
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
        record.common().wheel_slot.store(slot as u16, Relaxed);
        record.common().previous.store(NONE, Relaxed);
        record.common().next.store(head, Relaxed);
        if head != NONE {
            records[head as usize].common().previous.store(id, Relaxed);
        }
        self.slots[slot as usize] = id;
    }

    /// Unlinks a record from its slot.
    pub(crate) fn cancel<R: SessionRecord>(&mut self, records: &Region<R>, id: u32) {
        let record = &records[id as usize];
        let (next, previous) =
            (record.common().next.load(Relaxed), record.common().previous.load(Relaxed));
        if next != NONE {
            records[next as usize].common().previous.store(previous, Relaxed);
        }
        if previous != NONE {
            records[previous as usize].common().next.store(next, Relaxed);
        } else {
            self.slots[usize::from(record.common().wheel_slot.load(Relaxed))] = next;
        }
    }

    /// Takes one step: looks at one record, or passes an empty slot.
    pub(crate) fn step<R: SessionRecord>(
        &mut self,
        records: &Region<R>,
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
        let deadline = records[id as usize].common().deadline(idle_timeouts);
        if now.reached(deadline) {
            return Due::Ended(id);
        }
        self.schedule(records, id, deadline, now);
        Due::Rescheduled
    }
}

fn slot_number(tick: Tick) -> u32 {
    tick.0 / SLOT_SPAN.0
}

/// Time that one slot stands for; a power of two, so that the wrap of [`Tick`] falls between slots.
const SLOT_SPAN: Span = Span(128);
const SLOTS: u32 = 2048;
/// Slot numbers are taken modulo this mask plus one, which is a multiple of [`SLOTS`].
const SLOT_NUMBERS: u32 = u32::MAX / SLOT_SPAN.0;

#[cfg(test)]
mod tests;

//! The ring of buffers that the kernel may read packets into: first in, first out.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use io_uring::types::BufRingEntry;

use crate::io::batch::FrameBuffers;
use crate::packet::BATCH;

/// The slots of a batch, as buffers that a read of the kernel picks from.
pub(super) struct ProvidedBuffers {
    entries: Box<RingPage>,
    /// Address of each slot, where its virtio header starts.
    addresses: Box<[u64]>,
    /// Bytes of a slot from there on.
    length: u32,
    /// Number of entries written so far, modulo 65,536.
    tail: u16,
}

/// One page, as the kernel requires. The first [`BATCH`] entries are used.
#[repr(C, align(4096))]
struct RingPage([RingEntry; 4096 / size_of::<RingEntry>()]);

/// The kernel's `struct io_uring_buf`. The kernel reads it while this process may write the next
/// one.
#[repr(C)]
#[derive(Default)]
struct RingEntry {
    address: AtomicU64,
    length: AtomicU32,
    slot: AtomicU16,
    /// In the first entry the tail of the ring, in all others reserved.
    tail: AtomicU16,
}

impl ProvidedBuffers {
    /// Provides all slots of `batch`, whose memory must stay where it is as long as the kernel
    /// knows the ring.
    pub(super) fn new(batch: &mut FrameBuffers) -> Self {
        let length = batch.slot(0).len() as u32;
        let addresses = (0..BATCH)
            .map(|slot| batch.slot(slot).as_mut_ptr().expose_provenance() as u64)
            .collect();
        let entries = Box::new(RingPage(std::array::from_fn(|_| RingEntry::default())));
        let mut buffers = Self { entries, addresses, length, tail: 0 };
        for slot in 0..BATCH as u16 {
            buffers.give(slot);
        }
        buffers.publish();
        buffers
    }

    /// Address of the ring, for its registration.
    pub(super) fn address(&self) -> u64 {
        (&raw const *self.entries).expose_provenance() as u64
    }

    /// Adds a slot that holds no frame any more. The kernel sees it after the next
    /// [`Self::publish`].
    pub(super) fn give(&mut self, slot: u16) {
        // Relaxed: the kernel reads an entry only when the tail is past it, see publish.
        let entry = &self.entries.0[usize::from(self.tail) % BATCH];
        entry.address.store(self.addresses[usize::from(slot)], Ordering::Relaxed);
        entry.length.store(self.length, Ordering::Relaxed);
        entry.slot.store(slot, Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the slots that were given since the last call.
    pub(super) fn publish(&mut self) {
        // Release pairs with the kernel's acquire: the entries before the tail are complete.
        self.entries.0[0].tail.store(self.tail, Ordering::Release);
    }
}

const _: () = assert!(BATCH.is_power_of_two() && size_of::<RingPage>() == 4096);
const _: () = assert!(BATCH <= 4096 / size_of::<RingEntry>());
const _: () = assert!(size_of::<RingEntry>() == size_of::<BufRingEntry>());
// include/uapi/linux/io_uring.h: struct io_uring_buf, and struct io_uring_buf_ring over its first
// entry.
const _: () = assert!(
    offset_of!(RingEntry, address) == 0
        && offset_of!(RingEntry, length) == 8
        && offset_of!(RingEntry, slot) == 12
        && offset_of!(RingEntry, tail) == 14
);

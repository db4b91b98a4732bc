//! The baseline of memory: the cost of the memory accesses and copies that no translator can avoid.

use natbox::packet::BATCH;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Two arrays with the number of cache lines of a table: one for the index, one for the records.
pub(crate) struct MemoryBaseline {
    index: Vec<Line>,
    records: Vec<Line>,
    random: SmallRng,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

impl MemoryBaseline {
    /// Allocates the cache lines for `sessions` sessions and touches each of them once.
    pub(crate) fn new(sessions: usize) -> Self {
        let lines = || huge(sessions);
        Self { index: lines(), records: lines(), random: SmallRng::seed_from_u64(5) }
    }

    /// Reads a random line of each array for every packet of a batch. The loads may overlap.
    /// Returns the records and their values.
    pub(crate) fn fetch(&mut self) -> [(usize, u64); BATCH] {
        let count = self.records.len() as u64;
        std::array::from_fn(|_| {
            let random: u64 = self.random.random();
            let place = |half: u64| (((half & 0xffff_ffff) * count) >> 32) as usize;
            let (bucket, record) = (place(random), place(random >> 32));
            (record, self.index[bucket].0[0] ^ self.records[record].0[0])
        })
    }

    /// Writes to a record, as a packet refreshes its session.
    pub(crate) fn touch(&mut self, (record, value): (usize, u64)) -> u8 {
        self.records[record].0[1] += 1;
        value as u8
    }
}

/// Allocates lines on huge pages, like the table.
#[allow(unsafe_code, reason = "madvise takes an address; the memory is the vector's own")]
fn huge(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(count);
    // Needed because the advice takes an address.
    // SAFETY: the range is inside the vector's allocation. The advice changes nothing that a
    // program can observe.
    unsafe {
        let page = 2 << 20;
        let start =
            lines.as_mut_ptr().cast::<u8>().map_addr(|address| address.next_multiple_of(page));
        let length = (count * size_of::<Line>()).saturating_sub(page);
        libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE);
    }
    lines.resize(count, Line([1; 8]));
    lines
}

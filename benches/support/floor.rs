//! The floor: what memory and copying cost a translator that has nothing to think about.

use natbox::packet::BATCH;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Two arrays of cache lines, as many as a table has: one for the index, one for the records.
pub struct Floor {
    index: Vec<Line>,
    records: Vec<Line>,
    random: SmallRng,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Floor {
    /// Lines for so many sessions, each touched once.
    pub fn new(sessions: usize) -> Self {
        let lines = || huge(sessions);
        Self { index: lines(), records: lines(), random: SmallRng::seed_from_u64(5) }
    }

    /// Reads a random line of each array for every packet of a batch, the loads free to overlap; their places.
    pub fn fetch(&mut self) -> [(usize, u64); BATCH] {
        let count = self.records.len() as u64;
        std::array::from_fn(|_| {
            let random: u64 = self.random.random();
            let place = |half: u64| (((half & 0xffff_ffff) * count) >> 32) as usize;
            let (bucket, record) = (place(random), place(random >> 32));
            (record, self.index[bucket].0[0] ^ self.records[record].0[0])
        })
    }

    /// Marks a record as seen, as a session is.
    pub fn touch(&mut self, (record, value): (usize, u64)) -> u8 {
        self.records[record].0[1] += 1;
        value as u8
    }
}

/// Memory on huge pages, as the table's is.
#[allow(unsafe_code, reason = "advice on memory of our own")]
fn huge(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(count);
    // SAFETY: the range is the vector's own room; the advice changes nothing that a program can see.
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

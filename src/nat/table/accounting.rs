//! Optional accounting: the start, the packets and the bytes of each session, in a region beside
//! the records. A table without accounting has no such region, and a packet costs one branch more.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::atomic::{AtomicU32, AtomicU64};
use crate::nat::table::region::{Plain, Region, plain};
use crate::nat::tracking::direction::Direction;
use crate::time::Tick;

/// Packets and bytes of a session, indexed by [`Direction::number`].
///
/// A packet counts when it belongs to the session, before the translator may drop the packet. A
/// super-packet counts as one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accounting {
    /// Start of the session. A [`Tick`] older than [`Span::MAX`](crate::time::Span::MAX) is
    /// ambiguous.
    pub start: Tick,
    /// Packets of each direction.
    pub packets: [u64; 2],
    /// Bytes of each direction, IP headers included.
    pub bytes: [u64; 2],
}

/// The accounts of a table, one for each record.
pub(crate) struct Accounts(Region<Account>);

plain! {
    /// One account. The shard of a direction's key guards the counters of the direction.
    #[repr(C, align(64))]
    struct Account {
        start: AtomicU32,
        spare: AtomicU32,
        packets: [AtomicU64; 2],
        bytes: [AtomicU64; 2],
    }
}

impl Accounting {
    /// The account of a session that begins at `start` without a packet.
    pub(crate) fn starting(start: Tick) -> Self {
        Self { start, packets: [0; 2], bytes: [0; 2] }
    }

    /// Counts a packet.
    pub(crate) fn count(&mut self, direction: Direction, bytes: u32) {
        self.packets[direction.number()] += 1;
        self.bytes[direction.number()] += u64::from(bytes);
    }
}

impl Accounts {
    /// Bytes of an account.
    pub(crate) const SIZE: usize = size_of::<Account>();
    /// Offsets of the fields of an account, in bytes.
    pub(crate) const OFFSETS: &'static [usize] = Account::OFFSETS;

    /// Maps the accounts of `capacity` records, in a file if there is one.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub(crate) fn new(capacity: usize, file: Option<&File>) -> io::Result<Self> {
        Ok(Self(Region::map_in(file, capacity)?))
    }

    /// Bytes of the accounts of `capacity` records.
    ///
    /// # Errors
    /// More bytes than an address space has.
    pub(crate) fn bytes(capacity: usize) -> io::Result<u64> {
        Region::<Account>::bytes(capacity)
    }

    /// Sets the account of a new session. The index does not name the session's record yet.
    pub(crate) fn set(&self, slot: u32, accounting: &Accounting) {
        let account = &self.0[slot as usize];
        account.start.store(accounting.start.0, Relaxed);
        for number in 0..2 {
            account.packets[number].store(accounting.packets[number], Relaxed);
            account.bytes[number].store(accounting.bytes[number], Relaxed);
        }
    }

    /// Counts a packet of `bytes` bytes. The caller holds the shard of the direction's key, so no
    /// other worker writes these counters.
    #[inline]
    pub(crate) fn count(&self, slot: u32, direction: Direction, bytes: u32) {
        let (account, number) = (&self.0[slot as usize], direction.number());
        let add = |counter: &AtomicU64, more| {
            counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
        };
        add(&account.packets[number], 1);
        add(&account.bytes[number], u64::from(bytes));
    }

    /// Reads the account of a live session.
    pub(crate) fn read(&self, slot: u32) -> Accounting {
        let account = &self.0[slot as usize];
        let load =
            |counters: &[AtomicU64; 2]| [counters[0].load(Relaxed), counters[1].load(Relaxed)];
        Accounting {
            start: Tick(account.start.load(Relaxed)),
            packets: load(&account.packets),
            bytes: load(&account.bytes),
        }
    }
}

//! The lists of related sessions: their heads, their links and their locks. See
//! [`crate::nat::table::related`].

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};

use crate::nat::table::atomic::AtomicU32;
use crate::nat::table::hash::KeyHash;
use crate::nat::table::region::{Region, plain};

/// The lists of a table.
pub(super) struct RelatedLists {
    /// First record of each list; their number is a power of two.
    pub(super) heads: Region<AtomicU32>,
    /// One for each record.
    pub(super) links: Region<Links>,
    locks: Box<[ListLock]>,
}

plain! {
    /// Neighbours of a record in its list. The lock of the list guards them.
    #[repr(C)]
    pub(super) struct Links {
        pub(super) next: AtomicU32,
        previous: AtomicU32,
    }
}

/// One lock in a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct ListLock(Mutex<()>);

impl RelatedLists {
    /// Maps the lists of `capacity` records.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub(super) fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self {
            heads: Region::map((capacity as usize).max(1).next_power_of_two())?,
            links: Region::map(capacity as usize)?,
            locks: (0..LOCKS).map(|_| ListLock::default()).collect(),
        })
    }

    /// Returns the list of a hash.
    pub(super) fn list_of(&self, KeyHash(hash): KeyHash) -> usize {
        (hash >> 32) as usize & (self.heads.len() - 1)
    }

    /// Locks a list.
    pub(super) fn lock(&self, list: usize) -> MutexGuard<'_, ()> {
        self.locks[list % LOCKS].0.lock()
    }

    /// Puts a record first in its list.
    pub(super) fn link(&self, hash: KeyHash, slot: u32) {
        let list = self.list_of(hash);
        let _locked = self.lock(list);
        let second = self.heads[list].load(Relaxed);
        let links = &self.links[slot as usize];
        links.next.store(second, Relaxed);
        links.previous.store(END, Relaxed);
        if let Some(second) = slot_of(second) {
            self.links[second].previous.store(slot + 1, Relaxed);
        }
        self.heads[list].store(slot + 1, Relaxed);
    }

    /// Takes a record out of its list.
    pub(super) fn unlink(&self, hash: KeyHash, slot: u32) {
        let list = self.list_of(hash);
        let _locked = self.lock(list);
        let links = &self.links[slot as usize];
        let (next, previous) = (links.next.load(Relaxed), links.previous.load(Relaxed));
        let before = match slot_of(previous) {
            Some(previous) => &self.links[previous].next,
            None => &self.heads[list],
        };
        before.store(next, Relaxed);
        if let Some(next) = slot_of(next) {
            self.links[next].previous.store(previous, Relaxed);
        }
    }
}

/// The slot of a link; None: the end of the list.
pub(super) fn slot_of(link: u32) -> Option<usize> {
    link.checked_sub(1).map(|slot| slot as usize)
}

/// End of a list. Other links are slots plus one, because a mapped region begins as zeros.
pub(super) const END: u32 = 0;
/// Locks of all lists.
const LOCKS: usize = 256;

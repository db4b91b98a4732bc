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
    /// Neighbours of a record in its list. The lock of the list guards them. The previous record of
    /// the first one is the last one.
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
        self.insert(list, slot, true);
    }

    /// Puts a record last in its list.
    pub(super) fn link_last(&self, hash: KeyHash, slot: u32) {
        let list = self.list_of(hash);
        let _locked = self.lock(list);
        self.insert(list, slot, false);
    }

    /// Moves a record to the end of its list.
    pub(super) fn move_last(&self, hash: KeyHash, slot: u32) {
        let list = self.list_of(hash);
        let _locked = self.lock(list);
        self.remove(list, slot);
        self.insert(list, slot, false);
    }

    /// Takes a record out of its list.
    pub(super) fn unlink(&self, hash: KeyHash, slot: u32) {
        let list = self.list_of(hash);
        let _locked = self.lock(list);
        self.remove(list, slot);
    }

    fn insert(&self, list: usize, slot: u32, is_first: bool) {
        let (links, link) = (&self.links[slot as usize], slot + 1);
        links.next.store(END, Relaxed);
        let Some(head) = slot_of(self.heads[list].load(Relaxed)) else {
            links.previous.store(link, Relaxed);
            self.heads[list].store(link, Relaxed);
            return;
        };
        let last = self.links[head].previous.load(Relaxed);
        links.previous.store(last, Relaxed);
        self.links[head].previous.store(link, Relaxed);
        if is_first {
            links.next.store(head as u32 + 1, Relaxed);
            self.heads[list].store(link, Relaxed);
        } else if let Some(last) = slot_of(last) {
            self.links[last].next.store(link, Relaxed);
        }
    }

    fn remove(&self, list: usize, slot: u32) {
        let (links, link) = (&self.links[slot as usize], slot + 1);
        let (next, previous) = (links.next.load(Relaxed), links.previous.load(Relaxed));
        let head = self.heads[list].load(Relaxed);
        if head == link {
            self.heads[list].store(next, Relaxed);
        } else if let Some(previous) = slot_of(previous) {
            self.links[previous].next.store(next, Relaxed);
        }
        // Behind the last record comes the first one, whose previous record is the last one.
        let behind = slot_of(next).or_else(|| slot_of(head).filter(|_| head != link));
        if let Some(behind) = behind {
            self.links[behind].previous.store(previous, Relaxed);
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

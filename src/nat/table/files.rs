//! The files of a table whose sessions outlive the process.
//!
//! nat neither opens nor names the files: it says how long they must be, and maps them.

use std::fs::File;
use std::io;

use crate::nat::table::accounting::Accounts;
use crate::nat::table::common::RecordCommon;
use crate::nat::table::index::{Bucket, Index};
use crate::nat::table::pool::record_count;
use crate::nat::table::record::Record;
use crate::nat::table::region::{Plain, Region};

/// The files of a table.
#[derive(Debug)]
pub struct SessionFiles {
    /// The records.
    pub records: File,
    /// The index.
    pub index: File,
    /// The accounts; used only with accounting.
    pub accounts: File,
}

#[cfg(test)]
impl SessionFiles {
    /// Makes files, all zeros, for the tests of a table with accounting.
    pub(crate) fn temporary(capacity: u32) -> Self {
        let SessionFileSizes { records, index, accounts } =
            SessionFileSizes::of(capacity, true).expect("sizes");
        let file = |bytes| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(bytes).expect("space");
            file
        };
        Self { records: file(records), index: file(index), accounts: file(accounts) }
    }
}

/// Lengths of the files of a table, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFileSizes {
    /// Length of the records.
    pub records: u64,
    /// Length of the index.
    pub index: u64,
    /// Length of the accounts.
    pub accounts: u64,
}

impl SessionFileSizes {
    /// Lengths for `capacity` IPv4 sessions.
    ///
    /// # Errors
    /// More bytes than an address space has.
    pub fn of(capacity: u32, accounting: bool) -> io::Result<Self> {
        let records = record_count(capacity);
        Ok(Self {
            records: Region::<Record>::bytes(records)?,
            index: Index::bytes(2 * records)?,
            accounts: if accounting { Accounts::bytes(records)? } else { 0 },
        })
    }
}

/// Describes the layout and the meaning of records, buckets and accounts. Two programs with the
/// same words read each other's files. [`FileFormat`](crate::nat::FileFormat) reads those of other
/// words.
pub fn layout() -> Vec<u64> {
    let sizes =
        [size_of::<Record>(), size_of::<RecordCommon>(), size_of::<Bucket>(), Accounts::SIZE];
    let offsets =
        [Record::OFFSETS, RecordCommon::OFFSETS, Bucket::OFFSETS, Accounts::OFFSETS].concat();
    let layout = sizes.into_iter().chain(offsets).map(|bytes| bytes as u64);
    [MEANING, u64::from(cfg!(target_endian = "little"))].into_iter().chain(layout).collect()
}

/// Counts the changes of what a field means: numbers of states and kinds, hash, window word. With
/// another number, [`crate::nat::table::formats`] needs a reader of the old files.
const MEANING: u64 = 2;

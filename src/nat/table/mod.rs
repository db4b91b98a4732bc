//! The session table: records, index and pools, of fixed capacity.
//!
//! ```text
//!   key    tuples packed for comparison      hash    keyed hash of a key
//!   index  hash -> slots of records          record  64 bytes of one session
//!   slab   free and live slots of a pool     wheel   when each live record is looked at again
//!   pool   a slab and a wheel under a lock   region  the memory of records and index
//!   related  lists of the inbound sessions between two hosts
//! ```
//!
//! Locks are taken in this order and never in another: one pool, then one or two shards of the
//! index, then a list of related sessions. A lookup takes one shard only. A worker frees a record
//! only while it holds the record's pool and after it has removed the record's two entries from the
//! index under their shards. So a worker that found a record under a shard may use the record until
//! it unlocks the shard.

pub(crate) mod accounting;
pub(crate) mod adoption;
pub(crate) mod atomic;
pub(crate) mod checks;
pub(crate) mod common;
pub(crate) mod ending;
pub(crate) mod events;
pub(crate) mod family;
pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod foresight;
pub(crate) mod format_v1;
pub(crate) mod formats;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod listing;
pub(crate) mod lookup;
#[cfg(test)]
mod model;
pub(crate) mod pool;
pub(crate) mod record;
pub(crate) mod region;
pub(crate) mod related;
pub(crate) mod related_lists;
pub(crate) mod restore;
pub(crate) mod session;
pub(crate) mod session_table;
pub(crate) mod slab;
#[cfg(test)]
pub(in crate::nat) mod smp_tests;
#[cfg(test)]
mod tests;
pub(crate) mod verify;
pub(crate) mod wheel;

pub use accounting::Accounting;
pub use events::{SessionChange, SessionEvent, SessionEvents};
pub use family::{Family, V4};
pub use files::{SessionFileSizes, SessionFiles, layout};
pub use filter::{EndpointFilter, Filter, PolicyCondition};
pub use formats::{FileFormat, OldSessions};
pub use listing::{Page, TableCursor};
pub use lookup::{Lookup, Match};
pub use session::{Adopted, EndReason, EndedSession, SessionId, SessionInfo};
pub use session_table::{FirstPacket, InsertError, Table};

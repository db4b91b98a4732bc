//! Address families: what differs between a table of IPv4 sessions and a table of another family.

use crate::nat::table::key::{Key, SessionKey};
use crate::nat::table::record::{Record, SessionRecord};

/// An address family of sessions. Sealed: [`V4`] is the only one so far.
pub trait Family: sealed::Sealed + 'static {
    /// Tuple packed for comparison.
    type Key: SessionKey;
    /// Record of one session, a multiple of 64 bytes.
    type Record: SessionRecord<Key = Self::Key>;
}

/// Tuple of a family.
pub(crate) type TupleOf<F> = <<F as Family>::Key as SessionKey>::Tuple;

/// IPv4: records of 64 bytes, one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V4 {}

impl sealed::Sealed for V4 {}

impl Family for V4 {
    type Key = Key;
    type Record = Record;
}

mod sealed {
    /// Keeps [`Family`](super::Family) to the families of this crate.
    pub trait Sealed {}
}

#[cfg(test)]
mod tests;
